"""One process of two that train quantizers on shares of the same batches; a program for tests."""
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from small_quantizers import SETTINGS, small

STEPS = 4
ENTROPIES = ("lfq", "ibq")
"""Kinds with a term for the even use of codes."""


def batches() -> torch.Tensor:
    """Latents of all steps: ``(STEPS, 4, 4, 4, 4)`` float32."""
    return torch.randn(STEPS, 4, 4, 4, 4, generator=torch.Generator().manual_seed(5))


def train(kind: str, share: slice, kmeans: bool = False,
          revive_after: int = 2) -> dict[str, torch.Tensor]:
    """The state of a quantizer after some steps on this share of each batch."""
    quantizer = small(kind, revive_after=revive_after, kmeans=kmeans).train()
    for step, batch in enumerate(batches()):
        torch.manual_seed(100 * step + (share.start or 0))
        quantizer(batch[share])
        quantizer.revive()
    return quantizer.state_dict()


def entropy_gradients(kind: str, share: slice, num_shares: int) -> torch.Tensor:
    """Gradients by this share of the latents of a batch, of the mean loss over all shares."""
    quantizer = small(kind, entropy_weight=1.0, entropy_temperature=1.0).train()
    latents = batches()[0][share].requires_grad_()
    losses = quantizer(latents).losses
    torch.stack(list(losses.values())).sum().backward()
    assert latents.grad is not None
    return latents.grad / num_shares


def main(folder: Path) -> None:
    """Train every kind, and leave the states in ``folder``."""
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    share = slice(2 * rank, 2 * rank + 2)
    states = {f"{kind}, k-means {kmeans}": train(kind, share, kmeans)
              for kind in SETTINGS for kmeans in (False, True)}
    states["averages alone"] = train("ema", share, revive_after=0)
    gradients = {kind: entropy_gradients(kind, share, dist.get_world_size()) for kind in ENTROPIES}
    if rank == 0:  # alone, as held-out images are measured: it must wait for nobody
        for kind in ENTROPIES:
            small(kind).eval()(batches()[0])
    torch.save(gradients, folder / f"gradients{rank}.pt")
    torch.save(states, folder / f"rank{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
