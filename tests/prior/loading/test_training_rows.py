"""What training goes through and what it holds out, in each order and for mixtures."""
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from written_corpora import write_corpus

from prior.dataset import CodeRows
from prior.loading.config import LoaderConfig, Mixture
from prior.loading.data import Selection, TrainingRows, held_out_rows, open_rows
from prior.loading.streams import MappedStream, WindowedStream
from prior.model import Condition, PriorConfig
from prior.sequence import LABEL
from tokenizer.schema import SpecMismatch
from tokenizer.splits import Split
from tokenizer.tokens import TokenCorpus

MODALITIES = ("image", "segmentation")
ORDERS = ("exact", "windowed")


def open_one(corpus: TokenCorpus, folder: Path, order: str = "exact",
             **changes: Any) -> TrainingRows:
    return open_rows(Mixture((corpus,), (1.0,)), selection(folder, order, **changes))


def selection(folder: Path, order: str = "exact", crops: str = "all",
              **changes: Any) -> Selection:
    loader = LoaderConfig(order=order, window_rows=20, crops=crops)
    settings: dict[str, Any] = {"modalities": MODALITIES, "split": Split(held_out=0.2),
                                "num_held_out": 100, "loader": loader, "seed": 0,
                                "cache": str(folder / "cache")}
    return Selection(**{**settings, **changes})


def trained_on(rows: TrainingRows) -> list[int]:
    return sorted(rows.stream.rows(np.arange(len(rows.stream))).tolist())


@pytest.mark.parametrize("order", ORDERS)
def test_training_and_held_out_rows_are_all_rows_divided_by_key(
        order: str, corpus: TokenCorpus, tmp_path: Path) -> None:
    rows, whole = open_one(corpus, tmp_path, order), CodeRows.load(corpus, MODALITIES)
    is_held_out = whole.is_held_out(Split(held_out=0.2))
    assert trained_on(rows) == np.flatnonzero(~is_held_out).tolist()
    expected = whole.select(is_held_out)
    assert rows.held_out.keys == expected.keys and rows.held_out.classes == expected.classes
    for name in MODALITIES:
        np.testing.assert_array_equal(rows.held_out.codes[name], expected.codes[name])
    np.testing.assert_array_equal(rows.held_out.labels, expected.labels)


