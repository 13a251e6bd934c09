"""Configs: frozen dataclasses to and from JSON, strictly, and overrides like ``a.b=3e-4``.

A config is a frozen dataclass whose fields are booleans, numbers, strings, tuples of these, dicts
by name, ``None`` or further configs. What is read back equals what was written; an unknown or
missing name is refused.
"""
import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, TypeVar

Config = TypeVar("Config")

LATER = {"later": True}
"""Metadata of a field that was added to files which must stay equal byte for byte without it."""


def to_dict(config: Any) -> dict[str, Any]:
    """A config as JSON-ready values: nested configs become dicts, tuples become lists.

    A field with `LATER` as metadata is left out at its default.
    """
    values = ((field, getattr(config, field.name)) for field in dataclasses.fields(config))
    return {field.name: _to_json(value) for field, value in values
            if not (field.metadata == LATER and value == field.default)}


def from_dict(cls: type[Config], data: Mapping[str, Any], where: str = "") -> Config:
    """The config of type ``cls`` that ``data`` describes; names left out take their defaults.

    Args:
        where: dotted path of this config in a larger one, for messages.
    Raises:
        ValueError: a name is unknown or missing, or a value has the wrong type or range.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"{where.rstrip('.') or cls.__name__} takes settings by name, got "
                         f"{data!r}")
    hints = _hints(typing.cast(type, cls))
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in data:
        if name not in fields:
            raise ValueError(_unknown_name(where + name, list(fields)))
    for name, field in fields.items():
        if name not in data and _has_no_default(field):
            raise ValueError(f"{where}{name} is missing; {cls.__name__} needs it")
    values = {name: _from_json(hints[name], value, where + name) for name, value in data.items()}
    return cls(**values)


def override(config: Config, assignments: Iterable[str]) -> Config:
    """A copy of ``config`` with values replaced, each given as ``name.inner=value``.

    Values are JSON; a text that is not JSON is taken as a string, and ``1,2,4`` as a tuple.

    Raises:
        ValueError: no ``=``, an unknown name, or a value of the wrong type or range.
    """
    data = dataclasses.asdict(config)  # type: ignore[call-overload]
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        if not separator:
            raise ValueError(f"an override reads name=value, got {assignment!r}")
        *parents, last = name.strip().split(".")
        inner = data
        for depth, parent in enumerate(parents):
            if not isinstance(inner.get(parent), dict):
                raise ValueError(_unknown_name(".".join(parents[:depth + 1]), list(inner)))
            inner = inner[parent]
        if last not in inner:
            raise ValueError(_unknown_name(name, list(inner)))
        inner[last] = parse_value(text)
    return from_dict(type(config), data)


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Leaves of nested dicts and lists of dicts by dotted path; modalities name their specs,
    and buckets are one leaf."""
    if isinstance(value, dict):
        parts = {f"{prefix}.{key}" if prefix else key: item for key, item in value.items()}
    elif isinstance(value, list) and value and isinstance(value[0], dict) and (
            not prefix.endswith(".buckets")):
        parts = {f"{prefix}.{item.get('modality', index)}": item
                 for index, item in enumerate(value)}
    else:
        return {prefix: value}
    return {key: leaf for path, item in parts.items() for key, leaf in flatten(item, path).items()}


def parse_value(text: str) -> Any:
    """The value that a text on the command line means: JSON, ``1,2,4``, ``none``, or the text."""
    text = text.strip()
    names = {"none": None, "None": None, "True": True, "False": False}
    if text in names:
        return names[text]
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return [parse_value(part) for part in text.split(",") if part] if "," in text else text


def require_least(name: str, value: float, least: float) -> None:
    """Refuse a setting below ``least``, an infinite one, or one that is not a number.

    Raises:
        ValueError: names the setting and its value.
    """
    if not least <= value < math.inf:
        finite = " and finite" if value == math.inf else ""
        raise ValueError(f"{name} must be at least {least:g}{finite}, got {value}")


def require_above(name: str, value: float, limit: float = 0.0) -> None:
    """Refuse a setting of ``limit`` or less, an infinite one, or one that is not a number.

    Raises:
        ValueError: names the setting and its value.
    """
    if not limit < value < math.inf:
        finite = " and finite" if value == math.inf else ""
        raise ValueError(f"{name} must be more than {limit:g}{finite}, got {value}")


def canonical_json(data: Any) -> str:
    """JSON with sorted names and no spaces: equal data, equal text."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


@cache
def _hints(cls: type) -> dict[str, Any]:
    """Types of the fields of a config, resolved once: a manifest has thousands of entries."""
    return typing.get_type_hints(cls)


def _to_json(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    if isinstance(value, tuple | list):
        return [_to_json(item) for item in value]
    if isinstance(value, Mapping):
        return {name: _to_json(item) for name, item in value.items()}
    return value


def _from_json(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _from_union(arguments, value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            value = [value]
        items = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(items) != len(value):
            raise ValueError(f"{where} takes {len(items)} values, got {list(value)}")
        return tuple(_from_json(item, part, where) for item, part in zip(items, value, strict=True))
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type, hint), value, where + ".")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is Any or type(value) is hint:
        return value
    if origin is dict and isinstance(value, Mapping):
        return {name: _from_json(arguments[1], item, f"{where}.{name}")
                for name, item in value.items()}
    kind = getattr(hint, "__name__", hint)
    raise ValueError(f"{where} takes a value of type {kind}, got {value!r}")


def _from_union(hints: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in hints:
        return None
    errors = []
    for hint in (hint for hint in hints if hint is not type(None)):
        try:
            return _from_json(hint, value, where)
        except ValueError as error:
            errors.append(str(error))
    raise ValueError("; or ".join(errors) or f"{where} takes no value, got {value!r}")


def _has_no_default(field: "dataclasses.Field[Any]") -> bool:
    return (field.default is dataclasses.MISSING
            and field.default_factory is dataclasses.MISSING)


def _unknown_name(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name.rpartition(".")[2], known, n=1)
    hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"
    return f"unknown setting {name}{hint}"
