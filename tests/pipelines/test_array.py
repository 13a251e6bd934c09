"""Job arrays: tasks that share a folder and nothing else end in the files of one process."""
import dataclasses
import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from forked import Forked
from job_fakes import tree
from object_store import ObjectStore

from pipelines import array, job
from pipelines.array import Part, Unfinished
from pipelines.decode import DecodeConfig, Decoded, decode_corpus, decode_part
from pipelines.encode import EncodeConfig, encode_corpus, encode_part
from pipelines.job import FAILED, STOP, JobFailed, TooManyErrors
from tokenizer import audit, storage, tokens
from tokenizer.schema import Manifest

Settings = Callable[..., EncodeConfig]
SCRIPT = Path(__file__).with_name("array_tasks.py")
SECONDS_A_BATCH = 0.05


def parts(config: EncodeConfig, *indices: int, size: int) -> list[Manifest | Unfinished]:
    return [encode_part(config, Part(index=index, size=size)) for index in indices]


def left_after(config: EncodeConfig, *indices: int, size: int) -> list[int]:
    return [done.num_left if isinstance(done, Unfinished) else 0
            for done in parts(config, *indices, size=size)]


def start(photos: Path, out: Path | str, index: int, size: int) -> Forked:
    """Start one task as a process."""
    return Forked(SCRIPT, photos, out, index, size, SECONDS_A_BATCH)


def ends(processes: Sequence[Forked]) -> list[str]:
    """What each of these printed; all must end well."""
    outputs = []
    for process in processes:
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        outputs.append(output.strip())
    return outputs


@pytest.fixture
def corpus(tmp_path: Path, config: Settings, image_folder: Callable[[int], Path]) -> Path:
    """Thirty photos, one of them broken, and what one process makes of them in ``alone``."""
    photos = image_folder(30)
    (photos / "img-007.png").write_bytes(b"no image")
    encode_corpus(config(output=str(tmp_path / "alone"), shard_size=2))
    return photos


@pytest.mark.parametrize(("num_shards", "size"), [(10, 3), (3, 3), (2, 5), (1, 1)])
def test_parts_are_disjoint_and_complete(num_shards: int, size: int) -> None:
    found = [shard for index in range(size)
             for shard in Part(index=index, size=size).shards(num_shards)]
    assert sorted(found) == list(range(num_shards))


@pytest.mark.parametrize("index", [-1, 4, 9])
def test_a_part_that_is_not_there_is_refused(index: int) -> None:
    with pytest.raises(ValueError, match=rf"from 0 to 3, got {index}; .* subtract 1"):
        Part(index=index, size=4)


def test_tasks_in_any_order_write_the_files_of_one_process(config: Settings,
                                                           tmp_path: Path) -> None:
    encode_corpus(config(output=str(tmp_path / "alone")))
    assert left_after(config(), 2, 0, 1, size=3) == [2, 1, 0]
    assert tree(tmp_path / "tokens") == tree(tmp_path / "alone")


def test_more_tasks_than_shards_are_harmless(config: Settings, tmp_path: Path) -> None:
    encode_corpus(config(output=str(tmp_path / "alone")))
    assert left_after(config(), 4, 3, 2, 1, 0, 4, size=5) == [3, 3, 2, 1, 0, 0]
    assert tree(tmp_path / "tokens") == tree(tmp_path / "alone")


