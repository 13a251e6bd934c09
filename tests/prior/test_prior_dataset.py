"""Rows of a corpus in memory, held-out keys, and batches as a function of seed and step."""
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from prior.dataset import NO_LABEL, Batches, CodeRows, assemble
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


def batches(corpus: TokenCorpus, batch_size: int = 16, seed: int = 0, dropout: float = 0.0,
            drop_all: float = 0.0) -> Batches:
    rows = CodeRows.load(corpus, MODALITIES)
    return Batches(rows, layout_of(corpus), batch_size, seed,
                   {"label": dropout, "segmentation": dropout}, drop_all)


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


def test_an_epoch_holds_every_row_once(corpus: TokenCorpus) -> None:
    stream = batches(corpus, batch_size=15)
    for epoch in range(3):
        steps = range(4 * epoch, 4 * epoch + 4)
        rows = np.concatenate([stream.indices(step) for step in steps])
        assert sorted(rows) == list(range(60))


def test_batches_run_across_the_ends_of_epochs_without_loss(corpus: TokenCorpus) -> None:
    rows = np.concatenate([batches(corpus, batch_size=16).indices(step) for step in range(15)])
    assert set(Counter(rows.tolist()).values()) == {4}


def test_a_batch_may_hold_more_rows_than_the_corpus(corpus: TokenCorpus) -> None:
    rows = batches(corpus, batch_size=150).indices(0)
    assert set(Counter(rows.tolist()).values()) == {2, 3}


def test_order_differs_between_epochs_and_seeds(corpus: TokenCorpus) -> None:
    orders = [batches(corpus, seed=seed).order(epoch).tolist()
              for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


def test_a_batch_is_a_function_of_seed_and_step(corpus: TokenCorpus) -> None:
    first, again = batches(corpus, dropout=0.3), batches(corpus, dropout=0.3)
    for step in (7, 2, 7):
        one, other = first.batch(step), again.batch(step)
        assert torch.equal(one.codes, other.codes)
        for name in one.conditions:
            assert torch.equal(one.conditions[name], other.conditions[name])


@pytest.mark.parametrize("num_ranks", [2, 4])
def test_ranks_share_a_batch_without_changing_it(corpus: TokenCorpus, num_ranks: int) -> None:
    stream = batches(corpus, dropout=0.5, drop_all=0.2)
    whole = stream.batch(3)
    for rank in range(num_ranks):
        part = stream.batch(3, rank, num_ranks)
        assert torch.equal(part.codes, whole.codes[rank::num_ranks])
        for name, codes in part.conditions.items():
            assert torch.equal(codes, whole.conditions[name][rank::num_ranks])


def test_conditions_are_dropped_as_often_as_asked_and_each_by_itself(corpus: TokenCorpus) -> None:
    stream = batches(corpus, batch_size=4000, dropout=0.2)
    batch = stream.batch(0)
    dropped = {name: (codes == null).all(1) for (name, codes), null in
               zip(batch.conditions.items(), (2, 4), strict=True)}
    for mask in dropped.values():
        assert mask.float().mean().item() == pytest.approx(0.2, abs=0.03)
    both = (dropped["label"] & dropped["segmentation"]).float().mean().item()
    assert both == pytest.approx(0.04, abs=0.02)


def test_drop_all_leaves_out_all_conditions_together(corpus: TokenCorpus) -> None:
    batch = batches(corpus, batch_size=4000, drop_all=0.3).batch(0)
    no_label = (batch.conditions["label"] == 2).all(1)
    no_map = (batch.conditions["segmentation"] == 4).all(1)
    assert torch.equal(no_label, no_map)
    assert no_label.float().mean().item() == pytest.approx(0.3, abs=0.03)


def test_dropping_leaves_the_rows_as_they_are(corpus: TokenCorpus) -> None:
    stream = batches(corpus, dropout=0.9)
    before = stream.rows.codes["segmentation"].copy()
    for step in range(5):
        stream.batch(step)
    np.testing.assert_array_equal(stream.rows.codes["segmentation"], before)


def test_a_row_without_a_label_reads_as_null(make_corpus: Callable[..., TokenCorpus],
                                             corpus: TokenCorpus) -> None:
    rows = CodeRows.load(make_corpus("plain", labelled=False), MODALITIES)
    batch = assemble(rows, layout_of(corpus), np.arange(4))
    assert batch.conditions["label"].tolist() == [[2]] * 4


def test_parts_of_a_batch_are_its_rows_in_order(corpus: TokenCorpus) -> None:
    batch = batches(corpus).batch(0)
    parts = batch.split(4)
    assert torch.equal(torch.cat([part.codes for part in parts]), batch.codes)
    assert torch.equal(torch.cat([part.conditions["label"] for part in parts]),
                       batch.conditions["label"])
