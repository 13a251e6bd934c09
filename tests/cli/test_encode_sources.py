"""``img2tokens encode`` over every kind of source: the same bytes from one process and from two."""
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from random_tokenizers import save_tokenizer, tree
from source_kinds import WRITERS

from cli.main import main


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tar", "datasets"])  # of the others, copies are tested
def test_two_processes_write_what_one_does(image_folder: Callable[[int], Path], tmp_path: Path,
                                           kind: str) -> None:
    url = WRITERS[kind](image_folder(10), tmp_path / "source")
    tokenizer = save_tokenizer(tmp_path / "tok")
    for workers in (1, 2):
        done = CliRunner().invoke(main, [
            "encode", url, str(tmp_path / f"tokens-{workers}"), "--tokenizer", f"image={tokenizer}",
            "--shard-size", "3", "--batch-size", "2", "--num-workers", str(workers)])
        assert done.exit_code == 0, done.output
        assert "10 rows in 4 shards, 0 dead letters" in done.output
    assert tree(tmp_path / "tokens-1") == tree(tmp_path / "tokens-2")
