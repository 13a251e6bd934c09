"""How well a prior predicts held-out codes, and what it draws.

Bits per code are the cross-entropy of the target's codes in base 2. They are taken with each row's
own conditions, with those of other rows, and without any: that the first is lowest shows that the
prior uses what it is given.

Letters: N rows, n codes of a segment, h and w of a code grid, D codes a cell, H and W of a picture
in pixels.
"""
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from prior.dataset import Batch, CodeRows, assemble
from prior.generate import Generation, generate
from prior.sequence import LABEL, SequenceLayout
from prior.transformer import Transformer
from tokenizer.pictures import tile

Pictures = Callable[[np.ndarray], np.ndarray]
"""Codes ``(N[, D], h, w)`` of one modality to pictures for people, ``(N, H, W, 3)`` uint8."""

SAMPLES_EACH = 2
"""Samples shown for each held-out row."""


@dataclass(frozen=True, kw_only=True)
class HeldOutBits:
    """Bits per code of held-out rows.

    Attributes:
        num_rows: rows measured.
        matched: with each row's own conditions, or without any where the prior has none.
        shuffled: with the conditions of other rows; ``None`` where the prior has none.
        without: with no conditions given; ``None`` where the prior has none.
    """
    num_rows: int
    matched: float
    shuffled: float | None
    without: float | None

    def scalars(self) -> dict[str, float]:
        """The figures by name."""
        values = {"matched": self.matched, "shuffled": self.shuffled, "without": self.without}
        return {name: value for name, value in values.items() if value is not None}

    def describe(self) -> str:
        """The figures in words."""
        text = f"{self.matched:.3f} bits per held-out code"
        if self.shuffled is not None and self.without is not None:
            text += (f" ({self.shuffled:.3f} with the conditions of other rows, "
                     f"{self.without:.3f} without any)")
        return text


def sequence_loss(model: Callable[[Tensor], Tensor], layout: SequenceLayout,
                  batch: Batch) -> Tensor:
    """Mean cross-entropy of the target's codes in nats, a float32 scalar."""
    scores = model(layout.inputs(batch.conditions, batch.codes[:, :-1]))
    return functional.cross_entropy(scores.flatten(0, 1).float(), batch.codes.flatten())


@torch.no_grad()
def held_out_bits(model: Transformer, rows: CodeRows, batch_size: int, limit: int) -> HeldOutBits:
    """Bits per code of at most ``limit`` rows, spread evenly; the model is in evaluation mode."""
    layout, device = model.layout, model.head.weight.device
    own = spread(len(rows), limit)
    count = len(own)

    def bits(conditions_of: np.ndarray | None) -> float:
        total = 0.0
        for first in range(0, count, batch_size):
            part = slice(first, first + batch_size)
            batch = assemble(rows, layout, own[part])
            given = ({} if conditions_of is None
                     else assemble(rows, layout, conditions_of[part]).conditions)
            batch = Batch(given, batch.codes).to(device)
            total += float(sequence_loss(model, layout, batch)) * len(batch.codes)
        return total / count / math.log(2)

    if not layout.conditions:
        return HeldOutBits(num_rows=count, matched=bits(None), shuffled=None, without=None)
    # Half way round, as neighbours in a corpus may be frames of one film.
    others = np.roll(own, count // 2)
    return HeldOutBits(num_rows=count, matched=bits(own), shuffled=bits(others), without=bits(None))


def sample_sheet(model: Transformer, rows: CodeRows, count: int, pictures: Mapping[str, Pictures],
                 seed: int) -> np.ndarray:
    """Pictures of a few rows: what is given, the original, and samples, one row each.

    Args:
        rows: with the codes of the target and of the maps among the conditions.
        count: most rows shown, spread evenly.
        pictures: by modality; it must hold the target, and conditions it lacks are not shown.
    Returns:
        ``(height, width, 3)`` uint8.
    """
    layout, target = model.layout, model.layout.target.name
    indices = spread(len(rows), count)
    repeated = np.repeat(indices, SAMPLES_EACH)
    conditions = {segment.name: rows.segment(segment, repeated) for segment in layout.conditions}
    codes = generate(model, conditions, [(seed, row) for row in range(len(repeated))], Generation())
    shown = [pictures[segment.name](rows.codes[segment.name][indices])
             for segment in layout.conditions if segment.name != LABEL and segment.name in pictures]
    shown.append(pictures[target](rows.codes[target][indices]))
    samples = pictures[target](codes)
    size = (samples.shape[1], samples.shape[2])
    columns = [resample(column, size) for column in shown]
    columns += [samples[offset::SAMPLES_EACH] for offset in range(SAMPLES_EACH)]
    return tile(np.stack(columns, 1).reshape(-1, *size, 3), len(columns))


def spread(num_rows: int, limit: int) -> np.ndarray:
    """At most ``limit`` of N rows, int64, evenly spread: a corpus is in order of its classes."""
    count = min(limit, num_rows)
    return np.arange(count) * num_rows // count


def resample(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Images ``(N, H, W, 3)`` at another height and width, by nearest pixel."""
    rows, columns = (np.arange(new) * old // new
                     for new, old in zip(size, images.shape[1:3], strict=True))
    return images[:, rows][:, :, columns]
