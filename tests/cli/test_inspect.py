"""``img2tokens inspect``: what a corpus holds, and which file is damaged, missing or surplus."""
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from written_corpora import write_corpus

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


def test_dead_letters_are_listed_with_their_reasons(corpus: Path) -> None:
    done = inspect(corpus, "--dead-letters", 5)
    assert done.output.splitlines()[-2:] == ["1 of 1 dead letter",
                                             "  e  e.png  (decode)  UnreadableImage: empty"]
    assert json.loads(inspect(corpus, "--dead-letters", 5, "--json").stdout)["failed"] == [
        {"key": "e", "source": "e.png", "stage": "decode", "error": "UnreadableImage",
         "message": "empty"}]
    assert "failed" not in json.loads(inspect(corpus, "--json").stdout)


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
    assert "nothing lies there" in done.output


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    """Six rows with quality columns; two have equal codes, and a third differs in one place."""
    codes = np.arange(24).reshape(6, 2, 2)
    codes[4] = codes[1]
    codes[5] = codes[1]
    codes[5, 0, 0] = 30
    write_corpus(tmp_path / "tokens", codes, 32, classes=["sky", "cat"] * 3, quality={
        "image_psnr": [21.5, 12.25, 30, 25, 25, 40], "image_entropy": [2.0] * 6,
        "image_distance": [float("nan")] * 6, "image_margin": [float("nan")] * 6})
    return tmp_path / "tokens"


def test_quality_is_shown_with_classes_and_the_worst_rows(measured: Path) -> None:
    done = inspect(measured, "--worst", 2)
    assert done.exit_code == 0, done.output
    lines = [" ".join(line.split()) for line in done.output.splitlines()]
    assert "image_psnr 6 25.6250 12.2500 14.5625 25.0000 37.5000 40.0000" in lines
    assert "image_margin 0 none has a value" in lines
    assert "12.2500 k1 cat k1.png" in lines and "21.5000 k0 sky k0.png" in lines
    start = lines.index("image_psnr by class, from the worst mean")
    assert [line.split()[:3] for line in lines[start + 1:start + 3]] == [
        ["sky", "3", "25.5000"], ["cat", "3", "25.7500"]]


def test_codes_and_duplicates_are_shown(measured: Path) -> None:
    done = inspect(measured, "--codes", "--duplicates", 1)
    assert done.exit_code == 0, done.output
    assert "image codes: 17 of 32 used" in done.output and "dead 15" in done.output
    assert "equal image codes: 1 group of rows, 1 of which repeat another, of 6 rows" in done.output
    assert "2  k1, k4" in done.output
    assert "codes that differ in 1 to 1 places: 1 pair\n" in done.output
    assert "1  k1, k5" in done.output


def test_all_of_it_is_there_as_json_for_the_rows_that_a_filter_takes(measured: Path,
                                                                     tmp_path: Path) -> None:
    done = inspect(measured, "--json", "--stats", "--worst", 1, "--codes", "--duplicates", 1,
                   "--entropy-map", tmp_path / "map.png", "--filter", "image_psnr < 26")
    data = json.loads(done.stdout)
    assert data["num_rows"] == 6 and data["selected"]["num_rows"] == 4
    assert data["selected"]["class_counts"] == {"cat": 2, "sky": 2}
    assert data["quality"]["worst"]["image_psnr"][0]["key"] == "k1"
    assert data["quality"]["columns"]["image_psnr"]["max"] == 25
    assert len(data["codes"]["image"]["dead_codes"][0]) == 32 - 12
    assert data["duplicates"]["exact"]["num_groups"] == 1
    assert data["duplicates"]["near"]["num_pairs"] == 0
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


def test_of_several_filters_all_must_hold(corpus: Path) -> None:
    first, second = 'class_name == "cat" or key == "d"', 'key in ("b", "c", "d")'
    for filters, num_rows in (((first,), 3), ((second,), 3), ((first, second), 2)):
        done = inspect(corpus, "--json", *(word for text in filters for word in ("--filter", text)))
        assert json.loads(done.stdout)["selected"]["num_rows"] == num_rows, done.output


def test_a_filter_alone_counts_its_rows(measured: Path) -> None:
    done = inspect(measured, "--filter", "class_name == 'cat'")
    assert "filter \"class_name == 'cat'\": 3 rows" in done.output
    assert ("quality columns (--stats): image_psnr, image_entropy, image_distance, image_margin\n"
            in done.output)


@pytest.mark.parametrize(("options", "words"), [
    (("--filter", "psnr > 3"), "no column psnr"),
    (("--filter", "label == 9"), "takes none of the rows"),
    (("--duplicates", 4), "must be 0 to 3")])
def test_what_cannot_be_found_out_is_one_line(measured: Path, options: tuple[object, ...],
                                              words: str) -> None:
    done = inspect(measured, *options)
    assert done.exit_code == 1 and done.output.count("\n") == 1 and words in done.output


def test_without_quality_columns_it_is_said_how_to_get_them(corpus: Path) -> None:
    done = inspect(corpus, "--stats")
    assert done.exit_code == 1 and "encode the images with --stats" in done.output
