"""Streams: the rows of a corpus, or of a mixture of them, at the places of a global order.

A stream has no end and no state: what stands at a place follows from corpus, seed and place. It is
read at rising places, for which it keeps and reads ahead what lies together. To add one, subclass
`Stream`.

Letters: B places asked for, N rows of a corpus, M items of an epoch.
"""
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from prior.dataset import Columns, joined
from prior.loading.orders import Choice, ExactOrder, MixtureOrder, Window, WindowedOrder
from prior.loading.shards import ShardReader


class Stream(ABC):
    """Rows without end, epoch after epoch.

    Attributes:
        kind: of its order; a checkpoint of one kind does not go on with another.
    """
    kind: str

    @abstractmethod
    def __len__(self) -> int:
        """M, places of an epoch."""

    @property
    @abstractmethod
    def num_rows(self) -> int:
        """N, one more than the greatest row number."""

    @abstractmethod
    def rows(self, places: np.ndarray) -> np.ndarray:
        """Numbers of the rows at some places, int64 ``(B,)``.

        Args:
            places: ascending int64 ``(B,)``, counted from 0 through all epochs.
        """

    @abstractmethod
    def take(self, places: np.ndarray) -> Columns:
        """Codes and labels of the rows at some places, ``(B, ...)`` each."""


class MappedStream(Stream):
    """Rows that lie in memory, in exactly shuffled order.

    Args:
        columns: of all N rows.
        choice: which rows an epoch goes over.
        seed: of the order.
    """
    kind = "exact"

    def __init__(self, columns: Columns, choice: Choice, seed: int) -> None:
        self.columns, self.choice = columns, choice
        self.order = ExactOrder(len(choice), seed)

    def __len__(self) -> int:
        return self.order.num_items

    @property
    def num_rows(self) -> int:
        return len(next(iter(self.columns.values())))

    def rows(self, places: np.ndarray) -> np.ndarray:
        return self.choice.at(*self.order.items(places))

    def take(self, places: np.ndarray) -> Columns:
        rows = self.rows(places)
        # As ``column[rows]``, which is slower: it does not copy whole rows at once.
        return {name: column.take(rows, axis=0) for name, column in self.columns.items()}


@dataclass(frozen=True)
class _Loaded:
    """The rows of a window, in their order."""
    window: Window
    columns: Columns


class WindowedStream(Stream):
    """Rows read shard by shard in windowed order; the next window is read while one is used.

    Args:
        reader: of the corpus.
        choice: which rows an epoch goes over.
        window_rows: rows shuffled together; memory holds about twice as many.
        seed: of the order.
    """
    kind = "windowed"

    def __init__(self, reader: ShardReader, choice: Choice, window_rows: int, seed: int) -> None:
        self.reader, self.choice = reader, choice
        self._first_rows = np.concatenate([[0], np.cumsum(reader.sizes)])
        sizes = np.diff(np.searchsorted(choice.first_rows, self._first_rows))
        self.order = WindowedOrder(sizes, window_rows, seed)
        self._loaded: _Loaded | None = None
        self._ahead: Future[_Loaded] | None = None
        self._thread = ThreadPoolExecutor(1, "read-ahead")

    def __len__(self) -> int:
        return self.order.num_items

    @property
    def num_rows(self) -> int:
        return int(self._first_rows[-1])

    def rows(self, places: np.ndarray) -> np.ndarray:
        return self.choice.at(*self.order.items(places))

    def take(self, places: np.ndarray) -> Columns:
        parts: list[Columns] = []
        begin = 0
        while begin < len(places):
            loaded = self._at(int(places[begin]))
            end = int(np.searchsorted(places, loaded.window.stop))
            inside = _stretch(places[begin:end] - loaded.window.start)
            parts.append({name: column[inside] for name, column in loaded.columns.items()})
            begin = end
        return parts[0] if len(parts) == 1 else joined(parts)

    def _at(self, place: int) -> _Loaded:
        """The window that holds a place; the one after it is on its way."""
        current = self._loaded
        if current is None or not current.window.start <= place < current.window.stop:
            window = self.order.window(place)
            ahead, self._ahead, self._loaded = self._ahead, None, None
            current = ahead.result() if ahead is not None else None
            if current is None or current.window != window:
                current = self._load(window)
            following = self.order.window(window.stop)
            self._ahead = self._thread.submit(self._load, following)
            self._loaded = current
        return current

    def _load(self, window: Window) -> _Loaded:
        """Read the shards of a window one by one, and put their rows where they belong."""
        rows = self.choice.at(self.order.items_of(window), window.epoch)
        shards = np.searchsorted(self._first_rows, rows, "right") - 1
        columns: Columns = {}
        for shard in window.groups:
            places = np.flatnonzero(shards == shard)
            within = rows[places] - self._first_rows[shard]
            for name, stored in self.reader.codes(shard).items():
                if name not in columns:
                    columns[name] = np.empty((len(rows), *stored.shape[1:]), stored.dtype)
                columns[name][places] = stored[within]
        return _Loaded(window, columns)


def _stretch(places: np.ndarray) -> np.ndarray | slice:
    """Ascending places as a slice where they follow one another, which takes no copy."""
    first, last = int(places[0]), int(places[-1])
    return slice(first, last + 1) if last - first + 1 == len(places) else places


class MixedStream(Stream):
    """Several streams, each taken from as often as its weight says; row numbers run through all.

    An epoch is so many places as all streams have together; the small ones may come round sooner.

    Args:
        streams: with the same columns.
        weights: of the streams.
        seed: of the order in which they take turns.
    """

    def __init__(self, streams: Sequence[Stream], weights: tuple[float, ...], seed: int) -> None:
        self.streams = streams
        self.kind = "+".join(stream.kind for stream in streams)
        self.order = MixtureOrder(weights, seed)
        self._first_rows = np.cumsum([0, *(stream.num_rows for stream in streams)])

    def __len__(self) -> int:
        return sum(map(len, self.streams))

    @property
    def num_rows(self) -> int:
        return int(self._first_rows[-1])

    def rows(self, places: np.ndarray) -> np.ndarray:
        sources, inner = self.order.sources(places)
        rows = np.empty_like(places)
        for number, stream in enumerate(self.streams):
            chosen = sources == number
            rows[chosen] = stream.rows(inner[chosen]) + self._first_rows[number]
        return rows

    def take(self, places: np.ndarray) -> Columns:
        sources, inner = self.order.sources(places)
        taken: Columns = {}
        for number, stream in enumerate(self.streams):
            chosen = sources == number
            for name, column in stream.take(inner[chosen]).items() if chosen.any() else ():
                if name not in taken:
                    taken[name] = np.empty((len(places), *column.shape[1:]), column.dtype)
                taken[name][chosen] = column
        return taken
