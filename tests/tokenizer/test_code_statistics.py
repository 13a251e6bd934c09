"""Statistics of codes agree with counting them all at once."""
from pathlib import Path

import numpy as np
import pytest
from written_corpora import write_corpus

from tokenizer import code_statistics
from tokenizer.code_statistics import CodeCounts, census_of, count_corpus, entropy_picture
from tokenizer.filters import RowFilter
from tokenizer.schema import CodeUsage

SIZE = 12


def drawn(depth: int = 1, num_rows: int = 30) -> np.ndarray:
    """Codes ``(N[, D], 2, 3)``; code 11 is never used, and place (0, 0) always holds 5."""
    codes = np.random.default_rng(0).integers(0, SIZE - 1, (num_rows, depth, 2, 3))
    codes[:, :, 0, 0] = 5
    return codes[:, 0] if depth == 1 else codes


def entropy(codes: np.ndarray) -> float:
    shares = np.bincount(codes.reshape(-1)) / codes.size
    return float(-(shares[shares > 0] * np.log2(shares[shares > 0])).sum())


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("rows_at_once", [3, 4096])
def test_usage_dead_codes_and_entropy_by_place(tmp_path: Path, depth: int, rows_at_once: int,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_statistics, "ROWS_AT_ONCE", rows_at_once)
    codes = drawn(depth)
    counts = count_corpus(write_corpus(tmp_path, codes, SIZE, shard_size=7))["image"]
    found = counts.summary()
    by_depth = codes.reshape(30, depth, 6)
    usage = CodeUsage.of(np.stack([np.bincount(by_depth[:, step].reshape(-1), minlength=SIZE)
                                   for step in range(depth)]))
    assert (found["used"], found["perplexity"]) == (usage.used, usage.perplexity)
    assert found["used"] == 11 and found["dead_codes"] == [[11]] * depth
    expected = [[entropy(by_depth[:, step, place]) for place in range(6)] for step in range(depth)]
    assert np.array(found["entropy_by_place"]).shape == (depth, 2, 3)
    assert np.array(found["entropy_by_place"]).reshape(depth, 6) == pytest.approx(
        np.array(expected), abs=1e-5)
    assert found["entropy_by_place"][0][0][0] == 0


def test_codes_typical_of_a_class_are_those_that_it_has_and_others_lack(tmp_path: Path) -> None:
    codes = drawn()
    codes[:10, 1] = 11  # half of the cells of the first ten rows
    names = ["sky"] * 10 + ["cat"] * 15 + [None] * 5
    counts = count_corpus(write_corpus(tmp_path, codes, SIZE, classes=names))["image"]
    found = counts.summary()["classes"]
    assert set(found) == {"sky", "cat"} and found["sky"]["num_rows"] == 10
    first = found["sky"]["specific_codes"][0]
    assert (first["code"], first["share"], first["lift"]) == (11, 0.5, pytest.approx(3.0))
    assert found["sky"]["divergence"] > found["cat"]["divergence"] > 0
    assert 11 not in [item["code"] for item in found["cat"]["specific_codes"]]
    assert found["cat"]["used"] == len(np.unique(codes[10:25]))


def test_a_filter_narrows_all_of_it(tmp_path: Path) -> None:
    codes = drawn()
    corpus = write_corpus(tmp_path, codes, SIZE, classes=["sky"] * 10 + ["cat"] * 20)
    rows = RowFilter.parse("class_name == 'sky'", corpus.spec.arrow_schema())
    found = count_corpus(corpus, rows)["image"].summary()
    assert found["perplexity"] == CodeUsage.of(np.bincount(codes[:10].reshape(-1))).perplexity
    assert list(found["classes"]) == ["sky"] and found["classes"]["sky"]["divergence"] == 0
    chosen = census_of(corpus, rows)
    assert (chosen["num_rows"], chosen["class_counts"]) == (10, {"sky": 10})
    assert chosen["usage"]["image"]["perplexity"] == found["perplexity"]
    none = RowFilter.parse("class_name == 'dog'", corpus.spec.arrow_schema())
    for count in (count_corpus, census_of):
        with pytest.raises(ValueError, match="takes none of the rows"):
            count(corpus, none)


def test_what_would_take_too_much_memory_is_left_out_and_said(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_statistics, "MAX_BYTES", 4 * SIZE * 2)  # two histograms
    names = ["often"] * 14 + ["seldom"] * 6 + ["rarely"] * 5 + ["once"] + [None] * 4
    found = count_corpus(write_corpus(tmp_path, drawn(), SIZE, classes=names))["image"].summary()
    assert set(found["classes"]) == {"often", "seldom"} and found["num_classes_left_out"] == 2
    assert found["entropy_by_place"] is None and found["used"] == 11


def test_the_picture_shows_codebooks_side_by_side() -> None:
    entropies = np.stack([np.zeros((4, 6)), np.full((4, 6), np.log2(SIZE))])
    picture = entropy_picture(entropies, SIZE)
    assert picture.dtype == np.uint8 and picture.shape[0] >= 256
    height, width, _ = picture.shape
    dark, light = picture[height // 2, width // 4], picture[height // 2, 3 * width // 4]
    assert dark.tolist() == [13, 8, 60] and light.tolist() == [250, 240, 160]


def test_rows_without_a_class_are_not_those_of_a_class_without_a_name(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path, drawn(num_rows=6), SIZE, classes=["", None] * 3)
    found = count_corpus(corpus)["image"].summary()["classes"]
    codes = drawn(num_rows=6)[::2]
    assert found[""]["num_rows"] == 3
    assert found[""]["perplexity"] == CodeUsage.of(np.bincount(codes.reshape(-1))).perplexity


@pytest.mark.parametrize("num_rows", [(1 << 32) // 6 - 1, 1 << 33])
def test_counts_do_not_wrap_however_many_rows_there_are(tmp_path: Path, num_rows: int) -> None:
    corpus = write_corpus(tmp_path, np.zeros((1, 2, 3), int), SIZE, classes=["a"])
    counts = CodeCounts(corpus.spec["image"], ["a"], num_rows)
    counts._by_group[0, 0] = 6 * (num_rows - 1)  # as if they were counted
    counts.add(corpus.read_shard(0))
    assert counts._by_group[0, 0] == 6 * num_rows
