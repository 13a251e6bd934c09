"""Quality columns: how good a row's reconstruction is, and how sure the encoder was of its codes.

For each modality four float32 columns, which filters and `img2tokens inspect --stats` read:

    MODALITY_FIGURE     the modality's own figure of the decoded codes against the pixels: psnr, ...
    MODALITY_entropy    bits: of how the row's codes are distributed
    MODALITY_distance   mean distance of the latents to the entries of their codes
    MODALITY_margin     mean distance by which the second nearest entry is further away

The last two are null where codes are not the nearest entries of a codebook. A row's values do not
depend on what else is encoded at the same time.

Letters: B rows of a batch, D codes a cell, h and w rows and columns of the code grid.
"""
from typing import Protocol

import numpy as np

from tokenizer.corpus.modalities import MODALITIES, Modality
from tokenizer.schema import CodeSpec

ENTROPY, DISTANCE, MARGIN = "entropy", "distance", "margin"


class MeasuringCodec(Protocol):
    """What is needed of a `tokenizer.codec.Codec`."""

    @property
    def spec(self) -> CodeSpec:
        """What its codes mean."""

    @property
    def modality(self) -> Modality:
        """How pixels are compared."""

    def encode_with_distances(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Codes, and distances to their entries and to the second nearest; see `Codec`."""

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Pixels of codes."""


def quality_columns(modality: str) -> tuple[str, ...]:
    """Names of the columns of one modality, its own figure first."""
    figure = MODALITIES[modality].quality
    return tuple(f"{modality}_{name}" for name in (figure, ENTROPY, DISTANCE, MARGIN))


def is_figure(column: str) -> bool:
    """Whether a column says how good a row is, by which rows are ranked; others tell of its codes.

    Samples of a prior have such a column too, their likelihood.
    """
    return column.rpartition("_")[2] not in (ENTROPY, DISTANCE, MARGIN)


def lower_is_better(column: str) -> bool:
    """Whether small values of the figure in this column are the good ones."""
    return any(column == quality_columns(name)[0] and modality.lower_is_better
               for name, modality in MODALITIES.items())


def encode_and_measure(codec: MeasuringCodec, pixels: np.ndarray,
                       ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Encode pixels, decode their codes, and compare.

    Args:
        pixels: ``(B, H, W[, 3])`` as for `Codec.encode`.
    Returns:
        Codes ``(B[, D], h, w)``, the same as without measuring, and the quality columns by name,
        float32 ``(B,)``, NaN for null.
    """
    codes, distances = codec.encode_with_distances(pixels)
    found = codec.decode(codes)
    figure = codec.modality.quality
    figures = [codec.modality.difference(found[row:row + 1], pixels[row:row + 1])[figure]
               for row in range(len(pixels))]
    nearest, margins = mean_distances(distances, len(pixels))
    values = (figures, [code_entropy(row, codec.spec.depth) for row in codes], nearest, margins)
    return codes, {name: np.asarray(column, np.float32) for name, column in zip(
        quality_columns(codec.spec.modality), values, strict=True)}


def code_entropy(codes: np.ndarray, depth: int = 1) -> float:
    """Entropy in bits of the distribution of one row's codes ``([D,] h, w)``; mean over D.

    0 where all cells have one code, log2(h * w) where each has its own.
    """
    return float(np.mean([_entropy(part) for part in codes.reshape(depth, -1)]))


def _entropy(codes: np.ndarray) -> float:
    counts = np.unique(codes, return_counts=True)[1]
    shares = counts / counts.sum()
    return float(-(shares * np.log2(shares)).sum()) + 0.0  # no minus zero


def mean_distances(distances: np.ndarray | None, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean distance and mean margin of each row, float64 ``(B,)``; NaN where there are none.

    Args:
        distances: ``(B, 2[, D], h, w)`` float32, to the nearest entry and to the second nearest.
    """
    if distances is None:
        return np.full(num_rows, np.nan), np.full(num_rows, np.nan)
    cells = tuple(range(1, distances.ndim - 1))
    nearest, second = distances[:, 0].astype(np.float64), distances[:, 1]
    return nearest.mean(cells), np.maximum(second - nearest, 0.0).mean(cells)
