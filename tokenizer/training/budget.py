"""How long a training runs: a number of steps, a number of minutes, or whichever ends first."""
from dataclasses import dataclass

from tokenizer.configs import require_above, require_least


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The length of a training.

    Progress, not the step, drives the learning rate, so that a budget in minutes ends with the
    rate at its final value too. Only a budget in steps alone can be resumed bit for bit.

    Attributes:
        steps: optimiser steps, or no limit.
        minutes: minutes of training time, summed over resumed runs, or no limit.
    """
    steps: int | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        if self.steps is None and self.minutes is None:
            raise ValueError("a training needs an end: give steps, minutes or both")
        if self.steps is not None:
            require_least("steps", self.steps, 1)
        if self.minutes is not None:
            require_above("minutes", self.minutes)

    def progress(self, step: int, seconds: float) -> float:
        """Share of the budget spent after ``step`` steps in ``seconds`` of training, in [0, 1]."""
        by_steps = step / self.steps if self.steps else 0.0
        by_time = seconds / (60 * self.minutes) if self.minutes else 0.0
        return min(1.0, max(by_steps, by_time))

    def is_spent(self, step: int, seconds: float) -> bool:
        """Whether training ends here."""
        return self.progress(step, seconds) >= 1.0
