"""``img2tokens train-tokenizer``: settings by name, the last line, and errors in one line."""
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from launched import run_ranks
from random_tokenizers import save_tokenizer
from safetensors.torch import load_file

from cli.main import main
from cli.train_tokenizer import RECIPES as NAMES
from cli.train_tokenizer import build_config
from tokenizer.corpus.modalities import Depth, new_settings
from tokenizer.recipes import RECIPES
from tokenizer.training.journal import read_metrics

Folder = Callable[[int], Path]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["train-tokenizer", *map(str, arguments)])


def test_training_ends_in_one_line_with_figures_and_place(image_folder: Folder,
                                                          tmp_path: Path) -> None:
    result = run(image_folder(8), tmp_path / "tok", "--recipe", "tiny", "--steps", 2,
                 "--held-out", 3, "--held-out-by", "name", "--seed", 5)
    assert result.exit_code == 0, result.output
    line = result.stdout.splitlines()[-1]
    assert line.startswith("held-out images (3): PSNR ")
    assert "% of the codebook used; 2 steps in " in line
    assert line.endswith(f"tokenizer in {tmp_path / 'tok'}")


@pytest.mark.parametrize(("modality", "setting", "score"), [
    ("edges", "sigma=1.5", "f1 "), ("low_res", "factor=8", "PSNR "),
    ("normals", "input_range=0,1", "mean_angle ")])
def test_photos_can_be_learnt_as(image_folder: Folder, tmp_path: Path, modality: str, setting: str,
                                 score: str) -> None:
    result = run(image_folder(6), tmp_path / "tok", "--modality", modality, "--recipe", "tiny",
                 "--steps", 1, "--held-out", 2, "--set", f"modality.{setting}")
    assert result.exit_code == 0, result.output
    assert f"held-out images (2): {score}" in result.stdout


def test_recipes_of_depth_are_settings_by_name() -> None:
    settings = ["modality.range=0.5,80", "modality.inverse=true"]
    modality = build_config("tiny", "depth", settings).model.build_modality()
    assert modality == Depth(range=(0.5, 80.0), inverse=True)
    modality = build_config("tiny", "depth", ["modality.scaling=standardised"]).model
    assert modality.build_modality() == Depth(scaling="standardised")


def test_a_factor_that_does_not_divide_the_image_is_one_line(image_folder: Folder,
                                                             tmp_path: Path) -> None:
    result = run(image_folder(6), tmp_path / "tok", "--modality", "low_res", "--recipe", "tiny",
                 "--steps", 1, "--held-out", 2, "--set", "modality.factor=5")
    assert result.exit_code == 1 and "factor 5 must divide both sides" in result.output


def test_help_names_every_modality() -> None:
    from tokenizer.corpus.modalities import MODALITIES
    words = " ".join(run("--help").output.split())
    assert all(name in words for name in MODALITIES)


def test_help_shows_examples() -> None:
    result = run("--help")
    assert result.exit_code == 0 and "--set modality.num_classes=12" in result.output


def test_without_a_length_usage_is_explained(tmp_path: Path) -> None:
    result = run(tmp_path, tmp_path / "tok")
    assert result.exit_code == 2 and "--steps N or --minutes M" in result.output


def test_help_names_every_recipe() -> None:
    assert tuple(RECIPES) == NAMES
    assert ", ".join(NAMES) + "." in " ".join(run("--help").output.split())


def test_an_unknown_recipe_is_wrong_usage(tmp_path: Path) -> None:
    result = run(tmp_path, tmp_path / "tok", "--steps", 1, "--recipe", "small_129")
    assert result.exit_code == 2
    assert "'small_129' is not one of 'tiny', 'small_64'" in " ".join(result.output.split())


@pytest.mark.parametrize("text", ["many", "0.1x"])
def test_a_count_that_is_none_is_wrong_usage(tmp_path: Path, text: str) -> None:
    result = run(tmp_path, tmp_path / "tok", "--steps", 1, "--held-out", text)
    assert result.exit_code == 2 and f"'{text}' is neither a count" in result.output


def test_classes_must_be_counted_and_the_error_says_how(tmp_path: Path) -> None:
    result = run(tmp_path, tmp_path / "tok", "--modality", "segmentation", "--steps", 1)
    assert result.exit_code == 1 and "Traceback" not in result.output
    assert "give it as --set modality.num_classes=VALUE" in result.output


@pytest.mark.parametrize(("options", "message"), [
    (["--modality", "sound"], "unknown modality 'sound'; known are depth, edges, image, "),
    (["--set", "training.batch_sise=2"], "did you mean batch_size?"),
    (["--set", "training.batch_size=0"], "training.batch_size must be at least 1, got 0"),
    (["--set", "nonsense"], "name=value, got 'nonsense'"),
    (["--held-out", "8"], "held_out=8 of 8 images leaves none to train")])
def test_wrong_settings_are_one_line_each(image_folder: Folder, tmp_path: Path,
                                          options: list[str], message: str) -> None:
    result = run(image_folder(8), tmp_path / "tok", "--recipe", "tiny", "--steps", 1, *options)
    assert result.exit_code == 1 and message in result.output
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_missing_corpus_is_named(tmp_path: Path) -> None:
    result = run(tmp_path / "nowhere", tmp_path / "tok", "--steps", 1)
    assert result.exit_code == 1 and "nowhere does not exist" in result.output


