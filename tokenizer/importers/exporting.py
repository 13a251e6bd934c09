"""From a checkpoint of this program to files that others read: diffusers folders, ONNX models.

To add a format, write a function here and list it in `EXPORTERS`.

Letters: K codebook size, C channels of a code.
"""
import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from tokenizer import checkpoints, storage
from tokenizer.corpus.modalities import Modality, Segmentation
from tokenizer.importers.diffusers import is_attention_matrix, to_theirs, vq_model_settings
from tokenizer.importers.folders import claim_folder
from tokenizer.vqgan.autoencoder import AutoencoderConfig
from tokenizer.vqgan.layers import num_norm_groups
from tokenizer.vqgan.model import KIND, VQGAN, VQGANConfig

if TYPE_CHECKING:
    from torch import Tensor

DIFFUSERS_WEIGHTS = "diffusion_pytorch_model.safetensors"

NEAREST = ("classic", "ema", "cosine")
"""Kinds of quantizer whose code is the entry nearest to a latent by Euclidean distance.

Of entries of length 1, as a cosine quantizer has them, the nearest one is that of the least angle,
however long the latent is.
"""


def export_tokenizer(url: str, out: str, format_name: str = "diffusers",
                     overwrite: bool = False) -> str:
    """Write the tokenizer at ``url`` in another program's format.

    Args:
        format_name: a name of `EXPORTERS`.
        overwrite: replace what an earlier export wrote to ``out``.
    Returns:
        What was written, in one line.
    Raises:
        FileNotFoundError: no tokenizer is at ``url``.
        ValueError: the format is unknown or cannot express this tokenizer, or ``out`` holds
            something else.
    """
    if format_name not in EXPORTERS:
        raise ValueError(f"unknown format {format_name!r}; known are {', '.join(EXPORTERS)}")
    config = checkpoints.load_config(url, KIND, VQGANConfig)
    model = VQGAN.from_weights(config, checkpoints.load_weights(url))
    return EXPORTERS[format_name](model, out, overwrite)


def export_diffusers(model: VQGAN, out: str, overwrite: bool) -> str:
    """Write a folder that ``diffusers.VQModel.from_pretrained`` loads, with equal codes.

    Raises:
        ValueError: a `VQModel` cannot express this tokenizer, or ``out`` holds something else.
    """
    from safetensors.torch import save
    config, shape = model.config, model.config.autoencoder
    _check_expressible(config)
    settings = vq_model_settings(
        shape, norm_groups=_norm_groups(shape).pop(), in_channels=model.encoder.conv_in.in_channels,
        out_channels=model.decoder.conv_out.out_channels, sample_size=config.image_size,
        codebook_size=config.quantizer.codebook_size, code_dim=config.quantizer.code_dim)
    ours = ("config.json", DIFFUSERS_WEIGHTS)
    claim_folder(out, ours, overwrite=overwrite)
    storage.write_bytes(storage.join(out, DIFFUSERS_WEIGHTS), save(_vq_model_tensors(model),
                                                                   metadata={"format": "pt"}))
    storage.write_bytes(storage.join(out, "config.json"),
                        (json.dumps(settings, indent=2, sort_keys=True) + "\n").encode())
    return f"a diffusers VQModel; {_inputs_in_words(config.build_modality())}"


def export_onnx(model: VQGAN, out: str, overwrite: bool) -> str:
    """Write encoder and decoder as ONNX models; see `tokenizer.backends.onnx_files`.

    Raises:
        ValueError: the packages for ONNX are missing, or ``out`` holds something else.
    """
    from tokenizer.backends import onnx_files
    return onnx_files.export_onnx(model, out, overwrite)


EXPORTERS: dict[str, Callable[[VQGAN, str, bool], str]] = {
    "diffusers": export_diffusers, "onnx": export_onnx}
"""Every export format by name."""


def _inputs_in_words(modality: Modality) -> str:
    """What the network takes, which a `VQModel` does not note."""
    import torch
    if isinstance(modality, Segmentation):
        return (f"its {modality.num_classes} channels are 1 where a pixel has the class, else 0, "
                "and its outputs are logits")
    shape = (1, 2, 1, 3)[:4 if modality.in_channels == 3 else 3]
    ends = np.zeros(shape, modality.pixel_dtype)
    ends[:, 1] = np.iinfo(modality.pixel_dtype).max
    inputs = modality.to_inputs(torch.from_numpy(ends))
    return f"its pixels lie in [{inputs.min():g}, {inputs.max():g}]"


def _vq_model_tensors(model: VQGAN) -> "dict[str, Tensor]":
    import torch
    num_levels = model.config.autoencoder.num_levels
    tensors = {}
    for name, tensor in model.codec_weights().items():
        if not name.startswith("quantize."):
            tensor = tensor[:, :, 0, 0] if is_attention_matrix(name) else tensor
            tensors[to_theirs(name, num_levels)] = tensor.contiguous()
    size = model.config.quantizer.codebook_size
    with torch.inference_mode():
        entries = model.quantize.codes_to_latents(torch.arange(size).view(1, 1, size))
    tensors["quantize.embedding.weight"] = entries[0, :, 0].T.contiguous()  # (K, C)
    return tensors


def _check_expressible(config: VQGANConfig) -> None:
    shape, kind = config.autoencoder, config.quantizer.kind
    problems = {
        f"quantizer {kind}, whose code is not the nearest entry": kind not in NEAREST,
        f"the stem of {shape.patch} x {shape.patch} pixels": shape.patch != 1,
        f"the {shape.design} design": shape.design != "vqgan",
        f"{shape.channel_multipliers[0]} times as many channels in the first level as before it":
            shape.channel_multipliers[0] != 1,
        f"norms with {sorted(_norm_groups(shape))} groups, as few channels have them":
            len(_norm_groups(shape)) > 1}
    if found := [what for what, is_so in problems.items() if is_so]:
        raise ValueError(f"a diffusers VQModel cannot express {'; nor '.join(found)}; "
                         "--format onnx refuses none of this")


def _norm_groups(shape: AutoencoderConfig) -> set[int]:
    return {shape.norm_groups or num_norm_groups(channels)
            for channels in (shape.width, *shape.channels)}
