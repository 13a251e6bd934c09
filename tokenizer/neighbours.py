"""The most similar of many rows of codes, and equal ones, found in one pass over blocks of them.

Similar are rows with many equal codes, each compared with the one at its own place: the Hamming
distance of two rows is the number of codes at which they differ. All pairs are compared, so that
what is found is the nearest row; memory is bounded by one block, whatever the number of rows.

Letters: M rows that are asked about, N others, B of a block, n codes of a row.
"""
import numpy as np

from tokenizer.duplicates import hashed

ROWS_AT_ONCE, OTHERS_AT_ONCE = 256, 1024
"""Rows that are compared with each other at once: their counts stay in a processor's cache."""


class NearestRows:
    """For each of some rows the other one with the most equal codes; of several the first.

    Args:
        codes: ``(M, n)`` integers.

    Attributes:
        num_equal: codes that the nearest row so far shares with each, int64 ``(M,)``; -1 before
            there was any.
        rows: the number of that row, int64 ``(M,)``.
    """

    def __init__(self, codes: np.ndarray) -> None:
        # Codes of one place side by side, so that a block is compared place by place.
        self._codes = np.ascontiguousarray(codes.T)
        self.num_equal = np.full(len(codes), -1, np.int64)
        self.rows = np.full(len(codes), -1, np.int64)

    @property
    def shares(self) -> np.ndarray:
        """Share of equal codes of each row and its nearest one, float64 ``(M,)``."""
        return self.num_equal / len(self._codes)

    def add(self, others: np.ndarray, numbers: np.ndarray) -> None:
        """Compare with some more rows.

        Args:
            others: ``(N, n)`` integers of the type of ``codes``.
            numbers: ``(N,)`` integers, their numbers, ascending from call to call.
        """
        for start in range(0, len(others), OTHERS_AT_ONCE):
            block = np.ascontiguousarray(others[start:start + OTHERS_AT_ONCE].T)
            for first in range(0, len(self.rows), ROWS_AT_ONCE):
                part = slice(first, first + ROWS_AT_ONCE)
                equal = _count_equal(self._codes[:, part], block)
                places = equal.argmax(1)
                most = equal[np.arange(len(equal)), places]
                nearer = np.flatnonzero(most > self.num_equal[part])
                self.num_equal[first + nearer] = most[nearer]
                self.rows[first + nearer] = numbers[start + places[nearer]]


class EqualRows:
    """Which of some rows occur among others, code for code.

    Args:
        codes: ``(M, n)`` integers.

    Attributes:
        rows: the number of the first other row that equals each, int64 ``(M,)``; -1 for none.
    """

    def __init__(self, codes: np.ndarray) -> None:
        self.rows = np.full(len(codes), -1, np.int64)
        self._dtype = codes.dtype
        self._hashes = np.unique(hashed(codes))
        self._places: dict[bytes, list[int]] = {}
        for place, row in enumerate(codes):
            self._places.setdefault(row.tobytes(), []).append(place)

    @property
    def num_copies(self) -> int:
        """Rows beside the first of each content, among those asked about themselves."""
        return len(self.rows) - len(self._places)

    def add(self, others: np.ndarray, numbers: np.ndarray) -> None:
        """Look at some more rows ``(N, n)``; arguments as of `NearestRows.add`."""
        others = others.astype(self._dtype, copy=False)
        for row in np.flatnonzero(np.isin(hashed(others), self._hashes)):
            for place in self._places.get(others[row].tobytes(), ()):
                if self.rows[place] < 0:
                    self.rows[place] = numbers[row]


def _count_equal(codes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How many codes each row shares with each other one, ``(M, B)``, of ``(n, M)`` and ``(n, B)``.
    """
    kind = np.uint16 if len(codes) < 1 << 16 else np.uint32
    counts = np.zeros((codes.shape[1], others.shape[1]), kind)
    for own, other in zip(codes, others, strict=True):
        counts += own[:, None] == other
    return counts
