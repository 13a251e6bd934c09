"""A prior as it is stored: its config, and config and weights together.

    DIR/config.json          what it was trained on and its shape
    DIR/model.safetensors    averaged weights
"""
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from prior.coordinates import LEVELS, CoordinateSegment
from prior.layouts import layout_class
from prior.loading.config import Mixture, Share
from prior.sequence import COORDINATES, LABEL, NOT_MAPS, Segment, SequenceLayout
from prior.stepping import store_by_columns
from prior.transformer import Transformer, TransformerConfig
from tokenizer import checkpoints, configs
from tokenizer.devices import usable_device
from tokenizer.schema import TokenSpec
from tokenizer.splits import Split
from tokenizer.tokens import TokenCorpus

KIND = "prior"
"""Kind of these checkpoints."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """Something a prior can be given.

    Attributes:
        name: ``label``, ``coordinates`` or a modality of the corpus.
        dropout: how often it alone is left out in training, so that the prior works without it.
        levels: of coordinates, how many values they can have.
    """
    name: str
    dropout: float = 0.1
    levels: int = field(default=LEVELS, metadata=configs.LATER)

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout of condition {self.name} must lie in [0, 1), "
                             f"got {self.dropout}")
        if self.levels < 1 or (self.levels != LEVELS and self.name != COORDINATES):
            raise ValueError(f"levels are those of {COORDINATES}, at least 1, got {self.levels} of "
                             f"{self.name}")


@dataclass(frozen=True, kw_only=True)
class PriorConfig:
    """What a prior reads and predicts, and its shape.

    Attributes:
        spec: codes of the target first, then of each map among the conditions.
        conditions: in the order of the sequence.
        drop_all: how often all conditions are left out together in training, beside each one's own
            dropout; guidance compares with what the prior says then.
        classes: names of the labels.
        corpus: fingerprint of the token corpus it is trained on, or of the mixture.
        mixture: the corpora of that mixture; empty for one corpus.
        split: which rows of that corpus are held out.
        row_filter: the rows for which this expression of `tokenizer.filters` holds are trained on
            and measured; nothing for all.
        transformer: shape.
        sequence: how its sequences are arranged, a name of `prior.layouts.LAYOUTS`.
    """
    spec: TokenSpec
    conditions: tuple[Condition, ...] = ()
    drop_all: float = 0.1
    classes: tuple[str, ...] = ()
    corpus: str
    mixture: tuple[Share, ...] = ()
    split: Split = field(default_factory=Split)
    row_filter: str | None = field(default=None, metadata=configs.LATER)
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    sequence: str = field(default="cells", metadata=configs.LATER)

    def __post_init__(self) -> None:
        if not 0 <= self.drop_all < 1:
            raise ValueError(f"drop_all must lie in [0, 1), got {self.drop_all}")
        names = [condition.name for condition in self.conditions]
        for name in names:
            if names.count(name) > 1 or name == self.target:
                raise ValueError(f"each condition is named once and is not the target; got "
                                 f"{', '.join(names)} with target {self.target}")
        dropped = [condition.name for condition in self.conditions if condition.dropout]
        if not layout_class(self.sequence).has_nulls and names and (self.drop_all or dropped):
            raise ValueError(f"sequences of {self.sequence} have no code for what is not given: "
                             "leave none out (--drop-all 0 and --condition NAME=0), got drop_all "
                             f"{self.drop_all:g} and dropout of {', '.join(dropped) or 'none'}")

    @classmethod
    def of(cls, corpus: TokenCorpus | Mixture, *, conditions: Sequence[Condition] = (),
           drop_all: float = 0.1, target: str = "image", split: Split | None = None,
           row_filter: str | None = None, transformer: TransformerConfig | None = None,
           sequence: str = "cells") -> "PriorConfig":
        """A prior over the codes of a corpus, or of several whose codes mean the same.

        Raises:
            ValueError: the corpus lacks the target or a condition, one is named twice, the filter
                cannot be read, or the corpora of a mixture differ.
        """
        mixture = corpus if isinstance(corpus, Mixture) else Mixture((corpus,), (1.0,))
        first = mixture.first
        if row_filter is not None:
            mixture.require_filter(row_filter)
        names = [condition.name for condition in conditions]
        maps = [name for name in names if name not in NOT_MAPS]
        if unknown := set(maps) - set(first.spec.modalities):
            others = [name for name in first.spec.modalities if name != target]
            raise ValueError(f"{first.url} holds no {min(unknown)} codes; conditions are "
                             f"{', '.join((*sorted(NOT_MAPS), *others))}")
        spec = TokenSpec(codes=tuple(first.spec[name] for name in dict.fromkeys((target, *maps))))
        if LABEL in names and not first.manifest.classes:
            raise ValueError(f"{first.url} has no classes, so the prior cannot be conditioned on "
                             "the label; encode with labels, or leave this condition out")
        mixture.require_alike(spec.modalities, labelled=LABEL in names)
        if LABEL in names and not layout_class(sequence).has_nulls and row_filter is None:
            mixture.require_labels()
        return cls(spec=spec, conditions=tuple(conditions), drop_all=drop_all,
                   classes=first.manifest.classes, corpus=mixture.fingerprint,
                   mixture=mixture.shares, split=split or Split(),
                   row_filter=row_filter and row_filter.strip(),
                   transformer=transformer or TransformerConfig(), sequence=sequence)

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """Fingerprints of the corpora it is trained on."""
        return tuple(share.corpus for share in self.mixture) or (self.corpus,)

    @property
    def columns(self) -> tuple[str, ...]:
        """What is read of each row beside its label: modalities, and ``coordinates``."""
        names = {condition.name for condition in self.conditions}
        return (*self.spec.modalities, *(COORDINATES,) * (COORDINATES in names))

    @property
    def target(self) -> str:
        """The modality that the prior predicts."""
        return self.spec.modalities[0]

    @cached_property
    def layout(self) -> SequenceLayout:
        """Segments of its sequences."""
        conditions = tuple(map(self._condition, self.conditions))
        return layout_class(self.sequence)(conditions, self._segment(self.target))

    def indispensable(self, missing: Collection[str]) -> list[str]:
        """Which of the missing conditions training never left out while it gave all others.

        Samples can do without ``missing`` when there are none.
        """
        all_missing = all(condition.name in missing for condition in self.conditions)
        if all_missing and self.drop_all > 0:
            return []
        return [condition.name for condition in self.conditions
                if condition.name in missing and not condition.dropout]

    def _condition(self, condition: Condition) -> Segment:
        if condition.name == LABEL:
            return Segment(name=LABEL, grid=(1, 1), vocabulary=len(self.classes))
        if condition.name == COORDINATES:
            target = self.spec[self.target]
            return CoordinateSegment(name=COORDINATES, grid=target.grid,
                                     vocabulary=condition.levels, image_size=target.image_size)
        return self._segment(condition.name)

    def _segment(self, name: str) -> Segment:
        codes = self.spec[name]
        return Segment(name=name, grid=codes.grid, vocabulary=codes.codebook_size,
                       depth=codes.depth)


@dataclass(frozen=True)
class Prior:
    """A trained prior.

    Attributes:
        config: what it reads and predicts.
        model: the transformer, in evaluation mode.
        fingerprint: ``sha256:...`` of config and weights.
    """
    config: PriorConfig
    model: Transformer
    fingerprint: str

    @classmethod
    def load(cls, url: str, device: str = "cpu") -> "Prior":
        """The prior that ``img2tokens train-prior`` wrote at a path or fsspec URL.

        Raises:
            FileNotFoundError: no prior is there, or its training has not saved weights yet.
            ValueError: it is of another kind or version, or damaged; or ``device`` cannot be used.
        """
        place = usable_device(device)
        config = checkpoints.load_config(url, KIND, PriorConfig)
        model = Transformer(config.transformer, config.layout)
        weights, fingerprint = checkpoints.load_fingerprinted(url)
        _load_weights(model, weights, url)
        store_by_columns(model)
        return cls(config, model.to(place).eval(), fingerprint)


def _load_weights(model: Transformer, weights: Mapping[str, Tensor], url: str) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            shapes = [shape.get(name, "absent") for shape in (found, expected)]
            raise ValueError(f"the weights at {url} do not fit its config: {name} is {shapes[0]}, "
                             f"expected {shapes[1]}; copy the checkpoint again")
    with torch.no_grad():
        model.load_state_dict(dict(weights))
