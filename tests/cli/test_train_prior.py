"""``img2tokens train-prior``: options by name, the last line, and errors in one line."""
import json
import shutil
import signal
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from forked import Forked

from cli.main import main
from cli.train_prior import RECIPES as NAMES
from prior.recipes import RECIPES
from tokenizer.training.journal import read_metrics


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["train-prior", *map(str, arguments)])


def test_training_ends_in_one_line_with_figures_and_place(tokenized: Path, tmp_path: Path) -> None:
    result = run(tokenized / "tokens", tmp_path / "prior", "--condition", "label=0.2",
                 "--condition", "segmentation", "--recipe", "tiny", "--steps", 3, "--seed", 5,
                 "--held-out", 4, "--held-out-by", "name", "--drop-all", 0.25,
                 "--tokenizer", tokenized / "image",
                 "--tokenizer", f"segmentation={tokenized / 'segmentation'}",
                 "--set", "transformer.num_layers=1", "--set", "training.batch_size=4")
    assert result.exit_code == 0, result.output
    line = result.stdout.splitlines()[-1]
    assert "bits per held-out code (" in line and "3 steps in" in line
    assert line.endswith(f"prior in {tmp_path / 'prior'}")
    config = json.loads((tmp_path / "prior" / "config.json").read_text())["config"]
    assert config["conditions"] == [{"name": "label", "dropout": 0.2},
                                    {"name": "segmentation", "dropout": 0.1}]
    assert config["split"] == {"held_out": 4, "by": "name"} and config["drop_all"] == 0.25
    assert config["transformer"]["num_layers"] == 1
    assert (tmp_path / "prior" / "samples.png").exists()
    assert read_metrics(str(tmp_path / "prior"))


def test_a_map_can_be_predicted_from_the_image(tokenized: Path, tmp_path: Path) -> None:
    result = run(tokenized / "tokens", tmp_path / "prior", "--target", "segmentation",
                 "--condition", "image", "--recipe", "tiny", "--steps", 1,
                 "--tokenizer", tokenized / "segmentation")
    assert result.exit_code == 0, result.output


def test_help_shows_examples() -> None:
    result = run("--help")
    assert result.exit_code == 0 and "--condition label=0.1" in result.output


def test_help_names_every_recipe() -> None:
    assert tuple(RECIPES) == NAMES
    assert ", ".join(NAMES) + "." in " ".join(run("--help").output.split())


def test_without_a_length_usage_is_explained(tokenized: Path, tmp_path: Path) -> None:
    result = run(tokenized / "tokens", tmp_path / "prior")
    assert result.exit_code == 2 and "--steps N or --minutes M" in result.output


@pytest.mark.parametrize(("options", "message"), [
    (["--condition", "label=often"], "'label=often' is neither NAME nor NAME=DROPOUT"),
    (["--tokenizer", "segmentation="], "names no folder; write for example segmentation=my"),
    (["--held-out", "some"], "'some' is neither a count"),
    (["--recipe", "smal"], "'smal' is not one of 'tiny', 'small', 'medium', 'gpt_25m'"),
    (["--tokenizer", "image=a", "--tokenizer", "image=b"], "image= is given twice: a and b")])
def test_options_that_cannot_be_read_are_wrong_usage(tokenized: Path, tmp_path: Path,
                                                     options: list[str], message: str) -> None:
    result = run(tokenized / "tokens", tmp_path / "prior", "--steps", 1, *options)
    assert result.exit_code == 2 and message in " ".join(result.output.split())


@pytest.mark.parametrize(("options", "message"), [
    (["--condition", "lable"], "no lable codes; conditions are coordinates, label, segmentation"),
    (["--condition", "label=1"], "dropout of condition label must lie in [0, 1), got 1.0"),
    (["--set", "training.batch_sise=2"], "did you mean batch_size?"),
    (["--set", "transformer.width=33"], "width must be a multiple of"),
    (["--held-out", "24"], "held_out=24 of 24 images leaves none"),
    (["--target", "depth"], "no depth codes")])
def test_impossible_settings_are_one_line(tokenized: Path, tmp_path: Path, options: list[str],
                                          message: str) -> None:
    result = run(tokenized / "tokens", tmp_path / "prior", "--steps", 1, "--recipe", "tiny",
                 *options)
    assert result.exit_code == 1
    assert message in result.output and len(result.output.strip().splitlines()) == 1


