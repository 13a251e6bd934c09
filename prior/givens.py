"""What samples are given: labels, maps of a token corpus or of files, or parts of images.

Letters: M rows of conditions, n codes of a segment on a grid of h rows and w columns with D codes a
cell, V vocabulary.
"""
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from prior.coordinates import whole_image
from prior.dataset import NO_LABEL, CodeRows, require_codes
from prior.masks import rows_hole
from prior.model import PriorConfig
from prior.sequence import COORDINATES, LABEL, NOT_MAPS, Segment
from tokenizer.filters import RowFilter
from tokenizer.one_bucket import OneBucket, bucket_of_size
from tokenizer.splits import Split
from tokenizer.tokens import TokenCorpus


@dataclass(frozen=True, kw_only=True)
class Givens:
    """Rows of conditions; samples take them in turn.

    Attributes:
        corpus: fingerprint of the token corpus they come from, if from one.
        url: folder of that corpus.
        keys: M keys of its rows, or the names of the files of each row; empty where there are
            neither.
        rows: M numbers of its rows.
        conditions: per condition that is given, ``(M, n)`` int64 in ``[0, V]`` in the order of the
            sequence, V where a row has none.
        start: first codes of the sequences of images to complete, ``(M, k)``; k is 0 for images
            from nothing, and n with a hole.
        originals: codes of the images to complete as stored, ``(M[, D], h, w)``.
        hole: which cells are drawn anew, bool ``(h, w)``; nothing for all after ``start``.
        crops: what part of its image each row is, ``(M, 7)`` as in `prior.coordinates.RECORD`, of
            a prior with coordinates; of any other nothing.
    """
    corpus: str | None = None
    url: str | None = None
    keys: tuple[str, ...]
    rows: np.ndarray
    conditions: dict[str, np.ndarray]
    start: np.ndarray
    originals: np.ndarray | None = None
    hole: np.ndarray | None = None
    crops: np.ndarray | None = None

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
    crops = _whole(config, count, conditions)
    _check_lacking(config, conditions.keys())
    return Givens(keys=("",) * count, rows=np.zeros(count, np.int64), conditions=conditions,
                  start=np.zeros((count, 0), np.int64), crops=crops)


def from_corpus(config: PriorConfig, corpus: TokenCorpus, *, labels: Sequence[str] = (),
                held_out: bool = False, keep: float | None = None,
                hole: np.ndarray | None = None, key: str | None = None,
                row_filter: str | None = None) -> Givens:
    """One row for each row of a corpus, with all conditions of the prior that it holds.

    Args:
        labels: these instead of the rows' own, in turn.
        held_out: only rows that the training held out: of those that its own filter takes, unless
            ``row_filter`` is given.
        keep: share of the image's rows that are kept, from the top, and completed; ``None`` starts
            from nothing, or from what ``hole`` leaves.
        hole: cells ``(h, w)`` bool of the image that are drawn anew.
        key: only rows of this key.
        row_filter: only rows for which this expression of `tokenizer.filters` holds.
    Raises:
        ValueError: codes are of other tokenizers than the prior's, or of another size than its
            pictures'; a class is none of the prior's, no row has the key or passes the filter, or
            the prior needs more than is given.
    """
    if held_out:
        _require_held_out(config, corpus)
        row_filter = config.row_filter if row_filter is None else row_filter
    names = [condition.name for condition in config.conditions]
    modalities = [name for name in names if name in {COORDINATES, *corpus.spec.modalities}]
    completes = keep is not None or hole is not None
    wanted = [config.target, *modalities] if completes else modalities
    corpus = _alike(config, corpus, [name for name in wanted if name not in NOT_MAPS], row_filter)
    rows = CodeRows.load(corpus, wanted)
    chosen = _chosen(corpus, rows, key, config.split if held_out else None, row_filter)
    numbers = np.flatnonzero(chosen)
    rows = rows if chosen.all() else rows.select(numbers)
    conditions = {name: config.layout[name].to_sequence(rows.codes[name]) for name in modalities}
    if LABEL in names and (labels or (rows.labels != NO_LABEL).any()):
        conditions[LABEL] = (np.resize(label_codes(config, labels), len(rows)) if labels
                             else labels_of(config, rows))[:, None]
    elif labels:
        label_codes(config, labels)  # refuses: the prior takes no label
    if not completes and not conditions:
        raise ValueError(f"{corpus.url} holds none of the conditions of the prior "
                         f"({', '.join(names) or 'it has none'}): leave --condition-from out")
    _check_lacking(config, conditions.keys())
    originals = rows.codes[config.target] if completes else None
    return Givens(corpus=corpus.manifest.fingerprint, url=corpus.url, keys=tuple(rows.keys),
                  rows=numbers, conditions=conditions, originals=originals, hole=hole,
                  crops=rows.codes.get(COORDINATES),
                  start=_known(config.layout.target, originals, len(rows), keep, hole))


