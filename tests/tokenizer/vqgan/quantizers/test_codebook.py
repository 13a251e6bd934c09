"""Codebooks taught by gradients: losses, gradients, k-means, revival."""
import pytest
import torch
import torch.nn.functional as F
from small_quantizers import latents_of
from small_quantizers import small as small_of_any_kind
from torch import Tensor

from tokenizer.vqgan.quantizers.base import rotate_to
from tokenizer.vqgan.quantizers.codebook import CodebookQuantizer

KINDS = ("classic", "cosine", "ema")


def small(kind: str = "classic", **changes: object) -> CodebookQuantizer:
    quantizer = small_of_any_kind(kind, **changes)
    assert isinstance(quantizer, CodebookQuantizer)
    return quantizer


def revive(quantizer: CodebookQuantizer) -> Tensor:
    """The entries moved."""
    return quantizer.revive().get("embedding.weight", torch.empty(0, dtype=torch.int64))


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


def test_idle_entries_move_to_latents_of_the_batch() -> None:
    quantizer = small(revive_after=2).train()
    points = torch.randn(20, 4) + 5
    used = quantizer(latents_of(points)).codes.unique()
    moved = revive(quantizer)
    assert sorted([*moved.tolist(), *used.tolist()]) == list(range(16))
    rows = quantizer.embedding.weight[moved]
    assert all((row == points).all(1).any() for row in rows)
    assert len(rows.unique(dim=0)) == len(rows)
    assert not quantizer.idle_steps[moved].any()


def test_entries_in_use_stay_and_others_only_move_after_their_time() -> None:
    quantizer = small(revive_after=3).train()
    everything = latents_of(quantizer.embedding.weight.detach())
    quantizer(everything)
    assert not len(revive(quantizer))
    moved = []
    for _ in range(3):
        quantizer(everything[..., :15])
        moved.append(revive(quantizer).tolist())
    assert moved == [[], [], [15]]


def test_parts_of_a_batch_count_as_one_step() -> None:
    quantizer = small(revive_after=3).train()
    everything = latents_of(quantizer.embedding.weight.detach())
    for part in (everything[..., :8], everything[..., 8:]):
        quantizer(part)
    assert not len(revive(quantizer))
    assert not quantizer.idle_steps.any()
    quantizer(everything[..., :8])
    revive(quantizer)
    assert quantizer.idle_steps.tolist() == [0] * 8 + [1] * 8


def test_no_more_entries_move_than_there_are_latents() -> None:
    quantizer = small(revive_after=1).train()
    quantizer(torch.randn(1, 4, 1, 2))
    assert len(revive(quantizer)) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_revived_entries_are_the_codes_of_their_latents(kind: str) -> None:
    quantizer = small(kind, revive_after=1).train()
    latents = torch.randn(1, 4, 4, 4)
    before = len(quantizer(latents).codes.unique())
    revive(quantizer)
    assert len(quantizer(latents).codes.unique()) > before


def test_revival_follows_torch_random_numbers() -> None:
    def revived() -> Tensor:
        quantizer = small(revive_after=1).train()
        quantizer(torch.randn(1, 4, 8, 8))
        torch.manual_seed(7)
        revive(quantizer)
        return quantizer.embedding.weight.detach()
    assert torch.equal(revived(), revived())


def test_revival_can_be_switched_off() -> None:
    quantizer = small(revive_after=0).train()
    quantizer(torch.randn(1, 4, 8, 8))
    assert not len(revive(quantizer))


@pytest.mark.parametrize("kind", KINDS)
def test_kmeans_places_entries_among_the_first_latents_once(kind: str) -> None:
    quantizer = small(kind, kmeans=True, revive_after=0).train()
    centres = F.normalize(torch.randn(16, 4), dim=-1) * 10
    latents = latents_of(centres.repeat(20, 1) + 0.01 * torch.randn(320, 4))
    codes = quantizer(latents).codes
    assert len(codes.unique()) > 8
    entries = quantizer.codes_to_latents(codes)
    placed = latents if kind != "cosine" else F.normalize(latents, dim=1)
    errors = (entries - placed).square().sum(1)
    assert errors.median() < 0.01
    before = quantizer.embedding.weight.detach().clone()
    quantizer(torch.randn(1, 4, 8, 8))
    assert torch.equal(quantizer.embedding.weight, before)


def test_kmeans_waits_for_latents_that_are_finite() -> None:
    quantizer = small(kmeans=True).train()
    before = quantizer.embedding.weight.detach().clone()
    quantizer(torch.full((1, 4, 4, 4), torch.nan))
    quantizer.discard()
    assert torch.equal(quantizer.embedding.weight, before)
    quantizer(torch.randn(1, 4, 8, 8))
    assert not torch.equal(quantizer.embedding.weight, before)
    assert quantizer.embedding.weight.isfinite().all()


def test_more_entries_than_latents_are_placed_apart() -> None:
    quantizer = small(kmeans=True).train()
    quantizer(torch.randn(1, 4, 1, 3))
    assert len(quantizer.embedding.weight.unique(dim=0)) == 16


def test_kmeans_of_a_single_latent_has_numbers_for_all_entries() -> None:
    quantizer, latents = small(kmeans=True).train(), torch.randn(1, 4, 1, 1)
    codes = quantizer(latents).codes
    assert quantizer.embedding.weight.isfinite().all()
    torch.testing.assert_close(quantizer.codes_to_latents(codes), latents)


@pytest.mark.parametrize("kind", ["classic", "cosine", "ema", "residual"])
def test_rotation_keeps_values_and_turns_gradients(kind: str) -> None:
    latents, weights = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    values, gradients = [], []
    for rotation in (False, True):
        leaf = latents.clone().requires_grad_()
        found = small_of_any_kind(kind, rotation=rotation)(leaf).latents
        (found * weights).sum().backward()
        assert leaf.grad is not None
        values.append(found.detach())
        gradients.append(leaf.grad)
    torch.testing.assert_close(values[1], values[0])
    assert not torch.allclose(gradients[1], gradients[0], rtol=0.1)


def test_rotated_gradient_is_that_of_the_rotation_written_out() -> None:
    point = torch.tensor([3.0, 0.0], requires_grad=True)
    entry = torch.tensor([0.0, 6.0])
    result = rotate_to(point, entry)
    torch.testing.assert_close(result.detach(), entry)
    jacobian = torch.stack([torch.autograd.grad(value, point, retain_graph=True)[0]
                            for value in result])
    # A quarter turn, and twice the length.
    torch.testing.assert_close(jacobian, torch.tensor([[0.0, -2.0], [2.0, 0.0]]),
                               atol=1e-5, rtol=0)
