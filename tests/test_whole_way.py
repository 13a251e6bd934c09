"""The whole way through the command line: corpus, tokenizers, codes, prior, samples, images."""
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from PIL import Image

from cli.main import main

CLASSES = ("dark", "light")
NUM_IMAGES = 24


def run(*words: object) -> str:
    """Run a command in this process; what it printed."""
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, f"{words}: {result.output}\n{result.exception!r}"
    return result.output


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory,
           drawn: Callable[..., np.ndarray]) -> Path:
    """Folders ``images``, with one folder a class, and ``maps`` of two classes of pixels."""
    folder = tmp_path_factory.mktemp("corpus")
    for index in range(NUM_IMAGES):
        pixels = drawn(index) // 2 + 120 * (index % 2)
        stem = f"{CLASSES[index % 2]}/img-{index:03d}"
        mask = (pixels[..., 0] > 128).astype(np.uint8)
        for name, picture in (("images", pixels), ("maps", mask)):
            path = folder / name / f"{stem}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
    (folder / "images/dark/broken.jpg").write_bytes(b"\xff\xd8\xff not a picture")
    Image.new("L", (48, 40)).save(folder / "maps/dark/broken.png")
    return folder


@pytest.fixture(scope="module")
def tokens(corpus: Path) -> Path:
    """The token corpus of images and maps, by tokenizers trained for two steps."""
    run("train-tokenizer", corpus / "images", corpus / "tok", "--recipe", "tiny", "--steps", 2)
    run("train-tokenizer", corpus / "maps", corpus / "seg", "--recipe", "tiny", "--steps", 2,
        "--modality", "segmentation", "--set", "modality.num_classes=2")
    out = corpus / "tokens"
    printed = run("encode", corpus / "images", out, "--maps", f"segmentation={corpus / 'maps'}",
                  "--tokenizer", f"image={corpus / 'tok'}",
                  "--tokenizer", f"segmentation={corpus / 'seg'}", "--shard-size", 10)
    assert "24 rows in 3 shards, 1 dead letter (1 UnreadableImage)" in printed
    return out


def test_every_input_is_a_row_or_a_dead_letter(corpus: Path, tokens: Path) -> None:
    files = sorted((tokens / "data").glob("*.parquet"))
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    expected = sorted(f"{CLASSES[index % 2]}/img-{index:03d}" for index in range(NUM_IMAGES))
    assert [row["key"] for row in rows] == expected
    assert {row["class_name"] for row in rows} == set(CLASSES)
    assert len(files) == 3
    printed = run("inspect", tokens, "--verify")
    assert "UnreadableImage" in printed and "segmentation" in printed


def test_decoding_gives_one_picture_for_each_row(corpus: Path, tokens: Path) -> None:
    out = corpus / "decoded"
    run("decode", tokens, out, "--tokenizer", f"image={corpus / 'tok'}")
    pictures = sorted(path.stem for path in out.rglob("*.png"))
    assert pictures == sorted(f"img-{index:03d}" for index in range(NUM_IMAGES))
    assert Image.open(next(out.rglob("*.png"))).size == (32, 32)


@pytest.fixture(scope="module")
def samples(corpus: Path, tokens: Path) -> dict[str, Path]:
    """Samples by class, by map, and completions, of a prior trained for three steps."""
    run("train-prior", tokens, corpus / "prior", "--recipe", "tiny", "--steps", 3,
        "--condition", "label", "--condition", "segmentation", "--tokenizer", corpus / "tok")
    ways = {"class": ("--label", "light", "--num", 5, "--top-k", 10, "--temperature", 0.9,
                      "--guidance", 1.5),
            "map": ("--condition-from", tokens, "--num", 4),
            "completion": ("--complete-from", tokens, "--num", 3)}
    for name, options in ways.items():
        run("sample", corpus / "prior", corpus / name, "--tokenizer", corpus / "tok", *options)
    return {name: corpus / name for name in ways}


@pytest.mark.parametrize(("way", "num"), [("class", 5), ("map", 4), ("completion", 3)])
def test_samples_are_a_token_corpus_with_pictures(
        samples: dict[str, Path], way: str, num: int) -> None:
    out = samples[way]
    assert run("inspect", out, "--verify")
    assert (out / "_SUCCESS").exists() and (out / "grid.png").exists()
    assert sum(pq.read_table(file).num_rows for file in (out / "data").iterdir()) == num


def test_samples_decode_like_any_corpus(corpus: Path, samples: dict[str, Path]) -> None:
    out = corpus / "samples-decoded"
    run("decode", samples["map"], out, "--tokenizer", f"image={corpus / 'tok'}")
    assert len(list(out.rglob("*.png"))) == 4


def test_completion_keeps_the_upper_half(tokens: Path, samples: dict[str, Path]) -> None:
    given = pq.read_table(sorted((tokens / "data").glob("*"))[0]).to_pydict()
    made = pq.read_table(next((samples["completion"] / "data").iterdir())).to_pydict()
    assert [codes[:8] for codes in made["image_codes"]] == [
        codes[:8] for codes in given["image_codes"][:3]]
