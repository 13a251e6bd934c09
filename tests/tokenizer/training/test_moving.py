"""A moving mean starts as the plain mean, then forgets."""
import pytest
import torch

from tokenizer.training.moving import MovingMean


def test_the_first_values_are_averaged_evenly_and_later_ones_by_the_decay() -> None:
    mean = MovingMean(decay=0.75)
    for value in (4.0, 8.0, 0.0, 12.0):
        mean.update(value)
    assert mean.value == pytest.approx((4 + 8 + 0 + 12) / 4)
    mean.update(10.0)  # the fifth: 4 / 5 of the past would be more than the decay
    assert mean.value == pytest.approx(0.75 * 6 + 0.25 * 10)


def test_one_large_value_moves_a_settled_mean_by_its_share_alone() -> None:
    mean = MovingMean(decay=0.9, value=1.0, count=100)
    assert mean.blended(torch.tensor(11.0)).item() == pytest.approx(2.0)
    assert (mean.value, mean.count) == (1.0, 100)


def test_without_decay_the_last_value_stands() -> None:
    mean = MovingMean(decay=0.0)
    mean.update(3.0)
    mean.update(5.0)
    assert mean.value == 5.0


def test_a_stored_mean_goes_on_exactly() -> None:
    mean, again = MovingMean(decay=0.9), MovingMean(decay=0.9)
    for value in (0.1, 0.7):
        mean.update(value)
    again.load_state_dict(mean.state_dict())
    mean.update(1 / 3)
    again.update(1 / 3)
    assert again == mean
