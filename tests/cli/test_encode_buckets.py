"""``encode --buckets`` with real tokenizers, and what the other commands make of the tokens."""
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from random_tokenizers import encode, save_tokenizer, tree

from cli.main import main
from tokenizer.codec import Codec
from tokenizer.corpus.images import Crop
from tokenizer.tokens import TokenCorpus

SHAPES = ((30, 60), (41, 41), (62, 31), (1, 300), (33, 70), (80, 44))
BUCKETS = "16x32,24x24,32x16"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def photos(tmp_path: Path, drawn: Callable[..., np.ndarray]) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed, (height, width) in enumerate(SHAPES):
        pixels = drawn(seed, max(60, height), width)[:height]
        Image.fromarray(pixels).save(folder / f"{seed}.png")
    return folder


def test_rows_have_the_codes_that_the_tokenizer_gives_their_crops_alone(photos: Path,
                                                                        tmp_path: Path) -> None:
    tok, out = save_tokenizer(tmp_path / "tok"), tmp_path / "tokens"
    done = encode(photos, out, "--tokenizer", tok, "--buckets", BUCKETS, "--batch-size", 2)
    assert done.exit_code == 0, done.output
    codec, found = Codec.load(tok, batch_size=2), []
    for table in TokenCorpus.open(str(out)).tables():
        for row in table.to_pylist():
            size = tuple(map(int, row["bucket"].split("x")))
            own = codec.at_size(size)
            crop = Crop(left=row["left"], top=row["top"], width=row["crop_width"],
                        height=row["crop_height"])
            raw = own.modality.read(Path(row["source"]).read_bytes(), row["source"])
            codes = own.encode(own.modality.fit(raw, crop, size)[None])
            assert codes.reshape(-1).tolist() == row["image_codes"]
            assert own.spec.grid == (row["image_grid_height"], row["image_grid_width"])
            found.append(row["bucket"])
    assert found == ["16x32", "24x24", "32x16", "16x32", "16x32", "32x16"]
    told = run("inspect", out, "--verify")
    assert told.exit_code == 0 and "       3  16x32" in told.output


def test_tokens_decode_to_pictures_of_their_buckets(photos: Path, tmp_path: Path) -> None:
    tok, out = save_tokenizer(tmp_path / "tok"), tmp_path / "tokens"
    encode(photos, out, "--tokenizer", tok, "--buckets", BUCKETS)
    done = run("decode", out, tmp_path / "decoded", "--tokenizer", tok)
    assert done.exit_code == 0, done.output
    sizes = []
    for seed in range(len(SHAPES)):
        with Image.open(tmp_path / "decoded" / f"{seed}.png") as image:
            sizes.append((image.height, image.width))
    assert sizes == [(16, 32), (24, 24), (32, 16), (16, 32), (16, 32), (32, 16)]
    sheet = run("contact-sheet", out, tmp_path / "sheet.png", "--tokenizer", tok)
    assert sheet.exit_code == 0 and "6 rows" in sheet.output, sheet.output


@pytest.mark.slow
def test_one_worker_two_and_a_part_by_part_job_write_the_same_bytes(photos: Path,
                                                                    tmp_path: Path) -> None:
    tok = save_tokenizer(tmp_path / "tok")
    common = ("--tokenizer", tok, "--buckets", BUCKETS, "--shard-size", 2)
    ways = {"one": [()], "two": [("--num-workers", 2)],
            "parts": [("--array-index", part, "--array-size", 2) for part in (0, 1)]}
    for name, runs in ways.items():
        for arguments in runs:
            done = encode(photos, tmp_path / name, *common, *arguments)
            assert done.exit_code == 0, done.output
    assert tree(tmp_path / "one") == tree(tmp_path / "two") == tree(tmp_path / "parts")


