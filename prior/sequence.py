"""The sequence layout: the segments a prior reads and predicts, their ids and their positions.

A sequence is the condition segments (a class label, or the codes of a map), one start token, and
the target's codes but the last. All segments share one table of ids: each takes as many as its
vocabulary and one more, which stands for *not given* in a condition and for *start* in the target.

Positions are those of cells. A map's code carries the position of its cell, and each input of the
target carries the position of the cell it is about to predict, so a model finds what a map says
about the next cell at the very position it is at. Grids of equal size share their positions; a
label has one of its own. To add a kind of segment, give it a `Segment` among the conditions.

Letters: B rows, L positions of a sequence, P of its conditions, n codes of a segment on a grid of h
rows and w columns, V its vocabulary.
"""
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

LABEL = "label"
"""Name of the condition that is a class label; every other condition is a modality."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A part of the sequence.

    Attributes:
        name: ``label`` or a modality.
        grid: rows and columns of its codes; a label is 1 x 1.
        vocabulary: V; its codes lie in ``[0, V)``.
    """
    name: str
    grid: tuple[int, int]
    vocabulary: int

    def __post_init__(self) -> None:
        if min(self.grid) < 1 or self.vocabulary < 1:
            raise ValueError(f"segment {self.name} needs a grid and a vocabulary of at least 1, "
                             f"got {self.grid} and {self.vocabulary}")

    @property
    def length(self) -> int:
        """Codes of the segment, h * w."""
        return self.grid[0] * self.grid[1]

    @property
    def null(self) -> int:
        """The code after the last: *not given* in a condition, *start* in the target."""
        return self.vocabulary


@dataclass(frozen=True)
class SequenceLayout:
    """Condition segments, then the target.

    Attributes:
        conditions: in the order of the sequence.
        target: the codes to predict.
    """
    conditions: tuple[Segment, ...]
    target: Segment

    def __post_init__(self) -> None:
        names = [segment.name for segment in self.segments]
        if len(set(names)) != len(names):
            raise ValueError(f"a sequence holds each segment once, got {', '.join(names)}")

    @property
    def segments(self) -> tuple[Segment, ...]:
        """All segments, the target last."""
        return (*self.conditions, self.target)

    @property
    def prefix_length(self) -> int:
        """P, positions of all conditions together."""
        return sum(segment.length for segment in self.conditions)

    @property
    def length(self) -> int:
        """L, positions of a whole sequence: conditions, start, target without its last code."""
        return self.prefix_length + self.target.length

    @property
    def num_ids(self) -> int:
        """Ids of all segments together."""
        return sum(segment.vocabulary + 1 for segment in self.segments)

    @cached_property
    def offsets(self) -> dict[str, int]:
        """The id of each segment's code 0."""
        starts = np.cumsum([0, *(segment.vocabulary + 1 for segment in self.segments)])
        return {segment.name: int(start)
                for segment, start in zip(self.segments, starts, strict=False)}

    @cached_property
    def segment_ids(self) -> np.ndarray:
        """Which segment each position belongs to, int64 ``(L,)``."""
        lengths = [segment.length for segment in self.segments]
        return np.repeat(np.arange(len(lengths)), lengths)

    @cached_property
    def positions(self) -> np.ndarray:
        """Each position's row in the table of positions, int64 ``(L,)``: cells, not places."""
        starts: dict[object, int] = {}
        num_positions = 0
        for segment in (self.target, *self.conditions):
            if _grid_key(segment) not in starts:
                starts[_grid_key(segment)] = num_positions
                num_positions += segment.length
        return np.concatenate([starts[_grid_key(segment)] + np.arange(segment.length)
                               for segment in self.segments])

    @property
    def num_positions(self) -> int:
        """Rows of the table of positions."""
        return int(self.positions.max()) + 1

    @cached_property
    def coordinates(self) -> np.ndarray:
        """Centre of each position's cell, float32 ``(L, 2)``: row and column in target cells."""
        height, width = self.target.grid
        parts = []
        for segment in self.segments:
            rows, columns = np.indices(segment.grid).reshape(2, -1) + 0.5
            parts.append(np.stack([rows * height / segment.grid[0],
                                   columns * width / segment.grid[1]], -1))
        return np.concatenate(parts).astype(np.float32)

    def visible(self, both_ways: bool) -> np.ndarray:
        """Which positions each position attends to, bool ``(L, L)``.

        Args:
            both_ways: conditions see each other in both directions; else everything is causal.
        """
        mask = np.tri(self.length, dtype=bool)
        if both_ways:
            mask[:self.prefix_length, :self.prefix_length] = True
        return mask

    def inputs(self, conditions: Mapping[str, Tensor], codes: Tensor) -> Tensor:
        """Ids of a sequence up to and including the given codes.

        Args:
            conditions: per condition ``(B, n)`` int64 in ``[0, V]``; V, or a missing name, is *not
                given*.
            codes: ``(B, k)`` int64, the first k codes of the target, k < n.
        Returns:
            Ids ``(B, P + 1 + k)`` int64; the last position is about to predict code k.
        """
        num_rows = len(codes)
        parts = []
        for segment in self.conditions:
            given = conditions.get(segment.name)
            if given is None:
                given = codes.new_full((num_rows, segment.length), segment.null)
            parts.append(given + self.offsets[segment.name])
        start = codes.new_full((num_rows, 1), self.target.null)
        parts.append(torch.cat([start, codes], 1) + self.offsets[self.target.name])
        return torch.cat(parts, 1)


def _grid_key(segment: Segment) -> object:
    """Segments of equal keys share their positions."""
    return segment.name if segment.name == LABEL else segment.grid
