"""The driver: what has no receipt is made, failures are tried again, and the end is told."""
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pytest
from job_fakes import full_disk, run_inline, writes_that_end

from pipelines import job
from pipelines.job import (
    FAILED,
    STOP,
    Engine,
    Job,
    JobFailed,
    OutputRefused,
    ShardTask,
    Tally,
    TooManyErrors,
    WorkerLost,
    commit,
    try_shard,
)
from pipelines.plan import Plan, PlanMismatch, fixed_size_shards, make_plan
from tokenizer import receipts, storage, tokens
from tokenizer.tokens import AuditFailure, DeadLetter, Receipt

SCHEMA = pa.schema([("key", pa.string())])


@dataclass
class CountingTask(ShardTask):
    """Commits a shard's keys; some keys are dead, and some shards fail some times."""
    plan: Plan
    dead: Sequence[str] = ()
    failures: dict[int, list[Exception]] = field(default_factory=dict)
    runs: list[int] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.plan.url

    def prepare(self) -> None:
        pass

    def run(self, shard: int) -> Receipt:
        self.runs.append(shard)
        if self.failures.get(shard):
            raise self.failures[shard].pop(0)
        keys = self.plan.keys(shard)
        letters = [DeadLetter(key=key, source=key, stage="read", error="Broken", message="it is")
                   for key in keys if key in self.dead]
        rows = pa.table({"key": [key for key in keys if key not in self.dead]}, SCHEMA)
        return commit(self.plan, shard, rows, letters)


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CountingTask:
    """Ten inputs in five shards."""
    monkeypatch.setattr(job, "PAUSES", (0.0, 0.0))
    rows = [{"key": str(key)} for key in range(10)]
    plan = make_plan(str(tmp_path), "encode", {},
                     lambda: fixed_size_shards(rows, SCHEMA, 2))
    return CountingTask(plan)


def run(task: CountingTask, engine: Engine = run_inline, max_errors: int | None = None,
        finish: Callable[[Sequence[Receipt]], None] = lambda receipts: None) -> None:
    Job(task.plan, task, engine, max_errors).run(finish)


def test_a_word_that_another_driver_removes_meanwhile_is_not_missed(
        task: CountingTask, monkeypatch: pytest.MonkeyPatch) -> None:
    task.failures = {shard: [ValueError("why")] * 3 for shard in (1, 2)}
    list_files = storage.list_files

    def list_and_remove(url: str) -> dict[str, int]:
        found = list_files(url)
        if url.endswith(FAILED):
            storage.remove(f"{url}/00001.json")
        return found
    monkeypatch.setattr(storage, "list_files", list_and_remove)
    with pytest.raises(JobFailed, match=r"2 of 5 shards could not be made.*: why \(ValueError\)"):
        run(task)


def receipts_of(task: CountingTask) -> list[int]:
    return sorted(tokens.read_receipts(task.url, task.plan.fingerprint))


def test_every_shard_is_made_once(task: CountingTask) -> None:
    finished: list[Receipt] = []
    run(task, finish=finished.extend)
    assert task.runs == [0, 1, 2, 3, 4]
    assert sorted(receipt.shard for receipt in finished) == [0, 1, 2, 3, 4]
    assert not storage.exists(f"{task.url}/{FAILED}")


def test_finished_shards_are_left_alone(task: CountingTask) -> None:
    for shard in (1, 3):
        task.run(shard)
    task.runs.clear()
    run(task)
    assert task.runs == [0, 2, 4]


def test_a_receipt_that_cannot_be_read_is_made_again(task: CountingTask) -> None:
    run(task)
    storage.write_bytes(f"{task.url}/{tokens.receipt_name(2)}", b"{ half")
    task.runs.clear()
    run(task)
    assert task.runs == [2]


def test_shards_that_fail_are_tried_again(task: CountingTask) -> None:
    task.failures = {1: [OSError("down"), ConnectionError("still down")], 4: [ValueError("odd")]}
    run(task)
    assert task.runs == [0, 1, 2, 3, 4, 1, 4, 1]
    assert receipts_of(task) == [0, 1, 2, 3, 4]


def test_shards_that_keep_failing_end_the_job_with_their_reason(task: CountingTask) -> None:
    task.failures = {1: [OSError("the store is down")] * 3, 2: [OSError("the store is down")] * 3}
    with pytest.raises(JobFailed) as caught:
        run(task)
    assert str(caught.value).startswith("2 of 5 shards could not be made, the first being 1: "
                                        "the store is down (OSError). The finished ones are kept")
    assert receipts_of(task) == [0, 3, 4]
    run(task)
    assert receipts_of(task) == [0, 1, 2, 3, 4]


