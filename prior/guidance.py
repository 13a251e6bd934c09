"""Classifier-free guidance: how far scores move away from what a prior says with less given.

With conditions c1 to cm in the order of the sequence and a scale w for each (Ho and Salimans 2022,
arXiv:2207.12598; in a chain as in Brooks et al. 2023, arXiv:2211.09800):

    scores = s() + w1 (s(c1) - s()) + w2 (s(c1, c2) - s(c1)) + ...

Equal scales fall together to s() + w (s(c1, ..., cm) - s()), and scales of 1 are the plain prior.
What cancels is not computed: each further stage costs as much as sampling without guidance.

A schedule lets scales rise from 1 while an image is drawn. To add one, write a function of the
share that is drawn, and list it in `SCHEDULES`.
"""
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """How closely conditions are followed.

    Attributes:
        scale: of all conditions; 1 follows them as they are, above 1 more closely, 0 not at all.
        scales: of single conditions by name, in place of ``scale``.
        schedule: a name of `SCHEDULES`.
        power: of the schedule ``power-cosine``; above 1 guidance comes later.
    """
    scale: float = 1.0
    scales: dict[str, float] = field(default_factory=dict)
    schedule: str = "constant"
    power: float = 2.0

    def __post_init__(self) -> None:
        for name, scale in {"": self.scale, **self.scales}.items():
            if not (scale >= 0 and math.isfinite(scale)):
                raise ValueError(f"guidance{name and ' of '}{name} must be a number of at least 0, "
                                 f"got {scale}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"no schedule of guidance is named {self.schedule!r}; known are "
                             f"{', '.join(SCHEDULES)}")
        if not self.power > 0:
            raise ValueError(f"the power of guidance must be more than 0, got {self.power}")

    @property
    def is_plain(self) -> bool:
        """Whether all conditions are followed as they are."""
        return all(scale == 1 for scale in (self.scale, *self.scales.values()))

    def of(self, name: str) -> float:
        """The scale of a condition."""
        return self.scales.get(name, self.scale)

    def strength(self, share: float) -> float:
        """How much of the guidance acts, from 0 to 1, once this share of an image is drawn."""
        return SCHEDULES[self.schedule](share, self.power)

    def chain(self, given: Sequence[str]) -> "Chain":
        """The stages to compute for these conditions, given in the order of the sequence."""
        stages: list[tuple[str, ...]] = [()]
        scales: list[float] = []
        for number, name in enumerate(given, 1):
            if scales and scales[-1] == self.of(name):
                stages[-1] = tuple(given[:number])
            else:
                stages.append(tuple(given[:number]))
                scales.append(self.of(name))
        if scales and scales[0] == 1:
            del stages[0], scales[0]
        while scales and scales[-1] == 0 and self.schedule == "constant":
            del stages[-1], scales[-1]
        return Chain(tuple(stages), tuple(scales), self)


@dataclass(frozen=True)
class Chain:
    """Stages of guidance, from the fewest conditions to the most.

    Attributes:
        stages: S tuples with names of conditions.
        scales: S - 1 scales: of the step from each stage to the next.
        guidance: whose schedule holds.
    """
    stages: tuple[tuple[str, ...], ...]
    scales: tuple[float, ...]
    guidance: Guidance

    def combine(self, scores: Tensor, strength: float | Tensor) -> Tensor:
        """Scores of all stages ``(S, ...)`` as those to sample from, ``(...)``.

        Args:
            strength: of `Guidance.strength`; a tensor is broadcast.
        """
        combined = before = scores[0]
        for scale, stage in zip(self.scales, scores[1:], strict=True):
            combined = combined + (1 + (scale - 1) * strength) * (stage - before)
            before = stage
        return combined


def constant(share: float, power: float) -> float:
    """All of the guidance throughout."""
    return 1.0


def cosine(share: float, power: float) -> float:
    """From none to all, along half a wave of the cosine."""
    return power_cosine(share, 1.0)


def power_cosine(share: float, power: float) -> float:
    """As `cosine`, of a power of the share (Yu et al. 2024, arXiv:2411.00776)."""
    return (1 - math.cos(share ** power * math.pi)) / 2


SCHEDULES: dict[str, Callable[[float, float], float]] = {
    "constant": constant, "cosine": cosine, "power-cosine": power_cosine}
"""Schedules by name: the share drawn and the power to how much of the guidance acts."""
