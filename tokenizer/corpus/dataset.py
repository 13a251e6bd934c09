"""A corpus for training: which images train, which are held out, and batches of pixels by number.

Training image number ``position`` is a function of the seed and ``position`` alone: the order of an
epoch, the crop and the flip. A training that starts again at any step therefore sees what an
uninterrupted one sees. Held-out images take exactly the preprocessing of the encode job.

Letters: N images of a batch, h and w sides of the crop in pixels.
"""
import math
import threading
from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from tokenizer.corpus.augment import Augmentation
from tokenizer.corpus.images import Crop, UnreadableImage, centre_crop
from tokenizer.corpus.modalities import LabelOutOfRange, Modality
from tokenizer.corpus.sources import Entry, InputError, Source
from tokenizer.splits import Split

DEFAULT_SPLIT = Split()

MAX_STRETCH = 2.0
"""Of a long image the middle is kept, this many times the largest crop along each side."""

MAX_FAILURES = 100
"""Training images in a row that may be unreadable before the corpus counts as unreadable."""


class CorpusDataset:
    """One modality of a corpus as pixels for training and for measuring.

    Training crops are drawn by an `Augmentation`, so every modality of a corpus shows the same part
    of the same image at the same position. They are cut from images that are kept in memory
    slightly larger than needed. Images that cannot be read are left out, and named in
    `unreadable`.

    Args:
        source: the corpus; of its files those of its first modality are used.
        modality: settings of that modality.
        size: target h and w in pixels.
        split: which images are kept out of training.
        seed: of order, crops and flips.
        crop_share: smallest side of a crop as a share of the largest possible; 1 takes the centred
            crop of the encode job.
        flip: whether training images are mirrored at random.
        colours: largest change of contrast and of each colour's gain, where colours may vary.
        cache_bytes: memory for prepared images; what exceeds it is read again each time.
    Raises:
        ValueError: the corpus is of another modality, empty, or has too few images to hold out.

    Attributes:
        augmentation: draws the training crops.
        train: entries that train, sorted by key; ``held_out`` those that do not.
        unreadable: what was wrong, by source, with images left out so far.
    """

    def __init__(self, source: Source, modality: Modality, size: tuple[int, int], *,
                 split: Split = DEFAULT_SPLIT, seed: int = 0, crop_share: float = 0.8,
                 flip: bool = True, colours: float = 0.0,
                 cache_bytes: int = 2 << 30) -> None:
        if source.modalities[0] != modality.file_modality():
            raise ValueError(f"the corpus holds {source.modalities[0]} files, the tokenizer is for "
                             f"{modality.name}")
        self.source, self.modality, self.size, self.seed = source, modality, size, seed
        self.augmentation = Augmentation(seed=seed, crop_share=crop_share, flip=flip,
                                         colours=colours)
        self.unreadable: dict[str, str] = {}
        entries: dict[str, Entry] = {}
        for entry in source.entries():
            if entry.problem is None:
                entries[entry.key] = entry
            else:
                self.unreadable[entry.source] = entry.problem[1]
        train, kept = split.divide(entries)
        self.train = [entries[key] for key in train]
        self.held_out = [entries[key] for key in kept]
        self._cache = _Cache(cache_bytes)

    def batch(self, step: int, batch_size: int) -> np.ndarray:
        """The training pixels of one step: `samples` from ``step * batch_size``."""
        return self.samples(step * batch_size, batch_size)

    def samples(self, first: int, count: int) -> np.ndarray:
        """Training pixels by their number in the endless stream of training images.

        Devices and parts of a batch take their own slices of the stream.

        Returns:
            ``(count, h, w[, 3])`` of the modality's pixel type; a function of ``first``, ``count``,
            the seed and the corpus.
        Raises:
            LabelOutOfRange: a map does not fit the modality's settings.
            OSError: a file cannot be read.
            ValueError: `MAX_FAILURES` images in a row are damaged.
        """
        return np.stack([self._sample(position) for position in range(first, first + count)])

    def held_out_batches(self, batch_size: int, limit: int | None = None) -> Iterator[np.ndarray]:
        """Pixels of the held-out images, or of ``limit`` spread over all of them, in key order.

        Yields:
            ``(N, h, w[, 3])`` with N up to ``batch_size``; without augmentation.
        """
        items = []
        stride = max(1, len(self.held_out) // limit) if limit else 1
        for entry in self.held_out[::stride][:limit]:
            if (pixels := self._held_out_pixels(entry)) is not None:
                items.append(pixels)
            if len(items) == batch_size:
                yield np.stack(items)
                items = []
        if items:
            yield np.stack(items)

    def _sample(self, position: int) -> np.ndarray:
        """Training pixels number ``position``; an unreadable image gives way to the next one."""
        epoch, index = divmod(position, len(self.train))
        order = _order(self.seed, epoch, len(self.train))
        for offset in range(min(MAX_FAILURES, len(self.train))):
            entry = self.train[order[(index + offset) % len(self.train)]]
            prepared = self._prepared(entry)
            if prepared is not None:
                crop = self.augmentation.crop(prepared.shape[0], prepared.shape[1], self.size,
                                              position)
                pixels = self.modality.fit(prepared, crop, self.size)
                if self.augmentation.colours and self.modality.colours_vary:
                    pixels = self.augmentation.recolouring(position).apply(pixels)
                return pixels
        url, message = next(reversed(self.unreadable.items()))
        raise ValueError(f"{len(self.unreadable)} images of the corpus are unreadable, "
                         f"{offset + 1} of them in a row; {url}: {message}")

    def _prepared(self, entry: Entry) -> np.ndarray | None:
        """An image's middle, as large as crops need it, in the units of the file."""
        if (kept := self._cache.get(("train", entry.key))) is not None:
            return kept
        raw = self._read(entry)
        if raw is None:
            return None
        region, size = self._region(raw.shape[0], raw.shape[1])
        prepared = self.modality.resample(raw, region, size)
        self._cache.put(("train", entry.key), prepared)
        return prepared

    def _region(self, height: int, width: int) -> tuple[Crop, tuple[int, int]]:
        """Which part of an image is kept for training crops, and its size in memory.

        The smallest crop of it still has the target's size, unless the image itself is smaller.
        """
        whole = centre_crop(height, width, self.size)
        crop_share = self.augmentation.crop_share
        if crop_share == 1:
            return whole, self.size
        rows = min(height, round(whole.height * MAX_STRETCH))
        columns = min(width, round(whole.width * MAX_STRETCH))
        region = Crop(left=(width - columns) // 2, top=(height - rows) // 2,
                      width=columns, height=rows)
        scale = min(1.0, self.size[0] / (crop_share * whole.height))
        return region, (math.ceil(rows * scale), math.ceil(columns * scale))

    def _held_out_pixels(self, entry: Entry) -> np.ndarray | None:
        """Pixels of one image exactly as the encode job makes them."""
        if (kept := self._cache.get(("held out", entry.key))) is not None:
            return kept
        raw = self._read(entry)
        if raw is None:
            return None
        crop = centre_crop(raw.shape[0], raw.shape[1], self.size)
        pixels = self.modality.fit(raw, crop, self.size)
        self._cache.put(("held out", entry.key), pixels)
        return pixels

    def _read(self, entry: Entry) -> np.ndarray | None:
        """What an entry's file holds, or nothing where it is damaged."""
        if entry.source in self.unreadable:
            return None
        try:
            payload = self.source.read(entry)[self.modality.file_modality()]
            return self.modality.read(payload, entry.source)
        except LabelOutOfRange as error:
            raise LabelOutOfRange(f"{entry.source}: {error}") from error
        except (UnreadableImage, InputError, FileNotFoundError, PermissionError) as error:
            self.unreadable[entry.source] = str(error)
            return None


class _Cache:
    """Arrays by name up to a number of bytes; what came first stays, as every epoch needs all."""

    def __init__(self, max_bytes: int) -> None:
        self._free = max_bytes
        self._arrays: dict[tuple[str, str], np.ndarray] = {}
        self._lock = threading.Lock()

    def get(self, name: tuple[str, str]) -> np.ndarray | None:
        return self._arrays.get(name)

    def put(self, name: tuple[str, str], array: np.ndarray) -> None:
        with self._lock:
            if name not in self._arrays and array.nbytes <= self._free:
                self._free -= array.nbytes
                self._arrays[name] = array


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order of one epoch: a permutation of ``[0, count)``, int64."""
    return np.random.default_rng((seed, epoch, count)).permutation(count)
