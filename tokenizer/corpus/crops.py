"""Crop rules: which boxes of an image become rows of a token corpus.

A rule gives every image the same number of crops. They follow from the sizes of the image and of
the tokenizer's input; where a rule draws, also from a seed, the image's key and the crop's number,
and from nothing else. Each row can so be made again by itself. All modalities of an image share its
crops. To add a rule, subclass `CropRule` here and list it in `CROPS`; the encode job finds it there
by name.
"""
import dataclasses
import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tokenizer.corpus.augment import draw, drawn_crop
from tokenizer.corpus.images import Crop, centre_crop

SIDES = (0.8, 1.0)
"""Least and greatest side of a drawn crop as shares of the largest possible one, as in training."""

MAX_DRAWN = 10_000
"""Drawn crops of one image, at most."""

ENLARGEMENTS = (1.1, 1.05)
"""Sides of the centre crops that ten-crop divides, in sides of the tokenizer's input."""


@dataclass(frozen=True, kw_only=True)
class CropRule(ABC):
    """One way to choose crops.

    Attributes:
        name: its name in options and specs.
        form: how it is written, with what follows the name.
        draws: whether boxes are drawn.
        flips: whether each crop is mirrored, left to right, by a draw with even odds.
        seed: of all draws.
    """
    name: ClassVar[str]
    form: ClassVar[str]
    draws: ClassVar[bool] = False
    flips: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"the seed of crops must be at least 0, got {self.seed}")

    @property
    @abstractmethod
    def num_crops(self) -> int:
        """Crops of each image."""

    @abstractmethod
    def boxes(self, height: int, width: int, size: tuple[int, int], key: str) -> Iterator[Crop]:
        """The crops of one image, their numbers left at 0; arguments as for `crops`."""

    def crops(self, height: int, width: int, size: tuple[int, int], key: str) -> list[Crop]:
        """The crops of one image, `num_crops` of them, numbered from 0.

        Args:
            height: rows of the image and of its maps; ``width`` likewise.
            size: target h and w in pixels.
            key: stable id of the image.
        """
        return [dataclasses.replace(crop, index=index)
                for index, crop in enumerate(self.boxes(height, width, size, key))]

    @classmethod
    def fields(cls, numbers: str) -> dict[str, Any] | None:
        """The fields that the text after the name and colon stands for; ``None`` if for none."""
        return None if numbers else {}

    @property
    def text(self) -> str:
        """The rule as it is written; `crop_rule` reads it."""
        return self.name

    @property
    def sides(self) -> tuple[float, float]:
        """Least and greatest side of its crops as shares of the largest possible one."""
        return 1.0, 1.0

    def settings(self) -> dict[str, Any]:
        """What decides the crops, as JSON values for `CodeSpec.preprocessing`."""
        settings: dict[str, Any] = {"crop": self.text}
        if self.flips:
            settings["flips"] = True
        if self.flips or self.draws:
            settings["crop_seed"] = self.seed
        return settings

    def _draw(self, key: str, index: int) -> np.ndarray:
        """What is drawn for a crop, as in training, but from seed, key and number."""
        return draw(self.seed, position_of(key, index))

    def _mirrored(self, crop: Crop, drawn: np.ndarray) -> Crop:
        """The crop, mirrored if `flips` and the draw say so."""
        return dataclasses.replace(crop, flipped=bool(self.flips and drawn[3] < 0.5))


@dataclass(frozen=True, kw_only=True)
class Centre(CropRule):
    """The largest centred box with the aspect ratio of the tokenizer's input."""
    name: ClassVar[str] = "centre"
    form: ClassVar[str] = "centre"

    @property
    def num_crops(self) -> int:
        return 1

    def boxes(self, height: int, width: int, size: tuple[int, int], key: str) -> Iterator[Crop]:
        yield self._mirrored(centre_crop(height, width, size), self._draw(key, 0))


