"""The images that a tokenizer is measured on: which they are, and their pixels.

Letters: N images, h and w sides of the crop in pixels.
"""
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from tokenizer.corpus.images import centre_crop
from tokenizer.corpus.modalities import Modality
from tokenizer.corpus.sources import Entry, Source
from tokenizer.splits import Split

NUM_READERS = 4
"""Threads that read and decode files."""


class EvaluationImages:
    """Images of a corpus as the encode job sees them, in the order of their keys.

    Args:
        source: the corpus; its first modality is used.
        modality: settings of that modality.
        size: h and w in pixels.
        split: takes the images that it holds out; nothing takes all.
        limit: take this many, spread evenly.

    Attributes:
        entries: what is measured, sorted by key.
        num_found: inputs of the corpus.
        unreadable: what was wrong, by source, with images left out so far.
    """

    def __init__(self, source: Source, modality: Modality, size: tuple[int, int],
                 split: Split | None = None, limit: int | None = None) -> None:
        self.source, self.modality, self.size = source, modality, size
        self.unreadable: dict[str, str] = {}
        entries: dict[str, Entry] = {}
        self.num_found = 0
        for entry in source.entries():
            self.num_found += 1
            if entry.problem is None:
                entries[entry.key] = entry
            else:
                self.unreadable[entry.source] = entry.problem[1]
        keys = sorted(entries) if split is None else split.divide(entries)[1]
        self.entries = [entries[key] for key in _spread(keys, limit)]

    def batches(self, batch_size: int) -> Iterator[tuple[list[str], np.ndarray]]:
        """Keys and pixels ``(N, h, w[, 3])`` with N up to ``batch_size``; files are read ahead."""
        starts = range(0, len(self.entries), batch_size)
        with ThreadPoolExecutor(NUM_READERS) as pool:
            ahead: list[tuple[Entry, Future[np.ndarray | None]]] = []
            for start in (*starts, None):
                here = ahead
                ahead = [] if start is None else [
                    (entry, pool.submit(self._read, entry))
                    for entry in self.entries[start:start + batch_size]]
                items = [(entry.key, future.result()) for entry, future in here]
                found = [(key, pixels) for key, pixels in items if pixels is not None]
                if found:
                    yield [key for key, _ in found], np.stack([pixels for _, pixels in found])

    def pixels(self, keys: list[str]) -> np.ndarray:
        """Pixels ``(N, h, w[, 3])`` of images that could be read before, by their keys.

        Raises:
            OSError: one cannot be read any more.
        """
        entries = {entry.key: entry for entry in self.entries}
        items = []
        for key in keys:
            if (pixels := self._read(entries[key])) is None:
                url = entries[key].source
                raise OSError(f"{url} changed while it was measured: {self.unreadable[url]}")
            items.append(pixels)
        return np.stack(items)

    def _read(self, entry: Entry) -> np.ndarray | None:
        """Pixels of one image; nothing, with a note, where it cannot be read."""
        try:
            payload = self.source.read(entry)[self.modality.file_modality()]
            raw = self.modality.read(payload, entry.source)
            return self.modality.fit(raw, centre_crop(raw.shape[0], raw.shape[1], self.size),
                                     self.size)
        except (OSError, ValueError) as error:
            self.unreadable[entry.source] = str(error)
            return None


def _spread(keys: list[str], limit: int | None) -> list[str]:
    """``limit`` keys at equal distances, beginning with the first."""
    if limit is None or limit >= len(keys):
        return keys
    return [keys[index * len(keys) // limit] for index in range(limit)]
