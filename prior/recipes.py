"""Recipes: named settings of a prior, one function each.

A recipe holds the shape of the transformer and how it is trained; corpus and conditions come from
the user. The large ones have the sizes of LlamaGen (Sun et al. 2024, arXiv:2406.06525), and with
published blocks and sequences those of Esser et al. 2021 (arXiv:2012.09841). To add one, write a
function, list it in `RECIPES`, and name it in ``cli/train_prior.py``.
"""
import dataclasses
import difflib
from collections.abc import Callable
from dataclasses import dataclass, field

from prior.state import TrainingConfig
from prior.transformer import TransformerConfig
from tokenizer.training.optim import OptimizerConfig


@dataclass(frozen=True, kw_only=True)
class PriorRecipe:
    """A transformer and its training.

    Attributes:
        transformer: shape.
        training: settings.
        sequence: how sequences are arranged, a name of `prior.layouts.LAYOUTS`.
    """
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    sequence: str = "cells"


def tiny() -> PriorRecipe:
    """For tests: steps of a few milliseconds."""
    return PriorRecipe(
        transformer=TransformerConfig(num_layers=2, width=32, num_heads=2, qk_norm=False),
        training=TrainingConfig(batch_size=16, ema_decay=0.9, evaluate_every=50, num_pictures=2,
                                optimizer=OptimizerConfig(learning_rate=5e-3, warmup_steps=5)))


def small() -> PriorRecipe:
    """For a few minutes on 2 CPU cores: some thousand images of 64 codes."""
    return PriorRecipe(
        transformer=TransformerConfig(num_layers=3, width=128, num_heads=4),
        training=TrainingConfig(batch_size=16, ema_decay=0.98, evaluate_every=200,
                                evaluate_rows=128,
                                optimizer=OptimizerConfig(learning_rate=4e-3, warmup_steps=40)))


def medium() -> PriorRecipe:
    """For a quarter of an hour on 2 CPU cores: some hundred images of 256 codes."""
    return PriorRecipe(
        transformer=TransformerConfig(num_layers=4, width=256, num_heads=4, dropout=0.1),
        training=TrainingConfig(batch_size=8, ema_decay=0.99, evaluate_every=100, evaluate_rows=64,
                                optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=40,
                                                          weight_decay=0.1)))


def gpu(num_layers: int, width: int, num_heads: int, learning_rate: float = 3e-4) -> PriorRecipe:
    """For a GPU: bf16, batches of 256, one rate for all sizes but the largest."""
    return PriorRecipe(
        transformer=TransformerConfig(num_layers=num_layers, width=width, num_heads=num_heads,
                                      dropout=0.1),
        training=TrainingConfig(batch_size=256, ema_decay=0.9999, mixed_precision="bf16",
                                evaluate_every=2000, evaluate_rows=2048,
                                optimizer=OptimizerConfig(learning_rate=learning_rate,
                                                          warmup_steps=1000)))


def gpt_25m() -> PriorRecipe:
    """8 layers of 512 channels."""
    return gpu(8, 512, 8, learning_rate=6e-4)


def gpt_111m() -> PriorRecipe:
    """12 layers of 768 channels."""
    return gpu(12, 768, 12)


def gpt_343m() -> PriorRecipe:
    """24 layers of 1024 channels."""
    return gpu(24, 1024, 16)


def gpt_775m() -> PriorRecipe:
    """36 layers of 1280 channels."""
    return gpu(36, 1280, 20, learning_rate=2e-4)


def gpt_1400m() -> PriorRecipe:
    """48 layers of 1536 channels."""
    return gpu(48, 1536, 24, learning_rate=2e-4)


def taming(num_layers: int, width: int, num_heads: int) -> PriorRecipe:
    """The published transformer and sequences; conditions are never left out (dropout 0)."""
    shape = TransformerConfig(num_layers=num_layers, width=width, num_heads=num_heads,
                              qk_norm=False, rotary=False, both_ways=False, blocks="mingpt")
    return dataclasses.replace(gpu(num_layers, width, num_heads), transformer=shape,
                               sequence="taming")


def taming_305m() -> PriorRecipe:
    """24 layers of 1024 channels, as for depth, segmentation and most others."""
    return taming(24, 1024, 16)


def taming_1400m() -> PriorRecipe:
    """48 layers of 1536 channels, as for the classes of ImageNet."""
    return taming(48, 1536, 24)


RECIPES: dict[str, Callable[[], PriorRecipe]] = {
    recipe.__name__: recipe
    for recipe in (tiny, small, medium, gpt_25m, gpt_111m, gpt_343m, gpt_775m, gpt_1400m,
                   taming_305m, taming_1400m)}
"""Recipes by name."""


def build_recipe(name: str) -> PriorRecipe:
    """The recipe of this name.

    Raises:
        ValueError: there is none.
    """
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(RECIPES)}"
        raise ValueError(f"no recipe of a prior is named {name!r}; {hint}")
    return RECIPES[name]()