def test_ctrl_c_exits_130_and_says_how_to_continue(tmp_path: Path,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tokenizer.training.loop.train_tokenizer", stopped)
    result = run(tmp_path, tmp_path / "tok", "--steps", 1)
    assert result.exit_code == 130 and "run the same command again" in result.output


def test_images_left_out_are_named(image_folder: Folder, tmp_path: Path) -> None:
    folder = image_folder(8)
    (folder / "img-001.png").write_bytes(b"")
    result = run(folder, tmp_path / "tok", "--recipe", "tiny", "--steps", 3, "--held-out", 1,
                 "--held-out-by", "name")
    assert result.exit_code == 0 and f"left out {folder / 'img-001.png'}: " in result.stderr


def test_settings_reach_modality_model_and_training() -> None:
    recipe = build_config("tiny", "segmentation", [
        "modality.num_classes=5", "modality.loss=bce", "model.image_size=64,32",
        "model.autoencoder.width=16", "training.optimizer.learning_rate=1e-3"])
    assert recipe.model.modality == {"name": "segmentation", "num_classes": 5, "loss": "bce"}
    assert recipe.model.image_size == (64, 32) and recipe.model.autoencoder.width == 16
    assert recipe.training.optimizer.learning_rate == 1e-3


def test_a_training_starts_from_a_tokenizer_whatever_its_recipe(image_folder: Folder,
                                                                tmp_path: Path) -> None:
    start = save_tokenizer(tmp_path / "start", modality="low_res", factor=4)
    result = run(image_folder(6), tmp_path / "tok", "--init-from", start, "--recipe", "small_64",
                 "--steps", 1, "--held-out", 2, "--set", "training.batch_size=2",
                 "--set", "training.optimizer.learning_rate=1e-7")
    assert result.exit_code == 0, result.output
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("start", "tok"))
    assert before.keys() == after.keys()
    name = "encoder.conv_in.weight"
    assert after[name].numpy() == pytest.approx(before[name].numpy(), abs=1e-5)


def test_modality_and_model_are_those_of_the_tokenizer_to_start_from(tmp_path: Path) -> None:
    start = save_tokenizer(tmp_path, modality="segmentation", num_classes=5, loss="bce")
    own = {"name": "segmentation", "num_classes": 5, "loss": "bce"}
    recipe = build_config("small_64", None, ["model.image_size=64,64"], start)
    assert recipe.model.modality == own and recipe.model.image_size == (64, 64)
    assert recipe.model.autoencoder == RECIPES["tiny"](own).model.autoencoder
    assert recipe.training == RECIPES["small_64"](own).training
    changed = build_config("tiny", "segmentation", ["modality.ignore_id=9"], start)
    assert changed.model.modality == {**own, "ignore_id": 9}
    assert build_config("tiny", "image", [], start).model.modality == new_settings("image")
    assert build_config("tiny", None, []).model.modality == new_settings("image")


def test_new_tokenizers_take_the_newest_route_and_early_trainings_keep_theirs(
        tmp_path: Path) -> None:
    early = save_tokenizer(tmp_path / "early")
    new = build_config("tiny", None, [], out=early).model.modality
    assert new == new_settings("image") != {"name": "image"}
    (tmp_path / "early/training").mkdir()
    (tmp_path / "early/training/state.pt").write_bytes(b"")
    assert build_config("tiny", None, [], out=early).model.modality == {"name": "image"}
    chosen = build_config("tiny", "edges", ["modality.route=stored"]).model.modality
    assert chosen == {"name": "edges", "route": "stored"}
    assert build_config("tiny", None, [], early).model.modality == {"name": "image"}


def test_a_tokenizer_to_start_from_that_is_none_is_one_line(tmp_path: Path) -> None:
    result = run(tmp_path, tmp_path / "tok", "--steps", 1, "--init-from", tmp_path)
    assert result.exit_code == 1 and result.stderr.count("\n") == 1
    assert "holds no tokenizer (no config.json)" in result.stderr


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(image_folder: Folder, tmp_path: Path) -> None:
    corpus = image_folder(10)
    settings = [str(corpus), "--recipe", "tiny", "--steps", "3", "--held-out", "2",
                "--set", "model.quantizer.revive_after=0", "--set", "training.log_every=1",
                "--set", "training.optimizer.warmup_steps=1"]
    codes, outputs, errors = run_ranks("cli", "train-tokenizer", settings[0],
                                       str(tmp_path / "two"), *settings[1:])
    assert codes == [0, 0], errors
    assert outputs[0].endswith(f"tokenizer in {tmp_path / 'two'}") and outputs[1] == ""
    assert run(settings[0], tmp_path / "one", *settings[1:]).exit_code == 0
    one, two = ([line["train/reconstruction"] for line in read_metrics(str(tmp_path / name))
                 if "train/reconstruction" in line] for name in ("one", "two"))
    assert two == pytest.approx(one, rel=1e-4) and one[2] < 0.995 * one[0]
