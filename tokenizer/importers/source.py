"""Files of a published model as they were found: their tensors, not yet read, and their config."""
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tokenizer.importers.pickles import Stored

if TYPE_CHECKING:
    from torch import Tensor

Tensors = dict[str, Stored]
"""Tensors of a file by name."""

Shape = tuple[int, ...]

MOST = 1 << 16
"""The greatest side of an image, and the greatest number of groups, that a config may say."""


@dataclass(frozen=True)
class Source:
    """A published model as it was found.

    Attributes:
        url: the file of its weights.
        tensors: what that file holds, by the names it has there.
        settings: the config beside it, JSON-like; empty where none was given or found.
        part: where in the file the tensors were, such as ``ema``; empty at its top.
        ignored: names of functions and classes in the file, none of which was called.
    """
    url: str
    tensors: Tensors
    settings: Mapping[str, Any] = field(default_factory=dict)
    part: str = ""
    ignored: tuple[str, ...] = ()


def has(tensors: Iterable[str], pattern: str) -> bool:
    """Whether a name among ``tensors`` begins with the regular expression ``pattern``."""
    return any(re.match(pattern, name) for name in tensors)


def renamed(tensors: Tensors, rules: Iterable[tuple[str, str]]) -> Tensors:
    """Tensors under new names: every rule, a regular expression and its substitute, in turn."""
    result = {}
    for name, tensor in tensors.items():
        for pattern, substitute in rules:
            name = re.sub(pattern, substitute, name)
        result[name] = tensor
    return result


def without(tensors: Tensors, training: Iterable[str]) -> tuple[Tensors, dict[str, int]]:
    """Tensors apart from those for training, and how many of these there were by first name.

    Args:
        training: regular expressions that the names of tensors for training begin with.
    """
    dropped = {name for name in tensors if any(re.match(rule, name) for rule in training)}
    counts = Counter(name.split(".")[0] if not name.startswith("quantize.") else name
                     for name in dropped)
    return ({name: tensor for name, tensor in tensors.items() if name not in dropped},
            dict(sorted(counts.items())))


def below(tensors: Tensors, room: str) -> Tensors:
    """The tensors whose names begin with ``room.``, without it."""
    return {name[len(room) + 1:]: tensor for name, tensor in tensors.items()
            if name.startswith(f"{room}.")}


def computed(stored: Stored, shape: tuple[int, ...], function: Any) -> Stored:
    """A tensor that is a function of a stored one, of the given shape, made when it is read."""
    return Stored(shape, lambda: function(stored.read()))


def target_of(settings: Mapping[str, Any]) -> str | None:
    """What a config calls its model."""
    model = settings.get("model")
    return str(model["target"]) if isinstance(model, Mapping) and "target" in model else None


def params_of(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a config says of its model."""
    model = settings.get("model")
    params = model.get("params") if isinstance(model, Mapping) else None
    return params if isinstance(params, Mapping) else {}


def settings_in(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The settings that a config has under a name, or none.

    Raises:
        ValueError: it has something else there.
    """
    value = settings.get(name)
    if value is not None and not isinstance(value, Mapping):
        raise ValueError(f"the config says {name} {value!r}, which must be settings by name: give "
                         "the config that belongs to this file")
    return value or {}


def number_in(settings: Mapping[str, Any], name: str, default: float) -> float:
    """The number that a config says, or the default where it says none.

    Raises:
        ValueError: it says something else.
    """
    value = settings.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"the config says {name} {value!r}, which must be a number: give the "
                         "config that belongs to this file")
    return value


def count_in(settings: Mapping[str, Any], name: str, default: int) -> int:
    """The whole number, at least 1 and at most `MOST`, that a config says, or the default.

    Raises:
        ValueError: it says something else.
    """
    value = number_in(settings, name, default)
    if not 1 <= value <= MOST or value != int(value):
        raise ValueError(f"the config says {name} {value}, which must be a whole number from 1 to "
                         f"{MOST}: give the config that belongs to this file")
    return int(value)


def check_settings(said: Mapping[str, Any], found: Mapping[str, Any], url: str) -> None:
    """Refuse a config that is another model's.

    Args:
        said: values of the config; those that are ``None`` were not said.
        found: what the tensors say, by the same names.
    Raises:
        ValueError: they differ; the message names the first difference.
    """
    for name, value in found.items():
        told = said.get(name)
        told = tuple(told) if isinstance(told, list) else told
        if told is not None and told != value:
            raise ValueError(f"the config says {name} {told}, the tensors of {url} say {value}: "
                             "give the config that belongs to this file")


def read_float32(url: str, expected: Mapping[str, Shape],
                 found: Tensors) -> "tuple[dict[str, Tensor], int]":
    """The tensors of a network in float32, and how many were of another type.

    Raises:
        ValueError: some are missing, surplus, of another shape, or not finite.
    """
    import torch
    require_shapes(url, expected, {name: item.shape for name, item in found.items()})
    tensors, converted = {}, 0
    for name, item in found.items():
        tensor = item.read()
        converted += tensor.dtype != torch.float32
        tensors[name] = tensor.float()
        if not torch.isfinite(tensors[name]).all():
            raise ValueError(f"{name} of {url} holds numbers that are not finite: the training "
                             "that wrote it had failed")
    return tensors, converted


def require_shapes(url: str, expected: Mapping[str, Shape], found: Mapping[str, Shape]) -> None:
    """Refuse tensors that are not those of a network, by name and shape.

    Raises:
        ValueError: some are missing, surplus or of another shape.
    """
    missing = sorted(expected.keys() - found.keys())
    surplus = sorted(found.keys() - expected.keys())
    changed = [f"{name} is {found[name]}, not {expected[name]}"
               for name in sorted(expected.keys() & found.keys()) if expected[name] != found[name]]
    if missing or surplus or changed:
        parts = [f"{len(names)} {what}: {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}"
                 for what, names in (("missing", missing), ("surplus", surplus),
                                     ("of another shape", changed)) if names]
        raise ValueError(f"{url} is not a network that this program can express; of its tensors "
                         f"{'; '.join(parts)}")


def first_rows(stored: Stored, count: int) -> Stored:
    """The first rows of a tensor, or all where it has fewer, read when they are."""
    shape = (min(count, stored.shape[0]), *stored.shape[1:])
    return computed(stored, shape, lambda rows: rows[:count])


def alike(tensors: Tensors, names: Sequence[str]) -> bool:
    """Whether all of these tensors are there and have one shape."""
    return (all(name in tensors for name in names)
            and len({tensors[name].shape for name in names}) == 1)


def packed(parts: Iterable[Stored]) -> Stored:
    """Tensors after one another along their first dimension, read when it is."""
    parts = tuple(parts)
    shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
    return Stored(shape, lambda: _joined(parts))


def _joined(parts: tuple[Stored, ...]) -> "Tensor":
    import torch
    return torch.cat([part.read() for part in parts])
