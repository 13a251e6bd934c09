"""Splits hold out what they say, the same keys in any order, and never all of them."""
import pytest

from tokenizer.splits import RULES, Split

KEYS = [f"{number:03d}" for number in range(100)]


@pytest.mark.parametrize("by", RULES)
@pytest.mark.parametrize(("held_out", "count"), [(0, 0), (7, 7), (0.1, 10), (0.001, 1), (0.0, 0),
                                                 (99, 99)])
def test_a_count_or_a_share_is_held_out(held_out: int | float, count: int, by: str) -> None:
    train, kept = Split(held_out=held_out, by=by).divide(KEYS)
    assert len(kept) == count
    assert sorted(train + kept) == KEYS
    assert train == sorted(train) and kept == sorted(kept)


@pytest.mark.parametrize("by", RULES)
def test_neither_order_nor_repeats_matter(by: str) -> None:
    split = Split(held_out=9, by=by)
    assert split.divide([*KEYS[::-1], *KEYS[:50]]) == split.divide(KEYS)


def test_by_name_holds_out_the_last() -> None:
    assert Split(held_out=3, by="name").divide(KEYS[::-1])[1] == ["097", "098", "099"]


def test_by_hash_moves_few_keys_when_others_are_added() -> None:
    before = set(Split(held_out=10).divide(KEYS)[1])
    after = set(Split(held_out=10).divide([*KEYS, "new-1", "new-2"])[1])
    assert len(before & after) >= 8


@pytest.mark.parametrize("held_out", [100, 101, 0.999])
def test_holding_out_all_is_refused(held_out: int | float) -> None:
    with pytest.raises(ValueError, match=f"held_out={held_out} of 100 images leaves none"):
        Split(held_out=held_out).divide(KEYS)


@pytest.mark.parametrize(("wrong", "message"), [
    ({"held_out": 1.0}, r"a count of keys or a share in \[0, 1\), got 1.0"),
    ({"held_out": -1}, "got -1"), ({"held_out": float("nan")}, "got nan"),
    ({"by": "luck"}, "hash or name, got 'luck'")])
def test_impossible_splits_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Split(**wrong)  # type: ignore[arg-type]
