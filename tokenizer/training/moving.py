"""Moving means of figures that steer training: the same in every process, and saved with it."""
from dataclasses import dataclass

from torch import Tensor


@dataclass
class MovingMean:
    """An exponential moving mean that starts as the plain mean of its first values.

    Attributes:
        decay: weight of the past in one update, in [0, 1); 0 keeps the last value alone.
        value: the mean so far; means nothing while ``count`` is 0.
        count: values taken in.
    """
    decay: float
    value: float = 0.0
    count: int = 0

    @property
    def past(self) -> float:
        """Weight of the past in the next update: 0 at first, then ``n / (n + 1)`` up to decay."""
        return min(self.decay, self.count / (self.count + 1))

    def update(self, value: float) -> None:
        """Take in one more value."""
        self.value = self.past * self.value + (1 - self.past) * value
        self.count += 1

    def blended(self, value: Tensor) -> Tensor:
        """The mean as it would be after ``value``, a scalar; nothing is taken in."""
        return self.past * self.value + (1 - self.past) * value

    def state_dict(self) -> dict[str, float]:
        """What resuming needs."""
        return {"value": self.value, "count": self.count}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Continue from what `state_dict` returned."""
        self.value, self.count = float(state["value"]), int(state["count"])
