"""Filters take the rows that they say, with nulls as in SQL, and run no code."""
import operator
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tokenizer.audit import complete
from tokenizer.filters import RowFilter, selected_tables
from tokenizer.schema import CodeSpec, TokenSpec, rows_table
from tokenizer.tokens import TokenCorpus, commit_shard

SPEC = TokenSpec(codes=(CodeSpec(modality="image", grid=(1, 2), codebook_size=8,
                                 image_size=(4, 8), tokenizer="sha256:a"),))


def rows(first: int = 0) -> pa.Table:
    """Six rows; numbers in the keys of the tests below are places among them."""
    numbers = list(range(first, first + 6))
    return rows_table(SPEC, {"image": np.zeros((6, 1, 2), int)}, {
        "key": [f"k{number}" for number in numbers], "source": ["s"] * 6, "height": [100] * 6,
        "width": [50, 100, 150, 200, 250, 300], "crop_index": [0, 1, 2, 0, 1, 2],
        "left": [0] * 6, "top": [0] * 6, "crop_width": [50] * 6, "crop_height": [50] * 6,
        "flipped": [False, True, False, False, True, False],
        "label": [0, 1, 2, None, 4, None],
        "class_name": ["sky", "cat", "it's", None, "Sky", None],
        "caption": ["a", None, "ä", None, "", None]})


TAKEN = {
    "label == 1": [1], "label != 1": [0, 2, 4], "not label == 1": [0, 2, 4],
    "label in (1, 4, 9)": [1, 4], "label not in (1, 4)": [0, 2], "label in [0]": [0],
    "label is null": [3, 5], "label is not null": [0, 1, 2, 4], "label is None": [3, 5],
    "not (label is null)": [0, 1, 2, 4], "1 < label": [2, 4], "0 < label <= 2": [1, 2],
    "label > -1": [0, 1, 2, 4], "label >= 1.5": [2, 4],
    "class_name == 'sky'": [0], 'class_name == "it\'s"': [2], "class_name < 'b'": [4],
    "class_name in ('sky', 'cat') and caption is not null": [0],
    "class_name == 'sky' or label is null": [0, 3, 5],
    "label == 1 or caption == 'a'": [0, 1], "caption == 'ä'": [2], "caption == ''": [4],
    "flipped": [1, 4], "not flipped and crop_index == 0": [0, 3], "flipped == true": [1, 4],
    "width > height": [2, 3, 4, 5], "key in ('k5', 'k0')": [0, 5],
    "label in (1, 2.5)": [1], "label in (4, 99999999999)": [4], "label == 99999999999": [],
    "width in (50.0, 60)": [0], "flipped in (true,)": [1, 4], "label < 1e999": [0, 1, 2, 4],
    " ( label == 0 )  ": [0], "label == 77": [],
}


@pytest.mark.parametrize("text", TAKEN)
def test_a_filter_takes_the_rows_that_it_says(text: str) -> None:
    found = RowFilter.parse(text, SPEC.arrow_schema())
    mask = found.mask(rows())
    assert mask.dtype == bool and np.flatnonzero(mask).tolist() == TAKEN[text]
    assert found.select(rows())["key"].to_pylist() == [f"k{place}" for place in TAKEN[text]]


def test_a_filter_knows_which_columns_it_reads() -> None:
    found = RowFilter.parse("width > height and not flipped", SPEC.arrow_schema())
    assert found.columns == ("flipped", "height", "width")
    assert found.mask(rows().select(["width", "flipped", "height"])).sum() == 3


def test_filters_of_the_same_text_are_equal_and_keys_of_dicts() -> None:
    one, same, other = (RowFilter.parse(text, SPEC.arrow_schema())
                        for text in ("label == 1", " label == 1 ", "label == 2"))
    assert one == same != other and len({one, same, other}) == 2


def test_a_dot_stands_for_the_modality_s_columns() -> None:
    schema = pa.schema([("image_psnr", pa.float32())])
    found = RowFilter.parse("image.psnr > 20", schema)
    assert found.columns == ("image_psnr",)
    table = pa.table({"image_psnr": pa.array([20.0, 20.5, None, float("inf")], pa.float32())})
    assert found.mask(table).tolist() == [False, True, False, True]


