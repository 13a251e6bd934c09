"""Weights that lie in parts, one in each process: FSDP (Zhao et al. 2023, arXiv:2304.11277).

Weights, their gradients, their averages and what the optimiser knows of them are cut along the
first axis. The weights of a block are put together while it computes. Checkpoints hold whole
tensors, so that any number of processes may go on from them, in parts or not.
"""
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from prior.transformer import Transformer


def share(model: Transformer, num_processes: int) -> None:
    """Leave each process its part of the weights, which are equal in all of them."""
    from torch.distributed.device_mesh import init_device_mesh  # over a second, for few trainings
    from torch.distributed.fsdp import fully_shard
    mesh = init_device_mesh(model.head.weight.device.type, (num_processes,))
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def whole(value: Any) -> Any:
    """The same with whole tensors, in main memory, in place of parts, also inside of containers.

    All processes call it, and wait for each other.
    """
    if isinstance(value, Mapping):
        return {name: whole(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(whole(inner) for inner in value)
    return value.full_tensor().cpu() if is_part(value) else value


def is_part(value: Any) -> bool:
    """Whether a tensor lies in parts."""
    return isinstance(value, Tensor) and hasattr(value, "full_tensor")


def parted_like(tensor: Tensor, other: Tensor) -> Tensor:
    """A whole tensor in such parts as the other one; as it is where that is whole, too."""
    if not is_part(other) or tensor.shape != other.shape:
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor
    parts = cast(DTensor, other)
    return distribute_tensor(tensor.to(parts.device), parts.device_mesh, parts.placements,
                             src_data_rank=None)


def tensors_like(tensors: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`parted_like` of each tensor and the other of its name."""
    return {name: parted_like(tensor, others[name]) if name in others else tensor
            for name, tensor in tensors.items()}


def optimizer_like(state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimiser's ``state_dict``, what it says of each parameter in such parts as that."""
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    return {**state, "state": {index: {name: parted_like(value, parameters[index])
                                       for name, value in values.items()}
                               for index, values in state["state"].items()}}
