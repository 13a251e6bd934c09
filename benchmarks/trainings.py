"""Trainings that benchmarks compare: one tokenizer each, by ``img2tokens train-tokenizer``."""
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def train(corpus: str, out: Path, recipe: str, held_out: int, budget: tuple[str, str],
          settings: Iterable[str]) -> dict[str, Any]:
    """Train a tokenizer; a training that was stopped in ``out`` goes on.

    Args:
        held_out: images kept out of training, the last by name.
        budget: ``--minutes`` or ``--steps``, and how many.
        settings: each ``NAME=VALUE``.
    Returns:
        Its figures on the images held out, as in ``evaluation.json``.
    """
    command = [sys.executable, "-m", "cli", "train-tokenizer", corpus, str(out), "--recipe", recipe,
               "--held-out", str(held_out), "--held-out-by", "name", *budget]
    for setting in settings:
        command += ["--set", setting]
    subprocess.run(command, check=True)
    figures: dict[str, Any] = json.loads((out / "evaluation.json").read_text())
    return figures
