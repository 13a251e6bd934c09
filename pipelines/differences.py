"""What differs between the settings of two plans, in words."""
from typing import Any

from tokenizer import configs
from tokenizer.buckets import size_name
from tokenizer.schema import CodeSpec


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """One line for each setting that changed, or for each whole group of settings.

    What a plan of an early version lacks counts as at its default.
    """
    old, new = (configs.flatten(completed(settings)) for settings in (before, after))
    changes = []
    for name in sorted(old.keys() | new.keys()):
        group = ".".join(name.split(".")[:2])
        if name == "inputs.sha256" or old.get(name) == new.get(name):
            continue
        if name != group and not any(other.startswith(f"{group}.") for other in old):
            changes.append(f"{group} is new")
        elif name != group and not any(other.startswith(f"{group}.") for other in new):
            changes.append(f"{group} is gone")
        else:
            was, now = (shown(name, leaves.get(name)) for leaves in (old, new))
            changes.append(f"{name} was {was}, now {now}")
    return list(dict.fromkeys(changes))


def completed(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings whose specs of codes have what came later at its default."""
    if "codes" not in settings:
        return settings
    return {**settings, "codes": [_completed_spec(spec) for spec in settings["codes"]]}


def shown(name: str, value: Any) -> str:
    """The value of a setting: of buckets their sizes, all of them, of all else see `short`."""
    if value and name.endswith(".buckets"):
        return f"[{', '.join(size_name(bucket['image_size']) for bucket in value)}]"
    return short(value)


def short(value: Any) -> str:
    """A value as Python writes it, at most 120 characters."""
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _completed_spec(spec: dict[str, Any]) -> dict[str, Any]:
    try:
        return configs.to_dict(configs.from_dict(CodeSpec, spec))
    except ValueError:  # a setting that is no more differs under its own name
        return spec
