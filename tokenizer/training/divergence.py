"""Losses and gradients that are no longer numbers: kept from the weights, counted, then refused."""
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tokenizer.training.config import TrainingConfig
from tokenizer.training.settings import TrainingSettings

DISCRIMINATORS = frozenset({"adversarial", "measured_weight", "adaptive_weight", "discriminator",
                            "discriminator_norm", "logits_real", "logits_fake", "lecam", "r1"})
"""Figures that fail by the discriminator when the reconstruction itself is finite."""


class DivergedError(ValueError):
    """A loss is not a finite number."""


@dataclass
class SkippedSteps:
    """Steps left out because a loss or the length of a gradient was not finite.

    Attributes:
        limit: so many in a row, and training gives up.
        total: skipped so far.
        in_a_row: of these, the latest ones without a step taken between them.
    """
    limit: int
    total: int = 0
    in_a_row: int = 0

    def count(self, figures: Mapping[str, float], step: int, settings: TrainingSettings) -> None:
        """Count one step.

        Args:
            figures: those not finite, by name; without any the step was taken.
            step: steps done before this one.
        Raises:
            DivergedError: one too many in a row; names the step, the figures and what to change.
        """
        self.total += bool(figures)
        self.in_a_row = self.in_a_row + 1 if figures else 0
        if self.in_a_row >= self.limit:
            raise DivergedError(
                f"nothing was learned in {self.in_a_row} steps in a row, as values were not finite "
                f"at step {step + 1} ({_shown(figures)}): {_remedy(figures, settings)}")

    def state_dict(self) -> dict[str, int]:
        """What resuming needs."""
        return {"total": self.total, "in_a_row": self.in_a_row}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue from what `state_dict` returned."""
        self.total, self.in_a_row = state["total"], state["in_a_row"]


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
    figures = dict(zip(losses, values.tolist(), strict=True))
    raise DivergedError(f"a loss is not finite at step {step + 1} ({_shown(figures)}): "
                        f"{_remedy(figures, settings)}")


def _shown(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in figures.items())


def _remedy(figures: Mapping[str, float], settings: TrainingSettings) -> str:
    rate = f"training.optimizer.learning_rate below {settings.optimizer.learning_rate:g}"
    if (isinstance(settings, TrainingConfig) and "reconstruction" not in figures
            and not DISCRIMINATORS.isdisjoint(figures)):
        config = settings.adversarial
        rate = ("training.adversarial.optimizer.learning_rate below "
                f"{config.optimizer.learning_rate:g}, or another training.adversarial.lecam_weight "
                f"(now {config.lecam_weight:g}) or r1_weight (now {config.r1_weight:g})")
    return (f"train into another folder with a {rate}"
            + (" or with training.mixed_precision=no" if settings.mixed_precision != "no" else "")
            + "; the last checkpoint is unharmed")
