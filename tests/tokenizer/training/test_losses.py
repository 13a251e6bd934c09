"""Adversarial losses by hand, penalties by hand, and the adaptive weight of known gradients."""
import math

import pytest
import torch

from tokenizer.training.losses import (
    ADVERSARIAL_LOSSES,
    adaptive_weight,
    last_layer_gradients,
    lecam_penalty,
    r1_penalty,
)

REAL, FAKE = torch.tensor([2.0, 0.0]), torch.tensor([-3.0, 1.0])
LOG = math.log


def surprise(logit: float) -> float:
    """``-log sigmoid(logit)``: what it costs to hold real what the logit says."""
    return LOG(1 + math.exp(-logit))


@pytest.mark.parametrize(("name", "expected"), [
    ("hinge", 0.5 * ((0 + 1) / 2 + (0 + 2) / 2)),
    ("vanilla", 0.5 * ((surprise(2) + LOG(2)) / 2 + (surprise(3) + surprise(-1)) / 2)),
    ("non_saturating", 0.5 * ((surprise(2) + LOG(2)) / 2 + (surprise(3) + surprise(-1)) / 2))])
def test_discriminator_losses_by_hand(name: str, expected: float) -> None:
    assert ADVERSARIAL_LOSSES[name].discriminator(REAL, FAKE).item() == pytest.approx(expected)


@pytest.mark.parametrize(("name", "expected"), [
    ("hinge", 1.0), ("vanilla", 1.0),
    ("non_saturating", (surprise(-3) + surprise(1)) / 2)])
def test_generator_losses_by_hand(name: str, expected: float) -> None:
    assert ADVERSARIAL_LOSSES[name].generator(FAKE).item() == pytest.approx(expected)


@pytest.mark.parametrize("name", ADVERSARIAL_LOSSES)
def test_the_loss_at_chance_is_that_of_logits_of_zero(name: str) -> None:
    loss = ADVERSARIAL_LOSSES[name]
    assert loss.discriminator(torch.zeros(3), torch.zeros(3)).item() == pytest.approx(loss.chance)


@pytest.mark.parametrize("name", ADVERSARIAL_LOSSES)
def test_both_sides_pull_the_right_way(name: str) -> None:
    real, fake = (torch.zeros(1, requires_grad=True) for _ in range(2))
    ADVERSARIAL_LOSSES[name].discriminator(real, fake).backward()
    assert real.grad is not None and fake.grad is not None
    assert real.grad.item() < 0 < fake.grad.item()
    fake.grad = None
    ADVERSARIAL_LOSSES[name].generator(fake).backward()
    assert fake.grad is not None and fake.grad.item() < 0


def test_the_non_saturating_loss_pulls_hardest_where_fakes_are_seen_through() -> None:
    logits = torch.tensor([-20.0, 20.0], requires_grad=True)
    ADVERSARIAL_LOSSES["non_saturating"].generator(logits).backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == pytest.approx([-0.5, 0.0], abs=1e-6)


@pytest.mark.parametrize("name", ADVERSARIAL_LOSSES)
def test_losses_of_huge_half_precision_logits_are_finite_and_float32(name: str) -> None:
    logits = torch.tensor([60000.0, -60000.0], dtype=torch.float16)
    for found in (ADVERSARIAL_LOSSES[name].discriminator(logits, logits),
                  ADVERSARIAL_LOSSES[name].generator(logits)):
        assert found.dtype == torch.float32 and found.isfinite()


def test_a_sure_discriminator_has_no_hinge_loss_and_no_gradient() -> None:
    real = torch.tensor([1.5], requires_grad=True)
    loss = ADVERSARIAL_LOSSES["hinge"].discriminator(real, torch.tensor([-1.5]))
    loss.backward()
    assert loss.item() == 0 and real.grad is not None and real.grad.item() == 0


def test_lecam_draws_logits_to_the_mean_of_the_other_side() -> None:
    # real: (2 + 1)^2 and (0 + 1)^2, fake: (-3 - 0.5)^2 and (1 - 0.5)^2.
    found = lecam_penalty(REAL, FAKE, mean_real=0.5, mean_fake=-1.0)
    assert found.item() == pytest.approx((9 + 1) / 2 + (12.25 + 0.25) / 2)


def test_r1_is_half_the_squared_gradient_of_each_image() -> None:
    images = torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1, 1, 1).requires_grad_(True)
    slope = torch.tensor(2.0, requires_grad=True)
    found = r1_penalty(slope * images.square(), images)  # gradients 4, 8, 12
    assert found.item() == pytest.approx(0.5 * (16 + 64 + 144) / 3)
    found.backward()
    assert slope.grad is not None and slope.grad.item() == pytest.approx(found.item())


def gradients(first: float, second: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Gradients of two losses of which the first is ``first`` and the second ``second`` times the
    sum of outputs ``(3w, 4w)``: rows of ``first * (3, 4)`` and ``second * (3, 4)``."""
    weight = torch.nn.Parameter(torch.ones(2, dtype=dtype))
    outputs = (weight * torch.tensor([3.0, 4.0], dtype=dtype)).float()
    return last_layer_gradients((first * outputs.sum(), second * outputs.sum()), outputs, weight)


def test_gradients_at_the_last_layer_by_hand() -> None:
    assert gradients(2.0, 0.5).tolist() == [pytest.approx([6.0, 8.0]), pytest.approx([1.5, 2.0])]
    assert gradients(0.0, 1.0)[0].tolist() == [0.0, 0.0]


def test_adaptive_weight_is_the_ratio_of_gradient_norms() -> None:
    assert adaptive_weight(gradients(2.0, 0.5), 1e4).item() == pytest.approx(10 / 2.5001)


def test_adaptive_weight_stays_below_its_maximum_and_finite_for_no_gradient() -> None:
    assert adaptive_weight(gradients(2.0, 0.0), 1e4).item() == 1e4
    assert adaptive_weight(gradients(2.0, 0.01), 3.0).item() == 3.0


@pytest.mark.parametrize(("first", "second"), [(2.0 ** -26, 1e-9), (1e9, 1e6)])
def test_gradients_beyond_the_range_of_float16_are_still_compared(first: float,
                                                                  second: float) -> None:
    found = gradients(first, second, torch.float16)
    assert found.norm(dim=1).tolist() == pytest.approx([5 * first, 5 * second], rel=1e-2)


def test_both_graphs_can_still_be_used_after_the_gradients_are_known() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    outputs = weight * 3.0
    losses = outputs.sum(), outputs.square().sum()
    found = last_layer_gradients(losses, outputs, weight)
    assert not found.requires_grad and weight.grad is None
    (losses[0] + losses[1]).backward()
    assert weight.grad is not None and weight.grad.tolist() == pytest.approx([21.0, 21.0])
