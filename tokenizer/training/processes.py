"""The processes of one training: devices and precision as `accelerate` finds them."""
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast

from tokenizer.training.settings import TrainingSettings

CPU_INFO = Path("/proc/cpuinfo")
"""Where Linux says what the processor can do."""

BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
"""Processor flags of native products in bfloat16."""


def fastest_precision() -> str:
    """``bf16`` where this machine computes in it natively, about twice as fast; else ``no``."""
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    flags = CPU_INFO.read_text().split() if CPU_INFO.exists() else []
    return "no" if BF16_FLAGS.isdisjoint(flags) else "bf16"


def build_accelerator(settings: TrainingSettings) -> Accelerator:
    """Device, precision and processes of this training; a GPU is used when there is one.

    Args:
        settings: their precision is not ``auto``; see `tokenizer.training.resume.settle_precision`.
    Raises:
        ValueError: the device cannot compute in that precision, or the processes and parts cannot
            share a batch equally.
    """
    # One process may train several models, each in its own precision; the state is kept globally.
    AcceleratorState._reset_state()
    accelerator = Accelerator(mixed_precision=settings.mixed_precision)
    if settings.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise ValueError("training.mixed_precision=fp16 needs a GPU, and this machine offers none: "
                         "use bf16 or no")
    if settings.batch_size % (accelerator.num_processes * settings.accumulation):
        raise ValueError(
            f"training.batch_size must be a multiple of {accelerator.num_processes} processes x "
            f"{settings.accumulation} parts, got {settings.batch_size}")
    return accelerator


def agree(accelerator: Accelerator, value: float) -> float:
    """The first process's value, such as its clock or whether it was stopped, in all of them."""
    if accelerator.num_processes == 1:
        return value
    shared = torch.tensor(value, dtype=torch.float64, device=accelerator.device)
    return float(broadcast(shared))


def close(accelerator: Accelerator) -> None:
    """Wait for every process, then close what joins them.

    A process that ends with its connections open, while others still work, may be aborted.
    """
    accelerator.wait_for_everyone()
    accelerator.end_training()
