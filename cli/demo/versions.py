"""Pictures from clean to spoiled, so that a CLIP learns what a picture is as well as what it shows.

A gradient that leads to a caption also leads to patterns that no picture has. The CLIP that guides
therefore sees its pictures as guidance shows them, decoded from codes, and with codes that are
wrong: it learns that the fewer are wrong, the closer a picture is to its caption.

Letters: N pictures, V versions, H and W their sides in pixels, h and w rows and columns of codes.
"""
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cli.demo.render import Array
from cli.demo.scenes import CAPTIONS, FOLDERS, read_captions

if TYPE_CHECKING:
    from tokenizer.codec import Codec

SHARES = ((0.03, 0.2), (0.2, 0.5), (0.5, 1.0))
"""Of the codes that are wrong: least and greatest share in each version after the clean ones."""

SEED = 0
"""Of which codes are wrong."""

NUM_CLEAN = 2
"""Versions that are clean: as drawn, and decoded from the right codes."""

NUM_VERSIONS = NUM_CLEAN + len(SHARES)
"""V."""


@dataclass(frozen=True, eq=False)
class Captioned:
    """Pictures with their captions.

    Attributes:
        versions: ``(N, V, H, W, 3)`` uint8; as drawn, decoded, then ever more spoiled.
        captions: N of them; many pictures share one.
    """
    versions: Array
    captions: list[str]

    def __len__(self) -> int:
        return len(self.captions)


def read_scenes(folder: Path, codec: "Codec", held_out: int,
                most: int) -> tuple[Captioned, Captioned]:
    """The scenes of a corpus that train and those that are held out, by the rule of all commands.

    Args:
        folder: as `cli.demo.scenes.write_corpus` leaves it.
        held_out: number of scenes held out.
        most: scenes that train, at most; taking all would take longer and teach little more.
    Raises:
        OSError: a file is missing.
        ValueError: none would be left to train on, or a picture cannot be read.
    """
    from tokenizer.splits import Split
    captions = read_captions(folder / CAPTIONS)
    trained, held = Split(held_out=held_out).divide(captions)
    chosen = trained[::-(-len(trained) // most)]
    rng = np.random.default_rng(SEED)
    found = []
    for keys in (chosen, held):
        images = np.stack([_read(folder / FOLDERS[0] / f"{key}.png", codec) for key in keys])
        found.append(Captioned(spoil(codec, images, rng), [captions[key] for key in keys]))
    return found[0], found[1]


def spoil(codec: "Codec", images: Array, rng: np.random.Generator) -> Array:
    """All versions ``(N, V, H, W, 3)`` uint8 of images ``(N, H, W, 3)`` uint8.

    Codes that are wrong in one version are wrong in the next ones, and the same. Half of the images
    take them from another image, at the same place; the others take any.
    """
    codes = codec.encode(images)
    order = rng.random(codes.shape)
    others = codes[rng.permutation(len(codes))]
    wrong = np.where(rng.random((len(codes), 1, 1)) < 0.5, others,
                     rng.integers(0, codec.spec.codebook_size, codes.shape))
    versions = [images, codec.decode(codes)]
    for low, high in SHARES:
        share = rng.uniform(low, high, (len(codes), 1, 1))
        versions.append(codec.decode(np.where(order < share, wrong, codes).astype(codes.dtype)))
    return np.stack(versions, 1)


def _read(path: Path, codec: "Codec") -> Array:
    """Pixels of a picture, as the tokenizer takes them."""
    from tokenizer.corpus.images import centre_crop
    raw, size = codec.modality.read(path.read_bytes(), path.name), codec.spec.image_size
    return codec.modality.fit(raw, centre_crop(raw.shape[0], raw.shape[1], size), size)
