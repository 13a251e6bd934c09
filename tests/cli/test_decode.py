"""``img2tokens decode`` on real tokenizers."""
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from random_tokenizers import save_tokenizer, tree

from cli.main import main


@pytest.fixture
def encoded(image_folder: Callable[[int], Path], tmp_path: Path) -> Path:
    """A folder with ``tokens`` of seven photos, and the ``tok`` that made them."""
    save_tokenizer(tmp_path / "tok")
    done = run("encode", image_folder(7), tmp_path / "tokens", "--tokenizer",
               f"image={tmp_path}/tok", "--shard-size", 3)
    assert done.exit_code == 0, done.output
    return tmp_path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def test_images_are_those_of_the_codec(encoded: Path) -> None:
    from tokenizer.codec import Codec
    from tokenizer.schema import codes_array
    from tokenizer.tokens import TokenCorpus
    done = run("decode", encoded / "tokens", encoded / "out", "--tokenizer", f"image={encoded}/tok")
    assert done.exit_code == 0, done.output
    assert f"{encoded}/out: 7 crops decoded, 0 dead letters\n" in done.output
    codec = Codec.load(str(encoded / "tok"))
    table = TokenCorpus.open(str(encoded / "tokens")).read_shard(1)
    expected = codec.decode(codes_array(codec.spec, table))
    for key, pixels in zip(table["key"].to_pylist(), expected, strict=True):
        with Image.open(encoded / f"out/{key}.png") as image:
            assert (np.array(image) == pixels).all()


def test_the_format_can_be_chosen(encoded: Path) -> None:
    done = run("decode", encoded / "tokens", encoded / "out", "--tokenizer", encoded / "tok",
               "--format", "webp")
    assert done.exit_code == 0 and (encoded / "out/img-006.webp").exists()


def test_another_tokenizer_is_refused_in_one_line(encoded: Path) -> None:
    other = save_tokenizer(encoded / "other", seed=1)
    done = run("decode", encoded / "tokens", encoded / "out", "--tokenizer", f"image={other}")
    assert done.exit_code == 1 and done.output.count("\n") == 1
    assert "give the tokenizer that encoded them" in done.output
    assert not (encoded / "out").exists()


@pytest.mark.parametrize(("options", "words"), [
    ((), "Missing option '--tokenizer'"),
    (("--tokenizer", "image=a", "--format", "bmp"), "'bmp' is not one of"),
    (("--tokenizer", "image=a", "--tokenizer", "image=b"), "given twice"),
])
def test_wrong_usage_is_exit_code_2(options: tuple[str, ...], words: str) -> None:
    done = run("decode", "tokens", "out", *options)
    assert done.exit_code == 2 and words in done.output


def test_a_corpus_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    done = run("decode", tmp_path / "none", tmp_path / "out", "--tokenizer", "image=tok")
    assert done.exit_code == 1 and "holds no completed token corpus" in done.output


def test_images_go_wherever_there_is_a_sink() -> None:
    from cli.decode import decode
    from pipelines.sinks import SINKS
    option = next(parameter for parameter in decode.params if parameter.name == "to")
    assert option.type.choices == tuple(SINKS)  # type: ignore[attr-defined]


@pytest.mark.slow
def test_two_processes_write_the_tar_files_of_one(encoded: Path) -> None:
    for num_workers in (1, 2):
        done = run("decode", encoded / "tokens", encoded / f"tars-{num_workers}", "--to", "tar",
                   "--tokenizer", f"image={encoded}/tok", "--num-workers", num_workers)
        assert done.exit_code == 0, done.output
    assert tree(encoded / "tars-1") == tree(encoded / "tars-2")
