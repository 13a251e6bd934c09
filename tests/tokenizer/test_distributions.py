"""Distributions in one pass: exact where it says so, samples where there are more values."""
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from written_corpora import write_corpus

from tokenizer import distributions
from tokenizer.distributions import QUANTILES, Distribution, Worst, quality_statistics
from tokenizer.filters import RowFilter

CODES = np.zeros((6, 2, 2), int)
DECIBELS = [20.0, 10.0, 30.0, float("nan"), 40.0, 25.0]
CLASSES = ["sky", "sky", "cat", "cat", None, "sky"]


def test_few_values_are_summed_up_exactly_in_any_division() -> None:
    values = np.random.default_rng(0).normal(size=1000)
    whole, parts = Distribution(2000), Distribution(2000)
    whole.add(values)
    for part in np.split(values, [1, 1, 300, 999]):
        parts.add(part)
    for summary in (whole.summary(), parts.summary()):
        assert summary["count"] == 1000 and not summary["sampled"]
        assert summary["mean"] == pytest.approx(values.mean())
        assert (summary["min"], summary["max"]) == (values.min(), values.max())
        assert list(summary["quantiles"].values()) == pytest.approx(np.quantile(values, QUANTILES))


@pytest.mark.parametrize("order", ["as drawn", "ascending"])
def test_many_values_are_sampled_evenly_in_bounded_memory(order: str) -> None:
    values = np.random.default_rng(1).random(200_000)
    found = Distribution(10_000)
    for part in np.split(np.sort(values) if order == "ascending" else values, 400):
        found.add(part)
    summary = found.summary()
    assert summary["count"] == 200_000 and summary["sampled"]
    assert summary["min"] == values.min() and summary["mean"] == pytest.approx(values.mean())
    for share, value in summary["quantiles"].items():
        assert value == pytest.approx(float(share), abs=0.02)  # four deviations
    assert found._kept.size == 20_000


def test_values_that_come_one_by_one_take_no_more_memory_and_give_the_same() -> None:
    values = np.random.default_rng(2).normal(size=511)
    whole, single = Distribution(64), Distribution(64)
    tracemalloc.start()
    for value in values:
        single.add(np.array([value]))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 8000  # 127 values of 16 bytes, and arrays around them
    for part in np.split(values, range(64, 511, 64)):
        whole.add(part)
    assert single.summary()["quantiles"] == whole.summary()["quantiles"]


def test_nulls_are_counted_apart_and_no_value_is_no_error() -> None:
    found = Distribution()
    found.add(np.array([np.nan, np.nan]))
    assert found.summary() == {"count": 0, "num_null": 2}
    found.add(np.array([3.0, np.nan]))
    assert (found.summary()["count"], found.summary()["num_null"]) == (1, 3)


@pytest.mark.parametrize(("column", "expected"), [
    ("image_psnr", ["k1", "k4", "k0"]), ("depth_rmse", ["k2", "k5", "k0"])])
def test_the_worst_rows_are_the_least_or_the_greatest_by_what_is_measured(
        column: str, expected: list[str]) -> None:
    values = [20.0, 10.0, 40.0, None, 15.0, 30.0]
    table = pa.table({
        "key": [f"k{row}" for row in range(6)], "crop_index": [0] * 6, "source": ["s"] * 6,
        "label": [0] * 6, "class_name": ["a"] * 6, column: pa.array(values, pa.float32())})
    worst = Worst(3, column)
    for start in range(0, 6, 2):
        worst.add(table.slice(start, 2))
    assert [row["key"] for row in worst.rows()] == expected


def test_of_equal_rows_the_first_are_listed() -> None:
    table = pa.table({
        "key": [f"k{row}" for row in range(8)], "crop_index": [0] * 8, "source": ["s"] * 8,
        "label": [0] * 8, "class_name": ["a"] * 8, "image_psnr": [7.0] * 8})
    worst = Worst(3, "image_psnr")
    worst.add(table.slice(0, 4))
    worst.add(table.slice(4))
    assert [row["key"] for row in worst.rows()] == ["k0", "k1", "k2"]


def test_quality_of_a_corpus_is_told_over_all_rows_and_by_class(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path, CODES, 8, classes=CLASSES, quality={
        "image_psnr": DECIBELS, "image_entropy": [1.0] * 6})
    found = quality_statistics(corpus, num_worst=2)
    assert found["num_rows"] == 6
    psnr = found["columns"]["image_psnr"]
    assert (psnr["count"], psnr["num_null"], psnr["mean"]) == (5, 1, 25.0)
    assert psnr["quantiles"]["0.5"] == 25.0
    assert set(found["classes"]) == {"sky", "cat"}
    assert found["classes"]["sky"]["image_psnr"]["max"] == 25.0
    assert found["classes"]["cat"]["image_psnr"]["num_null"] == 1
    assert [row["key"] for row in found["worst"]["image_psnr"]] == ["k1", "k0"]
    assert found["worst"]["image_psnr"][0] == {
        "key": "k1", "crop_index": 0, "source": "k1.png", "label": 1, "class_name": "sky",
        "image_psnr": 10.0}


def test_rows_are_ranked_by_whatever_says_how_good_they_are(tmp_path: Path) -> None:
    """Samples of a prior have a column of their own."""
    corpus = write_corpus(tmp_path, CODES, 8, quality={
        "log_likelihood": [-5.0, -9.0, -1.0, -2.0, -3.0, -4.0], "image_entropy": [1.0] * 6})
    found = quality_statistics(corpus, num_worst=2)
    assert list(found["worst"]) == ["log_likelihood"]
    assert [row["key"] for row in found["worst"]["log_likelihood"]] == ["k1", "k0"]


def test_a_filter_narrows_all_of_it(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path, CODES, 8, classes=CLASSES, quality={"image_psnr": DECIBELS})
    rows = RowFilter.parse("image_psnr >= 25", corpus.spec.arrow_schema())
    found = quality_statistics(corpus, rows, num_worst=9)
    assert found["num_rows"] == 3 and found["columns"]["image_psnr"]["min"] == 25.0
    assert [row["key"] for row in found["worst"]["image_psnr"]] == ["k5", "k2", "k4"]
    none = RowFilter.parse("image_psnr > 50", corpus.spec.arrow_schema())
    with pytest.raises(ValueError, match="takes none of the rows"):
        quality_statistics(corpus, none)


def test_a_corpus_without_quality_columns_is_told_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="encode the images with --stats"):
        quality_statistics(write_corpus(tmp_path, CODES, 8))


def test_classes_share_the_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributions, "ROOM", 20)
    monkeypatch.setattr(distributions, "LEAST_ROOM", 3)
    corpus = write_corpus(tmp_path, np.zeros((20, 1, 1), int), 2, classes=["a", "b"] * 10,
                          quality={"image_psnr": list(range(20))})
    found = quality_statistics(corpus)
    assert not found["classes"]["a"]["image_psnr"]["sampled"]  # ten values for each class
    monkeypatch.setattr(distributions, "ROOM", 8)
    found = quality_statistics(corpus)
    assert found["classes"]["a"]["image_psnr"]["sampled"]
    assert found["classes"]["a"]["image_psnr"]["max"] == 18.0