def test_rows_without_any_and_tables_of_several_parts_are_filtered() -> None:
    found = RowFilter.parse("label == 1", SPEC.arrow_schema())
    nothing = found.mask(rows().slice(0, 0))
    assert nothing.shape == (0,) and nothing.dtype == bool
    parts = pa.concat_tables([rows(), rows(6)])
    assert np.flatnonzero(found.mask(parts)).tolist() == [1, 7]


@pytest.mark.parametrize(("text", "words"), [
    ("class == 'sky'", r"cannot be read \(invalid syntax\)"),
    ("class_name = 'sky'", "equal is ==, and columns are .*class_name"),
    ("", "cannot be read"),
    ("bucket == 24x48", "cannot be read .*text stands in quotes"),
    ("lable == 3", r"no column lable, .* did you mean label\?"),
    ("sky == class_name", "no column sky, .*Text stands in quotes"),
    ("image.psnr > 20", r"no column image\.psnr"),
    ("label == 'three'", r"the column label \(int32\) and 'three' \(text\) cannot be compared"),
    ("class_name == 3", r"the column class_name \(string\) and 3 \(numbers\)"),
    ("label == true", r"the column label \(int32\) and true \(true or false\)"),
    ("label in (1, 'a')", r"'a' \(text\) cannot be compared"),
    ("label in 3", r"cannot follow `in`: write values in brackets"),
    ("label in ()", "cannot follow `in`"),
    ("label in (1, null)", "write label is null"),
    ("label == null", "write label is null"),
    ("label is 3", "cannot follow `is`"),
    ("null is null", "cannot follow `is`"),
    ("label", "is neither true nor false"),
    ("label and flipped", "'label' in the filter .* is neither true nor false"),
    ("1 < 2", "names no column"),
    ("image_codes == 3", r"image_codes holds fixed_size_list.*, which a filter cannot compare"),
    ("label + 1 == 2", r"'label \+ 1' in the filter .* is no part of a filter"),
    ("key.upper() == 'A'", "is no part of a filter"),
    ("__import__('os').system('false')", "is no part of a filter"),
    ("[x for x in ()] == 3", "is no part of a filter"),
    ("(lambda: 1)() == 1", "is no part of a filter"),
    ("key == f'{1}'", "is no part of a filter"),
    ("key == b'k0'", "is no part of a filter"),
    ("label == 1j", "is no part of a filter"),
    ("label < " + "9" * 30, "is greater than 9223372036854775807"),
    ("key == '\\ud800'", "half of a surrogate pair"),
    ("key == 'a\\x00' and \x00", "null bytes"),
    ("(" * 5000 + "label == 1" + ")" * 5000, "cannot be read|nested too deeply"),
    ("not " * 50000 + "flipped", "cannot be read|nested too deeply"),
    ("flipped is not True", "cannot follow `is`"),
    ("(label == 0) in (true, false)", "is no part of a filter"),
])
def test_what_is_no_filter_is_refused_with_the_part_at_fault(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RowFilter.parse(text, SPEC.arrow_schema())


def test_a_long_list_of_keys_is_a_filter() -> None:
    keys = [f"k{number}" for number in range(3, 20000)]
    found = RowFilter.parse(f"key in {tuple(keys)}", SPEC.arrow_schema())
    assert np.flatnonzero(found.mask(rows())).tolist() == [3, 4, 5]


def test_selected_rows_come_shard_by_shard_with_the_columns_asked_for(tmp_path: Path) -> None:
    receipts = [commit_shard(str(tmp_path), shard, 3, "sha256:f", rows(6 * shard))
                for shard in range(3)]
    complete(str(tmp_path), SPEC, "sha256:f", receipts, [], 18)
    corpus = TokenCorpus.open(str(tmp_path))
    found = RowFilter.parse("key in ('k1', 'k14', 'k12')", SPEC.arrow_schema())
    tables = list(selected_tables(corpus, ["label", "key"], found))
    assert [table["key"].to_pylist() for table in tables] == [["k1"], [], ["k12", "k14"]]
    assert tables[0].column_names == ["label", "key"]
    assert sum(table.num_rows for table in selected_tables(corpus, ["key"])) == 18


def test_nothing_selected_is_an_error_that_names_the_filter() -> None:
    found = RowFilter.parse("label == 77", SPEC.arrow_schema())
    found.require_rows(1, "tokens")
    with pytest.raises(ValueError, match="'label == 77' takes none of the rows of tokens"):
        found.require_rows(0, "tokens")


Truth = Callable[[dict[str, Any]], bool | None]
"""What SQL makes of an expression for one row: true, false or unknown."""

VALUES: dict[str, tuple[object, ...]] = {
    "label": (0, 1, 2, 4, 1.5), "crop_index": (0, 1, 2), "width": (100, 250),
    "class_name": ("sky", "cat", "it's", "Sky"), "caption": ("", "ä", "a")}
SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le,
    ">": operator.gt, ">=": operator.ge}


