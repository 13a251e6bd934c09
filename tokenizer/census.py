"""What the rows of a token corpus hold: codes, classes and buckets, counted shard by shard.

Letters: D codes a cell, K codebook size.
"""
import threading
from collections import Counter

import numpy as np
import pyarrow as pa

from tokenizer.grids import codes_by_grid
from tokenizer.schema import BUCKET, CodeUsage, TokenSpec, count_codes


class Census:
    """What the rows of a corpus hold, counted shard by shard; several threads may count."""

    def __init__(self, spec: TokenSpec) -> None:
        self._lock = threading.Lock()
        self._codes = {code.modality: np.zeros((code.depth, code.codebook_size), np.int64)
                       for code in spec.codes}
        self._classes: Counter[str] = Counter()
        self._buckets: Counter[str] = Counter()

    def add(self, spec: TokenSpec, table: pa.Table) -> None:
        """Count the codes, classes and buckets of these rows."""
        found = classes_of(table)
        buckets = table[BUCKET].to_pylist() if spec.buckets else []
        with self._lock:
            self._classes.update(name for name in found if name is not None)
            self._buckets.update(buckets)
            for code in spec.codes:
                for _, _, codes in codes_by_grid(code, table):
                    self._codes[code.modality] += count_codes(codes, code.codebook_size, code.depth)

    @property
    def usage(self) -> dict[str, CodeUsage]:
        """Per modality, how much of its codebook the rows use."""
        return {name: CodeUsage.of(counts) for name, counts in self._codes.items()}

    @property
    def class_counts(self) -> dict[str, int]:
        """Rows of each class, by name."""
        return dict(sorted(self._classes.items()))

    @property
    def bucket_counts(self) -> dict[str, int]:
        """Rows of each bucket, by name; none where there are no buckets."""
        return dict(sorted(self._buckets.items()))


def classes_of(table: pa.Table) -> list[str | None]:
    """The class of each row: its name, its label in decimal where it has no name, or nothing."""
    names, labels = table["class_name"].to_pylist(), table["label"].to_pylist()
    return [name if name is not None or label is None else str(label)
            for name, label in zip(names, labels, strict=True)]
