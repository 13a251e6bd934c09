"""Quantizers that look nothing up: FSQ and LFQ."""
import itertools
import math

import pytest
import torch
from small_quantizers import latents_of
from torch import Tensor

from tokenizer.vqgan.quantizers import QuantizerConfig, build_quantizer
from tokenizer.vqgan.quantizers.lfq import LFQQuantizer, joint_chances


def fsq(*levels: int) -> torch.nn.Module:
    return build_quantizer(QuantizerConfig(kind="fsq", levels=levels, code_dim=len(levels),
                                           codebook_size=math.prod(levels)))


def lfq(code_dim: int, **changes: float) -> LFQQuantizer:
    quantizer = build_quantizer(QuantizerConfig(kind="lfq", code_dim=code_dim,
                                                codebook_size=1 << code_dim, **changes))
    assert isinstance(quantizer, LFQQuantizer)
    return quantizer


def test_fsq_values_are_evenly_spaced_and_codes_count_the_first_channel_fastest() -> None:
    latents = fsq(5, 4).codes_to_latents(torch.arange(20).view(1, 1, 20))[0, :, 0]
    assert latents[0].tolist() == [-1, -0.5, 0, 0.5, 1] * 4
    assert latents[1].tolist() == [value for value in (-1, -0.5, 0, 0.5) for _ in range(5)]


@pytest.mark.parametrize("levels", [(3,), (4,), (5,), (7,), (8,), (8, 8, 4, 4), (3, 5)])
def test_fsq_reaches_every_code_and_no_other(levels: tuple[int, ...]) -> None:
    quantizer = fsq(*levels)
    line = torch.linspace(-12, 12, 481)
    for channel, count in enumerate(levels):
        points = torch.zeros(len(line), len(levels))
        points[:, channel] = line
        codes = quantizer.encode(latents_of(points)).flatten()
        place = math.prod(levels[:channel])
        indices = codes // place % count
        assert indices.unique().tolist() == list(range(count))
        assert (indices.diff() >= 0).all()


@pytest.mark.parametrize("count", [1002, 1003, 4096])
def test_fsq_of_many_levels_stays_within_them(count: int) -> None:
    points = torch.tensor([[-100.0], [0.0], [100.0]])
    codes = fsq(count).encode(latents_of(points)).flatten().tolist()
    assert codes == [0, count // 2, count - 1]


def test_fsq_latents_of_zero_take_the_middle_level() -> None:
    found = fsq(5, 4)(torch.zeros(1, 2, 1, 1))
    assert found.latents.flatten().tolist() == [0.0, 0.0]


def test_fsq_gradient_is_that_of_the_bounding_function() -> None:
    quantizer, latents = fsq(5), torch.tensor([0.3]).view(1, 1, 1, 1).requires_grad_()
    quantizer(latents).latents.sum().backward()
    half = 4 / 2 + 1e-3
    expected = half * (1 - math.tanh(0.3) ** 2) / 2
    assert latents.grad is not None
    assert latents.grad.item() == pytest.approx(expected, rel=1e-5)


def test_lfq_codes_are_the_signs_with_the_first_channel_lowest() -> None:
    points = torch.tensor([[-1.0, -1.0, -1.0], [0.1, -5.0, -1.0], [-1.0, 2.0, 3.0],
                           [0.0, 0.0, 0.5]])
    assert lfq(3).encode(latents_of(points)).flatten().tolist() == [0, 1, 6, 4]


def by_hand(points: Tensor, temperature: float) -> float:
    """Mean entropy of the codes minus that of their mean, from softmaxes over all corners."""
    channels = points.shape[1]
    corners = torch.tensor([corner[::-1] for corner in
                            itertools.product([-1.0, 1.0], repeat=channels)]).double()
    chances = (-torch.cdist(points.double(), corners).square() / temperature).softmax(1)

    def entropy(each: Tensor) -> Tensor:
        return -(each * each.log()).sum(-1)
    return (entropy(chances).mean() - entropy(chances.mean(0))).item()


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_lfq_entropy_is_that_of_the_softmax_over_all_corners(temperature: float) -> None:
    points = torch.randn(50, 5)
    quantizer = lfq(5, entropy_weight=0.5, entropy_temperature=temperature)
    losses = quantizer(latents_of(points)).losses
    assert losses["entropy"].item() == pytest.approx(0.5 * by_hand(points, temperature), rel=1e-4)


def test_lfq_entropy_term_prefers_latents_that_use_all_codes() -> None:
    codes = torch.arange(16).view(1, 4, 4)
    quantizer = lfq(4)
    spread = quantizer(quantizer.codes_to_latents(codes)).losses["entropy"]
    alike = quantizer(quantizer.codes_to_latents(torch.full_like(codes, 3))).losses["entropy"]
    assert spread < alike


def test_lfq_groups_bound_the_memory_of_many_bits() -> None:
    # 2^30 chances for each of 256 latents would be a terabyte.
    losses = lfq(30)(torch.randn(1, 30, 16, 16, requires_grad=True)).losses
    assert losses["entropy"].isfinite()


def test_joint_chances_are_products_with_the_first_bit_lowest() -> None:
    chances = torch.tensor([[[0.9, 0.1], [0.4, 0.6]]])
    torch.testing.assert_close(joint_chances(chances)[0],
                               torch.tensor([0.9 * 0.4, 0.1 * 0.4, 0.9 * 0.6, 0.1 * 0.6]))
