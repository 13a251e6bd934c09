"""``img2tokens encode`` over a source of many images a file: the same bytes from two processes.

That every kind of source gives the same codes is shown in ``tests/benchmarks/test_same_codes.py``.
"""
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from random_tokenizers import save_tokenizer, tree
from source_kinds import WRITERS

from cli.main import main


@pytest.mark.slow
def test_two_processes_write_what_one_does(image_folder: Callable[[int], Path],
                                           tmp_path: Path) -> None:
    url = WRITERS["datasets"](image_folder(10), tmp_path / "source")
    tokenizer = save_tokenizer(tmp_path / "tok")
    for workers in (1, 2):
        done = CliRunner().invoke(main, [
            "encode", url, str(tmp_path / f"tokens-{workers}"), "--tokenizer", f"image={tokenizer}",
            "--shard-size", "3", "--batch-size", "2", "--num-workers", str(workers),
            "--crops", "random:3", "--flips"])
        assert done.exit_code == 0, done.output
        assert "30 rows in 4 shards, 0 dead letters" in done.output
    assert tree(tmp_path / "tokens-1") == tree(tmp_path / "tokens-2")
