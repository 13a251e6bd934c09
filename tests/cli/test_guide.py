"""``img2tokens guide``: its output is inspected and decoded as any, and bad input is one line."""
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from random_prior import random_prior, save_prior
from tiny_clip import save_clip

from cli.main import main
from cli.values import byte_count
from tokenizer.schema import codes_array
from tokenizer.tokens import TokenCorpus


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip"))


def guide(prompt: str, out: Path, tokenized: Path, clip: object, *arguments: object) -> Result:
    options = ("--tokenizer", tokenized / "image", "--clip", clip, "--steps", 2, "--cutouts", 3,
               *arguments)
    return CliRunner().invoke(main, ["guide", prompt, *map(str, (out, *options))])


def codes_of(folder: Path) -> np.ndarray:
    corpus = TokenCorpus.open(str(folder))
    return codes_array(corpus.spec["image"], corpus.read_shard(0))


def test_guided_images_are_inspected_and_decoded_like_any_corpus(tokenized: Path, clip: Path,
                                                                 tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = guide("a red house | fog:-0.5", out, tokenized, clip, "--num", 2, "--size", "32x48",
                   "--frames", 1, "--cutout-batch", 2, "--set", "cutouts.noise=0")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == f"2 images in {out}; see {out}/images"
    assert "similarity=" in result.stderr and "4/4" in result.stderr
    assert codes_of(out).shape == (2, 4, 6)
    asked = json.loads((out / "guiding.json").read_text())
    assert asked["optimisation"]["cutouts"]["noise"] == 0
    assert (out / "frames/guided-00001.gif").exists()
    shown = CliRunner().invoke(main, ["inspect", str(out), "--verify"])
    assert shown.exit_code == 0 and "2 rows" in shown.output, shown.output
    decoded = CliRunner().invoke(main, ["decode", str(out), str(tmp_path / "pictures"),
                                        "--tokenizer", f"image={tokenized / 'image'}"])
    assert decoded.exit_code == 0, decoded.output
    found, = (tmp_path / "pictures").rglob("guided-00001*.png")
    np.testing.assert_array_equal(Image.open(found), Image.open(out / "images/guided-00001.png"))


def test_prompts_follow_one_another_and_may_be_pictures(tokenized: Path, clip: Path,
                                                        tmp_path: Path) -> None:
    Image.effect_noise((40, 32), 90).convert("RGB").save(tmp_path / "photo.png")
    out = tmp_path / "out"
    result = guide(f"@{tmp_path / 'photo.png'}:0.5 | fog", out, tokenized, clip, "--steps", 3,
                   "--then", "a lake", "--every", 2)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == f"1 image in {out}; see {out}/images"
    lines = (out / "curves/guided-00000.jsonl").read_text().splitlines()
    assert [json.loads(line)["prompt"] for line in lines] == [0, 0, 2, 2]
    assert TokenCorpus.open(str(out)).read_shard(0)["caption"].to_pylist() == ["a lake"]


@pytest.mark.parametrize(("text", "expected"), [
    ("2GiB", 2 << 30), ("1.5 GB", 1_500_000_000), ("800MiB", 800 << 20), ("64KB", 64_000)])
def test_amounts_of_memory_have_units(text: str, expected: int) -> None:
    assert byte_count(text) == expected


@pytest.mark.parametrize("text", ["2", "GiB", "-1GiB", "0GiB", "2 gigs", "1e3MiB", "1.2.3GB"])
def test_what_is_no_amount_of_memory_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"'{text}' is no amount of memory"):
        byte_count(text)


def test_a_memory_limit_changes_no_more_than_rounding(tokenized: Path, clip: Path,
                                                      tmp_path: Path) -> None:
    plain, limited = tmp_path / "plain", tmp_path / "limited"
    for out, options in ((plain, []), (limited, ["--memory-limit", "64GiB"])):
        assert guide("fog", out, tokenized, clip, *options).exit_code == 0
    np.testing.assert_array_equal(codes_of(plain), codes_of(limited))


def test_a_stored_row_keeps_what_lies_outside_the_hole(tokenized: Path, clip: Path,
                                                       tmp_path: Path) -> None:
    result = guide("fog", tmp_path, tokenized, clip, "--start",
                   f"{tokenized / 'tokens'}#photos/003", "--hole", "0,0,16,32")
    assert result.exit_code == 0, result.output
    np.testing.assert_array_equal(codes_of(tmp_path)[0, 2:],
                                  codes_of(tokenized / "tokens")[3, 2:])


def test_an_image_file_keeps_what_is_black_in_the_mask(tokenized: Path, clip: Path,
                                                       tmp_path: Path) -> None:
    Image.effect_noise((32, 32), 90).convert("RGB").save(tmp_path / "start.png")
    mask = np.zeros((32, 32), np.uint8)
    mask[:, :8] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    plain, masked = tmp_path / "plain", tmp_path / "masked"
    for out, options in ((plain, ["--set", "learning_rate=1e-6"]),
                         (masked, ["--mask", tmp_path / "mask.png"])):
        result = guide("fog", out, tokenized, clip, "--start", tmp_path / "start.png", *options)
        assert result.exit_code == 0, result.output
    np.testing.assert_array_equal(codes_of(masked)[:, :, 1:], codes_of(plain)[:, :, 1:])


