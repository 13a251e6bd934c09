"""Batch normalisation by several processes, each with a share of the images; for tests."""
import sys

import torch
import torch.distributed as dist
from torch import Tensor

from tokenizer.training.discriminator import BatchNorm

CHANNELS, NUM_IMAGES = 3, 8
MEAN, DEVIATION = 30.0, 0.0105


def features() -> Tensor:
    """``(NUM_IMAGES, CHANNELS, 4, 4)`` float32 far from zero, of little deviation; the means of the
    first half of the images and of the second are one deviation apart."""
    generator = torch.Generator().manual_seed(3)
    drawn = torch.randn(NUM_IMAGES, CHANNELS, 4, 4, generator=generator)
    drawn[NUM_IMAGES // 2:] += 1
    return MEAN + DEVIATION * drawn


def normalised(share: slice, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Outputs for these images, and the gradients of a loss that weighs them unequally."""
    images = features().to(dtype)
    slopes = torch.linspace(-1, 1, images.numel(), dtype=dtype).reshape(images.shape)
    own = images[share].clone().requires_grad_(True)
    outputs = BatchNorm(CHANNELS).to(dtype)(own)
    (outputs * slopes[share] + outputs.square() * slopes[share].square()).sum().backward()
    assert own.grad is not None
    return {"outputs": outputs.detach(), "gradients": own.grad}


if __name__ == "__main__":
    dist.init_process_group("gloo")
    size = NUM_IMAGES // dist.get_world_size()
    first = size * dist.get_rank()
    torch.save(normalised(slice(first, first + size)), f"{sys.argv[1]}/rank{dist.get_rank()}.pt")
    dist.barrier()
    dist.destroy_process_group()
