"""How many inputs of a job may fail before it ends in failure: a number, or a share of them."""
import math
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class ErrorLimit:
    """A limit of failed inputs.

    Attributes:
        value: a number of inputs; or, as a float, a share of them from 0 to 1, where 1.0 allows
            that all fail; or ``None`` for any number short of all.
        may_be_all: whether all may fail, unless ``value`` says less: of what is added to a corpus,
            whose rows show that its settings fit its inputs.
    """
    value: int | float | None = None
    may_be_all: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.value, float):
            if not 0 <= self.value <= 1:
                raise ValueError("a share of inputs that may fail is from 0 to 1, or 0% to 100%, "
                                 f"got {self.value}")
        elif self.value is not None and self.value < 0:
            raise ValueError(f"at least 0 inputs may fail, got {self.value}")

    @property
    def allows_all(self) -> bool:
        """Whether it was asked for that all may fail."""
        return isinstance(self.value, float) and self.value == 1

    def allowed(self, num_inputs: int) -> int:
        """How many of ``num_inputs`` may fail."""
        if isinstance(self.value, float):  # as written: 29% of 100 are 29, whatever floats make it
            return math.floor(Fraction(repr(self.value)) * num_inputs)
        if self.value is None:
            return num_inputs if self.may_be_all else num_inputs - 1
        return self.value

    def is_exceeded(self, num_errors: int, num_inputs: int) -> bool:
        """Whether too many have failed; that all have is too many, but for a share of 1, and where
        `may_be_all`."""
        every_one_may = self.may_be_all or self.allows_all
        return num_errors > 0 and (num_errors > self.allowed(num_inputs)
                                   or (num_errors == num_inputs and not every_one_may))

    def in_words(self, num_inputs: int) -> str:
        """``5``, or ``5 (1%)`` where it is a share."""
        number = str(self.allowed(num_inputs))
        return f"{number} ({100 * self.value:g}%)" if isinstance(self.value, float) else number
