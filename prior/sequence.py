"""The sequence layout: the segments a prior reads and predicts, their ids and their positions.

A sequence is the condition segments (a class label, or the codes of a map), one start token, and
the target's codes but the last. Codes go cell by cell in raster order: where a cell has several,
all of them come before the next cell's, so that a sequence begins with the top of the image. (A
corpus stores all first codes, then all second ones: `Segment.to_sequence`, `Segment.to_stored`.)

All segments share one table of ids: each takes as many as its vocabulary for every code of a cell,
as each of these has its own codebook, and one more, which stands for *not given* in a condition and
for *start* in the target.

Positions are those of cells. A map's code carries the position of its cell, and each input of the
target carries the position of the cell it is about to predict, so a model finds what a map says
about the next cell at the very position it is at. Grids of equal size share their positions; a
label has one of its own. To add a kind of segment, give it a `Segment` among the conditions.
Other arrangements, those of published models, are the subclasses in `prior.layouts`.

Letters: B rows, L positions of a sequence, P of its conditions, n codes of a segment on a grid of h
rows and w columns with D codes a cell, V its vocabulary.
"""
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

LABEL = "label"
"""Name of the condition that is a class label."""

COORDINATES = "coordinates"
"""Name of the condition that says where in its image a crop lies; see `prior.coordinates`."""

NOT_MAPS = frozenset({LABEL, COORDINATES})
"""Names of conditions that are no codes of a corpus; every other condition is a modality."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A part of the sequence.

    Attributes:
        name: ``label``, ``coordinates`` or a modality.
        grid: rows and columns of its codes; a label is 1 x 1.
        vocabulary: V; its codes lie in ``[0, V)``.
        depth: D, codes a cell.
    """
    name: str
    grid: tuple[int, int]
    vocabulary: int
    depth: int = 1

    def __post_init__(self) -> None:
        if min(*self.grid, self.vocabulary, self.depth) < 1:
            raise ValueError(f"segment {self.name} needs a grid, a vocabulary and a depth of at "
                             f"least 1, got {self.grid}, {self.vocabulary} and {self.depth}")

    @property
    def num_cells(self) -> int:
        """Cells of the grid, h * w."""
        return self.grid[0] * self.grid[1]

    @property
    def length(self) -> int:
        """Codes of the segment, n = h * w * D."""
        return self.num_cells * self.depth

    @property
    def null(self) -> int:
        """The code after the last: *not given* in a condition."""
        return self.vocabulary

    @property
    def null_id(self) -> int:
        """The last of the segment's ids, from its first: *not given*, or *start* in the target."""
        return self.depth * self.vocabulary

    @property
    def num_ids(self) -> int:
        """Ids of the segment: one for each code of each depth, and the null."""
        return self.null_id + 1

    def to_sequence(self, codes: np.ndarray) -> np.ndarray:
        """Codes as a corpus stores them, ``(B[, D], h, w)``, in order: ``(B, n)`` int64."""
        if self.depth == 1:
            return codes.reshape(len(codes), self.num_cells).astype(np.int64)
        by_depth = codes.reshape(len(codes), self.depth, self.num_cells)
        return by_depth.swapaxes(1, 2).reshape(len(codes), self.length).astype(np.int64)

    def to_stored(self, codes: np.ndarray) -> np.ndarray:
        """Codes ``(B, n)`` as a corpus stores them: ``(B, h, w)``, or ``(B, D, h, w)``."""
        by_cell = codes.reshape(len(codes), self.num_cells, self.depth)
        shape = self.grid if self.depth == 1 else (self.depth, *self.grid)
        return by_cell.swapaxes(1, 2).reshape(len(codes), *shape)


