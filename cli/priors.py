"""Parts shared by the commands of the prior: options that name conditions and tokenizers."""
from collections.abc import Iterable
from typing import TYPE_CHECKING

from cli.options import by_name

if TYPE_CHECKING:
    from prior.model import PriorConfig
    from tokenizer.codec import Codec
    from tokenizer.schema import CodeSpec


def load_decoders(pairs: Iterable[tuple[str, str]], config: "PriorConfig",
                  device: str) -> "dict[str, Codec]":
    """The tokenizers of a prior's codes, by modality.

    Args:
        pairs: of `TOKENIZER_FOLDER` options.
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
