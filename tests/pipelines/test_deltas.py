"""Retries: every input in one place, no older file touched, and the same bytes again."""
import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from delta_corpora import (
    codes_by_key,
    encode_all_but,
    mend,
    photo,
    require_sound,
    require_untouched,
)
from job_fakes import FakeCodec, save_maps, tree, writes_that_end

from pipelines import deltas
from pipelines.array import Part
from pipelines.decode import DecodeConfig, decode_corpus
from pipelines.deltas import load_plans
from pipelines.encode import EncodeConfig, encode_corpus, encode_part
from pipelines.job import TooManyErrors
from pipelines.plan import Plan, PlanMismatch
from pipelines.report import describe, retried
from pipelines.retry import Retried, retry_corpus
from prior.dataset import CodeRows
from tokenizer import storage, tokens
from tokenizer.audit import check_retries, verify
from tokenizer.deltas import Generation
from tokenizer.tokens import AuditFailure, TokenCorpus

Settings = Callable[..., EncodeConfig]
BROKEN = (1, 5, 9)


@pytest.fixture
def broken(config: Settings, tmp_path: Path) -> EncodeConfig:
    """A corpus of ten photos in three shards, encoded while three photos were no images."""
    make = config()
    (tmp_path / "good").mkdir()
    for index in BROKEN:
        shutil.copy2(photo(make, index), tmp_path / "good")
        photo(make, index).write_bytes(b"no image")
    assert encode_corpus(make).num_dead_letters == 3
    return make


def retry(config: EncodeConfig, **run: object) -> Retried:
    return retry_corpus(config.output, config.tokenizers, **run)


def test_what_is_mended_becomes_rows_and_what_is_not_stays_a_dead_letter(
        broken: EncodeConfig, tmp_path: Path) -> None:
    before = tree(tmp_path / "tokens")
    mend(broken, 1, 9)
    photo(broken, 5).unlink()
    done = retry(broken)
    assert done.num_tried == 3 and retried(3, done.manifest) == "2 of 3 dead letters now encoded"
    assert done.manifest.dead_letters == {"FileNotFoundError": 1}
    assert require_sound(broken, 10) == done.manifest
    require_untouched(before, broken)
    new = tree(tmp_path / "tokens").keys() - before.keys()
    assert new == {"data/part-d001-00000-of-00001.parquet", "_deltas/001/_dead/00000.parquet",
                   "_deltas/001/_plan/inputs-00000.parquet", "_deltas/001/_plan/plan.json",
                   "_deltas/001/_receipts/00000.json"}
    assert sorted(os.listdir(tmp_path / "tokens/data"))[:3] == [
        f"part-0000{shard}-of-00003.parquet" for shard in range(3)]  # the delta is the last one


def test_a_retried_corpus_holds_the_codes_of_one_without_faults(
        broken: EncodeConfig, tmp_path: Path) -> None:
    mend(broken, *BROKEN)
    assert retry(broken).manifest.num_dead_letters == 0
    encode_corpus(dataclasses.replace(broken, output=str(tmp_path / "clean")))
    clean = TokenCorpus.open(str(tmp_path / "clean")).manifest
    manifest = require_sound(broken, 10)
    assert codes_by_key(broken.output) == codes_by_key(str(tmp_path / "clean"))
    assert (manifest.usage, manifest.class_counts) == (clean.usage, clean.class_counts)


def test_dead_letters_may_be_tried_again_and_again(broken: EncodeConfig) -> None:
    for index, left in ((5, 2), (1, 1), (9, 0)):
        mend(broken, index)
        assert retry(broken).manifest.num_dead_letters == left
        require_sound(broken, 10)
    before = tree(Path(broken.output))
    done = retry(broken)
    assert done.num_tried == 0 and len(done.manifest.deltas) == 3
    assert retried(0, done.manifest) == "there is no dead letter to try again"
    assert tree(Path(broken.output)) == before


def test_where_all_fail_again_they_stay_dead_letters_unless_that_is_too_many(
        broken: EncodeConfig) -> None:
    for index in BROKEN:
        photo(broken, index).unlink()
    with pytest.raises(TooManyErrors, match=(
            r"3 of 3 images failed, more than the 1 \(50%\) that --max-errors allows .*: run again "
            "with a larger --max-errors, or mend the inputs and run `img2tokens retry`")):
        retry(broken, max_errors=0.5)
    assert TokenCorpus.open(broken.output).manifest.deltas == ()
    assert retry(broken, max_errors=3).manifest.dead_letters == {"FileNotFoundError": 3}
    assert retry(broken).manifest.dead_letters == {"FileNotFoundError": 3}
    require_sound(broken, 10)


