"""A watch over a prior's training: it names what goes wrong in one line, and what to change.

It looks at each line of metrics and at each measurement on held-out rows. A trouble is named once
when it begins, and again only after it had ended. What is named depends on the figures alone, so a
stopped and continued training is told the same. To add a trouble, write a function that takes a
`View` and list it in `TROUBLES`.

Letters: n codes of a condition, V its vocabulary.
"""
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from prior.evaluation import GAP
from prior.model import Condition, PriorConfig
from prior.sequence import COORDINATES
from prior.state import TrainingConfig

WINDOW = 5
"""Lines of metrics that a trouble must last, or is measured over."""

MEASUREMENTS = 3
"""Measurements on held-out rows that a trouble must last."""

IGNORED_SHARE = 0.01
"""A condition is ignored when that of another row costs an image fewer bits than this share of
those that the condition itself can hold: n log2 V, or of coordinates, which all follow from the
first and the last, 2 log2 V."""

RISE = 1.15
"""Training diverges when the bits per code are so many times the lowest before."""


@dataclass(frozen=True)
class View:
    """What a trouble is told by.

    Attributes:
        values: the latest values of each figure, oldest first.
        lowest: least bits per code so far, as mean over a window; nothing before the first.
        config: of the prior.
        training: its settings.
    """
    values: Mapping[str, list[float]]
    lowest: float | None
    config: PriorConfig
    training: TrainingConfig

    def window(self, name: str, length: int) -> list[float]:
        """The latest values of a figure; empty while there are fewer than ``length``."""
        values = self.values.get(name, [])[-length:]
        return values if len(values) == length else []


def ignored_conditions(view: View) -> Iterator[tuple[str, str]]:
    """Conditions that make hardly any difference to held-out rows, in several measurements."""
    layout = view.config.layout
    for condition in view.config.conditions:
        segment = layout[condition.name]
        num_free = min(2, segment.length) if condition.name == COORDINATES else segment.length
        held = num_free * math.log2(max(2, segment.vocabulary))
        gaps = [gap * layout.target.length
                for gap in view.window(f"{GAP}_{condition.name}", MEASUREMENTS)]
        if gaps and max(gaps) < IGNORED_SHARE * held:
            yield condition.name, (
                f"the condition {condition.name} is ignored: with that of another row an image "
                f"costs {gaps[-1]:.2g} bits more, where it could tell {held:.3g}; "
                + _remedy(condition))


def _remedy(condition: Condition) -> str:
    text = (f"see whether each row's {condition.name} belongs to its image (img2tokens inspect), "
            "and train longer")
    return text + (f" or lower its dropout (now {condition.dropout:g})" if condition.dropout > 0.2
                   else "")


def divergence(view: View) -> Iterator[tuple[str, str]]:
    """Bits per code of training that rise over a window."""
    bits = view.window("bits", WINDOW)
    if bits and view.lowest is not None and fmean(bits) > RISE * view.lowest:
        yield "", (f"divergence: training rose to {fmean(bits):.3f} bits per code from "
                   f"{view.lowest:.3f}; lower training.optimizer.learning_rate (now "
                   f"{view.training.optimizer.learning_rate:g})")


TROUBLES: dict[str, Callable[[View], Iterator[tuple[str, str]]]] = {
    trouble.__name__: trouble for trouble in (ignored_conditions, divergence)}
"""What can go wrong, by name; each gives what it concerns, and says so in one line."""


@dataclass
class Watch:
    """Follows the figures of one training.

    Attributes:
        config: of the prior.
        training: its settings.
    """
    config: PriorConfig
    training: TrainingConfig
    _values: dict[str, list[float]] = field(default_factory=dict)
    _lowest: float | None = None
    _lasting: list[str] = field(default_factory=list)

    def look(self, figures: Mapping[str, float]) -> list[str]:
        """Take in some figures.

        Args:
            figures: by name, without prefix: ``bits`` of training, or those of
                `prior.evaluation.HeldOutBits`.
        Returns:
            One line for each trouble that began.
        """
        for name, value in figures.items():
            if name == "bits" or name.startswith(GAP):
                self._values[name] = [*self._values.get(name, []), float(value)][-WINDOW:]
        view = View(self._values, self._lowest, self.config, self.training)
        found = {f"{name}/{about}": line for name, trouble in TROUBLES.items()
                 for about, line in trouble(view)}
        begun = [line for name, line in found.items() if name not in self._lasting]
        self._lasting = list(found)
        if bits := view.window("bits", WINDOW):
            mean = fmean(bits)
            self._lowest = mean if self._lowest is None else min(self._lowest, mean)
        return begun

    def state_dict(self) -> dict[str, Any]:
        """What resuming needs: numbers and names."""
        return {"values": self._values, "lowest": self._lowest, "lasting": self._lasting}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self._values = {name: list(values) for name, values in state["values"].items()}
        self._lowest, self._lasting = state["lowest"], list(state["lasting"])
