"""Programs that know nothing of token corpora read every row, code and column of the shards."""
from pathlib import Path

import duckdb
import numpy as np
import polars
import pytest
from written_corpora import write_buckets, write_corpus

from tokenizer.schema import codes_array
from tokenizer.tokens import TokenCorpus

CLASSES = ["cat", None, "dog", "cat", "cat", None, "dog"]


@pytest.fixture(params=[1024, 70_000], ids=["uint16", "uint32"])
def corpus(tmp_path: Path, request: pytest.FixtureRequest) -> TokenCorpus:
    """Seven rows of 3 x 5 codes in two shards, the highest code among them."""
    codes = np.random.default_rng(0).integers(0, request.param, (7, 3, 5))
    codes[3, 1, 2] = request.param - 1
    return write_corpus(tmp_path / "tokens", codes, request.param, classes=CLASSES,
                        quality={"image_psnr": [20.5 + row for row in range(7)]})


def our_codes(corpus: TokenCorpus) -> list[list[int]]:
    """Codes of each row in raster order, as this program reads them."""
    return np.concatenate([codes_array(corpus.spec["image"], table)
                           for table in corpus.tables(["image_codes"])]).reshape(7, -1).tolist()


def test_duckdb_reads_codes_and_counts_classes(corpus: TokenCorpus) -> None:
    shards = duckdb.read_parquet(f"{corpus.url}/data/*.parquet")
    rows = shards.select("key, image_codes, class_name, image_psnr").order("key").fetchall()
    assert [list(codes) for _, codes, _, _ in rows] == our_codes(corpus)
    assert [(key, name, psnr) for key, _, name, psnr in rows] == [
        (f"k{row}", name, 20.5 + row) for row, name in enumerate(CLASSES)]
    counts = duckdb.sql(f"SELECT class_name, count(*) FROM '{corpus.url}/data/*.parquet' "
                        "GROUP BY ALL").fetchall()
    assert dict(counts) == {"cat": 3, "dog": 2, None: 2}
    highest = duckdb.sql(f"SELECT max(code) FROM (SELECT unnest(image_codes) AS code "
                         f"FROM '{corpus.url}/data/*.parquet')").fetchall()
    assert highest == [(corpus.spec["image"].codebook_size - 1,)]


def test_polars_reads_codes_lazily_and_with_their_types(corpus: TokenCorpus) -> None:
    frame = polars.scan_parquet(f"{corpus.url}/data/*.parquet").sort("key")
    rows = frame.select("key", "image_codes", "class_name").collect()
    assert rows["image_codes"].to_list() == our_codes(corpus)
    assert rows["class_name"].to_list() == CLASSES
    kind = polars.UInt16 if corpus.spec["image"].codebook_size <= 1 << 16 else polars.UInt32
    assert rows["image_codes"].dtype == polars.Array(kind, 15)
    best = frame.filter(polars.col("image_psnr") > 24).select("key").collect()
    assert best["key"].to_list() == ["k4", "k5", "k6"]


def test_pandas_reads_codes_as_arrays(corpus: TokenCorpus) -> None:
    import pandas
    frame = pandas.read_parquet(f"{corpus.url}/data").sort_values("key")
    assert np.stack(frame["image_codes"].tolist()).tolist() == our_codes(corpus)


def test_datasets_reads_shards_and_whole_folders(corpus: TokenCorpus, tmp_path: Path) -> None:
    import datasets
    shards = datasets.load_dataset("parquet", data_files=f"{corpus.url}/data/*.parquet",
                                   split="train", cache_dir=str(tmp_path / "cache"))
    folder = datasets.load_dataset(corpus.url, split="train", cache_dir=str(tmp_path / "cache"))
    for rows in (shards, folder):
        assert rows["key"][:] == [f"k{row}" for row in range(7)]
        assert [list(codes) for codes in rows["image_codes"]] == our_codes(corpus)


def test_rows_of_buckets_have_as_many_codes_as_their_grid(tmp_path: Path) -> None:
    corpus = write_buckets(tmp_path / "tokens")
    shards = duckdb.read_parquet(f"{corpus.url}/data/*.parquet")
    found = duckdb.sql("SELECT bucket, image_grid_height, image_grid_width, len(image_codes), "
                       "count(*) FROM shards GROUP BY ALL ORDER BY ALL").fetchall()
    assert shards.columns == corpus.read_shard(0).column_names
    assert found == [("16x16", 2, 2, 4, 10), ("8x16", 1, 2, 2, 10)]
    frame = polars.read_parquet(f"{corpus.url}/data/*.parquet")
    lengths = frame["image_codes"].list.len().to_list()
    assert lengths == [height * width for height, width in
                       frame.select("image_grid_height", "image_grid_width").iter_rows()]
