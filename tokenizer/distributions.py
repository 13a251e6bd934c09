"""How the quality columns of a corpus are distributed, and which rows are worst; shard by shard.

Counts, means and extremes are exact. Quantiles are those of a sample drawn evenly over all rows,
which holds all of them while there is room: memory is bounded by `ROOM`, not by the corpus.

Letters: N values.
"""
import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from tokenizer.census import classes_of
from tokenizer.filters import RowFilter, selected_tables
from tokenizer.quality import is_figure, lower_is_better
from tokenizer.tokens import TokenCorpus

ROOM, LEAST_ROOM = 1 << 20, 64
"""Values that all samples of classes hold together, and that each holds at least; and those of the
sample of a column over all classes. A value takes 16 bytes, twice while samples are joined."""

NUM_PIECES = 16
"""Pieces of new values that wait by themselves at most: an array takes a hundred bytes, however
few values it holds."""

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
"""A sample of n values gives quantile q within sqrt(q (1 - q) / n) of it, as standard deviation."""

ROW_COLUMNS = ("key", "crop_index", "source", "label", "class_name")


class Distribution:
    """Values in one pass.

    Args:
        room: how many of them are kept for the quantiles.

    Attributes:
        count: values so far, without those that are NaN; num_null counts these.
    """

    def __init__(self, room: int = ROOM) -> None:
        self.count, self.num_null = 0, 0
        self._room, self._total = room, 0.0
        self._least, self._greatest = np.inf, -np.inf
        self._draws = np.random.default_rng(0)
        self._kept = np.empty((2, 0))  # values, and the numbers drawn for them
        self._latest: list[np.ndarray] = []

    def add(self, values: np.ndarray) -> None:
        """Count in some values, float ``(N,)``; NaN stands for null."""
        known = values[~np.isnan(values)].astype(np.float64)
        self.num_null += len(values) - len(known)
        if not len(known):
            return
        self.count += len(known)
        self._total += float(known.sum())
        self._least = min(self._least, float(known.min()))
        self._greatest = max(self._greatest, float(known.max()))
        self._latest.append(np.stack([known, self._draws.random(len(known))]))
        if sum(part.shape[1] for part in self._latest) >= self._room:
            self._join()
        elif len(self._latest) > NUM_PIECES:
            self._latest = [np.concatenate(self._latest, 1)]

    def _join(self) -> None:
        """Keep the values whose draws are least: an even sample of all so far."""
        self._kept = np.concatenate([self._kept, *self._latest], 1)
        self._latest = []
        if self._kept.shape[1] > self._room:
            order = np.argpartition(self._kept[1], self._room)[:self._room]
            self._kept = self._kept[:, order]

    def summary(self) -> dict[str, Any]:
        """Figures as JSON values; only counts where there is no value."""
        counts = {"count": self.count, "num_null": self.num_null}
        if not self.count:
            return counts
        self._join()
        found = np.quantile(self._kept[0], QUANTILES)
        return {**counts, "mean": self._total / self.count, "min": self._least,
                "max": self._greatest, "sampled": self._kept.shape[1] < self.count,
                "quantiles": {str(share): float(value)
                              for share, value in zip(QUANTILES, found, strict=True)}}


@dataclass(order=True, frozen=True)
class Candidate:
    """A row among the worst: how bad, where it lies, and what it is."""
    goodness: float
    order: int
    row: dict[str, Any] = field(compare=False)


class Worst:
    """The rows with the worst values of a column, in one pass.

    Args:
        number: how many are kept; of equal ones the first.
        column: their values; whether small ones are good is known of it.
    """

    def __init__(self, number: int, column: str) -> None:
        self._number, self._column = number, column
        self._sign = -1.0 if lower_is_better(column) else 1.0
        self._kept: list[Candidate] = []
        self._seen = 0

    def add(self, table: pa.Table) -> None:
        """Look at some rows, with `ROW_COLUMNS`."""
        goodness = self._sign * values_of(table, self._column)
        near = np.argsort(goodness, kind="stable")[:self._number]
        near = near[~np.isnan(goodness[near])]
        rows = table.select([*ROW_COLUMNS, self._column]).take(pa.array(near)).to_pylist()
        found = [Candidate(float(goodness[place]), self._seen + int(place), row)
                 for place, row in zip(near, rows, strict=True)]
        self._kept = heapq.nsmallest(self._number, [*self._kept, *found])
        self._seen += table.num_rows

    def rows(self) -> list[dict[str, Any]]:
        """The worst rows as JSON values, the worst one first."""
        return [candidate.row for candidate in self._kept]


class QualityStatistics:
    """The quality columns of a corpus in one pass: over all rows, by class, and the worst rows.

    Args:
        corpus: whose spec names the columns.
        num_worst: rows listed for each modality, by its own figure.
    """

    def __init__(self, corpus: TokenCorpus, num_worst: int = 0) -> None:
        self.columns = corpus.spec.quality
        self.num_rows = 0
        self._room = max(LEAST_ROOM, ROOM // max(1, len(corpus.manifest.class_counts)
                                                 * len(self.columns)))
        self._all = {name: Distribution() for name in self.columns}
        self._classes: dict[str, dict[str, Distribution]] = {}
        self._worst = {name: Worst(num_worst, name) for name in self.columns
                       if num_worst and is_figure(name)}

    def add(self, table: pa.Table) -> None:
        """Count in some rows."""
        self.num_rows += table.num_rows
        values = {name: values_of(table, name) for name in self.columns}
        for name, column in values.items():
            self._all[name].add(column)
        for group, places in _places(classes_of(table)):
            found = self._classes.setdefault(group, {
                name: Distribution(self._room) for name in self.columns})
            for name, column in values.items():
                found[name].add(column[places])
        for worst in self._worst.values():
            worst.add(table)

    def summary(self) -> dict[str, Any]:
        """Figures as JSON values: ``columns``, ``classes`` by name, and ``worst`` by column."""
        return {"num_rows": self.num_rows, "columns": _summaries(self._all),
                "classes": {group: _summaries(found)
                            for group, found in sorted(self._classes.items())},
                "worst": {name: worst.rows() for name, worst in self._worst.items()}}


def quality_statistics(corpus: TokenCorpus, rows: RowFilter | None = None,
                       num_worst: int = 0) -> dict[str, Any]:
    """How the quality columns of a corpus are distributed; see `QualityStatistics.summary`.

    Args:
        rows: takes some of the rows; nothing takes all.
    Raises:
        ValueError: the corpus has no quality columns, or no row is taken.
    """
    if not corpus.spec.quality:
        raise ValueError(f"{corpus.url} has no quality columns; encode the images with --stats to "
                         "store them")
    found = QualityStatistics(corpus, num_worst)
    for table in selected_tables(corpus, [*ROW_COLUMNS, *found.columns], rows):
        found.add(table)
    if rows is not None:
        rows.require_rows(found.num_rows, corpus.url)
    return found.summary()


def values_of(table: pa.Table, column: str) -> np.ndarray:
    """A column of numbers as float64 ``(N,)``, NaN for null."""
    values: np.ndarray = table[column].cast(pa.float64()).fill_null(float("nan")).to_numpy()
    return values


def _places(groups: list[str | None]) -> Iterator[tuple[str, np.ndarray]]:
    """Each class that occurs, with the places of its rows, int64 ``(n,)``."""
    by_group: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        if group is not None:
            by_group.setdefault(group, []).append(place)
    yield from ((group, np.array(places)) for group, places in by_group.items())


def _summaries(found: Mapping[str, Distribution]) -> dict[str, Any]:
    return {name: distribution.summary() for name, distribution in found.items()}