@dataclass(frozen=True, kw_only=True)
class TenCrop(CropRule):
    """Four corners and the centre, each with its mirror image, out of two larger centre crops.

    For an input of side s these are the boxes of side s in the largest centred crop, scaled to side
    ``int(1.1 s)`` and then to ``int(1.05 s)``: 20 in all. Their order is that of the published
    code, which mirrors the whole and crops again: top left, top right, bottom left, bottom right,
    centre; then, mirrored, top right, top left, bottom right, bottom left, centre. Boxes lie on
    whole pixels of the original, and are resampled from it once.

    Source: Sun et al. 2024, arXiv:2406.06525 (LlamaGen).
    """
    name: ClassVar[str] = "ten-crop"
    form: ClassVar[str] = "ten-crop"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.flips:
            raise ValueError("ten-crop holds the mirror image of each of its crops: leave out "
                             "--flips")

    @property
    def num_crops(self) -> int:
        return 10 * len(ENLARGEMENTS)

    @property
    def sides(self) -> tuple[float, float]:
        return 1 / max(ENLARGEMENTS), 1 / min(ENLARGEMENTS)

    def boxes(self, height: int, width: int, size: tuple[int, int], key: str) -> Iterator[Crop]:
        whole = centre_crop(height, width, size)
        for enlargement in ENLARGEMENTS:
            share = min(size) / int(min(size) * enlargement)
            rows, columns = (max(1, round(side * share)) for side in (whole.height, whole.width))
            down, right = whole.height - rows, whole.width - columns
            corners = [(0, 0), (0, right), (down, 0), (down, right)]
            mirrored = [corners[place] for place in (1, 0, 3, 2)]
            centre = (down // 2, right // 2)
            for flipped, places in ((False, [*corners, centre]), (True, [*mirrored, centre])):
                for top, left in places:
                    yield Crop(left=whole.left + left, top=whole.top + top, width=columns,
                               height=rows, flipped=flipped)


@dataclass(frozen=True, kw_only=True)
class Random(CropRule):
    """Boxes of a drawn side, anywhere in the image.

    Attributes:
        count: crops of each image.
        sides: least and greatest side as shares of the largest possible one. Small equal sides show
            parts of an image at one scale, of which a prior with coordinates makes wholes.
    """
    count: int
    sides: tuple[float, float] = SIDES
    name: ClassVar[str] = "random"
    form: ClassVar[str] = "random:N, random:N:SIDE, random:N:LEAST-MOST"
    draws: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.count <= MAX_DRAWN:
            raise ValueError(f"random:N takes N of at least 1, got {self.count}" if self.count < 1
                             else f"random:N takes N of at most {MAX_DRAWN}, got {self.count}")
        least, most = self.sides
        if not 0 < least <= most <= 1:
            raise ValueError("sides of random crops are shares of the largest possible side, above "
                             f"0, at most 1 and the lesser first, got {_number(least)}-"
                             f"{_number(most)}")

    @classmethod
    def fields(cls, numbers: str) -> dict[str, Any] | None:
        side = r"([0-9]*\.?[0-9]+)"
        found = re.fullmatch(rf"([0-9]+)(?::{side}(?:-{side})?)?", numbers, re.ASCII)
        if found is None:
            return None
        count, least, most = found.groups()
        sides = SIDES if least is None else (float(least), float(most or least))
        return {"count": int(count), "sides": sides}

    @property
    def text(self) -> str:
        if self.sides == SIDES:
            return f"{self.name}:{self.count}"
        sides = "-".join(dict.fromkeys(map(_number, self.sides)))
        return f"{self.name}:{self.count}:{sides}"

    @property
    def num_crops(self) -> int:
        return self.count

    def boxes(self, height: int, width: int, size: tuple[int, int], key: str) -> Iterator[Crop]:
        for index in range(self.count):
            drawn = self._draw(key, index)
            yield self._mirrored(drawn_crop(height, width, size, self.sides, drawn), drawn)


CENTRE = Centre()
"""One crop of each image: what everything else than the encode job uses, and its default."""

CROPS: dict[str, type[CropRule]] = {rule.name: rule for rule in (Centre, TenCrop, Random)}
"""Every crop rule by name."""


def crop_rule(text: str, flips: bool = False, seed: int = 0) -> CropRule:
    """The rule that ``text`` names.

    Args:
        text: a `form` of one of `CROPS`: ``random:4`` or ``random:4:0.5``.
    Raises:
        ValueError: there is no such rule, or its settings are out of range.
    """
    name, colon, numbers = text.partition(":")
    rule = CROPS.get(name)
    fields = None if rule is None or (colon and not numbers) else rule.fields(numbers)
    if rule is None or fields is None:
        known = ", ".join(kind.form for kind in CROPS.values())
        raise ValueError(f"crops are {known}; got {text!r}")
    return rule(flips=flips, seed=seed, **fields)


def _number(side: float) -> str:
    """A share in as few digits as give it back."""
    return np.format_float_positional(side, trim="-")


def position_of(key: str, index: int) -> int:
    """A number below 2^64 for one crop of one image: what draws depend on beside the seed."""
    return int.from_bytes(hashlib.sha256(f"{index}\n{key}".encode()).digest()[:8], "big")