def drawn_filter(draws: random.Random, depth: int) -> tuple[str, Truth]:
    """An expression, and a function that says of a row what it must be."""
    kind = draws.choice(["and", "or", "not", "is", "in", "compare"] if depth else ["is", "compare"])
    if kind in ("and", "or"):
        (left, first), (right, second) = (drawn_filter(draws, depth - 1) for _ in range(2))
        decisive = kind == "or"

        def joined(row: dict[str, Any]) -> bool | None:
            found = {first(row), second(row)}
            return decisive if decisive in found else None if None in found else not decisive
        return f"({left} {kind} {right})", joined
    if kind == "not":
        inner, truth = drawn_filter(draws, depth - 1)
        return f"not ({inner})", lambda row: None if truth(row) is None else not truth(row)
    column = draws.choice(list(VALUES))
    if kind == "is":
        word = draws.choice(["is", "is not"])
        return f"{column} {word} null", lambda row: (row[column] is None) == (word == "is")
    if kind == "in":
        chosen = tuple(draws.choices(VALUES[column], k=2))
        return (f"{column} in {chosen}",
                lambda row: None if row[column] is None else row[column] in chosen)
    sign, value = draws.choice(list(SIGNS)), draws.choice(VALUES[column])
    return (f"{column} {sign} {value!r}",
            lambda row: None if row[column] is None else SIGNS[sign](row[column], value))


def test_drawn_filters_take_what_three_valued_logic_says() -> None:
    draws = random.Random(0)
    for _ in range(300):
        text, truth = drawn_filter(draws, depth=3)
        found = RowFilter.parse(text, SPEC.arrow_schema()).mask(rows())
        expected = [truth(row) is True for row in rows().to_pylist()]
        assert found.tolist() == expected, text


def test_whatever_is_written_is_a_filter_or_one_error_in_words() -> None:
    draws = random.Random(1)
    parts = ["label", "key", "'a'", "3", "-", "(", ")", "[", "]", ",", "and", "or", "not", "in",
             "is", "null", "==", "<", "!=", "+", ":", "lambda", "if", "else", "for", ".", "*", "{",
             "}", "=", ":=", "await", "yield", "f'{key}'", "b''", "1e9", "0x", "\\", "#", "\n", "é"]
    num_filters = 0
    for _ in range(3000):
        words = draws.choice(list(TAKEN)).split()
        words[draws.randrange(len(words))] = draws.choice(parts)
        text = " ".join(words)
        try:
            found = RowFilter.parse(text, SPEC.arrow_schema())
        except ValueError as error:
            assert str(error)
        else:
            num_filters += 1
            assert found.mask(rows()).shape == (6,)
    assert 100 < num_filters < 2000


def test_thousands_of_alternatives_are_refused_before_pyarrow_ends_the_process() -> None:
    expected = [bool(label) for label in rows()["label"].to_pylist()]
    many = [str(label) for label in range(1, 20_001)]
    for text in (" or ".join(f"label == {label}" for label in many[:500]),
                 f"label in ({', '.join(many)})"):
        assert RowFilter.parse(text, SPEC.arrow_schema()).mask(rows()).tolist() == expected
    for text in (" or ".join(f"label == {label}" for label in many), " < ".join(["label", *many])):
        with pytest.raises(ValueError, match="parts, more than 1000; use in"):
            RowFilter.parse(text, SPEC.arrow_schema())
