"""Batches by number: each a function of seed and step alone, cut among ranks by position.

A training that stops and goes on, on however many ranks, sees the same rows in the same order; the
place in the global order is all that there is to save.

Letters: B rows of a batch over all ranks.
"""
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import numpy as np
import torch

from prior.dataset import Batch, to_batch
from prior.loading.orders import DROPOUT
from prior.loading.streams import Stream
from prior.sequence import SequenceLayout


class Batches:
    """Batches without end.

    Args:
        stream: rows to train on.
        layout: which segments a batch holds.
        batch_size: B over all ranks.
        seed: of the dropping of conditions.
        dropout: per condition, how often it is dropped.
        drop_all: how often all conditions are dropped together.
    """

    def __init__(self, stream: Stream, layout: SequenceLayout, batch_size: int, seed: int,
                 dropout: Mapping[str, float], drop_all: float) -> None:
        self.stream, self.layout = stream, layout
        self.batch_size, self.seed = batch_size, seed
        self.dropout, self.drop_all = dropout, drop_all

    def places(self, step: int) -> np.ndarray:
        """Places of a batch in the global order, int64 ``(B,)``."""
        return np.arange(step * self.batch_size, (step + 1) * self.batch_size)

    def indices(self, step: int) -> np.ndarray:
        """Rows of a batch, int64 ``(B,)``."""
        return self.stream.rows(self.places(step))

    def batch(self, step: int, rank: int = 0, num_ranks: int = 1) -> Batch:
        """One rank's part of a batch: every ``num_ranks``-th row from ``rank`` on."""
        part = slice(rank, None, num_ranks)
        batch = to_batch(self.layout, self.stream.take(self.places(step)[part]))
        if not self.layout.conditions:
            return batch
        draws = np.random.default_rng([self.seed, DROPOUT, step]).random(
            (self.batch_size, 1 + len(self.layout.conditions)))[part]
        for index, segment in enumerate(self.layout.conditions, start=1):
            dropped = ((draws[:, 0] < self.drop_all)
                       | (draws[:, index] < self.dropout.get(segment.name, 0.0)))
            batch.conditions[segment.name][torch.from_numpy(dropped)] = segment.null
        return batch

    def position(self, step: int) -> dict[str, int | str]:
        """Where the stream stands before a step: all that going on needs."""
        place = step * self.batch_size
        return {"order": self.stream.kind, "epoch": place // len(self.stream), "position": place,
                "seed": self.seed}


class ReadAhead:
    """Gives one rank's batches in turn, each made on a thread while the one before is trained on.

    Args:
        batches: where they come from.
        rank: whose part is given.
        num_ranks: ranks that share each batch.
    """

    def __init__(self, batches: Batches, rank: int = 0, num_ranks: int = 1) -> None:
        self.batches, self.rank, self.num_ranks = batches, rank, num_ranks
        self._thread = ThreadPoolExecutor(1, "batches")
        self._next: tuple[int, Future[Batch]] | None = None

    def batch(self, step: int) -> Batch:
        """The batch of a step; the next one is made meanwhile."""
        made = self._next if self._next and self._next[0] == step else self._make(step)
        batch = made[1].result()
        self._next = self._make(step + 1)
        return batch

    def _make(self, step: int) -> tuple[int, Future[Batch]]:
        return step, self._thread.submit(self.batches.batch, step, self.rank, self.num_ranks)

    def __enter__(self) -> "ReadAhead":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._thread.shutdown(cancel_futures=True)
