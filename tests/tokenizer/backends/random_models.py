"""A small network with random weights, whose codes are spread over its codebook."""
import torch

from tokenizer.vqgan.autoencoder import AutoencoderConfig
from tokenizer.vqgan.model import VQGAN, VQGANConfig
from tokenizer.vqgan.quantizers import QuantizerConfig


def small_model(modality: str = "image", patch: int = 2, **quantizer: object) -> VQGAN:
    """32 x 48 pixels to 8 x 12 codes of 256, or 4 x 6 with a patch of 4."""
    torch.manual_seed(0)
    shape = AutoencoderConfig(width=16, channel_multipliers=(1, 2), num_res_blocks=1,
                              attention_levels=(1,), latent_channels=16, patch=patch)
    settings = {"kind": "cosine", "codebook_size": 256, **quantizer}
    return VQGAN(VQGANConfig(modality={"name": modality}, image_size=(32, 48), autoencoder=shape,
                             quantizer=QuantizerConfig(**settings))).eval()  # type: ignore[arg-type]
