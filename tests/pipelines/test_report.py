"""What `inspect` says about a corpus."""
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from pipelines import report
from pipelines.encode import EncodeConfig, encode_corpus
from tokenizer import storage
from tokenizer.tokens import TokenCorpus

Settings = Callable[..., EncodeConfig]


@pytest.fixture
def corpus(config: Settings, tmp_path: Path) -> TokenCorpus:
    """Nine rows of two classes and one dead letter."""
    make = config(labels="regex:([01])$")
    (tmp_path / "photos/img-005.png").write_bytes(b"no image")
    (tmp_path / "photos/notes.txt").write_bytes(b"x")
    Image.new("RGB", (40, 40), (3, 3, 3)).save(tmp_path / "photos/img-010.png")
    encode_corpus(make)
    return TokenCorpus.open(make.output)


def test_people_read_counts_usage_classes_and_reasons(corpus: TokenCorpus) -> None:
    text = report.describe(corpus)
    usage = corpus.manifest.usage["image"]
    for words in (f"{corpus.url}: 10 rows from 11 inputs in 3 shards, ",
                  "image: 2 x 3 uint16 codes of 16, from 8 x 12 pixels",
                  f"codebook: {usage.used} used ({usage.used / 16:.1%}), perplexity",
                  "crop centre, resampling bilinear", "tokenizer: sha256:a",
                  "classes: 2 of 2 occur, 7 rows have none", "       2  0\n", "       1  1\n",
                  "dead letters: 1\n         1  UnreadableImage", "1  .txt files in"):
        assert words in text


def test_programs_read_the_same_as_json(corpus: TokenCorpus) -> None:
    data = json.loads(json.dumps(report.summary(corpus)))
    assert (data["num_rows"], data["num_inputs"]) == (10, 11)
    assert data["class_counts"] == {"0": 2, "1": 1}
    assert data["dead_letters"] == {"UnreadableImage": 1}
    assert data["usage"]["image"]["used"] == corpus.manifest.usage["image"].used
    assert sorted(data["passed_over"].values()) == [1, 8]  # a text file, keys without a class


def test_many_classes_are_cut_short_but_counted(corpus: TokenCorpus) -> None:
    import dataclasses
    counts = {f"class-{index:02d}": 30 - index for index in range(25)}
    manifest = dataclasses.replace(corpus.manifest, class_counts=counts, num_rows=450,
                                   classes=tuple(counts))
    lines = report.describe_classes(manifest)
    assert lines[0] == "classes: 25 of 25 occur" and lines[1].endswith("30  class-00")
    assert len(lines) == 22 and lines[-1].endswith("40  in 5 more")


def test_a_corpus_without_a_plan_passes_nothing_over(corpus: TokenCorpus) -> None:
    storage.remove(f"{corpus.url}/_plan")
    assert report.notes(corpus.url) == {}


def test_the_outcome_tells_rows_failures_and_what_was_passed_over(corpus: TokenCorpus) -> None:
    first, second, third = report.outcome(corpus.url, corpus.manifest).splitlines()
    assert first == f"{corpus.url}: 10 rows in 3 shards, 1 dead letter (1 UnreadableImage)"
    assert second == f"`img2tokens inspect {corpus.url} --dead-letters 20` shows which and why"
    assert third.startswith("passed over: 1 .txt files in ")
    storage.remove(f"{corpus.url}/_plan")
    assert report.outcome(corpus.url, corpus.manifest).splitlines() == [first, second]


def test_failures_are_counted_by_reason() -> None:
    assert report.failures({}) == "0 dead letters"
    assert report.failures({"A": 1, "B": 2}) == "3 dead letters (1 A, 2 B)"
