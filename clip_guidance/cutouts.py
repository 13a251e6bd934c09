"""Cutouts: square parts of an image, changed at random, at the size that CLIP takes.

A gradient through one view of an image finds patterns that please CLIP and mean nothing; many views
leave what they have in common. What happens to a cutout depends on the random generator it is given
alone, so that it does not matter which cutouts are made together.

To add a change, draw its strength in `draw_cutout` and apply it in `cut`.

Letters: H and W sides of the image, S side of a cutout, in pixels.
"""
import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

GREY = 0.5
"""Level of what is erased."""
LUMA = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in brightness (Rec. 601)."""
ERASED = (0.3, 0.6)
"""Sides of an erased rectangle, as shares of the cutout's."""


@dataclass(frozen=True, kw_only=True)
class CutoutConfig:
    """How many cutouts a step takes, and how they are changed; 0 leaves a change out.

    Attributes:
        num: cutouts a step.
        min_size: least side of a cutout, as a share of the image's shorter side; the greatest is 1.
        power: of the uniform number behind the side; above 1 small cutouts are more frequent.
        flip: chance of a mirror image.
        degrees: greatest rotation, either way.
        shift: greatest shift along either side, as a share of the cutout's half side.
        perspective: how far corners may move inwards, as a share of the cutout's half side; at
            2/3 three corners may lie in line, beyond which the picture folds over.
        jitter: how far brightness, contrast and saturation may lie from 1, and the hue from its
            own, in turns.
        erase: chance that a rectangle is grey.
        noise: greatest standard deviation of added Gaussian noise; white is 1.
    """
    num: int = 32
    min_size: float = 0.5
    power: float = 1.0
    flip: float = 0.5
    degrees: float = 15.0
    shift: float = 0.1
    perspective: float = 0.2
    jitter: float = 0.05
    erase: float = 0.3
    noise: float = 0.1

    def __post_init__(self) -> None:
        if self.num < 1:
            raise ValueError(f"num of cutouts must be at least 1, got {self.num}")
        if not 0 < self.min_size <= 1:
            raise ValueError(f"min_size of cutouts must lie in (0, 1], got {self.min_size}")
        if not 0 < self.power < math.inf:
            raise ValueError(f"power must be more than 0, got {self.power}")
        highest = {"flip": 1.0, "degrees": 180.0, "shift": 1.0, "perspective": 0.6, "jitter": 0.5,
                   "erase": 1.0, "noise": 1.0}
        for name, most in highest.items():
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"{name} of cutouts must lie in [0, {most:g}], got "
                                 f"{getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class Cutout:
    """What happens to one cutout.

    Attributes:
        top, left, side: of its square, in pixels of the image.
        warp: ``(3, 3)``, from homogeneous places (x, y) of the cutout to those of the square; both
            span [-1, 1].
        colours, offset: ``(3, 3)`` matrix of the colours, and what is added to it.
        erased: top, left, bottom and right of the rectangle in grey, as shares; or nothing.
        noise: standard deviation, and the seed it is drawn from.
    """
    top: int
    left: int
    side: int
    warp: np.ndarray
    colours: np.ndarray
    offset: float
    erased: tuple[float, float, float, float] | None
    noise: tuple[float, int]


def draw_cutout(config: CutoutConfig, size: tuple[int, int], rng: np.random.Generator) -> Cutout:
    """Draw what happens to one cutout of an image of ``size`` (H, W)."""
    share = config.min_size + (1 - config.min_size) * rng.random() ** config.power
    side = max(1, round(share * min(size)))
    top, left = (int(rng.integers(0, whole - side + 1)) for whole in size)
    warp = _corners(config.perspective, rng) @ _affine(config, rng)
    colours, offset = _colours(config.jitter, rng)
    erases, extent = rng.random() < config.erase, rng.uniform(*ERASED, 2)
    first = rng.random(2) * (1 - extent)
    erased = (*first, *(first + extent)) if erases else None
    noise = (config.noise * float(rng.random()), int(rng.integers(1 << 62)))
    return Cutout(top=top, left=left, side=side, warp=warp, colours=colours, offset=offset,
                  erased=erased, noise=noise)


