"""Generation: codes from a prior, one after the other, with a key-value cache.

Every image has its own noise, drawn from its own seed on the CPU, and batches have one fixed shape
(the last is padded), so an image's codes do not depend on what else is generated, in which order.

Letters: B rows of a batch, N images, n codes of an image, k of them given, D codes a cell, K
codebook size.
"""
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from prior.samplers import RandomSampler, Sampler
from prior.transformer import Transformer


@dataclass(frozen=True, kw_only=True)
class Generation:
    """How codes are generated.

    Attributes:
        sampler: chooses each code.
        guidance: 1 follows the conditions as they are; above 1 moves away from what the prior
            says without them (Ho and Salimans 2022, arXiv:2207.12598), at twice the work.
        batch_size: images at a time; part of what makes codes exact.
        cached: keep keys and values; without, every code costs a whole sequence.
    """
    sampler: Sampler = field(default_factory=RandomSampler)
    guidance: float = 1.0
    batch_size: int = 32
    cached: bool = True

    def __post_init__(self) -> None:
        if self.guidance < 0:
            raise ValueError(f"guidance must be at least 0, got {self.guidance}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")


def generate(model: Transformer, conditions: Mapping[str, np.ndarray],
             seeds: Sequence[Sequence[int]], settings: Generation, given: np.ndarray | None = None,
             done: Callable[[int], object] = lambda count: None) -> np.ndarray:
    """Generate one image's codes for each seed.

    Args:
        model: in evaluation mode, on the device to use.
        conditions: per condition ``(N, n)`` integers in ``[0, V]`` in the order of the sequence, V
            standing for *not given*.
        seeds: N seeds, each a sequence of non-negative integers; a seed decides its image's noise.
        given: ``(N, k)`` integers, the first codes of each sequence, kept as they are; k < n.
        done: called with the number of images finished, after each batch.
    Returns:
        ``(N[, D], h, w)`` int64, as a corpus stores them.
    """
    finished = []
    for first in range(0, len(seeds), settings.batch_size):
        rows = np.arange(first, min(first + settings.batch_size, len(seeds)))
        padded = np.pad(rows, (0, settings.batch_size - len(rows)), "edge")
        batch = {name: codes[padded] for name, codes in conditions.items()}
        start = (given[padded] if given is not None
                 else np.zeros((len(padded), 0), np.int64)).astype(np.int64)
        noise = [np.random.default_rng(list(seeds[row])) for row in padded]
        codes = generate_batch(model, batch, noise, settings, start)
        finished.append(codes[:len(rows)])
        done(len(rows))
    return model.layout.target.to_stored(np.concatenate(finished))


@torch.inference_mode()
def generate_batch(model: Transformer, conditions: Mapping[str, np.ndarray],
                   noise: Sequence[np.random.Generator], settings: Generation,
                   given: np.ndarray) -> np.ndarray:
    """Codes ``(B, n)`` int64 of one batch; arguments as in `generate`, one noise source a row."""
    device = model.head.weight.device
    layout, target = model.layout, model.layout.target
    guided = settings.guidance != 1 and bool(layout.conditions)
    tensors = {name: torch.from_numpy(codes.astype(np.int64)).to(device)
               for name, codes in conditions.items()}
    codes = torch.from_numpy(given).to(device)
    cache = model.new_cache(len(codes) * (1 + guided)) if settings.cached else None
    for _ in range(given.shape[1], target.length):
        ids = layout.inputs(tensors, codes)
        if guided:
            ids = torch.cat([ids, layout.inputs({}, codes)])
        if cache is not None:
            ids = ids[:, cache.length:]
        scores = model(ids, cache)[:, -1].float()
        if guided:
            conditional, free = scores.chunk(2)
            scores = free + settings.guidance * (conditional - free)
        draws = draw_noise(noise, target.vocabulary).to(device)
        codes = torch.cat([codes, settings.sampler.choose(scores, draws)[:, None]], 1)
    return codes.cpu().numpy()


def draw_noise(noise: Sequence[np.random.Generator], count: int) -> Tensor:
    """``(B, count)`` float32, each row from its own source: exponential, of mean 1."""
    return torch.from_numpy(np.stack([source.standard_exponential(count, np.float32)
                                      for source in noise]))
