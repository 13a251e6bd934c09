"""Whether samples show what they were given: maps read off them beside the maps given.

A map is read off a picture by an estimator, which the caller brings. The same is done with the
pictures of held-out rows: what the estimator cannot read there, it cannot find in samples either.
Maps of other samples show what agrees by chance.

Letters: N rows, H and W sides of a picture and h and w of a map in pixels.
"""
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from prior.dataset import CodeRows
from prior.gallery import DECODED_AT_ONCE, Decoder, Pixels
from tokenizer.evaluation.figures import SCORES, Figure, finite

COMPARED = {"samples": "samples", "others": "maps of others", "held_out": "held-out rows"}
"""What scores are taken of, as labels say it: samples with their own maps and with those of other
samples, and held-out rows with theirs."""

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


@dataclass(frozen=True)
class Agreement:
    """The scores of maps read off the pictures of some rows, by name.

    Attributes:
        own: against each row's own map.
        others: against maps of other rows, as of `other_maps`; empty where not asked for.
    """
    own: dict[str, float]
    others: dict[str, float]


def agreement(rows: CodeRows, name: str, image: tuple[str, Decoder], decoder: MapDecoder,
              estimator: Estimator, by_chance: bool = False,
              done: Callable[[int], object] = lambda count: None) -> Agreement:
    """Compare maps read off the pictures of some rows with those of their codes.

    Args:
        rows: with codes of pictures and of maps.
        name: modality of the maps, and ``decoder`` its codec.
        image: modality of the pictures, and its codec.
        by_chance: compare with maps of other rows too, where there are different ones.
        done: called with the number of rows of each batch.
    Raises:
        ValueError: the estimator returns something else than its contract says.
    """
    others = other_maps(rows.codes[name]) if by_chance else None
    sets = [rows.codes[name], *([] if others is None else [others])]
    totals: list[Sums] = [{} for _ in sets]
    for part in parts(len(rows)):
        found = estimator(image[1].decode(rows.codes[image[0]][part]))
        for total, codes in zip(totals, sets, strict=True):
            given = decoder.decode(codes[part])
            if found.shape != given.shape:
                raise ValueError(f"maps of {name} read off pictures must be of shape "
                                 f"{given.shape}, got {found.shape}; see docs/evaluation.md")
            for key, value in decoder.modality.sums(found, given).items():
                total[key] = value + total.get(key, 0)
        done(len(found))
    own, *chance = map(decoder.modality.figures, totals)
    return Agreement(own, chance[0] if chance else {})


def other_maps(codes: np.ndarray) -> np.ndarray | None:
    """For each row of codes ``(N, ...)`` another one's, half way round all that are different.

    Nothing where all rows are equal.
    """
    _, firsts, places = np.unique(codes.reshape(len(codes), -1), axis=0, return_index=True,
                                  return_inverse=True)
    if len(firsts) < 2:
        return None
    other: np.ndarray = codes[firsts[(places.reshape(-1) + len(firsts) // 2) % len(firsts)]]
    return other


def parts(count: int) -> Iterator[slice]:
    """Rows that are decoded at once."""
    for first in range(0, count, DECODED_AT_ONCE):
        yield slice(first, first + DECODED_AT_ONCE)


def agreement_figures(name: str, scores: Mapping[str, Mapping[str, float]],
                      conditions: Mapping[str, Mapping[str, Any]]) -> dict[str, Figure]:
    """Scores of one map as figures.

    Args:
        scores: by name, of what is compared: a key of `COMPARED`.
        conditions: likewise.
    """
    figures = {}
    for score in next(iter(scores.values())):
        label, unit, better = SCORES.get(score, (score, "", ""))
        for which, values in scores.items():
            figures[f"{name}_{score}_{which}"] = Figure(
                value=finite(values[score]), label=f"{name} {label}, {COMPARED[which]}", unit=unit,
                better=better if which != "others" else "", conditions=dict(conditions[which]))
    return figures
