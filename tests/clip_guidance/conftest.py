"""Tiny models that nobody has trained: tokenizers of every kind, and a CLIP with its files."""
from pathlib import Path

import pytest
import torch
from tiny_clip import save_clip

from clip_guidance.clip import Clip
from tokenizer import recipes
from tokenizer.vqgan.model import VQGAN


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as ``save_pretrained`` writes it."""
    return save_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="session")
def clip(clip_folder: Path) -> Clip:
    return Clip.load(str(clip_folder))


@pytest.fixture(scope="session")
def model() -> VQGAN:
    """A tokenizer of images, 32 px to 4 x 4 codes of 32."""
    torch.manual_seed(0)
    return VQGAN(recipes.tiny({"name": "image"}).model).eval().requires_grad_(False)