def test_a_tokenizer_of_what_the_prior_has_no_codes_of_is_refused(
        tokenized: Path, tmp_path: Path) -> None:
    result = run(tokenized / "tokens", tmp_path / "prior", "--steps", 1,
                 "--tokenizer", tokenized / "segmentation")
    assert result.exit_code == 1
    assert "there are no segmentation codes to decode, only image" in result.output
    result = run(tokenized / "tokens", tmp_path / "prior", "--steps", 1, "--condition",
                 "segmentation", "--tokenizer", tokenized / "segmentation")
    assert result.exit_code == 2 and "the tokenizer of the image codes too" in result.output


def test_a_folder_without_a_corpus_is_one_line(tmp_path: Path) -> None:
    result = run(tmp_path, tmp_path / "prior", "--steps", 1)
    assert result.exit_code == 1 and "no completed token corpus" in result.output


@pytest.mark.slow
def test_ctrl_c_saves_and_the_same_command_goes_on(tokenized: Path, tmp_path: Path) -> None:
    steps = []
    for _ in range(2):
        process = Forked("cli", "train-prior", tokenized / "tokens", tmp_path / "prior", "--recipe",
                         "tiny", "--steps", 1000000, "--set", "training.log_every=1")
        wanted = (steps[-1] if steps else 0) + 3
        while last_step(tmp_path / "prior") < wanted:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "stopped; run the same command again to continue" in errors
        steps.append(last_step(tmp_path / "prior"))
    assert steps[1] > steps[0] >= 3


def last_step(folder: Path) -> int:
    if not (folder / "metrics.jsonl").exists():
        return 0
    return int(max((line["step"] for line in read_metrics(str(folder))), default=0))


# Which rows


def test_several_corpora_are_mixed_by_weight(tokenized: Path, tmp_path: Path) -> None:
    second = tmp_path / "a=2"
    shutil.copytree(tokenized / "tokens", second)
    manifest = second / "manifest.json"
    fingerprint = json.loads(manifest.read_text())["fingerprint"]
    for path in (manifest, *(second / "_receipts").iterdir()):
        path.write_text(path.read_text().replace(fingerprint, "sha256:second"))
    result = run(f"{tokenized / 'tokens'}=3", second, tmp_path / "prior", "--recipe", "tiny",
                 "--steps", 1)
    assert result.exit_code == 0, result.output
    config = json.loads((tmp_path / "prior" / "config.json").read_text())["config"]
    assert config["mixture"] == [{"corpus": fingerprint, "weight": 3.0},
                                 {"corpus": "sha256:second", "weight": 1.0}]


def test_codes_are_mapped_from_the_folder_that_is_named(tokenized: Path, tmp_path: Path) -> None:
    result = run(tokenized / "tokens", tmp_path / "prior", "--recipe", "tiny", "--steps", 1,
                 "--cache", tmp_path / "codes")
    assert result.exit_code == 0, result.output
    assert [path.name[:6] for path in (tmp_path / "codes").iterdir()] == ["codes-"]


def test_a_filter_is_a_part_of_the_training(tokenized: Path, tmp_path: Path) -> None:
    arguments = [tokenized / "tokens", tmp_path / "prior", "--recipe", "tiny", "--steps", 1]
    assert run(*arguments, "--filter", "label is not null").exit_code == 0
    result = run(*arguments)
    assert result.exit_code == 1
    assert "filter was label is not null, now absent" in " ".join(result.output.split())


@pytest.mark.parametrize(("weight", "message"), [
    ("much", "is no folder, and much no weight"), ("0", "more than 0, got 0.0"),
    ("nan", "more than 0, got nan")])
def test_a_weight_that_is_none_is_refused(tokenized: Path, tmp_path: Path, weight: str,
                                          message: str) -> None:
    result = run(f"{tokenized / 'tokens'}={weight}", tmp_path / "prior", "--steps", 1)
    assert result.exit_code == 1 and message in " ".join(result.output.split())


def test_published_blocks_and_sequences_train_and_sample(tokenized: Path, tmp_path: Path) -> None:
    published = ("--set", "sequence=taming", "--set", "transformer.blocks=mingpt",
                 "--set", "transformer.both_ways=false")
    common = (tokenized / "tokens", tmp_path / "prior", "--recipe", "tiny", "--steps", 3,
              "--held-out", 4, *published)
    refused = run(*common, "--condition", "segmentation")
    assert refused.exit_code == 1 and "--drop-all 0 and --condition NAME=0" in refused.output
    done = run(*common, "--condition", "segmentation=0", "--drop-all", 0)
    assert done.exit_code == 0, done.output
    drawn = CliRunner().invoke(main, [
        "sample", str(tmp_path / "prior"), str(tmp_path / "samples"), "--num", "2",
        "--batch-size", "2", "--condition-from", str(tokenized / "tokens")])
    assert drawn.exit_code == 0, drawn.output
