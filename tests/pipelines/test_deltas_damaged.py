"""Corpora with deltas after damage, and after their sources have changed: nothing lost or doubled,
no picture under the key of another, and no corpus that cannot be completed again."""
import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from delta_corpora import codes_by_key, mend, photo, require_sound
from job_fakes import tree
from source_kinds import save_parquet

from pipelines import shard
from pipelines.array import Part
from pipelines.deltas import load_plans
from pipelines.encode import EncodeConfig, EncodeTask, encode_corpus, encode_part
from pipelines.job import JobFailed
from pipelines.plan import PlanMismatch
from pipelines.retry import retry_corpus
from tokenizer import audit, storage
from tokenizer.audit import surplus_files
from tokenizer.corpus.sources import Entry
from tokenizer.tokens import DeadLetter, Receipt, TokenCorpus

Settings = Callable[..., EncodeConfig]


@pytest.fixture
def broken(config: Settings, tmp_path: Path) -> EncodeConfig:
    """A corpus of ten photos in three shards, of which three are no images."""
    make = config()
    shutil.copytree(make.corpus, tmp_path / "good")
    for index in (1, 5, 9):
        photo(make, index).write_bytes(b"no image")
    assert encode_corpus(make).num_dead_letters == 3
    return make


def extended(config: EncodeConfig) -> EncodeConfig:
    return dataclasses.replace(config, extend=True)


def stop(config: EncodeConfig) -> None:
    """Leave the second shard of a job without a receipt."""
    encode_part(config, Part(index=0, size=2))
    assert not storage.exists(f"{config.output}/_receipts/00001.json")


@pytest.mark.parametrize("lost", ["_receipts/00001.json", "_dead/00001.parquet"])
def test_what_was_lost_is_made_again_before_dead_letters_are_counted(
        broken: EncodeConfig, lost: str) -> None:
    (Path(broken.output) / lost).unlink()
    mend(broken, 1)
    done = retry_corpus(broken.output, broken.tokenizers)
    assert (done.num_tried, done.manifest.dead_letters) == (3, {"UnreadableImage": 2})
    assert require_sound(broken, 10).num_rows == 8


@pytest.mark.parametrize("name", ["_dead/00002.parquet", "_deltas/001/_dead/00000.parquet"])
@pytest.mark.parametrize("content", [None, b"PAR1"])
@pytest.mark.parametrize("command", ["encode", "retry"])
def test_lost_dead_letters_of_a_corpus_with_deltas_come_back(
        broken: EncodeConfig, name: str, content: bytes | None, command: str) -> None:
    mend(broken, 1)
    retry_corpus(broken.output, broken.tokenizers)
    file = Path(broken.output) / name
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    if command == "encode":
        encode_corpus(broken)
    else:
        assert retry_corpus(broken.output, broken.tokenizers).num_tried == 2
    assert require_sound(broken, 10).num_dead_letters == 2


