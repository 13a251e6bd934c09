"""``img2tokens inspect``: what a corpus holds, and which file is damaged, missing or surplus."""
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from cli.main import main


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Two shards of two rows each, and one dead letter."""
    from tokenizer import audit, tokens
    from tokenizer.schema import GEOMETRY, CodeSpec, TokenSpec, rows_table
    spec = TokenSpec(codes=(CodeSpec(modality="image", grid=(2, 2), codebook_size=8,
                                     image_size=(8, 8), tokenizer="sha256:a"),))
    receipts = []
    for shard, keys in enumerate((["a", "b"], ["c", "d"])):
        rows = rows_table(spec, {"image": np.full((2, 2, 2), shard)}, {
            "key": keys, "source": keys, "flipped": [False] * 2, "class_name": ["cat", None],
            "label": [0, None], **dict.fromkeys(GEOMETRY, [1] * 2)})
        dead = [tokens.DeadLetter(key="e", source="e.png", stage="decode", error="UnreadableImage",
                                  message="empty")] if shard else []
        receipts.append(tokens.commit_shard(str(tmp_path), shard, 2, "sha256:f", rows, dead))
    audit.complete(str(tmp_path), spec, "sha256:f", receipts, ["cat"], 5)
    return tmp_path


def inspect(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["inspect", *map(str, arguments)])


def test_spec_counts_usage_classes_and_reasons_are_shown(corpus: Path) -> None:
    done = inspect(corpus)
    assert done.exit_code == 0
    for words in ("4 rows from 5 inputs in 2 shards", "image: 2 x 2 uint16 codes of 8",
                  "2 used (25.0%), perplexity 2.0", "classes: 1 of 1 occur, 2 rows have none",
                  "2  cat", "dead letters: 1", "1  UnreadableImage"):
        assert words in done.output
    assert "verified" not in done.output


def test_json_is_for_programs(corpus: Path) -> None:
    data = json.loads(inspect(corpus, "--json", "--verify").stdout)
    assert data["num_rows"] == 4
    assert data["usage"]["image"] == {"used": 2, "perplexity": 2.0, "used_by_depth": []}
    assert data["verified"] is True and data["problems"] == []
    assert json.loads(inspect(corpus, "--json").stdout)["verified"] is False


def test_a_sound_corpus_is_verified(corpus: Path) -> None:
    done = inspect(corpus, "--verify")
    assert done.exit_code == 0 and "verified: every file is as the manifest says" in done.output


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "damaged": (lambda data: (data / "part-00001-of-00002.parquet").write_bytes(b"PAR1"),
                "data/part-00001-of-00002.parquet is damaged: bytes 4"),
    "missing": (lambda data: (data / "part-00000-of-00002.parquet").unlink(),
                "data/part-00000-of-00002.parquet is missing"),
    "surplus": (lambda data: (data / "part-00002-of-00003.parquet").write_bytes(b"x"),
                "data/part-00002-of-00003.parquet is surplus"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_what_is_not_sound_is_named_with_exit_code_1(corpus: Path, kind: str) -> None:
    damage, words = DAMAGES[kind]
    damage(corpus / "data")
    done = inspect(corpus, "--verify")
    assert done.exit_code == 1
    assert f"problem: {words}" in done.stdout
    assert f"1 problem in {corpus}" in done.stderr
    assert words in json.loads(inspect(corpus, "--verify", "--json").stdout)["problems"][0]


def test_what_is_no_corpus_is_said_in_one_line(tmp_path: Path) -> None:
    done = inspect(tmp_path / "nowhere")
    assert done.exit_code == 1 and done.output.count("\n") == 1
    assert "give the folder that `img2tokens encode` wrote" in done.output
