"""Nearest codes: exact, lowest index on ties, in bounded memory."""
import pytest
import torch

from tokenizer.vqgan.quantizers import search
from tokenizer.vqgan.quantizers.search import nearest_codes, two_distances


def test_every_codebook_entry_is_its_own_nearest_code() -> None:
    assert nearest_codes(torch.eye(8), torch.eye(8)).tolist() == list(range(8))


def test_ties_go_to_the_lower_index() -> None:
    codebook = torch.tensor([[5.0], [1.0], [1.0], [-1.0]])
    assert nearest_codes(torch.tensor([[1.0], [0.0]]), codebook).tolist() == [1, 1]


@pytest.mark.parametrize("num_codes", [5000, 8192])
def test_ties_between_blocks_and_tiles_go_to_the_lower_index(num_codes: int) -> None:
    codebook = torch.randn(7, 4).repeat(num_codes // 7 + 1, 1)[:num_codes]
    assert torch.equal(nearest_codes(codebook[:700], codebook), torch.arange(700) % 7)


@pytest.mark.parametrize("num_codes", [1, 63, 64, 1024, 2048, 2049, 4096, 5000])
@pytest.mark.parametrize("num_points", [1, 511, 513])
def test_codes_are_those_of_float64_wherever_the_margin_exceeds_rounding(
        num_points: int, num_codes: int) -> None:
    torch.manual_seed(num_codes)
    points, codebook = torch.randn(num_points, 8), torch.randn(num_codes, 8)
    distances = torch.cdist(points.double(), codebook.double())
    least = distances.topk(min(2, num_codes), largest=False).values
    clear = least[:, -1] - least[:, 0] > 1e-5 if num_codes > 1 else torch.ones(num_points).bool()
    assert clear.float().mean() > 0.9
    found = nearest_codes(points, codebook)
    assert torch.equal(found[clear], distances.argmin(1)[clear])


@pytest.mark.parametrize(("num_points", "tile", "block"), [(7, 64, 8), (3, 5, 64), (100, 16, 4)])
def test_searching_in_other_pieces_changes_nothing(
        monkeypatch: pytest.MonkeyPatch, num_points: int, tile: int, block: int) -> None:
    torch.manual_seed(0)
    points, codebook = torch.randn(100, 4), torch.randn(150, 4)
    whole = nearest_codes(points, codebook)
    for name, value in (("POINTS", num_points), ("TILE", tile), ("BLOCK", block)):
        monkeypatch.setattr(search, name, value)
    assert torch.equal(nearest_codes(points, codebook), whole)


def test_channel_mismatch_names_both_sizes() -> None:
    with pytest.raises(ValueError, match="3 channels, codebook entries have 8"):
        nearest_codes(torch.zeros(1, 3), torch.eye(8))


@pytest.mark.parametrize(("num_codes", "code_dim"), [(1 << 18, 8), (1 << 16, 64)])
def test_memory_stays_below_16_mib_at_any_codebook_size(num_codes: int, code_dim: int) -> None:
    points, codebook = torch.randn(2048, code_dim), torch.randn(num_codes, code_dim)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU],
                                profile_memory=True) as profile:
        nearest_codes(points, codebook)
    held = most = 0
    for event in profile.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    assert 0 < most <= 16 << 20


@pytest.mark.parametrize("num_codes", [2, 63, 1024, 1025, 4097])
def test_two_distances_are_those_of_float64(num_codes: int) -> None:
    generator = torch.Generator().manual_seed(num_codes)
    codebook = torch.randn(num_codes, 6, generator=generator)
    points = torch.randn(300, 6, generator=generator)
    found = two_distances(points, codebook, nearest_codes(points, codebook))
    truth = torch.cdist(points.double(), codebook.double()).topk(2, largest=False).values
    torch.testing.assert_close(found.double(), truth, atol=1e-5, rtol=1e-4)


def test_an_entry_there_twice_has_no_margin() -> None:
    codebook = torch.eye(4).repeat(2, 1)
    found = two_distances(codebook, codebook, nearest_codes(codebook, codebook))
    assert found.tolist() == [[0.0, 0.0]] * 8
