"""Samples for people: image files, and one grid that shows them beside what they were given.

    OUT/images/<key>.png     every sample
    OUT/grid.png             the first ones, each row of conditions before its samples: maps, images
                             to complete, and the same with the hole in grey
    OUT/likelihood.png       if asked for: the first ones, each beside which of its cells were
                             unexpected, in white

Decoding is brought by the caller, as the prior does not know tokenizers: anything with the methods
of `Decoder`, such as `tokenizer.codec.Codec`.

Letters: N images, h and w rows and columns of the code grid, D codes a cell, H and W pixels.
"""
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa

from prior.coordinates import RECORD, CropColumn
from prior.evaluation import resample
from prior.likelihood import log_likelihoods, surprise_pictures
from prior.masks import paint_hole
from prior.model import Prior
from prior.sampling import GALLERY
from prior.sequence import COORDINATES, LABEL
from tokenizer import storage
from tokenizer.pictures import save_png, tile
from tokenizer.schema import UNKNOWN, CodeSpec, SpecMismatch, TokenSpec, codes_array
from tokenizer.tokens import TokenCorpus

NUM_SHOWN, NUM_COLUMNS = 64, 12
"""Samples in the grid, and about how many pictures stand side by side."""
DECODED_AT_ONCE = 64


class Pixels(Protocol):
    """What is asked of a decoder's modality."""

    def show(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels ``(N, H, W[, 3])`` as pictures ``(N, H, W, 3)`` uint8."""

    def write(self, pixels: np.ndarray) -> tuple[bytes, str]:
        """The pixels of one item as a file's content, and the file's suffix."""


class Decoder(Protocol):
    """What is asked of a codec."""

    @property
    def spec(self) -> CodeSpec:
        """What its codes mean."""

    @property
    def modality(self) -> Pixels:
        """How its pixels are shown and written."""

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Codes ``(N[, D], h, w)`` to pixels ``(N, H, W[, 3])``."""


def check_decoders(spec: TokenSpec, decoders: Mapping[str, Decoder]) -> None:
    """Refuse decoders of other modalities or tokenizers than those of ``spec``.

    Raises:
        SpecMismatch: names the modality and both fingerprints.
        ValueError: ``spec`` has no codes of a decoder's modality.
    """
    for name, decoder in decoders.items():
        if name not in spec.modalities:
            raise SpecMismatch(f"there are no {name} codes to decode, only "
                               f"{', '.join(spec.modalities)}: leave the tokenizer for them out")
        wanted, found = spec[name], decoder.spec
        if found.modality != name:
            raise SpecMismatch(f"the tokenizer given for {name} is one for {found.modality}")
        if wanted.tokenizer == UNKNOWN:
            for field in ("codebook_size", "depth"):
                if getattr(found, field) != getattr(wanted, field):
                    raise SpecMismatch(f"the {field} of the {name} codes is "
                                       f"{getattr(wanted, field)}, that of the given tokenizer "
                                       f"{getattr(found, field)}")
        elif found.tokenizer != wanted.tokenizer:
            raise SpecMismatch(f"the {name} codes are of the tokenizer {wanted.tokenizer}, given "
                               f"is {found.tokenizer}: give the one that made the corpus")


def show(decoder: Decoder, codes: np.ndarray) -> np.ndarray:
    """Codes ``(N[, D], h, w)`` as pictures ``(N, H, W, 3)`` uint8."""
    return decoder.modality.show(decoder.decode(codes))


def write_gallery(corpus: TokenCorpus, out: str, decoders: Mapping[str, Decoder], *,
                  samples_each: int = 1, originals: np.ndarray | None = None,
                  hole: np.ndarray | None = None) -> int:
    """Write every sample as an image file, and the grid.

    Args:
        corpus: of `prior.sampling.sample_corpus`.
        decoders: by modality; of the target, and of the maps to show beside the samples.
        samples_each: samples in a row that share their conditions.
        originals: codes ``(M[, D], h, w)`` of completed images, shown too, in the order of
            conditions.
        hole: cells ``(h, w)`` bool of them that were drawn anew.
    Returns:
        Number of image files.
    """
    check_decoders(corpus.spec, decoders)
    target = corpus.spec.modalities[0]
    names = [name for name in corpus.spec.modalities if name in decoders]
    shown: dict[str, list[np.ndarray]] = {name: [] for name in names}
    num_written = 0
    for rows in _parts(corpus):
        pixels = {name: decoders[name].decode(codes_array(corpus.spec[name], rows))
                  for name in names if name == target or num_written < NUM_SHOWN}
        _write_files(out, decoders[target], rows["key"].to_pylist(), pixels[target])
        if num_written < NUM_SHOWN:
            for name, items in pixels.items():
                shown[name].append(decoders[name].modality.show(items))
        num_written += rows.num_rows
    samples, *before = (np.concatenate(shown[name])[:NUM_SHOWN] for name in names)
    before = [pictures[::samples_each] for pictures in before]
    if originals is not None:
        num_blocks = -(-len(samples) // samples_each)
        cycled = originals[np.arange(num_blocks) % len(originals)]
        before.append(show(decoders[target], cycled))
        if hole is not None:
            before.append(paint_hole(before[-1], hole))
    save_png(storage.join(out, GALLERY[1]), grid(samples, before, samples_each))
    return num_written


def write_surprise(prior: Prior, corpus: TokenCorpus, out: str, decoder: Decoder,
                   batch_size: int) -> None:
    """Write ``likelihood.png``; see `prior.likelihood.surprise_pictures`.

    Args:
        prior: that drew the samples of the corpus, its config at their size.
        decoder: of the target.
        batch_size: as they were drawn with.
    """
    rows, layout = _first_rows(corpus), prior.config.layout
    stored = {spec.modality: codes_array(spec, rows) for spec in corpus.spec.codes}
    samples = show(decoder, stored.pop(layout.target.name))
    codes = layout.target.to_sequence(codes_array(corpus.spec.codes[0], rows))
    given = {name: layout[name].to_sequence(maps) for name, maps in stored.items()}
    for segment in layout.conditions:
        if segment.name == LABEL:
            given[LABEL] = rows["label"].fill_null(segment.null).to_numpy()[:, None]
        elif segment.name == COORDINATES:
            given[COORDINATES] = segment.to_sequence(CropColumn().read(rows))
    logs = log_likelihoods(prior.model, layout, given, codes, batch_size)
    maps = surprise_pictures(logs, layout.target, (samples.shape[1], samples.shape[2]))
    pairs = np.stack([samples, maps], 1).reshape(-1, *samples.shape[1:])
    save_png(storage.join(out, GALLERY[2]), tile(pairs, min(NUM_COLUMNS, len(pairs))))


def _first_rows(corpus: TokenCorpus) -> pa.Table:
    """The rows that are shown, of as many shards as it takes."""
    parts: list[pa.Table] = []
    for part in _parts(corpus):
        parts.append(part)
        if sum(rows.num_rows for rows in parts) >= NUM_SHOWN:
            break
    return pa.concat_tables(parts).slice(0, NUM_SHOWN).combine_chunks()


def _parts(corpus: TokenCorpus) -> Iterator[pa.Table]:
    """Keys, labels, crops and codes of a corpus, some rows at a time."""
    codes = (spec.column for spec in corpus.spec.codes)
    for table in corpus.tables(["key", "label", *RECORD, *codes]):
        for first in range(0, table.num_rows, DECODED_AT_ONCE):
            yield table.slice(first, DECODED_AT_ONCE)


def _write_files(out: str, decoder: Decoder, keys: Sequence[str], pixels: np.ndarray) -> None:
    for key, item in zip(keys, pixels, strict=True):
        content, suffix = decoder.modality.write(item)
        storage.write_bytes(storage.join(out, GALLERY[0], key + suffix), content)


def grid(samples: np.ndarray, before: list[np.ndarray], samples_each: int) -> np.ndarray:
    """Samples in blocks: what a block was given, then its samples.

    Args:
        samples: ``(N, H, W, 3)`` uint8.
        before: pictures of each block, each ``(N / samples_each, H', W', 3)`` uint8.
    Returns:
        ``(height, width, 3)`` uint8.
    """
    size = (samples.shape[1], samples.shape[2])
    num_blocks = -(-len(samples) // samples_each)
    blank = np.full((num_blocks * samples_each - len(samples), *size, 3), 255, np.uint8)
    blocks = np.concatenate([samples, blank]).reshape(num_blocks, samples_each, *size, 3)
    givens = [resample(pictures, size)[:, None] for pictures in before]
    blocks = np.concatenate([*givens, blocks], 1)
    width = blocks.shape[1]
    columns = min(max(1, round(NUM_COLUMNS / width)), num_blocks) * width
    return tile(blocks.reshape(-1, *size, 3), columns)
