"""Receipts count alike whether they lie by themselves or packed, and nothing is lost in between."""
import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from object_store import ObjectStore

from tokenizer import receipts, storage
from tokenizer.receipts import (
    Receipt,
    pack_name,
    pack_receipts,
    read_receipt,
    read_receipts,
    receipt_name,
    receipted_shards,
    remove_receipts,
    write_receipt,
)
from tokenizer.schema import ShardEntry

NUM_SHARDS = 11


def receipt(shard: int, rows: int = 3) -> Receipt:
    entry = ShardEntry(name=f"data/{shard}", rows=rows, bytes=7, sha256="0" * 64)
    return Receipt(shard=shard, fingerprint="sha256:f", entry=entry, dead_letters={"Broken": 1})


@pytest.fixture(autouse=True)
def small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts, "RECEIPTS_PER_PACK", 4)
    monkeypatch.setattr(receipts, "FEWEST_SHARDS_TO_PACK", NUM_SHARDS)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A job with all its receipts, each by itself."""
    for shard in range(NUM_SHARDS):
        write_receipt(str(tmp_path), receipt(shard))
    return str(tmp_path)


def names(url: str) -> list[str]:
    return storage.list_names(storage.join(url, receipts.RECEIPTS))


def pack(url: str) -> None:
    pack_receipts(url, read_receipts(url, "sha256:f"), NUM_SHARDS)


def test_packed_receipts_are_the_same_in_fewer_files(url: str) -> None:
    before = read_receipts(url, "sha256:f")
    pack(url)
    assert names(url) == ["packed-00000-00003.jsonl", "packed-00004-00007.jsonl",
                          "packed-00008-00010.jsonl"]
    assert read_receipts(url, "sha256:f") == before
    assert list(before) == receipted_shards(url) == list(range(NUM_SHARDS))


def test_packing_twice_changes_nothing(url: str) -> None:
    pack(url)
    folder = Path(url, receipts.RECEIPTS)
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    pack(url)
    assert before == {path.name: (path.read_bytes(), path.stat().st_mtime_ns)
                      for path in folder.iterdir()}


def test_a_job_of_fewer_shards_keeps_its_receipts_as_they_are(url: str) -> None:
    before = names(url)
    pack_receipts(url, read_receipts(url, "sha256:f"), NUM_SHARDS - 1)
    assert names(url) == before


def test_only_stretches_without_a_gap_are_packed(url: str) -> None:
    storage.remove(f"{url}/{receipt_name(5)}")
    pack(url)
    assert names(url) == ["00004.json", "00006.json", "00007.json", "packed-00000-00003.jsonl",
                          "packed-00008-00010.jsonl"]
    write_receipt(url, receipt(5))
    pack(url)
    assert "packed-00004-00007.jsonl" in names(url) and len(names(url)) == 3


@pytest.mark.parametrize("damage", [
    lambda text: text.replace(b'"num_crops":1', b'"num_crops":0'), lambda text: b"[" * 100_000,
    lambda text: b"[]", lambda text: text[:40], lambda text: b"\xff" + text])
def test_a_line_of_a_pack_that_is_no_receipt_costs_itself_alone(
        url: str, damage: Callable[[bytes], bytes]) -> None:
    pack(url)
    file = Path(url, "_receipts/packed-00004-00007.jsonl")
    lines = file.read_bytes().splitlines()
    damaged = damage(lines[1])
    assert damaged != lines[1]
    file.write_bytes(b"\n".join([lines[0], damaged, *lines[2:]]))
    assert list(read_receipts(url, "sha256:f")) == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10]


def test_removing_receipts_leaves_the_others_of_their_packs(url: str) -> None:
    pack(url)
    remove_receipts(url, [1, 4, 10])
    rest = [0, 2, 3, 5, 6, 7, 8, 9]
    assert list(read_receipts(url, "sha256:f")) == receipted_shards(url) == rest
    for shard in (1, 4, 10):
        write_receipt(url, receipt(shard))
    pack(url)
    assert len(names(url)) == 3 and len(read_receipts(url, "sha256:f")) == NUM_SHARDS


def test_a_receipt_by_itself_counts_before_a_packed_one(url: str) -> None:
    pack(url)
    write_receipt(url, receipt(2, rows=99))
    assert read_receipts(url, "sha256:f")[2].entry.rows == 99
    pack(url)
    assert len(names(url)) == 3 and read_receipts(url, "sha256:f")[2].entry.rows == 99


def test_packing_that_stops_before_it_removes_anything_loses_nothing(
        url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_receipts(url, "sha256:f")
    with monkeypatch.context() as patch:
        def fail(url: str) -> None:
            raise OSError("unplugged")
        patch.setattr(storage, "remove", fail)
        with pytest.raises(OSError, match="unplugged"):
            pack(url)
    assert read_receipts(url, "sha256:f") == before
    pack(url)
    assert len(names(url)) == 3 and read_receipts(url, "sha256:f") == before


def test_a_damaged_line_costs_its_own_shard_only(url: str) -> None:
    pack(url)
    path = Path(url, pack_name(range(4, 8)))
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1][:30], "3", lines[3]]))
    assert list(read_receipts(url, "sha256:f")) == [0, 1, 2, 3, 4, 7, 8, 9, 10]


@pytest.mark.parametrize("name", ["packed-00002-00001.jsonl", "packed-0-99999999999.jsonl",
                                  "packed-1.jsonl", "packed-x-y.jsonl", "packed-00000-00003.json"])
def test_files_that_are_no_packs_are_passed_over(url: str, name: str) -> None:
    Path(url, receipts.RECEIPTS, name).write_bytes(b"?")
    assert list(read_receipts(url, "sha256:f")) == receipted_shards(url) == list(range(NUM_SHARDS))


def test_a_pack_of_another_plan_is_refused(url: str) -> None:
    pack(url)
    with pytest.raises(ValueError, match=r"packed-00000-00003.jsonl belongs to .* sha256:f, this"):
        read_receipts(url, "sha256:other")


def test_what_is_known_or_unwanted_is_not_read(
        url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(url)
    write_receipt(url, receipt(9))
    opened, read = [], storage.read_bytes
    monkeypatch.setattr(storage, "read_bytes", lambda name: opened.append(name) or read(name))
    assert list(read_receipts(url, "sha256:f", known=range(7))) == [7, 8, 9, 10]
    assert sorted(Path(name).name for name in opened) == [
        "00009.json", "packed-00004-00007.jsonl", "packed-00008-00010.jsonl"]
    opened.clear()
    assert list(read_receipts(url, "sha256:f", wanted=[0])) == [0]
    assert list(map(Path, opened)) == [Path(url, pack_name(range(4)))]


def test_a_receipt_is_read_back_as_written(url: str) -> None:
    assert read_receipt(url, 3, "sha256:f") == receipt(3)
    assert json.loads(Path(url, receipt_name(3)).read_text())["num_crops"] == 1


def test_receipts_are_packed_and_withdrawn_on_an_object_store(s3: ObjectStore) -> None:
    for shard in range(NUM_SHARDS):
        write_receipt(s3.bucket, receipt(shard))
    before = read_receipts(s3.bucket, "sha256:f")
    pack(s3.bucket)
    assert names(s3.bucket) == ["packed-00000-00003.jsonl", "packed-00004-00007.jsonl",
                                "packed-00008-00010.jsonl"]
    assert read_receipts(s3.bucket, "sha256:f") == before
    remove_receipts(s3.bucket, [5])
    assert receipted_shards(s3.bucket) == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10]
    s3.requests.clear()
    assert len(read_receipts(s3.bucket, "sha256:f")) == NUM_SHARDS - 1
    assert sum(request.startswith("GET") and ".jsonl" in request for request in s3.requests) == 4


def test_receipts_that_another_driver_packs_meanwhile_are_found(
        url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read, lock, packed = receipts.read_receipt, threading.Lock(), list[str]()

    def pack_first(url: str, shard: int, fingerprint: str | None) -> Receipt | None:
        with lock:
            if not packed:
                monkeypatch.setattr(receipts, "read_receipt", read)
                packed.append(url)
                pack(url)
        return read(url, shard, fingerprint)
    monkeypatch.setattr(receipts, "read_receipt", pack_first)
    assert list(read_receipts(url, "sha256:f")) == list(range(NUM_SHARDS))
    assert packed == [url]
