"""Orders hold every item once an epoch, and follow from seed and place alone."""
from collections import Counter

import numpy as np
import pytest

from prior.loading.orders import Choice, ExactOrder, MixtureOrder, Order, WindowedOrder

SIZES = np.array([7, 0, 12, 3, 9, 20, 1, 8])
NUM_ITEMS = int(SIZES.sum())


def build(kind: str, seed: int = 0) -> Order:
    return (ExactOrder(NUM_ITEMS, seed) if kind == "exact"
            else WindowedOrder(SIZES, window_items=16, seed=seed))


@pytest.mark.parametrize("kind", ["exact", "windowed"])
def test_every_item_comes_once_an_epoch(kind: str) -> None:
    items, epochs = build(kind).items(np.arange(3 * NUM_ITEMS))
    for epoch in range(3):
        assert sorted(items[epochs == epoch].tolist()) == list(range(NUM_ITEMS))
    assert (epochs == np.repeat(np.arange(3), NUM_ITEMS)).all()


@pytest.mark.parametrize("kind", ["exact", "windowed"])
def test_a_place_has_its_item_whatever_else_is_asked_for(kind: str) -> None:
    whole = build(kind).items(np.arange(2 * NUM_ITEMS))[0]
    for first, step in ((0, 1), (3, 4), (50, 7)):
        places = np.arange(first, 2 * NUM_ITEMS, step)
        np.testing.assert_array_equal(build(kind).items(places)[0], whole[places])


@pytest.mark.parametrize("kind", ["exact", "windowed"])
def test_epochs_and_seeds_have_other_orders(kind: str) -> None:
    first, second = build(kind).items(np.arange(2 * NUM_ITEMS))[0].reshape(2, -1).tolist()
    other = build(kind, seed=1).items(np.arange(NUM_ITEMS))[0].tolist()
    assert len({tuple(first), tuple(second), tuple(other)}) == 3


def test_the_exact_order_is_the_one_that_earlier_checkpoints_were_trained_in() -> None:
    expected = np.random.default_rng([5, 0, 2]).permutation(NUM_ITEMS)
    found = ExactOrder(NUM_ITEMS, 5).items(np.arange(2 * NUM_ITEMS, 3 * NUM_ITEMS))[0]
    np.testing.assert_array_equal(found, expected)


def test_orders_that_are_asked_in_turns_are_shuffled_once_an_epoch(
        monkeypatch: pytest.MonkeyPatch) -> None:
    shuffled: list[tuple[int, int]] = []
    original = ExactOrder._permute

    def permute(order: ExactOrder, epoch: int) -> np.ndarray:
        shuffled.append((order.seed, epoch))
        return original(order, epoch)

    monkeypatch.setattr(ExactOrder, "_permute", permute)
    several = [ExactOrder(NUM_ITEMS, seed) for seed in range(4)]
    for place in range(0, 2 * NUM_ITEMS, 4):
        for order in several:
            order.items(np.arange(place, place + 4))
    assert sorted(shuffled) == [(seed, epoch) for seed in range(4) for epoch in range(2)]


# Windows


def test_a_window_holds_whole_groups_and_is_closed_once_it_is_full() -> None:
    order, place = WindowedOrder(SIZES, window_items=16, seed=3), 0
    seen: list[int] = []
    while place < NUM_ITEMS:
        window = order.window(place)
        assert window.start == place and window.epoch == 0
        assert window.stop - window.start == SIZES[list(window.groups)].sum()
        assert window.stop == NUM_ITEMS or window.stop - window.start < 16 + SIZES.max()
        expected = np.concatenate([np.arange(order.starts[group], order.starts[group + 1])
                                   for group in window.groups])
        assert sorted(order.items_of(window)) == sorted(expected)
        np.testing.assert_array_equal(order.items_of(window),
                                      order.items(np.arange(place, window.stop))[0])
        seen += window.groups
        place = window.stop
    assert sorted(seen) == np.flatnonzero(SIZES).tolist()


def test_windows_are_found_from_any_place_of_any_epoch() -> None:
    order = WindowedOrder(SIZES, window_items=16, seed=3)
    for place in (0, 59, 60, 61, 127, 300):
        window = order.window(place)
        assert window.start <= place < window.stop and window.epoch == place // NUM_ITEMS


def test_one_window_for_all_shuffles_all() -> None:
    order = WindowedOrder(SIZES, window_items=1000, seed=0)
    assert order.window(0).stop == NUM_ITEMS


# Mixtures


@pytest.mark.parametrize("weights", [(1.0,), (3.0, 1.0), (0.5, 0.3, 0.2), (1.0, 0.001)])
def test_a_mixture_holds_its_weights(weights: tuple[float, ...]) -> None:
    order = MixtureOrder(weights, seed=0)
    count = 9 * order.block
    sources = order.sources(np.arange(count))[0]
    shares = np.bincount(sources, minlength=len(weights)) / count
    assert shares == pytest.approx(np.array(weights) / sum(weights), abs=1.5 / count)


def test_each_stream_of_a_mixture_is_read_place_by_place_without_gaps() -> None:
    order = MixtureOrder((0.6, 0.4), seed=2)
    sources, inner = order.sources(np.arange(5 * order.block))
    for stream in range(2):
        np.testing.assert_array_equal(inner[sources == stream],
                                      np.arange((sources == stream).sum()))


def test_a_place_of_a_mixture_does_not_depend_on_what_was_asked_before() -> None:
    whole = MixtureOrder((2.0, 1.0, 1.0), seed=4).sources(np.arange(2000))
    places = np.arange(1777, 2000, 3)
    for found, expected in zip(MixtureOrder((2.0, 1.0, 1.0), 4).sources(places), whole,
                               strict=True):
        np.testing.assert_array_equal(found, expected[places])


def test_streams_of_a_mixture_are_shuffled() -> None:
    sources = MixtureOrder((1.0, 1.0), seed=0).sources(np.arange(256))[0]
    runs = 1 + int((np.diff(sources) != 0).sum())
    assert 80 < runs < 180


@pytest.mark.parametrize("weights", [(), (0.0, 1.0), (-1.0,), (float("nan"),), (float("inf"), 1.0)])
def test_weights_that_are_none_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="weights of a mixture must be finite and more than 0"):
        MixtureOrder(weights, seed=0)


# Crops


def test_each_epoch_takes_another_crop_of_each_image_until_all_were_taken() -> None:
    rows = np.array([0, 1, 2, 10, 11, 20, 21, 22, 23])
    images = np.array([0, 0, 0, 3, 3, 5, 5, 5, 5])
    choice = Choice(rows, images, seed=1)
    assert len(choice) == 3 and choice.first_rows.tolist() == [0, 10, 20]
    taken = np.stack([choice.at(np.arange(3), epoch) for epoch in range(12)])
    for item, expected in enumerate(({0, 1, 2}, {10, 11}, {20, 21, 22, 23})):
        count = len(expected)
        for first in range(12 - count):
            assert set(taken[first:first + count, item].tolist()) == expected


def test_images_do_not_all_begin_with_the_same_crop() -> None:
    choice = Choice(np.arange(400), np.repeat(np.arange(100), 4))
    begins = Counter((choice.at(np.arange(100), 0) % 4).tolist())
    assert min(begins[crop] for crop in range(4)) > 10


def test_without_images_every_row_is_an_item() -> None:
    choice = Choice(np.array([2, 5, 9]))
    assert len(choice) == 3 and choice.at(np.array([2, 0]), 7).tolist() == [9, 2]
