"""Encoder and decoder: images to latents and back, by residual convolutions.

Source: Esser et al. 2021, arXiv:2012.09841, table 7. With ``patch`` above 1, a pixel-unshuffle stem
(Shi et al. 2016, arXiv:1609.05158) trades space for channels before the first convolution and back
after the last, so that no convolution works at full resolution: much less time per image.

Letters: B images, C channels, H and W sides of the image, h and w those of the latents, z channels
of a latent, f = H / h = W / w.
"""
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from tokenizer.vqgan.layers import (
    AttentionBlock,
    AverageDownsample,
    Downsample,
    ResidualBlock,
    UnbiasedResidualBlock,
    Upsample,
    norm,
    norm_swish,
)

DESIGNS = ("vqgan", "maskgit")


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """Shape of the encoder and, mirrored with one more block a level, of the decoder.

    Two more settings, ``norm_groups`` and ``design``, are for tokenizers published elsewhere.

    Attributes:
        width: channels that ``channel_multipliers`` multiply.
        channel_multipliers: one for each level, in units of ``width``; each level after the first
            halves the sides.
        num_res_blocks: residual blocks a level in the encoder; the decoder has one more.
        attention_levels: levels, from 0, whose residual blocks are each followed by attention.
        middle_attention: whether attention sits between the two middle blocks.
        latent_channels: z, channels between encoder and ``quant_conv``.
        patch: side in pixels of the square that the stem turns into channels; 1 has no stem.
        dropout: share of features dropped in training in each residual block.
        norm_groups: groups of every norm; 0 takes 32, fewer where there are few channels.
        design: ``vqgan``, or ``maskgit``: the layers of MaskGIT's released tokenizer, which has no
            attention, no biases in residual blocks, averages instead of strided convolutions, and
            as many blocks a level in the decoder as in the encoder.
    """
    width: int = 128
    channel_multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    num_res_blocks: int = 2
    attention_levels: tuple[int, ...] = (4,)
    middle_attention: bool = True
    latent_channels: int = 256
    patch: int = 1
    dropout: float = 0.0
    norm_groups: int = 0
    design: str = "vqgan"

    def __post_init__(self) -> None:
        for name in ("width", "num_res_blocks", "latent_channels", "patch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.channel_multipliers or min(self.channel_multipliers) < 1:
            raise ValueError("channel_multipliers must be one or more numbers of at least 1, "
                             f"got {self.channel_multipliers}")
        if not set(self.attention_levels) <= set(range(self.num_levels)):
            raise ValueError(f"attention_levels must lie in [0, {self.num_levels}), one for each "
                             f"channel multiplier, got {self.attention_levels}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")
        self._check_design()

    def _check_design(self) -> None:
        divided = {self.width, *self.channels} if self.norm_groups else set()
        if self.norm_groups < 0 or any(channels % self.norm_groups for channels in divided):
            raise ValueError("norm_groups must be 0 or divide the channels of every level "
                             f"{sorted(divided)}, got {self.norm_groups}")
        if self.design not in DESIGNS:
            raise ValueError(f"design must be one of {', '.join(DESIGNS)}, got {self.design!r}")
        if self.is_maskgit and (self.attention_levels or self.middle_attention):
            raise ValueError("the maskgit design has no attention: set attention_levels=() and "
                             f"middle_attention=false, got {self.attention_levels} and "
                             f"{self.middle_attention}")

    @property
    def is_maskgit(self) -> bool:
        """Whether the layers are those of MaskGIT."""
        return self.design == "maskgit"

    @property
    def num_decoder_blocks(self) -> int:
        """Residual blocks a level in the decoder."""
        return self.num_res_blocks + (0 if self.is_maskgit else 1)

    def residual_block(self, in_channels: int, out_channels: int) -> ResidualBlock:
        """A residual block of this design, freshly initialised."""
        block = UnbiasedResidualBlock if self.is_maskgit else ResidualBlock
        return block(in_channels, out_channels, self.dropout, self.norm_groups)

    @property
    def num_levels(self) -> int:
        """Levels of the encoder, and of the decoder."""
        return len(self.channel_multipliers)

    @property
    def downsampling(self) -> int:
        """f: pixels per latent along one side."""
        return self.patch << (self.num_levels - 1)

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each level, from the finest."""
        return tuple(self.width * multiplier for multiplier in self.channel_multipliers)


class Stage(nn.Module):
    """The residual blocks of one level, each followed by attention on some levels.

    The encoder halves the sides after them, the decoder doubles them, except at the last stage.
    """

    def __init__(self, in_channels: int, config: AutoencoderConfig, level: int,
                 num_blocks: int) -> None:
        super().__init__()
        channels = config.channels[level]
        self.block = nn.ModuleList(
            config.residual_block(channels if index else in_channels, channels)
            for index in range(num_blocks))
        num_attention = num_blocks if level in config.attention_levels else 0
        self.attn = nn.ModuleList(AttentionBlock(channels, config.norm_groups)
                                  for _ in range(num_attention))
        self.downsample: Downsample | AverageDownsample | None = None
        self.upsample: Upsample | None = None

    def forward(self, hidden: Tensor) -> Tensor:
        for index, block in enumerate(self.block):
            hidden = block(hidden)
            if self.attn:
                hidden = self.attn[index](hidden)
        resize = self.downsample or self.upsample
        return hidden if resize is None else resize(hidden)


class Middle(nn.Module):
    """Two residual blocks at the coarsest level, with attention between them unless left out."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        channels = config.channels[-1]
        self.block_1 = config.residual_block(channels, channels)
        self.attn_1 = (AttentionBlock(channels, config.norm_groups) if config.middle_attention
                       else None)
        self.block_2 = config.residual_block(channels, channels)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = self.block_1(hidden)
        if self.attn_1 is not None:
            hidden = self.attn_1(hidden)
        result: Tensor = self.block_2(hidden)
        return result


class Encoder(nn.Module):
    """Inputs ``(B, in_channels, H, W)`` to latents ``(B, z, H / f, W / f)``, both float."""

    def __init__(self, config: AutoencoderConfig, in_channels: int) -> None:
        super().__init__()
        self.patch = config.patch
        channels = config.channels
        self.conv_in = nn.Conv2d(in_channels * config.patch ** 2, config.width, 3, padding=1,
                                 bias=not config.is_maskgit)
        self.down = nn.ModuleList()
        for level in range(config.num_levels):
            previous = channels[level - 1] if level else config.width
            stage = Stage(previous, config, level, config.num_res_blocks)
            if level < config.num_levels - 1:
                stage.downsample = (AverageDownsample() if config.is_maskgit
                                    else Downsample(channels[level]))
            self.down.append(stage)
        self.mid = Middle(config)
        self.norm_out = norm(channels[-1], config.norm_groups)
        side = 1 if config.is_maskgit else 3
        self.conv_out = nn.Conv2d(channels[-1], config.latent_channels, side, padding=side // 2)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.conv_in(F.pixel_unshuffle(inputs, self.patch))
        for stage in self.down:
            hidden = stage(hidden)
        latents: Tensor = self.conv_out(norm_swish(self.norm_out, self.mid(hidden)))
        return latents


class Decoder(nn.Module):
    """Latents ``(B, z, h, w)`` to outputs ``(B, out_channels, h * f, w * f)``, both float.

    ``up`` is indexed by level as ``Encoder.down`` is, and run from the coarsest to the finest.
    """

    def __init__(self, config: AutoencoderConfig, out_channels: int) -> None:
        super().__init__()
        self.patch = config.patch
        channels = config.channels
        self.conv_in = nn.Conv2d(config.latent_channels, channels[-1], 3, padding=1)
        self.mid = Middle(config)
        self.up = nn.ModuleList()
        for level in range(config.num_levels):
            previous = channels[min(level + 1, config.num_levels - 1)]
            stage = Stage(previous, config, level, config.num_decoder_blocks)
            if level:
                stage.upsample = Upsample(channels[level])
            self.up.append(stage)
        self.norm_out = norm(channels[0], config.norm_groups)
        self.conv_out = nn.Conv2d(channels[0], out_channels * config.patch ** 2, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        hidden = self.mid(self.conv_in(latents))
        for stage in reversed(self.up):
            hidden = stage(hidden)
        outputs: Tensor = self.conv_out(norm_swish(self.norm_out, hidden))
        return F.pixel_shuffle(outputs, self.patch)
