"""Modalities: what a picture's pixels mean, from the bytes of a file to the model's input and back.

A modality is a frozen config; its settings travel in checkpoints and specs. To add one, put a
module with a subclass of `Modality` into this folder: every class here is listed in `MODALITIES`,
where training and the jobs find it by name. A modality may be computed from the files of another
one (`Modality.computed_from`), as edges are from images; then it needs no files of its own.
"""
import importlib
import pkgutil
from abc import ABCMeta
from collections.abc import Mapping
from typing import Any

from tokenizer import configs
from tokenizer.corpus.images import SRGB, UnreadableImage
from tokenizer.corpus.modalities.base import (
    QUALITY,
    LabelOutOfRange,
    Modality,
    SizeMismatch,
    Sums,
    add_sums,
    fit_together,
    modality_to_dict,
)
from tokenizer.corpus.modalities.depth import Depth
from tokenizer.corpus.modalities.edges import Edges
from tokenizer.corpus.modalities.image import PICTURE_SUFFIXES, RGB
from tokenizer.corpus.modalities.low_res import LowRes
from tokenizer.corpus.modalities.normals import Normals
from tokenizer.corpus.modalities.segmentation import Segmentation


def modality_from_dict(settings: Mapping[str, Any]) -> Modality:
    """The modality that `modality_to_dict` described.

    Args:
        settings: for example ``{"name": "segmentation", "num_classes": 12}``.

    Raises:
        ValueError: the name or a setting is unknown, missing or out of range.
    """
    name = settings.get("name")
    if name not in MODALITIES:
        raise ValueError(f"unknown modality {name!r}; known are {', '.join(MODALITIES)}")
    rest = {key: value for key, value in settings.items() if key != "name"}
    return configs.from_dict(MODALITIES[name], rest, f"{name}.")


def file_modality(name: str) -> str:
    """The modality whose files hold the one called ``name``: itself unless it is computed.

    Raises:
        ValueError: there is no such modality.
    """
    if name not in MODALITIES:
        raise ValueError(f"unknown modality {name!r}; known are {', '.join(MODALITIES)}")
    return MODALITIES[name].file_modality()


def new_settings(name: str) -> dict[str, Any]:
    """The modality called ``name`` as a new tokenizer has it, where that is not the default.

    Defaults are what checkpoints of early versions mean, which do not name the setting.
    """
    reads_colours = file_modality(name) == RGB.name
    return {"name": name, **({"route": SRGB} if reads_colours else {})}


def _all_modalities() -> dict[str, type[Modality]]:
    """The modalities that the modules of this package define, by name, in the modules' order."""
    found: dict[str, type[Modality]] = {}
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        for value in vars(importlib.import_module(module.name)).values():
            if (isinstance(value, ABCMeta) and issubclass(value, Modality)
                    and value.__module__ == module.name and "name" in vars(value)):
                found[value.name] = value
    return found


MODALITIES: dict[str, type[Modality]] = _all_modalities()
"""Every modality by name."""

__all__ = ["MODALITIES", "PICTURE_SUFFIXES", "QUALITY", "RGB", "Depth", "Edges", "LabelOutOfRange",
           "LowRes", "Modality", "Normals", "Segmentation", "SizeMismatch", "Sums",
           "UnreadableImage", "add_sums", "file_modality", "fit_together", "modality_from_dict",
           "modality_to_dict", "new_settings"]