@pytest.mark.parametrize("order", ORDERS)
def test_no_more_held_out_rows_are_loaded_than_measured(order: str, corpus: TokenCorpus,
                                                        tmp_path: Path) -> None:
    every = open_one(corpus, tmp_path, order).held_out
    few = open_one(corpus, tmp_path, order, num_held_out=5).held_out
    assert len(few) == 5
    assert few.keys == [every.keys[index * len(every) // 5] for index in range(5)]


@pytest.mark.parametrize("order", ORDERS)
def test_nothing_may_be_held_out(order: str, corpus: TokenCorpus, tmp_path: Path) -> None:
    rows = open_one(corpus, tmp_path, order, split=Split(held_out=0))
    assert len(rows.held_out) == 0 and trained_on(rows) == list(range(60))


@pytest.mark.parametrize("order", ORDERS)
def test_a_filter_counts_for_training_and_held_out_rows(order: str, corpus: TokenCorpus,
                                                        tmp_path: Path) -> None:
    rows = open_one(corpus, tmp_path, order, row_filter="class_name == 'dog'")
    labels = rows.stream.take(np.arange(len(rows.stream)))[LABEL]
    assert set(labels.tolist()) == set(rows.held_out.labels.tolist()) == {1}


def test_one_crop_an_image_makes_shorter_epochs(corpus: TokenCorpus, tmp_path: Path) -> None:
    rows = open_one(corpus, tmp_path, crops="one")
    assert len(rows.stream) == len(open_one(corpus, tmp_path).stream) // 2


def test_large_corpora_are_read_in_windows(corpus: TokenCorpus, tmp_path: Path) -> None:
    kinds = [type(open_one(corpus, tmp_path, loader=LoaderConfig(exact_gib=gib)).stream)
             for gib in (1.0, 1e-9)]
    assert kinds == [MappedStream, WindowedStream]
    assert [LoaderConfig(exact_gib=1.0).is_exact(size) for size in (1 << 30, (1 << 30) + 1)] == [
        True, False]


def test_both_orders_refuse_a_damaged_corpus(corpus: TokenCorpus, tmp_path: Path) -> None:
    path = Path(corpus.url) / corpus.manifest.shards[1].name
    path.write_bytes(path.read_bytes()[:-20])
    for order in ORDERS:
        with pytest.raises(ValueError, match="part-00001-of-00002.parquet is damaged.*--verify"):
            open_one(corpus, tmp_path, order)


def test_keys_are_divided_as_the_split_says() -> None:
    keys = [pa.array([f"photos/{number // 3:03d}" for number in range(90)]),
            pa.array(["photos/000", "photos/100"])]
    names = [name for array in keys for name in array.to_pylist()]
    for split in (Split(held_out=7), Split(held_out=0.3, by="name")):
        held_out = set(split.divide(names)[1])
        assert held_out_rows(keys, split).tolist() == [name in held_out for name in names]


# Mixtures


def test_a_mixture_holds_out_rows_of_each_corpus(corpus: TokenCorpus, tmp_path: Path,
                                                 make_corpus: Callable[..., TokenCorpus]) -> None:
    second = make_corpus("second", 20, seed=1, fingerprint="sha256:second")
    rows = open_rows(Mixture((corpus, second), (3.0, 1.0)), selection(tmp_path))
    parts = [open_one(each, tmp_path) for each in (corpus, second)]
    assert rows.held_out.keys == parts[0].held_out.keys + parts[1].held_out.keys
    taken = rows.stream.rows(np.arange(1024))
    assert (taken >= 60).sum() == pytest.approx(256, abs=1)
    assert set(taken.tolist()) == {*trained_on(parts[0]),
                                   *(60 + row for row in trained_on(parts[1]))}


def test_a_mixture_has_a_fingerprint_of_its_own(corpus: TokenCorpus,
                                                make_corpus: Callable[..., TokenCorpus]) -> None:
    second = make_corpus("second", 20, fingerprint="sha256:second")
    configs = [PriorConfig.of(Mixture((corpus, second), weights))
               for weights in ((1.0, 1.0), (2.0, 1.0))]
    assert len({config.corpus for config in configs}) == 2
    assert configs[0].fingerprints == ("sha256:corpus", "sha256:second")
    alone = PriorConfig.of(Mixture((corpus,), (5.0,)))
    assert alone == PriorConfig.of(corpus) and alone.fingerprints == ("sha256:corpus",)


def test_corpora_whose_codes_differ_are_not_mixed(corpus: TokenCorpus,
                                                  make_corpus: Callable[..., TokenCorpus]) -> None:
    other = make_corpus("other", tokenizer="sha256:other-{}", fingerprint="sha256:other")
    with pytest.raises(SpecMismatch, match="other: codes.image.tokenizer is 'sha256:other-image'"):
        PriorConfig.of(Mixture((corpus, other), (1.0, 1.0)))


def test_other_classes_matter_only_where_labels_are_conditions(
        corpus: TokenCorpus, make_corpus: Callable[..., TokenCorpus]) -> None:
    other = make_corpus("other", classes=("cat", "horse"), fingerprint="sha256:other")
    mixture = Mixture((corpus, other), (1.0, 1.0))
    PriorConfig.of(mixture, conditions=[Condition(name="segmentation")])
    with pytest.raises(ValueError, match="other has other classes"):
        PriorConfig.of(mixture, conditions=[Condition(name="label")])


def test_a_corpus_is_mixed_once(corpus: TokenCorpus) -> None:
    with pytest.raises(ValueError, match="is given twice, or as a copy"):
        Mixture((corpus, corpus), (1.0, 1.0))


# Settings


@pytest.mark.parametrize(("changes", "message"), [
    ({"order": "random"}, "order is one of auto, exact, windowed, got 'random'"),
    ({"crops": "two"}, "crops is one of all, one, got 'two'"),
    ({"exact_gib": -1.0}, "exact_gib must be at least 0, got -1.0"),
    ({"window_rows": 0}, "window_rows must be at least 1, got 0")])
def test_impossible_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LoaderConfig(**changes)


def test_rows_without_a_label_are_told_before_training_where_there_is_no_code_for_that(
        tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "half", np.zeros((4, 2, 2), np.int64), 16,
                          classes=["cat", None, "dog", None])
    settings: dict[str, Any] = {"conditions": [Condition(name="label", dropout=0.0)],
                                "drop_all": 0.0}
    with pytest.raises(ValueError, match="2 of 4 rows of .*half have no label.*'label is not null"):
        PriorConfig.of(corpus, sequence="taming", **settings)
    PriorConfig.of(corpus, sequence="taming", row_filter="label is not null", **settings)
    PriorConfig.of(corpus, **settings)
