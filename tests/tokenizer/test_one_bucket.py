"""One bucket of a corpus: its rows with their codes, at the places they have in the whole."""
from pathlib import Path

import numpy as np
import pytest
from test_grids import PLACES, SPEC, drawn, table

from prior.dataset import CodeRows
from prior.loading.shards import ShardReader
from tokenizer import audit
from tokenizer.duplicates import find_duplicates
from tokenizer.filters import RowFilter
from tokenizer.one_bucket import OneBucket, bucket_of_size, one_bucket
from tokenizer.schema import codes_array
from tokenizer.tokens import TokenCorpus, commit_shard

SQUARE = 'bucket == "16x16"'
ROWS = [0, 3]
"""Places of the rows of that bucket."""


@pytest.fixture
def corpus(tmp_path: Path) -> TokenCorpus:
    """A corpus of two shards, with rows of three buckets."""
    url = str(tmp_path)
    receipts = [commit_shard(url, shard, 2, "sha256:f", table().slice(2 * shard, 2))
                for shard in range(2)]
    audit.complete(url, SPEC, "sha256:f", receipts, (), len(PLACES))
    return TokenCorpus.open(url)


def filter_of(corpus: TokenCorpus, text: str) -> RowFilter:
    return RowFilter.parse(text, corpus.spec.arrow_schema())


def test_it_has_the_bucket_s_grid_and_codes_and_every_row_in_its_place(corpus: TokenCorpus) -> None:
    for given in (SQUARE, filter_of(corpus, SQUARE)):
        square = one_bucket(corpus, given)
        assert square.spec == SPEC.grids[1] and square.manifest == corpus.manifest
        for name, expected in drawn().items():
            codes = np.concatenate([codes_array(square.spec[name], part)
                                    for part in square.tables([f"{name}_codes"])])
            assert codes.shape == (len(PLACES), *square.spec[name].code_shape)
            for row in range(len(PLACES)):
                assert np.array_equal(codes[row], expected[row] if row in ROWS else 0 * codes[row])


def test_other_columns_are_read_as_they_are(corpus: TokenCorpus) -> None:
    square = one_bucket(corpus, SQUARE)
    assert next(square.tables(["key"])).column_names == ["key"]
    assert next(square.tables(["bucket", "key"])).to_pylist() == next(
        corpus.tables(["bucket", "key"])).to_pylist()
    assert next(square.tables()).column_names == corpus.spec.arrow_schema().names


def test_priors_and_duplicates_read_it_like_any_corpus(corpus: TokenCorpus) -> None:
    square, taken = one_bucket(corpus, SQUARE), filter_of(corpus, SQUARE)
    rows = CodeRows.load(square, ["image"]).select(np.array(ROWS))
    assert rows.keys == ["0", "3"]
    assert np.array_equal(rows.codes["image"], np.stack([drawn()["image"][row] for row in ROWS]))
    reader = ShardReader(square, ["image"])
    assert reader.mask(taken).tolist() == [True, False, False, True]
    assert np.array_equal(reader.codes(1)["image"][1], drawn()["image"][3])
    assert find_duplicates(square, "image", rows=taken)["num_rows"] == 2


def test_a_filter_that_takes_several_buckets_or_none_is_refused(corpus: TokenCorpus) -> None:
    for given in (None, "crop_index == 1", 'bucket != "8x16"'):
        with pytest.raises(ValueError, match="rows of one grid are needed, and .* has several: "
                                             ".*2 of 16x16.*take one bucket, as with --filter"):
            one_bucket(corpus, given)
    with pytest.raises(ValueError, match="takes none of the rows"):
        one_bucket(corpus, 'bucket == "9x9"')


def test_a_corpus_without_rows_has_no_bucket_to_take(tmp_path: Path) -> None:
    receipt = commit_shard(str(tmp_path), 0, 1, "sha256:f", table([]))
    audit.complete(str(tmp_path), SPEC, "sha256:f", [receipt], (), 0)
    with pytest.raises(ValueError, match="holds no rows, so that none of its buckets can be taken"):
        one_bucket(TokenCorpus.open(str(tmp_path)), None)


def test_any_filter_that_leaves_one_bucket_will_do(corpus: TokenCorpus) -> None:
    wide = one_bucket(corpus, 'key == "1"')
    assert isinstance(wide, OneBucket) and wide.bucket == "8x16"


def test_a_corpus_of_one_grid_is_itself(corpus: TokenCorpus) -> None:
    square = one_bucket(corpus, SQUARE)
    assert one_bucket(square, None) is square


def test_a_size_takes_its_bucket_and_tells_its_rows(corpus: TokenCorpus) -> None:
    for given in (None, SQUARE, "crop_index == 1", filter_of(corpus, 'key != "0"')):
        square = bucket_of_size(corpus, (16, 16), given)
        assert isinstance(square, OneBucket) and square.spec == SPEC.grids[1]
        masks = [square.rows.mask(part) for part in square.tables(["bucket"])]
        assert np.flatnonzero(np.concatenate(masks)).tolist() == ROWS
    assert bucket_of_size(square, (7, 7), "no filter") is square


def test_a_size_without_rows_is_refused_with_the_buckets_there_are(corpus: TokenCorpus) -> None:
    with pytest.raises(ValueError, match="rows of the bucket 9x9 are needed, and .* has 2 of 16x16,"
                                         " 1 of 16x8, 1 of 8x16; give a corpus with this bucket"):
        bucket_of_size(corpus, (9, 9))
    with pytest.raises(ValueError, match="with the filter 1 of 8x16; give a corpus with this buck"):
        bucket_of_size(corpus, (9, 9), 'bucket == "8x16"')
    with pytest.raises(ValueError, match="of the bucket 16x16 are needed, and .* has with the "
                                         "filter 1 of 8x16; .* --filter 'bucket == \"16x16\"'"):
        bucket_of_size(corpus, (16, 16), 'bucket == "8x16"')
    with pytest.raises(ValueError, match="takes none of the rows"):
        bucket_of_size(corpus, (16, 16), 'key == "9"')
