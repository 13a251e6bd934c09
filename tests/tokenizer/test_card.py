"""The card of a corpus: `datasets` reads the rows by it, whole or streaming, with class names."""
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tokenizer import audit, tokens
from tokenizer.card import features, shard_patterns, size_category
from tokenizer.schema import CodeSpec, DeltaEntry, Manifest, TokenSpec, rows_table

NUM_ROWS = 5


def spec() -> TokenSpec:
    """Codes of images with one code a cell, and of depth with two."""
    settings: dict[str, Any] = {"grid": (2, 3), "image_size": (8, 12), "tokenizer": "sha256:a"}
    return TokenSpec(codes=(CodeSpec(modality="image", codebook_size=16, **settings),
                            CodeSpec(modality="depth", codebook_size=1 << 17, depth=2, **settings)))


def write_corpus(folder: Path, classes: tuple[str, ...] = ("no: yes", "ja")) -> Manifest:
    """A corpus of two shards; every other row has no class."""
    url, receipts = str(folder), []
    for shard, num_rows in enumerate((3, NUM_ROWS - 3)):
        codes = {code.modality: np.arange(num_rows * code.num_codes).reshape(
            num_rows, *code.code_shape) % code.codebook_size % 16 for code in spec().codes}
        labels = [index % 2 if classes and index % 2 else None for index in range(num_rows)]
        names = ("height", "width", "crop_index", "left", "top", "crop_width", "crop_height")
        rows = rows_table(spec(), codes, {
            "key": [f"{shard}-{index}" for index in range(num_rows)], "source": ["s"] * num_rows,
            **{name: [1] * num_rows for name in names}, "flipped": [False] * num_rows,
            "label": labels, "class_name": [None if label is None else classes[label]
                                            for label in labels]})
        receipts.append(tokens.commit_shard(url, shard, 2, "sha256:x", rows))
    return audit.complete(url, spec(), "sha256:x", receipts, classes, NUM_ROWS)


def header(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    return found


def test_datasets_give_the_rows_with_types_and_class_names(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    write_corpus(tmp_path / "tokens")
    corpus = tokens.TokenCorpus.open(str(tmp_path / "tokens"))
    expected = [row for table in corpus.tables() for row in table.to_pylist()]
    shard = tmp_path / "tokens" / corpus.manifest.shards[0].name
    in_the_making = shard.with_name("part-d001-00000-of-00002.parquet")
    in_the_making.write_bytes(shard.read_bytes())
    for streaming in (False, True):
        rows = datasets.load_dataset(str(tmp_path / "tokens"), split="train", streaming=streaming,
                                     cache_dir=str(tmp_path / "cache"))
        assert [dict(row) for row in rows] == expected
        assert rows.features["label"].names == ["no: yes", "ja"]
        assert rows.features["depth_codes"].length == 12


def test_the_shards_of_deltas_are_named_once_these_are_finished(tmp_path: Path) -> None:
    manifest = write_corpus(tmp_path / "tokens")
    delta = DeltaEntry(kind="extend", fingerprint="sha256:y", num_inputs=1, num_rows=1,
                       num_shards=1)
    assert shard_patterns(dataclasses.replace(manifest, deltas=(delta,)), "data") == [
        "data/part-[0-9]*.parquet", "data/part-d001-*.parquet"]


def test_features_are_those_that_datasets_would_write(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    with_quality = dataclasses.replace(spec(), quality=("image_psnr",))
    manifest = dataclasses.replace(write_corpus(tmp_path / "tokens", ()), spec=with_quality)
    by_arrow = datasets.Features.from_arrow_schema(with_quality.arrow_schema())
    assert datasets.Features._from_yaml_list(features(manifest)) == by_arrow


def test_the_hub_is_told_how_many_rows_there_are(tmp_path: Path) -> None:
    manifest = write_corpus(tmp_path / "tokens")
    found = header(tmp_path / "tokens")
    assert found["size_categories"] == ["n<1K"] and found["tags"][:1] == ["img2tokens"]
    assert found["dataset_info"]["splits"][0]["num_examples"] == NUM_ROWS
    assert found["dataset_info"]["download_size"] == sum(entry.bytes for entry in manifest.shards)


def test_the_card_is_no_part_of_what_is_verified(tmp_path: Path) -> None:
    write_corpus(tmp_path / "tokens")
    (tmp_path / "tokens/README.md").write_text("# of an earlier version")
    corpus = tokens.TokenCorpus.open(str(tmp_path / "tokens"))
    assert [found for found in audit.verify(corpus) if found] == []


def test_classes_with_one_name_are_plain_numbers(tmp_path: Path) -> None:
    manifest = write_corpus(tmp_path / "tokens", ("same", "same"))
    label = next(feature for feature in features(manifest) if feature["name"] == "label")
    assert label == {"name": "label", "dtype": "int32"}


@pytest.mark.parametrize(("num_rows", "name"), [
    (0, "n<1K"), (1, "n<1K"), (1000, "n<1K"), (1001, "1K<n<10K"), (10_000, "1K<n<10K"),
    (10_001, "10K<n<100K"), (1_281_167, "1M<n<10M"), (5 * 10 ** 9, "1B<n<10B"),
    (10 ** 13, "n>1T")])
def test_sizes_have_the_names_of_the_hub(num_rows: int, name: str) -> None:
    assert size_category(num_rows) == name
