"""Memory: what a step of guidance takes, and the chunk of cutouts that fits in a limit.

Bytes are counted where torch makes tensors, as they come and go: of the decoder on torch's device
``meta``, where nothing is computed, and of CLIP with one and with two cutouts of the real image.
What kernels take for themselves, and what the C library loses between blocks, is covered by a
share, `WORKSPACE`.
"""
import os
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from tokenizer.vqgan.autoencoder import AutoencoderConfig, Decoder
from tokenizer.vqgan.layers import AttentionBlock, ResidualBlock

WORKSPACE = 1.4
"""Times the bytes of tensors that a process takes for them; 1.02 to 1.32 were measured on a CPU."""


class TensorBytes(TorchDispatchMode):
    """Within, counts the bytes of the tensors that are made there and still live.

    Attributes:
        live, peak: bytes now, and the most there were at any time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._seen: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (),
                           kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._add(leaf.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return

        def forget(_: object) -> None:
            del self._seen[key]
            self.live -= size

        self._seen[key] = weakref.ref(storage, forget)
        self.live += size
        self.peak = max(self.peak, self.live)


@dataclass(frozen=True, kw_only=True)
class DecoderBytes:
    """Of one decoding with its gradient: what is kept between the two, and the most at any time."""
    kept: int
    peak: int


@dataclass(frozen=True, kw_only=True)
class StepBytes:
    """What a step takes beside the weights.

    Attributes:
        plain, checkpointed: of the decoder.
        first: of judging the image by one cutout.
        each: of each further cutout in the same chunk.
        other: of what else there is to do, one thing after the other.
    """
    plain: DecoderBytes
    checkpointed: DecoderBytes
    first: int
    each: int
    other: int = 0

    def peak(self, chunk: int, checkpoints: bool) -> int:
        """The most at any time, with so many cutouts at once."""
        decoder = self.checkpointed if checkpoints else self.plain
        judging = decoder.kept + max(self.first + (chunk - 1) * self.each, self.other)
        return int(WORKSPACE * max(decoder.peak, judging))


@dataclass(frozen=True, kw_only=True)
class Arrangement:
    """How a step is made; the result does not depend on it, but for rounding.

    Attributes:
        cutout_batch: cutouts that pass through CLIP at once.
        checkpoints: whether the decoder computes its features anew for the gradient.
    """
    cutout_batch: int
    checkpoints: bool = False


def arrange(step: StepBytes, num_cutouts: int, used: int, limit: int) -> Arrangement:
    """The arrangement with the most cutouts at once, without checkpoints if one fits.

    Args:
        used: bytes that are taken already.
        limit: bytes that may be taken.
    Raises:
        ValueError: not even one cutout at a time fits.
    """
    for checkpoints in (False, True):
        fitting = [chunk for chunk in range(1, num_cutouts + 1)
                   if used + step.peak(chunk, checkpoints) <= limit]
        if fitting:
            return Arrangement(cutout_batch=fitting[-1], checkpoints=checkpoints)
    need = used + step.peak(1, True)
    raise ValueError(f"guidance needs about {in_mib(need)} with one cutout at a time, "
                     f"{in_mib(used)} of it already in use, and the memory limit is "
                     f"{in_mib(limit)}: raise it, or make smaller images")


def in_mib(num_bytes: int) -> str:
    """Bytes in MiB, rounded up."""
    return f"{-(-num_bytes // (1 << 20)):,} MiB"


def measure_decoder(config: AutoencoderConfig, num_channels: int, grid: tuple[int, int],
                    checkpoints: bool) -> DecoderBytes:
    """Bytes of decoding one image of a grid of codes, and of its gradient; nothing is computed.

    Args:
        num_channels: of the output.
    """
    with torch.device("meta"):
        decoder = Decoder(config, num_channels).requires_grad_(False).eval()
        latents = torch.zeros(1, config.latent_channels, *grid, requires_grad=True)
    with torch.enable_grad(), TensorBytes() as count:
        with checkpointed(decoder, checkpoints):
            outputs = decoder(latents)
        kept = count.live
        torch.autograd.grad(outputs.sum(), latents)
    return DecoderBytes(kept=kept, peak=count.peak)


@contextmanager
def checkpointed(decoder: nn.Module, checkpoints: bool = True) -> Iterator[None]:
    """In the block, what a decoder computes within its blocks is not kept for the gradient.

    It is computed again when the gradient comes by, to the same values.
    """
    blocks = [module for module in decoder.modules()
              if checkpoints and isinstance(module, ResidualBlock | AttentionBlock)]
    for block in blocks:
        block.forward = _again(block.forward)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def _again(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def run(*inputs: Tensor) -> Tensor:
        outputs: Tensor = checkpoint(forward, *inputs, use_reentrant=False)
        return outputs
    return run


def peak_bytes(function: Callable[[], object]) -> int:
    """The most bytes that a function's tensors take at any time."""
    with TensorBytes() as count:
        function()
    return count.peak


def used_bytes(device: torch.device) -> int:
    """What is taken now: of a GPU by torch, else of the machine by this process.

    Raises:
        ValueError: this system does not tell.
    """
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        raise ValueError(f"what a process takes is not known on {sys.platform}: give "
                         "--cutout-batch in place of a memory limit") from None
