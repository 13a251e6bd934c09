"""What importers of priors have in common: what people say beside the files, and what is checked.
"""
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from prior.model import PriorConfig
from prior.sequence import Segment
from tokenizer.importers.contract import Imported, Importer
from tokenizer.importers.source import Source
from tokenizer.schema import CodeSpec


@dataclass(frozen=True, kw_only=True)
class PriorGivens:
    """What the user says beside the files.

    Attributes:
        specs: of the tokenizers that are given, by modality.
        classes: names of the classes in their order; empty for their numbers.
    """
    specs: Mapping[str, CodeSpec] = field(default_factory=dict)
    classes: tuple[str, ...] = ()

    def class_names(self, count: int) -> tuple[str, ...]:
        """Names of so many classes.

        Raises:
            ValueError: the names that are given are of another number.
        """
        if self.classes and len(self.classes) != count:
            raise ValueError(f"the prior has {count} classes, but {len(self.classes)} names are "
                             "given: give one name a line, in the order of the classes")
        return self.classes or tuple(map(str, range(count)))


ImportedPrior = Imported[PriorConfig]
PriorImporter = Importer[PriorGivens, PriorConfig]
"""What importers of priors derive from."""


def count_layers(source: Source, pattern: str) -> int:
    """How many layers there are: of how many numbers are names that begin with ``pattern``."""
    return len({match[1] for name in source.tensors if (match := re.match(pattern, name))})


def require(source: Source, dimensions: Mapping[str, int]) -> None:
    """Refuse a file without the tensors from which the shape of a prior is read.

    Args:
        dimensions: names of these tensors, and how many dimensions they have.
    Raises:
        ValueError: one is missing, or of another number of dimensions.
    """
    for name, count in dimensions.items():
        shape = source.tensors[name].shape if name in source.tensors else ()
        if len(shape) != count:
            found = f"{name} of shape {shape}" if shape else f"no {name}"
            raise ValueError(f"{source.url} holds {found}, not one of {count} dimensions: the file "
                             "is not whole, or of another kind of prior")


def require_codes(source: Source, segment: Segment, num_ids: int) -> None:
    """Refuse a vocabulary that is too small for a tokenizer.

    Raises:
        ValueError: the codes of ``segment`` are more than ``num_ids``.
    """
    if segment.vocabulary > num_ids:
        raise ValueError(f"{segment.name} has {segment.vocabulary} codes, but the vocabulary of "
                         f"{source.url} is {num_ids}: give the tokenizer that this prior was "
                         "trained on")
