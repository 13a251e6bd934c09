"""Every recipe builds, and has the size it is named for."""
import pytest
import torch

from prior.recipes import RECIPES, build_recipe
from prior.sequence import LABEL, Segment, SequenceLayout
from prior.transformer import Transformer

LAYOUT = SequenceLayout((Segment(name=LABEL, grid=(1, 1), vocabulary=1000),),
                        Segment(name="image", grid=(16, 16), vocabulary=16384))


def num_parameters(name: str) -> int:
    with torch.device("meta"):
        model = Transformer(build_recipe(name).transformer, LAYOUT)
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_builds(name: str) -> None:
    assert num_parameters(name) > 0


@pytest.mark.parametrize(("name", "published"), [("gpt_111m", 111), ("gpt_343m", 343),
                                                 ("gpt_775m", 775)])
def test_large_recipes_have_the_published_sizes(name: str, published: int) -> None:
    assert num_parameters(name) / 1e6 == pytest.approx(published, rel=0.03)


def test_an_unknown_recipe_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"'smal'; did you mean small\?"):
        build_recipe("smal")