def cut(image: Tensor, cutout: Cutout, side: int) -> Tensor:
    """One cutout ``(3, S, S)`` float32 of an image.

    Args:
        image: ``(3, H, W)`` float32 in [0, 1]; gradients pass to it.
        side: S.
    """
    square = image[:, cutout.top:cutout.top + cutout.side, cutout.left:cutout.left + cutout.side]
    view = F.interpolate(square[None], (side, side), mode="bilinear", antialias=True)
    if not np.array_equal(cutout.warp, np.eye(3)):
        view = F.grid_sample(view, warped_grid(cutout.warp, side).to(view), mode="bilinear",
                             padding_mode="reflection", align_corners=False)
    matrix = torch.from_numpy(cutout.colours).to(view)
    view = torch.einsum("ij,jhw->ihw", matrix, view[0]) + cutout.offset
    if cutout.erased is not None:
        top, left, bottom, right = (round(share * side) for share in cutout.erased)
        outside = torch.ones_like(view)
        outside[:, top:bottom, left:right] = 0
        view = view * outside + GREY * (1 - outside)
    deviation, seed = cutout.noise
    if deviation:
        drawn = torch.randn(view.shape, generator=torch.Generator().manual_seed(seed))
        view = view + deviation * drawn.to(view)
    return view


def warped_grid(warp: np.ndarray, side: int) -> Tensor:
    """Where the pixels of a cutout lie in its square: ``(1, S, S, 2)`` float32, x and y."""
    centres = (np.arange(side) * 2 + 1) / side - 1
    across, down = np.meshgrid(centres, centres)
    places = np.stack([across, down, np.ones_like(across)], -1) @ warp.T
    return torch.from_numpy((places[..., :2] / places[..., 2:]).astype(np.float32))[None]


def _affine(config: CutoutConfig, rng: np.random.Generator) -> np.ndarray:
    """A mirror image, rotation and shift, ``(3, 3)``."""
    flips = rng.random() < config.flip
    angle = math.radians(config.degrees) * rng.uniform(-1, 1)
    across, down = config.shift * rng.uniform(-1, 1, 2)
    cosine, sine = math.cos(angle), math.sin(angle)
    return np.array([[cosine, -sine, across], [sine, cosine, down], [0, 0, 1]]) @ np.diag(
        [-1 if flips else 1, 1, 1])


def _corners(perspective: float, rng: np.random.Generator) -> np.ndarray:
    """A perspective that takes the corners of the square to places further in, ``(3, 3)``."""
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], float)
    moved = corners * (1 - perspective * rng.random((4, 2)))
    rows, values = [], []
    for (x, y), (u, v) in zip(corners, moved, strict=True):
        rows += [(x, y, 1, 0, 0, 0, -u * x, -u * y), (0, 0, 0, x, y, 1, -v * x, -v * y)]
        values += [u, v]
    if not perspective:
        return np.eye(3)
    return np.append(np.linalg.solve(np.array(rows), np.array(values)), 1).reshape(3, 3)


def _colours(jitter: float, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Brightness, contrast, saturation and hue as one matrix ``(3, 3)`` and one offset."""
    brightness, contrast, saturation = 1 + jitter * rng.uniform(-1, 1, 3)
    turn = 2 * math.pi * jitter * rng.uniform(-1, 1)
    # Rodrigues' rotation about the axis of greys.
    axis = np.full((3, 3), 1 / 3)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    hue = axis + math.cos(turn) * (np.eye(3) - axis) + math.sin(turn) * cross
    grey = np.tile(LUMA, (3, 1))
    saturated = grey + saturation * (np.eye(3) - grey)
    return brightness * contrast * saturated @ hue, brightness * (1 - contrast) * GREY
