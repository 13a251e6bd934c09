"""The adversarial term: its ramp, its smoothed weight, and what restrains the discriminator."""
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tokenizer.training.config import AdversarialConfig
from tokenizer.training.discriminator import NORMS
from tokenizer.training.losses import ADVERSARIAL_LOSSES
from tokenizer.training.state import TrainingState
from tokenizer.training.steps import train_step

State = Callable[..., TrainingState]
Pixels = Callable[..., torch.Tensor]
Started = Callable[..., TrainingState]

FAST = dataclasses.replace(AdversarialConfig().optimizer, learning_rate=5e-3, warmup_steps=0)
"""Rates at which a discriminator shows in twenty steps what it tends to."""


@pytest.fixture
def started(state: State, adversarial: AdversarialConfig) -> Started:
    """Makes a training whose next step is the first that hears the discriminator."""
    def make(settings: dict[str, Any] | None = None, **others: Any) -> TrainingState:
        config = dataclasses.replace(adversarial, **(settings or {}))
        training = state(adversarial=config, **others)
        training.step = config.start
        return training
    return make


def test_the_ramp_rises_evenly_from_the_start() -> None:
    config = AdversarialConfig(start=10, ramp_steps=4)
    assert [config.ramp(step) for step in (9, 10, 11, 13, 14, 99)] == [0, 0.25, 0.5, 1, 1, 1]
    assert AdversarialConfig(start=10, ramp_steps=0).ramp(10) == 1.0


def test_the_term_enters_the_loss_by_its_share_of_the_ramp(started: Started,
                                                           pixels: Pixels) -> None:
    training = started({"ramp_steps": 4})
    for share in (0.25, 0.5):
        figures = train_step(training, pixels(), 0.0).figures
        parts = figures["reconstruction"] + figures["codebook"] + figures["commitment"]
        term = 0.5 * figures["adaptive_weight"] * figures["adversarial"]
        assert figures["loss"] - parts == pytest.approx(share * term, rel=1e-3, abs=1e-5)


def test_the_weight_used_is_the_moving_mean_of_those_measured(started: Started,
                                                              pixels: Pixels) -> None:
    training = started({"adaptive_decay": 0.5})
    measured, used = [], []
    for step in range(3):
        figures = train_step(training, pixels(step), 0.0).figures
        measured.append(figures["measured_weight"])
        used.append(figures["adaptive_weight"])
    first, second, third = measured
    assert used == pytest.approx([first, (first + second) / 2,
                                  ((first + second) / 2 + third) / 2], rel=1e-5)
    assert training.moving["measured_weight"].value == pytest.approx(used[-1], rel=1e-6)


def test_the_weight_never_exceeds_its_cap(started: Started, pixels: Pixels) -> None:
    figures = train_step(started({"max_adaptive_weight": 1e-3}), pixels(), 0.0).figures
    assert figures["adaptive_weight"] == figures["measured_weight"] == pytest.approx(1e-3)


@pytest.mark.parametrize("loss", ADVERSARIAL_LOSSES)
@pytest.mark.parametrize("norm", NORMS)
def test_the_discriminator_learns_with_every_loss_and_normalisation(
        started: Started, pixels: Pixels, loss: str, norm: str) -> None:
    training = started({"loss": loss, "norm": norm, "weight": 1e-9, "optimizer": FAST})
    losses = [train_step(training, pixels(), 0.0).figures["discriminator"] for _ in range(20)]
    assert losses[-1] < 0.8 * losses[0] and training.skipped.total == 0


def test_lecam_waits_for_means_and_keeps_logits_nearer_to_them(started: Started,
                                                               pixels: Pixels) -> None:
    gaps = []
    for weight in (0.0, 10.0):
        training = started({"lecam_weight": weight, "weight": 1e-9})
        figures = [train_step(training, pixels(), 0.0).figures for _ in range(15)]
        gaps.append(figures[-1]["logits_real"] - figures[-1]["logits_fake"])
        assert ["lecam" in step for step in figures[:2]] == [False, weight > 0]
    assert gaps[1] < 0.9 * gaps[0]


def test_means_of_logits_follow_the_figures(started: Started, pixels: Pixels) -> None:
    training = started()
    logits = [train_step(training, pixels(step), 0.0).figures["logits_real"] for step in range(2)]
    assert training.moving["logits_real"].value == pytest.approx(sum(logits) / 2)
    assert training.moving["logits_fake"].count == 2


def test_r1_is_computed_every_so_many_steps_from_the_first(state: State, pixels: Pixels,
                                                           adversarial: AdversarialConfig) -> None:
    config = dataclasses.replace(adversarial, r1_weight=1.0, r1_every=3)
    training = state(adversarial=config)
    found = ["r1" in train_step(training, pixels(step), 0.0).figures for step in range(9)]
    assert [step for step, has_it in enumerate(found) if has_it] == [2, 5, 8]


def test_r1_flattens_the_discriminator(started: Started, pixels: Pixels) -> None:
    slopes = []
    for weight in (1e-9, 10.0):
        training = started({"r1_weight": weight, "r1_every": 1, "weight": 1e-9, "norm": "group",
                            "optimizer": FAST})
        slopes.append([train_step(training, pixels(), 0.0).figures["r1"] for _ in range(20)][-1])
    assert slopes[1] < 0.3 * slopes[0]


@pytest.mark.parametrize("norm", NORMS)
def test_half_precision_trains_on_finite_values_with_all_terms(started: Started, pixels: Pixels,
                                                               norm: str) -> None:
    training = started({"norm": norm, "lecam_weight": 0.1, "r1_weight": 1.0, "r1_every": 2},
                       mixed_precision="bf16")
    results = [train_step(training, pixels(step), 0.0) for step in range(10)]
    assert training.skipped.total == 0 and not any(result.skipped for result in results)
    assert all(tensor.isfinite().all() and tensor.dtype == torch.float32
               for tensor in (*training.model.parameters(),
                              *training.wrapped_discriminator.parameters()))


def test_half_precision_measures_nearly_the_weight_of_float32(started: Started,
                                                              pixels: Pixels) -> None:
    found = [train_step(started(mixed_precision=precision), pixels(), 0.0).figures
             for precision in ("no", "bf16")]
    assert found[1]["measured_weight"] == pytest.approx(found[0]["measured_weight"], rel=0.1)
