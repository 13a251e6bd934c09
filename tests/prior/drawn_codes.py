"""Token corpora whose image codes follow from label and segmentation, for tests of the prior."""
from collections.abc import Mapping, Sequence

import numpy as np

from prior.dataset import CodeRows
from prior.loading.orders import Choice
from prior.loading.streams import MappedStream
from prior.model import Condition
from prior.recipes import tiny
from prior.state import TrainingConfig
from tokenizer.audit import complete
from tokenizer.configs import override
from tokenizer.schema import CodeSpec, TokenSpec, rows_table
from tokenizer.tokens import TokenCorpus, commit_shard

GRID = (3, 2)
CLASSES = ("cat", "dog")
SIZES = {"image": 8, "segmentation": 4}
CORPUS = "sha256:corpus"


def spec_of(modality: str, tokenizer: str = "sha256:{}", depth: int = 1) -> CodeSpec:
    return CodeSpec(modality=modality, grid=GRID, codebook_size=SIZES[modality],
                    image_size=(12, 8), tokenizer=tokenizer.format(modality), depth=depth)


def draw_codes(num_rows: int, seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Codes and labels: an image code is twice its cell's segmentation code, plus the label."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, len(CLASSES), num_rows)
    maps = generator.integers(0, SIZES["segmentation"], (num_rows, *GRID))
    return {"image": maps * 2 + labels[:, None, None], "segmentation": maps}, labels


def deepen(codes: np.ndarray, spec: CodeSpec) -> np.ndarray:
    """Codes ``(N, h, w)`` with further codes in each cell, each one more than the one before."""
    steps = [(codes + step) % spec.codebook_size for step in range(spec.depth)]
    return codes if spec.depth == 1 else np.stack(steps, 1)


def write_corpus(url: str, num_rows: int = 60, *, seed: int = 0, num_shards: int = 2,
                 modalities: Sequence[str] = ("image", "segmentation"), labelled: bool = True,
                 classes: Sequence[str] = CLASSES, tokenizer: str = "sha256:{}",
                 fingerprint: str = CORPUS, depths: Mapping[str, int] = {},
                 crops: Mapping[str, Sequence[int]] = {}, source: str = "drawn") -> TokenCorpus:
    """A completed corpus; each key has two rows.

    Args:
        depths: codes a cell by modality.
        crops: columns of the rows' crops, where they are not the whole image.
        source: of every row.
    """
    codes, labels = draw_codes(num_rows, seed)
    spec = TokenSpec(codes=tuple(spec_of(name, tokenizer, depths.get(name, 1))
                                 for name in modalities))
    codes = {name: deepen(codes[name], spec[name]) for name in modalities}
    receipts = []
    for shard, rows in enumerate(np.array_split(np.arange(num_rows), num_shards)):
        columns = {"key": [f"photos/{row // 2:04d}" for row in rows],
                   "source": [source] * len(rows),
                   **{name: [value] * len(rows) for name, value in
                      {"height": 12, "width": 8, "crop_index": 0, "left": 0, "top": 0,
                       "crop_width": 8, "crop_height": 12, "flipped": False}.items()},
                   **{name: [values[row] for row in rows] for name, values in crops.items()}}
        if labelled:
            columns["label"] = [int(labels[row]) for row in rows]
            columns["class_name"] = [classes[labels[row]] for row in rows]
        table = rows_table(spec, {name: codes[name][rows] for name in modalities}, columns)
        receipts.append(commit_shard(url, shard, num_shards, fingerprint, table))
    complete(url, spec, fingerprint, receipts, classes if labelled else (), num_rows)
    return TokenCorpus.open(url)


def tiny_training(*settings: str) -> TrainingConfig:
    return override(tiny().training, settings)


def conditions(*names: str) -> list[Condition]:
    return [Condition(name=name) for name in names]


def mapped_stream(corpus: TokenCorpus, seed: int = 0) -> MappedStream:
    """All rows of a corpus in exact order."""
    rows = CodeRows.load(corpus, corpus.spec.modalities)
    return MappedStream(rows.columns(np.arange(len(rows))), Choice(np.arange(len(rows))), seed)
