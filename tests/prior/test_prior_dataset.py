"""Rows of a corpus in memory, held-out keys, and rows as a prior reads them."""
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from prior.dataset import NO_LABEL, CodeRows, assemble
from prior.model import Condition, PriorConfig
from prior.sequence import SequenceLayout
from tokenizer.schema import codes_array
from tokenizer.splits import Split
from tokenizer.tokens import TokenCorpus

KEYS = [f"photos/{number // 2:03d}" for number in range(80)]
MODALITIES = ("image", "segmentation")


def layout_of(corpus: TokenCorpus) -> SequenceLayout:
    return PriorConfig.of(corpus, conditions=[Condition(name="label"),
                                              Condition(name="segmentation")]).layout


def damage(corpus: TokenCorpus, change: Callable[[bytes], bytes]) -> Path:
    path = Path(corpus.url) / corpus.manifest.shards[1].name
    path.write_bytes(change(path.read_bytes()))
    return path


# Rows


def test_rows_are_those_of_all_shards_in_order_at_their_stored_width(corpus: TokenCorpus) -> None:
    rows = CodeRows.load(corpus, MODALITIES)
    stored = np.concatenate([codes_array(corpus.spec["image"], table)
                             for table in corpus.tables()])
    np.testing.assert_array_equal(rows.codes["image"], stored)
    assert rows.codes["image"].dtype == np.uint16
    assert len(rows) == 60 and rows.keys[:3] == ["photos/0000", "photos/0000", "photos/0001"]
    assert set(rows.labels.tolist()) == {0, 1}


def test_rows_without_a_label_have_none(make_corpus: Callable[..., TokenCorpus]) -> None:
    rows = CodeRows.load(make_corpus("plain", labelled=False), ["image"])
    assert set(rows.labels.tolist()) == {NO_LABEL} and "segmentation" not in rows.codes


def test_a_modality_the_corpus_lacks_is_refused_by_name(corpus: TokenCorpus) -> None:
    with pytest.raises(ValueError, match="no depth codes.* image, segmentation"):
        CodeRows.load(corpus, ["image", "depth"])


def test_a_truncated_shard_is_named_with_the_remedy(corpus: TokenCorpus) -> None:
    damage(corpus, lambda content: content[:len(content) // 2])
    with pytest.raises(ValueError, match=r"part-00001-of-00002.parquet is damaged.*--verify"):
        CodeRows.load(corpus, MODALITIES)


def test_a_missing_shard_is_named(corpus: TokenCorpus) -> None:
    (Path(corpus.url) / corpus.manifest.shards[0].name).unlink()
    with pytest.raises(FileNotFoundError, match="part-00000-of-00002.parquet is missing"):
        CodeRows.load(corpus, MODALITIES)


def test_codes_outside_the_codebook_are_refused_with_their_range(corpus: TokenCorpus) -> None:
    path = Path(corpus.url) / corpus.manifest.shards[1].name
    table = pq.read_table(path)
    index = table.schema.get_field_index("image_codes")
    flat = table.column(index).combine_chunks().flatten().to_numpy().copy()
    flat[3] = 8
    field = table.schema.field(index)
    array = type(table.column(index).combine_chunks()).from_arrays(flat, type=field.type)
    pq.write_table(table.set_column(index, field, array), path)
    with pytest.raises(ValueError, match=r"part-00001.*image codes must lie in \[0, 8\).* 0 to 8"):
        CodeRows.load(corpus, MODALITIES)


def test_labels_beyond_the_classes_are_refused(make_corpus: Callable[..., TokenCorpus]) -> None:
    corpus = make_corpus("one")
    manifest = Path(corpus.url) / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"cat",\n', ""))
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 1\), the number of classes"):
        CodeRows.load(TokenCorpus.open(corpus.url), ["image"])


@pytest.mark.parametrize("by", ["hash", "name"])
@pytest.mark.parametrize("held_out", [0, 1, 7, 0.25])
def test_rows_of_one_key_are_held_out_together(by: str, held_out: int | float) -> None:
    rows = CodeRows(KEYS, {}, np.zeros(len(KEYS), np.int32), ())
    mask = rows.is_held_out(Split(held_out=held_out, by=by))
    np.testing.assert_array_equal(mask[::2], mask[1::2])
    expected = round(held_out * 40) if isinstance(held_out, float) else held_out
    assert mask[::2].sum() == expected


# Batches


def test_a_row_without_a_label_reads_as_null(make_corpus: Callable[..., TokenCorpus],
                                             corpus: TokenCorpus) -> None:
    rows = CodeRows.load(make_corpus("plain", labelled=False), MODALITIES)
    batch = assemble(rows, layout_of(corpus), np.arange(4))
    assert batch.conditions["label"].tolist() == [[2]] * 4


def test_parts_of_a_batch_are_its_rows_in_order(corpus: TokenCorpus) -> None:
    batch = assemble(CodeRows.load(corpus, MODALITIES), layout_of(corpus), np.arange(16))
    parts = batch.split(4)
    assert torch.equal(torch.cat([part.codes for part in parts]), batch.codes)
    assert torch.equal(torch.cat([part.conditions["label"] for part in parts]),
                       batch.conditions["label"])
