"""Parts shared by the commands of the prior: options that name conditions and tokenizers."""
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from cli.options import by_name

if TYPE_CHECKING:
    from prior.model import PriorConfig
    from tokenizer.codec import Codec
    from tokenizer.schema import CodeSpec


class TokenizerFolder(click.ParamType):
    """``NAME=FOLDER``, or a folder alone for the modality that the prior predicts (name ``""``)."""
    name = "[name=]folder"

    def convert(self, value: Any, param: click.Parameter | None,
                ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        name, separator, folder = str(value).partition("=")
        if not (separator and name.isidentifier()):
            return "", str(value)
        if not folder:
            self.fail(f"{value!r} names no folder; write for example {name}=my-tokenizer", param,
                      ctx)
        return name, folder


class GuidanceScale(click.ParamType):
    """``SCALE`` of all conditions (name ``""``), or ``NAME=SCALE`` of one."""
    name = "[name=]scale"

    def convert(self, value: Any, param: click.Parameter | None,
                ctx: click.Context | None) -> tuple[str, float]:
        if isinstance(value, tuple):
            return value
        name, _, scale = str(value).rpartition("=")
        try:
            return name, float(scale)
        except ValueError:
            self.fail(f"{value!r} is neither SCALE nor NAME=SCALE, for example depth=2.5", param,
                      ctx)


class ConditionName(click.ParamType):
    """``NAME`` or ``NAME=DROPOUT``: a condition, and how often training leaves it out."""
    name = "name[=dropout]"

    def convert(self, value: Any, param: click.Parameter | None,
                ctx: click.Context | None) -> tuple[str, float | None]:
        if isinstance(value, tuple):
            return value
        name, separator, share = str(value).partition("=")
        try:
            return name, float(share) if separator else None
        except ValueError:
            self.fail(f"{value!r} is neither NAME nor NAME=DROPOUT, for example depth=0.2", param,
                      ctx)


def load_decoders(pairs: Iterable[tuple[str, str]], config: "PriorConfig",
                  device: str) -> "dict[str, Codec]":
    """The tokenizers of a prior's codes, by modality.

    Args:
        pairs: of `TokenizerFolder` options.
    Raises:
        OSError, ValueError: a folder holds no tokenizer, or not the one of these codes.
    """
    from prior.gallery import check_decoders
    from tokenizer.codec import Codec
    named = [(name or config.target, folder) for name, folder in pairs]
    codecs = {name: Codec.load(folder, device=device)
              for name, folder in by_name("--tokenizer", named).items()}
    check_decoders(config.spec, codecs)
    return {name: codec.at_size(size_of(config.spec[name], codec.spec))
            for name, codec in codecs.items()}


def size_of(codes: "CodeSpec", codec: "CodeSpec") -> tuple[int, int]:
    """Height and width of decoded codes; of unknown tokenizers, what their grid gives."""
    from tokenizer.schema import UNKNOWN
    return codec.size_on(codes.grid) if codes.tokenizer == UNKNOWN else codes.image_size
