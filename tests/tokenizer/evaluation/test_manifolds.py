"""Precision and recall of features against a search through every pair."""
import numpy as np
import pytest
import torch

from tokenizer.evaluation import manifolds
from tokenizer.evaluation.manifolds import precision_recall


def by_hand(found: np.ndarray, true: np.ndarray, k: int) -> tuple[float, float]:
    """Every distance by itself, as the definition says."""
    def covered(items: np.ndarray, centres: np.ndarray) -> float:
        inside = 0
        for item in items:
            for place, centre in enumerate(centres):
                others = np.delete(centres, place, 0)
                radius = np.sort(np.linalg.norm(others - centre, axis=1))[k - 1]
                if np.linalg.norm(item - centre) <= radius:
                    inside += 1
                    break
        return inside / len(items)
    return covered(found, true), covered(true, found)


def drawn(count: int, spread: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, spread, (count, 5))


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_figures_are_those_of_a_search_through_all_pairs(k: int, offset: float,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifolds, "DISTANCES_AT_ONCE", 100)
    found, true = drawn(23, 0.6, 1) + offset, drawn(31, 1.0, 2) + offset
    expected = by_hand(found, true, k)
    assert 0 < expected[1] < 1 and expected[0] != expected[1]
    assert precision_recall(torch.from_numpy(found), torch.from_numpy(true), k) == expected


def test_equal_sets_are_all_precise_and_all_recalled() -> None:
    items = torch.from_numpy(drawn(20, 1.0, 0)).float()
    assert precision_recall(items, items.flip(0)) == (1.0, 1.0)


def test_one_repeated_image_is_precise_and_recalls_little() -> None:
    true = torch.from_numpy(drawn(40, 1.0, 0))
    precision, recall = precision_recall(true[:1].repeat(10, 1), true)
    assert precision == 1.0 and recall == pytest.approx(1 / 40)


@pytest.mark.parametrize("seed", range(6))
def test_repeated_images_lie_in_each_others_regions(seed: int) -> None:
    """Their balls are points: what rounding leaves of a distance of 0 would lie outside."""
    generator = torch.Generator().manual_seed(seed)
    repeated, true, found = (torch.rand(count, 2048, generator=generator)
                             for count in (1, 37 + seed, 13))
    true, found = torch.cat([true, repeated.repeat(9, 1)]), torch.cat([repeated.repeat(11, 1),
                                                                       found + 5])
    assert precision_recall(found, true) == (11 / 24, 9 / (46 + seed))


def test_far_sets_have_neither() -> None:
    true = torch.from_numpy(drawn(10, 1.0, 0))
    assert precision_recall(true + 100, true) == (0.0, 0.0)


@pytest.mark.parametrize(("found", "true", "words"), [
    (torch.zeros(3, 2), torch.zeros(9, 2), "more than 3 found items, got 3"),
    (torch.zeros(9, 2), torch.zeros(2, 2), "more than 3 true items, got 2"),
    (torch.zeros(9, 3), torch.zeros(9, 2), r"found features must be of shape \(N, 2\), got \(9, 3"),
    (torch.full((9, 2), torch.nan), torch.zeros(9, 2), "features must be finite")])
def test_sets_that_cannot_be_compared_are_refused(found: torch.Tensor, true: torch.Tensor,
                                                  words: str) -> None:
    with pytest.raises(ValueError, match=words):
        precision_recall(found, true)
