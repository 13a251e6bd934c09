"""The encode job over sources that lie in an S3 bucket: the codes are those of the local ones."""
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from object_store import Fault, ObjectStore
from source_kinds import WRITERS

from pipelines.encode import EncodeConfig, encode_corpus
from pipelines.job import JobFailed
from pipelines.plan import PlanMismatch
from tokenizer import storage
from tokenizer.tokens import TokenCorpus

Move = Callable[[str], str]
KEPT = ("key", "image_codes", "height", "width", "left", "top", "crop_width", "crop_height")


def codes_of(url: str) -> list[list[Any]]:
    rows = [row for table in TokenCorpus.open(url).tables() for row in table.to_pylist()]
    return sorted([row[name] for name in KEPT] for row in rows)


@pytest.fixture
def move(config: Callable[..., EncodeConfig], s3: ObjectStore, tmp_path: Path) -> Move:
    """Lays the photos down as some kind of source, in a bucket; returns what names it there."""
    def make(kind: str) -> str:
        config()
        url = WRITERS[kind](tmp_path / "photos", tmp_path / "source")
        fs = fsspec.filesystem("s3")
        for folder in filter(Path.exists, (tmp_path / "photos", tmp_path / "source")):
            for path in folder.iterdir():
                fs.put_file(str(path), f"{s3.bucket}/{folder.name}/{path.name}")
        if kind == "list":
            text = storage.read_bytes(url).replace(str(tmp_path).encode(), s3.bucket.encode())
            storage.write_bytes(f"{s3.bucket}/source/list.csv", text)
        return url.replace(str(tmp_path), s3.bucket)
    return make


@pytest.mark.parametrize("kind", ["folder", "tar", "parquet", "list"])
def test_sources_in_a_bucket_give_the_codes_of_local_ones(
        config: Callable[..., EncodeConfig], s3: ObjectStore, move: Move, kind: str) -> None:
    corpus = move(kind)
    encode_corpus(config())
    s3.faults = [Fault("cut", "GET /[^?]*$", times=2), Fault("busy", "GET /[^?]*$", times=2)]
    found = config(corpus=corpus, output=f"{s3.bucket}/tokens")
    assert encode_corpus(found).num_rows == 10
    assert not s3.faults
    assert codes_of(found.output) == codes_of(config().output)


@pytest.mark.parametrize(("kind", "name"), [("tar", "01.tar"), ("parquet", "1.parquet")])
def test_a_file_that_fails_for_a_while_loses_nothing(
        config: Callable[..., EncodeConfig], s3: ObjectStore, move: Move, kind: str, name: str,
        ) -> None:
    found = config(corpus=move(kind), output=f"{s3.bucket}/tokens")
    s3.faults = [Fault("busy", f"GET .*/source/{name}")]
    with pytest.raises(OSError, match=f"{name} cannot be reached"):  # listing stops at once
        encode_corpus(found)
    s3.faults.clear()
    encode_corpus(found)
    storage.remove(f"{found.output}/_receipts/00001.json")
    s3.faults = [Fault("busy", f"GET .*/source/{name}")]
    with pytest.raises((OSError, JobFailed), match=f"{name} cannot be (reached|read)"):
        encode_corpus(found)
    s3.faults.clear()
    manifest = encode_corpus(found)
    assert (manifest.num_rows, manifest.num_dead_letters) == (10, 0)


def test_a_file_that_changed_in_its_bucket_is_named(
        config: Callable[..., EncodeConfig], s3: ObjectStore, move: Move) -> None:
    found = config(corpus=move("tar"), output=f"{s3.bucket}/tokens")
    encode_corpus(found)
    name = f"{s3.bucket}/source/01.tar"
    storage.write_bytes(name, storage.read_bytes(name)[:-512] + bytes(512) + bytes(512))
    with pytest.raises(PlanMismatch, match=name):
        encode_corpus(found)
