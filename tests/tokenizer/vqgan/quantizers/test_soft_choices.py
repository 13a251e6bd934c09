"""Quantizers that teach through a softmax over all codes: Gumbel and IBQ."""
import math

import pytest
import torch
import torch.nn.functional as F
from small_quantizers import latents_of, small

from tokenizer.vqgan.quantizers.gumbel import GumbelQuantizer
from tokenizer.vqgan.quantizers.ibq import IBQQuantizer


def gumbel(**changes: object) -> GumbelQuantizer:
    quantizer = small("gumbel", **changes)
    assert isinstance(quantizer, GumbelQuantizer)
    return quantizer


def ibq(**changes: object) -> IBQQuantizer:
    quantizer = small("ibq", **changes)
    assert isinstance(quantizer, IBQQuantizer)
    return quantizer


def test_gumbel_parameters_are_named_as_published() -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in gumbel().state_dict().items()}
    assert shapes == {"proj.weight": (16, 4, 1, 1), "proj.bias": (16,), "embed.weight": (16, 4)}


def test_gumbel_codes_are_the_greatest_logits() -> None:
    quantizer, latents = gumbel(), torch.randn(2, 4, 3, 3)
    assert torch.equal(quantizer.encode(latents), quantizer.proj(latents).argmax(1))


def test_gumbel_draws_codes_in_training_alone() -> None:
    quantizer, latents = gumbel().train(), torch.zeros(1, 4, 16, 16)
    assert len(quantizer(latents).codes.unique()) > 4
    assert len(quantizer.eval()(latents).codes.unique()) == 1


@pytest.mark.parametrize(("progress", "expected"), [(0.0, 1.0), (0.5, 0.55), (1.0, 0.1)])
def test_gumbel_temperature_falls_on_a_cosine(progress: float, expected: float) -> None:
    quantizer = gumbel(temperatures=(1.0, 0.1))
    quantizer.progress = progress
    assert quantizer.temperature == pytest.approx(expected)


def test_gumbel_divergence_is_zero_for_equal_chances_and_log_k_for_certainty() -> None:
    quantizer = gumbel(kl_weight=1.0)
    torch.nn.init.zeros_(quantizer.proj.weight)
    torch.nn.init.zeros_(quantizer.proj.bias)
    latents = torch.randn(1, 4, 2, 2)
    assert quantizer(latents).losses["divergence"].item() == pytest.approx(0.0, abs=1e-6)
    with torch.no_grad():
        quantizer.proj.bias[5] = 100.0
    assert quantizer(latents).losses["divergence"].item() == pytest.approx(math.log(16), rel=1e-5)


def test_ibq_code_is_the_greatest_dot_product() -> None:
    quantizer, points = ibq(), torch.randn(600, 4)
    expected = (points @ quantizer.embedding.weight.T).argmax(1)
    assert torch.equal(quantizer.encode(latents_of(points)).flatten(), expected)


def test_ibq_teaches_every_entry_and_classic_only_those_in_use() -> None:
    points = torch.randn(3, 4)
    for kind, all_of_them in (("ibq", True), ("classic", False)):
        quantizer = small(kind).train()
        found = quantizer(latents_of(points))
        (found.latents.sum() + found.losses["codebook"]).backward()
        gradient = quantizer.get_parameter("embedding.weight").grad
        assert gradient is not None
        assert bool((gradient.abs().sum(1) > 0).all()) == all_of_them


def test_ibq_gradients_are_those_of_the_straight_through_index() -> None:
    quantizer, points = ibq().train(), torch.randn(20, 4)
    weights = torch.randn(20, 4)
    gradients = []
    for latents in (points.clone().requires_grad_(), points.clone().requires_grad_()):
        codebook = quantizer.embedding.weight
        codebook.grad = None
        if not gradients:
            found = quantizer(latents_of(latents)).latents[0, :, 0].T
        else:
            logits = latents @ codebook.T
            soft = logits.softmax(1)
            hard = F.one_hot(logits.argmax(1), 16)
            found = (hard + soft - soft.detach()) @ codebook
        (found * weights).sum().backward()
        assert latents.grad is not None and codebook.grad is not None
        gradients.append((latents.grad.clone(), codebook.grad.clone()))
    torch.testing.assert_close(*gradients)


def test_ibq_terms_are_those_written_out() -> None:
    quantizer = ibq(entropy_weight=0.5, entropy_temperature=0.7, beta=0.25)
    points = torch.randn(20, 4)
    losses = quantizer(latents_of(points)).losses
    codebook = quantizer.embedding.weight.detach()
    logits = points @ codebook.T
    error = F.mse_loss(codebook[logits.argmax(1)], points).item()
    chances = (logits / 0.7).softmax(1)

    def entropy(each: torch.Tensor) -> torch.Tensor:
        return -(each * each.log()).sum(-1)
    expected = {"codebook": error, "commitment": error, "entries": 0.25 * error,
                "entropy": 0.5 * (entropy(chances).mean() - entropy(chances.mean(0))).item()}
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(expected, rel=1e-4)