def from_codes(config: PriorConfig, codes: Mapping[str, np.ndarray],
               files: Mapping[str, Sequence[str]], *, labels: Sequence[str] = (),
               keep: float | None = None, hole: np.ndarray | None = None) -> Givens:
    """One row for each of some codes that come from files, by modality.

    Args:
        codes: per condition, and of the target for images to complete, ``(M[, D], h, w)``; M may
            also be 1.
        files: their names, for the rows' sources; as many of each modality as codes.
        labels, keep, hole: as for `from_corpus`.
    Raises:
        ValueError: codes are of a modality that the prior does not take, their numbers differ, or
            the prior needs more than is given.
    """
    taken = [condition.name for condition in config.conditions
             if condition.name not in NOT_MAPS]
    for modality in codes:
        if modality not in (*taken, config.target):
            raise ValueError(f"the prior takes no {modality}; it takes "
                             f"{', '.join(taken) or 'no map'}")
    counts = {modality: len(items) for modality, items in codes.items()} | {LABEL: len(labels)}
    num_rows = max(counts.values())
    if any(count not in (0, 1, num_rows) for count in counts.values()):
        raise ValueError("give one file, or as many, of each of what is given, got "
                         + ", ".join(f"{count} of {name}" for name, count in counts.items()))
    layout = config.layout
    conditions = {modality: np.resize(layout[modality].to_sequence(items),
                                      (num_rows, layout[modality].length))
                  for modality, items in codes.items() if modality != config.target}
    if labels:
        conditions[LABEL] = np.resize(label_codes(config, labels), (num_rows, 1))
    crops = _whole(config, num_rows, conditions)
    _check_lacking(config, conditions.keys())
    originals = codes.get(config.target)
    if originals is not None:
        originals = np.resize(originals, (num_rows, *originals.shape[1:]))
    keys = tuple(" ".join(names[row % len(names)] for names in files.values())
                 for row in range(num_rows))
    return Givens(keys=keys, rows=np.zeros(num_rows, np.int64), hole=hole,
                  conditions=conditions, originals=originals, crops=crops,
                  start=_known(layout.target, originals, num_rows, keep, hole))


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
        is_number = label not in config.classes and label.isdecimal()
        if is_number and int(label) < len(config.classes):
            found.append(int(label))
        else:
            found.append(_class_of(config, label))
    return np.array(found, np.int64)


def _class_of(config: PriorConfig, name: str) -> int:
    """The number of a class by its name."""
    if name not in config.classes:
        shown = ", ".join(config.classes[:8]) + (", ..." if len(config.classes) > 8 else "")
        raise ValueError(f"{name!r} is none of the prior's {len(config.classes)} classes ({shown})")
    return config.classes.index(name)


def labels_of(config: PriorConfig, rows: CodeRows) -> np.ndarray:
    """Labels of rows as the prior numbers its classes; rows without get its null.

    Classes are matched by name, or where a corpus has their numbers for names, by number.

    Raises:
        ValueError: a class is none of the prior's, or a row has none and the prior knows no null.
    """
    missing = int((rows.labels == NO_LABEL).sum())
    if missing and not config.layout.has_nulls:
        raise ValueError(f"{missing} of {len(rows)} rows have no label, and this prior cannot do "
                         "without one: leave them out with --filter 'label is not null'")
    if rows.classes == config.classes:
        table = np.arange(len(config.classes))
    else:
        used = np.unique(rows.labels[rows.labels != NO_LABEL])
        table = np.zeros(len(rows.classes), np.int64)
        is_unnamed = rows.classes == tuple(map(str, range(len(rows.classes))))
        found = [rows.classes[label] for label in used]
        table[used] = (label_codes(config, found) if is_unnamed else
                       [_class_of(config, name) for name in found])
    null = len(config.classes)
    labels = np.where(rows.labels == NO_LABEL, len(table), rows.labels)
    return np.append(table, null)[labels]


