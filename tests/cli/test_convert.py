"""``img2tokens convert``: there and back, and options that belong to one way."""
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.convert import FORMATS
from cli.main import main


def img2tokens(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def run(*arguments: object) -> Result:
    return img2tokens("convert", *arguments)


def test_the_formats_are_those_that_are_read_and_written() -> None:
    from pipelines.formats import LAYOUTS, READERS
    assert FORMATS == tuple(READERS) == tuple(LAYOUTS)


def test_a_corpus_goes_there_and_back_with_its_tokenizer(tokenized: Path, tmp_path: Path) -> None:
    from tokenizer.tokens import TokenCorpus
    there = run(tokenized / "tokens", tmp_path / "tars", "--to", "webdataset", "--modality",
                "image")
    assert there.exit_code == 0, there.output
    assert f"{tmp_path}/tars: 24 items written, 0 dead letters\n" in there.output
    back = run(tmp_path / "tars/*.tar", tmp_path / "back", "--from", "webdataset", "--tokenizer",
               tokenized / "image", "--shard-size", 10)
    assert back.exit_code == 0, back.output
    assert f"{tmp_path}/back: 24 rows in 3 shards, 0 dead letters\n" in back.output
    ours, theirs = (TokenCorpus.open(str(folder)) for folder in (tokenized / "tokens",
                                                                 tmp_path / "back"))
    columns = ["key", "image_codes", "label", "class_name"]
    assert [row for table in ours.tables(columns) for row in table.to_pylist()] == [
        row for table in theirs.tables(columns) for row in table.to_pylist()]
    assert theirs.spec["image"].tokenizer == ours.spec["image"].tokenizer


@pytest.mark.parametrize(("options", "words"), [
    ((), "give either --from or --to"), (("--from", "rar", "--to", "rar"), "give either --from"),
    (("--to", "rar", "--codebook-size", "8"), "--codebook-size belongs to --from"),
    (("--to", "rar", "--shard-size", "8"), "--shard-size belongs to --from"),
    (("--to", "rar", "--data", "x"), "--data belongs to --to llamagen"),
    (("--from", "rar", "--data", "x"), "--data belongs to --to llamagen"),
    (("--to", "zip"), "'zip' is not one of")])
def test_wrong_usage_is_exit_code_2(options: tuple[str, ...], words: str) -> None:
    done = run("a", "b", *options)
    assert done.exit_code == 2 and words in done.output


def test_an_expected_failure_is_one_line(tmp_path: Path) -> None:
    done = run(tmp_path / "none", tmp_path / "out", "--from", "llamagen", "--codebook-size", 8)
    assert done.exit_code == 1 and done.output.count("\n") == 1
    assert "is not a folder with NAME_codes/0.npy" in done.output


@pytest.fixture
def unknown(tokenized: Path, tmp_path: Path) -> Path:
    """A corpus of codes whose tokenizer nobody has told."""
    from tokenizer.tokens import TokenCorpus
    code = TokenCorpus.open(str(tokenized / "tokens")).spec["image"]
    for arguments in (
            (tokenized / "tokens", tmp_path / "lines", "--to", "rar", "--modality", "image"),
            (tmp_path / "lines", tmp_path / "unknown", "--from", "rar", "--codebook-size",
             code.codebook_size, "--grid", f"{code.grid[0]}x{code.grid[1]}")):
        done = run(*arguments)
        assert done.exit_code == 0, done.output
    return tmp_path / "unknown"


def test_a_prior_needs_no_tokenizer_and_its_samples_are_shown_by_one_that_fits(
        unknown: Path, tokenized: Path, tmp_path: Path) -> None:
    for arguments in (
            ("train-prior", unknown, tmp_path / "prior", "--recipe", "tiny", "--steps", 2,
             "--held-out", 4, "--condition", "label"),
            ("sample", tmp_path / "prior", tmp_path / "samples", "--num", 2, "--tokenizer",
             tokenized / "image"),
            ("decode", tmp_path / "samples", tmp_path / "decoded", "--tokenizer",
             f"image={tokenized}/image")):
        done = img2tokens(*arguments)
        assert done.exit_code == 0, done.output
    shown = img2tokens("inspect", unknown, "--verify")
    assert shown.exit_code == 0 and "tokenizer: unknown" in shown.output


def test_dead_letters_of_an_import_are_not_tried_again_by_themselves(unknown: Path,
                                                                     tokenized: Path) -> None:
    done = img2tokens("retry", unknown, "--tokenizer", f"image={tokenized}/image")
    assert done.exit_code == 1 and "which an import job made, cannot be tried" in done.output
