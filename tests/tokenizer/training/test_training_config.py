"""Training settings: read back as written, and refused with name, rule and value."""
from typing import Any

import pytest

from tokenizer import configs
from tokenizer.training.config import AdversarialConfig, PerceptualConfig, TrainingConfig

NAN, INFINITY = float("nan"), float("inf")


def test_settings_survive_json() -> None:
    training = TrainingConfig(minutes=2.5, held_out=40, adversarial=AdversarialConfig(weight=0.5))
    assert configs.from_dict(TrainingConfig, configs.to_dict(training)) == training


def test_single_settings_are_replaced_by_name() -> None:
    training = configs.override(TrainingConfig(), [
        "steps=5", "held_out=0.1", "optimizer.clip_norm=none", "adversarial.start=7"])
    assert (training.steps, training.held_out) == (5, 0.1)
    assert training.optimizer.clip_norm is None and training.adversarial.start == 7


@pytest.mark.parametrize(("settings", "message"), [
    ({"batch_size": 0}, "training.batch_size must be at least 1, got 0"),
    ({"num_pictures": 0}, "training.num_pictures must be at least 1, got 0"),
    ({"batch_size": 6, "accumulation": 4}, "accumulation must divide batch_size 6, got 4"),
    ({"mixed_precision": "fp8"}, "mixed_precision is one of no, bf16, fp16, auto, got 'fp8'"),
    ({"held_out_by": "size"}, "held_out_by is hash or name, got 'size'"),
    ({"held_out": -1}, "held_out is a count of keys or a share .*, got -1"),
    ({"held_out": 1.5}, "held_out is a count of keys or a share .*, got 1.5"),
    ({"reconstruction": "l3"}, "training.reconstruction is l1 or l2, got 'l3'"),
    ({"colours": 1.0}, r"training.colours must lie in \[0, 1\), got 1.0"),
    ({"crop_share": 0.0}, r"crop_share must lie in \(0, 1\], got 0.0"),
    ({"ema_decay": 1.0}, r"ema_decay must lie in \[0, 1\), got 1.0"),
    ({"max_skipped_steps": 0}, "max_skipped_steps must be at least 1, got 0"),
    ({"cache_gib": NAN}, "training.cache_gib must be at least 0, got nan"),
    ({"cache_gib": INFINITY}, "training.cache_gib must be at least 0 and finite, got inf"),
    ({"seed": -1}, "training.seed must be at least 0, got -1"),
    ({"checkpoint_minutes": 0.0}, "checkpoint_minutes must be more than 0, got 0.0")])
def test_nonsense_is_refused_with_rule_and_value(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**settings)


@pytest.mark.parametrize(("settings", "message"), [
    ({"weight": -0.5}, "adversarial.weight must be at least 0, got -0.5"),
    ({"weight": NAN}, "adversarial.weight must be at least 0, got nan"),
    ({"lecam_weight": INFINITY}, "adversarial.lecam_weight must be at least 0 and finite, got inf"),
    ({"start": -1}, "adversarial.start must be at least 0, got -1"),
    ({"width": 0}, "adversarial.width must be at least 1, got 0"),
    ({"ramp_steps": -1}, "adversarial.ramp_steps must be at least 0, got -1"),
    ({"r1_every": 0}, "adversarial.r1_every must be at least 1, got 0"),
    ({"adaptive_decay": 1.0}, r"adversarial.adaptive_decay must lie in \[0, 1\), got 1.0"),
    ({"loss": "wgan"}, "adversarial.loss is one of hinge, vanilla, non_saturating, got 'wgan'"),
    ({"norm": "layer"}, "adversarial.norm is one of batch, group, spectral, got 'layer'"),
    ({"max_adaptive_weight": 0.0}, "max_adaptive_weight must be more than 0, got 0.0")])
def test_nonsense_of_the_discriminator_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdversarialConfig(**settings)


@pytest.mark.parametrize("weight", [-1.0, NAN])
def test_a_perceptual_weight_below_0_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match=f"perceptual.weight must be at least 0, got {weight}"):
        PerceptualConfig(weight=weight)


def test_the_discriminator_starts_early_by_its_warm_up_but_not_before_the_first_step() -> None:
    assert AdversarialConfig(start=100, warmup_steps=30).first_step == 70
    assert AdversarialConfig(start=10, warmup_steps=30).first_step == 0


def test_the_budget_is_that_of_steps_and_minutes_and_one_is_needed() -> None:
    assert TrainingConfig(steps=4).budget.is_spent(4, 0.0)
    with pytest.raises(ValueError, match="give steps, minutes or both"):
        _ = TrainingConfig().budget
