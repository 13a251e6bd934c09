"""Windows slide as published, the wavefront draws what the raster draws, and maps go along."""
import numpy as np
import pytest
import torch
from test_transformer import DEEP_LAYOUT, LAYOUT, build

from prior.generate import Generation, generate
from prior.guidance import Guidance
from prior.likelihood import log_likelihoods
from prior.samplers import RandomSampler
from prior.sequence import LABEL, Segment, SequenceLayout
from prior.windows import Windows, generate_windows

GRID = (4, 4)
SQUARE = SequenceLayout((Segment(name=LABEL, grid=(1, 1), vocabulary=5),
                         Segment(name="depth", grid=GRID, vocabulary=6),
                         Segment(name="low_res", grid=(2, 2), vocabulary=3)),
                        Segment(name="image", grid=GRID, vocabulary=9))


def resized(layout: SequenceLayout, factors: tuple[int, int]) -> SequenceLayout:
    def larger(segment: Segment) -> Segment:
        grid = tuple(side * factor for side, factor in zip(segment.grid, factors, strict=True))
        return segment if segment.name == LABEL else Segment(
            name=segment.name, grid=(grid[0], grid[1]), vocabulary=segment.vocabulary,
            depth=segment.depth)
    return SequenceLayout(tuple(map(larger, layout.conditions)), larger(layout.target))


