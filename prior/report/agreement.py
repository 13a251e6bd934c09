"""Whether samples show what they were given: maps read off them beside the maps given.

A map is read off a picture by an estimator, which the caller brings. The same is done with the
pictures of held-out rows: what the estimator cannot read there, it cannot find in samples either.

Letters: N rows, H and W sides of a picture and h and w of a map in pixels.
"""
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from prior.dataset import CodeRows
from prior.gallery import DECODED_AT_ONCE, Decoder, Pixels
from tokenizer.evaluation.figures import SCORES, Figure, finite

Sums = dict[str, np.ndarray]


class Estimator(Protocol):
    """Reads maps off pictures."""

    @property
    def words(self) -> str:
        """What it is, for the conditions of figures."""

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        """Pictures ``(N, H, W, 3)`` uint8 to pixels of the map's modality, ``(N, h, w[, 3])``."""


class ScoredPixels(Pixels, Protocol):
    """What is asked of a map's modality."""

    def sums(self, outputs: np.ndarray, pixels: np.ndarray) -> Sums:
        """What some maps add to its score, against the pixels they should be."""

    def figures(self, sums: Sums) -> dict[str, float]:
        """The score of all maps whose sums were added up, by name."""


class MapDecoder(Decoder, Protocol):
    """What is asked of a map's codec."""

    @property
    def modality(self) -> ScoredPixels:
        """How its pixels are compared."""


def agreement(rows: CodeRows, name: str, image: tuple[str, Decoder], decoder: MapDecoder,
              estimator: Estimator,
              done: Callable[[int], object] = lambda count: None) -> dict[str, float]:
    """The score of maps read off the pictures of some rows, against those of their codes.

    Args:
        rows: with codes of pictures and of maps.
        name: modality of the maps, and ``decoder`` its codec.
        image: modality of the pictures, and its codec.
        done: called with the number of rows of each batch.
    Raises:
        ValueError: the estimator returns something else than its contract says.
    """
    total: Sums = {}
    for part in parts(len(rows)):
        pictures = image[1].decode(rows.codes[image[0]][part])
        given = decoder.decode(rows.codes[name][part])
        found = estimator(pictures)
        if found.shape != given.shape:
            raise ValueError(f"maps of {name} read off pictures must be of shape {given.shape}, "
                             f"got {found.shape}; see the contract in docs/evaluation.md")
        for key, value in decoder.modality.sums(found, given).items():
            total[key] = value + total.get(key, 0)
        done(len(given))
    return decoder.modality.figures(total)


def parts(count: int) -> Iterator[slice]:
    """Rows that are decoded at once."""
    for first in range(0, count, DECODED_AT_ONCE):
        yield slice(first, first + DECODED_AT_ONCE)


def agreement_figures(name: str, scores: Mapping[str, Mapping[str, float]],
                      conditions: Mapping[str, Mapping[str, Any]]) -> dict[str, Figure]:
    """Scores of one map as figures.

    Args:
        scores: by name, of what is compared: ``samples``, ``held_out``.
        conditions: likewise.
    """
    words = {"samples": "samples", "held_out": "held-out rows"}
    figures = {}
    for score in next(iter(scores.values())):
        label, unit, better = SCORES.get(score, (score, "", ""))
        for which, values in scores.items():
            figures[f"{name}_{score}_{which}"] = Figure(
                value=finite(values[score]), label=f"{name} {label}, {words[which]}", unit=unit,
                better=better, conditions=dict(conditions[which]))
    return figures
