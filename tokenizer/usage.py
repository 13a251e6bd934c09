"""How much of a codebook some codes use.

Letters: D codes a cell, K codebook size.
"""
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class CodeUsage:
    """How much of a codebook some codes use; with several codes a cell, the least of its codebooks.

    A codebook that has collapsed is thus seen however well the others are used.

    Attributes:
        used: number of entries that occur at least once.
        perplexity: 2 to the entropy in bits of the codes' distribution; K when uniform.
        used_by_depth: ``used`` of each of the D codebooks; empty for one code a cell.
    """
    used: int
    perplexity: float
    used_by_depth: tuple[int, ...] = ()

    @classmethod
    def of(cls, counts: np.ndarray) -> "CodeUsage":
        """Usage from how often each entry occurs: integer ``(D, K)``, or ``(K,)``."""
        counts = np.atleast_2d(counts)
        used = tuple(int(number) for number in (counts > 0).sum(1))
        return cls(used=min(used), perplexity=min(map(_perplexity, counts)),
                   used_by_depth=used if len(used) > 1 else ())

    @property
    def by_depth(self) -> str:
        """``; by depth 512, 37``, or nothing for one code a cell."""
        return f"; by depth {', '.join(map(str, self.used_by_depth))}" if self.used_by_depth else ""


def count_codes(codes: np.ndarray, codebook_size: int, depth: int = 1) -> np.ndarray:
    """How often each code occurs, int64 ``(D, K)``.

    Args:
        codes: ``(..., D, h, w)``, or any shape for one code a cell; integers in ``[0, K)``.
    """
    by_depth = codes[None] if depth == 1 else np.moveaxis(codes, -3, 0)
    return np.stack([np.bincount(part.reshape(-1), minlength=codebook_size) for part in by_depth])


def _perplexity(counts: np.ndarray) -> float:
    """2 to the entropy in bits of a distribution given as counts ``(K,)``; 0 without any."""
    total = int(counts.sum())
    if not total:
        return 0.0
    shares = counts[counts > 0] / total
    return round(2.0 ** -float((shares * np.log2(shares)).sum()), 6)
