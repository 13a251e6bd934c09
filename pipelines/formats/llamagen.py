"""LlamaGen's folders: for each image a file of codes and one of its label, named by number.

    DIR/imagenet256_codes/17.npy     int64 (1, C, N)
    DIR/imagenet256_labels/17.npy    int64 (1,)

C is 2, the image and its mirror image, or 10, ten-crop at one scale. Its data set takes a crop by
chance where DIR holds the word ``flip``, and reads ``..._ten_crop_105/`` too where DIR ends in
``ten_crop``; of several crops our DIR are therefore named ``flip``, and of ten-crop at both scales
``flip_ten_crop`` and ``flip_ten_crop_105``.

Source: FoundationVision/LlamaGen, autoregressive/train/extract_codes_c2i.py, dataset/imagenet.py.
"""
import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from pipelines.formats.base import (
    Codes,
    Layout,
    Listed,
    Reader,
    TokenInput,
    checked_label,
    load_npy,
    npy_bytes,
    sorted_files,
)
from pipelines.ordered import ordered
from pipelines.sinks import FolderSink, Item, Sink
from tokenizer import storage

CODES, LABELS = "_codes", "_labels"
SECOND_SCALE = "_105"
TEN, BOTH_SCALES = 10, 20

NUM_READERS = 8
"""Threads that read labels, which are a file each."""


@dataclass(frozen=True)
class LlamaGenReader(Reader):
    """Reads DIR, or a folder with one DIR, or with two of which the second is ``..._105``."""
    name: ClassVar[str] = "llamagen"
    form: ClassVar[str] = "a folder with NAME_codes/0.npy ... and NAME_labels/0.npy ..."

    @cached_property
    def folders(self) -> list[str]:
        """The folders of codes: one, or two with crops of the same images."""
        if found := _codes_in(self.url):
            return [found]
        inner = sorted(name for name, kind in storage.list_kinds(self.url).items()
                       if kind == "directory" and _codes_in(storage.join(self.url, name)))
        if len(inner) not in (1, 2) or (len(inner) == 2
                                        and inner[1] != f"{inner[0]}{SECOND_SCALE}"):
            raise FileNotFoundError(f"{self.url} is not {self.form}"
                                    + (f"; it holds {', '.join(inner)}: give one" if inner else ""))
        return [str(_codes_in(storage.join(self.url, name))) for name in inner]

    def inputs(self) -> Iterator[Listed]:
        folder = self.folders[0]
        labels = folder.removesuffix(CODES) + LABELS
        has_labels = storage.exists(labels)

        def listed(name: str) -> Listed:
            key, source = name.removesuffix(".npy"), storage.join(folder, name)
            if not has_labels:
                return Listed(key=key, source=source)
            try:
                return Listed(key=key, source=source, label=read_label(storage.join(labels, name)))
            except (FileNotFoundError, ValueError) as error:
                return Listed(key=key, source=source, error="UnreadableLabel",
                              message=" ".join(str(error).split()))
        with ordered(listed, sorted_files(folder, ".npy"), NUM_READERS, 64) as results:
            yield from results

    def read(self, listed: Listed) -> Codes:
        name = posixpath.basename(listed.source)
        parts = []
        for folder in self.folders:
            url = storage.join(folder, name)
            codes = load_npy(storage.read_bytes(url), url)
            parts.append(codes.reshape(-1, codes.shape[-1]) if codes.ndim else codes.reshape(1, 1))
        codes = np.concatenate(parts)
        return Codes(codes=codes, flipped=mirrored(len(codes)))


@dataclass(frozen=True)
class LlamaGenLayout(Layout):
    """Writes DIR, or two of them for ten-crop at both scales."""
    name: ClassVar[str] = "llamagen"
    needs_labels: ClassVar[bool] = True
    names_files: ClassVar[bool] = False
    one_modality: ClassVar[bool] = True

    def sink(self, output: str, num_shards: int) -> Sink:
        stem = f"{self.data}{self.spec.codes[0].image_size[0]}"
        folders = {"": ""} if self.num_crops == 1 else {"": "flip/"}
        if self.num_crops == BOTH_SCALES:
            folders = {"": "flip_ten_crop/", SECOND_SCALE: f"flip_ten_crop{SECOND_SCALE}/"}
        paths = {f"{kind}{scale}": f"{folder}{stem}_{kind}" for scale, folder in folders.items()
                 for kind in ("codes", "labels")}
        return NumberedSink(output=output, modalities=tuple(paths), num_shards=num_shards,
                            paths=tuple(paths.values()))

    def items(self, source: TokenInput, name: str) -> list[Item]:
        codes = next(iter(source.codes.values())).astype(np.int64)
        row = source.rows[0]
        label = npy_bytes(np.array([row["label"]], np.int64))
        parts = [codes[:TEN], codes[TEN:]] if self.num_crops == BOTH_SCALES else [codes]
        files = {}
        for scale, part in zip(("", SECOND_SCALE), parts, strict=False):
            files[f"codes{scale}"] = (npy_bytes(part[None]), ".npy")
            files[f"labels{scale}"] = (label, ".npy")
        return [Item(name=str(source.number), columns=row, files=files)]


@dataclass(frozen=True, kw_only=True)
class NumberedSink(FolderSink):
    """A folder for each kind of file.

    Attributes:
        paths: of the folders, in the order of the modalities.
    """
    paths: tuple[str, ...]

    def path(self, name: str, modality: str, suffix: str) -> str:
        return posixpath.join(self.paths[self.modalities.index(modality)], name + suffix)

    def folders(self, names: Iterable[str]) -> Iterator[str]:
        yield from self.paths


def read_label(url: str) -> int:
    """The label in one file."""
    label = load_npy(storage.read_bytes(url), url)
    if label.size != 1:
        raise ValueError(f"{url} holds {label.size} numbers; a label is one")
    return checked_label(label.item())


def mirrored(num_crops: int) -> list[bool] | None:
    """Which crops are mirror images, where their number tells; else nothing."""
    if num_crops == 2:
        return [False, True]
    if num_crops in (TEN, BOTH_SCALES):
        return ([False] * 5 + [True] * 5) * (num_crops // TEN)
    return None


def _codes_in(url: str) -> str | None:
    """The one folder of codes directly in a folder."""
    found = [name for name, kind in storage.list_kinds(url).items()
             if name.endswith(CODES) and kind == "directory"]
    return storage.join(url, found[0]) if len(found) == 1 else None