@dataclass(frozen=True)
class SequenceLayout:
    """Condition segments, then the target.

    Attributes:
        conditions: in the order of the sequence.
        target: the codes to predict.
        has_positions: each position has a learned vector.
        has_segments: each segment has a learned vector.
        has_nulls: each condition can be left out.
        rotary_base: how far apart the rates are at which `coordinates` turn queries and keys.
    """
    has_positions: ClassVar[bool] = True
    has_segments: ClassVar[bool] = True
    has_nulls: ClassVar[bool] = True
    rotary_base: ClassVar[float] = 100.0
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

    def __getitem__(self, name: str) -> Segment:
        """The segment of this name."""
        return next(segment for segment in self.segments if segment.name == name)

    @property
    def depth(self) -> int:
        """Most codes a cell of any segment."""
        return max(segment.depth for segment in self.segments)

    @property
    def prefix_length(self) -> int:
        """P, positions before the one that is about to predict the first code."""
        return sum(segment.length for segment in self.conditions)

    @property
    def length(self) -> int:
        """L, positions of a whole sequence: conditions, start, target without its last code."""
        return self.prefix_length + self.target.length

    @property
    def num_ids(self) -> int:
        """Ids of all segments together."""
        return sum(segment.num_ids for segment in self.segments)

    @cached_property
    def offsets(self) -> dict[str, int]:
        """The id of each segment's code 0."""
        starts = np.cumsum([0, *(segment.num_ids for segment in self.segments)])
        return {segment.name: int(start)
                for segment, start in zip(self.segments, starts, strict=False)}

    @cached_property
    def segment_ids(self) -> np.ndarray:
        """Which segment each position belongs to, int64 ``(L,)``."""
        lengths = [segment.length for segment in self.segments]
        return np.repeat(np.arange(len(lengths)), lengths)

    @cached_property
    def depth_ids(self) -> np.ndarray:
        """Which code of its cell each position is, or is about to predict, int64 ``(L,)``."""
        return np.concatenate([np.arange(segment.length) % segment.depth
                               for segment in self.segments])

    @cached_property
    def positions(self) -> np.ndarray:
        """Each position's row in the table of positions, int64 ``(L,)``: cells, not places."""
        starts: dict[object, int] = {}
        num_positions = 0
        for segment in (self.target, *self.conditions):
            if _grid_key(segment) not in starts:
                starts[_grid_key(segment)] = num_positions
                num_positions += segment.num_cells
        return np.concatenate([starts[_grid_key(segment)] + _cells(segment)
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
            rows, columns = np.indices(segment.grid).reshape(2, -1)[:, _cells(segment)] + 0.5
            parts.append(np.stack([rows * height / segment.grid[0],
                                   columns * width / segment.grid[1]], -1))
        return np.concatenate(parts).astype(np.float32)

    @cached_property
    def turned(self) -> np.ndarray:
        """What the turned queries and keys of each position are multiplied by, float32 ``(L,)``."""
        return np.ones(self.length, np.float32)

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
        return torch.cat([self.first_inputs(conditions, len(codes), codes.device),
                          self.target_inputs(codes, 1, codes.shape[1])], 1)

    def first_inputs(self, conditions: Mapping[str, Tensor], num_rows: int,
                     device: torch.device) -> Tensor:
        """Ids ``(B, P + 1)`` int64 up to the one that is about to predict the first code."""
        start = torch.full((num_rows, 1), self.target.null_id + self.offsets[self.target.name],
                           device=device)
        return torch.cat([*self._condition_ids(conditions, num_rows, device), start], 1)

    def target_inputs(self, codes: Tensor, first: int, last: int) -> Tensor:
        """Ids ``(B, last - first + 1)`` of the inputs about to predict codes first to last.

        Args:
            codes: ``(B, k)`` int64 with k at least ``last``, the target's first codes. Input i is
                the code before code i; ``first`` is at least 1.
        """
        ids = _ids(self.target, codes[:, first - 1:last], first - 1)
        return ids + self.offsets[self.target.name]

    def _condition_ids(self, conditions: Mapping[str, Tensor], num_rows: int,
                       device: torch.device) -> list[Tensor]:
        """Ids ``(B, n)`` int64 of each condition."""
        parts = []
        for segment in self.conditions:
            given = conditions.get(segment.name)
            if given is None:
                given = torch.full((num_rows, segment.length), segment.null, device=device)
            parts.append(_ids(segment, given) + self.offsets[segment.name])
        return parts


def _ids(segment: Segment, codes: Tensor, first: int = 0) -> Tensor:
    """Ids of a segment's codes ``(B, k)`` from number ``first``, counted from its first id."""
    if segment.depth == 1:
        return codes
    places = torch.arange(first, first + codes.shape[1], device=codes.device)
    depths = places % segment.depth
    return torch.where(codes == segment.null, segment.null_id, codes + depths * segment.vocabulary)


def _cells(segment: Segment) -> np.ndarray:
    """Which cell of its grid each code is of, int64 ``(n,)``."""
    return np.arange(segment.length) // segment.depth


def _grid_key(segment: Segment) -> object:
    """Segments of equal keys share their positions."""
    return segment.name if segment.name == LABEL else segment.grid