@pytest.fixture(scope="module")
def prior(tokenized: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prior over the codes of the tokenizer, conditioned on the class."""
    spec = TokenCorpus.open(str(tokenized / "tokens")).spec["image"]
    return save_prior(tmp_path_factory.mktemp("prior"), random_prior(spec, ("cat", "dog")))


def test_a_prior_gives_the_start_and_says_how_likely_codes_are(tokenized: Path, clip: Path,
                                                               prior: Path, tmp_path: Path) -> None:
    result = guide("a cat", tmp_path / "out", tokenized, clip, "--prior", prior, "--label", "cat",
                   "--start", "prior", "--prior-weight", 0.1)
    assert result.exit_code == 0, result.output
    row, = TokenCorpus.open(str(tmp_path / "out")).read_shard(0).to_pylist()
    assert row["log_likelihood"] < 0 and "&start=prior" in row["source"]
    rows = guide("a cat", tmp_path / "rows", tokenized, clip, "--prior", prior, "--prior-weight",
                 0.1, "--condition-from", f"{tokenized / 'tokens'}#photos/003")
    assert rows.exit_code == 0, rows.output


@pytest.mark.parametrize(("options", "message"), [
    (["--label", "fox"], "'fox' is none of the prior's 2 classes"),
    (["--size", "32x48"], "the prior is of images of 32x32 pixels"),
    (["--prior", "no-prior"], "no-prior")])
def test_a_prior_that_does_not_fit_is_one_clear_line(tokenized: Path, clip: Path, prior: Path,
                                                     tmp_path: Path, options: list[str],
                                                     message: str) -> None:
    result = guide("a cat", tmp_path, tokenized, clip, "--prior", prior, "--start", "prior",
                   *options)
    assert result.exit_code == 1 and message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("prompt", "options", "message"), [
    ("", [], "a prompt needs words, got ''"),
    ("a house:heavy", [], "weight and stop are numbers, got 'a house:heavy'"),
    ("a house", ["--size", "30x32"], "must be multiples of 8"),
    ("a house", ["--clip", "no-clip"], "no-clip is no folder with a CLIP: give one as"),
    ("x" * 40, [], "of which this CLIP reads 24: shorten"),
    ("a house", ["--start", "tokens#photos/003"], "tokens holds no completed token corpus"),
    ("a house", ["--set", "cutouts.blur=1"], "cutouts.blur"),
    ("a house", ["--memory-limit", "1MiB"], "guidance needs about "),
    ("a house", ["--memory-limit", "2GiB", "--cutout-batch", "1"], "give it or cutout_batch"),
    ("@no.png", [], "no.png"), ("@", [], "behind @ a prompt names an image file"),
    ("a house", ["--then", ""], "a prompt needs words, got ''"),
    ("a house", ["--then", "fog", "--every", "2"], "take more than the 2 steps there are"),
    ("a house", ["--device", "nowhere"], "device 'nowhere' cannot be used")])
def test_bad_input_is_one_clear_line(tokenized: Path, clip: Path, tmp_path: Path, prompt: str,
                                     options: list[str], message: str) -> None:
    result = guide(prompt, tmp_path, tokenized, clip, *options)
    assert result.exit_code == 1 and message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_clip_that_lacks_a_file_is_one_clear_line(tokenized: Path, tmp_path: Path) -> None:
    folder = save_clip(tmp_path / "clip")
    (folder / "model.safetensors").unlink()
    result = guide("a house", tmp_path / "out", tokenized, folder)
    assert result.exit_code == 1
    assert f"{folder} holds no model.safetensors" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_tokenizer_of_maps_is_refused(tokenized: Path, clip: Path, tmp_path: Path) -> None:
    result = guide("a house", tmp_path, tokenized, clip, "--tokenizer", tokenized / "segmentation")
    assert result.exit_code == 1
    assert "is a tokenizer of segmentation; CLIP judges pictures" in result.stderr


@pytest.mark.parametrize(("options", "message"), [
    (["--hole", "0,0,8,8"], "lie in the image of --start; give a file or"),
    (["--start", "prior"], "are about a prior; give --prior"),
    (["--prior-weight", "1"], "are about a prior; give --prior"),
    (["--prior", "prior"], "acts by --start prior or --prior-weight; give one or both"),
    (["--memory-limit", "lots"], "'lots' is no amount of memory, for example 2GiB"),
    (["--every", "1"], "--every says when the prompts of --then follow"),
    (["--start", "tokens"], "--start takes an image file, TOKENS#KEY or prior, got tokens")])
def test_options_that_do_not_go_together_are_wrong_usage(tokenized: Path, clip: Path,
                                                         tmp_path: Path, options: list[str],
                                                         message: str) -> None:
    result = guide("a house", tmp_path, tokenized, clip, *options)
    assert result.exit_code == 2 and message in result.stderr
