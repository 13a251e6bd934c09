"""Tiny tokenizers and pixels for the tests of training."""
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tokenizer.training.config import AdversarialConfig, TrainingConfig
from tokenizer.training.optim import OptimizerConfig
from tokenizer.training.processes import build_accelerator
from tokenizer.training.state import TrainingState
from tokenizer.vqgan.autoencoder import AutoencoderConfig
from tokenizer.vqgan.model import VQGANConfig
from tokenizer.vqgan.quantizers import QuantizerConfig

ADVERSARIAL = AdversarialConfig(weight=0.5, start=4, warmup_steps=2, ramp_steps=0, width=4,
                                num_layers=2)


def tiny_model(**modality: Any) -> VQGANConfig:
    """24 px images to 3 x 3 codes of 16, with revival after three idle batches."""
    shape = AutoencoderConfig(width=8, channel_multipliers=(1, 2), num_res_blocks=1, patch=4,
                              attention_levels=(), middle_attention=False, latent_channels=8)
    return VQGANConfig(modality=modality or {"name": "image"}, image_size=(24, 24),
                       autoencoder=shape, quantizer=QuantizerConfig(codebook_size=16, code_dim=4,
                                                                    revive_after=3))


def tiny_training(**settings: Any) -> TrainingConfig:
    """Ten steps of four images with a measurement after every fifth."""
    rates = OptimizerConfig(learning_rate=2e-3, warmup_steps=2)
    return TrainingConfig(**{"steps": 10, "batch_size": 4, "held_out": 2, "optimizer": rates,
                             "log_every": 2, "evaluate_every": 5, "num_pictures": 2, **settings})


def tiny_state(**settings: Any) -> TrainingState:
    """A training of `tiny_model` before its first step."""
    training = tiny_training(**settings)
    return TrainingState(tiny_model(), training, build_accelerator(training))


def noise(seed: int = 0, count: int = 4) -> torch.Tensor:
    """Random pixels ``(count, 24, 24, 3)`` uint8."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 24, 24, 3), generator=generator, dtype=torch.uint8)


@pytest.fixture
def model() -> Callable[..., VQGANConfig]:
    return tiny_model


@pytest.fixture
def training() -> Callable[..., TrainingConfig]:
    return tiny_training


@pytest.fixture
def state() -> Callable[..., TrainingState]:
    return tiny_state


@pytest.fixture
def pixels() -> Callable[..., torch.Tensor]:
    return noise


@pytest.fixture
def adversarial() -> AdversarialConfig:
    return ADVERSARIAL


@pytest.fixture
def label_folder(tmp_path: Path) -> Path:
    """Six maps of classes 0 to 2, with 9 where there is none."""
    folder = tmp_path / "maps"
    folder.mkdir()
    for index in range(6):
        labels = np.full((30, 30), index % 3, np.uint8)
        labels[index:index + 10, 5:20] = (index + 1) % 3
        labels[:2] = 9
        Image.fromarray(labels).save(folder / f"map-{index}.png")
    return folder


@pytest.fixture
def depth_folder(tmp_path: Path) -> Path:
    """Six depth maps as float32 arrays."""
    folder = tmp_path / "depth"
    folder.mkdir()
    for index in range(6):
        np.save(folder / f"depth-{index}.npy", np.add.outer(
            np.arange(30, dtype=np.float32), np.arange(26, dtype=np.float32) * index))
    return folder
