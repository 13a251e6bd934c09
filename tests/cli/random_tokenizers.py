"""Tokenizers of the recipe ``tiny`` with random weights, a runner, and files to compare."""
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from cli.main import main


def encode(*arguments: object) -> Result:
    """Run ``img2tokens encode`` in this process."""
    return CliRunner().invoke(main, ["encode", *map(str, arguments)])


def save_tokenizer(folder: Path, seed: int = 0, modality: str = "image", **settings: Any) -> str:
    """Save a tokenizer that nobody has trained; returns its folder."""
    import torch

    from tokenizer import checkpoints, recipes
    from tokenizer.vqgan.model import KIND, VQGAN
    config = recipes.tiny({"name": modality, **settings}).model
    torch.manual_seed(seed)
    checkpoints.save_config(str(folder), KIND, config)
    checkpoints.save_weights(str(folder), VQGAN(config).codec_weights())
    return str(folder)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its path."""
    return {str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*")) if path.is_file()}
