"""Generation: codes from a prior, one after the other, with a key-value cache.

Every image has its own noise, drawn from its own seed on the CPU, and batches have one fixed shape
(the last is padded), so an image's codes do not depend on what else is generated, in which order.
(Another ``batch_size``, device or kind of processor moves scores by about 1e-6, which changes a
draw where two codes are that near to a tie.)

Of given images any cells may be drawn anew: the cells before them condition them. Passes let the
later cells act too: each proposes new codes from some cell on and takes them by the rule of
Metropolis and Hastings (1970), with the likelihood of the later given codes as weight. The more
passes, the nearer the codes come to draws from what the prior holds likely given all cells.

Letters: B rows of a batch, N images, n codes of an image, k of them given, D codes a cell, K
codebook size.
"""
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from prior.fixed_steps import IN_USE
from prior.guidance import Guidance
from prior.samplers import RandomSampler, Sampler
from prior.scoring import Scores
from prior.transformer import Transformer
from tokenizer import configs

SCHEDULES = ("raster", "wavefront")
"""Orders in which the cells of images larger than a prior's own are drawn; see `prior.windows`."""

GOLDEN_RATIO = 0.618033988749895


@dataclass(frozen=True, kw_only=True)
class Generation:
    """How codes are generated.

    Attributes:
        sampler: chooses each code.
        guidance: how closely conditions are followed.
        batch_size: images at a time; part of what makes codes exact.
        cached: keep keys and values; without, every code costs a whole sequence.
        passes: over the cells to draw that have given ones after them; see above.
        schedule: of images larger than the prior's own, a name of `SCHEDULES`: the same codes.
        compile: whether `torch.compile` makes the steps, and a CUDA graph replays them on a GPU; it
            rounds differently. See `prior.fixed_steps`.
    """
    sampler: Sampler = field(default_factory=RandomSampler)
    guidance: Guidance = field(default_factory=Guidance)
    batch_size: int = 32
    cached: bool = True
    passes: int = field(default=0, metadata=configs.LATER)
    schedule: str = field(default="wavefront", metadata=configs.LATER)
    compile: bool = field(default=False, metadata=configs.LATER)

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
        if self.passes < 0:
            raise ValueError(f"passes must be at least 0, got {self.passes}")
        if self.compile and not self.cached:
            raise ValueError("compiled steps keep keys and values: leave out compile, or "
                             f"cached={self.cached}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"no schedule of cells is named {self.schedule!r}; known are "
                             f"{', '.join(SCHEDULES)}")


def generate(model: Transformer, conditions: Mapping[str, np.ndarray],
             seeds: Sequence[Sequence[int]], settings: Generation, given: np.ndarray | None = None,
             hole: np.ndarray | None = None,
             done: Callable[[int], object] = lambda count: None) -> np.ndarray:
    """Generate one image's codes for each seed.

    Args:
        model: in evaluation mode, on the device to use.
        conditions: per condition ``(N, n)`` integers in ``[0, V]`` in the order of the sequence, V
            standing for *not given*.
        seeds: N seeds, each a sequence of non-negative integers; a seed decides its image's noise.
        given: ``(N, k)`` integers, the first codes of each sequence, kept as they are; k < n. With
            ``hole``, all n codes.
        hole: ``(n,)`` bool, the codes to draw; the others are kept. Nothing for all but the first
            k.
        done: called with the number of images finished, after each batch.
    Returns:
        ``(N[, D], h, w)`` int64, as a corpus stores them.
    """
    finished = []
    length = model.layout.target.length
    if given is None:
        given = np.zeros((len(seeds), 0), np.int64)
    if hole is None:
        hole = np.arange(length) >= given.shape[1]
    for first in range(0, len(seeds), settings.batch_size):
        rows = np.arange(first, min(first + settings.batch_size, len(seeds)))
        padded = np.pad(rows, (0, settings.batch_size - len(rows)), "edge")
        batch = {name: codes[padded] for name, codes in conditions.items()}
        start = np.zeros((len(padded), length), np.int64)
        start[:, :given.shape[1]] = given[padded]
        noise = [np.random.default_rng(list(seeds[row])) for row in padded]
        finished.append(generate_batch(model, batch, noise, settings, start, hole)[:len(rows)])
        done(len(rows))
    return model.layout.target.to_stored(np.concatenate(finished))


