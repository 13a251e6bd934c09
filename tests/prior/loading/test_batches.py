"""Batches are a function of seed and step, whoever asks for them and however often."""
import threading
from collections import Counter

import numpy as np
import pytest
import torch
from drawn_codes import mapped_stream

from prior.dataset import Batch
from prior.loading.batches import Batches, ReadAhead
from prior.model import Condition, PriorConfig
from tokenizer.tokens import TokenCorpus


def batches(corpus: TokenCorpus, batch_size: int = 16, seed: int = 0, dropout: float = 0.0,
            drop_all: float = 0.0) -> Batches:
    layout = PriorConfig.of(corpus, conditions=[Condition(name="label"),
                                                Condition(name="segmentation")]).layout
    return Batches(mapped_stream(corpus, seed), layout, batch_size, seed,
                   {"label": dropout, "segmentation": dropout}, drop_all)


def equal(one: Batch, other: Batch) -> bool:
    return torch.equal(one.codes, other.codes) and all(
        torch.equal(one.conditions[name], other.conditions[name]) for name in one.conditions)


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
    before = stream.stream.take(np.arange(60))["segmentation"].copy()
    for step in range(5):
        stream.batch(step)
    np.testing.assert_array_equal(stream.stream.take(np.arange(60))["segmentation"], before)


# Reading ahead


def test_reading_ahead_gives_the_batches_asked_for_also_after_a_jump(corpus: TokenCorpus) -> None:
    stream = batches(corpus, dropout=0.3)
    with ReadAhead(stream, 1, 2) as ahead:
        for step in (0, 1, 2, 9, 10, 3):
            assert equal(ahead.batch(step), stream.batch(step, 1, 2))


def test_the_next_batch_is_made_on_another_thread(corpus: TokenCorpus,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    stream, made, done = batches(corpus), [], threading.Event()
    original = stream.batch

    def batch(step: int, *arguments: int) -> Batch:
        made.append((step, threading.current_thread() is threading.main_thread()))
        if step == 1:
            done.set()
        return original(step, *arguments)

    monkeypatch.setattr(stream, "batch", batch)
    with ReadAhead(stream) as ahead:
        ahead.batch(0)
        assert done.wait(60)
    assert made == [(0, False), (1, False)]


def test_an_error_of_the_thread_is_raised_where_its_batch_is_asked_for(
        corpus: TokenCorpus, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = batches(corpus)
    original = stream.batch

    def batch(step: int, *arguments: int) -> Batch:
        if step == 1:
            raise ValueError("part-00001 is damaged")
        return original(step, *arguments)

    monkeypatch.setattr(stream, "batch", batch)
    with ReadAhead(stream) as ahead:
        ahead.batch(0)
        with pytest.raises(ValueError, match="part-00001 is damaged"):
            ahead.batch(1)


def test_the_position_says_where_training_stands(corpus: TokenCorpus) -> None:
    assert batches(corpus, batch_size=16, seed=5).position(4) == {
        "order": "exact", "epoch": 1, "position": 64, "seed": 5}
