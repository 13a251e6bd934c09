"""Parts of the blocks: RMS norm, turns by cells, SwiGLU and its products.

On a CPU their gradients are written out: what autograd does of itself goes over the same memory two
to three times as often. Elsewhere, and where `torch.compile` joins operations anyway, they are
plain formulas.

Letters: B rows, T positions, N heads, D channels of a head, C channels, H hidden channels.
"""
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

ALIKE, SPARE = 256, 16
"""Rows of a multiple of so many numbers lie so many numbers apart: where all begin at the same
places of the cache, products take up to 8 % longer."""


def rms_norm(inputs: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """RMS norm over the last axis, computed in float32 (Zhang and Sennrich, arXiv:1910.07467).

    Args:
        inputs: ``(..., C)`` of any float type, which the result has too.
        weight: ``(C,)``.
        epsilon: added to the mean square.
    """
    values = inputs.float()
    if _by_hand(values):
        return _RMSNorm.apply(values, weight, epsilon).to(inputs.dtype)
    return functional.rms_norm(values, weight.shape, weight, epsilon).to(inputs.dtype)


def rotate(inputs: Tensor, turn: Tensor) -> Tensor:
    """Turn the channel pairs ``(d, d + D/2)`` of ``(..., D)``.

    Args:
        turn: cosines and sines, ``(2, ..., D / 2)``; each broadcasts to half of the inputs.
    """
    turn = turn.to(inputs.dtype)
    if _by_hand(inputs):
        return _Turn.apply(inputs, turn)
    first, second = inputs.chunk(2, -1)
    cosines, sines = turn
    return torch.cat([first * cosines - second * sines, second * cosines + first * sines], -1)


def product(inputs: Tensor, weight: Tensor) -> Tensor:
    """`functional.linear` of inputs ``(..., C)`` and a weight ``(K, C)``, ``(..., K)``."""
    if _by_hand(inputs) and not torch.is_autocast_enabled("cpu"):
        return _Product.apply(inputs, weight)
    return functional.linear(inputs, weight)


def swiglu(packed: Tensor) -> Tensor:
    """``silu(gate) * up`` of gate and up beside each other, ``(..., 2 H)`` to ``(..., H)``.

    Source: Shazeer 2020, arXiv:2002.05202.
    """
    if _by_hand(packed):
        return _SwiGLU.apply(packed)
    gate, up = packed.chunk(2, -1)
    return functional.silu(gate) * up


def _by_hand(inputs: Tensor) -> bool:
    """Whether gradients are those written out here."""
    return inputs.device.type == "cpu" and not torch.compiler.is_compiling()


class _RMSNorm(torch.autograd.Function):
    """Its gradient is that of torch's layer norm, and what that takes off for the mean."""

    @staticmethod
    def forward(context: Any, inputs: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        norm = torch.linalg.vector_norm(inputs, dim=-1, keepdim=True)
        scale = norm.square_().div_(inputs.shape[-1]).add_(epsilon).rsqrt_()
        normed = inputs * scale
        # The kernel of the gradient would copy inputs that are not contiguous.
        context.is_normed = not inputs.is_contiguous()
        context.save_for_backward(normed if context.is_normed else inputs, scale, weight)
        return normed * weight if context.is_normed else normed.mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        saved, scale, weight = context.saved_tensors
        inverse = torch.ones_like(scale) if context.is_normed else scale
        of_inputs, of_weight, _ = torch.ops.aten.native_layer_norm_backward(
            gradients, saved, weight.shape, torch.zeros_like(scale), inverse, weight, None,
            [True, True, False])
        mean = (gradients @ weight).unsqueeze(-1).div_(weight.shape[0])
        of_inputs.add_(mean.mul_(inverse))
        return of_inputs.mul_(scale) if context.is_normed else of_inputs, of_weight, None


class _Turn(torch.autograd.Function):
    """Its gradient is the turn back."""

    @staticmethod
    def forward(context: Any, inputs: Tensor, turn: Tensor) -> Tensor:
        context.save_for_backward(turn)
        return _turned(inputs, turn[0], turn[1])

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradients: Tensor) -> tuple[Tensor, None]:
        (turn,) = context.saved_tensors
        return _turned(gradients, turn[0], -turn[1]), None


def _turned(inputs: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    first, second = inputs.chunk(2, -1)
    outputs = inputs * torch.cat([cosines, cosines], -1)
    ahead, behind = outputs.chunk(2, -1)
    ahead.addcmul_(second, sines, value=-1)
    behind.addcmul_(first, sines)
    return outputs


class _Product(torch.autograd.Function):
    """Rows of outputs, and of gradients of inputs, lie apart."""

    @staticmethod
    def forward(context: Any, inputs: Tensor, weight: Tensor) -> Tensor:
        context.save_for_backward(inputs, weight)
        outputs = _empty(inputs, weight.shape[0])
        torch.mm(inputs.flatten(0, -2), weight.t(), out=outputs.flatten(0, -2))
        return outputs

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradients: Tensor) -> tuple[Tensor, Tensor]:
        inputs, weight = context.saved_tensors
        rows, outputs = gradients.flatten(0, -2), _empty(gradients, weight.shape[1])
        torch.mm(rows, weight, out=outputs.flatten(0, -2))
        return outputs, rows.t() @ inputs.flatten(0, -2)


class _SwiGLU(torch.autograd.Function):
    """Both parts of its gradient go straight to their places in one tensor."""

    @staticmethod
    def forward(context: Any, packed: Tensor) -> Tensor:
        gate, up = packed.chunk(2, -1)
        opened = functional.silu(gate)
        context.save_for_backward(packed, opened)
        return torch.mul(opened, up, out=_empty(packed, up.shape[-1]))

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradients: Tensor) -> Tensor:
        packed, opened = context.saved_tensors
        gate, up = packed.chunk(2, -1)
        outputs = _empty(packed, packed.shape[-1])
        of_gate, of_up = outputs.chunk(2, -1)
        torch.mul(gradients, opened, out=of_up)
        torch.mul(gradients, up, out=of_gate)
        torch.ops.aten.silu_backward.grad_input(of_gate, gate, grad_input=of_gate)
        return outputs


def _empty(like: Tensor, size: int) -> Tensor:
    """A tensor ``(..., size)``, otherwise like ``(..., C)``, with rows that do not lie `ALIKE`."""
    spare = 0 if size % ALIKE else SPARE
    return like.new_empty(*like.shape[:-1], size + spare)[..., :size]
