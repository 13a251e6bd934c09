"""Parts shared by the commands of the prior: options that name conditions and tokenizers."""
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from cli.options import tokenizers_of

if TYPE_CHECKING:
    from prior.model import PriorConfig
    from tokenizer.codec import Codec
    from tokenizer.schema import CodeSpec


def load_decoders(pairs: Iterable[tuple[str, str]], config: "PriorConfig",
                  device: str) -> "dict[str, Codec]":
    """The tokenizers of a prior's codes, by modality; none where none are given.

    Args:
        pairs: of `TOKENIZER_FOLDER` options.
    Raises:
        OSError, ValueError: a folder holds no tokenizer, or not the one of these codes.
        click.UsageError: that of the images is not among them.
    """
    from prior.gallery import check_decoders
    from tokenizer.codec import Codec
    codecs = {name: Codec.load(folder, device=device)
              for name, folder in tokenizers_of(pairs).items()}
    check_decoders(config.spec, codecs)
    if codecs and config.target not in codecs:
        raise click.UsageError(f"give the tokenizer of the {config.target} codes too: "
                               "--tokenizer FOLDER")
    return {name: codec.at_size(size_of(config.spec[name], codec.spec))
            for name, codec in codecs.items()}


def size_of(codes: "CodeSpec", codec: "CodeSpec") -> tuple[int, int]:
    """Height and width of decoded codes; of unknown tokenizers, what their grid gives."""
    from tokenizer.schema import UNKNOWN
    return codec.size_on(codes.grid) if codes.tokenizer == UNKNOWN else codes.image_size