def test_only_the_last_task_audits(config: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    audits = []
    complete = audit.complete
    monkeypatch.setattr(audit, "complete", lambda *arguments: (
        audits.append(1), complete(*arguments))[1])
    for index, num_audits in ((0, 0), (1, 0), (2, 1), (0, 1)):
        encode_part(config(), Part(index=index, size=3))
        assert len(audits) == num_audits


def test_the_plain_command_completes_what_tasks_have_left(config: Settings,
                                                          tmp_path: Path) -> None:
    encode_corpus(config(output=str(tmp_path / "alone")))
    parts(config(), 1, size=3)
    assert not storage.exists(f"{config().output}/{tokens.SUCCESS}")
    assert isinstance(encode_corpus(config()), Manifest)
    assert tree(tmp_path / "tokens") == tree(tmp_path / "alone")


@pytest.mark.parametrize("name", ["_receipts/00001.json", "data/part-00001-of-00003.parquet"])
def test_the_last_task_makes_what_others_left_damaged(config: Settings, tmp_path: Path,
                                                      name: str) -> None:
    encode_corpus(config(output=str(tmp_path / "alone")))
    parts(config(), 0, 1, size=3)
    (tmp_path / "tokens" / name).write_bytes(b"{ half")
    assert left_after(config(), 2, size=3) == [0]
    assert tree(tmp_path / "tokens") == tree(tmp_path / "alone")


def test_a_task_whose_receipt_was_lost_withdraws_success_and_restores_it(
        config: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts(config(), 0, 1, 2, size=3)
    before = tree(tmp_path / "tokens")
    (tmp_path / "tokens" / tokens.receipt_name(1)).unlink()
    parts(config(), 0, size=3)
    assert storage.exists(f"{config().output}/{tokens.SUCCESS}")  # not its own shard
    try_shard, seen = array.try_shard, []

    def watched(task: job.ShardTask, shard: int) -> job.Tally:
        seen.append(storage.exists(f"{config().output}/{tokens.SUCCESS}"))
        return try_shard(task, shard)
    monkeypatch.setattr(array, "try_shard", watched)
    parts(config(), 1, size=3)
    assert seen == [False] and tree(tmp_path / "tokens") == before


def test_shards_that_fail_end_the_task_with_their_reason(
        config: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(task: job.ShardTask, shard: int) -> tokens.Receipt:
        raise OSError("the disk is away")
    encode_corpus(config(output=str(tmp_path / "alone")))
    parts(config(), 0, size=3)
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.encode.EncodeTask.run", fail)
        with pytest.raises(JobFailed, match="1 of 3 shards could .* 1: the disk is away"):
            parts(config(), 1, size=3)
    assert left_after(config(), 2, 1, size=3) == [1, 0]
    assert tree(tmp_path / "tokens") == tree(tmp_path / "alone")


def test_a_limit_of_errors_counts_over_all_tasks(config: Settings, tmp_path: Path) -> None:
    make = config()
    for index in (0, 4, 8):
        (tmp_path / f"photos/img-{index:03d}.png").write_bytes(b"no image")
    limited = dataclasses.replace(make, max_errors=2)
    parts(limited, 0, 1, size=3)
    with pytest.raises(TooManyErrors, match="3 of 10 images failed, more than the 2"):
        parts(limited, 2, size=3)
    assert not storage.exists(f"{make.output}/{tokens.SUCCESS}")
    assert left_after(dataclasses.replace(make, max_errors=3), 2, size=3) == [0]


def test_a_task_that_is_asked_to_stop_says_why_and_a_higher_limit_goes_on(
        config: Settings, tmp_path: Path) -> None:
    make = config(max_errors=0)
    (tmp_path / "photos/img-000.png").write_bytes(b"no image")
    with pytest.raises(TooManyErrors):
        parts(make, 0, size=3)
    storage.write_bytes(f"{make.output}/{STOP}", b"")
    with pytest.raises(TooManyErrors, match="1 of 10 images failed, more than the 0"):
        parts(make, 1, size=3)
    assert left_after(dataclasses.replace(make, max_errors=1), 1, 2, size=3) == [1, 0]
    assert not storage.exists(f"{make.output}/{FAILED}")


def test_overwriting_in_parts_is_refused(config: Settings, tmp_path: Path) -> None:
    encode_corpus(config())
    before = tree(tmp_path / "tokens")
    with pytest.raises(ValueError, match="each would remove what the others have made; remove"):
        parts(config(overwrite=True), 0, size=2)
    assert tree(tmp_path / "tokens") == before


def test_decoding_in_parts_writes_the_files_of_one_process(config: Settings,
                                                           tmp_path: Path) -> None:
    encode_corpus(config())
    whole = DecodeConfig(tokens=config().output, output=str(tmp_path / "alone"),
                         tokenizers={"image": "tok"})
    split = dataclasses.replace(whole, output=str(tmp_path / "split"))
    done = [decode_part(split, Part(index=index, size=3)) for index in (1, 2, 0, 1)]
    assert [isinstance(item, Unfinished) for item in done] == [True, True, False, False]
    assert done[2:] == [decode_corpus(whole)] * 2 == [Decoded(num_crops=10, dead_letters={})] * 2
    assert tree(tmp_path / "split") == tree(tmp_path / "alone")
    with pytest.raises(ValueError, match="cannot overwrite"):
        decode_part(dataclasses.replace(split, overwrite=True), Part(index=0, size=3))


def test_processes_that_start_together_end_in_the_same_files(corpus: Path,
                                                             tmp_path: Path) -> None:
    said = ends([start(corpus, tmp_path / "tokens", index, 4) for index in (0, 1, 2, 3, 2)])
    assert "complete" in said
    assert tree(tmp_path / "tokens") == tree(tmp_path / "alone")


@pytest.mark.parametrize("seed", range(2))
def test_killed_tasks_are_repeated_and_the_last_one_audits(corpus: Path, tmp_path: Path,
                                                           seed: int) -> None:
    out, draw = tmp_path / "tokens", random.Random(seed)
    processes = [start(corpus, out, index, 3) for index in range(3)]
    receipts, deadline = out / tokens.RECEIPTS, time.monotonic() + 60
    enough = draw.randint(0, 6)
    while len(list(receipts.glob("*.json"))) < enough and time.monotonic() < deadline:
        time.sleep(0.002)
    killed = draw.sample(range(3), 2)
    for index in killed:
        processes[index].send_signal(signal.SIGKILL)
        processes[index].wait(60)
    living = [index for index in range(3) if index not in killed]
    again = [start(corpus, out, index, 3) for index in killed]
    said = ends([*(processes[index] for index in living), *again])
    assert "complete" in said
    assert tree(out) == tree(tmp_path / "alone")


@pytest.mark.slow
def test_two_whole_jobs_and_a_task_in_one_folder_at_once_are_harmless(corpus: Path,
                                                                      tmp_path: Path) -> None:
    said = ends([start(corpus, tmp_path / "tokens", index, size)
                 for index, size in ((0, 0), (0, 0), (1, 2))])
    assert said[:2] == ["complete"] * 2
    assert tree(tmp_path / "tokens") == tree(tmp_path / "alone")


@pytest.mark.slow
def test_processes_that_share_a_bucket_end_in_the_same_files(corpus: Path, tmp_path: Path,
                                                             s3: ObjectStore) -> None:
    out = f"{s3.bucket}/tokens"
    processes = [start(corpus, out, index, 3) for index in range(3)]
    while len(storage.list_names(f"{out}/{tokens.RECEIPTS}")) < 2:
        assert processes[1].poll() is None
    processes[1].send_signal(signal.SIGKILL)
    processes[1].wait(60)
    said = ends([processes[0], processes[2], start(corpus, out, 1, 3)])
    fs, path = storage.locate(out)
    assert "complete" in said
    assert {name[len(path) + 1:]: fs.cat_file(name) for name in fs.find(path)} == tree(
        tmp_path / "alone")
