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
    ("16x32,30x50", 1, "both sides of image_size must be multiples of"),
    ("16x32", 1, "several buckets, got 16x32 alone: use --size 16x32"),
    ("16x32,32x64", 1, "buckets differ in their ratio of height to width, got 16x32 and 32x64"),
    ("16x32,tall", 2, "'tall' is no height and width, for example 256x384")])
def test_buckets_that_cannot_be_used_are_refused_before_anything_is_written(
        photos: Path, tmp_path: Path, buckets: str, code: int, words: str) -> None:
    tok = save_tokenizer(tmp_path / "tok")
    done = encode(photos, tmp_path / "tokens", "--tokenizer", tok, "--buckets", buckets)
    assert done.exit_code == code and words in done.output
    assert not (tmp_path / "tokens").exists()


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
                2, "--complete-from", out, "--keep", 0.5, "--filter", 'bucket == "16x32"')
    assert given.exit_code == 0, given.output
    measured = run("evaluate-prior", tmp_path / "prior", out, "--filter", 'bucket == "16x32"',
                   "--num", 2)
    assert measured.exit_code == 0, measured.output
