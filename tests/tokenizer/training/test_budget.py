"""Budgets end by steps, by minutes, or by whichever comes first."""
import pytest

from tokenizer.training.budget import Budget


@pytest.mark.parametrize(("budget", "step", "seconds", "progress"), [
    (Budget(steps=10), 5, 1e9, 0.5),
    (Budget(minutes=2), 10**9, 30, 0.25),
    (Budget(steps=10, minutes=2), 2, 90, 0.75),
    (Budget(steps=10, minutes=2), 9, 30, 0.9),
    (Budget(steps=10), 20, 0, 1.0)])
def test_progress_is_the_share_spent(budget: Budget, step: int, seconds: float,
                                     progress: float) -> None:
    assert budget.progress(step, seconds) == pytest.approx(progress)
    assert budget.is_spent(step, seconds) == (progress == 1.0)


@pytest.mark.parametrize(("settings", "words"), [
    ({}, "needs an end"), ({"steps": 0}, "at least 1, got 0"),
    ({"minutes": -1.0}, "more than 0, got -1"),
    ({"minutes": float("inf")}, "more than 0 and finite, got inf")])
def test_a_training_without_an_end_is_refused(settings: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Budget(**settings)  # type: ignore[arg-type]
