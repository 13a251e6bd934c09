"""``img2tokens encode`` over every kind of source: the same bytes from one process and from two."""
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner
from random_tokenizers import save_tokenizer, tree
from source_kinds import WRITERS

from cli.main import main


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "options", "num_rows"), [
    ("tar", (), 10), ("datasets", ("--crops", "random:3", "--flips"), 30)])  # copies: of all kinds
def test_two_processes_write_what_one_does(image_folder: Callable[[int], Path], tmp_path: Path,
                                           kind: str, options: Sequence[str],
                                           num_rows: int) -> None:
    url = WRITERS[kind](image_folder(10), tmp_path / "source")
    tokenizer = save_tokenizer(tmp_path / "tok")
    for workers in (1, 2):
        done = CliRunner().invoke(main, [
            "encode", url, str(tmp_path / f"tokens-{workers}"), "--tokenizer", f"image={tokenizer}",
            "--shard-size", "3", "--batch-size", "2", "--num-workers", str(workers), *options])
        assert done.exit_code == 0, done.output
        assert f"{num_rows} rows in 4 shards, 0 dead letters" in done.output
    assert tree(tmp_path / "tokens-1") == tree(tmp_path / "tokens-2")
