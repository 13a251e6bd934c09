"""What the processes of one training agree on; with a single one, nothing happens."""
import torch.distributed as dist
from torch import Tensor


def least_of_all(values: Tensor) -> None:
    """Replace ``values`` by their least over all processes, in place."""
    if _is_distributed():
        dist.all_reduce(values, dist.ReduceOp.MIN)


def sum_of_all(values: Tensor) -> None:
    """Replace ``values`` by their sum over all processes, in place."""
    if _is_distributed():
        dist.all_reduce(values, dist.ReduceOp.SUM)


def from_first(values: Tensor) -> Tensor:
    """The first process's ``values``, of the same shape everywhere."""
    if not _is_distributed():
        return values
    values = values.contiguous()
    dist.broadcast(values, src=0)
    return values


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()
