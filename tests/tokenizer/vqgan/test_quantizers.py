"""Quantizers: nearest codes, gradients, losses, revival."""
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tokenizer.vqgan import quantizers
from tokenizer.vqgan.quantizers import (
    QUANTIZERS,
    CodebookQuantizer,
    QuantizerConfig,
    build_quantizer,
    nearest_codes,
)

KINDS = sorted(QUANTIZERS)


def small(kind: str = "classic", **changes: object) -> CodebookQuantizer:
    torch.manual_seed(0)
    settings: dict = {"codebook_size": 16, "code_dim": 4, **changes}
    quantizer = build_quantizer(QuantizerConfig(kind=kind, **settings))
    assert isinstance(quantizer, CodebookQuantizer)
    return quantizer


def latents_of(points: Tensor) -> Tensor:
    """Points ``(N, C)`` as latents ``(1, C, 1, N)``."""
    return points.T[None, :, None, :].contiguous()


def test_every_codebook_entry_is_its_own_nearest_code() -> None:
    assert nearest_codes(torch.eye(8), torch.eye(8)).tolist() == list(range(8))


def test_ties_go_to_the_lower_index() -> None:
    codebook = torch.tensor([[5.0], [1.0], [1.0], [-1.0]])
    assert nearest_codes(torch.tensor([[1.0], [0.0]]), codebook).tolist() == [1, 1]


def test_the_nearest_code_is_that_of_the_distances_written_out() -> None:
    torch.manual_seed(0)
    points, codebook = torch.randn(300, 4), torch.randn(50, 4)
    assert torch.equal(nearest_codes(points, codebook), torch.cdist(points, codebook).argmin(1))


def test_searching_in_pieces_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    points, codebook = torch.randn(100, 4), torch.randn(50, 4)
    whole = nearest_codes(points, codebook)
    monkeypatch.setattr(quantizers, "SEARCH_BYTES", 50 * 4 * 7)
    assert torch.equal(nearest_codes(points, codebook), whole)


def test_channel_mismatch_names_both_sizes() -> None:
    with pytest.raises(ValueError, match="3 channels, codebook entries have 8"):
        nearest_codes(torch.zeros(1, 3), torch.eye(8))


@pytest.mark.parametrize("kind", KINDS)
def test_codes_give_back_the_latents_that_the_decoder_sees(kind: str) -> None:
    quantizer = small(kind)
    found = quantizer(torch.randn(2, 4, 3, 5))
    assert found.codes.shape == (2, 3, 5)
    assert found.codes.dtype == torch.int64
    torch.testing.assert_close(quantizer.codes_to_latents(found.codes), found.latents)


@pytest.mark.parametrize("kind", KINDS)
def test_encode_agrees_with_forward(kind: str) -> None:
    quantizer, latents = small(kind), torch.randn(2, 4, 3, 5)
    assert torch.equal(quantizer.encode(latents), quantizer(latents).codes)


@pytest.mark.parametrize("kind", KINDS)
def test_quantizing_the_latents_of_codes_gives_the_codes(kind: str) -> None:
    quantizer = small(kind)
    codes = torch.arange(16).view(1, 4, 4)
    assert torch.equal(quantizer.encode(quantizer.codes_to_latents(codes)), codes)


@pytest.mark.parametrize("kind", KINDS)
def test_code_of_a_position_does_not_depend_on_the_others(kind: str) -> None:
    quantizer, latents = small(kind), torch.randn(2, 4, 3, 5)
    codes = quantizer.encode(latents)
    assert torch.equal(quantizer.encode(latents[1:, :, :, 2:]), codes[1:, :, 2:])


def test_cosine_codes_do_not_depend_on_the_length_of_latents() -> None:
    quantizer, latents = small("cosine"), torch.randn(1, 4, 3, 5)
    assert torch.equal(quantizer.encode(latents), quantizer.encode(100 * latents))
    lengths = quantizer(latents).latents.norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))


def test_gradients_pass_straight_through_to_the_latents() -> None:
    quantizer = small()
    latents = torch.randn(1, 4, 2, 2, requires_grad=True)
    weights = torch.randn(1, 4, 2, 2)
    (quantizer(latents).latents * weights).sum().backward()
    assert latents.grad is not None
    torch.testing.assert_close(latents.grad, weights)
    assert quantizer.embedding.weight.grad is None


def test_codebook_term_moves_entries_and_commitment_term_moves_latents() -> None:
    quantizer = small()
    latents = torch.randn(1, 4, 2, 2, requires_grad=True)
    losses = quantizer(latents).losses
    losses["codebook"].backward()
    assert latents.grad is None
    assert quantizer.embedding.weight.grad is not None
    quantizer.embedding.weight.grad = None
    losses["commitment"].backward()
    assert latents.grad is not None
    assert quantizer.embedding.weight.grad is None


