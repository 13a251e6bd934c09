"""Rows of several grids in one table: read back grid by grid, and refused where they disagree."""
import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tokenizer import configs
from tokenizer.buckets import Bucket
from tokenizer.grids import buckets_of, check_grids, codes_by_grid, codes_of_rows
from tokenizer.schema import (
    GEOMETRY,
    CodeSpec,
    TokenSpec,
    codes_array,
    codes_column,
    rows_table,
)

BUCKETS = (Bucket(image_size=(8, 16), grid=(1, 2)), Bucket(image_size=(16, 16), grid=(2, 2)),
           Bucket(image_size=(16, 8), grid=(2, 1)))
COMMON: dict[str, Any] = {"codebook_size": 16, "tokenizer": "sha256:a"}
SPEC = TokenSpec(codes=(
    CodeSpec(modality="image", grid=(1, 2), image_size=(8, 16), buckets=BUCKETS, **COMMON),
    CodeSpec(modality="depth", grid=(2, 4), image_size=(8, 16), depth=2, **COMMON, buckets=tuple(
        dataclasses.replace(bucket, grid=(2 * bucket.grid[0], 2 * bucket.grid[1]))
        for bucket in BUCKETS))))
PLACES = [1, 0, 2, 1]


def drawn(places: list[int] = PLACES) -> dict[str, list[np.ndarray]]:
    """Codes of rows of these buckets."""
    generator = np.random.default_rng(0)
    return {code.modality: [generator.integers(0, 16, code.grids[place].code_shape)
                            for place in places] for code in SPEC.codes}


def table(places: list[int] = PLACES, **changed: list[Any]) -> pa.Table:
    sides = {name: [bucket.grids[place].grid[side] for place in places]
             for bucket in SPEC.codes for side, name in enumerate(bucket.grid_columns)}
    names = [SPEC.buckets[place] for place in places]
    return rows_table(SPEC, drawn(places), {
        "key": list(map(str, range(len(places)))), "source": ["s"] * len(places),
        "flipped": [False] * len(places), "bucket": names,
        **{name: [1] * len(places) for name in GEOMETRY}, **sides, **changed})


def test_codes_come_back_in_the_grid_of_their_row() -> None:
    for name, expected in drawn().items():
        found = codes_of_rows(SPEC[name], table())
        assert all(np.array_equal(*pair) for pair in zip(found, expected, strict=True))
        parts = list(codes_by_grid(SPEC[name], table()))
        assert [rows.tolist() for _, rows, _ in parts] == [[1], [0, 3], [2]]
        assert [spec for spec, _, _ in parts] == list(SPEC[name].grids)
        assert all(codes.shape == (len(rows), *spec.code_shape) for spec, rows, codes in parts)
    assert buckets_of(SPEC, table()).tolist() == PLACES


def test_a_part_of_a_table_and_one_of_several_chunks_read_alike() -> None:
    joined = pa.concat_tables([table().slice(2), table().slice(0, 1)])
    found = codes_of_rows(SPEC["image"], joined)
    expected = drawn()["image"]
    for row, place in enumerate((2, 3, 0)):
        assert np.array_equal(found[row], expected[place])
    assert codes_of_rows(SPEC["image"], table().slice(0, 0)) == []


def test_each_row_tells_bucket_and_grids_in_columns_of_its_own() -> None:
    row = table().to_pylist()[2]
    assert row["bucket"] == "16x8" and len(row["image_codes"]) == 2
    assert [row[name] for name in ("image_grid_height", "image_grid_width", "depth_grid_height",
                                   "depth_grid_width")] == [2, 1, 4, 2]
    check_grids(SPEC, table())
    assert table().schema.equals(SPEC.arrow_schema())
    assert TokenSpec.from_json(SPEC.to_json()) == SPEC


@pytest.mark.parametrize(("changed", "words"), [
    ({"bucket": ["16x16", "8x16", "9x9", "16x16"]}, "the bucket '9x9'; there are 8x16, 16x16"),
    ({"bucket": ["16x16", "8x16", "16x16", "16x16"]}, "16x16 has 2 image codes, its grid 2 x 2"),
    ({"depth_grid_width": [4, 4, 2, 5]}, "depth_grid_width of a row is 5, that of its bucket 4"),
    ({"image_grid_height": [2, 2, 2, 2]}, "image_grid_height of a row is 2, that of its bucket 1"),
])
def test_rows_whose_columns_disagree_are_refused(changed: dict[str, list[Any]],
                                                 words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_grids(SPEC, table(**changed))


@pytest.mark.parametrize(("row", "words"), [
    (np.array([[3, 16]]), r"image codes must lie in \[0, 16\), got 3 to 16"),
    (np.array([[-1, 3]]), "got -1 to 3"),
    (np.zeros((1, 3), int), r"one of the shapes 1 x 2, 2 x 2, 2 x 1, got \(1, 3\)"),
    (np.zeros((1, 1, 2), int), r"got \(1, 1, 2\)"),
    (np.zeros((1, 2)), "must be integers")])
def test_codes_that_no_bucket_has_do_not_become_rows(row: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        codes_column(SPEC["image"], [np.zeros((2, 2), np.uint16), row])


def test_more_codes_than_arrow_counts_in_a_column_are_refused_before_any_is_copied() -> None:
    wide = CodeSpec(modality="image", grid=(1, 1 << 16), image_size=(8, 8 << 16), buckets=(
        Bucket(image_size=(8, 8 << 16), grid=(1, 1 << 16)), *BUCKETS[1:]), **COMMON)
    row = np.zeros((1, 1 << 16), np.uint16)
    with pytest.raises(ValueError, match="2147483648 image codes .* 2147483647: make shards"):
        codes_column(wide, [row] * (1 << 15))


def test_what_needs_one_grid_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="several grids, 1 x 2, 2 x 2, 2 x 1.*--size"):
        codes_array(SPEC["image"], table())


def test_modalities_have_the_same_buckets_and_the_first_is_the_spec_s_own() -> None:
    with pytest.raises(ValueError, match="same buckets, got 3 of image, 0 of depth"):
        TokenSpec(codes=(SPEC["image"], dataclasses.replace(SPEC["depth"], buckets=())))
    with pytest.raises(ValueError, match="the first bucket must be"):
        dataclasses.replace(SPEC["image"], grid=(2, 2))


def test_without_buckets_nothing_speaks_of_them() -> None:
    one = TokenSpec(codes=(SPEC["image"].grids[1],))
    assert "bucket" not in one.to_json() and "bucket" not in str(one.arrow_schema())
    assert one.grids == (one,) and one.buckets == () and "bucket" not in str(configs.to_dict(one))
