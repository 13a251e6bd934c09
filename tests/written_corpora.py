"""Token corpora with the codes, classes and quality columns that a test gives."""
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tokenizer.audit import complete
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
