"""What the rows of a token corpus hold: codes and classes, counted shard by shard.

Letters: D codes a cell, K codebook size.
"""
import threading
from collections import Counter

import numpy as np
import pyarrow as pa

from tokenizer.schema import CodeUsage, TokenSpec, codes_array, count_codes


class Census:
    """What the rows of a corpus hold, counted shard by shard; several threads may count."""

    def __init__(self, spec: TokenSpec) -> None:
        self._lock = threading.Lock()
        self._codes = {code.modality: np.zeros((code.depth, code.codebook_size), np.int64)
                       for code in spec.codes}
        self._classes: Counter[str] = Counter()

    def add(self, spec: TokenSpec, table: pa.Table) -> None:
        """Count the codes and classes of these rows."""
        found = classes_of(table)
        with self._lock:
            self._classes.update(name for name in found if name is not None)
            for code in spec.codes:
                self._codes[code.modality] += count_codes(codes_array(code, table),
                                                          code.codebook_size, code.depth)

    @property
    def usage(self) -> dict[str, CodeUsage]:
        """Per modality, how much of its codebook the rows use."""
        return {name: CodeUsage.of(counts) for name, counts in self._codes.items()}

    @property
    def class_counts(self) -> dict[str, int]:
        """Rows of each class, by name."""
        return dict(sorted(self._classes.items()))


def classes_of(table: pa.Table) -> list[str | None]:
    """The class of each row: its name, its label in decimal where it has no name, or nothing."""
    names, labels = table["class_name"].to_pylist(), table["label"].to_pylist()
    return [name if name is not None or label is None else str(label)
            for name, label in zip(names, labels, strict=True)]
