"""Steps whose values are not finite: nothing changes, they are counted, training goes on."""
import dataclasses
import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from tokenizer.training.config import AdversarialConfig
from tokenizer.training.discriminator import NORMS
from tokenizer.training.divergence import DivergedError
from tokenizer.training.processes import build_accelerator
from tokenizer.training.state import TrainingState
from tokenizer.training.steps import train_step

State = Callable[..., TrainingState]
Pixels = Callable[..., Tensor]
COUNTS = ("step", "skipped", "sums")
ESTIMATES = ("weight.0._u", "weight.0._v")
"""Ends of the names of spectral normalisation's singular vectors, which every look refines."""


def tensors(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of nested containers, tensors as copies, by its path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in COUNTS or name.startswith("/optimizer"):
                yield from tensors(inner, f"{name}/{key}")
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from tensors(inner, f"{name}/{index}")
    else:
        yield name, value.clone() if isinstance(value, Tensor) else value


def differing(state: TrainingState, before: dict[str, Any]) -> list[str]:
    """Paths of what is no longer as it was; apart from rates, which follow the step, and estimates,
    which follow from the weights."""
    after = dict(tensors(state.state_dict()))
    return [name for name in before.keys() | after.keys()
            if not name.endswith(("/lr", *ESTIMATES)) and not (
        torch.equal(before[name], after[name]) if isinstance(before.get(name), Tensor)
        else before.get(name) == after.get(name))]


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[[TrainingState, str], None]:
    """Makes the reconstruction loss or the discriminator's return NaN until undone."""
    def spoil(state: TrainingState, part: str) -> None:
        if part == "reconstruction":
            monkeypatch.setattr(type(state.modality), "reconstruction_loss",
                                lambda self, outputs, *_: outputs.mean() * float("nan"))
        else:
            monkeypatch.setattr("tokenizer.training.adversarial.lecam_penalty",
                                lambda real, fake, *means: real.mean() * float("inf"))
    return spoil


@pytest.fixture
def running(state: State, pixels: Pixels, adversarial: AdversarialConfig
            ) -> Callable[..., TrainingState]:
    """Makes a training that hears its discriminator, six steps old."""
    def make(norm: str, **settings: Any) -> TrainingState:
        config = dataclasses.replace(adversarial, lecam_weight=0.1, norm=norm)
        training = state(adversarial=config, **settings)
        for step in range(6):
            train_step(training, pixels(step), 0.0)
        return training
    return make


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_step_that_is_not_finite_changes_nothing_but_the_count(
        running: Callable[..., TrainingState], pixels: Pixels, accumulation: int, norm: str,
        broken: Callable[[TrainingState, str], None]) -> None:
    training = running(norm, accumulation=accumulation)
    before = dict(tensors(training.state_dict()))
    broken(training, "reconstruction")
    result = train_step(training, pixels(6), 0.0)
    assert differing(training, before) == []
    assert result.figures == {} and "reconstruction" in result.skipped
    assert (training.step, training.skipped.total, training.skipped.in_a_row) == (7, 1, 1)
    assert all(p.grad is None for p in training.model.parameters())


@pytest.mark.parametrize("norm", NORMS)
def test_a_discriminator_that_is_not_finite_stays_as_it_was_while_the_autoencoder_learns(
        running: Callable[..., TrainingState], pixels: Pixels, norm: str,
        broken: Callable[[TrainingState, str], None]) -> None:
    training = running(norm)
    before = dict(tensors(training.state_dict()))
    broken(training, "discriminator")
    result = train_step(training, pixels(6), 0.0)
    changed = differing(training, before)
    assert not [name for name in changed if name.startswith(("/discriminator", "/moving/logits"))]
    assert [name for name in changed if name.startswith("/model/decoder")]
    assert "reconstruction" in result.figures and "discriminator" not in result.figures
    assert training.skipped.total == 1
    assert all(p.grad is None for p in training.wrapped_discriminator.parameters())


def test_gradients_that_are_not_finite_are_kept_from_the_weights(
        running: Callable[..., TrainingState], pixels: Pixels,
        monkeypatch: pytest.MonkeyPatch) -> None:
    training = running("batch")
    before = dict(tensors(training.state_dict()))
    weight = training.model.last_layer
    handle = weight.register_hook(lambda gradient: gradient * float("inf"))
    monkeypatch.setattr("tokenizer.training.adversarial.last_layer_gradients",
                        lambda *_: torch.ones(2, 3))
    result = train_step(training, pixels(6), 0.0)
    handle.remove()
    assert differing(training, before) == [] and result.skipped.keys() == {"gradient_norm"}


def test_training_goes_on_after_a_skipped_step_as_if_it_had_not_been(
        state: State, pixels: Pixels, broken: Callable[[TrainingState, str], None],
        monkeypatch: pytest.MonkeyPatch) -> None:
    plain, skipping = state(), state()
    train_step(plain, pixels(0), 0.0)
    train_step(skipping, pixels(0), 0.0)
    with monkeypatch.context():
        broken(skipping, "reconstruction")
        train_step(skipping, pixels(1), 0.0)
        monkeypatch.undo()
    plain.step = skipping.step  # seeds and rates follow the step
    for training in (plain, skipping):
        train_step(training, pixels(2), 0.0)
    assert differing(skipping, dict(tensors(plain.state_dict()))) == []


def test_too_many_skipped_in_a_row_end_the_training(
        state: State, pixels: Pixels, broken: Callable[[TrainingState, str], None]) -> None:
    training = state(max_skipped_steps=2, mixed_precision="bf16")
    train_step(training, pixels(0), 0.0)
    broken(training, "reconstruction")
    train_step(training, pixels(1), 0.0)
    with pytest.raises(DivergedError, match=r"2 steps in a row, .*at step 3 \(reconstruction nan, "
                                            r".*learning_rate below 0.002 or with "
                                            r"training.mixed_precision=no"):
        train_step(training, pixels(2), 0.0)
    assert training.step == 2


def scaled(adversarial: AdversarialConfig, training: Callable[..., Any], model: Callable[..., Any],
           scale: float) -> TrainingState:
    """A state that scales its losses as fp16 does, without a GPU; the autoencoder computes in
    float32, the discriminator in float16 where the autoencoder hears it."""
    settings = training(adversarial=adversarial)
    accelerator = build_accelerator(settings)
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=1000)
    state = TrainingState(model(), settings, accelerator)
    accelerator.native_amp, accelerator.state._mixed_precision = True, "fp16"
    return state


