"""A step of every kind of quantizer, and of modalities with ranges of their own."""
import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from tokenizer.training.config import PerceptualConfig, TrainingConfig
from tokenizer.training.optim import OptimizerConfig
from tokenizer.training.perceptual import PerceptualDistance
from tokenizer.training.state import TrainingState
from tokenizer.training.steps import train_step
from tokenizer.vqgan.autoencoder import AutoencoderConfig
from tokenizer.vqgan.model import VQGANConfig
from tokenizer.vqgan.quantizers import QUANTIZERS, QuantizerConfig

OWN: dict[str, dict[str, Any]] = {
    "fsq": {"levels": (4, 4), "code_dim": 2}, "residual": {"depth": 2}}
"""Settings that a kind needs for 16 codes."""

Pixels = Callable[..., torch.Tensor]


def new_state(kind: str = "cosine", modality: dict[str, Any] | None = None,
              **training: Any) -> TrainingState:
    shape = AutoencoderConfig(width=8, channel_multipliers=(1, 2), num_res_blocks=1, patch=4,
                              attention_levels=(), middle_attention=False, latent_channels=8)
    quantizer = QuantizerConfig(kind=kind, revive_after=3,
                                **{"codebook_size": 16, "code_dim": 4, **OWN.get(kind, {})})
    config = VQGANConfig(modality=modality or {"name": "image"}, image_size=(24, 24),
                         autoencoder=shape, quantizer=quantizer)
    settings = TrainingConfig(steps=30, batch_size=4, **training)
    return TrainingState(config, settings, Accelerator(cpu=True))


@pytest.mark.parametrize("kind", sorted(QUANTIZERS))
def test_every_kind_of_quantizer_learns_and_resumes_exactly(kind: str, pixels: Pixels) -> None:
    rates = OptimizerConfig(learning_rate=5e-3, warmup_steps=0)
    training = new_state(kind, optimizer=rates)
    losses = [train_step(training, pixels(), 0.0).figures["reconstruction"] for _ in range(20)]
    assert losses[-1] < 0.95 * losses[0]
    resumed = new_state(kind, optimizer=rates)
    resumed.load_state_dict(copy.deepcopy(training.state_dict()))
    figures = [[train_step(state, pixels(), 0.5).figures for _ in range(3)]
               for state in (training, resumed)]
    assert figures[0] == figures[1]
    weights = [state.model.state_dict() for state in (training, resumed)]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_the_reconstruction_loss_is_the_one_asked_for(pixels: Pixels) -> None:
    found = [train_step(new_state(reconstruction=kind), pixels(), 0.0) for kind in ("l1", "l2")]
    difference = found[0].outputs - (pixels().permute(0, 3, 1, 2).float() / 127.5 - 1)
    losses = [result.figures["reconstruction"] for result in found]
    assert losses == pytest.approx([difference.abs().mean().item(),
                                    difference.square().mean().item()], rel=1e-5)


def test_the_temperature_of_gumbel_follows_the_budget(pixels: Pixels) -> None:
    training = new_state("gumbel")
    train_step(training, pixels(), 1.0)
    temperature = training.model.quantize.temperature  # type: ignore[union-attr]
    assert temperature == pytest.approx(training.model.config.quantizer.temperatures[1])


def test_the_perceptual_term_sees_images_centred_on_zero(pixels: Pixels) -> None:
    class Recorder(PerceptualDistance):
        seen: list[torch.Tensor]

        def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
            self.seen = [first.detach(), second.detach()]
            return (first - second).square().mean((1, 2, 3))
    recorder = Recorder()
    training = new_state(modality={"name": "image", "input_range": (0.0, 1.0)},
                         perceptual=PerceptualConfig(weight=1.0))
    batch = pixels()
    train_step(training, batch, 0.0, recorder)
    expected = batch.permute(0, 3, 1, 2).float() / 127.5 - 1
    torch.testing.assert_close(recorder.seen[1], expected, atol=1e-5, rtol=0)
    assert recorder.seen[0].shape == expected.shape
