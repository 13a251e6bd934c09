"""Shared fixtures: one thread for torch, and folders of small drawn images."""
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

os.environ.setdefault("OMP_NUM_THREADS", "1")
"""Two test processes share two cores; results at one thread do not depend on the machine."""


def draw(seed: int, height: int = 40, width: int = 48) -> np.ndarray:
    """A smooth coloured picture with one rectangle, ``(height, width, 3)`` uint8."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width] / max(height, width)
    slopes = generator.uniform(-1, 1, (2, 3))
    picture = 0.5 + 0.4 * (rows[..., None] * slopes[0] + columns[..., None] * slopes[1])
    top, left = generator.integers(0, height // 2), generator.integers(0, width // 2)
    picture[top:top + height // 3, left:left + width // 3] = generator.uniform(0, 1, 3)
    return (picture.clip(0, 1) * 255).round().astype(np.uint8)


@pytest.fixture(scope="session")
def drawn() -> Callable[..., np.ndarray]:
    """`draw`, for tests that need single pictures."""
    return draw


@pytest.fixture
def image_folder(tmp_path: Path) -> Callable[[int], Path]:
    """Makes a folder ``photos`` of drawn PNG images ``img-000.png`` ..., of varied sizes."""
    def make(num_images: int) -> Path:
        folder = tmp_path / "photos"
        folder.mkdir(exist_ok=True)
        for index in range(num_images):
            picture = draw(index, 36 + index % 5, 40 + index % 7)
            Image.fromarray(picture).save(folder / f"img-{index:03d}.png")
        return folder
    return make
