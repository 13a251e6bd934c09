"""Global orders: which item of a corpus stands at each place of a stream without end.

Passes over the items, epochs, are laid end to end; each holds every item once. What stands at a
place follows from the seed and the number of items alone, so the place is all that going on needs,
however many processes share the places among them. To add an order, subclass `Order`.

Letters: M items, G groups of items that lie together in a file, B places asked for.
"""
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

ORDER, DROPOUT, GROUPS, CROPS, MIXTURE = range(5)
"""Streams of random numbers, so that what is drawn for one purpose tells nothing of another."""


class Order(ABC):
    """The order of M items, pass after pass.

    Attributes:
        num_items: M, the length of an epoch.
        seed: of the order.
    """

    def __init__(self, num_items: int, seed: int) -> None:
        if num_items < 1:
            raise ValueError(f"an order needs at least 1 item, got {num_items}")
        self.num_items, self.seed = num_items, seed

    def items(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The items at some places, and the epoch of each.

        Args:
            places: ascending int64 ``(B,)``, counted from 0 through all epochs.
        Returns:
            Items in ``[0, M)`` and epochs, both int64 ``(B,)``.
        """
        epochs, within = np.divmod(places, self.num_items)
        if len(epochs) and epochs[0] == epochs[-1]:
            return self._epoch(int(epochs[0]), within), epochs
        items = np.empty_like(places)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            items[chosen] = self._epoch(int(epoch), within[chosen])
        return items, epochs

    @abstractmethod
    def _epoch(self, epoch: int, within: np.ndarray) -> np.ndarray:
        """Items at places of one epoch, counted from its beginning."""


class ExactOrder(Order):
    """Each epoch is one permutation of all items, every one of them equally likely."""

    def __init__(self, num_items: int, seed: int) -> None:
        super().__init__(num_items, seed)
        # Of each order its own: those of a mixture are asked in turns.
        self._permutations = lru_cache(maxsize=2)(self._permute)

    def _epoch(self, epoch: int, within: np.ndarray) -> np.ndarray:
        return self._permutations(epoch)[within]

    def _permute(self, epoch: int) -> np.ndarray:
        return _generator(self.seed, ORDER, epoch).permutation(self.num_items)


@dataclass(frozen=True)
class Window:
    """Groups whose items are shuffled together.

    Attributes:
        epoch: the pass it belongs to.
        start: its first place, counted through all epochs.
        stop: the place after its last.
        groups: numbers of its groups, in order of reading.
    """
    epoch: int
    start: int
    stop: int
    groups: tuple[int, ...]


class WindowedOrder(Order):
    """Groups are shuffled and joined to windows, and the items of each window are shuffled.

    Items can then be read group by group, with no more than a window of them in memory.

    Args:
        sizes: items of each group, ``(G,)``; item numbers run through the groups in turn.
        window_items: a window is closed once it holds so many items.
        seed: of the order.
    """

    def __init__(self, sizes: np.ndarray, window_items: int, seed: int) -> None:
        super().__init__(int(sizes.sum()), seed)
        if window_items < 1:
            raise ValueError(f"a window holds at least 1 item, got {window_items}")
        self.sizes, self.window_items = sizes, window_items
        self.starts = np.concatenate([[0], np.cumsum(sizes)])
        self._windows = lru_cache(maxsize=3)(self._cut)
        self._shuffled = lru_cache(maxsize=4)(self._shuffle)

    def window(self, place: int) -> Window:
        """The window that holds a place."""
        epoch, within = divmod(place, self.num_items)
        windows = self._windows(epoch)
        starts = [window.start for window in windows]
        return windows[int(np.searchsorted(starts, epoch * self.num_items + within, "right")) - 1]

    def items_of(self, window: Window) -> np.ndarray:
        """All items of a window in their order, int64."""
        return self._shuffled(window)

    def _epoch(self, epoch: int, within: np.ndarray) -> np.ndarray:
        places = within + epoch * self.num_items
        items = np.empty_like(places)
        for window in self._windows(epoch):
            chosen = (places >= window.start) & (places < window.stop)
            if chosen.any():
                items[chosen] = self.items_of(window)[places[chosen] - window.start]
        return items

    def _cut(self, epoch: int) -> tuple[Window, ...]:
        """The windows of one epoch."""
        groups = _generator(self.seed, GROUPS, epoch).permutation(np.flatnonzero(self.sizes))
        ends = np.cumsum(self.sizes[groups])
        numbers = (ends - self.sizes[groups]) // self.window_items
        cuts = [0, *(np.flatnonzero(np.diff(numbers)) + 1), len(groups)]
        first = epoch * self.num_items
        return tuple(
            Window(epoch, first + int(ends[begin] - self.sizes[groups[begin]]),
                   first + int(ends[end - 1]), tuple(int(group) for group in groups[begin:end]))
            for begin, end in pairwise(cuts))

    def _shuffle(self, window: Window) -> np.ndarray:
        items = np.concatenate([np.arange(self.starts[group], self.starts[group + 1])
                                for group in window.groups])
        return _generator(self.seed, ORDER, window.epoch, 1 + window.start).permutation(items)


class MixtureOrder:
    """Which of several streams each place is taken from, by weight.

    After any number of blocks of places, each stream was taken from as often as its weight says, to
    one place; within a block the streams are shuffled.

    Args:
        weights: of the streams, more than 0; only their ratios count.
        seed: of the order.
    """

    def __init__(self, weights: tuple[float, ...], seed: int) -> None:
        if not weights or not all(0 < weight < float("inf") for weight in weights):
            raise ValueError(f"weights of a mixture must be finite and more than 0, got {weights}")
        self.seed = seed
        shares = np.array(weights) / sum(weights)
        self._ends = np.concatenate([[0.0], np.cumsum(shares)])
        self._ends[-1] = 1.0
        self.block = max(256, int(np.ceil(3 / shares.min())))
        """Places of a block: so many that each stream has at least one of them."""
        self._blocks = lru_cache(maxsize=4)(self._draw)

    def sources(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The stream of each place, and the place within that stream; both int64 ``(B,)``."""
        blocks, within = np.divmod(places, self.block)
        streams, inner = np.empty_like(places), np.empty_like(places)
        for block in np.unique(blocks):
            chosen = blocks == block
            drawn, numbers = self._blocks(int(block))
            streams[chosen], inner[chosen] = drawn[within[chosen]], numbers[within[chosen]]
        return streams, inner

    def counts(self, num_blocks: int) -> np.ndarray:
        """Places of each stream in the first blocks, int64."""
        return np.diff(np.rint(self._ends * (num_blocks * self.block)).astype(np.int64))

    def _draw(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        before = self.counts(block)
        quotas = self.counts(block + 1) - before
        drawn = _generator(self.seed, MIXTURE, block).permutation(
            np.repeat(np.arange(len(quotas)), quotas))
        numbers = np.empty_like(drawn)
        for stream, count in enumerate(before):
            chosen = drawn == stream
            numbers[chosen] = count + np.arange(int(chosen.sum()))
        return drawn, numbers


class Choice:
    """Which rows an epoch goes over: each one, or one crop of each image.

    Args:
        rows: rows of the corpus, ascending int64.
        images: number of each row's image, ascending, to take another of its rows each epoch;
            nothing takes every row as an item of its own.
        seed: decides with which crop each image begins.
    """

    def __init__(self, rows: np.ndarray, images: np.ndarray | None = None, seed: int = 0) -> None:
        self.rows = rows
        self._starts: np.ndarray | None = None
        if images is not None:
            self._starts = np.flatnonzero(np.diff(images, prepend=-1))
            self._counts = np.diff(self._starts, append=len(rows))
            self._shifts = _generator(seed, CROPS).integers(0, self._counts)

    def __len__(self) -> int:
        """Items of an epoch."""
        return len(self.rows if self._starts is None else self._starts)

    @property
    def first_rows(self) -> np.ndarray:
        """The first row of each item, ascending int64."""
        return self.rows if self._starts is None else self.rows[self._starts]

    def at(self, items: np.ndarray, epochs: np.ndarray | int) -> np.ndarray:
        """The rows that stand for some items in their epochs, int64 ``(B,)``."""
        if self._starts is None:
            return self.rows[items]
        turns = (self._shifts[items] + epochs) % self._counts[items]
        return self.rows[self._starts[items] + turns]


def _generator(*words: int) -> np.random.Generator:
    return np.random.default_rng(words)
