"""Codecs of a job: loaded once in each process, and known by their fingerprints."""
import dataclasses
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tokenizer.buckets import Size, size_name
from tokenizer.corpus.limits import MAX_PIXELS
from tokenizer.schema import CodeSpec, TokenSpec

if TYPE_CHECKING:
    from tokenizer.codec import Codec

MOST_TOKENIZERS = 8
"""Kept in a process, whatever their sizes of pictures: workers of a cluster serve many jobs."""

_LOCK = threading.RLock()
_LOADED: "dict[tuple[object, ...], Codec]" = {}


def open_codec(url: str, batch_size: int, **arithmetic: str) -> "Codec":
    """Load the tokenizer at ``url`` and keep it for this process.

    Args:
        arithmetic: ``precision`` and ``backend``, where they are not the usual ones.
    Raises:
        OSError, ValueError: it cannot be read; see `Codec.load`.
    """
    from tokenizer.codec import Codec  # loads torch
    return _keep(Codec.load(url, batch_size=batch_size, **arithmetic), batch_size, arithmetic)


def codec_of(url: str, spec: CodeSpec, batch_size: int, **arithmetic: str) -> "Codec":
    """The tokenizer at ``url``, which must be the one that ``spec`` names, at its image size.

    Raises:
        ValueError: another tokenizer lies there now.
    """
    with _LOCK:  # of threads that need it at the same time, one loads it
        codec = (_loaded(_name(spec, batch_size, arithmetic))
                 or open_codec(url, batch_size, **arithmetic))
    if codec.spec.tokenizer != spec.tokenizer:
        raise ValueError(f"the {spec.modality} tokenizer {url} is {codec.spec.tokenizer}, the job "
                         f"was planned with {spec.tokenizer}; put that one back")
    return _resized(codec, spec.image_size, batch_size, arithmetic)


def open_codecs(urls: Mapping[str, str], batch_size: int,
                **arithmetic: str) -> "dict[str, Codec]":
    """The tokenizers by modality, each checked to be of its modality.

    Raises:
        ValueError: a tokenizer is of another modality than it was given for.
    """
    codecs = {}
    for modality, url in urls.items():
        codec = open_codec(url, batch_size, **arithmetic)
        if codec.spec.modality != modality:
            raise ValueError(f"{url} is a tokenizer of {codec.spec.modality}, not of {modality}: "
                             f"write {codec.spec.modality}=FOLDER")
        codecs[modality] = codec
    return codecs


def codecs_of(urls: Mapping[str, str], spec: TokenSpec, batch_size: int,
              **arithmetic: str) -> "dict[str, Codec]":
    """The tokenizers of a planned job, by modality in the order of ``spec``."""
    return {code.modality: codec_of(urls[code.modality], code, batch_size, **arithmetic)
            for code in spec.codes if code.modality in urls}


def codecs_by_bucket(urls: Mapping[str, str], spec: TokenSpec, batch_size: int,
                     **arithmetic: str) -> "list[dict[str, Codec]]":
    """`codecs_of` for each bucket of ``spec``, in order; a single one where there are none."""
    return [codecs_of(urls, part, batch_size, **arithmetic) for part in spec.grids]


def at_size(codecs: "Mapping[str, Codec]", image_size: tuple[int, int], batch_size: int,
            **arithmetic: str) -> "dict[str, Codec]":
    """The same tokenizers for pictures of another size.

    Raises:
        ValueError: one cannot take pictures of this size.
    """
    return {name: _resized(codec, image_size, batch_size, arithmetic)
            for name, codec in codecs.items()}


def require_whole_codes(codecs: "Mapping[str, Codec]", sizes: Sequence[Size], option: str) -> None:
    """Refuse sizes of pictures that are beyond all bounds, or that codes do not fill.

    Args:
        option: that gives the sizes.
    Raises:
        ValueError: names one, and the nearest that would do.
    """
    for name, codec in codecs.items():
        pixels = codec.spec.image_size[0] // codec.spec.grid[0]
        for size in sizes:
            if size[0] * size[1] > MAX_PIXELS:
                raise ValueError(f"{option} {size_name(size)}: pictures have at most "
                                 f"{MAX_PIXELS} pixels")
            height, width = (max(1, round(side / pixels)) * pixels for side in size)
            if (height, width) != size:
                raise ValueError(
                    f"{option} {size_name(size)}: a code of the {name} tokenizer is of {pixels} x "
                    f"{pixels} pixels, and both sides are multiples of {pixels}, the nearest "
                    f"{size_name((height, width))}")


def require_one_ratio(spec: TokenSpec) -> None:
    """Refuse tokenizers that cannot share a crop.

    Raises:
        ValueError: their images have different ratios of height to width.
    """
    first, *others = spec.codes
    height, width = first.image_size
    for code in others:
        if code.image_size[0] * width != code.image_size[1] * height:
            raise ValueError(f"all modalities share one crop, but the {code.modality} tokenizer "
                             f"takes {code.image_size[0]} x {code.image_size[1]} pixels, that of "
                             f"{first.modality} {height} x {width}: their ratios must be equal")


def spec_on_grid(codec: "Codec", grid: tuple[int, int]) -> CodeSpec:
    """The spec of a tokenizer for pictures of the size that gives this grid."""
    size = codec.spec.size_on(grid)
    return codec.spec if size == codec.spec.image_size else codec.at_size(size).spec


def settled(code: CodeSpec, codec: "Codec", url: str) -> CodeSpec:
    """The spec of codes whose tokenizer is unknown, when this one is said to have made them.

    Raises:
        ValueError: it cannot have made them; the message says why.
    """
    found = spec_on_grid(codec, code.grid)
    for name in ("codebook_size", "depth", "grid"):
        if getattr(found, name) != getattr(code, name):
            raise ValueError(f"the tokenizer {url} cannot have made the {code.modality} codes: its "
                             f"{name} is {getattr(found, name)}, theirs {getattr(code, name)}")
    return dataclasses.replace(code, tokenizer=found.tokenizer, image_size=found.image_size)


def _loaded(name: tuple[object, ...]) -> "Codec | None":
    """The codec of this name that the process has kept, or else the same at another size."""
    with _LOCK:
        return _LOADED.get(name) or next(
            (codec for other, codec in _LOADED.items() if other[1:] == name[1:]), None)


def _resized(codec: "Codec", image_size: tuple[int, int], batch_size: int,
             arithmetic: Mapping[str, str]) -> "Codec":
    if codec.spec.image_size == image_size:
        return codec
    return _keep(codec.at_size(image_size), batch_size, arithmetic)


def _keep(codec: "Codec", batch_size: int, arithmetic: Mapping[str, str]) -> "Codec":
    """This codec, or the one like it that the process has kept before."""
    with _LOCK:
        kept = _LOADED.setdefault(_name(codec.spec, batch_size, arithmetic), codec)
        first, *others = dict.fromkeys(tokenizer for _, tokenizer, *_ in _LOADED)
        if len(others) >= MOST_TOKENIZERS:
            for name in [name for name in _LOADED if name[1] == first]:
                del _LOADED[name]
        return kept


def _name(spec: CodeSpec, batch_size: int, arithmetic: Mapping[str, str]) -> tuple[object, ...]:
    """Size of the pictures, then what is the same at all sizes."""
    return (spec.image_size, spec.tokenizer, batch_size, *sorted(arithmetic.items()))
