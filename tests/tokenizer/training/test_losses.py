"""Adversarial losses by hand, and the adaptive weight between two losses with known gradients."""
import pytest
import torch

from tokenizer.training.losses import adaptive_weight, generator_loss, hinge_loss


def test_hinge_loss_by_hand() -> None:
    real, fake = torch.tensor([2.0, 0.0]), torch.tensor([-3.0, 1.0])
    # real: (0 + 1) / 2, fake: (0 + 2) / 2, and half of their sum.
    assert hinge_loss(real, fake).item() == pytest.approx(0.75)


def test_a_sure_discriminator_has_no_loss_and_no_gradient() -> None:
    real = torch.tensor([1.5], requires_grad=True)
    loss = hinge_loss(real, torch.tensor([-1.5]))
    loss.backward()
    assert loss.item() == 0 and real.grad is not None and real.grad.item() == 0


def test_the_generator_wants_high_logits() -> None:
    assert generator_loss(torch.tensor([3.0, 1.0])).item() == -2.0


def losses(first: float, second: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two losses whose gradients have norms ``5 * first`` and ``5 * second``, and their weight."""
    weight = torch.nn.Parameter(torch.zeros(2))
    direction = torch.tensor([3.0, 4.0])
    return first * (weight * direction).sum(), second * (weight * direction).sum(), weight


def test_adaptive_weight_is_the_ratio_of_gradient_norms() -> None:
    assert adaptive_weight(*losses(2.0, 0.5), maximum=1e4).item() == pytest.approx(10 / 2.5001)


def test_adaptive_weight_stays_below_its_maximum_and_finite_for_no_gradient() -> None:
    assert adaptive_weight(*losses(2.0, 0.0), maximum=1e4).item() == 1e4
    assert adaptive_weight(*losses(2.0, 0.01), maximum=3.0).item() == 3.0


def test_gradients_too_small_for_float16_are_still_compared() -> None:
    weight = torch.nn.Parameter(torch.ones(2, dtype=torch.float16))
    smallest = 2.0 ** -25  # rounds to 0 in float16
    first, second = weight.float().sum() * smallest * 3, weight.float().sum() * smallest * 1e6
    found = adaptive_weight(first, second, weight, maximum=1e4)
    norm = 2 ** 0.5 * smallest
    assert found.item() == pytest.approx(3 * norm / (1e6 * norm + 1e-4), rel=1e-2)


def test_both_graphs_can_still_be_used_after_the_weight_is_known() -> None:
    first, second, weight = losses(1.0, 1.0)
    factor = adaptive_weight(first, second, weight, maximum=1e4)
    assert not factor.requires_grad and weight.grad is None
    (first + factor * second).backward()
    assert weight.grad is not None
