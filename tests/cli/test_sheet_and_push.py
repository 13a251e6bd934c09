"""``img2tokens contact-sheet`` and ``push``: one line each, also where there is nothing to show."""
from pathlib import Path

from click.testing import CliRunner, Result
from PIL import Image

from cli.main import main


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def test_a_sheet_of_a_corpus_whose_sources_are_gone(tokenized: Path, tmp_path: Path) -> None:
    done = run("contact-sheet", tokenized / "tokens", tmp_path / "sheet.png", "--num", 3,
               "--columns", 3, "--tokenizer", f"image={tokenized}/image")
    assert done.exit_code == 0, done.output
    assert done.output.endswith("sheet.png: 3 rows, 3 without source (FileNotFoundError)\n")
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.size[0] == 3 * (2 * 96 + 2 + 4) + 4


def test_what_is_no_corpus_is_not_pushed(tmp_path: Path) -> None:
    done = run("push", tmp_path, "me/corpus")
    assert done.exit_code == 1 and "holds no completed token corpus" in done.output
    assert run("push", tmp_path, "corpus").output.endswith("a repository is USER/NAME, got "
                                                           "'corpus'\n")
