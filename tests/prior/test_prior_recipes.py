"""Every recipe builds, and has the size it is named for."""
import pytest
import torch

from prior.layouts import layout_class
from prior.recipes import RECIPES, build_recipe
from prior.sequence import LABEL, Segment, SequenceLayout
from prior.transformer import Transformer
from tokenizer.configs import override

LAYOUT = SequenceLayout((Segment(name=LABEL, grid=(1, 1), vocabulary=1000),),
                        Segment(name="image", grid=(16, 16), vocabulary=16384))


DEPTHS = SequenceLayout((Segment(name="depth", grid=(16, 16), vocabulary=1024),),
                        Segment(name="image", grid=(16, 16), vocabulary=1024))


def num_parameters(name: str, layout: SequenceLayout = LAYOUT, *settings: str) -> int:
    recipe = override(build_recipe(name), settings)
    arranged = layout_class(recipe.sequence)(layout.conditions, layout.target)
    with torch.device("meta"):
        model = Transformer(recipe.transformer, arranged)
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_builds(name: str) -> None:
    assert num_parameters(name) > 0


@pytest.mark.parametrize(("name", "published"), [("gpt_111m", 111), ("gpt_343m", 343),
                                                 ("gpt_775m", 775), ("gpt_1400m", 1400)])
def test_large_recipes_have_the_published_sizes(name: str, published: int) -> None:
    assert num_parameters(name) / 1e6 == pytest.approx(published, rel=0.03)


@pytest.mark.parametrize(("name", "num"), [
    ("gpt_111m", 110_888_448), ("gpt_343m", 342_910_976), ("gpt_775m", 774_699_520),
    ("gpt_1400m", 1_410_972_672)])
def test_with_llamagens_blocks_and_sequences_sizes_are_exactly_those(name: str, num: int) -> None:
    settings = ("sequence=llamagen", "transformer.blocks=llamagen", "transformer.qk_norm=false")
    assert num_parameters(name, LAYOUT, *settings) == num


@pytest.mark.parametrize(("name", "layout", "published"), [
    ("taming_305m", DEPTHS, 304.9), ("taming_1400m", LAYOUT, 1411)])
def test_taming_recipes_have_the_published_sizes(name: str, layout: SequenceLayout,
                                                 published: float) -> None:
    assert num_parameters(name, layout) / 1e6 == pytest.approx(published, rel=5e-4)


def test_an_unknown_recipe_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"'smal'; did you mean small\?"):
        build_recipe("smal")
