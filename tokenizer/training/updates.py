"""What the updates of autoencoder and discriminator have in common.

An update is: gradients of all parts of the batch; clipping; figures joined over the processes and
read once, the only wait for the device; and then either a step of the optimiser, or none where a
figure is not finite. As all processes see the same figures, they decide alike.
"""
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from tokenizer.training.state import TrainingState


def gradients_kept_local(state: TrainingState, model: nn.Module,
                         keep: bool) -> AbstractContextManager[None]:
    """Defers the exchange of gradients between processes while ``keep``."""
    if not keep:
        return nullcontext()
    context: AbstractContextManager[None] = state.accelerator.no_sync(model)
    return context


def add_part(totals: dict[str, Tensor], losses: Mapping[str, Tensor], num_parts: int) -> None:
    """Add the losses of one part of a batch to the means over all ``num_parts``, in place."""
    for name, loss in losses.items():
        totals[name] = totals.get(name, 0) + loss.detach().float() / num_parts


def clip(state: TrainingState, model: nn.Module, optimizer: torch.optim.Optimizer,
         clip_norm: float | None) -> Tensor:
    """Bring the gradients to their own size, clip them; their length before clipping, float32."""
    state.accelerator.unscale_gradients(optimizer)
    limit = float("inf") if clip_norm is None else clip_norm
    return torch.nn.utils.clip_grad_norm_(model.parameters(), limit).float()


def joined_figures(state: TrainingState, totals: Mapping[str, Tensor]) -> dict[str, float]:
    """Figures as numbers, means over processes: not finite if one process's is not."""
    values = state.accelerator.reduce(torch.stack(list(totals.values())), "mean").tolist()
    return dict(zip(totals, values, strict=True))


def not_finite(figures: Mapping[str, float]) -> dict[str, float]:
    """Those of the figures that are no finite numbers."""
    return {name: value for name, value in figures.items() if not math.isfinite(value)}


def apply_gradients(state: TrainingState, optimizer: torch.optim.Optimizer, take: bool) -> None:
    """Step the optimiser if ``take``, and drop the gradients.

    Scaled losses (fp16) get another scale after a step that overflowed, as `GradScaler` does it.
    """
    scaler = state.accelerator.scaler
    if take:
        optimizer.step()
    elif scaler is not None:
        scaler.update()
    optimizer.zero_grad()
