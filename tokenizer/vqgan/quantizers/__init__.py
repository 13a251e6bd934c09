"""Quantizers: encoder latents in, codebook indices out, and back.

Every quantizer turns latents ``(B, C, H, W)`` into codes ``(B, H, W)`` and codes into latents; a
residual one has several codes a cell, ``(B, D, H, W)``. To add one, write a module here with a
subclass of `Quantizer` (or of `CodebookQuantizer`, where entries are learned vectors) that names
its kind: ``class Mine(Quantizer, kind="mine")``. Training, checkpoints and the jobs find it in
`QUANTIZERS` by that name.
"""
import importlib
import pkgutil

from tokenizer.vqgan.quantizers.base import (
    QUANTIZERS,
    MovedRows,
    Quantizer,
    QuantizerConfig,
    QuantizerOutput,
    build_quantizer,
)

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["QUANTIZERS", "MovedRows", "Quantizer", "QuantizerConfig", "QuantizerOutput",
           "build_quantizer"]
