"""Codecs without torch, engines without Beam, disks that fail, and maps to go with drawn photos."""
import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
from PIL import Image

from pipelines.job import OutputRefused, ShardTask, try_shard
from tokenizer.corpus.modalities import Modality
from tokenizer.schema import CodeSpec

GRID, SIZE = (2, 3), (8, 12)


class FakeCodec:
    """A code is the mean of its 4 x 4 pixels, in sixteenths of the range."""

    def __init__(self, modality: Modality, name: str = "a", batch_size: int = 4,
                 grid: tuple[int, int] = GRID) -> None:
        self.modality = modality
        self.batch_size = batch_size
        self.spec = CodeSpec(modality=modality.name, grid=grid, codebook_size=16,
                             image_size=(4 * grid[0], 4 * grid[1]), tokenizer=f"sha256:{name}",
                             preprocessing=modality.preprocessing())
        self.batches: list[int] = []

    def at_size(self, image_size: tuple[int, int]) -> "FakeCodec":
        grid = (image_size[0] // 4, image_size[1] // 4)
        return FakeCodec(self.modality, self.spec.tokenizer.removeprefix("sha256:"),
                         self.batch_size, grid)

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        assert len(pixels) <= self.batch_size and pixels.dtype == self.modality.pixel_dtype
        self.batches.append(len(pixels))
        grey = pixels.mean(-1) if pixels.ndim == 4 else pixels.astype(np.float64)
        if (grey == np.iinfo(pixels.dtype).max).all(axis=(1, 2)).any():
            raise ValueError("white pictures are refused")
        blocks = grey.reshape(-1, self.spec.grid[0], 4, self.spec.grid[1], 4).mean(axis=(2, 4))
        return (blocks * 16 / (np.iinfo(pixels.dtype).max + 1)).astype(self.spec.dtype)

    def encode_with_distances(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Distances are 1 to the nearest entry and 1 + code to the second."""
        codes = self.encode(pixels)
        ones = np.ones(codes.shape, np.float32)
        return codes, np.stack([ones, ones + codes.astype(np.float32)], 1)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        scale = (np.iinfo(self.modality.pixel_dtype).max + 1) // 16
        blocks = codes.repeat(4, axis=1).repeat(4, axis=2).astype(np.int64) * scale
        pixels = blocks[..., None].repeat(3, -1) if self.modality.name == "image" else blocks
        return pixels.astype(self.modality.pixel_dtype)


def run_inline(task: ShardTask, shards: Sequence[int]) -> None:
    """An engine without Beam."""
    for shard in shards:
        try:
            try_shard(task, shard)
        except OutputRefused:
            return


def save_maps(folder: Path, photos: Path, pixels: Callable[[tuple[int, int]], np.ndarray]) -> None:
    """Write a map of the same size beside each photo; ``pixels`` makes it from height and width."""
    folder.mkdir()
    for photo in photos.iterdir():
        with Image.open(photo) as image:
            size = (image.height, image.width)
        Image.fromarray(pixels(size)).save(folder / f"{photo.stem}.png")


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its path."""
    return {str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*")) if path.is_file()}


@contextmanager
def writes_that_end(num_writes: int, error: BaseException) -> Iterator[None]:
    """While the block runs, only so many local files are written; the next one meets ``error``."""
    fsync, left = os.fsync, iter(range(num_writes))

    def write(number: int) -> None:
        if next(left, None) is None:
            raise error
        fsync(number)
    with patch.object(os, "fsync", write):
        yield


def full_disk() -> OSError:
    """What a system says of a disk without space."""
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
