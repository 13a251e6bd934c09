"""What importers have in common: the files of a tokenizer as found, and what is made of them.

    files --open_source--> Source --Importer.convert--> Imported --importing--> checkpoint
"""
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from tokenizer.corpus.images import STORED
from tokenizer.importers.pickles import Stored
from tokenizer.vqgan.model import VQGANConfig

Tensors = dict[str, Stored]
"""Tensors of a file by name."""


@dataclass(frozen=True)
class Source:
    """A published tokenizer as it was found.

    Attributes:
        url: the file of its weights.
        tensors: what that file holds, by the names it has there.
        settings: the config beside it, JSON-like; empty where none was given or found.
        part: where in the file the tensors were, such as ``ema``; empty at its top.
        ignored: names of functions and classes in the file, none of which was called.
    """
    url: str
    tensors: Tensors
    settings: Mapping[str, Any] = field(default_factory=dict)
    part: str = ""
    ignored: tuple[str, ...] = ()


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


def has(tensors: Iterable[str], pattern: str) -> bool:
    """Whether a name among ``tensors`` begins with the regular expression ``pattern``."""
    return any(re.match(pattern, name) for name in tensors)


def renamed(tensors: Tensors, rules: Iterable[tuple[str, str]]) -> Tensors:
    """Tensors under new names: every rule, a regular expression and its substitute, in turn."""
    result = {}
    for name, tensor in tensors.items():
        for pattern, substitute in rules:
            name = re.sub(pattern, substitute, name)
        result[name] = tensor
    return result


def without(tensors: Tensors, training: Iterable[str]) -> tuple[Tensors, dict[str, int]]:
    """Tensors apart from those for training, and how many of these there were by first name.

    Args:
        training: regular expressions that the names of tensors for training begin with.
    """
    dropped = {name for name in tensors if any(re.match(rule, name) for rule in training)}
    counts = Counter(name.split(".")[0] if not name.startswith("quantize.") else name
                     for name in dropped)
    return ({name: tensor for name, tensor in tensors.items() if name not in dropped},
            dict(sorted(counts.items())))


def below(tensors: Tensors, room: str) -> Tensors:
    """The tensors whose names begin with ``room.``, without it."""
    return {name[len(room) + 1:]: tensor for name, tensor in tensors.items()
            if name.startswith(f"{room}.")}


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


def computed(stored: Stored, shape: tuple[int, ...], function: Any) -> Stored:
    """A tensor that is a function of a stored one, of the given shape, made when it is read."""
    return Stored(shape, lambda: function(stored.read()))
