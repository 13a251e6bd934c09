"""The processes of one training: devices and precision as `accelerate` finds them."""
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, broadcast

from tokenizer.training.settings import TrainingSettings

CPU_INFO = Path("/proc/cpuinfo")
"""Where Linux says what the processor can do."""

BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
"""Processor flags of native products in bfloat16."""


NUM_PROCESSES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
"""Variables in which launchers say how many processes they started."""


SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)
"""Ways to share one model's weights among processes, which averages and checkpoints do not know."""


class FirstProcessFailed(ValueError):
    """The first process failed in what it does alone; its own error is shown there."""


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
        ValueError: the device cannot compute in that precision, the processes and parts cannot
            share a batch equally, the weights would be shared among processes, or processes were
            started together that do not find each other.
    """
    # One process may train several models, each in its own precision; the state is kept globally.
    AcceleratorState._reset_state()
    accelerator = Accelerator(mixed_precision=settings.mixed_precision)
    if accelerator.num_processes == 1:
        _refuse_strangers()
    if accelerator.distributed_type in SHARDED:
        raise ValueError(f"training in several processes keeps whole weights in each, got "
                         f"{accelerator.distributed_type.value}: choose none of FSDP, DeepSpeed "
                         "and Megatron-LM in `accelerate config` (training.shard_weights=true "
                         "of a prior shares its weights as FSDP does)")
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


@contextmanager
def alone(accelerator: Accelerator, save: Callable[[], None] | None = None) -> Iterator[None]:
    """Around what the first process does alone: where it fails, all end together.

    Otherwise the others would wait for it in their next step.

    Args:
        save: called in every process before all end, so that no step is lost.
    Raises:
        FirstProcessFailed: in all processes but the first, which raises its own error.
    """
    failure: Exception | None = None
    try:
        yield
    except Exception as error:  # raised again below
        failure = error
    if agree(accelerator, float(failure is not None)):
        if save is not None:
            save()
        close(accelerator)
        raise failure or FirstProcessFailed("the first process failed, and all processes stop; "
                                            "its message says why")


def close(accelerator: Accelerator) -> None:
    """Wait for every process, then close what joins them.

    A process that ends with its connections open, while others still work, may be aborted.
    """
    accelerator.wait_for_everyone()
    accelerator.end_training()


def _refuse_strangers() -> None:
    """Refuse to train alone where a launcher started others to train along."""
    for name in NUM_PROCESSES:
        if (started := os.environ.get(name, "")) not in ("", "1"):
            raise ValueError(
                f"{name} is {started}, but this process finds no others, and each would train for "
                f"itself: set ACCELERATE_USE_CPU=true to train in {started} processes without "
                f"GPUs, or unset {name} to train in one")
