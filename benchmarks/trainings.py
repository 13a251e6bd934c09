"""Trainings that benchmarks compare, each by a command of img2tokens in a process of its own."""
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
    run(["train-tokenizer", corpus, str(out), "--recipe", recipe,
         "--held-out", str(held_out), "--held-out-by", "name", *budget, *as_options(settings)])
    return evaluation(out)


def train_prior(tokens: str, out: Path, budget: tuple[str, str], settings: Iterable[str],
                arguments: Iterable[str]) -> dict[str, Any]:
    """Train a prior; a training that was stopped in ``out`` goes on.

    Args:
        budget: ``--minutes`` or ``--steps``, and how many.
        settings: each ``NAME=VALUE``.
        arguments: further ones of ``img2tokens train-prior``.
    Returns:
        Its figures on the rows held out, as in ``evaluation.json``.
    """
    run(["train-prior", tokens, str(out), *budget, *arguments, *as_options(settings)])
    return evaluation(out)


def evaluation(out: Path) -> dict[str, Any]:
    """Figures of the saved weights of a training."""
    figures: dict[str, Any] = json.loads((out / "evaluation.json").read_text())
    return figures


def as_options(settings: Iterable[str]) -> list[str]:
    """Settings as the options of a command."""
    return [part for setting in settings for part in ("--set", setting)]


def run(arguments: Iterable[str]) -> None:
    """Run a command of img2tokens."""
    subprocess.run([sys.executable, "-m", "cli", *arguments], check=True)
