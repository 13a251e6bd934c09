"""How well a prior predicts held-out codes, and what it draws.

Bits per code are the cross-entropy of the target's codes in base 2. They are taken with each row's
own conditions, with those of other rows, and without any: that the first is lowest shows that the
prior uses what it is given. Where there are several conditions, each is also exchanged by itself.

Letters: N rows, n codes of a segment, h and w of a code grid, D codes a cell, H and W of a picture
in pixels.
"""
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from prior.dataset import Batch, CodeRows, spread
from prior.generate import Generation, generate
from prior.sequence import LABEL, SequenceLayout
from prior.transformer import Transformer
from tokenizer.pictures import tile

Pictures = Callable[[np.ndarray], np.ndarray]
"""Codes ``(N[, D], h, w)`` of one modality to pictures for people, ``(N, H, W, 3)`` uint8."""

GAP = "gap"
"""Begins the names of how much more held-out codes cost with the conditions of other rows."""

SAMPLES_EACH, MOST_AT_ONCE = 2, 32
"""Samples shown for each held-out row, and how many of all are drawn at once."""


@dataclass(frozen=True, kw_only=True)
class HeldOutBits:
    """Bits per code of held-out rows.

    Attributes:
        num_rows: rows measured.
        matched: with each row's own conditions, or without any where the prior has none.
        shuffled: with the conditions of other rows; ``None`` where the prior has none, or all rows
            are crops of one image.
        without: with no conditions given; ``None`` where the prior has none.
        shuffled_each: with one condition of other rows and all others its own, by condition.
        without_each: with one condition not given and all others its own, by condition.
        codes_per_image: codes of the target in one row; 0 where that is not known.
    """
    num_rows: int
    matched: float
    shuffled: float | None
    without: float | None
    shuffled_each: dict[str, float] = field(default_factory=dict)
    codes_per_image: int = 0
    without_each: dict[str, float] = field(default_factory=dict)

    @property
    def bits_per_image(self) -> float:
        """Bits of a whole image with its own conditions."""
        return self.matched * self.codes_per_image

    def scalars(self) -> dict[str, float]:
        """The figures by name; a gap is what codes cost more with other rows' conditions."""
        values = {"matched": self.matched, "shuffled": self.shuffled, "without": self.without}
        if self.codes_per_image:
            values["bits_per_image"] = self.bits_per_image
        if self.shuffled is not None:
            values[GAP] = self.shuffled - self.matched
        values |= {f"{GAP}_{name}": bits - self.matched
                   for name, bits in self.shuffled_each.items()}
        values |= {f"without_{name}": bits for name, bits in self.without_each.items()}
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


def held_out_bits(model: Transformer, rows: CodeRows, batch_size: int, limit: int,
                  drop_each: bool = False,
                  done: Callable[[int], object] = lambda count: None) -> HeldOutBits:
    """Bits per code of at most ``limit`` rows, spread evenly; the model is in evaluation mode.

    Args:
        drop_each: leave out each condition by itself too.
        done: called with the number of rows of each batch, `num_passes` times for each row.
    """
    layout, own = model.layout, spread(len(rows), limit)
    names = [segment.name for segment in layout.conditions]
    bits = functools.partial(_bits, model, rows, own, batch_size, done)
    matched = {name: own for name in names}
    # Half way round, as neighbours in a corpus may be frames of one film.
    has_others = len({rows.keys[row] for row in own}) > 1
    others = {name: np.roll(own, len(own) // 2) for name in names if has_others}
    shuffled = bits(others) if others else None
    without = bits({}) if names and layout.has_nulls else None
    each = {name: bits({**matched, name: others[name]}) if len(names) > 1 else shuffled
            for name in others}
    dropped = {name: bits({other: own for other in names if other != name})
               for name in names if drop_each and layout.has_nulls and len(names) > 1}
    return HeldOutBits(num_rows=len(own), matched=bits(matched), shuffled=shuffled,
                       without=without, shuffled_each={name: value for name, value in each.items()
                                                       if value is not None},
                       codes_per_image=layout.target.length, without_each=dropped)


def num_passes(layout: SequenceLayout, drop_each: bool = False) -> int:
    """How often `held_out_bits` reads each row, of several images."""
    each = len(layout.conditions) if len(layout.conditions) > 1 else 0
    nulls = layout.has_nulls and bool(layout.conditions)
    return 1 + bool(layout.conditions) + nulls + each + (each if drop_each and nulls else 0)


@torch.no_grad()
def _bits(model: Transformer, rows: CodeRows, own: np.ndarray, batch_size: int,
          done: Callable[[int], object], conditions_of: Mapping[str, np.ndarray]) -> float:
    """Bits per code of the rows ``own``, with the conditions of other rows, by condition."""
    layout, device, total = model.layout, model.head.weight.device, 0.0
    for first in range(0, len(own), batch_size):
        part = slice(first, first + batch_size)
        codes = torch.from_numpy(rows.segment(layout.target, own[part]))
        given = {name: torch.from_numpy(rows.segment(layout[name], others[part]))
                 for name, others in conditions_of.items()}
        batch = Batch(given, codes).to(device)
        total += float(sequence_loss(model, layout, batch)) * len(codes)
        done(len(codes))
    return total / len(own) / math.log(2)


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
    seeds = [(seed, row) for row in range(len(repeated))]
    codes = generate(model, conditions, seeds, Generation(batch_size=min(len(seeds), MOST_AT_ONCE)))
    shown = [pictures[segment.name](rows.codes[segment.name][indices])
             for segment in layout.conditions if segment.name != LABEL and segment.name in pictures]
    shown.append(pictures[target](rows.codes[target][indices]))
    samples = pictures[target](codes)
    size = (samples.shape[1], samples.shape[2])
    columns = [resample(column, size) for column in shown]
    columns += [samples[offset::SAMPLES_EACH] for offset in range(SAMPLES_EACH)]
    return tile(np.stack(columns, 1).reshape(-1, *size, 3), len(columns))


def resample(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Images ``(N, H, W, 3)`` at another height and width, by nearest pixel."""
    rows, columns = (np.arange(new) * old // new
                     for new, old in zip(size, images.shape[1:3], strict=True))
    return images[:, rows][:, :, columns]
