"""Several drivers of one corpus, full disks, sources that vanish or change, clocks that jump."""
import dataclasses
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from delta_corpora import photo, require_sound
from forked import Forked
from job_fakes import run_inline, tree

from pipelines.deltas import load_plans
from pipelines.encode import EncodeConfig, encode_corpus
from pipelines.engines import BeamEngine
from pipelines.job import JobFailed, ShardTask
from pipelines.plan import PlanMismatch
from pipelines.retry import retry_corpus
from tokenizer.tokens import TokenCorpus

Settings = Callable[..., EncodeConfig]
SCRIPT = Path(__file__).with_name("delta_tasks.py")
ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, SCRIPT.parent)))}
SECONDS_A_BATCH = 0.05
NUM_PHOTOS, BROKEN = 16, range(2, 14)


def command(what: str, corpus: Path | str, out: Path | str) -> list[str]:
    return [sys.executable, str(SCRIPT), what, str(corpus), str(out), str(SECONDS_A_BATCH)]


def start(what: str, corpus: Path, out: Path) -> Forked:
    return Forked(SCRIPT, what, corpus, out, SECONDS_A_BATCH)


def end_well(processes: Sequence[Forked]) -> None:
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors


def wait_for(found: Callable[[], int], least: int) -> None:
    deadline = time.monotonic() + 120
    while found() < least:
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def mended(config: Settings, tmp_path: Path, image_folder: Callable[[int], Path]) -> EncodeConfig:
    """A corpus of which twelve of sixteen photos were broken when it was encoded, and are no more.

    ``alone`` holds what one retry makes of it.
    """
    photos = image_folder(NUM_PHOTOS)
    make = config(shard_size=2)
    for index in BROKEN:
        (tmp_path / photo(make, index).name).write_bytes(photo(make, index).read_bytes())
        photo(make, index).write_bytes(b"no image")
    encode_corpus(make)
    for index in BROKEN:
        shutil.copy2(tmp_path / photo(make, index).name, photo(make, index))
    shutil.copytree(tmp_path / "tokens", tmp_path / "alone")
    assert retry_corpus(str(tmp_path / "alone"), make.tokenizers).manifest.num_rows == NUM_PHOTOS
    assert photos == Path(make.corpus)
    return make


def test_two_retries_at_once_are_one(mended: EncodeConfig, tmp_path: Path) -> None:
    end_well([start("retry", tmp_path / "photos", tmp_path / "tokens") for _ in range(2)])
    assert tree(tmp_path / "tokens") == tree(tmp_path / "alone")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_a_retry_that_is_killed_beside_another_loses_nothing(mended: EncodeConfig, tmp_path: Path,
                                                             seed: int) -> None:
    out, draw = tmp_path / "tokens", random.Random(seed)
    first, second = (start("retry", tmp_path / "photos", out) for _ in range(2))
    receipts = out / "_deltas/001/_receipts"
    wait_for(lambda: len(list(receipts.glob("*.json"))), draw.randint(1, 4))
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=60)
    end_well([second])
    end_well([start("retry", tmp_path / "photos", out)])
    assert tree(out) == tree(tmp_path / "alone")


@pytest.mark.slow
def test_two_extensions_at_once_are_one(mended: EncodeConfig, tmp_path: Path,
                                        image_folder: Callable[[int], Path]) -> None:
    retry_corpus(mended.output, mended.tokenizers)
    for index in range(30, 40):
        shutil.copy2(photo(mended, 1), photo(mended, index))
    encode_corpus(dataclasses.replace(mended, output=str(tmp_path / "alone"), extend=True))
    end_well([start("extend", tmp_path / "photos", tmp_path / "tokens") for _ in range(2)])
    assert tree(tmp_path / "tokens") == tree(tmp_path / "alone")
    require_sound(mended, NUM_PHOTOS + 10)


@pytest.mark.slow
def test_an_encode_and_a_retry_at_once_leave_a_sound_corpus(mended: EncodeConfig,
                                                            tmp_path: Path) -> None:
    for index in BROKEN:
        photo(mended, index).write_bytes(b"no image")
    both = dataclasses.replace(mended, output=str(tmp_path / "both"))
    encoder = start("encode", tmp_path / "photos", tmp_path / "both")
    wait_for(lambda: len(load_plans(both.output)), 1)
    end_well([encoder, start("retry", tmp_path / "photos", tmp_path / "both")])
    encode_corpus(both)
    assert require_sound(both, NUM_PHOTOS).num_dead_letters == len(BROKEN)
    assert [plan.delta for plan in load_plans(both.output)] == [0, 1]


def test_a_whole_job_beside_another_ends_in_the_same_files(mended: EncodeConfig,
                                                           tmp_path: Path) -> None:
    encode_corpus(dataclasses.replace(mended, output=str(tmp_path / "one")))
    end_well([start("encode", tmp_path / "photos", tmp_path / "two") for _ in range(2)])
    assert tree(tmp_path / "two") == tree(tmp_path / "one")


