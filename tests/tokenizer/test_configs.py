"""Configs survive JSON, refuse what they do not know, and take overrides."""
import json
import math
from dataclasses import dataclass, field

import pytest

from tokenizer import configs


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 0.1
    sizes: tuple[int, ...] = (1, 2)
    limit: int | None = None


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    inner: Inner = Inner()
    flag: bool = False
    parts: tuple[Inner, ...] = ()
    by_name: dict[str, Inner] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name == "bad":
            raise ValueError("name must not be bad, got 'bad'")


def test_a_config_survives_json() -> None:
    config = Outer(name="a", inner=Inner(rate=2.0, sizes=(3,), limit=4), flag=True,
                   parts=(Inner(), Inner(rate=1.0)), by_name={"x": Inner(limit=1)})
    text = json.dumps(configs.to_dict(config))
    assert configs.from_dict(Outer, json.loads(text)) == config


def test_left_out_names_take_their_defaults() -> None:
    assert configs.from_dict(Outer, {"name": "a"}) == Outer(name="a")


@pytest.mark.parametrize(("data", "words"), [
    ({"name": "a", "flagg": True}, "unknown setting flagg; did you mean flag"),
    ({"name": "a", "inner": {"rates": 1}}, "unknown setting inner.rates; did you mean rate"),
    ({"name": "a", "zzz": 1}, "unknown setting zzz; known are name, inner"),
    ({}, "name is missing; Outer needs it"),
    ({"name": 3}, "name takes a value of type str, got 3"),
    ({"name": "a", "flag": 1}, "flag takes a value of type bool, got 1"),
    ({"name": "a", "inner": {"rate": "x"}}, "inner.rate takes a value of type float, got 'x'"),
    ({"name": "a", "inner": {"rate": True}}, "inner.rate takes a value of type float, got True"),
    ({"name": "a", "inner": {"limit": 1.5}}, "inner.limit takes a value of type int, got 1.5"),
    ({"name": "a", "inner": 3}, "inner takes settings by name, got 3"),
    ({"name": "a", "by_name": {"x": {"rate": "no"}}}, "by_name.x.rate takes"),
    ({"name": "bad"}, "must not be bad")])
def test_nonsense_is_refused_with_its_place_and_value(data: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        configs.from_dict(Outer, data)


@pytest.mark.parametrize(("assignment", "expected"), [
    ("inner.rate=3e-4", Inner(rate=3e-4)),
    ("inner.rate=2", Inner(rate=2.0)),
    ("inner.sizes=4,5,6", Inner(sizes=(4, 5, 6))),
    ("inner.sizes=[7]", Inner(sizes=(7,))),
    ("inner.sizes=7", Inner(sizes=(7,))),
    ("inner.limit=9", Inner(limit=9)),
    ("inner.limit=none", Inner())])
def test_overrides_replace_one_value(assignment: str, expected: Inner) -> None:
    assert configs.override(Outer(name="a"), [assignment]) == Outer(name="a", inner=expected)


def test_overrides_take_words_and_truth() -> None:
    config = configs.override(Outer(name="a"), ["name=b c", "flag=true"])
    assert config == Outer(name="b c", flag=True)
    assert configs.override(Outer(name="a"), ["flag=True"]).flag is True


@pytest.mark.parametrize(("assignment", "words"), [
    ("inner.rate", "an override reads name=value, got 'inner.rate'"),
    ("inner.rat=1", "unknown setting inner.rat; did you mean rate"),
    ("outer.rate=1", "unknown setting outer"),
    ("name.x=1", "unknown setting name"),
    ("name=bad", "must not be bad")])
def test_wrong_overrides_are_refused(assignment: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        configs.override(Outer(name="a"), [assignment])


@pytest.mark.parametrize(("value", "words"), [
    (-0.5, "must be at least 0, got -0.5"), (math.nan, "must be at least 0, got nan"),
    (math.inf, "must be at least 0 and finite, got inf")])
def test_numbers_below_their_least_or_without_an_end_are_refused(value: float, words: str) -> None:
    configs.require_least("beta", 0, 0)
    with pytest.raises(ValueError, match=f"^beta {words}"):
        configs.require_least("beta", value, 0)
    with pytest.raises(ValueError, match=words.replace("at least", "more than")):
        configs.require_above("beta", value)
    with pytest.raises(ValueError, match="beta must be more than 0, got 0"):
        configs.require_above("beta", 0)


def test_canonical_json_ignores_the_order_of_names() -> None:
    assert configs.canonical_json({"b": 1, "a": "ä"}) == configs.canonical_json({"a": "ä", "b": 1})


def test_settings_are_flattened_with_modalities_as_names_and_buckets_as_one_leaf() -> None:
    buckets = [{"image_size": [8, 16], "grid": [1, 2]}, {"image_size": [8, 8], "grid": [1, 1]}]
    data = {"a": 1, "codes": [{"modality": "image", "grid": [2, 2], "buckets": buckets}],
            "classes": ["x"]}
    assert configs.flatten(data) == {"a": 1, "codes.image.modality": "image",
                                     "codes.image.grid": [2, 2], "codes.image.buckets": buckets,
                                     "classes": ["x"]}
