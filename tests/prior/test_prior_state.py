"""Scaled losses, as fp16 needs them, change nothing but the range of the gradients."""
import io

import pytest
import torch
from drawn_codes import conditions, mapped_stream, tiny_training

from prior.loading.batches import Batches
from prior.model import PriorConfig
from prior.recipes import tiny
from prior.state import TrainingState
from tokenizer.tokens import TokenCorpus
from tokenizer.training.processes import build_accelerator

SCALE = 2.0 ** 12


def build_state(config: PriorConfig, scale: float | None) -> TrainingState:
    """A state that scales its losses as fp16 does, yet computes in float32, so without a GPU."""
    training = tiny_training("steps=4", "batch_size=8", "optimizer.clip_norm=0.5")
    accelerator = build_accelerator(training)
    if scale is not None:
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=2)
    state = TrainingState(config, training, accelerator)
    if scale is not None:
        accelerator.native_amp, accelerator.state._mixed_precision = True, "fp16"
    return state


@pytest.fixture
def config(corpus: TokenCorpus) -> PriorConfig:
    return PriorConfig.of(corpus, conditions=conditions("label"), transformer=tiny().transformer)


@pytest.fixture
def batches(corpus: TokenCorpus, config: PriorConfig) -> Batches:
    return Batches(mapped_stream(corpus), config.layout, 8, 0, {}, 0.0)


def train(state: TrainingState, batches: Batches, num_steps: int) -> None:
    for _ in range(num_steps):
        state.train_step(batches.batch(state.step), 0.0)


def test_gradients_are_clipped_at_their_own_size(config: PriorConfig, batches: Batches) -> None:
    plain = build_state(config, None)
    train(plain, batches, 2)
    scaled = build_state(config, SCALE)
    train(scaled, batches, 2)
    assert scaled.take_figures() == pytest.approx(plain.take_figures(), rel=1e-5)
    for name, tensor in plain.model.state_dict().items():
        torch.testing.assert_close(scaled.model.state_dict()[name], tensor)


def test_the_scale_goes_on_where_it_was(config: PriorConfig, batches: Batches) -> None:
    first = build_state(config, SCALE)
    train(first, batches, 3)
    buffer = io.BytesIO()
    torch.save(first.state_dict(), buffer)
    buffer.seek(0)
    again = build_state(config, SCALE)
    again.load_state_dict(torch.load(buffer, weights_only=True))
    scaler = again.accelerator.scaler
    assert scaler is not None and scaler.get_scale() == 2 * SCALE
    assert scaler.state_dict() == first.accelerator.scaler.state_dict()


def test_weights_in_parts_are_refused_with_scaled_losses() -> None:
    with pytest.raises(ValueError, match="shard_weights does not go with mixed_precision=fp16"):
        tiny_training("shard_weights=true", "mixed_precision=fp16")
