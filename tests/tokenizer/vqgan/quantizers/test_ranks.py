"""Quantizers of two processes stay alike, whatever share of a batch each has seen."""
from collections.abc import Mapping
from pathlib import Path

import pytest
import rank_training
import torch
from launched import run_ranks


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What both processes left."""
    folder = tmp_path_factory.mktemp("ranks")
    codes, _, errors = run_ranks(rank_training.__file__, str(folder))
    assert codes == [0, 0], errors
    return folder


@pytest.fixture(scope="module")
def states(folder: Path) -> list[Mapping[str, dict]]:
    """States after training, of both processes."""
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


def test_both_processes_end_with_the_same_quantizers(states: list[Mapping[str, dict]]) -> None:
    assert states[0].keys() == states[1].keys()
    for name, first in states[0].items():
        second = states[1][name]
        assert all(torch.equal(first[key], second[key]) for key in first), name


@pytest.mark.parametrize("kind", ["classic", "cosine", "ema"])
def test_what_the_processes_saw_was_put_to_use(states: list[Mapping[str, dict]],
                                               kind: str) -> None:
    fresh = rank_training.small(kind, revive_after=2).state_dict()
    trained = states[0][f"{kind}, k-means False"]
    assert not torch.equal(fresh["embedding.weight"], trained["embedding.weight"])


def test_averages_of_two_processes_are_those_of_one_with_the_whole_batch(
        states: list[Mapping[str, dict]]) -> None:
    alone = rank_training.train("ema", slice(None), revive_after=0)
    torch.testing.assert_close(states[0]["averages alone"], alone)


@pytest.mark.parametrize("kind", rank_training.ENTROPIES)
def test_codes_are_used_evenly_over_the_latents_of_both_processes(
        folder: Path, kind: str) -> None:
    expected = rank_training.entropy_gradients(kind, slice(None), 1)
    found = torch.cat([torch.load(folder / f"gradients{rank}.pt", weights_only=True)[kind]
                       for rank in range(2)])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)
