"""A watch over a training: it names what goes wrong in one line, and the setting to change.

It looks at each line of metrics, one every ``training.log_every`` steps (20), so that a window of
`WINDOW` looks is 100 steps. A trouble is named once when it begins, and again only after it had
ended. What is named depends on the figures alone, so a stopped and continued training is told the
same. To add a trouble, write a function that takes a `View` and list it in `TROUBLES`.

Letters: K codebook size.
"""
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any

from tokenizer.training.config import TrainingConfig
from tokenizer.training.losses import ADVERSARIAL_LOSSES
from tokenizer.training.metrics import RECENT_BATCHES
from tokenizer.vqgan.model import VQGANConfig
from tokenizer.vqgan.quantizers import QuantizerConfig

WINDOW = 5
"""Looks that a trouble must last, or is measured over."""

COLLAPSED_SHARE = 0.1
"""A codebook is collapsed when fewer of its entries are in use, of those that could be."""

SATURATED_SHARE = 0.05
"""A discriminator is saturated when its loss is below this share of the loss at chance."""

SPIKE = 10.0
"""An adaptive weight spikes when it is so many times the median of the looks before."""

RISE = 1.5
"""Training diverges when the reconstruction loss is so many times the lowest before."""

SKIPPED_SHARE = 0.05
"""More steps skipped than this share of a window, and at least `FEWEST_SKIPPED`, are too many."""

FEWEST_SKIPPED = 3

Figures = Mapping[str, float]

KEPT = ("reconstruction", "discriminator", "measured_weight", "codes_used", "skipped_steps")
"""Figures that troubles are told by."""


@dataclass(frozen=True)
class View:
    """What a trouble is told by.

    Attributes:
        looks: figures of the latest looks with their ``step``, oldest first, at most `WINDOW` + 1.
        lowest: least reconstruction loss so far, as mean over a window; nothing before the first.
        model: config of the tokenizer.
        training: its settings.
    """
    looks: list[dict[str, float]]
    lowest: float | None
    model: VQGANConfig
    training: TrainingConfig

    def window(self, name: str) -> list[float]:
        """The latest `WINDOW` values of a figure; empty when one of these looks lacks it."""
        values = [look[name] for look in self.looks[-WINDOW:] if name in look]
        return values if len(values) == WINDOW else []


def codebook_collapse(view: View) -> str | None:
    """Few codes in use throughout a window."""
    quantizer, (rows, columns) = view.model.quantizer, view.model.grid
    num_recent = RECENT_BATCHES * view.training.batch_size * rows * columns
    reachable = min(1.0, num_recent / quantizer.codebook_size)
    shares = view.window("codes_used")
    if not shares or max(shares) >= COLLAPSED_SHARE * reachable:
        return None
    least = f", in the least used of {quantizer.depth} codebooks" if quantizer.depth > 1 else ""
    return (f"codebook collapse: {shares[-1]:.1%} of {quantizer.codebook_size} codes are in use"
            f"{least}; {_more_codes(quantizer)}")


def _more_codes(quantizer: QuantizerConfig) -> str:
    """The setting that brings more codes of this kind into use."""
    if quantizer.kind == "fsq":
        return f"give model.quantizer.levels fewer values (now {quantizer.levels})"
    for name, kinds in (("entropy_weight", ("lfq", "ibq")), ("kl_weight", ("gumbel",))):
        if quantizer.kind in kinds:
            return f"raise model.quantizer.{name} (now {getattr(quantizer, name):g})"
    remedy = (f"lower model.quantizer.revive_after (now {quantizer.revive_after})"
              if quantizer.revive_after else "set model.quantizer.revive_after (100; now 0, off)")
    return (f"{remedy}, or take model.quantizer.kind=cosine with a small code_dim (now "
            f"{quantizer.kind}, {quantizer.code_dim})")


def saturated_discriminator(view: View) -> str | None:
    """A discriminator that is hardly ever wrong, throughout a window."""
    config = view.training.adversarial
    losses, chance = view.window("discriminator"), ADVERSARIAL_LOSSES[config.loss].chance
    if not losses or max(losses) >= SATURATED_SHARE * chance:
        return None
    return (f"saturated discriminator: its loss is {losses[-1]:.3g}, at chance {chance:.2g}, so "
            "the autoencoder learns little from it; lower training.adversarial.optimizer."
            f"learning_rate (now {config.optimizer.learning_rate:g}) or raise "
            f"training.adversarial.lecam_weight (now {config.lecam_weight:g}; 0.001 to 0.1)")


