"""What importers of tokenizers have in common: what is made of the files, as `source` found them.

    files --open_source--> Source --Importer.convert--> Imported --importing--> checkpoint
"""
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from tokenizer.corpus.images import STORED
from tokenizer.importers.source import Source, Tensors
from tokenizer.vqgan.model import VQGANConfig


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """What the user says where files do not.

    Attributes:
        image_size: side in pixels, or ``None`` for the config's, or else 256.
        input_range: what black and white are to the model, or ``None`` for the format's.
        stage: which tokenizer of a prior's checkpoint: ``first``, of the images, or ``condition``.
        route: how files of images become pixels, a name of `tokenizer.corpus.images.ROUTES`.
    """
    image_size: int | None = None
    input_range: tuple[float, float] | None = None
    stage: str = "first"
    route: str = STORED

    def __post_init__(self) -> None:
        if self.stage not in ("first", "condition"):
            raise ValueError(f"stage must be first or condition, got {self.stage!r}")


@dataclass(frozen=True, kw_only=True)
class Imported:
    """A tokenizer in our names, its tensors not yet read.

    Attributes:
        config: of our checkpoint.
        tensors: by our names.
        dropped: how many tensors of the file serve training alone, by the room they are in.
        notes: what people should know of this import, one sentence each.
    """
    config: VQGANConfig
    tensors: Tensors
    dropped: dict[str, int]
    notes: tuple[str, ...] = ()


class Importer(ABC):
    """One published format.

    Attributes:
        name: what ``--format`` calls it.
        description: which programs write it.
    """
    name: ClassVar[str]
    description: ClassVar[str]

    @abstractmethod
    def recognises(self, source: Source) -> bool:
        """Whether the names of the tensors, or the config, are of this format."""

    @abstractmethod
    def convert(self, source: Source, options: ImportOptions) -> Imported:
        """The tokenizer in our names.

        Raises:
            ValueError: the file holds what this program cannot express, or does not fit its config.
        """


def modality_settings(name: str, options: ImportOptions,
                      input_range: tuple[float, float] | None = None) -> dict[str, Any]:
    """Settings of the modality ``name`` with the user's range of pixels.

    Args:
        input_range: that of the format, where it is not the default.
    Raises:
        ValueError: a range was given for maps, whose inputs have their own.
    """
    if name == "image":
        chosen = options.input_range or input_range
        return {"name": name, **({"input_range": list(chosen)} if chosen else {}),
                **({"route": options.route} if options.route != STORED else {})}
    if options.input_range is not None:
        raise ValueError(f"an input range of {options.input_range} was given, but this is a "
                         f"tokenizer of {name}, whose inputs have their own; leave it out")
    if options.route != STORED:
        raise ValueError(f"the route {options.route} was given, but this is a tokenizer of {name}, "
                         "which are no colours; leave it out")
    return {"name": name}


def require_no_stage(source: Source, options: ImportOptions) -> None:
    """Refuse a stage of what is no prior and so holds one tokenizer.

    Raises:
        ValueError: the user asks for another stage than the first.
    """
    if options.stage != "first":
        raise ValueError(f"{source.url} is a tokenizer itself, no checkpoint of a prior with a "
                         f"stage {options.stage!r}; leave the stage out")
