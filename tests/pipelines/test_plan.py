"""A plan is written once, read shard by shard, and names what changed when it does not fit."""
import itertools
import json
import os
import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.plan import (
    PLAN_JSON,
    Plan,
    PlanMismatch,
    Shards,
    fixed_size_shards,
    inputs_name,
    load_plan,
    make_plan,
    require_current,
)
from tokenizer import configs
from tokenizer.schema import CodeSpec

SCHEMA = pa.schema([("key", pa.string()), ("label", pa.int32())])
SETTINGS = {"shard_size": 2, "codes": [{"modality": "image", "grid": [2, 2]}]}


def listing(*keys: str, label: int = 7, shard_size: int = 2) -> Shards:
    """Lists these keys, all of one label."""
    def shards() -> Iterator[pa.Table]:
        rows = [{"key": key, "label": label} for key in keys]
        return fixed_size_shards(rows, SCHEMA, shard_size)
    return shards


def plan_of(folder: Path, *keys: str, settings: dict[str, Any] = SETTINGS, label: int = 7) -> Plan:
    return make_plan(str(folder), "encode", settings, listing(*keys, label=label))


@pytest.mark.parametrize(("now", "words"), [
    ("zcay", "the input 'c' is new"), ("zy", "the input 'a' is gone"),
    ("azy", "the input 'a' is new"), ("za", "the input 'y' is gone")])
def test_listings_in_another_order_than_that_of_keys_are_compared_too(tmp_path: Path, now: str,
                                                                      words: str) -> None:
    plan_of(tmp_path, *"zay")
    with pytest.raises(PlanMismatch, match=words):
        plan_of(tmp_path, *now)


def test_every_input_is_in_one_shard_in_order(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "a", "b", "c", "d", "e")
    assert (plan.num_inputs, plan.num_shards) == (5, 3)
    assert [plan.keys(shard) for shard in range(3)] == [["a", "b"], ["c", "d"], ["e"]]
    assert plan.rows(2) == [{"key": "e", "label": 7}]


def test_a_plan_has_one_row_group_for_each_shard(tmp_path: Path) -> None:
    plan_of(tmp_path, "a", "b", "c")
    file = pq.ParquetFile(tmp_path / inputs_name(0))
    groups = [file.metadata.row_group(index) for index in range(file.num_row_groups)]
    assert [group.num_rows for group in groups] == [2, 1]


def test_many_shards_are_spread_over_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one_file = plan_of(tmp_path / "one", *"abcdefghi")
    monkeypatch.setattr("pipelines.plan.SHARDS_PER_FILE", 2)
    plan = plan_of(tmp_path / "many", *"abcdefghi")
    assert sorted(os.listdir(tmp_path / "many/_plan")) == [
        "inputs-00000.parquet", "inputs-00001.parquet", "inputs-00002.parquet", "plan.json"]
    assert [plan.keys(shard) for shard in range(5)] == [["a", "b"], ["c", "d"], ["e", "f"],
                                                        ["g", "h"], ["i"]]
    assert plan.fingerprint == one_file.fingerprint


def test_a_shard_without_inputs_keeps_its_row_group(tmp_path: Path) -> None:
    tables = [pa.Table.from_pylist(rows, SCHEMA) for rows in ([{"key": "a", "label": 1}], [],
                                                              [{"key": "b", "label": 1}])]
    plan = make_plan(str(tmp_path), "decode", {}, lambda: tables)
    assert [plan.keys(shard) for shard in range(3)] == [["a"], [], ["b"]]


def test_the_same_job_finds_its_plan_and_leaves_it_alone(tmp_path: Path) -> None:
    first = plan_of(tmp_path, "a", "b", "c")
    before = {path: (tmp_path / path).stat().st_mtime_ns for path in (PLAN_JSON, inputs_name(0))}
    assert plan_of(tmp_path, "a", "b", "c") == first == load_plan(str(tmp_path))
    assert before == {path: (tmp_path / path).stat().st_mtime_ns for path in before}


def test_the_fingerprint_does_not_depend_on_the_folder(tmp_path: Path) -> None:
    assert (plan_of(tmp_path / "x", "a").fingerprint == plan_of(tmp_path / "y", "a").fingerprint)
    assert plan_of(tmp_path / "z", "b").fingerprint != plan_of(tmp_path / "x", "a").fingerprint