def test_a_bug_is_not_tried_again(task: CountingTask) -> None:
    task.failures = {1: [KeyError("bug")]}
    with pytest.raises(KeyError):
        run(task)
    assert task.runs == [0, 1]


def test_a_lost_worker_is_replaced(task: CountingTask) -> None:
    calls = []

    def engine(task: ShardTask, shards: Sequence[int]) -> None:
        calls.append(list(shards))
        run_inline(task, shards[:2])
        if len(shards) > 2:
            raise WorkerLost("killed")
    run(task, engine)
    assert calls == [[0, 1, 2, 3, 4], [2, 3, 4], [4]]


@pytest.fixture
def long_task(tmp_path: Path, task: CountingTask) -> CountingTask:
    """Forty shards."""
    plan = make_plan(str(tmp_path / "long"), "encode", {}, lambda: fixed_size_shards(
        [{"key": str(key)} for key in range(40)], SCHEMA, 1))
    return CountingTask(plan)


def test_a_long_job_outlives_workers_that_die_now_and_then(long_task: CountingTask) -> None:
    left = []

    def engine(task: ShardTask, shards: Sequence[int]) -> None:
        left.append(len(shards))
        run_inline(task, shards[:8])
        if len(shards) > 8:
            raise WorkerLost("killed")
    run(long_task, engine)
    assert left == [40, 32, 24, 16, 8] and long_task.runs == list(range(40))


def test_a_shard_that_kills_its_worker_each_time_ends_a_long_job_soon(
        long_task: CountingTask) -> None:
    def engine(task: ShardTask, shards: Sequence[int]) -> None:
        run_inline(task, shards[-1:])
        raise WorkerLost("killed")
    with pytest.raises(JobFailed, match="37 of 40 shards could not be made.*: killed"):
        run(long_task, engine)
    assert long_task.runs == [39, 38, 37]


def test_workers_that_keep_dying_are_told_apart_from_a_full_disk(task: CountingTask) -> None:
    def engine(task: ShardTask, shards: Sequence[int]) -> None:
        raise WorkerLost("a worker was killed")
    with pytest.raises(JobFailed, match="a worker was killed"):
        run(task, engine)
    assert not storage.exists(f"{task.url}/{FAILED}/probe")


def test_workers_that_leave_no_word_may_not_see_the_folder(task: CountingTask) -> None:
    with pytest.raises(JobFailed, match=f"no worker left word .* reach {task.url}"):
        run(task, lambda task, shards: None)


def test_a_full_disk_ends_the_job_and_the_same_command_continues(task: CountingTask) -> None:
    task.run(0)
    task.runs.clear()
    with (writes_that_end(0, full_disk()),
          pytest.raises(JobFailed, match="takes no data: No space left on device") as caught):
        run(task)
    assert str(task.url) in str(caught.value)
    assert task.runs == [1, 1, 1]  # one shard an attempt shows it; no further one is made in vain
    run(task)
    assert receipts_of(task) == [0, 1, 2, 3, 4]
    assert not [path for path in Path(task.url).rglob("*") if ".tmp-" in path.name]


def test_too_many_errors_end_the_job_and_keep_the_shards(task: CountingTask) -> None:
    task.dead = ["2", "3", "8"]
    with pytest.raises(TooManyErrors) as caught:
        run(task, max_errors=2)
    assert "3 of 10 images failed, more than the 2 that --max-errors allows (3 Broken)" in str(
        caught.value)
    assert "run again with a larger --max-errors, or mend the inputs" in str(caught.value)
    assert receipts_of(task) == [0, 1, 2, 3, 4]
    run(task, max_errors=3)


def test_no_error_is_allowed_with_a_limit_of_zero(task: CountingTask) -> None:
    task.dead = ["9"]
    with pytest.raises(TooManyErrors, match="1 of 10 images failed, more than the 0"):
        run(task, max_errors=0)


def test_a_job_of_which_nothing_is_left_fails_without_a_limit(task: CountingTask) -> None:
    task.dead = [str(key) for key in range(9)]
    run(task)
    task.plan = make_plan(f"{task.url}/x", "encode", {}, lambda: [pa.table({"key": ["0"]})])
    with pytest.raises(TooManyErrors, match="1 of 1 images failed, all that there are") as caught:
        run(task)
    assert "are kept: mend the inputs and run with --overwrite" in str(caught.value)
    assert "--max-errors" not in str(caught.value)


