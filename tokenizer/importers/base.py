"""What importers of tokenizers have in common: what people say beside the files."""
from dataclasses import dataclass
from typing import Any

from tokenizer.corpus.images import STORED
from tokenizer.importers.contract import Imported, Importer
from tokenizer.importers.source import Source
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


ImportedTokenizer = Imported[VQGANConfig]
TokenizerImporter = Importer[ImportOptions, VQGANConfig]
"""What importers of tokenizers derive from."""


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
