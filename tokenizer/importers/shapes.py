"""The shape of a network, read off its tensors, and held against what its config says.

Letters: K codebook size, C channels of a code, z channels of a latent.
"""
import re

from tokenizer.importers.source import Tensors
from tokenizer.vqgan.autoencoder import AutoencoderConfig
from tokenizer.vqgan.quantizers import QuantizerConfig

PUBLISHED_GROUPS = 32
"""Groups of every norm in the published networks."""


def read_autoencoder(tensors: Tensors, *, norm_groups: int = PUBLISHED_GROUPS, dropout: float = 0.0,
                     design: str = "vqgan") -> AutoencoderConfig:
    """The config of the autoencoder whose tensors these are, by our names.

    Raises:
        ValueError: tensors that every autoencoder has are missing, or its widths are no multiples.
    """
    width = _shape(tensors, "encoder.conv_in.weight")[0]
    num_levels = _count(tensors, r"encoder\.down\.(\d+)\.")
    multipliers = []
    for level in range(num_levels):
        channels = _shape(tensors, f"encoder.down.{level}.block.0.conv1.weight")[0]
        if channels % width:
            raise ValueError(f"level {level} has {channels} channels, no multiple of the {width} "
                             "of the first convolution: this program cannot express that")
        multipliers.append(channels // width)
    attention = tuple(level for level in range(num_levels)
                      if f"encoder.down.{level}.attn.0.q.weight" in tensors)
    return AutoencoderConfig(
        width=width, channel_multipliers=tuple(multipliers), attention_levels=attention,
        num_res_blocks=_count(tensors, r"encoder\.down\.0\.block\.(\d+)\."),
        middle_attention="encoder.mid.attn_1.q.weight" in tensors,
        latent_channels=_shape(tensors, "encoder.conv_out.weight")[0],
        dropout=dropout, norm_groups=norm_groups, design=design)


def read_quantizer(tensors: Tensors, kind: str) -> QuantizerConfig:
    """The config of the quantizer whose tensors these are.

    Args:
        kind: ``classic``, ``cosine`` or ``gumbel``.
    Raises:
        ValueError: it has no codebook.
    """
    name = "quantize.embed.weight" if kind == "gumbel" else "quantize.embedding.weight"
    size, code_dim = _shape(tensors, name, 2)
    return QuantizerConfig(kind=kind, codebook_size=size, code_dim=code_dim, revive_after=1000)


def channels(tensors: Tensors) -> tuple[int, int]:
    """Channels of the encoder's input and of the decoder's output."""
    return (_shape(tensors, "encoder.conv_in.weight")[1],
            _shape(tensors, "decoder.conv_out.weight")[0])


def _shape(tensors: Tensors, name: str, num_dimensions: int = 4) -> tuple[int, ...]:
    """The shape of a convolution's weights, or of others with so many dimensions."""
    if name not in tensors:
        raise ValueError(f"no tensor {name} among the {len(tensors)} of the file: it is of another "
                         "format or another kind of model")
    shape = tensors[name].shape
    if len(shape) != num_dimensions or 0 in shape:
        raise ValueError(f"{name} is {shape}, where {num_dimensions} dimensions are expected, none "
                         "of them 0: it is of another format or another kind of model")
    return shape


def _count(tensors: Tensors, pattern: str) -> int:
    """One more than the largest number that ``pattern`` finds in a name; 0 where none is found."""
    found = (re.match(pattern, name) for name in tensors)
    return 1 + max((int(match[1]) for match in found if match), default=-1)
