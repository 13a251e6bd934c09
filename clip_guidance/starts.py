"""What guided images start from, other than noise: codes of files, of rows, or drawn from a prior.

Letters: M codes to start from, D codes a cell, h and w rows and columns of the code grid.
"""
from dataclasses import dataclass
from typing import Any

import numpy as np

from clip_guidance.likelihood import GuidingPrior
from prior.dataset import require_codes
from tokenizer import storage
from tokenizer.buckets import size_name
from tokenizer.filters import selected_tables
from tokenizer.one_bucket import OneBucket, bucket_of_size
from tokenizer.schema import CodeSpec, TokenSpec, codes_array
from tokenizer.tokens import TokenCorpus


@dataclass(frozen=True, kw_only=True)
class Start:
    """Codes to start from; images take them in turn.

    Attributes:
        name: of the file or row, for the source of the images.
        codes: ``(M[, D], h, w)``, integers in ``[0, K)``.
        free: cells that may change, bool ``(h, w)``; the others keep their codes. All without.
    """
    name: str
    codes: np.ndarray
    free: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.free is not None and not self.free.any():
            raise ValueError("the hole is empty: every cell is kept and nothing is left to guide")

    def codes_of(self, seed: int, index: int) -> np.ndarray:
        """Codes ``(1[, D], h, w)`` int64 that an image starts from."""
        return self.codes[index % len(self.codes)][None].astype(np.int64)

    def describe(self) -> dict[str, Any]:
        """All that decides the codes, as JSON values."""
        content = np.ascontiguousarray(self.codes, np.int64).tobytes()
        kept = {} if self.free is None else {"free": np.flatnonzero(self.free).tolist()}
        return {"name": self.name, "content": f"sha256:{storage.sha256(content)}", **kept}


@dataclass(frozen=True, kw_only=True)
class SampledStart:
    """Samples of a prior to start from: image i from the sample that has its seed and number."""
    prior: GuidingPrior
    free: None = None

    @property
    def name(self) -> str:
        """Of the prior, for the source of the images."""
        return f"prior:{self.prior.prior.fingerprint}"

    def codes_of(self, seed: int, index: int) -> np.ndarray:
        """Codes ``(1[, D], h, w)`` int64 that an image starts from."""
        return self.prior.sample(seed, index)

    def describe(self) -> dict[str, Any]:
        """All that decides the codes beside the seed, as JSON values."""
        return {"name": self.name, **self.prior.describe()}


def stored_codes(corpus: TokenCorpus, key: str, spec: CodeSpec) -> np.ndarray:
    """The codes ``(M[, D], h, w)`` of the rows with a key, M at least 1.

    Args:
        spec: of the tokenizer that is guided, at the size of the images; of a corpus with buckets
            only rows of this size are read.
    Raises:
        SpecMismatch: they are of another tokenizer or size.
        ValueError: the corpus holds no such codes, or no such key.
    """
    corpus = bucket_of_size(corpus, spec.image_size)
    rows = corpus.rows if isinstance(corpus, OneBucket) else None
    require_codes(TokenSpec(codes=(spec,)), corpus.spec, [spec.modality], corpus.url)
    wanted = corpus.spec[spec.modality]
    found = []
    for table in selected_tables(corpus, ["key", wanted.column], rows):
        chosen = [row for row, name in enumerate(table["key"].to_pylist()) if name == key]
        if chosen:
            found.append(codes_array(wanted, table)[chosen])
    if not found:
        bucket = "" if rows is None else f" whose picture is of {size_name(spec.image_size)}"
        raise ValueError(f"{corpus.url} holds no row with the key {key!r}{bucket}")
    return np.concatenate(found)
