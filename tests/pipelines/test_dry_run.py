"""Dry runs: what encoding would do, and not a byte written."""
import dataclasses
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from delta_corpora import photo
from job_fakes import tree

from pipelines import dry_run
from pipelines.dry_run import Forecast, Sample, foresee
from pipelines.encode import EncodeConfig, EncodeTask, encode_corpus
from pipelines.report import duration, foreseen
from tokenizer.tokens import TokenCorpus

Settings = Callable[..., EncodeConfig]


def test_a_forecast_is_what_becomes_of_it(config: Settings, tmp_path: Path) -> None:
    make = config(crops="random:3")
    photo(make, 4).rename(photo(make, 4, "jpg"))
    shutil.copy(photo(make, 5), photo(make, 4))
    photo(make, 7).write_bytes(b"no image")
    forecast = foresee(make)
    assert not (tmp_path / "tokens").exists()
    assert (forecast.num_inputs, forecast.num_shards, forecast.num_left) == (11, 3, 3)
    assert forecast.problems == {"DuplicateKey": 1}
    assert forecast.num_tried == 10 and forecast.failures == {"UnreadableImage": 1}
    manifest = encode_corpus(make)
    assert forecast.num_rows == manifest.num_rows == 27 and not forecast.refusal
    written = sum(entry.bytes for entry in manifest.shards)
    assert 0.8 * written < forecast.num_bytes < 1.25 * written
    assert forecast.seconds is not None and forecast.seconds > 0


@pytest.mark.parametrize(("buckets", "most"), [((), 4), (((20, 40), (20, 20), (40, 20)), 12)])
def test_a_trial_fills_batches_of_every_bucket(
        config: Settings, monkeypatch: pytest.MonkeyPatch, image_folder: Callable[[int], Path],
        buckets: tuple[tuple[int, int], ...], most: int) -> None:
    image_folder(15)
    tried: list[int] = []

    original = dry_run.encode_some

    def encode_some(task: EncodeTask, rows: Sequence[dict[str, Any]]) -> object:
        tried.append(len(rows))
        return original(task, rows)
    monkeypatch.setattr(dry_run, "encode_some", encode_some)
    assert foresee(config(buckets=buckets)).num_tried == 15
    assert tried[0] == most and tried[1:] == [most] * (15 // most) + [15 % most]


def test_what_is_finished_takes_no_time_again(config: Settings, tmp_path: Path) -> None:
    make = config()
    encode_corpus(make)
    (tmp_path / "tokens/_receipts/00001.json").unlink()
    before = tree(tmp_path / "tokens")
    forecast = foresee(make)
    assert (forecast.num_shards, forecast.num_left, forecast.refusal) == (3, 1, "")
    one_of_three = forecast.seconds
    assert one_of_three is not None and one_of_three > 0
    assert tree(tmp_path / "tokens") == before


@pytest.mark.parametrize(("settings", "words"), [
    ({"shard_size": 3}, "shard_size was 4, now 3"),
    ({"tokenizers": {"image": "other-tok"}}, "codes.image.tokenizer was"),
    ({"extend": True, "batch_size": 2}, "batch_size was 4, now 2")])
def test_what_would_be_refused_is_said_beside_the_forecast(
        config: Settings, tmp_path: Path, settings: dict[str, object], words: str) -> None:
    encode_corpus(config())
    before = tree(tmp_path / "tokens")
    forecast = foresee(config(**settings))
    assert words in forecast.refusal and forecast.num_inputs == 10 and forecast.num_rows == 10
    assert tree(tmp_path / "tokens") == before


def test_a_folder_of_other_files_would_be_refused(config: Settings, tmp_path: Path) -> None:
    (tmp_path / "tokens").mkdir()
    (tmp_path / "tokens/letters.txt").write_text("x")
    assert "holds other files, such as letters.txt" in foresee(config()).refusal
    assert "holds other files" in foresee(config(overwrite=True)).refusal


def test_overwriting_is_foreseen_and_removes_nothing(config: Settings, tmp_path: Path) -> None:
    encode_corpus(config())
    before = tree(tmp_path / "tokens")
    forecast = foresee(config(overwrite=True, shard_size=5))
    assert (forecast.num_left, forecast.refusal) == (2, "")
    assert tree(tmp_path / "tokens") == before


def test_an_extension_is_foreseen_by_its_new_inputs(config: Settings, tmp_path: Path) -> None:
    make = config()
    encode_corpus(make)
    for index in range(20, 26):
        shutil.copy(photo(make, 3), photo(make, index))
    before = tree(tmp_path / "tokens")
    assert "the input 'img-020' is new" in foresee(make).refusal
    extend = dataclasses.replace(make, extend=True)
    forecast = foresee(extend)
    assert (forecast.num_inputs, forecast.num_left, forecast.refusal) == (6, 2, "")
    assert tree(tmp_path / "tokens") == before
    encode_corpus(extend)
    assert TokenCorpus.open(make.output).manifest.deltas[0].num_rows == forecast.num_rows
    assert foresee(make).num_left == 0 and foresee(extend).num_inputs == 0


def test_inputs_of_the_trial_are_drawn_from_the_whole_corpus_alike() -> None:
    drawn = [Sample(100), Sample(100)]
    for number in range(10_000):
        for sample in drawn:
            sample.add({"key": number})
    keys = [row["key"] for row in drawn[0].rows]
    assert drawn[0].rows == drawn[1].rows and len(set(keys)) == 100
    assert 4000 < sum(keys) / 100 < 6000


def test_a_forecast_reads_well() -> None:
    forecast = Forecast(num_inputs=10_000, num_shards=20, num_left=5, num_rows=9990, num_tried=40,
                        num_bytes=5_123_456, seconds=7201.0)
    forecast.problems.update(MissingMap=2)
    forecast.failures.update(UnreadableImage=1)
    assert foreseen(forecast, 4).splitlines() == [
        "inputs: 10000 inputs in 20 shards, 5 of them left to make; unusable: 2 MissingMap",
        "output: about 9990 rows, 5,123,456 bytes of shards, from a trial of 40 inputs",
        "time: about 2.0 h with 4 workers, from a trial of 40 inputs, and as long as it takes to "
        "start", "failed in the trial: 1 UnreadableImage", "nothing was written"]
    assert "the trial of 0 inputs gave no row" in foreseen(Forecast(), 1)
    assert [duration(seconds) for seconds in (3.4, 119, 120, 7199, 86_400, 200_000)] == [
        "3 s", "119 s", "2.0 min", "120.0 min", "24.0 h", "2.3 days"]
