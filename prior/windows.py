"""Windows: images larger than a prior's own, drawn cell by cell through a window of its grid.

A cell is in the middle of its window, as far as the window lies within the image (Esser et al.
2021, arXiv:2012.09841, section 3.3): its top is clip(row - h // 2, 0, H - h), likewise for columns.
The prior reads the maps of the window and the codes in it that come before the cell, and the scores
at the cell's place in the window decide. Every cell has noise of its own, from the image's seed and
the cell's number.

A cell needs only the cells of its window before it, so it can be drawn before all of the rows above
are done. ``raster`` draws one cell at a time; ``wavefront`` draws all at once whose windows are
complete: the same codes in fewer steps (an image of 64 x 128 cells and a window of 16 x 16 take
1,136 in place of 8,192).

Maps with coarser grids than the target's move by whole cells of theirs, and the window with them.

Letters: B images, C cells at once, H and W the large grid, h and w the prior's, D codes a cell, n
codes of a window, K codebook size.
"""
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from prior.generate import Generation
from prior.guidance import Guidance
from prior.model import Prior, PriorConfig
from prior.samplers import Sampler
from prior.scoring import given_names
from prior.sequence import LABEL, SequenceLayout
from prior.transformer import Transformer
from tokenizer.schema import CodeSpec, TokenSpec


