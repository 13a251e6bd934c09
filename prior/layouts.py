"""Arrangements of sequences: this program's own, and those of published priors.

In the published ones the last code of the conditions stands where this program has a start token:
it is the input that is about to predict the first code. A subclass of `SequenceLayout` says what
differs; to add one, write it here and list it in `LAYOUTS`, where configs find it by name.

Letters: B rows, C codes of all conditions, L positions of a sequence, V vocabulary of a segment.
"""
from collections.abc import Mapping
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from prior.sequence import LABEL, SequenceLayout


class PublishedLayout(SequenceLayout):
    """The last code of the conditions predicts the first one; without any, a start token does."""
    has_segments: ClassVar[bool] = False
    name: ClassVar[str]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth > 1:
            raise ValueError(f"sequences of {self.name} have one code a cell, got {self.depth}: "
                             "use another layout or tokenizer")

    @property
    def num_given(self) -> int:
        """C, codes of all conditions."""
        return sum(segment.length for segment in self.conditions)

    @property
    def prefix_length(self) -> int:
        return max(0, self.num_given - 1)

    def first_inputs(self, conditions: Mapping[str, Tensor], num_rows: int,
                     device: torch.device) -> Tensor:
        if not self.conditions:
            return super().first_inputs(conditions, num_rows, device)
        return torch.cat(self._condition_ids(conditions, num_rows, device), 1)


class TamingLayout(PublishedLayout):
    """Sequences of Esser et al. 2021 (arXiv:2012.09841).

    Conditions and image share their ids: the fifth class, the fifth code of a map and the fifth of
    the image are one. Positions are those in the whole sequence. There is no id for a condition
    that is left out. Without conditions, the start token has an id of its own, the last.
    """
    name: ClassVar[str] = "taming"
    has_nulls: ClassVar[bool] = False

    @property
    def num_ids(self) -> int:
        most = max(segment.vocabulary for segment in self.segments)
        return most if self.conditions else most + 1

    @cached_property
    def offsets(self) -> dict[str, int]:
        return dict.fromkeys((segment.name for segment in self.segments), 0)

    @cached_property
    def positions(self) -> np.ndarray:
        return np.arange(self.length)

    @cached_property
    def coordinates(self) -> np.ndarray:
        every = super().coordinates
        return np.delete(every, self.num_given - 1, 0) if self.conditions else every

    def _condition_ids(self, conditions: Mapping[str, Tensor], num_rows: int,
                       device: torch.device) -> list[Tensor]:
        for segment in self.conditions:
            if segment.name not in conditions or (conditions[segment.name] >= segment.null).any():
                raise ValueError(f"sequences of {self.name} have no code for what is not given: "
                                 f"give {segment.name} for every image")
        return super()._condition_ids(conditions, num_rows, device)


class LlamaGenLayout(PublishedLayout):
    """Sequences of LlamaGen's class-conditional models (Sun et al. 2024, arXiv:2406.06525).

    The label, or the id that stands for none, and the codes. No position has a learned vector: a
    code's query and key turn by its own row and column, and those of the label are zero.
    """
    name: ClassVar[str] = "llamagen"
    has_positions: ClassVar[bool] = False
    rotary_base: ClassVar[float] = 10000.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if [segment.name for segment in self.conditions] != [LABEL]:
            names = ", ".join(segment.name for segment in self.conditions)
            raise ValueError(f"sequences of {self.name} have the label as their one condition, got "
                             f"{names or 'none'}")

    @property
    def num_ids(self) -> int:
        return super().num_ids - 1

    @property
    def num_positions(self) -> int:
        return 0

    @cached_property
    def coordinates(self) -> np.ndarray:
        cells = np.indices(self.target.grid).reshape(2, -1).T
        return np.concatenate([np.zeros((1, 2)), cells[:-1]]).astype(np.float32)

    @cached_property
    def turned(self) -> np.ndarray:
        return (np.arange(self.length) > 0).astype(np.float32)


LAYOUTS: dict[str, type[SequenceLayout]] = {
    "cells": SequenceLayout, "taming": TamingLayout, "llamagen": LlamaGenLayout}
"""Layouts by name; ``cells`` is this program's own."""


def layout_class(name: str) -> type[SequenceLayout]:
    """The layout of this name.

    Raises:
        ValueError: there is none.
    """
    if name not in LAYOUTS:
        raise ValueError(f"no layout of sequences is named {name!r}; known are "
                         f"{', '.join(LAYOUTS)}")
    return LAYOUTS[name]
