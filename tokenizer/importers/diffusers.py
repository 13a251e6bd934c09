"""Folders of a diffusers ``VQModel``: ``config.json`` with ``diffusion_pytorch_model.safetensors``.

The network is taming's under other names; attention layers are matrices instead of 1x1
convolutions. The config does not say what black and white are to the model: [-1, 1] is taken, as
diffusers' own image processor does; tokenizers of aMUSEd were trained on [0, 1].
"""
import re
from collections.abc import Mapping
from typing import Any

from tokenizer.importers import shapes
from tokenizer.importers.base import (
    ImportedTokenizer,
    ImportOptions,
    TokenizerImporter,
    modality_settings,
    require_no_stage,
)
from tokenizer.importers.source import (
    Source,
    Tensors,
    check_settings,
    computed,
    count_in,
    has,
    renamed,
)
from tokenizer.vqgan.autoencoder import AutoencoderConfig
from tokenizer.vqgan.model import VQGANConfig

CLASS = "VQModel"

ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
"""Our names of an attention layer's parts, and theirs."""

FORMER = {"query": "q", "key": "k", "value": "v", "proj_attn": "proj_out"}
"""Names of these parts before diffusers 0.17, and ours."""

MIDDLE = {"block_1": "resnets.0", "attn_1": "attentions.0", "block_2": "resnets.1"}
"""Our names of the middle layers, and theirs."""