def has_private_mounts() -> bool:
    """Whether a process here may mount a file system that it alone sees."""
    if shutil.which("unshare") is None:
        return False
    done = subprocess.run(["unshare", "-rm", "sh", "-c", "mount -t tmpfs none /mnt"], check=False,
                          stderr=subprocess.DEVNULL)
    return done.returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not has_private_mounts(), reason="no private mounts on this machine")
@pytest.mark.parametrize("size", ["16k", "60k"])
def test_a_disk_that_is_really_full_ends_the_job_and_more_room_continues_it(
        mended: EncodeConfig, tmp_path: Path, size: str) -> None:
    encode_corpus(dataclasses.replace(mended, output=str(tmp_path / "roomy")))
    disk = tmp_path / "disk"
    disk.mkdir()
    run = " ".join(command("encode", tmp_path / "photos", disk / "tokens"))
    script = (f"mount -t tmpfs -o size={size} none {disk}; {run}; echo ended with $?; "
              f"find {disk} -name '.tmp-*'; mount -o remount,size=64m {disk}; {run} && "
              f"cp -r {disk}/tokens {tmp_path}/continued")
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script], env=ENVIRONMENT, text=True,
                          capture_output=True, check=False, timeout=300)
    assert done.stdout == "ended with 1\n", done.stderr  # and nothing unfinished was left
    assert "No space left on device" in done.stderr and "Traceback" not in done.stderr
    assert tree(tmp_path / "continued") == tree(tmp_path / "roomy")


def before_the_work(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]) -> None:
    """Something happens to the corpus between its plan and the first shard."""
    def run(engine: BeamEngine, task: ShardTask, shards: Sequence[int]) -> None:
        change()
        run_inline(task, shards)
    monkeypatch.setattr(BeamEngine, "__call__", run)


def test_a_file_that_vanishes_after_the_plan_is_a_dead_letter_until_it_is_back(
        config: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = config()
    shutil.copy2(photo(make, 5), tmp_path)
    with monkeypatch.context() as patch:
        before_the_work(patch, lambda: photo(make, 5).unlink(missing_ok=True))
        assert encode_corpus(make).dead_letters == {"FileNotFoundError": 1}
    with pytest.raises(PlanMismatch, match="the input 'img-005' is gone"):
        encode_corpus(make)
    shutil.copy2(tmp_path / photo(make, 5).name, photo(make, 5))
    assert retry_corpus(make.output, make.tokenizers).manifest.num_dead_letters == 0
    require_sound(make, 10)


def test_a_source_that_vanishes_after_the_plan_fails_its_shards_until_it_is_back(
        config: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = config()
    encode_corpus(dataclasses.replace(make, output=str(tmp_path / "undisturbed")))
    away = tmp_path / "away"

    def vanish() -> None:
        if not away.exists():
            Path(make.corpus).rename(away)
    with monkeypatch.context() as patch:
        before_the_work(patch, vanish)
        with pytest.raises(JobFailed, match="3 of 3 shards .* none of 4 files is there any more"):
            encode_corpus(make)
    away.rename(make.corpus)
    encode_corpus(make)
    assert tree(tmp_path / "tokens") == tree(tmp_path / "undisturbed")


def test_a_file_that_changes_after_the_plan_is_named_by_the_next_command(
        config: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    make = config()
    with monkeypatch.context() as patch:
        before_the_work(patch, lambda: shutil.copy(photo(make, 4), photo(make, 5)))
        assert encode_corpus(make).num_dead_letters == 0  # it is encoded as it is when it is read
    for config_again in (make, dataclasses.replace(make, extend=True)):
        with pytest.raises(PlanMismatch, match=r"img-005\.png was .* bytes"):
            encode_corpus(config_again)


def test_clocks_that_jump_change_nothing(config: Settings, tmp_path: Path,
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    make = config(shard_size=2)
    encode_corpus(dataclasses.replace(make, output=str(tmp_path / "undisturbed")))
    jumps, now = itertools.cycle((0.0, 9e6, -9e6, 3e5, -4e9)), time.time()
    monkeypatch.setattr(time, "time", lambda: now + next(jumps))
    with monkeypatch.context() as patch:
        patch.setattr(BeamEngine, "__call__",
                      lambda engine, task, shards: run_inline(task, shards[:1]))
        with pytest.raises(JobFailed, match="2 of 5 shards could not be made"):
            encode_corpus(make)  # three attempts, of one shard each
    encode_corpus(make)
    encode_corpus(make)
    assert tree(tmp_path / "tokens") == tree(tmp_path / "undisturbed")
    assert TokenCorpus.open(make.output).manifest.num_rows == 10
