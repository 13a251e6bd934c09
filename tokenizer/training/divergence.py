"""Losses that are no longer numbers: refused before they change a weight."""
from collections.abc import Mapping

import torch
from torch import Tensor

from tokenizer.training.settings import TrainingSettings


class DivergedError(ValueError):
    """A loss is not a finite number."""


def require_finite(losses: Mapping[str, Tensor], step: int, settings: TrainingSettings) -> None:
    """Refuse losses that are not finite.

    Args:
        losses: scalars by name.
        step: steps done before this one.
    Raises:
        DivergedError: names the step, the losses and what to change.
    """
    values = torch.stack([loss.detach().float() for loss in losses.values()])
    if values.isfinite().all():
        return
    shown = ", ".join(f"{name} {value:.3g}"
                      for name, value in zip(losses, values.tolist(), strict=True))
    rate, precision = settings.optimizer.learning_rate, settings.mixed_precision
    raise DivergedError(
        f"a loss is not finite at step {step + 1} ({shown}): train into another folder "
        f"with a training.optimizer.learning_rate below {rate:g}"
        + (" or with training.mixed_precision=no" if precision != "no" else "")
        + "; the last checkpoint is unharmed")