def weight_spike(view: View) -> str | None:
    """An adaptive weight at its cap, or far above what it was."""
    config = view.training.adversarial
    if not view.looks or "measured_weight" not in view.looks[-1]:
        return None
    newest, cap = view.looks[-1]["measured_weight"], config.max_adaptive_weight
    before = [look["measured_weight"] for look in view.looks[:-1] if "measured_weight" in look]
    remedy = ("raise training.adversarial.warmup_steps (now "
              f"{config.warmup_steps}) or lower training.adversarial.max_adaptive_weight "
              f"(now {cap:g})")
    if newest >= 0.99 * cap:
        return f"adaptive weight at its cap: {newest:.3g} of {cap:g}; {remedy}"
    if len(before) == WINDOW and newest > SPIKE * median(before):
        return f"spike of the adaptive weight: {newest:.3g} after {median(before):.3g}; {remedy}"
    return None


def divergence(view: View) -> str | None:
    """A reconstruction loss that rises over a window."""
    losses, training = view.window("reconstruction"), view.training
    if not losses or view.lowest is None or fmean(losses) <= RISE * view.lowest:
        return None
    remedy = f"lower training.optimizer.learning_rate (now {training.optimizer.learning_rate:g})"
    if training.adversarial.weight and "measured_weight" in view.looks[-1]:
        remedy += f" or training.adversarial.weight (now {training.adversarial.weight:g})"
    return (f"divergence: the reconstruction loss rose to {fmean(losses):.3g} from "
            f"{view.lowest:.3g}; {remedy}")


def skipped_steps(view: View) -> str | None:
    """Many steps skipped within a window."""
    first, last = view.looks[0], view.looks[-1]
    if len(view.looks) <= WINDOW or not {"skipped_steps"} <= first.keys() & last.keys():
        return None
    num_skipped = int(last["skipped_steps"] - first["skipped_steps"])
    num_steps = int(last["step"] - first["step"])
    if num_skipped < FEWEST_SKIPPED or num_skipped <= SKIPPED_SHARE * num_steps:
        return None
    precision = view.training.mixed_precision
    remedy = "lower training.optimizer.learning_rate (now " \
             f"{view.training.optimizer.learning_rate:g})"
    if precision != "no":
        better = "bf16 or no" if precision == "fp16" else "no"
        remedy = f"set training.mixed_precision={better} (now {precision}), or {remedy}"
    return (f"{num_skipped} of {num_steps} steps were skipped, as values were not finite; "
            f"{remedy}")


TROUBLES: dict[str, Callable[[View], str | None]] = {
    trouble.__name__: trouble for trouble in (
        codebook_collapse, saturated_discriminator, weight_spike, divergence, skipped_steps)}
"""What can go wrong, by name; each says so in one line, or nothing."""


@dataclass
class Watch:
    """Follows the figures of one training.

    Attributes:
        model: config of the tokenizer.
        training: its settings.
    """
    model: VQGANConfig
    training: TrainingConfig
    _looks: list[dict[str, float]] = field(default_factory=list)
    _lowest: float | None = None
    _lasting: list[str] = field(default_factory=list)

    def look(self, step: int, figures: Figures) -> list[str]:
        """Take in one line of metrics.

        Args:
            step: steps done.
            figures: by name, without prefix; those missing are not judged.
        Returns:
            One line for each trouble that began.
        """
        kept = {name: float(figures[name]) for name in KEPT if name in figures}
        self._looks = [*self._looks, {"step": float(step), **kept}][-(WINDOW + 1):]
        view = View(self._looks, self._lowest, self.model, self.training)
        found = {name: line for name, trouble in TROUBLES.items() if (line := trouble(view))}
        begun = [line for name, line in found.items() if name not in self._lasting]
        self._lasting = list(found)
        if losses := view.window("reconstruction"):
            mean = fmean(losses)
            self._lowest = mean if self._lowest is None else min(self._lowest, mean)
        return begun

    def state_dict(self) -> dict[str, Any]:
        """What resuming needs: numbers and names."""
        return {"looks": self._looks, "lowest": self._lowest, "lasting": self._lasting}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self._looks, self._lowest = list(state["looks"]), state["lowest"]
        self._lasting = list(state["lasting"])
