"""``img2tokens sample`` says when coordinates would have a scale that training never showed."""
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.main import main

NOTE = "note: in training crops had {} of the side of their images, and what is drawn at once has "


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture
def train(tmp_path: Path, tokenizer: str, image_folder: Callable[[int], Path]
          ) -> Callable[[str], Path]:
    """Trains a prior with coordinates for a step, on crops of a rule, in ``tokens`` beside it."""
    def make(crops: str) -> Path:
        run("encode", image_folder(4), tmp_path / "tokens", "--tokenizer", tokenizer, "--crops",
            crops)
        run("train-prior", tmp_path / "tokens", tmp_path / "prior", "--condition", "coordinates",
            "--recipe", "tiny", "--steps", 1, "--held-out", 1)
        return tmp_path / "prior"
    return make


def test_wholes_at_the_scale_of_parts_are_noted_with_a_size_that_fits(
        train: Callable[[str], Path], tmp_path: Path) -> None:
    prior = train("random:2:0.4")
    noted = run("sample", prior, tmp_path / "own")
    assert noted.stderr.startswith(NOTE.format("0.4") + "1: ")
    assert "at --size 80x80 it does" in noted.stderr
    for number, size in enumerate(("80x80", "80x160")):
        assert "note" not in run("sample", prior, tmp_path / f"{number}", "--size", size).stderr
    far = run("sample", prior, tmp_path / "far", "--size", "120x120")
    assert NOTE.format("0.4") + "0.27: " in far.stderr and "--size 80x80 " in far.stderr
    rows = run("sample", prior, tmp_path / "rows", "--condition-from", tmp_path / "tokens")
    assert "note" not in rows.stderr


def test_windows_are_smaller_than_whole_crops_were(train: Callable[[str], Path],
                                                   tmp_path: Path) -> None:
    prior = train("random:2")
    assert "note" not in run("sample", prior, tmp_path / "own").stderr
    noted = run("sample", prior, tmp_path / "large", "--size", "64x96").stderr
    assert NOTE.format("0.8 to 1") + "0.5: " in noted and "at --size 40x64 it does" in noted
