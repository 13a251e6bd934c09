"""Duplicates: those that comparing all pairs finds, no more and no fewer."""
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from written_corpora import write_corpus

from tokenizer import duplicates
from tokenizer.duplicates import find_duplicates, hashed
from tokenizer.filters import RowFilter


def related(num_rows: int, seed: int, size: int = 6) -> np.ndarray:
    """Codes ``(N, 3, 4)``, each row a copy of one of few with 0 to 6 places changed."""
    draws = np.random.default_rng(seed)
    codes = draws.integers(0, size, (5, 12))[draws.integers(0, 5, num_rows)]
    for row in codes:
        places = draws.permutation(12)[:draws.integers(0, 7)]
        row[places] = draws.integers(0, size, len(places))
    return codes.reshape(num_rows, 3, 4)


def keys(item: dict[str, Any]) -> list[str]:
    return [row["key"] for row in item["rows"]]


def compared(codes: np.ndarray, most: int) -> tuple[list[list[str]], dict[tuple[str, ...], int]]:
    """Groups of equal rows, and distances of near pairs among their first rows, by all pairs."""
    flat = codes.reshape(len(codes), -1)
    groups: dict[bytes, list[int]] = {}
    for row, content in enumerate(flat):
        groups.setdefault(content.tobytes(), []).append(row)
    firsts = sorted(members[0] for members in groups.values())
    pairs = {(f"k{a}", f"k{b}"): int((flat[a] != flat[b]).sum())
             for a, b in itertools.combinations(firsts, 2)}
    return ([[f"k{row}" for row in members] for members in groups.values() if len(members) > 1],
            {pair: distance for pair, distance in pairs.items() if distance <= most})


@pytest.mark.parametrize("most", [0, 1, 2, 4, 11])
@pytest.mark.parametrize("hashes_at_once", [7, 1 << 20])
def test_groups_and_pairs_are_those_of_comparing_all(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, hashes_at_once: int) -> None:
    monkeypatch.setattr(duplicates, "HASHES_AT_ONCE", hashes_at_once)
    monkeypatch.setattr(duplicates, "CHUNK", hashes_at_once)
    codes = related(60, seed=most)
    found = find_duplicates(write_corpus(tmp_path, codes, 8, shard_size=9), "image", most,
                            num_listed=10_000)
    groups, pairs = compared(codes, most)
    assert sorted(map(keys, found["exact"]["listed"])) == sorted(groups)
    assert found["exact"]["num_groups"] == len(groups)
    assert found["exact"]["num_copies"] == sum(len(group) - 1 for group in groups)
    assert found["near"]["complete"]
    listed = {tuple(keys(pair)): pair["distance"] for pair in found["near"]["listed"]}
    assert listed == (pairs if most else {}) and found["near"]["num_pairs"] == len(listed)


def test_the_largest_groups_and_nearest_pairs_are_listed(tmp_path: Path) -> None:
    codes = np.arange(12 * 6).reshape(12, 2, 3)
    codes[3] = codes[7] = codes[1]
    codes[5] = codes[0]
    codes[8] = codes[2]
    codes[8, 0, :2] = 99
    codes[9] = codes[4]
    codes[9, 1, 1] = 99
    found = find_duplicates(write_corpus(tmp_path, codes, 100), "image", 3, num_listed=1)
    assert found["exact"]["num_groups"] == 2 and found["exact"]["num_copies"] == 3
    assert [(item["size"], keys(item)) for item in found["exact"]["listed"]] == [
        (3, ["k1", "k3", "k7"])]
    assert found["near"]["num_pairs"] == 2
    assert [(item["distance"], keys(item)) for item in found["near"]["listed"]] == [
        (1, ["k4", "k9"])]
    assert found["near"]["listed"][0]["rows"][0] == {"key": "k4", "crop_index": 0,
                                                     "source": "k4.png"}


def test_several_codes_a_cell_and_wide_codes_are_compared(tmp_path: Path) -> None:
    codes = np.random.default_rng(0).integers(0, 1 << 17, (6, 2, 2, 2))
    codes[4] = codes[1]
    codes[4, 1, 1, 1] ^= 1 << 16
    found = find_duplicates(write_corpus(tmp_path, codes, 1 << 17), "image", 1)
    assert found["exact"]["num_groups"] == 0
    assert [keys(pair) for pair in found["near"]["listed"]] == [["k1", "k4"]]


def test_rows_that_share_a_hash_and_no_codes_are_told_apart(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "hashed", lambda codes: np.zeros(len(codes), np.uint64))
    codes = related(30, seed=3)
    found = find_duplicates(write_corpus(tmp_path, codes, 8), "image", 0, num_listed=1000)
    assert sorted(map(keys, found["exact"]["listed"])) == sorted(compared(codes, 0)[0])


def test_where_too_many_rows_share_a_band_it_is_said_that_pairs_may_be_missing(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "WINDOW", 4)
    codes = np.zeros((20, 2, 3), int)
    codes[:, 0, 0] = np.arange(20)  # every row differs from every other in one place
    found = find_duplicates(write_corpus(tmp_path, codes, 32), "image", 1)
    assert not found["near"]["complete"]
    assert found["near"]["num_pairs"] == 16 * 4 + 3 + 2 + 1  # each with the four after it
    assert all(pair["distance"] == 1 for pair in found["near"]["listed"])


def test_a_filter_says_which_rows_are_compared(tmp_path: Path) -> None:
    codes = np.zeros((10, 1, 2), int)
    names = ["a", "b"] * 5
    corpus = write_corpus(tmp_path, codes, 4, shard_size=3, classes=names)
    rows = RowFilter.parse("class_name == 'b' and key != 'k5'", corpus.spec.arrow_schema())
    found = find_duplicates(corpus, "image", 0, rows)
    assert found["num_rows"] == 4
    assert keys(found["exact"]["listed"][0]) == ["k1", "k3", "k7", "k9"]
    none = RowFilter.parse("class_name == 'c'", corpus.spec.arrow_schema())
    with pytest.raises(ValueError, match="takes none of the rows"):
        find_duplicates(corpus, "image", 0, none)


def test_long_groups_are_cut_in_the_list_only(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path, np.zeros((50, 1, 1), int), 2, shard_size=50)
    found = find_duplicates(corpus, "image")["exact"]
    assert found["num_copies"] == 49 and found["listed"][0]["size"] == 50
    assert len(found["listed"][0]["rows"]) == duplicates.ROWS_LISTED


@pytest.mark.parametrize("most", [-1, 6])
def test_a_distance_that_takes_all_rows_for_equal_is_refused(tmp_path: Path, most: int) -> None:
    corpus = write_corpus(tmp_path, np.zeros((2, 2, 3), int), 2)
    with pytest.raises(ValueError, match=f"must be 0 to 5, .* got {most}"):
        find_duplicates(corpus, "image", most)


def test_hashes_are_the_same_everywhere_and_differ_for_any_place() -> None:
    codes = np.zeros((257, 256), np.uint16)
    codes[np.arange(256), np.arange(256)] = 1
    found = hashed(codes)
    assert len(np.unique(found)) == 257 and found.dtype == np.uint64
    assert hashed(np.array([[1, 2, 3]], np.uint16)).tolist() == hashed(
        np.array([[1, 2, 3]], np.uint32)).tolist()