@pytest.mark.parametrize("max_errors", [0, None])
def test_dead_letters_of_a_retry_that_had_too_many_are_tried_again(
        broken: EncodeConfig, max_errors: int | None) -> None:
    mend(broken, 1)
    with pytest.raises(TooManyErrors, match="2 of 3 images failed, more than the 0"):
        retry(broken, max_errors=0)
    mend(broken, 5, 9)
    done = retry(broken, max_errors=max_errors)
    assert retried(done.num_tried, done.manifest) == "2 of 2 dead letters now encoded"
    manifest = require_sound(broken, 10)
    assert manifest.num_dead_letters == 0
    assert [(delta.num_inputs, delta.num_rows) for delta in manifest.deltas] == [(3, 1), (2, 2)]


def test_a_retry_that_was_stopped_by_its_limit_makes_the_shards_that_it_left(
        config: Settings, tmp_path: Path) -> None:
    make = config(shard_size=1)
    shutil.copytree(make.corpus, tmp_path / "good")
    for index in BROKEN:
        photo(make, index).write_bytes(b"no image")
    encode_corpus(make)
    with pytest.raises(TooManyErrors, match="3 of 3 images failed"):
        retry(make, max_errors=0)
    (tmp_path / "tokens/_deltas/001/_receipts/00002.json").unlink()  # as if not begun
    mend(make, *BROKEN)
    assert retry(make).num_tried == 2
    assert require_sound(make, 10).num_dead_letters == 0


@pytest.mark.parametrize("stopped_at", range(7))
def test_a_retry_after_one_of_which_too_many_failed_may_be_stopped_anywhere(
        broken: EncodeConfig, tmp_path: Path, stopped_at: int) -> None:
    with pytest.raises(TooManyErrors, match="3 of 3 images failed"):
        retry(broken, max_errors=0)
    mend(broken, *BROKEN)
    with writes_that_end(stopped_at, KeyboardInterrupt()), pytest.raises(KeyboardInterrupt):
        retry(broken)
    assert retry(broken).manifest.num_dead_letters == 0
    assert len(require_sound(broken, 10).deltas) == 2
    assert not [path for path in tree(tmp_path / "tokens") if "_given_up" in path]


def test_the_same_command_as_before_completes_a_corpus_with_deltas(broken: EncodeConfig,
                                                                   tmp_path: Path) -> None:
    mend(broken, 1, 9)
    retry(broken)
    before = tree(tmp_path / "tokens")
    encode_corpus(broken)
    assert tree(tmp_path / "tokens") == before
    for name in ("_receipts/00000.json", "_deltas/001/_receipts/00000.json",
                 "data/part-d001-00000-of-00001.parquet", "manifest.json"):
        (tmp_path / "tokens" / name).unlink()
    encode_corpus(broken)
    after = tree(tmp_path / "tokens")
    assert {name for name in before if before[name] != after[name]} <= {
        "_receipts/00000.json", "_dead/00000.parquet", "manifest.json"}
    assert require_sound(broken, 10).num_dead_letters == 1
    with pytest.raises(ValueError, match="has deltas or is to have one, which no array"):
        encode_part(broken, Part(index=0, size=2))


def test_a_lost_shard_is_made_anew_without_the_inputs_of_a_later_retry(
        broken: EncodeConfig, tmp_path: Path) -> None:
    mend(broken, *BROKEN)
    retry(broken)
    before = tree(tmp_path / "tokens")
    (tmp_path / "tokens/data/part-00001-of-00003.parquet").write_bytes(b"PAR1")
    encode_corpus(broken)
    after = tree(tmp_path / "tokens")
    assert after["data/part-00001-of-00003.parquet"] == before["data/part-00001-of-00003.parquet"]
    assert require_sound(broken, 10).num_dead_letters == 0
    letters = tokens.read_dead_letters(broken.output, TokenCorpus.open(
        broken.output).manifest.superseded[1])
    assert [(letter.key, letter.error) for letter in letters] == [("img-005", deltas.RETRIED)]


