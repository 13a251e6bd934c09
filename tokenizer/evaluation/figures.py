"""Figures as every evaluation gives them: with their conditions, and as lines of a table.

Letters: N images or rows.
"""
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

SCORES = {"psnr": ("PSNR", "dB", "higher"), "miou": ("mIoU", "", "higher"),
          "pixel_accuracy": ("pixel accuracy", "", "higher"), "abs_rel": ("AbsRel", "", "lower"),
          "rmse": ("RMSE", "", "lower"), "delta1": ("delta < 1.25", "", "higher"),
          "f1": ("F1", "", "higher"), "mean_angle": ("mean angle", "degrees", "lower")}
"""Label, unit and direction of the modalities' own scores; others are shown by name."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure and all that another one must share to be compared with it.

    Attributes:
        value: the figure; nothing where it is not a number.
        label: its name for people, and ``unit``, empty for shares and plain numbers.
        better: ``higher``, ``lower``, or empty where neither is.
        conditions: how it was taken, as JSON values.
    """
    value: float | None
    label: str
    unit: str = ""
    better: str = "higher"
    conditions: dict[str, Any] = field(default_factory=dict)


class NotMeasured(ValueError):
    """A figure cannot be taken here, or lacks something; the message says what."""


class ReferenceHash:
    """SHA-256 over keys and pixels or codes: equal when two measurements saw the same alike."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, keys: list[str], items: np.ndarray) -> None:
        """Count in some more items ``(N, ...)``, in order; the same for any division into batches.
        """
        for key, item in zip(keys, items, strict=True):
            name = key.encode()
            head = f"{len(name)} {item.dtype.str} {item.shape} ".encode()
            self._digest.update(head + name + np.ascontiguousarray(item).tobytes())

    def __str__(self) -> str:
        return f"sha256:{self._digest.hexdigest()}"


def finite(value: float | None) -> float | None:
    """A number that JSON can hold, or nothing."""
    return float(value) if value is not None and np.isfinite(value) else None


def table_lines(figures: Mapping[str, Figure], left_out: Mapping[str, str]) -> list[str]:
    """A line for each figure, then one for each reason why others are left out."""
    wide = max((len(figure.label) for figure in figures.values()), default=0)
    unit = max(7, *(len(figure.unit) for figure in figures.values())) + 1 if figures else 0
    lines = []
    for figure in figures.values():
        direction = f"{figure.better} is better" if figure.better else ""
        words = f"{number(figure)} {figure.unit:<{unit}}{direction}".rstrip()
        caution = figure.conditions.get("caution")
        lines.append(f"{figure.label:<{wide}}  {words}{f' ({caution})' if caution else ''}")
    for reason in dict.fromkeys(left_out.values()):
        names = [name for name, other in left_out.items() if other == reason]
        lines.append(f"left out {', '.join(names)}: {reason}")
    return lines


def number(figure: Figure) -> str:
    """A figure's value in eight places; counts whole."""
    if figure.value is None:
        return "     n/a"
    is_whole = figure.unit in ("codes", "rows") and figure.value == int(figure.value)
    digits = 0 if is_whole else 2 if figure.unit else 4
    return f"{figure.value:8.{digits}f}"