def test_scaled_losses_train_both_networks_as_plain_ones_do(
        state: State, adversarial: AdversarialConfig, training: Callable[..., Any],
        model: Callable[..., Any], pixels: Pixels) -> None:
    results = []
    for each in (state(adversarial=adversarial), scaled(adversarial, training, model, 2.0 ** 12)):
        each.step = adversarial.start
        results.append([train_step(each, pixels(step), 0.0).figures for step in range(3)])
    for plain, found in zip(*results, strict=True):
        assert found == pytest.approx(plain, rel=2e-2, abs=1e-4)


def test_a_scale_too_large_is_halved_until_steps_are_taken(
        adversarial: AdversarialConfig, training: Callable[..., Any], model: Callable[..., Any],
        pixels: Pixels) -> None:
    state = scaled(adversarial, training, model, 2.0 ** 30)
    state.step = adversarial.start
    before = dict(tensors(state.state_dict()))
    scaler = state.accelerator.scaler
    assert train_step(state, pixels(), 0.0).skipped
    assert scaler.get_scale() == 2.0 ** 29
    assert {name.split("/")[1] for name in differing(state, before)} <= {"scaler"}
    while state.skipped.in_a_row:
        train_step(state, pixels(), 0.0)
    assert 1 <= state.skipped.total < 20 and scaler.get_scale() < 2.0 ** 30
    buffer = io.BytesIO()
    torch.save(state.state_dict(), buffer)
    buffer.seek(0)
    again = scaled(adversarial, training, model, 1.0)
    again.load_state_dict(torch.load(buffer, weights_only=True))
    for each in (state, again):
        train_step(each, pixels(), 0.0)
    assert again.skipped == state.skipped
    assert differing(again, dict(tensors(state.state_dict()))) == []
