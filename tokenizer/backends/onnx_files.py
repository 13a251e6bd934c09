"""A tokenizer's network as ONNX models, for other programs and for the runtimes beside this file.

    encoder.onnx   ``inputs``  (1, C, H, W) float32  ->  ``codes``    (1, h, w) int64
    decoder.onnx   ``codes``   (B, h, w) int64       ->  ``outputs``  (B, C', H, W) float32
    onnx.json      what inputs, codes and outputs mean

A residual quantizer's codes are ``(B, D, h, w)``. The packages come with ``img2tokens[onnx]``.

Letters: B images, C and C' input and output channels of the modality, D codes a cell, H and W sides
of the image, h and w rows and columns of the code grid.
"""
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tokenizer import storage
from tokenizer.importers.folders import claim_folder
from tokenizer.vqgan.model import VQGAN

OPSET = 18
"""Version of the ONNX operators; the lowest that torch's exporter writes of itself."""

ENCODER, DECODER, SETTINGS = "encoder.onnx", "decoder.onnx", "onnx.json"


def export_onnx(model: VQGAN, out: str, overwrite: bool = False) -> str:
    """Write ``encoder.onnx``, ``decoder.onnx`` and ``onnx.json`` into the folder ``out``.

    Returns:
        What was written, in one line.
    Raises:
        ValueError: the packages for ONNX are missing, or ``out`` holds something else.
    """
    names = (SETTINGS, ENCODER, DECODER)
    claim_folder(out, names, overwrite=overwrite, dry_run=True)
    config = model.config
    inputs = torch.zeros(1, config.build_modality().in_channels, *config.image_size)
    codes = torch.zeros(2, *config.code_shape, dtype=torch.int64)
    files = {ENCODER: onnx_bytes(_Part(model, "encode"), inputs, "inputs", "codes"),
             DECODER: onnx_bytes(_Part(model, "decode"), codes, "codes", "outputs",
                                 any_batch=True),
             SETTINGS: _settings(model)}
    claim_folder(out, names, overwrite=overwrite)
    for name in reversed(names):
        storage.write_bytes(storage.join(out, name), files[name])
    return f"{ENCODER}, which takes one image at a time, and {DECODER}; {SETTINGS} says of what"


def latents_onnx(model: VQGAN, shape: tuple[int, ...]) -> bytes:
    """The encoder alone as an ONNX model: ``inputs`` of ``shape`` to ``latents``.

    Raises:
        ValueError: the packages for ONNX are missing.
    """
    return onnx_bytes(_Part(model, "encode_to_latents"), torch.zeros(shape), "inputs", "latents")


def onnx_bytes(module: nn.Module, example: Tensor, input_name: str, output_name: str,
               any_batch: bool = False) -> bytes:
    """An ONNX model of a module with one input and one output, in the shape of ``example``.

    Args:
        any_batch: whether the first dimension may differ from the example's, which is 2 then.
    Raises:
        ValueError: the packages for ONNX are missing.
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError(f"ONNX models take the package {error.name}: "
                         "pip install 'img2tokens[onnx]'") from error
    settings: dict[str, Any] = {}
    if any_batch:
        settings["dynamic_shapes"] = ({0: torch.export.Dim("batch")},)
    device = next(module.parameters()).device
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            module, (example.to(device),), dynamo=True, opset_version=OPSET, verbose=False,
            input_names=[input_name], output_names=[output_name], **settings)
    assert program is not None
    content: bytes = program.model_proto.SerializeToString()
    return content


class _Part(nn.Module):
    """One function of a model as a module."""

    def __init__(self, model: VQGAN, function: str) -> None:
        super().__init__()
        self.model = model
        self.function = function

    def forward(self, argument: Tensor) -> Tensor:
        result: Tensor = getattr(self.model, self.function)(argument)
        return result


def _settings(model: VQGAN) -> bytes:
    config = model.config
    modality = config.build_modality()
    settings = {
        "modality": dict(config.modality), "preprocessing": modality.preprocessing(),
        "image_size": config.image_size, "code_shape": config.code_shape,
        "codebook_size": config.quantizer.codebook_size,
        "in_channels": modality.in_channels, "out_channels": modality.out_channels}
    return (json.dumps(settings, indent=2, sort_keys=True) + "\n").encode()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says of its own affairs."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
