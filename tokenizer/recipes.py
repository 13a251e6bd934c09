"""Recipes: named settings of a tokenizer and its training, one function each.

A recipe takes the settings of a modality (such as ``{"name": "segmentation", "num_classes": 12}``)
and returns what `img2tokens train-tokenizer --recipe NAME` starts from; single settings can then be
overridden. To add one, write a function here and list it in `RECIPES`.

Names read ``small_SIDE`` for side x side pixels on a few CPU cores, and ``fF_K`` for the published
shapes, 256 x 256 pixels on GPUs: F pixels per code along a side, K codebook entries.
"""
import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tokenizer.training.config import AdversarialConfig, TrainingConfig
from tokenizer.training.optim import OptimizerConfig
from tokenizer.vqgan.autoencoder import AutoencoderConfig
from tokenizer.vqgan.model import VQGANConfig
from tokenizer.vqgan.quantizers import QuantizerConfig


@dataclass(frozen=True, kw_only=True)
class TokenizerRecipe:
    """What training a tokenizer starts from.

    Attributes:
        model: the tokenizer; stored in its checkpoint.
        training: how it is trained; neither steps nor minutes are set.
    """
    model: VQGANConfig
    training: TrainingConfig


ModalitySettings = Mapping[str, Any]


def tiny(modality: ModalitySettings) -> TokenizerRecipe:
    """32 px to 4 x 4 codes of 32, for tests: two steps take a second."""
    return TokenizerRecipe(
        model=VQGANConfig(
            modality=dict(modality), image_size=(32, 32),
            autoencoder=AutoencoderConfig(width=8, channel_multipliers=(1, 2), num_res_blocks=1,
                                          attention_levels=(), latent_channels=16, patch=4),
            quantizer=QuantizerConfig(codebook_size=32)),
        training=TrainingConfig(batch_size=4, optimizer=OptimizerConfig(learning_rate=2e-3)))


def small_64(modality: ModalitySettings) -> TokenizerRecipe:
    """64 px to 8 x 8 codes of 1024; learns in minutes on 2 CPU cores."""
    return _small(modality, (64, 64))


def small_128(modality: ModalitySettings) -> TokenizerRecipe:
    """128 px to 16 x 16 codes of 1024; learns in minutes on 2 CPU cores."""
    return _small(modality, (128, 128))


def f16_1024(modality: ModalitySettings) -> TokenizerRecipe:
    """256 px to 16 x 16 codes of 1024: the published f16 shape, 72.1 million parameters."""
    return _published(modality, AutoencoderConfig(), QuantizerConfig(
        kind="classic", codebook_size=1024, code_dim=256, revive_after=1000))


def f16_16384(modality: ModalitySettings) -> TokenizerRecipe:
    """256 px to 16 x 16 codes of 16384: the published f16 shape, 76.1 million parameters."""
    return _published(modality, AutoencoderConfig(), QuantizerConfig(
        kind="classic", codebook_size=16384, code_dim=256, revive_after=1000))


def f16_16384_cosine(modality: ModalitySettings) -> TokenizerRecipe:
    """256 px to 16 x 16 codes of 16384 in 8 channels, as LlamaGen (arXiv:2406.06525) has them."""
    return _published(modality, AutoencoderConfig(), QuantizerConfig(
        codebook_size=16384, revive_after=1000), reconstruction="l2")


def f8_16384(modality: ModalitySettings) -> TokenizerRecipe:
    """256 px to 32 x 32 codes of 16384 in 8 channels, as LlamaGen (arXiv:2406.06525) has them."""
    shape = AutoencoderConfig(channel_multipliers=(1, 2, 2, 4), attention_levels=(3,))
    return _published(modality, shape, QuantizerConfig(codebook_size=16384, revive_after=1000),
                      reconstruction="l2")