@torch.inference_mode()
def generate_batch(model: Transformer, conditions: Mapping[str, np.ndarray],
                   noise: Sequence[np.random.Generator], settings: Generation,
                   start: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Codes ``(B, n)`` int64 of one batch; arguments as in `generate`, one noise source a row."""
    device = model.head.weight.device
    tensors = {name: torch.from_numpy(codes.astype(np.int64)).to(device)
               for name, codes in conditions.items()}
    with IN_USE if settings.compile else nullcontext():
        scores = Scores(model, tensors, len(start), settings.guidance, settings.cached,
                        settings.compile)
        filling = Filling(scores, torch.from_numpy(start).to(device), hole, settings.sampler, noise)
        filling.fill()
        for number in range(settings.passes):
            filling.propose((number + 1) * GOLDEN_RATIO % 1)
    return filling.codes.cpu().numpy()


class Filling:
    """A batch of images whose holes are filled.

    Args:
        codes: ``(B, n)`` int64 on the model's device, filled in place.
        hole: ``(n,)`` bool, the codes to draw.
        noise: one source a row.
    """

    def __init__(self, scores: Scores, codes: Tensor, hole: np.ndarray, sampler: Sampler,
                 noise: Sequence[np.random.Generator]) -> None:
        self.codes = codes
        self._scores, self._hole, self._sampler, self._noise = scores, hole, sampler, noise
        self._drawn = np.flatnonzero(hole)
        self._weights: Tensor | None = None

    def fill(self) -> None:
        """Draw every code of the hole from what lies before it."""
        for place in self._drawn:
            self.codes[:, place] = self._draw(self.codes, int(place))

    def propose(self, share: float) -> None:
        """Draw the hole anew after this share of it, and keep what the later codes like better.

        A new filling is accepted with probability min(1, q) for q the ratio of the likelihoods of
        the given codes behind it; what lies before it is the same in both.
        """
        after = np.flatnonzero(~self._hole)
        movable = self._drawn[self._drawn < after.max(initial=-1)]
        if not len(movable):
            return
        first = int(movable[int(share * len(movable))])
        if self._weights is None:
            self._weights = self._weigh(self.codes, int(movable[0]))
        codes = self.codes.clone()
        self._scores.forget(int(movable[0]))
        for place in self._drawn[self._drawn >= first]:
            codes[:, place] = self._draw(codes, int(place))
        weights = self._weigh(codes, first)
        weights[:, :first] = self._weights[:, :first]
        gain = (weights - self._weights).sum(1)
        accepted = gain > -draw_noise(self._noise, 1)[:, 0].to(gain.device)
        self.codes = torch.where(accepted[:, None], codes, self.codes)
        self._weights = torch.where(accepted[:, None], weights, self._weights)

    def _draw(self, codes: Tensor, place: int) -> Tensor:
        scores = self._scores.next(codes, place)
        noise = draw_noise(self._noise, scores.shape[-1]).to(scores.device)
        return self._sampler.choose(scores, noise)

    def _weigh(self, codes: Tensor, first: int) -> Tensor:
        """Log-likelihoods ``(B, n)`` of the given codes from ``first`` on; 0 elsewhere."""
        self._scores.forget(first)
        weights = torch.zeros(codes.shape, device=codes.device)
        weights[:, first:] = self._scores.log_likelihoods(codes, first)
        weights[:, torch.from_numpy(self._hole).to(codes.device)] = 0
        return weights


def draw_noise(noise: Sequence[np.random.Generator], count: int) -> Tensor:
    """``(B, count)`` float32, each row from its own source: exponential, of mean 1."""
    return torch.from_numpy(np.stack([source.standard_exponential(count, np.float32)
                                      for source in noise]))