def test_the_limit_stops_workers_before_they_have_tried_everything(
        task: CountingTask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "SECONDS_BETWEEN_LOOKS", 0.01)
    task.dead = ["0"]

    def engine(task: ShardTask, shards: Sequence[int]) -> None:
        try_shard(task, shards[0])
        while not storage.exists(f"{task.url}/{STOP}"):
            pass
        assert try_shard(task, shards[1]) == Tally(skipped=1)
    with pytest.raises(TooManyErrors):
        run(task, engine, max_errors=0)
    assert task.runs == [0]


def test_damaged_shards_are_made_again_once(task: CountingTask) -> None:
    asked = []

    def finish(receipts: Sequence[Receipt]) -> None:
        asked.append(sorted(receipt.shard for receipt in receipts))
        if len(asked) == 1:
            raise AuditFailure("tokens", ["shard 3 is damaged"], [3])
    run(task, finish=finish)
    assert task.runs == [0, 1, 2, 3, 4, 3] and asked == [[0, 1, 2, 3, 4]] * 2


def test_receipts_of_many_shards_are_packed_and_a_damaged_shard_is_still_made_again(
        task: CountingTask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts, "FEWEST_SHARDS_TO_PACK", 5)
    monkeypatch.setattr(receipts, "RECEIPTS_PER_PACK", 2)
    packs = ["packed-00000-00001.jsonl", "packed-00002-00003.jsonl", "packed-00004-00004.jsonl"]
    run(task)
    assert storage.list_names(f"{task.url}/{tokens.RECEIPTS}") == packs
    task.runs.clear()
    damage = [3]

    def finish(receipts: Sequence[Receipt]) -> None:
        if damage:
            raise AuditFailure("tokens", ["shard 3 is damaged"], [damage.pop()])
    run(task, finish=finish)
    assert task.runs == [3] and receipts_of(task) == [0, 1, 2, 3, 4]
    assert storage.list_names(f"{task.url}/{tokens.RECEIPTS}") == packs


def test_an_audit_that_blames_no_shard_is_final(task: CountingTask) -> None:
    def finish(receipts: Sequence[Receipt]) -> None:
        raise AuditFailure("tokens", ["a surplus file"], [])
    with pytest.raises(AuditFailure, match="a surplus file"):
        run(task, finish=finish)


def test_success_is_withdrawn_while_shards_are_made_again(task: CountingTask) -> None:
    run(task)
    storage.write_bytes(f"{task.url}/{tokens.SUCCESS}", b"")
    run(task)
    assert storage.exists(f"{task.url}/{tokens.SUCCESS}")
    storage.remove(f"{task.url}/{tokens.receipt_name(0)}")
    run(task)
    assert not storage.exists(f"{task.url}/{tokens.SUCCESS}")  # `finish` writes it


def test_a_writer_whose_plan_was_replaced_commits_nothing(task: CountingTask) -> None:
    storage.remove(f"{task.url}/{tokens.PLAN}")
    make_plan(task.url, "encode", {"other": 1}, lambda: [pa.table({"key": ["0"]})])
    with pytest.raises(PlanMismatch):
        task.run(0)
    assert not storage.exists(f"{task.url}/{tokens.DATA}")


def test_a_shard_leaves_word_of_its_failure(task: CountingTask) -> None:
    task.failures = {3: [OSError("gone")]}
    assert try_shard(task, 3) == Tally(failed=1)
    assert b'"gone"' in storage.read_bytes(f"{task.url}/{FAILED}/00003.json")


def test_what_another_driver_has_made_meanwhile_is_not_made_again(task: CountingTask) -> None:
    def engine(task: ShardTask, shards: Sequence[int]) -> None:
        task.run(3)
        assert try_shard(task, 3) == Tally(done=1, rows=2)
        run_inline(task, shards)
    run(task, engine)
    assert task.runs == [3, 0, 1, 2, 4]


def test_what_the_store_refuses_is_raised_to_stop_the_worker(task: CountingTask) -> None:
    task.failures = {3: [OutputRefused("full")]}
    with pytest.raises(OutputRefused):
        try_shard(task, 3)


def test_tallies_add_up() -> None:
    one = Tally(done=1, rows=5, dead_letters=2)
    assert one + Tally(failed=1) + Tally(skipped=2) == Tally(done=1, failed=1, skipped=2, rows=5,
                                                             dead_letters=2)


def test_the_bar_shows_shards_and_dead_letters(task: CountingTask, monkeypatch: pytest.MonkeyPatch,
                                               capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr("pipelines.progress.DELAY", 0)
    task.dead = ["1"]
    run(task)
    shown = capsys.readouterr().err
    assert "10/10" in shown and "5/5 shards, 1 dead letters" in shown and "images/s" in shown
