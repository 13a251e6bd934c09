"""4M's folders: for each modality a tree of files of codes, and one of crop settings for all.

    DIR/rgb_dvae_BUa_224/CLASS/FILE.npy    int16 (C, N)
    DIR/crop_settings/CLASS/FILE.npy       (C, 5): top, left, height, width, flip, in pixels

Source: apple/ml-4m, save_vq_tokens.py.
"""
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipelines.formats.base import (
    Codes,
    Layout,
    Listed,
    Reader,
    TokenInput,
    UnreadableCodes,
    load_npy,
    npy_bytes,
)
from pipelines.sinks import FolderSink, Item, Sink
from tokenizer import storage
from tokenizer.corpus.images import Crop
from tokenizer.schema import Manifest

CROPS = "crop_settings"
MOST_CODES = 1 << 15
"""Codes that int16 holds."""


@dataclass(frozen=True)
class FourMReader(Reader):
    """Reads the tree of one modality, and ``crop_settings`` beside it where there is one."""
    name: ClassVar[str] = "4m"
    form: ClassVar[str] = "a folder CLASS/FILE.npy of one modality, beside it crop_settings/"

    def inputs(self) -> Iterator[Listed]:
        classes = {name: label for label, name in enumerate(self.classes())}
        for key in files_below(self.url):
            folder = key.partition("/")[0] if "/" in key else None
            yield Listed(key=key, source=storage.join(self.url, f"{key}.npy"),
                         class_name=folder, label=None if folder is None else classes[folder])

    def read(self, listed: Listed) -> Codes:
        codes = load_npy(storage.read_bytes(listed.source), listed.source)
        url = storage.join(posixpath.dirname(self.url.rstrip("/")), CROPS, f"{listed.key}.npy")
        if not storage.exists(url):
            return Codes(codes=np.atleast_2d(codes))
        crops = boxes(load_npy(storage.read_bytes(url), url), url)
        size = (max(crop.top + crop.height for crop in crops),
                max(crop.left + crop.width for crop in crops))
        return Codes(codes=np.atleast_2d(codes), crops=crops, size=size)

    def classes(self) -> list[str]:
        """The folders directly below."""
        if not storage.is_folder(self.url):
            raise FileNotFoundError(f"{self.url} is not {self.form}")
        return sorted(name for name, kind in storage.list_kinds(self.url).items()
                      if kind == "directory")


@dataclass(frozen=True)
class FourMLayout(Layout):
    """Writes a tree for each modality, named after it, and the crop settings."""
    name: ClassVar[str] = "4m"

    def check(self, manifest: Manifest) -> None:
        super().check(manifest)
        for code in self.spec.codes:
            if code.codebook_size > MOST_CODES:
                raise ValueError(f"4m holds 16-bit codes up to {MOST_CODES - 1}; the codebook of "
                                 f"{code.modality} has {code.codebook_size} entries")

    def sink(self, output: str, num_shards: int) -> Sink:
        return FolderSink(output=output, num_shards=num_shards,
                          modalities=(*self.spec.modalities, CROPS))

    def items(self, source: TokenInput, name: str) -> list[Item]:
        files = {modality: (npy_bytes(codes.astype(np.int16)), ".npy")
                 for modality, codes in source.codes.items()}
        boxes = [[row["top"], row["left"], row["crop_height"], row["crop_width"], row["flipped"]]
                 for row in source.rows]
        files[CROPS] = (npy_bytes(np.array(boxes, np.int64)), ".npy")
        return [Item(name=tree_name(name), columns=source.rows[0], files=files)]


def tree_name(name: str) -> str:
    """A path whose folders cannot have the name of a file."""
    *folders, base = name.split("/")
    return "/".join([*(f"{folder[:-4]}%2E{folder[-3:]}" if folder.lower().endswith(".npy") else
                       folder for folder in folders), base])


def files_below(url: str, folder: str = "") -> Iterator[str]:
    """Paths without suffix of the ``.npy`` files in a tree, folder by folder in order."""
    for name, kind in sorted(storage.list_kinds(storage.join(url, folder)).items()):
        path = posixpath.join(folder, name)
        if kind == "directory":
            yield from files_below(url, path)
        elif name.endswith(".npy"):
            yield path.removesuffix(".npy")


def boxes(settings: np.ndarray, url: str) -> list[Crop]:
    """Crop settings ``(C, 5)`` as boxes.

    Raises:
        UnreadableCodes: they are something else.
    """
    if settings.ndim != 2 or settings.shape[1] != 5 or (settings < 0).any() or not len(settings):
        raise UnreadableCodes(f"{url} is of shape {settings.shape}; crop settings are (crops, 5): "
                              "top, left, height, width, flip")
    return [Crop(top=top, left=left, height=height, width=width, flipped=bool(flip), index=index)
            for index, (top, left, height, width, flip) in enumerate(settings.tolist())]
