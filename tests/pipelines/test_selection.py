"""Lists of keys: which rows are decoded, and what becomes of keys that the corpus lacks."""
import dataclasses
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from job_fakes import tree

from pipelines.decode import DecodeConfig, Decoded, decode_corpus
from pipelines.encode import EncodeConfig, encode_corpus
from pipelines.plan import PlanMismatch
from pipelines.selection import read_keys

Settings = Callable[..., EncodeConfig]


@pytest.fixture
def job(config: Settings, tmp_path: Path) -> DecodeConfig:
    """Decodes two of ten images by their keys, of the first and the last shard."""
    encode_corpus(config())
    (tmp_path / "keys.txt").write_text("img-009\nimg-001\r\n\nimg-009\n")
    return DecodeConfig(tokens=str(tmp_path / "tokens"), output=str(tmp_path / "out"),
                        tokenizers={"image": "tok"}, batch_size=4, keys=str(tmp_path / "keys.txt"))


def images(folder: str) -> dict[str, bytes]:
    return {path: content for path, content in tree(Path(folder)).items()
            if not path.startswith("_decode/")}


def test_listed_keys_are_decoded_as_among_all(job: DecodeConfig) -> None:
    assert decode_corpus(job) == Decoded(num_crops=2, dead_letters={})
    whole = dataclasses.replace(job, keys=None, output=f"{job.output}-all")
    decode_corpus(whole)
    every = images(whole.output)
    assert images(job.output) == {name: every[name] for name in ("img-001.png", "img-009.png")}


def test_a_key_that_the_corpus_lacks_is_a_dead_letter(job: DecodeConfig, tmp_path: Path) -> None:
    Path(str(job.keys)).write_text("none\nimg-004\nalso-none")
    assert decode_corpus(job) == Decoded(num_crops=1, dead_letters={"MissingKey": 2})
    dead = pq.read_table(tmp_path / "out/_decode/_dead/00002.parquet").to_pylist()
    assert [letter["key"] for letter in dead] == ["also-none", "none"]


def test_keys_and_a_filter_take_the_rows_that_both_take(job: DecodeConfig) -> None:
    both = dataclasses.replace(job, filter="key < 'img-005'")
    assert decode_corpus(both) == Decoded(num_crops=1, dead_letters={})
    assert list(images(job.output)) == ["img-001.png"]


def test_keys_and_a_filter_that_take_nothing_are_refused(job: DecodeConfig) -> None:
    with pytest.raises(ValueError, match="takes none of the rows of .* with these keys"):
        decode_corpus(dataclasses.replace(job, filter="key == 'img-005'"))


def test_another_list_is_another_job(job: DecodeConfig) -> None:
    decode_corpus(job)
    Path(str(job.keys)).write_text("img-009\nimg-001")
    assert decode_corpus(job).num_crops == 2
    Path(str(job.keys)).write_text("img-002")
    with pytest.raises(PlanMismatch, match="the input 'img-001' is gone"):
        decode_corpus(job)


def test_keys_are_read_from_parquet(tmp_path: Path) -> None:
    url = str(tmp_path / "keys.parquet")
    pq.write_table(pa.table({"key": ["a", None, "b\nc"], "x": [1, 2, 3]}), url)
    assert list(read_keys(url)) == ["a", "b\nc"]


@pytest.mark.parametrize(("name", "content", "words"), [
    ("keys.txt", b"\n\r\n", "holds no key"), ("keys.txt", b"\xff\xfe", "no text in UTF-8"),
    ("keys.parquet", b"PAR1", "is damaged"), ("keys.txt", None, "No such file")])
def test_a_list_that_cannot_be_read_is_refused(tmp_path: Path, name: str, content: bytes | None,
                                               words: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises((OSError, ValueError), match=words):
        list(read_keys(str(tmp_path / name)))


def test_parquet_without_a_column_of_keys_names_its_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"name": ["a"]}), tmp_path / "keys.parquet")
    with pytest.raises(ValueError, match="has no column key, but name"):
        list(read_keys(str(tmp_path / "keys.parquet")))
