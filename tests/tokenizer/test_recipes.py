"""Recipes: every one builds for every modality, with the sizes its name says."""
import re
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tokenizer import configs
from tokenizer.recipes import RECIPES, TokenizerRecipe, build_recipe
from tokenizer.vqgan.model import VQGAN

SETTINGS: list[dict[str, Any]] = [{"name": "image"}, {"name": "depth"},
                                  {"name": "segmentation", "num_classes": 12}]


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("modality", SETTINGS, ids=lambda settings: settings["name"])
def test_every_recipe_builds_for_every_modality(name: str, modality: dict[str, Any]) -> None:
    recipe = build_recipe(name, modality)
    assert recipe.model.modality == modality
    assert configs.from_dict(TokenizerRecipe, configs.to_dict(recipe)) == recipe
    channels = {"image": 3, "depth": 1, "segmentation": 12}[modality["name"]]
    with torch.device("meta"):
        model = VQGAN(recipe.model)
        latents = model.encode_to_latents(torch.zeros(2, channels, *recipe.model.image_size))
        outputs = model.decode(torch.zeros(2, *recipe.model.grid, dtype=torch.int64))
    assert latents.shape == (2, recipe.model.quantizer.code_dim, *recipe.model.grid)
    assert outputs.shape == (2, channels, *recipe.model.image_size)


@pytest.mark.parametrize("name", RECIPES)
def test_names_say_the_sizes(name: str) -> None:
    model = build_recipe(name, {"name": "image"}).model
    if found := re.match(r"f(\d+)_(?:gumbel_)?(\d+)", name):
        assert model.autoencoder.downsampling == int(found[1])
        assert model.quantizer.codebook_size == int(found[2])
        assert model.image_size == (256, 256)
    elif found := re.match(r"small_(\d+)", name):
        assert model.image_size == (int(found[1]),) * 2


@pytest.mark.parametrize(("name", "num_parameters"), [
    ("f16_1024", 72_141_699), ("f16_16384", 76_073_859), ("f16_16384_cosine", 71_883_403),
    ("f8_16384", 70_109_835)])
def test_published_recipes_have_the_published_number_of_parameters(
        name: str, num_parameters: int) -> None:
    with torch.device("meta"):
        model = VQGAN(build_recipe(name, {"name": "image"}).model)
    assert sum(parameter.numel() for parameter in model.parameters()) == num_parameters


@pytest.mark.parametrize(("modality", "num_parameters"), [
    ({"name": "depth"}, 72_137_089),
    ({"name": "segmentation", "num_classes": 182}, 72_554_294),
    ({"name": "segmentation", "num_classes": 183}, 72_556_599)])
def test_published_shapes_of_maps_have_the_published_number_of_parameters(
        modality: dict[str, Any], num_parameters: int) -> None:
    with torch.device("meta"):
        model = VQGAN(build_recipe("f16_1024", modality).model)
    assert sum(parameter.numel() for parameter in model.parameters()) == num_parameters


def encoder_gigaflop(name: str) -> float:
    """Work of encoding one image of 256 x 256 pixels, multiplications and additions."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        VQGAN(build_recipe(name, {"name": "image"}).model).encoder(torch.zeros(1, 3, 256, 256))
    return counter.get_total_flops() / 1e9


def test_the_fast_recipe_takes_a_tenth_of_the_published_work() -> None:
    assert encoder_gigaflop("f16_1024") == pytest.approx(138.4, abs=0.05)
    assert encoder_gigaflop("fast_f16") == pytest.approx(12.6, abs=0.05)
    assert build_recipe("fast_f16", {"name": "image"}).model.grid == (16, 16)


@pytest.mark.parametrize(("name", "grid"), [("small_64", (8, 8)), ("small_128", (16, 16))])
def test_small_recipes_have_8_pixels_and_1024_codes(name: str, grid: tuple[int, int]) -> None:
    model = build_recipe(name, {"name": "image"}).model
    assert model.grid == grid
    assert model.quantizer.codebook_size == 1024


@pytest.mark.parametrize("name", RECIPES)
def test_the_length_of_training_is_left_to_the_caller(name: str) -> None:
    training = build_recipe(name, {"name": "image"}).training
    assert training.steps is None
    assert training.minutes is None


def test_an_unknown_recipe_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ValueError, match="unknown recipe 'small_127'; did you mean small_12"):
        build_recipe("small_127", {"name": "image"})
    with pytest.raises(ValueError, match="unknown recipe 'cake'; known are tiny, small_64"):
        build_recipe("cake", {"name": "image"})