@dataclass(frozen=True)
class Windows:
    """Where the windows of the cells of a large grid lie.

    Attributes:
        size: H and W.
        window: h and w.
        step: by how many cells a window moves, rows and columns.
    """
    size: tuple[int, int]
    window: tuple[int, int]
    step: tuple[int, int] = (1, 1)

    @classmethod
    def of(cls, layout: SequenceLayout, trained: SequenceLayout) -> "Windows":
        """The windows of a prior's own layout in one of larger grids."""
        grids = [segment.grid for segment in trained.conditions if segment.name != LABEL]
        window = trained.target.grid
        step = tuple(math.lcm(*(side // math.gcd(side, grid[axis]) for grid in grids), 1)
                     for axis, side in enumerate(window))
        for axis in (0, 1):
            if step[axis] > window[axis] - window[axis] // 2:
                raise ValueError("windows need maps of finer grids: one has a cell for every "
                                 f"{step[axis]} of the {window[axis]} cells of the image")
        return cls(layout.target.grid, window, (step[0], step[1]))

    @cached_property
    def tops(self) -> np.ndarray:
        """First row of the window of each row, int64 ``(H,)``."""
        return self._starts(0)

    @cached_property
    def lefts(self) -> np.ndarray:
        """First column of the window of each column, int64 ``(W,)``."""
        return self._starts(1)

    def _starts(self, axis: int) -> np.ndarray:
        centred = np.arange(self.size[axis]) - self.window[axis] // 2
        return np.clip(centred // self.step[axis] * self.step[axis], 0,
                       self.size[axis] - self.window[axis])

    def corners(self, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First row and first column of the windows of cells ``(C,)``, numbered row by row."""
        return self.tops[cells // self.size[1]], self.lefts[cells % self.size[1]]

    def places(self, cells: np.ndarray) -> np.ndarray:
        """Number of each cell within its window, int64 ``(C,)``."""
        tops, lefts = self.corners(cells)
        rows, columns = cells // self.size[1] - tops, cells % self.size[1] - lefts
        return rows * self.window[1] + columns

    def steps(self) -> np.ndarray:
        """The earliest step in which each cell can be drawn, int64 ``(H, W)`` from 0."""
        last = self.lefts + self.window[1] - 1
        steps = np.zeros(self.size, np.int64)
        for row in range(self.size[0]):
            above = steps[row - 1][last] + 1 if row else np.zeros(self.size[1], np.int64)
            # At least one more than the cell before: s[j] = max(above[j], s[j - 1] + 1).
            columns = np.arange(self.size[1])
            steps[row] = np.maximum.accumulate(above - columns) + columns
        return steps

    def order(self, schedule: str, hole: np.ndarray | None = None) -> list[np.ndarray]:
        """The cells of each step, int64; with a hole ``(H, W)`` bool its cells alone."""
        cells = np.arange(self.size[0] * self.size[1])
        if hole is not None:
            cells = cells[hole.reshape(-1)]
        if schedule == "raster":
            return list(cells[:, None])
        steps = self.steps().reshape(-1)[cells]
        cells = cells[np.argsort(steps, kind="stable")]
        return np.split(cells, np.cumsum(np.unique(steps, return_counts=True)[1])[:-1])


def enlarged(config: PriorConfig, image_size: tuple[int, int]) -> PriorConfig:
    """A prior's config for pictures of another height and width in pixels, at least its own.

    Raises:
        ValueError: a side is smaller than the prior's, or not whole in cells of some map.
    """
    own = config.spec[config.target].image_size
    if image_size[0] < own[0] or image_size[1] < own[1]:
        raise ValueError(f"a picture is at least of the prior's {own[0]} x {own[1]} pixels, got "
                         f"{image_size[0]} x {image_size[1]}")
    return dataclasses.replace(config, spec=TokenSpec(codes=tuple(
        _resized(code, own, image_size) for code in config.spec.codes)))


def load_at_size(url: str, device: str, image_size: tuple[int, int] | None) -> Prior:
    """The prior at ``url``, its config for pictures of another size if one is given.

    Raises:
        FileNotFoundError, ValueError: as of `Prior.load` and `enlarged`.
    """
    prior = Prior.load(url, device)
    if image_size is None:
        return prior
    return dataclasses.replace(prior, config=enlarged(prior.config, image_size))


def _resized(code: CodeSpec, own: tuple[int, int], size: tuple[int, int]) -> CodeSpec:
    """A spec whose sides are as many times as long as ``size`` is of ``own``."""
    sides = [*zip(code.grid, own, size, strict=True), *zip(code.image_size, own, size, strict=True)]
    if any(side * new % old for side, old, new in sides):
        cell = [pixels // count for pixels, count in zip(own, code.grid, strict=True)]
        raise ValueError(f"{size[0]} x {size[1]} pixels are no whole number of {code.modality} "
                         f"cells, each of {cell[0]} x {cell[1]}")
    top, left, height, width = (side * new // old for side, old, new in sides)
    return dataclasses.replace(code, grid=(top, left), image_size=(height, width))


class Canvas:
    """B images that are drawn, and what they are given.

    Args:
        layout: of the large grids.
        conditions: per condition that is given, ``(B, n)`` int64 in the order of its large grid.
        codes: ``(B, H * W * D)`` int64, filled in place.
        rows_at_once: most windows that are read in one call.
    """

    def __init__(self, model: Transformer, layout: SequenceLayout, conditions: Mapping[str, Tensor],
                 codes: Tensor, guidance: Guidance, rows_at_once: int) -> None:
        self.windows = Windows.of(layout, model.layout)
        self._model, self._rows_at_once = model, rows_at_once
        self._chain = guidance.chain(given_names(layout, conditions))
        self._maps = {name: given.view(len(codes), *layout[name].grid, layout[name].depth)
                      for name, given in conditions.items()}
        self.codes = codes.view(len(codes), *layout.target.grid, layout.target.depth)

    def groups(self, cells: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
        """The cells that share a place in their windows, and that place; they are read together."""
        places = self.windows.places(cells)
        for place in np.unique(places):
            yield cells[places == place], int(place)

    @torch.inference_mode()
    def scores(self, cells: np.ndarray, place: int, depth: int) -> Tensor:
        """Guided scores ``(B, C, K)`` of code ``depth`` of cells of one group."""
        count = place * self._model.layout.target.depth + depth
        codes = self._cut(self.codes, cells)[:, :count]
        given = {name: self._cut(maps, cells) if name != LABEL
                 else maps.flatten(1).repeat_interleave(len(cells), 0)
                 for name, maps in self._maps.items()}
        parts = [self._read(codes[first:first + self._rows_at_once],
                            {name: rows[first:first + self._rows_at_once]
                             for name, rows in given.items()})
                 for first in range(0, len(codes), self._rows_at_once)]
        by_stage = torch.cat(parts, 1).unflatten(1, (len(self.codes), len(cells)))
        num_cells = self.windows.size[0] * self.windows.size[1]
        strength = [self._chain.guidance.strength(cell / num_cells) for cell in cells]
        return self._chain.combine(by_stage, torch.tensor(strength, device=codes.device)[:, None])

    def _read(self, codes: Tensor, given: Mapping[str, Tensor]) -> Tensor:
        """Scores ``(S, R, K)`` of all stages of guidance for the next code of R windows."""
        layout = self._model.layout
        return torch.stack([
            self._model.next_scores(layout.inputs({name: given[name] for name in stage}, codes))
            for stage in self._chain.stages]).float()

    def _cut(self, grid: Tensor, cells: np.ndarray) -> Tensor:
        """The windows ``(B * C, n)`` of cells ``(C,)`` in a grid ``(B, H', W', D)``."""
        indices = []
        for axis, corner in enumerate(self.windows.corners(cells)):
            size, length = self.windows.size[axis], grid.shape[1 + axis]
            count = self.windows.window[axis] * length // size
            indices.append((corner * length // size)[:, None] + np.arange(count))
        rows, columns = (torch.from_numpy(index).to(grid.device) for index in indices)
        return grid[:, rows[:, :, None], columns[:, None]].flatten(0, 1).flatten(1)


def draw_canvas(canvas: Canvas, seeds: Sequence[Sequence[int]], sampler: Sampler, schedule: str,
                hole: np.ndarray | None = None) -> None:
    """Draw the codes of B images, one seed for each, or those of a hole ``(H, W)`` bool."""
    num_columns = canvas.windows.size[1]
    for step in canvas.windows.order(schedule, hole):
        for cells, place in canvas.groups(step):
            noise = [np.random.default_rng([*seed, int(cell)]) for seed in seeds for cell in cells]
            for depth in range(canvas.codes.shape[-1]):
                scores = canvas.scores(cells, place, depth)
                draws = np.stack([source.standard_exponential(scores.shape[-1], np.float32)
                                  for source in noise])
                chosen = sampler.choose(scores.flatten(0, 1), torch.from_numpy(draws).to(
                    scores.device)).view(scores.shape[:2])
                rows, columns = (torch.from_numpy(index).to(scores.device)
                                 for index in (cells // num_columns, cells % num_columns))
                canvas.codes[:, rows, columns, depth] = chosen


def require_no_cache(settings: Generation) -> None:
    """Refuse what is not for windows, each of which is read anew.

    Raises:
        ValueError: passes or compiled steps are asked for.
    """
    if settings.passes:
        raise ValueError(f"{settings.passes} passes over a hole need pictures of the prior's own "
                         "size; leave out the passes or the size")
    if settings.compile:
        raise ValueError("compiled steps are for pictures of the prior's own size: a window is "
                         "read in whole for each code; leave out compile or the size")


def generate_windows(model: Transformer, layout: SequenceLayout,
                     conditions: Mapping[str, np.ndarray], seeds: Sequence[Sequence[int]],
                     settings: Generation, given: np.ndarray, hole: np.ndarray | None = None,
                     done: Callable[[int], object] = lambda count: None) -> np.ndarray:
    """As `prior.generate.generate`, for images of a larger layout than the model's own.

    The codes of an image are exact for its seed as far as float rounding allows: windows that are
    read together share one shape, and a row of such a call does not depend on the others.

    Returns:
        ``(N[, D], H, W)`` int64, as a corpus stores them.
    Raises:
        ValueError: as of `require_no_cache`.
    """
    require_no_cache(settings)
    device, target = model.head.weight.device, layout.target
    if hole is None:
        hole = np.arange(target.length) >= given.shape[1]
    cells = hole.reshape(*target.grid, target.depth)[..., 0]
    finished = []
    for first in range(0, len(seeds), settings.batch_size):
        rows = slice(first, first + settings.batch_size)
        start = np.zeros((len(seeds[rows]), target.length), np.int64)
        start[:, :given.shape[1]] = given[rows]
        canvas = Canvas(model, layout,
                        {name: torch.from_numpy(codes[rows].astype(np.int64)).to(device)
                         for name, codes in conditions.items()},
                        torch.from_numpy(start).to(device), settings.guidance, settings.batch_size)
        draw_canvas(canvas, seeds[rows], settings.sampler, settings.schedule, cells)
        finished.append(canvas.codes.flatten(1).cpu().numpy())
        done(len(start))
    return target.to_stored(np.concatenate(finished))
