"""Token corpora with the codes, classes, quality columns and buckets that a test gives."""
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tokenizer.audit import complete
from tokenizer.buckets import Bucket
from tokenizer.schema import GEOMETRY, CodeSpec, TokenSpec, rows_table
from tokenizer.tokens import TokenCorpus, commit_shard


def write_corpus(folder: Path, codes: np.ndarray, codebook_size: int, shard_size: int = 4,
                 classes: Sequence[str | None] = (),
                 quality: Mapping[str, Sequence[float]] | None = None) -> TokenCorpus:
    """A corpus of image codes ``(N[, D], h, w)`` with keys ``k0``, ``k1``, ..., in several shards.

    Args:
        classes: class name of each row; none by default.
        quality: quality columns by name.
    """
    depth = codes.shape[1] if codes.ndim == 4 else 1
    spec = TokenSpec(quality=tuple(quality or ()), codes=(CodeSpec(
        modality="image", grid=codes.shape[-2:], codebook_size=codebook_size, depth=depth,
        image_size=(8, 8), tokenizer="sha256:a"),))
    names = sorted({name for name in classes if name is not None})
    columns = {
        "key": [f"k{row}" for row in range(len(codes))],
        "source": [f"k{row}.png" for row in range(len(codes))], "flipped": [False] * len(codes),
        **{name: [0 if name == "crop_index" else 8] * len(codes) for name in GEOMETRY},
        "class_name": list(classes) or [None] * len(codes),
        "label": [names.index(name) if name is not None else None for name in classes]
        or [None] * len(codes), **(quality or {})}
    starts = range(0, len(codes), shard_size)
    receipts = []
    for shard, start in enumerate(starts):
        part = slice(start, start + shard_size)
        rows = rows_table(spec, {"image": codes[part]},
                          {name: values[part] for name, values in columns.items()})
        receipts.append(commit_shard(str(folder), shard, len(starts), "sha256:f", rows))
    complete(str(folder), spec, "sha256:f", receipts, names, len(codes))
    return TokenCorpus.open(str(folder))


BUCKETS = (Bucket(image_size=(16, 16), grid=(2, 2)), Bucket(image_size=(8, 16), grid=(1, 2)))
"""Of `write_buckets`, by default; the first has 4 codes, the second 2."""


def write_buckets(folder: Path, codes: CodeSpec | None = None, num_rows: int = 20,
                  buckets: tuple[Bucket, ...] = BUCKETS) -> TokenCorpus:
    """A corpus whose rows ``k00``, ``k01``, ... take turns between buckets; no code is 0.

    Args:
        codes: of the first bucket.
    """
    codes = codes or CodeSpec(modality="image", grid=buckets[0].grid, codebook_size=16,
                              image_size=buckets[0].image_size, tokenizer="sha256:a")
    spec = TokenSpec(codes=(dataclasses.replace(codes, buckets=buckets),))
    places = [row % len(buckets) for row in range(num_rows)]
    columns = {
        "key": [f"k{row:02d}" for row in range(num_rows)], "source": ["drawn"] * num_rows,
        "flipped": [False] * num_rows, "bucket": [spec.buckets[place] for place in places],
        **{name: [1] * num_rows for name in GEOMETRY},
        **{name: [buckets[place].grid[side] for place in places]
           for side, name in enumerate(spec.codes[0].grid_columns)}}
    stored = [np.full(buckets[place].grid, 1 + row % 15) for row, place in enumerate(places)]
    receipt = commit_shard(str(folder), 0, 1, "sha256:b",
                           rows_table(spec, {codes.modality: stored}, columns))
    complete(str(folder), spec, "sha256:b", [receipt], (), num_rows)
    return TokenCorpus.open(str(folder))