@pytest.mark.parametrize("stopped_at", range(6))
def test_a_retry_stopped_anywhere_goes_on_to_the_same_bytes(
        broken: EncodeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        stopped_at: int) -> None:
    mend(broken, 1)
    shutil.copytree(tmp_path / "tokens", tmp_path / "copy")
    retry(broken)
    undisturbed = tree(tmp_path / "tokens")
    shutil.rmtree(tmp_path / "tokens")
    (tmp_path / "copy").rename(tmp_path / "tokens")
    writes, write_bytes = iter(range(100)), storage.write_bytes

    def write(url: str, content: bytes) -> None:
        if next(writes) == stopped_at:
            raise KeyboardInterrupt
        write_bytes(url, content)
    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_bytes", write)
        with pytest.raises(KeyboardInterrupt):
            retry(broken)
    assert TokenCorpus.open(broken.output).manifest.num_inputs == 10  # readable all the while
    assert [problem for problem in verify(TokenCorpus.open(broken.output)) if problem] == []
    retry(broken)
    assert tree(tmp_path / "tokens") == undisturbed


def test_an_unfinished_corpus_is_finished_before_its_dead_letters_are_tried_again(
        broken: EncodeConfig, tmp_path: Path) -> None:
    mend(broken, *BROKEN)
    unfinished = dataclasses.replace(broken, output=str(tmp_path / "unfinished"))
    photo(unfinished, 1).write_bytes(b"no image")
    encode_all_but(2, unfinished)
    mend(unfinished, 1)
    done = retry(unfinished)
    assert done.num_tried == 1 and done.manifest.num_dead_letters == 0
    require_sound(unfinished, 10)


def test_a_corpus_of_which_all_failed_is_finished_and_tried_again(config: Settings,
                                                                  tmp_path: Path) -> None:
    make = config()
    shutil.copytree(make.corpus, tmp_path / "good")
    for path in Path(make.corpus).iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(TooManyErrors, match="10 of 10 images failed"):
        encode_corpus(make)
    mend(make, *range(10))
    assert retry(make).manifest.num_rows == 10
    require_sound(make, 10)


