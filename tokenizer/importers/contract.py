"""What an importer is, of tokenizers and of priors alike: one published format, in our names.

    files --open_source--> Source --Importer.convert--> Imported --importing--> checkpoint

`tokenizer.importers.base` and `prior.importers.base` say what people give beside the files, and of
which kind the config is.
"""
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from tokenizer.importers.source import Source, Tensors

Config = TypeVar("Config")
Given = TypeVar("Given")


@dataclass(frozen=True, kw_only=True)
class Imported(Generic[Config]):
    """A tokenizer or a prior in our names, its tensors not yet read.

    Attributes:
        config: of our checkpoint.
        tensors: by our names.
        dropped: how many tensors of the file have no place in ours, by the room they are in.
        notes: what people should know of this import, one sentence each.
    """
    config: Config
    tensors: Tensors
    dropped: dict[str, int]
    notes: tuple[str, ...] = ()


class Importer(ABC, Generic[Given, Config]):
    """One published format.

    Attributes:
        name: what ``--format`` calls it, where there is that option.
        description: which programs write it.
    """
    name: ClassVar[str]
    description: ClassVar[str]

    @abstractmethod
    def recognises(self, source: Source) -> bool:
        """Whether the names of the tensors, or the config, are of this format."""

    @abstractmethod
    def convert(self, source: Source, given: Given, /) -> Imported[Config]:
        """The tokenizer or the prior in our names.

        Args:
            given: what people say where the files do not.
        Raises:
            ValueError: the file holds what this program cannot express, or does not fit its config.
        """
