"""VQ autoencoders of CompVis/latent-diffusion: taming's layout under other names of models.

They have few channels a code (3 at f4, 8 at f16). Where the config says ``attn_type: none`` there
is no attention anywhere, which the tensors tell. Averaged copies (``model_ema``) are left out, as
their own loader leaves them out.
"""
from typing import ClassVar

from tokenizer.importers.source import Source, target_of
from tokenizer.importers.taming import TamingImporter


class LatentDiffusionImporter(TamingImporter):
    """``VQModel`` and ``VQModelInterface``, alone or as the first stage of a diffusion model."""
    name = "latent-diffusion"
    description = "latent-diffusion: VQModel and VQModelInterface (f4, f8, f16)"
    tokenizers: ClassVar[dict[str, str]] = {"ldm.models.autoencoder.VQModel": "classic",
                                            "ldm.models.autoencoder.VQModelInterface": "classic"}
    priors = ("ldm.models.diffusion.ddpm.LatentDiffusion",)

    def recognises(self, source: Source) -> bool:
        return super().recognises(source) and target_of(source.settings) is not None
