"""``img2tokens evaluate-prior``: the table, the files, and errors in one line."""
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from cli.main import main
from tokenizer.evaluation import inception


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def prior(tokenized: Path) -> Path:
    """A prior of a few steps, conditioned on segmentation."""
    out = tokenized / "measured-prior"
    result = run("train-prior", tokenized / "tokens", out, "--condition", "segmentation",
                 "--recipe", "tiny", "--steps", 3, "--held-out", 4)
    assert result.exit_code == 0, result.output
    return out


def evaluate(tokenized: Path, prior: Path, out: Path, *arguments: object,
             num: tuple[object, ...] = ("--num", 6)) -> Result:
    return run("evaluate-prior", prior, tokenized / "tokens", out, *num, "--batch-size", 6,
               "--device", "cpu", *arguments)


def tokenizers(tokenized: Path) -> tuple[object, ...]:
    return ("--tokenizer", tokenized / "image", "--tokenizer", tokenized / "segmentation")


def figures(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "evaluation.json").read_text())["figures"]
    return found


def test_a_table_is_printed_and_files_are_written(tokenized: Path, prior: Path,
                                                  tmp_path: Path) -> None:
    out = tmp_path / "report"
    result = evaluate(tokenized, prior, out, "--top-k", 9, "--guidance", 2, "--seed", 5)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[-1] == f"report in {out}"
    assert any(line.startswith("bits per code ") and line.endswith("lower is better")
               for line in lines)
    assert any(line.startswith("samples equal to a training row") for line in lines)
    assert "drawn    given segmentation, seed 5, top-k 9, guidance 2, batch-size 6" in lines
    assert {path.name for path in out.iterdir()} == {"evaluation.json", "evaluation.png", "samples"}
    drawing = figures(out)["duplicates"]["conditions"]["drawing"]
    assert drawing["seed"] == 5 and drawing["generation"]["guidance"] == 2.0
    assert drawing["generation"]["sampler"]["top_k"] == 9
    with Image.open(out / "evaluation.png") as picture:
        assert picture.size[0] == 800


def test_the_report_lies_with_the_prior_unless_said_otherwise(tokenized: Path,
                                                              prior: Path) -> None:
    result = run("evaluate-prior", prior, tokenized / "tokens", "--num", 2, "--batch-size", 4)
    assert result.exit_code == 0, result.output
    assert (prior / "evaluation" / "evaluation.json").exists()
    assert (prior / "evaluation.json").exists()  # that of training, untouched


def test_finished_samples_are_measured_and_maps_read_by_a_named_function(
        tokenized: Path, prior: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = run("sample", prior, tmp_path / "made", "--condition-from", tokenized / "tokens",
               "--num", 5, "--batch-size", 5)
    assert made.exit_code == 0, made.output
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dark_reader.py").write_text(
        "def segment(images):\n    return images.min(-1) // 128\n")
    result = evaluate(tokenized, prior, tmp_path / "out", *tokenizers(tokenized), "--samples",
                      tmp_path / "made", "--estimator", "dark_reader:segment", num=())
    assert result.exit_code == 0, result.output
    found = figures(tmp_path / "out")
    assert found["segmentation_miou_samples"]["conditions"]["num_images"] == 5
    assert found["segmentation_miou_held_out"]["conditions"]["num_images"] == 4
    assert found["segmentation_miou_samples"]["conditions"]["estimator"] == "dark_reader:segment"
    assert not (tmp_path / "out/samples").exists()


def test_fid_is_taken_against_the_images_of_a_folder(
        tokenized: Path, prior: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Colours(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels.mean((2, 3)) / 255

    monkeypatch.setattr(inception, "load_inception", lambda place: Colours())
    monkeypatch.setattr(inception, "load_head", lambda place: torch.eye(3))
    (tmp_path / "photos").mkdir()
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 36, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    (tmp_path / "photos/torn.png").write_bytes(b"no image")
    (tmp_path / "weights.pth").write_bytes(b"weights")
    result = evaluate(tokenized, prior, tmp_path / "out", "--tokenizer", tokenized / "image",
                      "--inception", tmp_path / "weights.pth", "--reference", tmp_path / "photos")
    assert result.exit_code == 0, result.output
    fid = figures(tmp_path / "out")["fid"]
    assert fid["value"] > 0 and fid["conditions"]["num_reference"] == 5
    assert fid["conditions"]["reference_images"] == f"images of {tmp_path / 'photos'}"
    assert "left out" in result.stderr and "torn.png" in result.stderr


@pytest.mark.parametrize(("arguments", "code", "words"), [
    (["--estimator", "segmentation=nothing"], 2, "names no function of a module, for example"),
    (["--estimator", "no_such_module_here:segment"], 2, "give the tokenizer of the images"),
    (["--inception", "inception.pth"], 2, "--inception looks at pictures: give the tokenizer"),
    (["--top-k", "5", "--sampler", "greedy"], 2, "the greedy sampler has no --top-k"),
    (["--limit", "0"], 2, "0 is not in the range"),
    (["--samples", "made"], 2, "--samples are finished, and --num would change nothing"),
    (["--filter", "class_name == 'bird'"], 1, "takes none of the rows"),
    (["--device", "tpu7"], 1, "Error: device 'tpu7' cannot be used")])
def test_wrong_options_are_explained_in_one_line(tokenized: Path, prior: Path, tmp_path: Path,
                                                 arguments: list[str], code: int,
                                                 words: str) -> None:
    result = evaluate(tokenized, prior, tmp_path / "out", *arguments)
    assert result.exit_code == code, result.output
    assert words in " ".join(result.output.split())


@pytest.mark.parametrize(("arguments", "words"), [
    (["--samples", "nowhere"], "Error: nowhere holds no completed token corpus"),
    (["--samples", "TOKENS"], "holds no samples: the source of photos/"),
    (["--guidance", "depth=2"], "guidance of depth needs depth among what is given")])
def test_samples_that_cannot_be_had_are_told_before_anything_is_measured(
        tokenized: Path, prior: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        arguments: list[str], words: str) -> None:
    monkeypatch.setattr("prior.report.evaluate.held_out_bits", None)
    given = [argument.replace("TOKENS", str(tokenized / "tokens")) for argument in arguments]
    result = evaluate(tokenized, prior, tmp_path / "out", *given, num=())
    assert result.exit_code == 1 and words in " ".join(result.output.split()), result.output


@pytest.mark.parametrize("option", [["--seed", "0"], ["--guidance", "1"], ["--overwrite"]])
def test_finished_samples_are_not_said_to_be_drawn(tokenized: Path, prior: Path, tmp_path: Path,
                                                   option: list[str]) -> None:
    result = evaluate(tokenized, prior, tmp_path, "--samples", "made", *option, num=())
    assert result.exit_code == 2 and f"{option[0]} would change nothing" in result.output


def test_what_pictures_need_is_told(tokenized: Path, prior: Path, tmp_path: Path) -> None:
    given = tokenizers(tokenized)
    result = evaluate(tokenized, prior, tmp_path, *given, "--reference", tmp_path)
    assert result.exit_code == 2 and "--reference is for FID: give --inception" in result.output
    result = evaluate(tokenized, prior, tmp_path, *given, "--estimator", "no_such_module:segment")
    assert result.exit_code == 1 and "no module 'no_such_module' can be imported" in result.output