def drawn(layout: SequenceLayout, num_rows: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {segment.name: generator.integers(0, segment.vocabulary, (num_rows, segment.length))
            for segment in layout.conditions}


def draw(trained: SequenceLayout, factors: tuple[int, int], num_rows: int = 2,
         given: np.ndarray | None = None, hole: np.ndarray | None = None,
         **settings: object) -> np.ndarray:
    layout = resized(trained, factors)
    start = np.zeros((num_rows, 0), np.int64) if given is None else given
    return generate_windows(build(trained), layout, drawn(layout, num_rows),
                            [(5, row) for row in range(num_rows)], Generation(**settings), start,
                            hole)


def published_local(index: int, size: int, window: int = 16) -> int:
    """Place of a cell in its window along one axis, as taming's make_samples chooses it."""
    if index <= window // 2:
        return index
    return window - (size - index) if size - index < window // 2 else window // 2


@pytest.mark.parametrize("size", [16, 17, 24, 40])
def test_a_cell_lies_in_its_window_where_the_published_code_puts_it(size: int) -> None:
    windows = Windows((size, 16), (16, 16))
    found = [row - int(top) for row, top in enumerate(windows.tops)]
    assert found == [published_local(row, size) for row in range(size)]
    assert not windows.lefts.any()


def test_the_wavefront_of_64_x_128_cells_takes_1136_steps() -> None:
    windows = Windows((64, 128), (16, 16))
    assert len(windows.order("raster")) == 8192 and len(windows.order("wavefront")) == 1136


@pytest.mark.parametrize(("size", "window", "step"), [
    ((7, 9), (4, 4), (1, 1)), ((8, 12), (4, 4), (2, 2)), ((3, 11), (3, 5), (1, 1)),
    ((9, 4), (4, 4), (1, 1)), ((6, 6), (2, 3), (1, 1))])
def test_every_cell_is_drawn_once_and_after_all_that_its_window_reads(
        size: tuple[int, int], window: tuple[int, int], step: tuple[int, int]) -> None:
    windows = Windows(size, window, step)
    order = windows.order("wavefront")
    assert sorted(np.concatenate(order).tolist()) == list(range(size[0] * size[1]))
    steps = windows.steps()
    for cell in range(size[0] * size[1]):
        row, column = divmod(cell, size[1])
        top, left = windows.tops[row], windows.lefts[column]
        assert top <= row < top + window[0] and left <= column < left + window[1]
        assert top % step[0] == 0 and left % step[1] == 0
        read = [steps[r, c] for r in range(top, row + 1) for c in range(left, left + window[1])
                if (r, c) < (row, column)]
        # The earliest step possible: directly after the last of them, in the first if none.
        assert steps[row, column] == max(read, default=-1) + 1


@pytest.mark.parametrize("trained", [SQUARE, SequenceLayout((), SQUARE.target), DEEP_LAYOUT])
@pytest.mark.parametrize("guidance", [Guidance(), Guidance(scale=2.0, schedule="cosine")])
def test_the_wavefront_draws_the_codes_of_the_raster(trained: SequenceLayout,
                                                     guidance: Guidance) -> None:
    raster, wavefront = (draw(trained, (2, 3), schedule=schedule, guidance=guidance)
                         for schedule in ("raster", "wavefront"))
    np.testing.assert_array_equal(wavefront, raster)
    assert len(np.unique(raster)) > 3 and (raster[0] != raster[1]).any()


def test_codes_of_an_image_do_not_depend_on_company_or_batch_size() -> None:
    both = draw(SQUARE, (2, 2))
    layout = resized(SQUARE, (2, 2))
    second = {name: rows[1:] for name, rows in drawn(layout, 2).items()}
    alone = generate_windows(build(SQUARE), layout, second, [(5, 1)], Generation(batch_size=3),
                             np.zeros((1, 0), np.int64))
    np.testing.assert_array_equal(alone, both[1:])


def test_each_cell_is_drawn_from_its_own_window() -> None:
    """Every code again by hand: the plain model on the window cut out, with the cell's noise."""
    layout, model, sampler = resized(SQUARE, (2, 2)), build(SQUARE), RandomSampler()
    given = drawn(layout, 2)
    codes = draw(SQUARE, (2, 2), sampler=sampler)
    depth = given["depth"].reshape(2, 8, 8)
    low = given["low_res"].reshape(2, 4, 4)
    for image, row, column in ((0, 0, 0), (1, 3, 5), (0, 7, 7), (1, 4, 2)):
        # A step of 2, as a cell of the low resolution covers 2 x 2 of the image's.
        top, left = (min(max((place - 2) // 2 * 2, 0), 4) for place in (row, column))
        cut = {LABEL: given[LABEL][image:image + 1],
               "depth": depth[image, top:top + 4, left:left + 4].reshape(1, -1),
               "low_res": low[image, top // 2:top // 2 + 2, left // 2:left // 2 + 2].reshape(1, -1)}
        before = (row - top) * 4 + column - left
        window = codes[image, top:top + 4, left:left + 4].reshape(1, -1)[:, :before]
        with torch.no_grad():
            ids = SQUARE.inputs({name: torch.from_numpy(part) for name, part in cut.items()},
                                torch.from_numpy(window))
            scores = model(ids)[:, -1]
        noise = np.random.default_rng([5, image, row * 8 + column])
        noise = torch.from_numpy(noise.standard_exponential((1, 9), np.float32))
        assert sampler.choose(scores, noise).item() == codes[image, row, column]


@pytest.mark.parametrize("schedule", ["raster", "wavefront"])
def test_an_image_is_continued_beyond_its_given_cells(schedule: str) -> None:
    given = np.random.default_rng(2).integers(0, 9, (2, 64))
    hole = np.ones((8, 8), bool)
    hole[2:6, 1:5] = False
    found = draw(SQUARE, (2, 2), given=given, hole=hole.reshape(-1), schedule=schedule)
    np.testing.assert_array_equal(found[:, ~hole], given.reshape(2, 8, 8)[:, ~hole])
    np.testing.assert_array_equal(found, draw(SQUARE, (2, 2), given=given, hole=hole.reshape(-1)))
    rows = draw(SQUARE, (2, 2), given=given[:, :16], schedule=schedule)
    np.testing.assert_array_equal(rows[:, :2].reshape(2, -1), given[:, :16])


def test_likelihoods_in_windows_are_those_the_codes_were_drawn_with() -> None:
    layout, model = resized(SQUARE, (1, 2)), build(SQUARE)
    given = drawn(layout, 3)
    codes = draw(SQUARE, (1, 2), num_rows=3).reshape(3, -1)
    logs = log_likelihoods(model, layout, given, codes, 2)
    assert logs.shape == (3, 32) and logs.dtype == np.float32
    left = {LABEL: given[LABEL], "depth": given["depth"].reshape(3, 4, 8)[:, :, :4].reshape(3, -1),
            "low_res": given["low_res"].reshape(3, 2, 4)[:, :, :2].reshape(3, -1)}
    window = codes.reshape(3, 4, 8)[:, :, :4].reshape(3, -1)
    plain = log_likelihoods(model, SQUARE, left, window, 2).reshape(3, 4, 4)
    np.testing.assert_allclose(logs.reshape(3, 4, 8)[:, :, :3], plain[:, :, :3], atol=1e-4)


def test_likelihoods_are_the_logs_of_what_the_model_says() -> None:
    model, given = build(), drawn(LAYOUT, 3)
    codes = generate(model, given, [(row,) for row in range(3)], Generation()).reshape(3, -1)
    logs = log_likelihoods(model, LAYOUT, given, codes, 2)
    tensors = {name: torch.from_numpy(rows) for name, rows in given.items()}
    with torch.no_grad():
        scores = model(LAYOUT.inputs(tensors, torch.from_numpy(codes[:, :-1])))
    expected = scores.log_softmax(-1).gather(-1, torch.from_numpy(codes)[..., None])[..., 0]
    np.testing.assert_allclose(logs, expected.numpy(), atol=1e-4)


def test_maps_too_coarse_for_windows_are_refused() -> None:
    coarse = SequenceLayout((Segment(name="low_res", grid=(1, 1), vocabulary=3),), SQUARE.target)
    with pytest.raises(ValueError, match="windows need maps of finer grids: one has a cell for"):
        Windows.of(resized(coarse, (2, 2)), coarse)


def test_compiled_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="compiled steps are for pictures of the prior's own size"):
        draw(SQUARE, (2, 2), compile=True)


def test_passes_are_refused() -> None:
    with pytest.raises(ValueError, match="2 passes over a hole need pictures of the prior's own"):
        draw(SQUARE, (2, 2), passes=2)
