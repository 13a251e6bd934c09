"""One optimiser step: which losses there are, who learns from them, and when it refuses."""
from collections.abc import Callable

import pytest
import torch

from tokenizer.training.config import AdversarialConfig, PerceptualConfig
from tokenizer.training.optim import OptimizerConfig
from tokenizer.training.perceptual import PerceptualDistance
from tokenizer.training.state import TrainingState
from tokenizer.training.steps import train_step

State = Callable[..., TrainingState]
Pixels = Callable[..., torch.Tensor]


def weights(module: torch.nn.Module | None) -> dict[str, torch.Tensor]:
    """A copy of a module's tensors."""
    assert module is not None
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def test_the_loss_is_the_sum_of_its_terms(state: State, pixels: Pixels) -> None:
    figures = train_step(state(), pixels(), 0.0).figures
    assert figures["loss"] == pytest.approx(
        figures["reconstruction"] + figures["codebook"] + figures["commitment"], rel=1e-6)


def test_reconstructions_improve(state: State, pixels: Pixels) -> None:
    training = state(optimizer=OptimizerConfig(learning_rate=5e-3, warmup_steps=0))
    losses = [train_step(training, pixels(), 0.0).figures["reconstruction"] for _ in range(20)]
    assert losses[-1] < 0.9 * losses[0] and training.step == 20


def test_parts_of_a_batch_give_the_gradient_of_the_whole(state: State, pixels: Pixels) -> None:
    whole, parts = state(), state(accumulation=2)
    first = train_step(whole, pixels(), 0.0)
    second = train_step(parts, pixels(), 0.0)
    assert second.figures == pytest.approx(first.figures, rel=1e-4)
    assert (len(first.outputs), len(second.outputs)) == (4, 2)
    torch.testing.assert_close(second.outputs, first.outputs[2:], rtol=1e-4, atol=1e-5)


def test_the_rate_follows_progress_and_warm_up(state: State, pixels: Pixels) -> None:
    rates = OptimizerConfig(learning_rate=1e-3, warmup_steps=2, final_share=0.0)
    training = state(optimizer=rates)
    found = []
    for progress in (0.0, 0.0, 0.5, 1.0):
        train_step(training, pixels(), progress)
        found.append(training.optimizer.param_groups[0]["lr"])
    assert found == pytest.approx([5e-4, 1e-3, 5e-4, 0.0])


def test_gradients_are_clipped_to_the_norm_asked_for(
        state: State, pixels: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    training = state(optimizer=OptimizerConfig(clip_norm=1e-3, warmup_steps=0))
    norms = []

    def note_norm() -> None:
        gradients = [p.grad for p in training.model.parameters() if p.grad is not None]
        norms.append(torch.cat([gradient.flatten() for gradient in gradients]).norm().item())

    monkeypatch.setattr(training.optimizer, "step", note_norm)
    figures = train_step(training, pixels(), 0.0).figures
    assert norms == [pytest.approx(1e-3, rel=1e-2)] and figures["gradient_norm"] > 1e-2


def test_the_discriminator_waits_then_learns_alone_then_is_heard(
        state: State, pixels: Pixels, adversarial: AdversarialConfig) -> None:
    training = state(adversarial=adversarial)
    untouched = weights(training.discriminator)
    for step in range(6):
        before = weights(training.discriminator)
        figures = train_step(training, pixels(step), 0.0).figures
        learns, is_heard = step >= 2, step >= 4
        assert equal(weights(training.discriminator), before) != learns
        assert ("discriminator" in figures, "adversarial" in figures) == (learns, is_heard)
        if step == 1:
            assert equal(weights(training.discriminator), untouched)


def test_before_its_start_the_discriminator_changes_nothing_for_the_autoencoder(
        state: State, pixels: Pixels, adversarial: AdversarialConfig) -> None:
    with_it, without = state(adversarial=adversarial), state()
    for step in range(4):
        train_step(with_it, pixels(step), 0.0)
        train_step(without, pixels(step), 0.0)
    assert equal(weights(with_it.model), weights(without.model))
    for training in (with_it, without):
        train_step(training, pixels(4), 0.0)
    assert not equal(weights(with_it.model), weights(without.model))


def test_the_adversarial_term_is_weighted_and_adds_to_the_loss(
        state: State, pixels: Pixels, adversarial: AdversarialConfig) -> None:
    training = state(adversarial=adversarial)
    training.step = 4
    figures = train_step(training, pixels(), 0.0).figures
    assert 0 < figures["adaptive_weight"] <= 10
    assert figures["loss"] == pytest.approx(
        figures["reconstruction"] + figures["codebook"] + figures["commitment"]
        + 0.5 * figures["adaptive_weight"] * figures["adversarial"], rel=1e-5)


def test_the_autoencoders_pass_leaves_no_gradient_in_the_discriminator(
        state: State, pixels: Pixels, adversarial: AdversarialConfig,
        monkeypatch: pytest.MonkeyPatch) -> None:
    training = state(adversarial=adversarial)
    training.step = 4
    assert training.discriminator is not None
    monkeypatch.setattr("tokenizer.training.steps.train_discriminator", lambda *_: {})
    train_step(training, pixels(), 0.0)
    assert all(p.grad is None and p.requires_grad for p in training.discriminator.parameters())


def test_the_perceptual_term_is_weighted_and_adds_to_the_loss(state: State, pixels: Pixels) -> None:
    training = state(perceptual=PerceptualConfig(weight=0.25))
    distance = PerceptualDistance()
    for weight in distance.linear:
        weight.fill_(0.1)
    figures = train_step(training, pixels(), 0.0, distance).figures
    assert figures["perceptual"] > 0
    assert figures["loss"] == pytest.approx(
        figures["reconstruction"] + figures["codebook"] + figures["commitment"]
        + 0.25 * figures["perceptual"], rel=1e-5)


def test_mixed_precision_keeps_weights_losses_and_codebook_in_float32(
        state: State, pixels: Pixels, adversarial: AdversarialConfig) -> None:
    training, exact = state(adversarial=adversarial, mixed_precision="bf16"), state()
    training.step = exact.step = 4
    result = train_step(training, pixels(), 0.0)
    assert all(tensor.dtype == torch.float32 for tensor in training.model.parameters())
    assert result.figures["reconstruction"] == pytest.approx(
        train_step(exact, pixels(), 0.0).figures["reconstruction"], rel=0.02)


def test_unused_codes_are_moved_to_latents_of_the_batch(state: State, pixels: Pixels) -> None:
    training = state(optimizer=OptimizerConfig(learning_rate=1e-9, warmup_steps=0))
    before = training.model.get_parameter("quantize.embedding.weight").clone()
    train_step(training, pixels(), 0.0)
    after = training.model.get_parameter("quantize.embedding.weight")
    moved = ((after - before).abs().sum(1) > 1e-4).sum().item()
    assert moved >= 8
    assert torch.equal(training.average.tensors["quantize.embedding.weight"][0], after[0])
