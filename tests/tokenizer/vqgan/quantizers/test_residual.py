"""Several codes a cell, each of what is left over."""
import torch
from small_quantizers import latents_of, small

from tokenizer.vqgan.quantizers.residual import ResidualQuantizer


def residual(**changes: object) -> ResidualQuantizer:
    quantizer = small("residual", **changes)
    assert isinstance(quantizer, ResidualQuantizer)
    return quantizer


def test_each_code_is_the_nearest_to_what_the_ones_before_left() -> None:
    quantizer, points = residual(), torch.randn(6, 4)
    rest = points
    for depth, step in enumerate(quantizer.steps):
        codebook = step.embedding.weight.detach()
        nearest = torch.cdist(rest, codebook).argmin(1)
        assert torch.equal(quantizer.encode(latents_of(points))[0, depth, 0], nearest)
        rest = rest - codebook[nearest]


def test_every_further_code_comes_nearer_after_training() -> None:
    quantizer = residual(codebook_size=16, kmeans=True).train()
    latents = torch.randn(4, 4, 8, 8)
    quantizer(latents)
    codes = quantizer.eval().encode(latents)
    errors = []
    for depth in range(1, 4):
        parts = [step.codes_to_latents(codes[:, index])
                 for index, step in enumerate(quantizer.steps[:depth])]
        errors.append((latents - torch.stack(parts).sum(0)).square().mean().item())
    assert errors[0] > 1.5 * errors[1] > 2.25 * errors[2]


def test_moved_rows_are_named_by_step() -> None:
    quantizer = residual(revive_after=1).train()
    quantizer(torch.randn(1, 4, 4, 4) + 3)
    moved = quantizer.revive()
    assert moved
    assert set(moved) <= {f"steps.{index}.embedding.weight" for index in range(3)}
    assert all(name in dict(quantizer.named_parameters()) for name in moved)