def test_a_delta_that_another_process_plans_otherwise_is_left_to_it(
        broken: EncodeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    plan_delta, plans = deltas.plan_delta, load_plans(broken.output)

    def second(*arguments: Any) -> Plan:
        rows = list(deltas.dead_rows(plans))
        plan_delta(plans, "retry", plans[0].settings, lambda: rows[:2])
        return plan_delta(*arguments)
    with monkeypatch.context() as patch:
        patch.setattr(deltas, "plan_delta", second)
        with pytest.raises(PlanMismatch, match="just planned .*_deltas/001 otherwise"):
            retry(broken)
    with pytest.raises(AuditFailure, match="are not the dead letters before it"):
        retry(broken)  # such a plan can only be forged


def test_another_tokenizer_and_a_folder_without_a_plan_are_refused(
        broken: EncodeConfig, tmp_path: Path) -> None:
    with pytest.raises(PlanMismatch, match="codes.image.tokenizer was 'sha256:a', now 'sha256:b'"):
        retry(dataclasses.replace(broken, tokenizers={"image": "other-tok"}))
    with pytest.raises(FileNotFoundError, match="nowhere holds no plan of an encode job"):
        retry(dataclasses.replace(broken, output=str(tmp_path / "nowhere")))


def test_a_plan_of_an_early_version_is_completed_by_the_encode_command(broken: EncodeConfig,
                                                                       tmp_path: Path) -> None:
    name = tmp_path / "tokens/_plan/plan.json"
    whole = name.read_bytes()
    data = json.loads(whole)
    assert data.pop("options") == {"corpus": broken.corpus, "shard_size": 4, "batch_size": 4}
    name.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n")
    with pytest.raises(ValueError, match="of an early version .* run its encode command once more"):
        retry(broken)
    encode_corpus(broken)
    assert name.read_bytes() == whole
    assert retry(broken).num_tried == 3


def test_maps_crops_and_sizes_of_a_retry_are_those_of_the_plan(
        config: Settings, tmp_path: Path, fakes: dict[str, FakeCodec]) -> None:
    make = config(tokenizers={"image": "tok", "depth": "depth-tok"}, crops="random:3", flips=True,
                  crop_seed=7, maps={"depth": f"{tmp_path}/depths"}, labels="regex:([01])$",
                  size=(8, 16))
    save_maps(tmp_path / "depths", tmp_path / "photos", lambda size: np.full(size, 9, np.uint16))
    missing = tmp_path / "depths/img-004.png"
    missing.rename(tmp_path / "img-004.png")
    assert encode_corpus(make).dead_letters == {"MissingMap": 1}
    (tmp_path / "img-004.png").rename(missing)
    assert retry(make).manifest.num_rows == 30
    encode_corpus(dataclasses.replace(make, output=str(tmp_path / "clean")))
    rows = [sorted((row for table in TokenCorpus.open(str(tmp_path / name)).tables()
                    for row in table.to_pylist()), key=lambda row: (row["key"], row["crop_index"]))
            for name in ("tokens", "clean")]
    assert rows[0] == rows[1]


def test_keys_that_were_planned_twice_stay_in_one_place(config: Settings, tmp_path: Path) -> None:
    make = config()
    photo(make, 3).rename(photo(make, 3, "jpg"))
    shutil.copy2(photo(make, 4), photo(make, 3))
    assert encode_corpus(make).dead_letters == {"DuplicateKey": 1}
    photo(make, 3, "jpg").unlink()
    assert retry(make).manifest.dead_letters == {"DuplicateKey": 1}
    corpus = TokenCorpus.open(make.output)
    assert [key for table in corpus.tables() for key in table["key"].to_pylist()].count(
        "img-003") == 1


def test_readers_decoding_and_priors_take_the_rows_of_deltas(broken: EncodeConfig,
                                                             tmp_path: Path) -> None:
    mend(broken, 1, 9)
    retry(broken)
    corpus = TokenCorpus.open(broken.output)
    assert len(CodeRows.load(corpus, ["image"])) == 9
    decoded = decode_corpus(DecodeConfig(tokens=broken.output, output=str(tmp_path / "images"),
                                         tokenizers={"image": "tok"}))
    assert decoded.num_crops == 9 and (tmp_path / "images/img-009.png").exists()
    assert "delta 1: 3 dead letters tried again, 2 rows in 1 shard\ndead letters: 1" in describe(
        corpus)


def test_deltas_on_an_object_store_are_those_on_a_disk(broken: EncodeConfig,
                                                       tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.rm("/", recursive=True)
    away = dataclasses.replace(broken, output="memory://tokens")
    encode_corpus(away)
    mend(broken, 1, 9)
    shutil.copy2(photo(broken, 9), photo(broken, 20))
    for make in (broken, away):
        retry(make)
        encode_corpus(dataclasses.replace(make, extend=True))
    found = {path.removeprefix("/tokens/"): memory.cat_file(path)
             for path in memory.find("/tokens")}
    assert found == tree(tmp_path / "tokens")
    assert require_sound(away, 11).num_dead_letters == 1


def test_a_corpus_without_deltas_says_nothing_of_them(broken: EncodeConfig) -> None:
    text = storage.read_bytes(f"{broken.output}/manifest.json").decode()
    assert "deltas" not in text and "superseded" not in text
    assert "delta " not in describe(TokenCorpus.open(broken.output))


def test_damage_in_deltas_is_named(broken: EncodeConfig, tmp_path: Path) -> None:
    mend(broken, 1)
    retry(broken)
    (tmp_path / "tokens/_dead/00001.parquet").unlink()
    (tmp_path / "tokens/_deltas/001/_dead/00007.parquet").write_bytes(b"x")
    (tmp_path / "tokens/data/part-d001-00000-of-00001.parquet").write_bytes(b"x")
    found = [problem for problem in verify(TokenCorpus.open(broken.output)) if problem]
    assert len(found) == 3
    assert found[0].startswith("data/part-d001-00000-of-00001.parquet is damaged")
    assert found[1] == "_dead/00001.parquet is missing"
    assert found[2].startswith("_deltas/001/_dead/00007.parquet is surplus")


def test_a_retry_must_hold_the_dead_letters_that_it_takes_the_place_of(
        broken: EncodeConfig) -> None:
    mend(broken, 1)
    retry(broken)
    made = [Generation(number=plan.delta, kind=deltas.kind_of(plan), planned=plan.keys,
                       fingerprint=plan.fingerprint, num_inputs=plan.num_inputs,
                       receipts=list(tokens.read_receipts(plan.url, plan.fingerprint).values()))
            for plan in load_plans(broken.output)]
    assert list(check_retries(broken.output, made)) == []
    made[1] = dataclasses.replace(made[1], planned=lambda shard: ["img-001", "img-005", "img-000"])
    assert list(check_retries(broken.output, made)) == [
        "the inputs of _deltas/001 are not the dead letters before it; the first that differs is "
        "'img-009'"]
