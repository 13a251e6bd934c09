"""Streams give the same rows at a place however they are read, and each row once an epoch."""
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from drawn_codes import GRID, mapped_stream

from prior.dataset import CodeRows, Columns
from prior.loading.batches import Batches
from prior.loading.orders import Choice
from prior.loading.shards import ShardReader, image_numbers
from prior.loading.streams import MixedStream, Stream, WindowedStream
from prior.model import PriorConfig
from prior.sequence import LABEL
from tokenizer.tokens import TokenCorpus

MODALITIES = ("image", "segmentation")
NUM_ROWS = 90
KINDS = ("exact", "windowed", "crops", "mixed")


@pytest.fixture
def make_stream(make_corpus: Callable[..., TokenCorpus]) -> Callable[[str], Stream]:
    """Builds a stream of some kind anew, over the same corpora."""
    first = make_corpus("first", NUM_ROWS, num_shards=9)
    second = make_corpus("second", 40, seed=1, num_shards=3, fingerprint="sha256:second")

    def windowed(corpus: TokenCorpus, seed: int, one_crop: bool = False) -> Stream:
        reader = ShardReader(corpus, MODALITIES)
        images = image_numbers(reader.shard_keys()) if one_crop else None
        return WindowedStream(reader, Choice(np.arange(reader.sizes.sum()), images), 24, seed)

    def build(kind: str) -> Stream:
        if kind == "exact":
            return mapped_stream(first)
        if kind == "mixed":
            return MixedStream([windowed(first, 1), mapped_stream(second, 2)], (3.0, 1.0), 0)
        return windowed(first, 0, one_crop=kind == "crops")
    return build


def batches_of(stream: Stream, corpus: TokenCorpus) -> Batches:
    return Batches(stream, PriorConfig.of(corpus).layout, 16, 0, {}, 0.0)


def same(one: Columns, other: Columns) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and np.array_equal(one[name], other[name])
        for name in one)


@pytest.mark.parametrize("kind", KINDS)
def test_one_two_and_four_ranks_share_one_global_order(kind: str, corpus: TokenCorpus,
                                                       make_stream: Callable[[str], Stream]
                                                       ) -> None:
    whole = [batches_of(make_stream(kind), corpus).batch(step).codes for step in range(13)]
    for num_ranks in (2, 4):
        ranks = [batches_of(make_stream(kind), corpus) for _ in range(num_ranks)]
        for step, expected in enumerate(whole):
            for rank, batches in enumerate(ranks):
                part = batches.batch(step, rank, num_ranks).codes
                assert (part == expected[rank::num_ranks]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_stopped_after_any_batch_the_same_batches_follow(kind: str, corpus: TokenCorpus,
                                                         make_stream: Callable[[str], Stream]
                                                         ) -> None:
    batches = batches_of(make_stream(kind), corpus)
    whole = [batches.batch(step).codes for step in range(14)]
    for stop in range(1, 14, 2):
        again = batches_of(make_stream(kind), corpus)
        for step in range(stop, min(stop + 3, 14)):
            assert (again.batch(step).codes == whole[step]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_number_of_ranks_may_change_in_mid_epoch(kind: str, corpus: TokenCorpus,
                                                     make_stream: Callable[[str], Stream]) -> None:
    whole = batches_of(make_stream(kind), corpus)
    before = batches_of(make_stream(kind), corpus)
    after = [batches_of(make_stream(kind), corpus) for _ in range(4)]
    for step in range(3):
        assert (before.batch(step, 1, 2).codes == whole.batch(step).codes[1::2]).all()
    for step in range(3, 9):
        for rank, batches in enumerate(after):
            assert (batches.batch(step, rank, 4).codes == whole.batch(step).codes[rank::4]).all()


@pytest.mark.parametrize("kind", ["exact", "windowed"])
def test_every_row_comes_once_an_epoch(kind: str, make_stream: Callable[[str], Stream]) -> None:
    stream = make_stream(kind)
    assert len(stream) == NUM_ROWS
    for epoch in range(3):
        rows = stream.rows(np.arange(epoch * NUM_ROWS, (epoch + 1) * NUM_ROWS))
        assert sorted(rows.tolist()) == list(range(NUM_ROWS))


def test_one_crop_of_each_image_comes_each_epoch_and_the_other_in_the_next(
        make_stream: Callable[[str], Stream]) -> None:
    stream = make_stream("crops")
    epochs = [stream.rows(np.arange(epoch * len(stream), (epoch + 1) * len(stream)))
              for epoch in range(2)]
    assert sorted(np.concatenate(epochs).tolist()) == list(range(NUM_ROWS))
    images = mapped_keys(stream)
    for rows in epochs:
        assert set(Counter(images[rows].tolist()).values()) == {1}


def mapped_keys(stream: Stream) -> np.ndarray:
    assert isinstance(stream, WindowedStream)
    return image_numbers(stream.reader.shard_keys())


@pytest.mark.parametrize("kind", KINDS)
def test_codes_and_labels_are_those_of_the_rows(kind: str, make_stream: Callable[[str], Stream],
                                                tmp_path: Path) -> None:
    stored = [CodeRows.load(TokenCorpus.open(str(tmp_path / name)), MODALITIES)
              for name in ("first", "second")]
    whole = {name: np.concatenate([rows.columns(np.arange(len(rows)))[name] for rows in stored])
             for name in (*MODALITIES, LABEL)}
    stream, places = make_stream(kind), np.arange(5, 230, 3)
    taken, rows = stream.take(places), stream.rows(places)
    assert same(taken, {name: column[rows] for name, column in whole.items()})
    assert taken["image"].shape == (75, *GRID) and taken["image"].dtype == np.uint16


def test_a_mixture_takes_rows_of_each_corpus_by_weight(make_stream: Callable[[str], Stream]
                                                       ) -> None:
    stream = make_stream("mixed")
    rows = stream.rows(np.arange(2560))
    assert (rows >= NUM_ROWS).mean() == pytest.approx(0.25, abs=0.001)
    assert set(rows.tolist()) == set(range(NUM_ROWS + 40))
    assert max(Counter(rows[rows < NUM_ROWS].tolist()).values()) <= 1920 // NUM_ROWS + 1


def test_memory_holds_two_windows_and_each_shard_is_read_once_an_epoch(
        make_corpus: Callable[..., TokenCorpus], monkeypatch: pytest.MonkeyPatch) -> None:
    reader = ShardReader(make_corpus("many", 120, num_shards=12), ["image"])
    read: list[int] = []
    original = reader.codes
    monkeypatch.setattr(reader, "codes", lambda shard: (read.append(shard), original(shard))[1])
    stream = WindowedStream(reader, Choice(np.arange(120)), 30, 0)
    stream.take(np.arange(4))
    stream._thread.submit(int).result()  # what was read ahead is there
    assert len(read) == 6
    for first in range(4, 120, 4):
        stream.take(np.arange(first, first + 4))
    stream._thread.submit(int).result()
    assert sorted(read[:12]) == list(range(12)) and len(read) == 15


def test_a_shard_damaged_after_the_start_is_named(make_corpus: Callable[..., TokenCorpus]) -> None:
    corpus = make_corpus("many", 60, num_shards=6)
    stream = WindowedStream(ShardReader(corpus, ["image"]), Choice(np.arange(60)), 10, 0)
    path = Path(corpus.url) / corpus.manifest.shards[stream.order.window(30).groups[0]].name
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match=rf"{path.name} is damaged: sha256 .*--verify"):
        for place in range(60):
            stream.take(np.arange(place, place + 1))