def _whole(config: PriorConfig, num_rows: int,
           conditions: dict[str, np.ndarray]) -> np.ndarray | None:
    """Give a prior with coordinates those of whole images; the records of their crops."""
    if COORDINATES not in config.columns:
        return None
    records = np.tile(whole_image(config.spec[config.target].image_size), (num_rows, 1))
    conditions[COORDINATES] = config.layout[COORDINATES].to_sequence(records)
    return records


def _known(target: Segment, originals: np.ndarray | None, num_rows: int, keep: float | None,
           hole: np.ndarray | None) -> np.ndarray:
    """Codes that are kept, `Givens.start`: all where there is a hole, else those of first rows."""
    if originals is None:
        return np.zeros((num_rows, 0), np.int64)
    codes = target.to_sequence(originals)
    if hole is not None:
        return codes
    kept = ~rows_hole(keep or 0.0, target.grid)
    return codes[:, :int(kept.sum()) * target.depth]


def _alike(config: PriorConfig, corpus: TokenCorpus, names: Sequence[str],
           row_filter: str | None) -> TokenCorpus:
    """A corpus whose codes of these modalities mean what the prior's do; of several buckets one."""
    if names:
        size = config.spec[config.target].image_size
        corpus = bucket_of_size(corpus, size, row_filter)
    require_codes(config.spec, corpus.spec, names, corpus.url)
    return corpus


def _require_held_out(config: PriorConfig, corpus: TokenCorpus) -> None:
    if corpus.manifest.fingerprint not in config.fingerprints:
        raise ValueError(f"{corpus.url} ({corpus.manifest.fingerprint}) is not a corpus that the "
                         f"prior was trained on ({', '.join(config.fingerprints)}), so none of its "
                         "rows were held out of training: leave --held-out away")
    if not config.split.held_out:
        raise ValueError("the prior was trained with no rows held out: leave --held-out away")


def _chosen(corpus: TokenCorpus, rows: CodeRows, key: str | None, split: Split | None,
            row_filter: str | None) -> np.ndarray:
    """Which of the rows of a corpus are asked for, bool ``(N,)``.

    Args:
        rows: all N of them.
        split: only rows that it holds out.
    Raises:
        ValueError: there is none.
    """
    asked: dict[str, np.ndarray] = {}
    if split is not None:
        asked["held out of training"] = rows.is_held_out(split)
    if isinstance(corpus, OneBucket):
        asked[f"of the bucket {corpus.bucket}"] = _mask(corpus, corpus.rows)
    if key is not None:
        asked[f"with the key {key!r}"] = np.array([found == key for found in rows.keys])
    if row_filter is not None:
        asked[f"for which {row_filter}"] = _mask(corpus, RowFilter.parse(
            row_filter, corpus.manifest.spec.arrow_schema()))
    chosen = np.ones(len(rows), bool)
    for mask in asked.values():
        chosen &= mask
    if not chosen.any():
        raise ValueError(f"{corpus.url} holds no row {', '.join(asked)}: nothing to sample from")
    return chosen


def _mask(corpus: TokenCorpus, row_filter: RowFilter) -> np.ndarray:
    """Which rows of a corpus a filter takes, bool ``(N,)``."""
    return np.concatenate([row_filter.mask(table) for table in corpus.tables(row_filter.columns)])


def _check_lacking(config: PriorConfig, given: Collection[str]) -> None:
    """Refuse to sample without conditions that training always gave beside those given."""
    missing = [condition.name for condition in config.conditions if condition.name not in given]
    if needed := config.indispensable(missing):
        exception = ", unless it was given nothing at all" if config.drop_all else ""
        raise ValueError(f"the prior was always given {' and '.join(needed)} in training"
                         f"{exception}: give --label or --condition-from")
