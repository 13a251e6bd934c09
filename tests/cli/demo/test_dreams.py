"""Dreams follow the judge, one caption at a time, within what the codebook can say."""
import numpy as np
import pytest
from torch import Tensor

from cli.demo import dreams
from cli.demo.dreams import Dreams
from clip_guidance.job import Tokenizer
from clip_guidance.latents import LatentSpace
from tokenizer.vqgan.model import VQGAN


@pytest.fixture(scope="module")
def model(tokenizer: str) -> VQGAN:
    return Tokenizer.load(tokenizer).model


def redness(images: Tensor) -> Tensor:
    return (images[:, 0] - images[:, 1:].mean(1)).mean((1, 2))


def test_dreams_come_closer_to_what_the_judge_wants(
        model: VQGAN, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dreams, "FORGOTTEN", 0.0)
    dreaming = Dreams(model, 3, np.random.default_rng(0))
    course = [redness(dreaming.move(np.arange(3), redness)).mean() for _ in range(12)]
    assert course[-1] > course[0] + 0.02


def test_only_the_dreams_of_the_captions_named_move(model: VQGAN) -> None:
    dreaming = Dreams(model, 4, np.random.default_rng(1))
    before = dreaming.points.clone()
    images = dreaming.move(np.array([2, 0]), redness)
    assert images.shape == (2, 3, *model.config.image_size) and not images.requires_grad
    moved = (dreaming.points != before).flatten(1).any(1)
    assert moved.tolist() == [True, False, True, False]
    assert not dreaming.points.requires_grad


def test_dreams_stay_within_the_range_of_the_codebook(model: VQGAN) -> None:
    dreaming, space = Dreams(model, 2, np.random.default_rng(2)), LatentSpace(model.quantize)
    for _ in range(30):
        dreaming.move(np.arange(2), redness)
    latents = dreaming.points * space.scale[:, None, None]
    assert (latents >= space.low[:, None, None] - 1e-5).all()
    assert (latents <= space.high[:, None, None] + 1e-5).all()


def test_a_dream_that_is_forgotten_starts_from_other_codes(
        model: VQGAN, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dreams, "FORGOTTEN", 1.0)
    dreaming = Dreams(model, 1, np.random.default_rng(3))
    first = dreaming.move(np.array([0]), redness)
    assert (dreaming.move(np.array([0]), redness) - first).abs().mean() > 0.01
