"""How varied samples are, and whether they are copies of what a prior was trained on.

Beside each figure of samples stands that of held-out rows, which are no copies: samples that are
nearer to rows of training than held-out rows are have been memorised.

Letters: N samples, M of them compared, n codes of a row, D codes a cell, K codebook size.
"""
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from prior.dataset import CodeRows, spread
from prior.report.rows import TrainingCodes
from tokenizer.evaluation.figures import Figure, finite
from tokenizer.neighbours import EqualRows, NearestRows
from tokenizer.schema import CodeSpec, CodeUsage, count_codes

SAMPLES, HELD_OUT = "samples", "held-out rows"
"""What is compared, as labels say it."""

NUM_BINS = 50
"""Of the histogram of equal codes, from none to all."""
QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99)
FAR = 0.99
"""Quantile of the held-out rows beyond which a sample counts as nearer than they are."""
FEWEST = 100
"""Held-out rows that this quantile takes."""


@dataclass(frozen=True)
class Compared:
    """Some rows beside the nearest ones of training.

    Attributes:
        places: which rows, int64 ``(M,)``.
        shares: share of codes equal to the nearest row's, float64 ``(M,)``.
        rows: numbers of these rows in the corpus of training, int64 ``(M,)``.
    """
    places: np.ndarray
    shares: np.ndarray
    rows: np.ndarray

    def summary(self) -> dict[str, Any]:
        """Quantiles and a histogram of the shares, as JSON values."""
        found = np.quantile(self.shares, QUANTILES)
        counts, _ = np.histogram(self.shares, NUM_BINS, (0, 1))
        return {"num_rows": len(self.places), "mean": float(self.shares.mean()),
                "quantiles": {str(share): float(value)
                              for share, value in zip(QUANTILES, found, strict=True)},
                "histogram": counts.tolist()}


@dataclass(frozen=True)
class Neighbours:
    """What a search through the rows of training has found.

    Attributes:
        samples: compared with them, and ``held_out`` rows likewise.
        equal: the row of training that equals each sample, int64 ``(N,)``; -1 for none.
        num_training: rows that were searched.
    """
    samples: Compared
    held_out: Compared
    equal: np.ndarray
    num_training: int


def search(training: TrainingCodes, samples: np.ndarray, held_out: np.ndarray, limit: int,
           done: Callable[[int], object] = lambda count: None) -> Neighbours:
    """Go through the rows of training once.

    Args:
        samples: codes ``(N, n)`` of the type of the corpus; all are looked for, code for code.
        held_out: likewise.
        limit: most rows of each whose nearest one is found, spread evenly.
        done: called with the number of rows gone through.
    """
    sets = [(codes, spread(len(codes), limit)) for codes in (samples, held_out)]
    nearest = [NearestRows(codes[places]) for codes, places in sets]
    equal = EqualRows(samples)
    for numbers, codes in training.blocks():
        equal.add(codes, numbers)
        for compared in nearest:
            compared.add(codes, numbers)
        done(len(numbers))
    near = [Compared(places, found.shares, found.rows)
            for (_, places), found in zip(sets, nearest, strict=True)]
    return Neighbours(near[0], near[1], equal.rows, len(training))


def usage_figures(spec: CodeSpec, samples: CodeRows, held_out: CodeRows,
                  common: Mapping[str, Any]) -> dict[str, Figure]:
    """Entropy and usage of codes of samples and of as many held-out rows, and copies in samples."""
    count = min(len(samples), len(held_out))
    figures = {}
    for name, words, rows in (("samples", SAMPLES, samples), ("held_out", HELD_OUT, held_out)):
        codes = rows.codes[spec.modality][spread(len(rows), count)]
        usage = CodeUsage.of(count_codes(codes, spec.codebook_size, spec.depth))
        conditions = {**common, "rows_counted": count, "num_codes": int(codes.size),
                      "codebook_size": spec.codebook_size}
        if spec.depth > 1:
            conditions["codebooks"] = f"the least of {spec.depth}, one for each code of a cell"
        figures[f"entropy_{name}"] = Figure(
            value=finite(np.log2(usage.perplexity)), label=f"entropy of codes, {words}",
            unit="bits", better="", conditions=conditions)
        figures[f"codes_used_{name}"] = Figure(
            value=usage.used / spec.codebook_size, label=f"codebook used, {words}", better="",
            conditions=conditions)
    flat = samples.codes[spec.modality].reshape(len(samples), -1)
    figures["duplicates"] = Figure(
        value=float(EqualRows(flat).num_copies), label="samples equal to an earlier one",
        unit="rows", better="lower", conditions={**common})
    return figures


def neighbour_figures(found: Neighbours, common: Mapping[str, Any]) -> dict[str, Figure]:
    """How near samples and held-out rows come to rows of training, and which are copies."""
    conditions = {**common, "num_training": found.num_training, "distance": "Hamming: share of "
                  "codes equal to those of the nearest row, code by code"}
    figures = {}
    for name, words, compared in (("samples", SAMPLES, found.samples),
                                  ("held_out", HELD_OUT, found.held_out)):
        figures[f"nearest_{name}"] = Figure(
            value=float(np.median(compared.shares)), label=f"equal to nearest row, {words}",
            better="", conditions={**conditions, "rows_compared": len(compared.places),
                                   "average": "median"})
    limit = float(np.quantile(found.held_out.shares, FAR))
    nearer = found.samples.shares > limit
    num_limit = len(found.held_out.places)
    caution = ({"caution": f"by no more than {num_limit} held-out row{'s' * (num_limit > 1)}"}
               if num_limit < FEWEST else {})
    figures["nearer_than_held_out"] = Figure(
        value=float(nearer.mean()), label="nearer than held-out rows", better="lower",
        conditions={**conditions, "rows_compared": len(nearer), "threshold": limit,
                    "expected": f"{1 - FAR:.0%} of rows as new as the held-out ones",
                    "rows_of_threshold": num_limit, **caution})
    figures["memorised"] = Figure(
        value=float((found.equal >= 0).sum()), label="samples equal to a training row",
        unit="rows", better="lower", conditions={**common, "num_training": found.num_training})
    return figures
