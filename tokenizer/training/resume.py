"""The folder of a training, and going on from what lies there, for tokenizers and priors alike.

Resuming is refused when the settings or the data are not those of the checkpoint, naming what
changed.
"""
import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from tokenizer import checkpoints, configs, storage
from tokenizer.training.processes import fastest_precision
from tokenizer.training.settings import TrainingSettings

Settings = TypeVar("Settings", bound=TrainingSettings)

MAX_SHOWN = 4
"""Changed settings that a message names."""

ABSENT = "absent"


def settle_precision(settings: Settings, out: str) -> Settings:
    """The settings with ``auto`` replaced: by the precision of the training that goes on in
    ``out``, whatever machine it started on, or else by the fastest of this one."""
    if settings.mixed_precision != "auto":
        return settings
    saved = checkpoints.load_state(out)
    precision = (saved["run"]["training"]["mixed_precision"] if saved is not None
                 else fastest_precision())
    return dataclasses.replace(settings, mixed_precision=precision)


def lasting_settings(settings: TrainingSettings, housekeeping: Collection[str]) -> dict[str, Any]:
    """The settings that decide the weights, as JSON values: all but those of ``housekeeping``."""
    return {name: value for name, value in configs.to_dict(settings).items()
            if name not in housekeeping}


def prepare_folder(out: str, kind: str, config: Any) -> None:
    """Write the config of a new training, unless the folder has a state to go on from.

    Args:
        kind: ``tokenizer`` or ``prior``.
        config: its config dataclass.
    Raises:
        ValueError: the folder is not local, or holds a model that cannot be trained on.
    """
    if "://" in out:
        raise ValueError(f"training writes its journal to a local folder, got {out}; copy the "
                         f"finished {kind} there afterwards")
    if storage.exists(storage.join(out, checkpoints.STATE)):
        return
    if storage.exists(storage.join(out, checkpoints.WEIGHTS)):
        raise ValueError(f"{out} holds a {kind} without its training state, which cannot be "
                         "trained on; give another folder")
    checkpoints.save_config(out, kind, config)


def load_progress(out: str, run: Mapping[str, Any],
                  kinds: Mapping[str, type]) -> dict[str, Any] | None:
    """The state that the last checkpoint in ``out`` saved, or nothing where there is none.

    Args:
        run: all that decides the weights, as JSON values; the checkpoint's ``run`` must equal it.
        kinds: config classes of the parts of ``run`` that are configs. Settings that are newer than
            the checkpoint count as at their defaults.
    Raises:
        ValueError: it was trained with other settings or on other data.
    """
    saved = checkpoints.load_state(out)
    if saved is None:
        return None
    before, now = configs.flatten(_completed(saved["run"], run, kinds)), configs.flatten(dict(run))
    changed = [f"{name} was {before.get(name, ABSENT)}, now {now.get(name, ABSENT)}"
               for name in sorted(before.keys() | now.keys(), key=_settings_first)
               if before.get(name, ABSENT) != now.get(name, ABSENT)]
    if changed:
        more = f"; and {len(changed) - MAX_SHOWN} more" if len(changed) > MAX_SHOWN else ""
        raise ValueError(f"{out} was trained with other settings: {'; '.join(changed[:MAX_SHOWN])}"
                         f"{more}; give the same to go on, or another folder to start anew")
    return saved


def _completed(saved: Mapping[str, Any], run: Mapping[str, Any],
               kinds: Mapping[str, type]) -> dict[str, Any]:
    """The saved run with the settings that ``run`` has beyond it at their defaults."""
    completed = dict(saved)
    for name, cls in kinds.items():
        try:
            whole = configs.to_dict(configs.from_dict(cls, saved[name]))
        except ValueError:
            continue  # it has a setting or value that is no more, which is named as a difference
        completed[name] = {key: value for key, value in whole.items() if key in run[name]}
    return completed


def _settings_first(name: str) -> tuple[bool, str]:
    """Orders names so that settings precede what follows from them, the division of the corpus."""
    return name.startswith("corpus."), name