@pytest.mark.parametrize(("buckets", "code", "words"), [
    ("16x32,30x50", 1, "--buckets 30x50: a code of the image tokenizer is of 8 x 8 pixels, and "
     "both sides are multiples of 8, the nearest 32x48"),
    ("16x32", 2, "several buckets, got 16x32 alone: use --size 16x32"),
    ("16x32,32x64", 2, "buckets differ in their ratio of height to width, got 16x32 and 32x64"),
    ("16x32,tall", 2, "Invalid value for '--buckets': 'tall' is no height and width, for example"),
    ("area:24x24,step:6", 1, "--buckets 12x48: a code of the image tokenizer is of 8 x 8 pixels"),
    ("area:24x24", 2, "an area of 576 pixels holds no square of 64: take a smaller step"),
    ("area:24x24,step:8,ratio:1", 2, "several buckets, got 24x24 alone"),
    ("area:24x24,step:8,step:4", 2, "is no area with a step and a ratio, for example area:"),
    ("area:24x24,step:0", 2, "step is at least 1 pixel and ratio at least 1, got 0 and 4"),
    ("area:24,step:8", 2, "is no area"), ("area:24x24,ratio:inf", 2, "is no area"),
    ("step:8,area:24x24", 2, "'step:8' is no height and width")])
def test_buckets_that_cannot_be_used_are_refused_before_anything_is_written(
        photos: Path, tmp_path: Path, buckets: str, code: int, words: str) -> None:
    tok = save_tokenizer(tmp_path / "tok")
    done = encode(photos, tmp_path / "tokens", "--tokenizer", tok, "--buckets", buckets)
    assert done.exit_code == code and words in done.output
    assert not (tmp_path / "tokens").exists()


def test_sizes_of_an_area_are_as_if_they_were_given(photos: Path, tmp_path: Path) -> None:
    tok = save_tokenizer(tmp_path / "tok")
    ways = {"area": "area:24x24,step:8,ratio:2", "list": "16x32,24x24,32x16"}
    for name, buckets in ways.items():
        done = encode(photos, tmp_path / name, "--tokenizer", tok, "--buckets", buckets)
        assert done.exit_code == 0, done.output
    assert tree(tmp_path / "area") == tree(tmp_path / "list")
    told = encode(photos, tmp_path / "dry", "--tokenizer", tok, "--buckets", ways["area"],
                  "--dry-run")
    assert "\nbuckets: 16x32, 24x24, 32x16\n" in told.output


@pytest.mark.slow
def test_a_prior_learns_and_draws_pictures_of_one_bucket(photos: Path, tmp_path: Path) -> None:
    tok, out = save_tokenizer(tmp_path / "tok"), tmp_path / "tokens"
    encode(photos, out, "--tokenizer", tok, "--buckets", BUCKETS)
    train = ("train-prior", out, tmp_path / "prior", "--recipe", "tiny", "--steps", 2,
             "--held-out", 1, "--tokenizer", tok)
    refused = run(*train)
    assert refused.exit_code == 1 and not (tmp_path / "prior").exists()
    assert "3 of 16x32, 1 of 24x24, 2 of 32x16; take one bucket, as with --filter" in refused.output
    done = run(*train, "--filter", 'bucket == "16x32"')
    assert done.exit_code == 0, done.output
    drawn = run("sample", tmp_path / "prior", tmp_path / "samples", "--tokenizer", tok, "--num", 2)
    assert drawn.exit_code == 0, drawn.output
    with Image.open(tmp_path / "samples/images/sample-00001.png") as image:
        assert (image.height, image.width) == (16, 32)
    given = run("sample", tmp_path / "prior", tmp_path / "completed", "--tokenizer", tok, "--num",
                2, "--complete-from", out, "--keep", 0.5)
    assert given.exit_code == 0, given.output
    measured = run("evaluate-prior", tmp_path / "prior", out, "--num", 2)
    assert measured.exit_code == 0, measured.output
    assert 'of the bucket 16x32, for which bucket == "16x32"' in measured.output
    other = run("evaluate-prior", tmp_path / "prior", out, "--filter", 'bucket == "32x16"')
    assert other.exit_code == 1 and "rows of the bucket 16x32 are needed" in other.output
