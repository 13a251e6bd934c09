"""What can be said of codes without a model: usage, dead codes, what is typical of a class, and how
much each place of the grid varies. Counted shard by shard; memory is bounded by `MAX_BYTES`.

Letters: D codes a cell, h and w rows and columns of the code grid, K codebook size.
"""
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from tokenizer import configs
from tokenizer.census import Census, classes_of
from tokenizer.filters import RowFilter, selected_tables
from tokenizer.grids import codes_by_grid
from tokenizer.pictures import colour_depth, enlarge, tile
from tokenizer.schema import CodeSpec, CodeUsage, count_codes
from tokenizer.tokens import TokenCorpus

MAX_BYTES = 1 << 28
"""Of the counts by class, and of those by place, of one modality; 4 bytes each, or 8 where the
codes of all rows are more than 32 bits count."""

ROWS_AT_ONCE = 4096
"""Rows that are counted at once, however many a shard has: each code takes 16 bytes meanwhile."""

NUM_SPECIFIC = 5
"""Codes listed for each class."""

PICTURE_SIDE = 256
"""Least side of the picture of one codebook, in pixels."""


class CodeCounts:
    """How often each code of one modality occurs: in all, by class and by place.

    Args:
        groups: classes to count, by name; the first codes of their rows' cells.
        num_rows: that are counted at most.
    """

    def __init__(self, spec: CodeSpec, groups: Sequence[str], num_rows: int) -> None:
        size = spec.codebook_size
        self.spec = spec
        self._counts = np.zeros((spec.depth, size), np.int64)
        num_codes = max(part.num_codes for part in spec.grids)
        kind = np.dtype(np.uint32 if num_rows * num_codes < 1 << 32 else np.uint64)
        most = MAX_BYTES // (kind.itemsize * size)
        self._groups = {name: place for place, name in enumerate(groups[:most])}
        self.num_left_out = len(groups) - len(self._groups)
        self._by_group = np.zeros((len(self._groups), size), kind)
        self._rows: Counter[str] = Counter()
        self._by_place = (np.zeros((spec.num_codes, size), kind)
                          if spec.num_codes <= most and not spec.buckets else None)

    def add(self, table: pa.Table) -> None:
        """Count the codes of some rows."""
        for _, rows, codes in codes_by_grid(self.spec, table):
            self._add(codes, table if len(rows) == table.num_rows else table.take(rows))

    def _add(self, codes: np.ndarray, table: pa.Table) -> None:
        """Count the codes ``(N[, D], h, w)`` of rows with one grid."""
        self._counts += count_codes(codes, self.spec.codebook_size, self.spec.depth)
        flat = codes.reshape(len(codes), -1).astype(np.int64)
        if self._by_place is not None:
            _count_pairs(self._by_place, np.arange(flat.shape[1])[None], flat)
        names = classes_of(table)
        self._rows.update(name for name in names if name in self._groups)
        places = np.array([-1 if name is None else self._groups.get(name, -1) for name in names],
                          np.int64)
        first = flat[:, :flat.shape[1] // self.spec.depth]
        _count_pairs(self._by_group, places[places >= 0, None], first[places >= 0])

    def summary(self) -> dict[str, Any]:
        """Figures as JSON values: ``used``, ``perplexity``, ``dead_codes`` of each codebook,
        ``classes`` by name, and ``entropy_by_place`` in bits, ``(D, h, w)`` or nothing."""
        usage = CodeUsage.of(self._counts)
        entropies = self.entropy_by_place()
        return {
            "used": usage.used, "used_by_depth": list(usage.used_by_depth),
            "perplexity": usage.perplexity,
            "dead_codes": [np.flatnonzero(counts == 0).tolist() for counts in self._counts],
            "classes": {name: self._typical(name) for name in sorted(self._groups)
                        if self._rows[name]},
            "num_classes_left_out": self.num_left_out,
            "entropy_by_place": None if entropies is None else entropies.round(6).tolist()}

    def entropy_by_place(self) -> np.ndarray | None:
        """Entropy in bits of the codes at each place, float64 ``(D, h, w)``; nothing where the
        counts would take more than `MAX_BYTES`, there are no rows, or they have several grids."""
        if self._by_place is None or not self._counts.any():
            return None
        entropies = np.array([np.log2(CodeUsage.of(counts).perplexity)
                              for counts in self._by_place])
        return entropies.reshape(self.spec.depth, *self.spec.grid)

    def _typical(self, name: str) -> dict[str, Any]:
        """Rows and perplexity of one class, and the codes that tell it best from the whole.

        These are the greatest terms of the Kullback-Leibler divergence of its distribution from
        that of all rows; ``lift`` is how many times as frequent a code is.
        """
        counts = self._by_group[self._groups[name]]
        shares, of_all = counts / counts.sum(), self._counts[0] / self._counts[0].sum()
        lifts = np.divide(shares, of_all, out=np.ones_like(shares), where=shares > 0)
        terms = shares * np.log2(lifts)
        best = np.argsort(-terms, kind="stable")[:NUM_SPECIFIC]
        return {"num_rows": self._rows[name], "used": int((counts > 0).sum()),
                "perplexity": CodeUsage.of(counts).perplexity,
                "divergence": float(terms.sum()),
                "specific_codes": [{"code": int(code), "share": float(shares[code]),
                                    "lift": float(lifts[code])}
                                   for code in best if terms[code] > 0]}


def count_corpus(corpus: TokenCorpus, rows: RowFilter | None = None) -> dict[str, CodeCounts]:
    """The codes of each modality, counted over all rows, or those that a filter takes.

    Raises:
        ValueError: no row is taken.
    """
    groups = [name for name, _ in Counter(corpus.manifest.class_counts).most_common()]
    found = {spec.modality: CodeCounts(spec, groups, corpus.manifest.num_rows)
             for spec in corpus.spec.codes}
    columns = dict.fromkeys(name for spec in corpus.spec.codes for name in spec.columns)
    num_rows = 0
    for table in selected_tables(corpus, ["label", "class_name", *columns], rows):
        num_rows += table.num_rows
        for start in range(0, table.num_rows, ROWS_AT_ONCE):
            for counts in found.values():
                counts.add(table.slice(start, ROWS_AT_ONCE))
    if rows is not None:
        rows.require_rows(num_rows, corpus.url)
    return found


def census_of(corpus: TokenCorpus, rows: RowFilter) -> dict[str, Any]:
    """How many rows a filter takes, their classes and codebook usage, as JSON values.

    Raises:
        ValueError: no row is taken.
    """
    census, num_rows = Census(corpus.spec), 0
    columns = dict.fromkeys(name for spec in corpus.spec.codes for name in spec.columns)
    for table in selected_tables(corpus, ["label", "class_name", *columns], rows):
        num_rows += table.num_rows
        census.add(corpus.spec, table)
    rows.require_rows(num_rows, corpus.url)
    return {"filter": rows.text, "num_rows": num_rows, "class_counts": census.class_counts,
            "usage": {name: configs.to_dict(usage) for name, usage in census.usage.items()}}


def entropy_picture(entropies: np.ndarray, codebook_size: int) -> np.ndarray:
    """Entropies ``(D, h, w)`` in bits as ``(H, W, 3)`` uint8, codebooks side by side.

    Dark blue is 0, pale yellow log2 of the codebook's size.
    """
    levels = (65535 * (entropies / np.log2(max(2, codebook_size))).clip(0, 1)).astype(np.uint16)
    factor = max(1, -(-PICTURE_SIDE // min(levels.shape[1:])))
    return tile(enlarge(colour_depth(levels), factor), columns=len(levels))


def _count_pairs(counts: np.ndarray, rows: np.ndarray, codes: np.ndarray) -> None:
    """Add 1 at each pair of a row of ``counts`` and a code, both int64; their shapes broadcast."""
    flat = (rows * counts.shape[1] + codes).reshape(-1)
    np.add.at(counts.reshape(-1), flat, counts.dtype.type(1))  # another type is 7 times slower
