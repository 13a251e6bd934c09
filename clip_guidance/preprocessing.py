"""How a CLIP's images were prepared in training, as its preprocessor config says.

Colours are normalised for all that it sees; size, crop and resampling are those of pictures that
are prompts, as cutouts have their size already.

Letters: H and W sides of a picture, S side of what CLIP takes, in pixels.
"""
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

PREPROCESSORS = ("preprocessor_config.json", "processor_config.json")
"""Files of a CLIP's folder, the second of newer versions; one is needed."""

BICUBIC = int(Image.Resampling.BICUBIC)


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Colours and size of a CLIP's images.

    Attributes:
        mean, deviation: of red, green and blue; white is 1.
        size: what pictures are resized to: their shorter side, or height and width.
        crop: height and width of the centre that is kept then.
        resample: Pillow's number of the filter.
    """
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    size: int | tuple[int, int]
    crop: tuple[int, int]
    resample: int = BICUBIC

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """A picture ``(H, W, 3)`` uint8 at the size that CLIP takes, ``(S, S, 3)`` uint8."""
        picture = Image.fromarray(pixels)
        resized = picture.resize(self._size_of(picture), Image.Resampling(self.resample))
        left, top = ((side - kept) // 2
                     for side, kept in zip(resized.size, self.crop[::-1], strict=True))
        height, width = self.crop
        return np.array(resized.crop((left, top, left + width, top + height)))

    def _size_of(self, picture: Image.Image) -> tuple[int, int]:
        """Width and height that a picture is resized to."""
        if not isinstance(self.size, int):
            return self.size[1], self.size[0]
        shorter = min(picture.size)
        width, height = (int(self.size * side / shorter) for side in picture.size)
        return width, height


def read_preprocessing(place: str, side: int) -> Preprocessing:
    """That of the CLIP in a folder, or with an id on the hub.

    Args:
        side: S.
    Raises:
        FileNotFoundError: there is no preprocessor config.
        ValueError: it is damaged, or not one of a CLIP of this size.
    """
    settings = _settings(place)
    mean, deviation = (settings.get(name, ()) for name in ("image_mean", "image_std"))
    if not (_are_three(mean) and _are_three(deviation) and min(deviation) > 0):
        raise ValueError(f"{PREPROCESSORS[0]} of {place} must give image_mean and image_std as "
                         f"three numbers each, got {mean} and {deviation}")
    size, crop, resample = (settings.get(name) for name in ("size", "crop_size", "resample"))
    crop = _pair(side if crop is None else crop)
    if crop != (side, side):
        raise ValueError(f"crop_size in {PREPROCESSORS[0]} of {place} must be {side}, which its "
                         f"model takes, got {settings['crop_size']}: copy both files again")
    found = Preprocessing(mean=tuple(mean), deviation=tuple(deviation), crop=crop,
                          size=_size(side if size is None else size),
                          resample=BICUBIC if resample is None else resample)
    if _is_too_small(found.size, side) or resample not in (None, *map(int, Image.Resampling)):
        raise ValueError(f"{PREPROCESSORS[0]} of {place} must give a size of at least {side} and "
                         f"a resample of 0 to 5, got {size} and {resample}")
    return found


def _settings(place: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in PREPROCESSORS:
        path = _file_of(place, name)
        settings = read_object(path) if path else {}
        inner = settings.get("image_processor")
        found = found or (inner if inner and isinstance(inner, dict) else settings)
    if not found:
        raise FileNotFoundError(f"{place} gives no {PREPROCESSORS[0]}, or it is empty or could not "
                                "be downloaded; it says which colours this CLIP was trained with")
    return found


def _size(given: Any) -> int | tuple[int, int]:
    """A size as older versions write it, a number, or newer ones, by name; 0 where it is none."""
    if isinstance(given, dict) and "shortest_edge" in given:
        given = given["shortest_edge"]
    if isinstance(given, dict):
        return _pair(given)
    return given if isinstance(given, int) else 0


def _pair(given: Any) -> tuple[int, int]:
    height, width = ((given.get("height"), given.get("width")) if isinstance(given, dict)
                     else (given, given))
    return (height, width) if isinstance(height, int) and isinstance(width, int) else (0, 0)


def _is_too_small(size: int | tuple[int, int], side: int) -> bool:
    return min(size if isinstance(size, tuple) else (size,)) < side


def _are_three(values: Any) -> bool:
    return (isinstance(values, Sequence) and len(values) == 3
            and all(isinstance(number, int | float) and math.isfinite(number)
                    for number in values))


def _file_of(place: str, name: str) -> str | None:
    """Path of a file of a folder, or of a repository on the hub; nothing where it has none."""
    if os.path.isdir(place):
        path = os.path.join(place, name)
        return path if os.path.isfile(path) else None
    from transformers.utils import cached_file
    path = cached_file(place, name, _raise_exceptions_for_missing_entries=False)
    return None if path is None else str(path)


def read_object(path: str) -> dict[str, Any]:
    """The object in a JSON file; an empty one where it holds anything else.

    Raises:
        ValueError: it is not JSON.
    """
    with open(path, "rb") as file:
        try:
            data = json.load(file)
        except ValueError as error:
            raise ValueError(f"{path} is not JSON ({error}): the file is damaged") from error
    return data if isinstance(data, dict) else {}
