"""Shards are read only with their receipt and as it tells of them; anything else is named."""
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prior.loading.shards import ShardReader, image_numbers, require_receipts
from tokenizer.deltas import job_url
from tokenizer.filters import RowFilter
from tokenizer.receipts import receipt_name
from tokenizer.schema import DeltaEntry
from tokenizer.tokens import TokenCorpus


def shard_path(corpus: TokenCorpus, shard: int) -> Path:
    return Path(corpus.url) / corpus.manifest.shards[shard].name


def test_a_shard_without_its_receipt_is_refused_by_name(corpus: TokenCorpus) -> None:
    (Path(corpus.url) / receipt_name(1)).unlink()
    with pytest.raises(ValueError, match=r"part-00001-of-00002.parquet has no receipt.*_receipts"):
        ShardReader(corpus, ["image"])
    (Path(corpus.url) / receipt_name(0)).unlink()
    with pytest.raises(ValueError, match=r"part-00000-of-00002.parquet and 1 more has no receipt"):
        require_receipts(corpus)


def test_a_receipt_that_is_damaged_or_of_another_file_counts_as_none(corpus: TokenCorpus) -> None:
    path = Path(corpus.url) / receipt_name(0)
    whole = path.read_text()
    other = json.loads(whole)
    other["entry"]["sha256"] = "0" * 64
    for text in (whole[:40], json.dumps(other)):
        path.write_text(text)
        with pytest.raises(ValueError, match="part-00000-of-00002.parquet has no receipt"):
            ShardReader(corpus, ["image"])


def test_shards_that_were_added_later_have_their_receipts_with_their_delta(
        corpus: TokenCorpus) -> None:
    later = Path(corpus.url) / receipt_name(1)
    place = Path(job_url(corpus.url, 1)) / receipt_name(0)
    place.parent.mkdir(parents=True)
    place.write_text(later.read_text().replace('"shard": 1', '"shard": 0')
                     .replace(corpus.manifest.fingerprint, "sha256:delta"))
    later.unlink()
    delta = DeltaEntry(kind="extend", fingerprint="sha256:delta", num_inputs=15, num_rows=30,
                       num_shards=1)
    extended = dataclasses.replace(corpus.manifest, fingerprint="sha256:delta", deltas=(delta,))
    ShardReader(TokenCorpus(corpus.url, extended), ["image"]).codes(1)
    with pytest.raises(ValueError, match=r"part-00001-of-00002.parquet has no receipt"):
        ShardReader(corpus, ["image"])


def test_a_missing_shard_is_named(corpus: TokenCorpus) -> None:
    reader = ShardReader(corpus, ["image"])
    shard_path(corpus, 1).unlink()
    with pytest.raises(FileNotFoundError, match="part-00001-of-00002.parquet is missing.*--verify"):
        reader.codes(1)


@pytest.mark.parametrize("change", [lambda content: content[:-9], lambda content: content + b"\0",
                                    lambda content: content[:200] + b"X" + content[201:]])
def test_a_shard_of_other_bytes_is_refused(corpus: TokenCorpus,
                                           change: Callable[[bytes], bytes]) -> None:
    path = shard_path(corpus, 0)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=r"part-00000-of-00002.parquet is damaged: sha256 .*, its "
                                         r"receipt says .*--verify"):
        ShardReader(corpus, ["image"]).codes(0)


def test_a_shard_that_changes_while_it_is_used_is_refused_or_read_as_it_was(
        corpus: TokenCorpus) -> None:
    reader = ShardReader(corpus, ["image"])
    reader.codes(0)
    pq.write_table(pq.read_table(shard_path(corpus, 0)).slice(3), shard_path(corpus, 0))
    with pytest.raises(ValueError, match="holds 27 rows, its receipt says 30"):
        reader.codes(0)
    shard_path(corpus, 0).write_bytes(b"PAR1 no more")
    with pytest.raises(ValueError, match="part-00000-of-00002.parquet is damaged"):
        reader.codes(0)


def test_keys_and_codes_are_those_of_the_shard(corpus: TokenCorpus) -> None:
    reader = ShardReader(corpus, ["segmentation"])
    assert reader.codes(1)["segmentation"].shape == (30, 3, 2)
    assert [len(keys) for keys in reader.shard_keys()] == [30, 30]


# Images


def test_neighbours_of_one_key_are_one_image_but_not_across_shards() -> None:
    keys = [pa.array(["a", "a", "b"]), pa.array(["b", "c"]), pa.array([], pa.string()),
            pa.array(["c", "c", "a"])]
    assert image_numbers(keys).tolist() == [0, 0, 1, 2, 3, 4, 4, 5]


# Filters


def test_a_filter_takes_rows_of_all_shards(corpus: TokenCorpus) -> None:
    reader = ShardReader(corpus, ["image"])
    labels = np.concatenate([reader.codes(shard)["label"] for shard in range(2)])
    dogs = RowFilter.parse("label == 1", corpus.spec.arrow_schema())
    np.testing.assert_array_equal(reader.mask(dogs), labels == 1)


def test_a_filter_that_takes_no_row_is_refused(corpus: TokenCorpus) -> None:
    nothing = RowFilter.parse("label == 7", corpus.spec.arrow_schema())
    with pytest.raises(ValueError, match="the filter .*label == 7.* takes none of the rows"):
        ShardReader(corpus, ["image"]).mask(nothing)
