"""A job does not go on over image files that changed since they were planned; it names the file."""
import os
import shutil
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from job_fakes import save_maps, tree
from object_store import ObjectStore

from pipelines import encode
from pipelines.array import Part
from pipelines.encode import EncodeConfig, encode_corpus, encode_part, entry_of, row_of
from pipelines.plan import PlanMismatch, load_plan
from tokenizer import storage
from tokenizer.corpus.sources import Entry, open_source
from tokenizer.corpus.sources.urls import stamp

Settings = Callable[..., EncodeConfig]
LATER = 2_000_000_000


def other_size(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


def other_time(path: Path) -> None:
    os.utime(path, (LATER, LATER))


@pytest.mark.parametrize(("change", "words"), [
    (other_size, r"img-003\.png was (\d+) bytes, [-\dT:.]+Z, is (?!\1 )\d+ bytes, "),
    (other_time, r"img-003\.png was (\d+) bytes, [-\dT:.]+Z, is \1 bytes, 2033-05-18T03:33:20\.0")])
def test_a_changed_file_is_named_and_the_old_one_goes_on(
        config: Settings, tmp_path: Path, change: Callable[[Path], None], words: str) -> None:
    encode_corpus(config())
    before = tree(tmp_path / "tokens")
    image = tmp_path / "photos/img-003.png"
    shutil.copy2(image, tmp_path / "old.png")
    change(image)
    with pytest.raises(PlanMismatch, match=words) as caught:
        encode_corpus(config())
    assert "Put back the old one, with its time, or start over" in str(caught.value)
    with pytest.raises(PlanMismatch, match=words):
        encode_part(config(), Part(index=1, size=2))
    assert tree(tmp_path / "tokens") == before
    shutil.copy2(tmp_path / "old.png", image)
    encode_corpus(config())
    assert tree(tmp_path / "tokens") == before


def test_a_changed_map_is_named(config: Settings, tmp_path: Path) -> None:
    make = config(tokenizers={"image": "tok", "depth": "depth-tok"},
                  maps={"depth": str(tmp_path / "depths")})
    save_maps(tmp_path / "depths", tmp_path / "photos",
              lambda size: np.full(size, 700, np.uint16))
    encode_corpus(make)
    other_time(tmp_path / "depths/img-009.png")
    with pytest.raises(PlanMismatch, match=r"depths/img-009\.png was"):
        encode_corpus(make)


def test_a_changed_map_beside_a_list_is_named(config: Settings, tmp_path: Path) -> None:
    photos = Path(config().corpus)
    (tmp_path / "list.csv").write_text("path,key\n" + "".join(
        f"{path},{path.stem}\n" for path in sorted(photos.iterdir())))
    save_maps(tmp_path / "depths", photos, lambda size: np.full(size, 700, np.uint16))
    make = config(corpus=str(tmp_path / "list.csv"), maps={"depth": str(tmp_path / "depths")},
                  tokenizers={"image": "tok", "depth": "depth-tok"})
    assert encode_corpus(make).num_dead_letters == 0
    other_time(tmp_path / "depths/img-009.png")
    with pytest.raises(PlanMismatch, match=r"depths/img-009\.png was"):
        encode_corpus(make)


def test_a_changed_object_is_named_without_a_request_for_each(config: Settings,
                                                              s3: ObjectStore) -> None:
    for path in Path(config().corpus).iterdir():
        storage.write_bytes(f"{s3.bucket}/photos/{path.name}", path.read_bytes())
    make = config(corpus=f"{s3.bucket}/photos")
    encode_corpus(make)
    s3.requests.clear()
    encode_corpus(make)
    assert not [request for request in s3.requests if ".png" in request.partition("?")[0]]
    changed = f"{s3.bucket}/photos/img-004.png"
    storage.write_bytes(changed, storage.read_bytes(changed)[::-1])
    with pytest.raises(PlanMismatch, match=rf"{changed} was (\d+) bytes, \w+, is \1 bytes, \w+\."):
        encode_corpus(make)


def test_what_else_changed_is_told_first(config: Settings, tmp_path: Path) -> None:
    encode_corpus(config())
    other_time(tmp_path / "photos/img-000.png")
    (tmp_path / "photos/img-001.png").unlink()
    with pytest.raises(PlanMismatch, match="the input 'img-001' is gone"):
        encode_corpus(config())


def test_times_decide_neither_fingerprint_nor_shards(config: Settings, tmp_path: Path) -> None:
    encode_corpus(config())
    other_time(tmp_path / "photos/img-003.png")
    encode_corpus(config(output=str(tmp_path / "again")))
    first, again = tree(tmp_path / "tokens"), tree(tmp_path / "again")
    assert [name for name in first if first[name] != again[name]] == [
        "_plan/inputs-00000.parquet"]


def test_a_plan_without_stamps_goes_on(config: Settings, tmp_path: Path,
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    def early(entry: Entry) -> dict[str, Any]:
        return {name: value for name, value in row_of(entry).items() if name != "stamps"}
    with monkeypatch.context() as patch:
        patch.setattr(encode, "row_of", early)
        patch.setattr(encode, "PLAN_SCHEMA", encode.PLAN_SCHEMA.remove(
            encode.PLAN_SCHEMA.get_field_index("stamps")))
        encode_corpus(config())
    plan = load_plan(config().output)
    assert plan and "stamps" not in plan.rows(0)[0]
    other_time(tmp_path / "photos/img-003.png")
    encode_corpus(config())


def test_a_row_of_the_plan_gives_its_entry_back(config: Settings) -> None:
    entries = list(open_source(config().corpus).entries())
    encode_corpus(config())
    plan = load_plan(config().output)
    assert plan and [entry_of(row) for shard in range(3) for row in plan.rows(shard)] == entries
    assert set(entries[0].stamps) == {"image"}


@pytest.mark.parametrize(("info", "expected"), [
    ({"size": 5, "ETag": '"ab"', "LastModified": datetime(2026, 1, 2)}, "5 bytes, ab"),
    ({"size": 5, "LastModified": datetime(2026, 1, 2, 3, tzinfo=timezone.utc)},
     "5 bytes, 2026-01-02T03:00:00+00:00"),
    ({"size": 5, "mtime": 17.5}, "5 bytes, 17.5"), ({"size": 5}, "5 bytes"), ({}, "")])
def test_a_listing_of_a_store_tells_what_it_tells(info: dict[str, Any], expected: str) -> None:
    assert stamp(info) == expected
