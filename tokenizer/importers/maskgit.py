"""MaskGIT's VQGAN as in huggingface/open-muse: a folder with ``config.json`` and its weights.

Its network differs from taming's (see ``design`` of `AutoencoderConfig`): no attention, means of
2 x 2 pixels instead of strided convolutions, residual blocks without biases. It has no
convolutions around the quantizer; ours become identities, which change no number. Pixels lie in
[0, 1].
"""
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tokenizer.importers import shapes
from tokenizer.importers.base import (
    ImportedTokenizer,
    ImportOptions,
    TokenizerImporter,
    modality_settings,
    require_no_stage,
)
from tokenizer.importers.pickles import Stored
from tokenizer.importers.source import (
    Source,
    Tensors,
    check_settings,
    count_in,
    has,
    number_in,
    renamed,
)
from tokenizer.vqgan.model import VQGANConfig

if TYPE_CHECKING:
    from torch import Tensor

RULES = ((r"^((?:en|de)coder)\.mid\.0\.", r"\1.mid.block_1."),
         (r"^((?:en|de)coder)\.mid\.1\.", r"\1.mid.block_2."),
         (r"\.upsample_conv\.", r".upsample.conv."))
"""Names of open-muse, and ours."""


class MaskGITImporter(TokenizerImporter):
    """``MaskGitVQGAN``."""
    name = "maskgit"
    description = "open-muse: MaskGitVQGAN"

    def recognises(self, source: Source) -> bool:
        return (source.settings.get("_class_name") == "MaskGitVQGAN"
                or has(source.tensors, r"decoder\.up\.\d+\.upsample_conv\."))

    def convert(self, source: Source, options: ImportOptions) -> ImportedTokenizer:
        said = source.settings
        require_no_stage(source, options)
        if said.get("resample_with_conv", True) is not True:
            raise ValueError(f"the config says resample_with_conv {said['resample_with_conv']}, "
                             "which no published model has; this program has true alone")
        tensors = renamed(source.tensors, RULES)
        autoencoder = shapes.read_autoencoder(tensors, design="maskgit",
                                              dropout=number_in(said, "dropout", 0.0))
        quantizer = shapes.read_quantizer(tensors, "classic")
        _check(said, autoencoder, quantizer, source.url)
        tensors |= _identities(autoencoder.latent_channels)
        side = options.image_size or count_in(said, "resolution", 256)
        modality = modality_settings("image", options, (0.0, 1.0))
        low, high = modality["input_range"]
        config = VQGANConfig(modality=modality, image_size=(side, side), autoencoder=autoencoder,
                             quantizer=quantizer)
        return ImportedTokenizer(config=config, tensors=tensors, dropped={}, notes=(
            "quant_conv and post_quant_conv are identities: the format has none",
            f"pixels are taken in [{low:g}, {high:g}]"))


def _check(said: Mapping[str, Any], autoencoder: Any, quantizer: Any, url: str) -> None:
    check_settings(said, {
        "hidden_channels": autoencoder.width, "channel_mult": autoencoder.channel_multipliers,
        "num_res_blocks": autoencoder.num_res_blocks, "z_channels": autoencoder.latent_channels,
        "num_embeddings": quantizer.codebook_size, "quantized_embed_dim": quantizer.code_dim}, url)
    if quantizer.code_dim != autoencoder.latent_channels or autoencoder.num_res_blocks != 2:
        raise ValueError("this program reads MaskGIT networks with 2 residual blocks a level and "
                         f"codes as wide as latents, got {autoencoder.num_res_blocks} blocks, "
                         f"{quantizer.code_dim} and {autoencoder.latent_channels} channels")


def _identities(channels: int) -> Tensors:
    """Tensors of 1x1 convolutions that leave ``channels`` channels as they are."""
    def weight() -> "Tensor":
        import torch
        return torch.eye(channels)[:, :, None, None]

    def bias() -> "Tensor":
        import torch
        return torch.zeros(channels)
    return {f"{name}.{part}": Stored(shape, read) for name in ("quant_conv", "post_quant_conv")
            for part, shape, read in (("weight", (channels, channels, 1, 1), weight),
                                      ("bias", (channels,), bias))}
