"""What reads maps off pictures: a function that is named, or how a map is computed anyway.

An estimator is given by ``MODULE:FUNCTION``; the module is imported, from the current folder too.
Nothing is loaded unless it is named. The function's contract stands in docs/evaluation.md.

Letters: N pictures, H and W their sides, h and w sides of a map in pixels.
"""
import importlib
import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

from cli.options import by_name

if TYPE_CHECKING:
    import numpy as np

    from tokenizer.codec import Codec


class MapReader:
    """An estimator's maps as pixels of a modality, as encoding would read them from files.

    Args:
        function: pictures ``(N, H, W, 3)`` uint8 to maps ``(N, H, W[, 3])``, as files hold them.
        words: what it is.
        codec: of the maps.
    """

    def __init__(self, function: "Callable[[np.ndarray], Any]", words: str,
                 codec: "Codec") -> None:
        self.words = words
        self._function, self._modality = function, codec.modality
        self._size = codec.spec.image_size

    def __call__(self, pictures: "np.ndarray") -> "np.ndarray":
        """Pixels ``(N, h, w[, 3])`` of the maps of pictures.

        Raises:
            ValueError: the function returns something else than its contract says.
        """
        import numpy as np
        maps = self._function(pictures)
        if not isinstance(maps, np.ndarray):
            raise ValueError(f"{self.words} must return an array, got {type(maps).__name__}: turn "
                             "its result into one of numpy's")
        if maps.shape[:3] != pictures.shape[:3] or maps.ndim not in (3, 4):
            raise ValueError(f"{self.words} must return maps of shape {pictures.shape[:3]}, one "
                             f"for each picture and of its size, got {maps.shape}")
        return np.stack([self._pixels(item) for item in maps])

    def _pixels(self, item: "np.ndarray") -> "np.ndarray":
        """One map ``(H, W[, 3])`` as the encode job would see it."""
        from tokenizer.corpus.images import centre_crop
        try:
            raw = self._modality.read(as_file(item, self._modality.suffixes), self.words)
        except ValueError as error:
            raise ValueError(f"{self.words} returned no {self._modality.name} map: "
                             f"{error}") from error
        ignored = getattr(self._modality, "ignore_id", None)
        if ignored is not None and (raw == ignored).any():
            raise ValueError(f"{self.words} returned class id {ignored}, which stands for pixels "
                             "without a class: every pixel of a picture has one")
        crop = centre_crop(raw.shape[0], raw.shape[1], self._size)
        return self._modality.fit(raw, crop, self._size)


def as_file(item: "np.ndarray", suffixes: tuple[str, ...]) -> bytes:
    """A map ``(H, W)`` or picture ``(H, W, 3)`` as the content of a file.

    Raises:
        ValueError: it holds numbers that no such file can hold.
    """
    import io

    import numpy as np

    from tokenizer.corpus.maps import encode_labels
    from tokenizer.pictures import png_bytes
    if ".npy" in suffixes:
        file = io.BytesIO()
        np.save(file, item, allow_pickle=False)
        return file.getvalue()
    if item.ndim == 3 and item.dtype == np.uint8:
        return png_bytes(item)
    if item.dtype.kind not in "iu":
        raise ValueError(f"class ids are integers from 0 to 65535, got {item.dtype}")
    if item.min() < 0 or item.max() > 65535:
        raise ValueError(f"class ids are integers from 0 to 65535, got {item.min()} to "
                         f"{item.max()}")
    return encode_labels(item.astype(np.uint16))


def find_estimators(named: Iterable[tuple[str, str]],
                    codecs: "dict[str, Codec]", maps: Iterable[str]) -> dict[str, MapReader]:
    """What reads each map off pictures, by modality; maps that nothing reads are left out.

    Args:
        named: pairs of a modality, or nothing where there is one map only, and MODULE:FUNCTION.
        codecs: by modality.
        maps: modalities that the prior is given.
    Raises:
        click.UsageError: an estimator is of no such map, or lacks a tokenizer; a map has two.
        ValueError: there is no such function.
    """
    maps = list(maps)
    readers = {name: MapReader(lambda pictures: pictures, f"computed as {name} of images are",
                               codecs[name])
               for name in maps if name in codecs and codecs[name].modality.computed_from}
    own = [(name or (maps[0] if len(maps) == 1 else ""), place) for name, place in named]
    for name, place in by_name("--estimator", own).items():
        if name not in maps:
            raise click.UsageError(f"--estimator {name or place} is of none of the maps that the "
                                   f"prior is given ({', '.join(maps) or 'none'}): write "
                                   "NAME=MODULE:FUNCTION")
        if name not in codecs:
            raise click.UsageError(f"to compare {name} maps, their tokenizer is needed: "
                                   f"--tokenizer {name}=FOLDER")
        readers[name] = MapReader(load_function(place), place, codecs[name])
    return readers


def load_function(place: str) -> "Callable[[Any], Any]":
    """The function that ``MODULE:FUNCTION`` names.

    Raises:
        ValueError: there is none; a module that fails to import shows its own error.
    """
    name, _, function = place.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise ValueError(f"{name} needs {error.name}, which is not installed: install it "
                             "beside img2tokens") from error
        raise ValueError(f"no module {name!r} can be imported: run the command in the folder that "
                         f"holds {name.replace('.', '/')}.py, or install it") from error
    found = getattr(module, function, None)
    if not callable(found):
        names = [key for key, value in vars(module).items()
                 if callable(value) and not key.startswith("_")]
        raise ValueError(f"{name} has no function {function!r}; it has "
                         f"{', '.join(names[:8]) or 'none'}")
    return found
