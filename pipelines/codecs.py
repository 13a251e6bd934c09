"""Codecs of a job: loaded once in each process, and known by their fingerprints."""
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tokenizer.schema import CodeSpec, TokenSpec

if TYPE_CHECKING:
    from tokenizer.codec import Codec

_LOCK = threading.Lock()
_LOADED: "dict[tuple[object, ...], Codec]" = {}


def open_codec(url: str, batch_size: int, **arithmetic: str) -> "Codec":
    """Load the tokenizer at ``url`` and keep it for this process.

    Args:
        arithmetic: ``precision`` and ``backend``, where they are not the usual ones.
    Raises:
        OSError, ValueError: it cannot be read; see `Codec.load`.
    """
    from tokenizer.codec import Codec  # loads torch
    codec = Codec.load(url, batch_size=batch_size, **arithmetic)
    with _LOCK:
        return _LOADED.setdefault(_name(codec.spec.tokenizer, batch_size, arithmetic), codec)


def codec_of(url: str, spec: CodeSpec, batch_size: int, **arithmetic: str) -> "Codec":
    """The tokenizer at ``url``, which must be the one that ``spec`` names.

    Raises:
        ValueError: another tokenizer lies there now.
    """
    with _LOCK:
        loaded = _LOADED.get(_name(spec.tokenizer, batch_size, arithmetic))
    codec = loaded or open_codec(url, batch_size, **arithmetic)
    if codec.spec.tokenizer != spec.tokenizer:
        raise ValueError(f"the {spec.modality} tokenizer {url} is {codec.spec.tokenizer}, the job "
                         f"was planned with {spec.tokenizer}; put that one back")
    return codec


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


def _name(tokenizer: str, batch_size: int, arithmetic: Mapping[str, str]) -> tuple[object, ...]:
    return (tokenizer, batch_size, *sorted(arithmetic.items()))
