"""What the processes of one training agree on; with a single one, nothing happens."""
import torch
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


def mean_of_all(values: Tensor) -> Tensor:
    """The mean of ``values`` over all processes, of one shape everywhere.

    Gradients pass to the values of every process: where each minimises the same function of the
    mean, and the gradients of weights are averaged over processes, they are those of one process.
    """
    if not _is_distributed():
        return values
    # This one carries gradients; not every build of torch has it.
    from torch.distributed.nn.functional import all_reduce
    total: Tensor = all_reduce(values)
    return total / dist.get_world_size()


def rows_of_all(values: Tensor) -> Tensor:
    """The rows of all processes' ``values``, of one shape everywhere, in order of the processes."""
    if not _is_distributed():
        return values
    values = values.contiguous()
    gathered = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, values)
    return torch.cat(gathered)


def from_first(values: Tensor) -> Tensor:
    """The first process's ``values``, of the same shape everywhere."""
    if not _is_distributed():
        return values
    values = values.contiguous()
    dist.broadcast(values, src=0)
    return values


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()
