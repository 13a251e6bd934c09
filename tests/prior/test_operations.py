"""The gradients written out are those that autograd finds of the plain formulas."""
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.nn import functional

from prior import operations
from prior.operations import product, rms_norm, rotate, swiglu
from prior.transformer import rotations

PLACES = torch.tensor([[0.5, 0.5], [1.5, 2.5], [3.5, 4.5]])


def plain_norm(inputs: Tensor, weight: Tensor) -> Tensor:
    return inputs * (inputs.square().mean(-1, keepdim=True) + 0.1).rsqrt() * weight


def plain_turn(inputs: Tensor, turn: Tensor) -> Tensor:
    first, second = inputs.chunk(2, -1)
    return torch.cat([first * turn[0] - second * turn[1], second * turn[0] + first * turn[1]], -1)


def plain_swiglu(packed: Tensor) -> Tensor:
    return functional.silu(packed[..., :4]) * packed[..., 4:]


OPERATIONS: list[tuple[Callable[..., Tensor], Callable[..., Tensor], list[Tensor]]] = [
    (lambda inputs, weight: rms_norm(inputs, weight, 0.1), plain_norm, [torch.ones(8)]),
    (rotate, plain_turn, [rotations(PLACES, 8)[:, :, None]]),
    (swiglu, plain_swiglu, [])]


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize(("written", "plain", "others"), OPERATIONS)
@pytest.mark.parametrize("contiguous", [True, False])
@pytest.mark.parametrize("alike", [256, 4])
def test_values_and_gradients_are_those_of_the_plain_formula(
        written: Callable[..., Tensor], plain: Callable[..., Tensor], others: list[Tensor],
        contiguous: bool, alike: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "ALIKE", alike)
    inputs = drawn(2, 3, 2, 8).float()
    if not contiguous:  # as queries and keys lie in the packed product
        inputs = inputs.repeat_interleave(3, 2)[:, :, ::3]
    gradients = drawn(5, 2, 3, 2, 8)[1].float()
    found = []
    for operation in (written, plain):
        given = [inputs.clone().requires_grad_(),
                 *(other.clone().requires_grad_(other.ndim == 1) for other in others)]
        outputs = operation(*given)
        outputs.backward(gradients[..., :outputs.shape[-1]])
        found.append([outputs, *(each.grad for each in given if each.requires_grad)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("alike", "stride"), [(256, 16), (8, 32)])
@pytest.mark.parametrize("shape", [(2, 3), (5,)])
def test_products_are_those_of_linear_layers_and_their_rows_lie_apart(
        alike: int, stride: int, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "ALIKE", alike)
    found = []
    for operation in (product, functional.linear):
        inputs, weight = (drawn(*size).float().requires_grad_() for size in ((*shape, 8), (16, 8)))
        outputs = operation(inputs, weight)
        outputs.backward(drawn(*shape, 16).float())
        found.append([outputs, inputs.grad, weight.grad])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert found[0][0].stride(-2) == stride


def test_products_of_mixed_precision_are_computed_in_it() -> None:
    weight = drawn(16, 8).float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = product(drawn(2, 3, 8).float(), weight)
    assert outputs.dtype == torch.bfloat16
    outputs.sum().backward()
    assert weight.grad is not None and weight.grad.dtype == torch.float32


@pytest.mark.parametrize(("written", "plain", "others"), OPERATIONS)
def test_compiled_models_use_the_plain_formula(
        written: Callable[..., Tensor], plain: Callable[..., Tensor], others: list[Tensor],
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.compiler.is_compiling", lambda: True)
    inputs = drawn(2, 3, 2, 8).float().requires_grad_()
    found = written(inputs, *others)
    torch.testing.assert_close(found, plain(inputs, *others))
    assert not isinstance(found.grad_fn, BackwardCFunction)


def test_norms_of_half_precision_are_computed_in_float32() -> None:
    inputs = (drawn(4, 64) * 300).to(torch.bfloat16)
    found = rms_norm(inputs, torch.full((64,), 3.0), 1e-6)
    assert found.dtype == torch.bfloat16
    expected = plain_norm(inputs.double(), torch.full((64,), 3.0, dtype=torch.float64))
    torch.testing.assert_close(found.double(), expected, rtol=2**-8, atol=1e-3)
