"""Cutouts lie in the image, depend on their generator alone, and pass gradients on."""
import dataclasses
import itertools

import numpy as np
import pytest
import torch

from clip_guidance.cutouts import CutoutConfig, _corners, cut, draw_cutout, warped_grid

PLAIN = CutoutConfig(min_size=1, flip=0, degrees=0, shift=0, perspective=0, jitter=0, erase=0,
                     noise=0)
SIZE = (24, 40)


def image(seed: int = 0) -> torch.Tensor:
    return torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(seed))


def made(config: CutoutConfig, seed: int, side: int = 16) -> torch.Tensor:
    return cut(image(), draw_cutout(config, SIZE, np.random.default_rng(seed)), side)


def test_without_changes_a_cutout_is_a_part_of_the_image() -> None:
    drawn = draw_cutout(PLAIN, SIZE, np.random.default_rng(0))
    assert (drawn.top, drawn.side) == (0, 24) and 0 <= drawn.left <= 16
    square = image()[:, :, drawn.left:drawn.left + 24]
    torch.testing.assert_close(cut(image(), drawn, 24), square, atol=1e-6, rtol=0)


def test_squares_lie_in_the_image_at_all_sizes_asked_for() -> None:
    config = CutoutConfig(min_size=0.25)
    drawn = [draw_cutout(config, SIZE, np.random.default_rng(seed)) for seed in range(300)]
    assert all(0 <= one.top <= SIZE[0] - one.side and 0 <= one.left <= SIZE[1] - one.side
               for one in drawn)
    sides = [one.side for one in drawn]
    assert (min(sides), max(sides)) == (6, 24)
    small = dataclasses.replace(config, power=3.0)
    assert np.mean([draw_cutout(small, SIZE, np.random.default_rng(seed)).side
                    for seed in range(300)]) < np.mean(sides) - 2


@pytest.mark.parametrize("change", [
    {"flip": 1.0}, {"degrees": 30.0}, {"shift": 0.3}, {"perspective": 0.4}, {"jitter": 0.3},
    {"erase": 1.0}, {"noise": 0.2}])
def test_every_change_changes_is_repeatable_and_passes_gradients(change: dict[str, float]) -> None:
    config = dataclasses.replace(PLAIN, **change)
    assert not torch.equal(made(config, 1), made(PLAIN, 1))
    assert torch.equal(made(config, 1), made(config, 1))
    leaf = image().requires_grad_()
    cut(leaf, draw_cutout(config, SIZE, np.random.default_rng(1)), 16).square().sum().backward()
    assert leaf.grad is not None and leaf.grad.isfinite().all() and leaf.grad.any()


def test_flips_are_mirror_images() -> None:
    flipped = made(dataclasses.replace(PLAIN, flip=1.0), 3, side=24)
    torch.testing.assert_close(flipped, made(PLAIN, 3, side=24).flip(-1), atol=1e-5, rtol=0)


def test_a_quarter_turn_turns_the_picture() -> None:
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    drawn = draw_cutout(PLAIN, SIZE, np.random.default_rng(0))
    turned = cut(image(), dataclasses.replace(drawn, warp=turn), 24)
    torch.testing.assert_close(turned, cut(image(), drawn, 24).rot90(1, (1, 2)), atol=1e-5, rtol=0)


def test_perspective_takes_corners_inwards() -> None:
    config = dataclasses.replace(PLAIN, perspective=0.5)
    for seed in range(20):
        grid = warped_grid(draw_cutout(config, SIZE, np.random.default_rng(seed)).warp, 8)
        assert grid.abs().max() <= 1 and grid[0, 0, 0, 0] < 0 < grid[0, 7, 7, 1]


class Extreme:
    """Draws 0 for corners that stay and 1 for those that move as far as they may."""

    def __init__(self, moves: list[int]) -> None:
        self.moves = np.array(moves, float).reshape(4, 2)

    def random(self, shape: tuple[int, int]) -> np.ndarray:
        return self.moves


def test_no_perspective_that_is_let_in_folds_the_picture() -> None:
    with pytest.raises(ValueError, match=r"perspective of cutouts must lie in \[0, 0.6\], got 0.7"):
        CutoutConfig(perspective=0.7)
    for moves in itertools.product((0, 1), repeat=8):
        warp = _corners(0.6, Extreme(list(moves)))  # type: ignore[arg-type]
        assert warped_grid(warp, 64).abs().max() <= 1, moves


def test_greys_keep_their_hue_and_brightness_under_hue_and_saturation() -> None:
    drawn = draw_cutout(dataclasses.replace(PLAIN, jitter=0.5), SIZE, np.random.default_rng(0))
    rows = drawn.colours.sum(1)
    np.testing.assert_allclose(rows, rows[0])
    assert rows[0] != 1


def test_erased_rectangles_are_grey_and_lie_inside() -> None:
    for seed in range(20):
        view = made(dataclasses.replace(PLAIN, erase=1.0), seed, side=20)
        share = float((view == 0.5).all(0).float().mean())
        assert 0.3 ** 2 * 0.7 < share < 0.6 ** 2 * 1.2


@pytest.mark.parametrize(("settings", "message"), [
    ({"num": 0}, "num of cutouts must be at least 1, got 0"),
    ({"min_size": 0.0}, r"min_size of cutouts must lie in \(0, 1\]"),
    ({"power": 0.0}, "power must be more than 0"),
    ({"noise": float("nan")}, "noise of cutouts"), ({"flip": 1.1}, "flip of cutouts")])
def test_nonsense_is_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CutoutConfig(**settings)
