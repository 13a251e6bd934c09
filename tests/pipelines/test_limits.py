"""Limits of failed inputs: numbers, shares, and the words for both."""
import pytest

from pipelines.limits import ErrorLimit


@pytest.mark.parametrize(("value", "num_inputs", "allowed", "words"), [
    (5, 100, 5, "5"), (0, 100, 0, "0"), (0.01, 500, 5, "5 (1%)"), (0.01, 99, 0, "0 (1%)"),
    (0.29, 100, 29, "29 (29%)"), (0.001, 10_000, 10, "10 (0.1%)"), (1.0, 7, 7, "7 (100%)"),
    (1e-9, 5_000_000_000, 5, "5 (1e-07%)"), (None, 7, 6, "6")])
def test_a_limit_is_a_number_or_a_share(value: int | float | None, num_inputs: int, allowed: int,
                                        words: str) -> None:
    limit = ErrorLimit(value)
    assert limit.allowed(num_inputs) == allowed and limit.in_words(num_inputs) == words
    assert not limit.is_exceeded(allowed, num_inputs)
    assert limit.is_exceeded(allowed + 1, num_inputs)


def test_that_all_fail_is_too_many_unless_a_share_of_all_is_allowed() -> None:
    assert all(ErrorLimit(value).is_exceeded(1, 1) for value in (None, 1, 5, 0, 0.99))
    assert not ErrorLimit(1.0).is_exceeded(1, 1)
    assert [value for value in (None, 1, 0.99, 1.0) if ErrorLimit(value).allows_all] == [1.0]


@pytest.mark.parametrize("value", [None, 0, 5, 0.0, 1.0])
def test_where_there_are_no_inputs_none_has_failed(value: int | float | None) -> None:
    assert not ErrorLimit(value).is_exceeded(0, 0)


def test_of_what_is_added_all_may_fail_as_far_as_the_number_allows() -> None:
    assert not any(ErrorLimit(value, may_be_all=True).is_exceeded(3, 3) for value in (None, 3, 1.0))
    assert all(ErrorLimit(value, may_be_all=True).is_exceeded(3, 3) for value in (0, 2, 0.99))


@pytest.mark.parametrize("value", [-1, -0.1, 1.5, float("nan")])
def test_what_is_no_limit_is_refused(value: int | float) -> None:
    with pytest.raises(ValueError, match=f"got {value}"):
        ErrorLimit(value)
