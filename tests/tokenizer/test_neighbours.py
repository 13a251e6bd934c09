"""Nearest rows by equal codes against a search through all pairs; equal rows code for code."""
import numpy as np
import pytest

from tokenizer import neighbours
from tokenizer.neighbours import EqualRows, NearestRows


def drawn(num_rows: int, seed: int, num_codes: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4, (num_rows, num_codes)).astype(np.uint16)


@pytest.mark.parametrize("block", [1, 7, 50])
def test_nearest_rows_are_those_of_a_search_through_all_pairs(
        block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "ROWS_AT_ONCE", 5)
    monkeypatch.setattr(neighbours, "OTHERS_AT_ONCE", 6)
    rows, others = drawn(13, 0), drawn(50, 1)
    numbers = np.arange(50) * 3 + 100
    found = NearestRows(rows)
    for start in range(0, 50, block):
        found.add(others[start:start + block], numbers[start:start + block])
    equal = (rows[:, None] == others).sum(-1)
    np.testing.assert_array_equal(found.num_equal, equal.max(1))
    np.testing.assert_array_equal(found.rows, numbers[equal.argmax(1)])
    np.testing.assert_allclose(found.shares, equal.max(1) / 12)


def test_of_equally_near_rows_the_first_is_named() -> None:
    found = NearestRows(np.array([[1, 2, 3]]))
    found.add(np.array([[1, 0, 0], [0, 2, 0]]), np.array([4, 5]))
    found.add(np.array([[0, 0, 3], [9, 9, 9]]), np.array([6, 7]))
    assert (found.rows.tolist(), found.num_equal.tolist()) == ([4], [1])
    found.add(np.array([[1, 2, 0]]), np.array([8]))
    assert (found.rows.tolist(), found.num_equal.tolist()) == ([8], [2])


def test_rows_of_very_many_codes_are_counted_whole() -> None:
    codes = np.zeros((1, 70_000), np.uint8)
    found = NearestRows(codes)
    found.add(codes, np.array([0]))
    assert found.num_equal.tolist() == [70_000] and found.shares.tolist() == [1.0]


def test_before_any_other_row_there_is_no_nearest_one() -> None:
    found = NearestRows(drawn(2, 0))
    assert found.rows.tolist() == [-1, -1] and found.num_equal.tolist() == [-1, -1]


def test_equal_rows_are_found_with_the_first_that_equals_them() -> None:
    rows, others = drawn(6, 0), drawn(40, 1)
    rows[4] = rows[1]
    others[[9, 30]] = rows[1]
    others[20] = rows[5]
    found = EqualRows(rows)
    for start in range(0, 40, 8):
        found.add(others[start:start + 8].astype(np.uint32), np.arange(start, start + 8))
    assert found.rows.tolist() == [-1, 9, -1, -1, 9, 20]
    assert found.num_copies == 1


def test_equal_hashes_alone_are_not_taken_for_equal_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "hashed", lambda codes: np.zeros(len(codes), np.uint64))
    found = EqualRows(drawn(3, 0))
    found.add(drawn(20, 1), np.arange(20))
    assert found.rows.tolist() == [-1, -1, -1]
