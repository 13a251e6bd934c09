"""A small network with random weights, whose codes are spread over its codebook."""
from typing import Any

import torch

from tokenizer.vqgan.autoencoder import AutoencoderConfig
from tokenizer.vqgan.model import VQGAN, VQGANConfig
from tokenizer.vqgan.quantizers import QuantizerConfig


def small_model(modality: str = "image", patch: int = 2, has_attention: bool = True,
                **quantizer: object) -> VQGAN:
    """32 x 48 pixels to 8 x 12 codes of 256, or 4 x 6 with a patch of 4.

    Without attention there is one level alone, of twice as many codes along each side.
    """
    torch.manual_seed(0)
    own: dict[str, Any] = ({"channel_multipliers": (1, 2), "attention_levels": (1,)}
                           if has_attention else
                           {"channel_multipliers": (1,), "attention_levels": (),
                            "middle_attention": False})
    shape = AutoencoderConfig(width=16, num_res_blocks=1, latent_channels=16, patch=patch, **own)
    settings = {"kind": "cosine", "codebook_size": 256, **quantizer}
    return VQGAN(VQGANConfig(modality={"name": modality}, image_size=(32, 48), autoencoder=shape,
                             quantizer=QuantizerConfig(**settings))).eval()  # type: ignore[arg-type]
