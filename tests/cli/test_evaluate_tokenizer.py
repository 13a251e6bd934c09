"""``img2tokens evaluate-tokenizer``: the table, the files, and errors in one line."""
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from random_tokenizers import save_tokenizer

from cli import evaluate_tokenizer
from cli.main import main

Folder = Callable[[int], Path]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["evaluate-tokenizer", *map(str, arguments)])


@pytest.fixture
def tokenizer(tmp_path: Path) -> str:
    return save_tokenizer(tmp_path / "tok")


def test_a_table_is_printed_and_files_lie_with_the_tokenizer(tokenizer: str,
                                                             image_folder: Folder) -> None:
    result = run(tokenizer, image_folder(4))
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[-1] == f"report in {tokenizer}/evaluation"
    assert any(line.startswith("PSNR ") and line.endswith("dB      higher is better")
               for line in lines)
    assert any(line.startswith("left out rfid: no weights: give --inception ") for line in lines)
    names = {path.name for path in (Path(tokenizer) / "evaluation").iterdir()}
    assert names == {"evaluation.json", "examples.png"}


def test_what_is_measured_is_chosen_as_in_training(tokenizer: str, image_folder: Folder,
                                                   tmp_path: Path) -> None:
    result = run(tokenizer, image_folder(9), "--held-out", 4, "--held-out-by", "name",
                 "--limit", 2, "--out", tmp_path / "out", "--precision", "bf16")
    assert result.exit_code == 0, result.output
    data = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert data["corpus"]["selection"] == "held out of training: 4 by name; of these 2, spread " \
                                          "evenly"
    assert {example["key"] for example in data["examples"]} == {"img-005", "img-007"}
    assert data["figures"]["codes_changed"]["value"] >= 0
    assert f"report in {tmp_path / 'out'}" in result.stdout
    assert not (Path(tokenizer) / "evaluation").exists()


def test_unreadable_images_are_named_up_to_a_number(tokenizer: str, image_folder: Folder,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate_tokenizer, "MAX_LISTED", 2)
    folder = image_folder(2)
    for index in range(3):
        (folder / f"bad-{index}.png").write_bytes(b"no image")
    result = run(tokenizer, folder)
    assert result.exit_code == 0
    assert f"left out {folder}/bad-1.png: " in result.stderr
    assert "bad-2.png" not in result.stderr and "left out 1 more" in result.stderr
    assert "2 of 5 in " in result.stdout and "3 unreadable" in result.stdout


@pytest.mark.parametrize(("options", "code", "words"), [
    (["--precision", "fp16"], 2, "'fp16' is not one of"),
    (["--held-out", "many"], 2, "'many' is neither a count"),
    (["--held-out", "0"], 1, "Error: held_out must be more than 0"),
    (["--lpips-vgg16", "vgg16.pth"], 1, "Error: LPIPS needs two files, only one is given"),
    (["--inception", "gone.pth"], 1, "Error: gone.pth does not exist; it should hold FID"),
    (["--device", "tpu7"], 1, "Error: device 'tpu7' cannot be used")])
def test_wrong_options_are_explained_in_one_line(tokenizer: str, image_folder: Folder,
                                                 options: list[str], code: int,
                                                 words: str) -> None:
    result = run(tokenizer, image_folder(2), *options)
    assert result.exit_code == code
    assert words in " ".join(result.output.split())


def test_a_folder_without_a_tokenizer_is_named(image_folder: Folder, tmp_path: Path) -> None:
    result = run(tmp_path / "none", image_folder(1))
    assert result.exit_code == 1 and "none" in result.output
    assert result.output.startswith("Error: ") and len(result.output.splitlines()) == 1
