"""A training that one process or several can do, with all that they must agree on; for tests."""
import os
import sys
from typing import Any
from unittest import mock

import torch

from tokenizer.training import steps
from tokenizer.training.config import AdversarialConfig, TrainingConfig
from tokenizer.training.loop import train_tokenizer
from tokenizer.training.optim import OptimizerConfig
from tokenizer.training.state import TrainingState
from tokenizer.vqgan.autoencoder import AutoencoderConfig
from tokenizer.vqgan.model import VQGANConfig
from tokenizer.vqgan.quantizers import QuantizerConfig

STEPS = 8
FIRST_HEARD = 3
SPOILT_STEP = 5
"""In it the last process alone sees a loss that is not finite."""

SHAPE = AutoencoderConfig(width=8, channel_multipliers=(1, 2), num_res_blocks=1, patch=4,
                          attention_levels=(), middle_attention=False, latent_channels=8)


def _spoilt_losses(state: TrainingState, *arguments: Any) -> dict[str, torch.Tensor]:
    losses = _sound_losses(state, *arguments)
    accelerator = state.accelerator
    if state.step == SPOILT_STEP and accelerator.process_index + 1 == accelerator.num_processes:
        losses["reconstruction"] = torch.tensor(float("inf"))  # its gradients stay finite
    return losses


_sound_losses = steps._autoencoder_losses


def train(corpus: str, out: str, norm: str, kind: str) -> None:
    """Train with a discriminator and all its terms, revived codes, and a step to be skipped."""
    quantizer = QuantizerConfig(kind=kind, codebook_size=64, code_dim=6, revive_after=2,
                                kmeans=kind == "ema", entropy_temperature=1.0)
    adversarial = AdversarialConfig(
        weight=0.5, start=FIRST_HEARD, warmup_steps=1, ramp_steps=2, width=4, num_layers=2,
        norm=norm, lecam_weight=0.1, r1_weight=1.0, r1_every=2)
    model = VQGANConfig(image_size=(24, 24), autoencoder=SHAPE, quantizer=quantizer)
    training = TrainingConfig(steps=STEPS, batch_size=8, held_out=2, log_every=1,
                              evaluate_every=100, num_pictures=2, adversarial=adversarial,
                              optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=2))
    with mock.patch.object(steps, "_autoencoder_losses", _spoilt_losses):
        train_tokenizer(corpus, out, model, training)


if __name__ == "__main__":
    train(*sys.argv[1:])
    print(os.environ["WORLD_SIZE"])
