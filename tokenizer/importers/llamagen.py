"""Tokenizers of FoundationVision/LlamaGen: ``.pt`` files with a state under ``ema`` or ``model``.

The network is taming's under other names: levels are ``conv_blocks``, the middle is a list, and the
decoder's levels are numbered as they run, from the coarsest. Latents and codebook are scaled to
length 1 before distances are taken.
"""
import re

from tokenizer.importers import shapes
from tokenizer.importers.base import (
    ImportedTokenizer,
    ImportOptions,
    TokenizerImporter,
    modality_settings,
    require_no_stage,
)
from tokenizer.importers.source import Source, has, renamed, without
from tokenizer.vqgan.model import VQGANConfig

TRAINING = (r"quantize\.codebook_used$", r"loss\.", r"discriminator\.")

MIDDLE = (r"(encoder|decoder)\.mid\.0\.", r"\1.mid.block_1."), (
    r"(encoder|decoder)\.mid\.1\.", r"\1.mid.attn_1."), (
    r"(encoder|decoder)\.mid\.2\.", r"\1.mid.block_2.")
"""Names of the middle layers, and ours."""


class LlamaGenImporter(TokenizerImporter):
    """VQ-16 and VQ-8."""
    name = "llamagen"
    description = "LlamaGen: VQ-16, VQ-8"

    def recognises(self, source: Source) -> bool:
        return has(source.tensors, r"encoder\.conv_blocks\.0\.res\.0\.")

    def convert(self, source: Source, options: ImportOptions) -> ImportedTokenizer:
        require_no_stage(source, options)
        tensors, dropped = without(source.tensors, TRAINING)
        numbers = [int(match[1]) for name in tensors
                   if (match := re.match(r"decoder\.conv_blocks\.(\d+)\.", name))]
        levels = [(rf"^decoder\.conv_blocks\.{number}\.", rf"decoder.up.{max(numbers) - number}.")
                  for number in sorted(set(numbers))]
        tensors = renamed(tensors, (*MIDDLE, *levels, (r"^encoder\.conv_blocks\.", "encoder.down."),
                                    (r"^(\w+\.(?:down|up)\.\d+)\.res\.", r"\1.block.")))
        side = options.image_size or 256
        config = VQGANConfig(modality=modality_settings("image", options), image_size=(side, side),
                             autoencoder=shapes.read_autoencoder(tensors),
                             quantizer=shapes.read_quantizer(tensors, "cosine"))
        part = f"; of the file, its {source.part!r} weights" if source.part else ""
        return ImportedTokenizer(config=config, tensors=tensors, dropped=dropped, notes=(
            f"latents and codebook are taken at length 1, as LlamaGen does by default{part}",))