BLOCKS = {"down_block_types": ("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
          "up_block_types": ("UpDecoderBlock2D", "AttnUpDecoderBlock2D")}
"""Names of levels in configs: without attention, and with."""

ONLY = {"act_fn": ("silu", "swish"), "norm_type": ("group",)}
"""Settings that this program has with these values alone."""


class DiffusersImporter(TokenizerImporter):
    """``VQModel`` as its ``save_pretrained`` writes it."""
    name = "diffusers"
    description = "diffusers: VQModel"

    def recognises(self, source: Source) -> bool:
        return (source.settings.get("_class_name") == CLASS
                or has(source.tensors, r"encoder\.down_blocks\.0\.resnets\."))

    def convert(self, source: Source, options: ImportOptions) -> ImportedTokenizer:
        said = source.settings
        _check_supported(said)
        require_no_stage(source, options)
        tensors = _as_convolutions(to_ours(source.tensors))
        autoencoder = shapes.read_autoencoder(
            tensors, norm_groups=count_in(said, "norm_num_groups", shapes.PUBLISHED_GROUPS))
        quantizer = shapes.read_quantizer(tensors, "classic")
        check_settings(said, {
            "block_out_channels": autoencoder.channels,
            "layers_per_block": autoencoder.num_res_blocks,
            "latent_channels": autoencoder.latent_channels,
            "num_vq_embeddings": quantizer.codebook_size,
            "vq_embed_dim": quantizer.code_dim}, source.url)
        channels = shapes.channels(tensors)
        if channels not in ((3, 3), (1, 1)):
            raise ValueError(f"this program reads diffusers tokenizers of 3 or 1 channels, got "
                             f"{channels[0]} in and {channels[1]} out")
        modality = modality_settings("depth" if channels == (1, 1) else "image", options,
                                     (-1.0, 1.0))
        low, high = modality.get("input_range", (-1.0, 1.0))
        config = VQGANConfig(modality=modality, image_size=_size(said, options),
                             autoencoder=autoencoder, quantizer=quantizer)
        return ImportedTokenizer(config=config, tensors=tensors, dropped={}, notes=(
            f"pixels are taken in [{low:g}, {high:g}], which the config does not say",))


def to_ours(tensors: Tensors) -> Tensors:
    """The tensors of a `VQModel` by our names."""
    numbers = [int(match[1]) for name in tensors
               if (match := re.match(r"decoder\.up_blocks\.(\d+)\.", name))]
    levels = [(rf"^decoder\.up_blocks\.{number}\.", rf"decoder.up.{max(numbers) - number}.")
              for number in sorted(set(numbers))]
    middle = [(rf"\.mid_block\.{re.escape(theirs)}\.", f".mid.{ours}.")
              for ours, theirs in MIDDLE.items()]
    names = {theirs: ours for ours, theirs in ATTENTION.items()} | FORMER
    parts = [(rf"\.(attentions\.\d+|attn_1)\.{re.escape(theirs)}\.", rf".\1.{ours}.")
             for theirs, ours in names.items()]
    return renamed(tensors, (
        *levels, *middle, *parts, (r"^encoder\.down_blocks\.", "encoder.down."),
        (r"\.resnets\.(\d+)\.", r".block.\1."), (r"\.attentions\.(\d+)\.", r".attn.\1."),
        (r"\.conv_shortcut\.", ".nin_shortcut."), (r"\.conv_norm_out\.", ".norm_out."),
        (r"\.downsamplers\.0\.", ".downsample."), (r"\.upsamplers\.0\.", ".upsample.")))


def to_theirs(name: str, num_levels: int) -> str:
    """What `VQModel` calls our tensor ``name``."""
    name = re.sub(r"^decoder\.up\.(\d+)\.",
                  lambda match: f"decoder.up_blocks.{num_levels - 1 - int(match[1])}.", name)
    for ours, theirs in ATTENTION.items():
        name = re.sub(rf"\.(attn\.\d+|attn_1)\.{ours}\.", rf".\1.{theirs}.", name)
    for ours, theirs in MIDDLE.items():
        name = name.replace(f".mid.{ours}.", f".mid_block.{theirs}.")
    for pattern, theirs in (
            (r"^encoder\.down\.", "encoder.down_blocks."), (r"\.block\.(\d+)\.", r".resnets.\1."),
            (r"\.attn\.(\d+)\.", r".attentions.\1."), (r"\.nin_shortcut\.", ".conv_shortcut."),
            (r"^(\w+)\.norm_out\.", r"\1.conv_norm_out."),
            (r"\.downsample\.", ".downsamplers.0."), (r"\.upsample\.", ".upsamplers.0.")):
        name = re.sub(pattern, theirs, name)
    return name


def is_attention_matrix(name: str) -> bool:
    """Whether our tensor ``name`` is a matrix to diffusers and a 1x1 convolution to us."""
    return re.search(r"\.(attn\.\d+|attn_1)\.(q|k|v|proj_out)\.weight$", name) is not None


def vq_model_settings(shape: AutoencoderConfig, *, norm_groups: int, in_channels: int,
                      out_channels: int, codebook_size: int, code_dim: int,
                      sample_size: tuple[int, int]) -> dict[str, Any]:
    """The ``config.json`` of a `VQModel` of this shape."""
    kinds = [level in shape.attention_levels for level in range(shape.num_levels)]
    down, up = BLOCKS["down_block_types"], BLOCKS["up_block_types"]
    height, width = sample_size
    return {"_class_name": CLASS, "act_fn": "silu", "block_out_channels": list(shape.channels),
            "down_block_types": [down[kind] for kind in kinds],
            "up_block_types": [up[kind] for kind in reversed(kinds)],
            "in_channels": in_channels, "out_channels": out_channels,
            "latent_channels": shape.latent_channels, "layers_per_block": shape.num_res_blocks,
            "mid_block_add_attention": shape.middle_attention, "norm_num_groups": norm_groups,
            "norm_type": "group", "num_vq_embeddings": codebook_size, "vq_embed_dim": code_dim,
            "sample_size": height if height == width else [height, width],
            "scaling_factor": 1.0, "lookup_from_codebook": False, "force_upcast": False}


def _check_supported(said: Mapping[str, Any]) -> None:
    if said.get("_class_name", CLASS) != CLASS:
        raise ValueError(f"the config is of a {said['_class_name']}; this program reads {CLASS}, "
                         "which alone has a codebook")
    for name, values in ONLY.items():
        if said.get(name, values[0]) not in values:
            raise ValueError(f"the config says {name} {said[name]!r}; this program has "
                             f"{' and '.join(values)} alone")
    for name, known in BLOCKS.items():
        kinds = said.get(name) or ()
        kinds = kinds if isinstance(kinds, list | tuple) else (kinds,)
        if unknown := [str(kind) for kind in kinds if kind not in known]:
            raise ValueError(f"{name} {', '.join(unknown)} are not known; known are "
                             f"{', '.join(known)}")


def _size(said: Mapping[str, Any], options: ImportOptions) -> tuple[int, int]:
    """Height and width of images: ``sample_size`` is both, or a list of the two."""
    if options.image_size:
        return options.image_size, options.image_size
    sides = said.get("sample_size")
    sides = sides if isinstance(sides, list | tuple) and len(sides) == 2 else (sides, sides)
    height, width = (count_in({"sample_size": side}, "sample_size", 256) for side in sides)
    return height, width


def _as_convolutions(tensors: Tensors) -> Tensors:
    """Attention matrices ``(C, C)`` as the weights ``(C, C, 1, 1)`` of convolutions."""
    return {name: computed(item, (*item.shape, 1, 1), lambda matrix: matrix[:, :, None, None])
            if is_attention_matrix(name) and len(item.shape) == 2 else item
            for name, item in tensors.items()}