@pytest.mark.parametrize(("legacy", "codebook", "commitment"), [(False, 1, 0.25), (True, 0.25, 1)])
def test_beta_weighs_the_commitment_unless_legacy(legacy: bool, codebook: float,
                                                  commitment: float) -> None:
    quantizer, latents = small(legacy_beta=legacy), torch.randn(1, 4, 2, 2)
    found = quantizer(latents)
    error = F.mse_loss(latents, quantizer.codes_to_latents(found.codes))
    assert found.losses["codebook"].item() == pytest.approx(codebook * error.item())
    assert found.losses["commitment"].item() == pytest.approx(commitment * error.item())


@pytest.mark.parametrize("kind", KINDS)
def test_distances_are_float32_under_autocast(kind: str) -> None:
    quantizer, latents = small(kind, codebook_size=512), torch.randn(2, 4, 16, 16)
    expected = quantizer(latents)
    with torch.autocast("cpu", torch.bfloat16):
        found = quantizer(latents)
        assert torch.equal(quantizer.encode(latents), expected.codes)
    assert torch.equal(found.codes, expected.codes)
    assert found.latents.dtype == torch.float32
    assert {loss.dtype for loss in found.losses.values()} == {torch.float32}


def test_idle_entries_move_to_latents_of_the_batch() -> None:
    quantizer = small(revive_after=2).train()
    points = torch.randn(20, 4) + 5
    used = quantizer(latents_of(points)).codes.unique()
    moved = quantizer.revive()
    assert sorted([*moved.tolist(), *used.tolist()]) == list(range(16))
    rows = quantizer.embedding.weight[moved]
    assert all((row == points).all(1).any() for row in rows)
    assert len(rows.unique(dim=0)) == len(rows)
    assert not quantizer.idle_steps[moved].any()


def test_entries_in_use_stay_and_others_only_move_after_their_time() -> None:
    quantizer = small(revive_after=3).train()
    everything = latents_of(quantizer.embedding.weight.detach())
    quantizer(everything)
    assert not len(quantizer.revive())
    moved = []
    for _ in range(3):
        quantizer(everything[..., :15])
        moved.append(quantizer.revive().tolist())
    assert moved == [[], [], [15]]


def test_parts_of_a_batch_count_as_one_step() -> None:
    quantizer = small(revive_after=3).train()
    everything = latents_of(quantizer.embedding.weight.detach())
    for part in (everything[..., :8], everything[..., 8:]):
        quantizer(part)
    assert not len(quantizer.revive())
    assert not quantizer.idle_steps.any()
    quantizer(everything[..., :8])
    quantizer.revive()
    assert quantizer.idle_steps.tolist() == [0] * 8 + [1] * 8


def test_no_more_entries_move_than_there_are_latents() -> None:
    quantizer = small(revive_after=1).train()
    quantizer(torch.randn(1, 4, 1, 2))
    assert len(quantizer.revive()) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_revived_entries_are_the_codes_of_their_latents(kind: str) -> None:
    quantizer = small(kind, revive_after=1).train()
    latents = torch.randn(1, 4, 4, 4)
    before = len(quantizer(latents).codes.unique())
    quantizer.revive()
    assert len(quantizer(latents).codes.unique()) > before


def test_revival_follows_torch_random_numbers() -> None:
    def revived() -> Tensor:
        quantizer = small(revive_after=1).train()
        quantizer(torch.randn(1, 4, 8, 8))
        torch.manual_seed(7)
        quantizer.revive()
        return quantizer.embedding.weight.detach()
    assert torch.equal(revived(), revived())


def test_revival_continues_from_the_saved_state() -> None:
    first = small(revive_after=2).train()
    first(torch.randn(1, 4, 1, 2))
    first.revive()
    second = small(revive_after=2).train()
    second.load_state_dict(first.state_dict())
    batch = torch.randn(1, 4, 8, 8)
    results = []
    for quantizer in (first, second):
        torch.manual_seed(3)
        quantizer(batch)
        results.append((quantizer.revive().tolist(), quantizer.embedding.weight.tolist()))
    assert results[0] == results[1]


def test_evaluation_neither_notes_use_nor_revives() -> None:
    quantizer = small(revive_after=1).eval()
    before = {name: tensor.clone() for name, tensor in quantizer.state_dict().items()}
    quantizer(torch.randn(1, 4, 8, 8))
    assert not len(quantizer.revive())
    assert all(torch.equal(tensor, before[name])
               for name, tensor in quantizer.state_dict().items())


def test_revival_can_be_switched_off() -> None:
    quantizer = small(revive_after=0).train()
    quantizer(torch.randn(1, 4, 8, 8))
    assert not len(quantizer.revive())


@pytest.mark.parametrize(("changes", "message"), [
    ({"kind": "golden"}, "kind of quantizer must be one of classic, cosine, got 'golden'"),
    ({"codebook_size": 1}, "codebook_size must be at least 2, got 1"),
    ({"code_dim": 0}, "code_dim must be at least 1, got 0"),
    ({"beta": -0.5}, "beta must be at least 0, got -0.5"),
    ({"revive_after": -1}, "revive_after must be at least 0, got -1")])
def test_nonsense_is_refused_with_its_value(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QuantizerConfig(**changes)
