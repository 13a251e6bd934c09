"""The tiny CLIP learns which pictures belong to captions, and is read as any other."""
from pathlib import Path

import numpy as np
import pytest
import torch

from cli.demo.clip import (
    ClipSettings,
    Retrieval,
    build_tokenizer,
    compare,
    draw_versions,
    guiding_loss,
    train_clip,
)
from cli.demo.guided import read_retrieval
from cli.demo.versions import NUM_CLEAN, NUM_VERSIONS, Captioned
from clip_guidance.clip import Clip
from clip_guidance.job import Tokenizer
from tokenizer.vqgan.model import VQGAN

COLOURS = {"a red field": (220, 30, 30), "a blue lake": (20, 40, 220), "green grass": (10, 200, 20)}


@pytest.fixture(scope="module")
def guided(tokenizer: str) -> VQGAN:
    return Tokenizer.load(tokenizer).model


def plain_pictures(num: int, seed: int) -> Captioned:
    """Pictures of one colour, ever more of it lost in noise."""
    rng = np.random.default_rng(seed)
    captions = [list(COLOURS)[index % 3] for index in range(num)]
    noise = rng.integers(0, 256, (num, 1, 16, 16, 3))
    shares = np.array([0, 0, 0.2, 0.5, 0.9])[None, :, None, None, None]
    clean = np.array([COLOURS[caption] for caption in captions])[:, None, None, None]
    return Captioned(((1 - shares) * clean + shares * noise).astype(np.uint8), captions)


def test_words_of_captions_are_tokens_and_others_are_spelled() -> None:
    tokenizer = build_tokenizer(["a lake at noon, with a house", "a wood at noon"])
    assert tokenizer.tokenize("A lake at Noon") == ["a</w>", "lake</w>", "at</w>", "noon</w>"]
    assert tokenizer.tokenize("fog") == ["f", "o", "g</w>"]


def test_pictures_find_their_captions_and_clean_ones_are_closer(tmp_path: Path,
                                                                guided: VQGAN) -> None:
    held = plain_pictures(12, seed=1)
    settings = ClipSettings(num_steps=20, batch_size=9, dreams=1, learning_rate=3e-3, push=0.3)
    found = train_clip(tmp_path, plain_pictures(36, seed=0), held, guided, settings)
    assert found == Retrieval(num=12, share=1.0, chance=1 / 3) == read_retrieval(tmp_path)
    clip, captions = Clip.load(str(tmp_path)), list(COLOURS)
    own = [compare(clip, held.versions[:, version], captions)[np.arange(12), np.arange(12) % 3]
           for version in (0, NUM_VERSIONS - 1)]
    assert own[0].mean() > own[1].mean() + 0.1


def test_one_seed_gives_one_clip_and_another_seed_another(tmp_path: Path, guided: VQGAN) -> None:
    pictures = plain_pictures(6, seed=0)
    for name, seed in (("one", 3), ("two", 3), ("three", 4)):
        train_clip(tmp_path / name, pictures, pictures, guided,
                   ClipSettings(num_steps=2, batch_size=3, dreams=2, seed=seed))
    one, two, three = ((tmp_path / name / "model.safetensors").read_bytes()
                       for name in ("one", "two", "three"))
    assert one == two != three


def test_retrieval_counts_equal_words_as_own_and_knows_its_chance() -> None:
    found = Retrieval.of(["a lake", "a wood", "a lake", "a tent"],
                         ["a lake", "a lake", "a lake", "a wood"])
    assert found == Retrieval(num=4, share=0.5, chance=(3 + 3 + 3 + 1) / 16)


def test_the_second_version_is_always_more_spoiled() -> None:
    first, second = draw_versions(1000, np.random.default_rng(0))
    assert (second >= NUM_CLEAN).all() and (first < second).all() and second.max() < NUM_VERSIONS
    assert 0.5 < (first < NUM_CLEAN).mean() < 1


def test_loss_falls_when_better_versions_come_closer_to_their_captions() -> None:
    own, dreamt, far = torch.tensor([0, 1, 1]), torch.tensor([1]), torch.zeros(7, 2)
    near = far.clone()
    near[torch.arange(3), own] = 1
    assert guiding_loss(near, own, dreamt) < guiding_loss(far, own, dreamt)
    swapped = torch.cat([near[3:6], near[:3], near[6:]])
    assert guiding_loss(swapped, own, dreamt) > guiding_loss(far, own, dreamt)


def test_loss_falls_when_dreams_lose_against_pictures_yet_show_their_caption() -> None:
    own, dreamt = torch.tensor([0, 1]), torch.tensor([0])
    cosines = torch.zeros(5, 2)
    closer, farther, wrong = cosines.clone(), cosines.clone(), cosines.clone()
    closer[4], farther[4], wrong[4] = torch.tensor([2.0, 2.0]), -2, torch.tensor([-2.0, 2.0])
    losses = [guiding_loss(values, own, dreamt) for values in (farther, cosines, closer)]
    assert losses == sorted(losses)
    assert guiding_loss(wrong, own, dreamt) > guiding_loss(farther, own, dreamt)


def test_settings_without_any_steps_pictures_or_dreams_are_refused() -> None:
    for name in ("num_steps", "batch_size", "dreams"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            ClipSettings(**{name: 0})
