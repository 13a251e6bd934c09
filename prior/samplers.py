"""Samplers: the next code from a prior's scores.

A sampler sees the scores of all K codes and one exponential noise value for each; it must use no
other randomness, so that the codes of an image depend on the noise of that image alone. To add one,
subclass `Sampler` here and list it in `SAMPLERS`.

Letters: B rows, K codebook size.
"""
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from tokenizer import configs


@dataclass(frozen=True, kw_only=True)
class Sampler(ABC):
    """Chooses codes; its fields are its settings."""
    name: ClassVar[str]

    @abstractmethod
    def choose(self, scores: Tensor, noise: Tensor) -> Tensor:
        """One code a row.

        Args:
            scores: ``(B, K)`` float32, logits.
            noise: ``(B, K)`` float32, independent draws of the exponential distribution of mean 1.
        Returns:
            ``(B,)`` int64 in ``[0, K)``.
        """


@dataclass(frozen=True, kw_only=True)
class GreedySampler(Sampler):
    """The most likely code; ties go to the lower index."""
    name: ClassVar[str] = "greedy"

    def choose(self, scores: Tensor, noise: Tensor) -> Tensor:
        return scores.argmax(-1)


@dataclass(frozen=True, kw_only=True)
class RandomSampler(Sampler):
    """Draws from the distribution, sharpened and cut as asked.

    Attributes:
        temperature: divides the scores; below 1 sharpens.
        top_k: only the k most likely codes; ``None`` keeps all.
        top_p: only the fewest codes that hold this probability together (Holtzman et al. 2020,
            arXiv:1904.09751); 1 keeps all. Applied after ``top_k``.
        min_p: only codes at least this many times as likely as the most likely one (Nguyen et al.
            2024, arXiv:2407.01082); 0 keeps all.
    """
    name: ClassVar[str] = "random"
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = field(default=0.0, metadata=configs.LATER)

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be more than 0, got {self.temperature}; "
                             "the greedy sampler is its limit at 0")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie in (0, 1], got {self.top_p}")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p must lie in [0, 1], got {self.min_p}")

    def choose(self, scores: Tensor, noise: Tensor) -> Tensor:
        scores = scores / self.temperature
        if self.top_k is not None and self.top_k < scores.shape[-1]:
            scores = keep_top_k(scores, self.top_k)
        if self.top_p < 1:
            scores = keep_top_p(scores, self.top_p)
        if self.min_p:
            scores = keep_min_p(scores, self.min_p)
        # The maximum of scores plus Gumbel noise is a draw; -log(exponential) is Gumbel. Unlike
        # the inverse of the cumulative distribution, it rarely changes with the scores' last bits.
        return (scores - noise.clamp_min(torch.finfo(noise.dtype).tiny).log()).argmax(-1)


def keep_top_k(scores: Tensor, k: int) -> Tensor:
    """Scores ``(B, K)`` with all but the k highest of each row set to minus infinity; ties stay."""
    lowest = scores.topk(k, dim=-1).values[:, -1:]
    return scores.masked_fill(scores < lowest, -torch.inf)


def keep_top_p(scores: Tensor, p: float) -> Tensor:
    """Scores ``(B, K)`` with all set to minus infinity but the fewest that hold probability p."""
    ordered, order = scores.sort(dim=-1, descending=True, stable=True)
    probabilities = ordered.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    surplus = (before >= p).scatter(-1, order, before >= p)
    return scores.masked_fill(surplus, -torch.inf)


def keep_min_p(scores: Tensor, p: float) -> Tensor:
    """Scores ``(B, K)``, minus infinity where less likely than p times the most likely code."""
    return scores.masked_fill(scores < scores.amax(-1, keepdim=True) + math.log(p), -torch.inf)


SAMPLERS: dict[str, type[Sampler]] = {cls.name: cls for cls in (RandomSampler, GreedySampler)}
"""Samplers by name."""