def f8_gumbel_8192(modality: ModalitySettings) -> TokenizerRecipe:
    """256 px to 32 x 32 codes of 8192 by a Gumbel softmax: the published f8 shape."""
    shape = AutoencoderConfig(channel_multipliers=(1, 1, 2, 4), attention_levels=(3,))
    return _published(modality, shape, QuantizerConfig(
        kind="gumbel", codebook_size=8192, code_dim=256, kl_weight=1e-8, temperatures=(0.9, 1e-6)))


def fast_f16(modality: ModalitySettings) -> TokenizerRecipe:
    """256 px to 16 x 16 codes of 16384, with a stem of 4 x 4 pixels: a tenth of the f16 work.

    The published f16 shape does most of its work at full and half resolution; here the first
    convolution already sees 64 x 64 patches. Encoding an image takes 12.6 GFLOP, not 138.4.
    """
    shape = AutoencoderConfig(width=96, channel_multipliers=(1, 2, 4), attention_levels=(2,),
                              patch=4)
    return _published(modality, shape, QuantizerConfig(codebook_size=16384, revive_after=1000),
                      reconstruction="l2")


def f4_8192(modality: ModalitySettings) -> TokenizerRecipe:
    """256 px to 64 x 64 codes of 8192 in 3 channels: f4 of latent diffusion (arXiv:2112.10752)."""
    shape = AutoencoderConfig(channel_multipliers=(1, 2, 4), attention_levels=(), latent_channels=3)
    return _published(modality, shape, QuantizerConfig(
        kind="classic", codebook_size=8192, code_dim=3, revive_after=1000))


def build_recipe(name: str, modality: ModalitySettings) -> TokenizerRecipe:
    """The recipe called ``name`` for a modality with these settings.

    Raises:
        ValueError: there is no such recipe, or a setting of the modality is wrong.
    """
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(RECIPES)}"
        raise ValueError(f"unknown recipe {name!r}; {hint}")
    return RECIPES[name](modality)


def _small(modality: ModalitySettings, image_size: tuple[int, int]) -> TokenizerRecipe:
    """8 pixels per code along a side, 1024 codes; sizes and rates chosen by PSNR per CPU minute.

    A few hundred steps make such a training, so unused codes are revived early. Small corpora are
    seen often, hence crops and colours vary much: without, held-out PSNR soon stands still.
    """
    return TokenizerRecipe(
        model=VQGANConfig(
            modality=dict(modality), image_size=image_size,
            autoencoder=AutoencoderConfig(width=48, channel_multipliers=(1, 2), num_res_blocks=1,
                                          attention_levels=(), latent_channels=96, patch=4),
            quantizer=QuantizerConfig(revive_after=20)),
        training=TrainingConfig(
            batch_size=8, crop_share=0.6, colours=0.2, ema_decay=0.99, mixed_precision="auto",
            reconstruction="l2",
            optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=30)))


def _published(modality: ModalitySettings, autoencoder: AutoencoderConfig,
               quantizer: QuantizerConfig, reconstruction: str = "l1") -> TokenizerRecipe:
    """Rates, batch and discriminator of LlamaGen (arXiv:2406.06525, section 3.1).

    The difference is ``l1``, as VQGAN trained, or ``l2``, as LlamaGen did.
    """
    rates = OptimizerConfig(learning_rate=1e-4, weight_decay=0.0, warmup_steps=1000,
                            final_share=1.0)
    return TokenizerRecipe(
        model=VQGANConfig(modality=dict(modality), image_size=(256, 256), autoencoder=autoencoder,
                          quantizer=quantizer),
        training=TrainingConfig(
            batch_size=128, optimizer=rates, crop_share=0.8, ema_decay=0.9999,
            mixed_precision="bf16", evaluate_every=5000, reconstruction=reconstruction,
            adversarial=AdversarialConfig(weight=0.5, start=20_000, optimizer=rates)))


RECIPES: dict[str, Callable[[ModalitySettings], TokenizerRecipe]] = {
    recipe.__name__: recipe for recipe in (tiny, small_64, small_128, fast_f16, f16_1024, f16_16384,
                                           f16_16384_cosine, f8_16384, f8_gumbel_8192, f4_8192)}
"""Every recipe by name."""