@pytest.mark.parametrize(("keys", "label", "change"), [
    ("abcd", 7, "inputs.num_inputs was 3, now 4; the input 'd' is new"),
    ("ac", 7, "inputs.num_inputs was 3, now 2; the input 'b' is gone"),
    ("ab", 7, "inputs.num_inputs was 3, now 2; the input 'c' is gone"),
    ("aabc", 7, "inputs.num_inputs was 3, now 4; the input 'a' is new"),
    ("abd", 7, "the input 'c' is gone"),
    ("abc", 8, "label of the input 'a' was 7, now 8"),
])
def test_changed_inputs_are_refused_by_name(tmp_path: Path, keys: str, label: int,
                                            change: str) -> None:
    plan_of(tmp_path, *"abc")
    with pytest.raises(PlanMismatch) as caught:
        plan_of(tmp_path, *keys, label=label)
    assert change in str(caught.value) and "--overwrite" in str(caught.value)


@pytest.mark.parametrize(("settings", "change"), [
    (SETTINGS | {"shard_size": 3}, "shard_size was 2, now 3."),
    (SETTINGS | {"codes": [{"modality": "image", "grid": [4, 4]}]},
     "codes.image.grid was [2, 2], now [4, 4]."),
    (SETTINGS | {"codes": [*SETTINGS["codes"], {"modality": "depth", "grid": [2, 2]}]},  # type: ignore[misc]
     "another plan: codes.depth is new."),
    ({"shard_size": 2}, "another plan: codes.image is gone."),
])
def test_changed_settings_are_refused_by_name(tmp_path: Path, settings: dict[str, Any],
                                              change: str) -> None:
    plan_of(tmp_path, *"abc")
    with pytest.raises(PlanMismatch) as caught:
        plan_of(tmp_path, *"abc", settings=settings)
    assert change in str(caught.value)


SPEC = configs.to_dict(CodeSpec(modality="image", grid=(2, 2), codebook_size=8, image_size=(4, 4),
                                tokenizer="sha256:0"))
EARLY = {"codes": [{name: value for name, value in SPEC.items() if name != "depth"}]}
LATER_SCHEMA = SCHEMA.append(pa.field("ranges", pa.map_(pa.string(), pa.int64())))


def later(*ranges: list[tuple[str, int]] | None) -> Shards:
    """Inputs ``a``, ``b`` and so on with the column that the first plans did not have."""
    rows = [{"key": key, "label": 7, "ranges": given}
            for key, given in zip("abc", ranges, strict=False)]
    return lambda: fixed_size_shards(rows, LATER_SCHEMA, 2)


def test_a_plan_of_an_early_version_goes_on_under_its_own_fingerprint(tmp_path: Path) -> None:
    early = plan_of(tmp_path, *"ab", settings=EARLY)
    again = make_plan(str(tmp_path), "encode", {"codes": [SPEC]}, later(None, None))
    assert SPEC["depth"] == 1 and again == early and again.fingerprint == early.fingerprint
    require_current(again)
    assert again.rows(0) == [{"key": "a", "label": 7}, {"key": "b", "label": 7}]


@pytest.mark.parametrize(("spec", "shards", "change"), [
    ({"depth": 2}, later(None, None), "another plan: codes.image.depth was 1, now 2."),
    ({}, later(None, [("image", 3)]), "ranges of the input 'b' was None, now [('image', 3)]"),
    ({}, later(None, None, None), "inputs.num_inputs was 2, now 3; the input 'c' is new")])
def test_a_plan_of_an_early_version_is_refused_for_what_does_differ(
        tmp_path: Path, spec: dict[str, Any], shards: Shards, change: str) -> None:
    plan_of(tmp_path, *"ab", settings=EARLY)
    with pytest.raises(PlanMismatch) as caught:
        make_plan(str(tmp_path), "encode", {"codes": [SPEC | spec]}, shards)
    assert change in str(caught.value)


def test_another_kind_of_job_is_refused(tmp_path: Path) -> None:
    plan_of(tmp_path, "a")
    with pytest.raises(PlanMismatch, match="job was 'encode', now 'decode'"):
        make_plan(str(tmp_path), "decode", SETTINGS, listing("a"))


def test_a_plan_that_was_not_finished_is_written_anew(tmp_path: Path) -> None:
    plan_of(tmp_path, "a", "b", "c")
    whole = (tmp_path / inputs_name(0)).read_bytes()
    (tmp_path / PLAN_JSON).unlink()
    (tmp_path / inputs_name(0)).write_bytes(whole[:50])
    (tmp_path / inputs_name(7)).write_bytes(whole)
    assert load_plan(str(tmp_path)) is None
    assert plan_of(tmp_path, "a", "b", "c").keys(1) == ["c"]
    assert sorted(os.listdir(tmp_path / "_plan")) == ["inputs-00000.parquet", "plan.json"]


