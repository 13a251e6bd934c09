"""What samples are given: labels, maps of a token corpus, or the first rows of its images.

Letters: M rows of conditions, n codes of a segment on a grid of h rows and w columns with D codes a
cell, V vocabulary.
"""
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from prior.dataset import NO_LABEL, CodeRows
from prior.model import PriorConfig
from prior.sequence import LABEL, Segment
from tokenizer.schema import TokenSpec
from tokenizer.tokens import TokenCorpus


@dataclass(frozen=True, kw_only=True)
class Givens:
    """Rows of conditions; samples take them in turn.

    Attributes:
        corpus: fingerprint of the token corpus they come from, if from one.
        url: folder of that corpus.
        keys: M keys of its rows; empty strings where there is no corpus.
        rows: M numbers of its rows.
        conditions: per condition that is given, ``(M, n)`` int64 in ``[0, V]`` in the order of the
            sequence, V where a row has none.
        start: first codes of the sequences of images to complete, ``(M, k)``; k is 0 for images
            from nothing.
        originals: codes of the images to complete as stored, ``(M[, D], h, w)``.
    """
    corpus: str | None = None
    url: str | None = None
    keys: tuple[str, ...]
    rows: np.ndarray
    conditions: dict[str, np.ndarray]
    start: np.ndarray
    originals: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.keys)


def from_labels(config: PriorConfig, labels: Sequence[str]) -> Givens:
    """One row for each label, or one row without any.

    Args:
        labels: class names, or their numbers.
    Raises:
        ValueError: a label is none of the prior's, or the prior needs more than is given.
    """
    count = max(1, len(labels))
    conditions = {LABEL: label_codes(config, labels)[:, None]} if labels else {}
    _check_lacking(config, conditions.keys())
    return Givens(keys=("",) * count, rows=np.zeros(count, np.int64), conditions=conditions,
                  start=np.zeros((count, 0), np.int64))


def from_corpus(config: PriorConfig, corpus: TokenCorpus, *, labels: Sequence[str] = (),
                held_out: bool = False, keep: float | None = None) -> Givens:
    """One row for each row of a corpus, with all conditions of the prior that it holds.

    Args:
        labels: these instead of the rows' own, in turn.
        held_out: only rows that the prior was not trained on.
        keep: share of the image's rows that are kept, from the top, and completed; ``None`` starts
            from nothing.
    Raises:
        ValueError: codes are of other tokenizers than the prior's, a class is none of the prior's,
            or the prior needs more than is given.
    """
    held = set(corpus.spec.modalities)
    names = [condition.name for condition in config.conditions]
    modalities = [name for name in names if name in held]
    wanted = modalities if keep is None else [config.target, *modalities]
    for name in wanted:
        TokenSpec(codes=(config.spec[name].cropped({}),)).require_equal(
            TokenSpec(codes=(corpus.spec[name].cropped({}),)), corpus.url)
    rows = CodeRows.load(corpus, wanted)
    numbers = np.arange(len(rows))
    if held_out:
        numbers = numbers[_held_out(config, corpus, rows)]
        rows = rows.select(numbers)
    conditions = {name: config.layout[name].to_sequence(rows.codes[name]) for name in modalities}
    if LABEL in names and (labels or (rows.labels != NO_LABEL).any()):
        conditions[LABEL] = (np.resize(label_codes(config, labels), len(rows)) if labels
                             else _labels_of(config, rows))[:, None]
    elif labels:
        label_codes(config, labels)  # refuses: the prior takes no label
    if keep is None and not conditions:
        raise ValueError(f"{corpus.url} holds none of the conditions of the prior "
                         f"({', '.join(names) or 'it has none'}): leave --condition-from out")
    _check_lacking(config, conditions.keys())
    originals = None if keep is None else rows.codes[config.target]
    start = (np.zeros((len(rows), 0), np.int64) if originals is None
             else _first_rows(config.layout.target, originals, keep or 0.0))
    return Givens(corpus=corpus.manifest.fingerprint, url=corpus.url, keys=tuple(rows.keys),
                  rows=numbers, conditions=conditions, start=start, originals=originals)


def label_codes(config: PriorConfig, labels: Sequence[str]) -> np.ndarray:
    """Class names, or their numbers, as int64.

    Raises:
        ValueError: the prior takes no label, or not this one.
    """
    if LABEL not in [condition.name for condition in config.conditions]:
        raise ValueError("the prior is not conditioned on the label; leave --label out, or train "
                         "one with --condition label")
    found = []
    for label in labels:
        if label in config.classes:
            found.append(config.classes.index(label))
        elif label.isdecimal() and int(label) < len(config.classes):
            found.append(int(label))
        else:
            shown = ", ".join(config.classes[:8]) + (", ..." if len(config.classes) > 8 else "")
            raise ValueError(f"{label!r} is none of the prior's {len(config.classes)} classes "
                             f"({shown}), nor the number of one")
    return np.array(found, np.int64)


def _labels_of(config: PriorConfig, rows: CodeRows) -> np.ndarray:
    """Labels of rows as the prior numbers its classes; rows without get its null."""
    if rows.classes == config.classes:
        table = np.arange(len(config.classes))
    else:
        used = np.unique(rows.labels[rows.labels != NO_LABEL])
        table = np.zeros(len(rows.classes), np.int64)
        table[used] = label_codes(config, [rows.classes[label] for label in used])
    null = len(config.classes)
    return np.where(rows.labels == NO_LABEL, null, table[rows.labels])


def _first_rows(target: Segment, originals: np.ndarray, keep: float) -> np.ndarray:
    """Codes of the first rows of images as stored: ``(M, k)``, at least one row, not all."""
    height, width = target.grid
    if not 0 < keep < 1:
        raise ValueError(f"keep is the share of rows to keep and must lie in (0, 1), got {keep}")
    kept = min(max(1, round(keep * height)), height - 1)
    return target.to_sequence(originals)[:, :kept * width * target.depth]


def _held_out(config: PriorConfig, corpus: TokenCorpus, rows: CodeRows) -> np.ndarray:
    if corpus.manifest.fingerprint != config.corpus:
        raise ValueError(f"{corpus.url} ({corpus.manifest.fingerprint}) is not the corpus that the "
                         f"prior was trained on ({config.corpus}), so none of its rows were held "
                         "out of training: leave --held-out away")
    mask = rows.is_held_out(config.split)
    if not mask.any():
        raise ValueError("the prior was trained with no rows held out: leave --held-out away")
    return mask


def _check_lacking(config: PriorConfig, given: Collection[str]) -> None:
    """Refuse to sample without conditions that training always gave beside those given."""
    missing = [condition.name for condition in config.conditions if condition.name not in given]
    if needed := config.indispensable(missing):
        exception = ", unless it was given nothing at all" if config.drop_all else ""
        raise ValueError(f"the prior was always given {' and '.join(needed)} in training"
                         f"{exception}: give --label or --condition-from")
