"""Tokenizers with several codes a cell, from training to samples, by the commands people use."""
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from cli.main import main
from tokenizer.codec import Codec
from tokenizer.schema import codes_array
from tokenizer.tokens import CARD, TokenCorpus

NUM_PHOTOS = 10
DEPTHS = {"image": 3, "edges": 2}
TINY = ("--recipe", "tiny", "--held-out", 2)


def run(*arguments: object) -> str:
    """What a command prints; it must succeed."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, a tokenizer of each modality, tokens, and a prior of images given edges."""
    folder = tmp_path_factory.mktemp("residual")
    (folder / "photos").mkdir()
    generator = np.random.default_rng(0)
    for index in range(NUM_PHOTOS):
        blocks = generator.integers(0, 256, (4, 4, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        Image.fromarray(blocks).save(folder / "photos" / f"photo-{index}.png")
    for name, depth in DEPTHS.items():
        run("train-tokenizer", folder / "photos", folder / name, "--modality", name, *TINY,
            "--steps", 2, "--set", "model.quantizer.kind=residual",
            "--set", f"model.quantizer.depth={depth}", "--set", "model.quantizer.kmeans=true")
    run("encode", folder / "photos", folder / "tokens", *both("--tokenizer", folder))
    run("train-prior", folder / "tokens", folder / "prior", *TINY, "--steps", 2,
        "--condition", "edges", *both("--tokenizer", folder))
    return folder


def both(option: str, folder: Path) -> list[str]:
    """An option with the tokenizer of each modality."""
    return [part for name in DEPTHS for part in (option, f"{name}={folder / name}")]


def codes_of(tokens: Path, modality: str = "image") -> np.ndarray:
    corpus = TokenCorpus.open(str(tokens))
    return np.concatenate([codes_array(corpus.spec[modality], table) for table in corpus.tables()])


def pictures(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))])


def test_tokens_hold_the_codes_of_every_depth(made: Path) -> None:
    found, photos = codes_of(made / "tokens"), pictures(made / "photos")
    codec = Codec.load(str(made / "image"))
    assert found.shape == (NUM_PHOTOS, 3, *codec.spec.grid)
    np.testing.assert_array_equal(found, codec.encode(photos))


def test_usage_of_the_least_used_codebook_is_told_by_all(made: Path) -> None:
    size = Codec.load(str(made / "image")).spec.codebook_size
    by_depth = [len(np.unique(part)) for part in codes_of(made / "tokens").swapaxes(0, 1)]
    usage = json.loads(run("inspect", made / "tokens", "--json"))["usage"]["image"]
    assert usage["used_by_depth"] == by_depth and usage["used"] == min(by_depth)
    words = ", ".join(map(str, by_depth))
    shown = run("inspect", made / "tokens", "--verify")
    assert f"{min(by_depth)} used ({min(by_depth) / size:.1%}; by depth {words})" in shown
    assert "verified: every file" in shown and "image: 3 x " in shown
    assert f"| {min(by_depth)}; by depth {words} |" in (made / "tokens" / CARD).read_text()
    table = run("evaluate-tokenizer", made / "image", made / "photos")
    figures = json.loads((made / "image" / "evaluation" / "evaluation.json").read_text())["figures"]
    assert figures["codes_used"]["value"] == min(by_depth) / size
    assert figures["dead_codes"]["value"] == size - min(by_depth)
    assert figures["perplexity"]["value"] == usage["perplexity"]
    assert figures["codes_used"]["conditions"]["used_by_depth"] == by_depth
    assert "codebook used, least of 3" in table and "dead codes, most of 3" in table
    trained = json.loads((made / "image" / "evaluation.json").read_text())
    assert min(trained["num_codes_used_by_depth"]) == trained["num_codes_used"]


def test_decoded_tokens_are_what_the_codec_decodes(made: Path, tmp_path: Path) -> None:
    run("decode", made / "tokens", tmp_path, "--tokenizer", f"image={made / 'image'}")
    expected = Codec.load(str(made / "image")).decode(codes_of(made / "tokens"))
    np.testing.assert_array_equal(pictures(tmp_path), expected)


def test_training_a_prior_shows_samples(made: Path) -> None:
    picture = Image.open(made / "prior" / "samples.png")
    assert picture.size == (4 * 34 + 2, 2 * 34 + 2)  # edges, original and two samples, two rows


def test_samples_from_maps_are_decoded_and_keep_their_maps(made: Path, tmp_path: Path) -> None:
    run("sample", made / "prior", tmp_path / "samples", *both("--tokenizer", made),
        "--condition-from", made / "tokens", "--batch-size", 4)
    np.testing.assert_array_equal(codes_of(tmp_path / "samples", "edges"),
                                  codes_of(made / "tokens", "edges"))
    found = codes_of(tmp_path / "samples")
    assert found.shape == codes_of(made / "tokens").shape
    expected = Codec.load(str(made / "image")).decode(found)
    np.testing.assert_array_equal(pictures(tmp_path / "samples" / "images"), expected)
    assert "verified" in run("inspect", tmp_path / "samples", "--verify")
    run("decode", tmp_path / "samples", tmp_path / "decoded", "--tokenizer",
        f"image={made / 'image'}")
    np.testing.assert_array_equal(pictures(tmp_path / "decoded"), expected)


def test_completions_keep_the_upper_half_of_every_depth(made: Path, tmp_path: Path) -> None:
    run("sample", made / "prior", tmp_path, "--tokenizer", made / "image", "--complete-from",
        made / "tokens", "--keep", 0.5, "--batch-size", 4)
    found, given = codes_of(tmp_path), codes_of(made / "tokens")
    half = given.shape[2] // 2
    np.testing.assert_array_equal(found[:, :, :half], given[:, :, :half])
    for depth in range(3):
        assert (found[:, depth, half:] != given[:, depth, half:]).any()