def test_a_lost_shard_waits_for_images_that_had_rows(broken: EncodeConfig,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    mend(broken, 1, 5, 9)
    retry_corpus(broken.output, broken.tokenizers)
    before = codes_by_key(broken.output)
    (Path(broken.output) / "data/part-00001-of-00003.parquet").unlink()
    read_entry = shard.read_entry

    def failing(entry: Entry, *rest: Any) -> Any:
        if entry.key == "img-006":
            return DeadLetter(key=entry.key, source=entry.source, stage="read",
                              error="RefusedURL", message="the server answers 403")
        return read_entry(entry, *rest)
    with monkeypatch.context() as patch:
        patch.setattr(shard, "read_entry", failing)
        with pytest.raises(JobFailed, match="'img-006' had rows before its shard was lost, and now "
                                            "fails: the server answers 403"):
            encode_corpus(broken)
    encode_corpus(broken)
    require_sound(broken, 10)
    assert codes_by_key(broken.output) == before


def test_a_retry_makes_no_shard_of_the_job_from_files_that_changed_since(
        config: Settings, tmp_path: Path) -> None:
    make = config(corpus=save_parquet(Path(config().corpus), tmp_path / "source"))
    stop(make)
    file = tmp_path / "source/1.parquet"
    content, table = file.read_bytes(), pq.read_table(file)
    pq.write_table(table.take([4, 3, 2, 1, 0]), file, row_group_size=3)
    with pytest.raises(JobFailed, match=r"1\.parquet, which holds the input 'img-005', is gone or "
                                        "another than it was"):
        retry_corpus(make.output, make.tokenizers)
    file.write_bytes(content)
    retry_corpus(make.output, make.tokenizers)
    require_sound(make, 10)
    encode_corpus(dataclasses.replace(make, output=str(tmp_path / "clean")))
    assert codes_by_key(make.output) == codes_by_key(str(tmp_path / "clean"))


def test_a_row_that_a_changed_file_holds_no_more_gets_no_other_rows_picture(
        config: Settings, tmp_path: Path) -> None:
    photos = Path(config().corpus)
    (photos / "img-003.png").write_bytes(b"no image")
    make = config(corpus=save_parquet(photos, tmp_path / "source"))
    assert encode_corpus(make).num_dead_letters == 1
    file = tmp_path / "source/0.parquet"
    pq.write_table(pq.read_table(file).take([0, 1, 2, 4]), file, row_group_size=3)
    done = retry_corpus(make.output, make.tokenizers)
    assert done.manifest.dead_letters == {"SourceChanged": 1}
    assert "img-003" not in codes_by_key(make.output)
    require_sound(make, 10)


def test_images_that_failed_may_be_gone_when_others_are_added(broken: EncodeConfig) -> None:
    for index in (1, 5):
        photo(broken, index).unlink()
    for index in (20, 21):
        shutil.copy(photo(broken, 2), photo(broken, index))
    assert encode_corpus(extended(broken)).num_rows == 9
    before = tree(Path(broken.output))
    encode_corpus(broken)
    assert tree(Path(broken.output)) == before
    assert retry_corpus(broken.output, broken.tokenizers).manifest.dead_letters == {
        "FileNotFoundError": 2, "UnreadableImage": 1}
    require_sound(broken, 12)


def test_rows_of_a_file_that_was_unreadable_can_be_added_once_it_is_mended(
        config: Settings, tmp_path: Path) -> None:
    make = config(corpus=save_parquet(Path(config().corpus), tmp_path / "source"))
    file = tmp_path / "source/1.parquet"
    content = file.read_bytes()
    file.write_bytes(b"PAR1")
    assert encode_corpus(make).dead_letters == {"DamagedFile": 1}
    file.write_bytes(content)
    assert encode_corpus(extended(make)).num_rows == 10
    require_sound(make, 11)


@pytest.mark.parametrize("order", [(5, 0, 1, 2, 3, 4, 6), (0, 1, 2, 3, 4, 6, 5)])
def test_an_image_that_failed_is_no_new_one_at_another_place(
        broken: EncodeConfig, tmp_path: Path, order: tuple[int, ...]) -> None:
    listed = tmp_path / "list.csv"
    make = dataclasses.replace(broken, corpus=str(listed), output=str(tmp_path / "other"))

    def write(indices: tuple[int, ...]) -> None:
        lines = "".join(f"{photo(broken, index)},{index}\n" for index in indices)
        listed.write_text(f"path,key\n{lines}")
    write((0, 1, 2, 3, 4, 5, 6))
    assert encode_corpus(make).num_dead_letters == 2
    write((*order, 7))
    with pytest.raises(PlanMismatch, match="the input '5' of .* stands elsewhere"):
        encode_corpus(extended(make))
    assert len(load_plans(make.output)) == 1


def test_a_corpus_whose_delta_lost_a_shard_is_complete_no_more_until_it_is_made(
        broken: EncodeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    mend(broken, 1)
    retry_corpus(broken.output, broken.tokenizers)
    (Path(broken.output) / "_deltas/001/_receipts/00000.json").unlink()
    run = EncodeTask.run

    def look(task: EncodeTask, shard: int) -> Receipt:
        with pytest.raises(FileNotFoundError, match="its job has not finished"):
            TokenCorpus.open(broken.output)
        return run(task, shard)
    monkeypatch.setattr(EncodeTask, "run", look)
    encode_corpus(broken)
    require_sound(broken, 10)


def test_a_delta_that_begins_during_an_audit_is_not_surplus(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    list_files = storage.list_files

    def list_and_begin(url: str) -> dict[str, int]:
        found = list_files(url)
        (tmp_path / "_deltas/001").mkdir(parents=True)
        return found | {"part-d001-00000-of-00001.parquet": 1}
    monkeypatch.setattr(audit.storage, "list_files", list_and_begin)
    assert surplus_files(str(tmp_path), "data", []) == []
