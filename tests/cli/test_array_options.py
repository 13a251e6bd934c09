"""``--array-index`` and ``--array-size`` of ``encode`` and ``decode``."""
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from random_tokenizers import save_tokenizer, tree

from cli.main import main

ImageFolder = Callable[[int], Path]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)])


@pytest.mark.parametrize("command", ["encode", "decode"])
@pytest.mark.parametrize(("options", "words"), [
    (("--array-index", 0), "--array-index and --array-size belong together: give both"),
    (("--array-size", 2), "--array-index and --array-size belong together: give both"),
    (("--array-index", 2, "--array-size", 2), "from 0 to 1, got 2"),
    (("--array-index", -1, "--array-size", 2), "-1 is not in the range x>=0"),
    (("--array-index", 0, "--array-size", 0), "0 is not in the range x>=1")])
def test_what_is_no_part_is_wrong_usage(tmp_path: Path, command: str, options: Sequence[object],
                                        words: str) -> None:
    done = run(command, tmp_path, tmp_path / "out", "--tokenizer", "image=tok", *options)
    assert done.exit_code == 2 and words in done.output


def test_a_dry_run_is_of_the_whole_job(tmp_path: Path) -> None:
    done = run("encode", tmp_path, tmp_path / "out", "--tokenizer", "image=tok", "--dry-run",
               "--array-index", 0, "--array-size", 2)
    assert done.exit_code == 2 and "leave out --array-index and --array-size" in done.output


def test_tasks_say_what_is_left_and_the_last_one_what_there_is(
        image_folder: ImageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos, tokenizer = image_folder(5), save_tokenizer(tmp_path / "tok")
    options = ("--tokenizer", f"image={tokenizer}")
    assert run("encode", photos, tmp_path / "whole", *options, "--shard-size", 2).exit_code == 0
    assert run("decode", tmp_path / "whole", tmp_path / "images", *options).exit_code == 0
    monkeypatch.setitem(sys.modules, "apache_beam", None)  # importing it fails
    out, pictures = tmp_path / "tokens", tmp_path / "pictures"
    commands = {out: ("encode", photos, out, *options, "--shard-size", 2),
                pictures: ("decode", tmp_path / "whole", pictures, *options)}
    for place, command in commands.items():
        said = []
        for index in (1, 0):
            done = run(*command, "--array-index", index, "--array-size", 2)
            assert done.exit_code == 0, done.output
            said.append(done.stdout.splitlines()[-1])
        assert said[0] == (f"{place}: task 1 of an array of 2 is done; 2 of 3 shards are left to "
                           "the others")
        assert said[1] in (f"{out}: 5 rows in 3 shards, 0 dead letters",
                           f"{pictures}: 5 crops decoded, 0 dead letters")
        refused = run(*command, "--array-index", 0, "--array-size", 2, "--overwrite")
        assert refused.exit_code == 1 and f"remove {place} before they start" in refused.output
    assert tree(out) == tree(tmp_path / "whole")
    assert tree(pictures) == tree(tmp_path / "images")