def test_a_listing_that_fails_leaves_no_plan(tmp_path: Path) -> None:
    def shards() -> Iterator[pa.Table]:
        yield from listing("a")()
        raise OSError("the corpus is gone")
    with pytest.raises(OSError, match="is gone"):
        make_plan(str(tmp_path), "encode", {}, shards)
    assert load_plan(str(tmp_path)) is None
    assert os.listdir(tmp_path) == []


def test_an_empty_listing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no input"):
        plan_of(tmp_path)


@pytest.mark.parametrize(("text", "words"), [
    ("{", "is not JSON"),
    ("3", "of format None"),
    ("{}", "of format None version None; this program reads img2tokens.plan version 1"),
])
def test_a_damaged_plan_is_refused(tmp_path: Path, text: str, words: str) -> None:
    plan_of(tmp_path, "a")
    (tmp_path / PLAN_JSON).write_text(text)
    with pytest.raises(ValueError, match=words) as caught:
        load_plan(str(tmp_path))
    assert "--overwrite" in str(caught.value)


def test_an_edited_plan_is_refused(tmp_path: Path) -> None:
    plan_of(tmp_path, "a")
    data = json.loads((tmp_path / PLAN_JSON).read_text())
    data["settings"]["shard_size"] = 9
    (tmp_path / PLAN_JSON).write_text(json.dumps(data))
    with pytest.raises(ValueError, match="was edited"):
        load_plan(str(tmp_path))


def test_damaged_rows_are_named(tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "x", "a")
    (tmp_path / "x" / inputs_name(0)).write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(ValueError, match=r"inputs-00000\.parquet is damaged"):
        plan.rows(0)


def test_what_is_sent_to_workers_does_not_grow_with_the_files_of_the_corpus(tmp_path: Path) -> None:
    files = {f"shards/{number:05d}.tar": "1 bytes" for number in range(1000)}
    plan = plan_of(tmp_path, "a", "b", "c", settings={**SETTINGS, "files": files})
    sent = pickle.dumps(plan)
    copy = pickle.loads(sent)
    assert len(sent) < 2000
    assert copy.fingerprint == plan.fingerprint and copy.rows(1) == plan.rows(1)
    require_current(copy)


def test_a_plan_that_was_replaced_stops_its_writers(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "a")
    require_current(plan)
    (tmp_path / PLAN_JSON).unlink()
    with pytest.raises(PlanMismatch, match="another job"):
        require_current(plan)
    plan_of(tmp_path, "b")
    with pytest.raises(PlanMismatch, match="another job"):
        require_current(plan)


def test_processes_that_plan_at_once_agree_on_one_whole_plan(tmp_path: Path) -> None:
    together = threading.Barrier(6)

    def plan(number: int) -> Plan | str:
        listings = itertools.count()

        def shards() -> Iterator[pa.Table]:
            yield from listing(*"abcde", label=number // 4)()
            if next(listings) == 0:
                together.wait(20)
        try:
            return make_plan(str(tmp_path), "encode", SETTINGS, shards)
        except PlanMismatch as error:
            return str(error)
    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(plan, range(6)))
    stored = load_plan(str(tmp_path))
    assert stored and os.listdir(tmp_path) == ["_plan"]
    label = stored.rows(0)[0]["label"]
    for number, item in enumerate(made):
        if number // 4 == label:
            assert item == stored
        else:
            assert "label of the input 'a' was" in str(item)
    assert [stored.rows(shard) for shard in range(3)] == [
        [{"key": key, "label": label} for key in keys] for keys in ("ab", "cd", "e")]


def test_a_store_never_holds_a_plan_with_the_inputs_of_another() -> None:
    fsspec.filesystem("memory").rm("/", recursive=True)

    def shards() -> Iterator[pa.Table]:
        if load_plan("memory://tokens") is None:  # another process is faster
            make_plan("memory://tokens", "encode", SETTINGS, listing(*"abd"))
        yield from listing(*"abc")()
    with pytest.raises(PlanMismatch):
        make_plan("memory://tokens", "encode", SETTINGS, shards)
    assert load_plan("memory://tokens") is None


def test_a_store_keeps_the_plan_that_another_process_has_made_alike() -> None:
    fsspec.filesystem("memory").rm("/", recursive=True)

    def shards() -> Iterator[pa.Table]:
        if load_plan("memory://tokens") is None:
            make_plan("memory://tokens", "encode", SETTINGS, listing(*"abc"))
        yield from listing(*"abc")()
    plan = make_plan("memory://tokens", "encode", SETTINGS, shards)
    assert plan == load_plan("memory://tokens") and plan.keys(1) == ["c"]
