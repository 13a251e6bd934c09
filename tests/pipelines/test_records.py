"""Records of jobs: JSON lines and Prometheus's text format, from receipts alone."""
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines import records
from pipelines.encode import EncodeConfig, encode_corpus
from pipelines.records import Records, exposition
from tokenizer.receipts import Receipt
from tokenizer.schema import ShardEntry

Settings = Callable[..., EncodeConfig]


class Clock(SimpleNamespace):
    """A clock of the machine that somebody sets, and one that nobody can."""

    def __init__(self) -> None:
        super().__init__(now=1_000_000.0, set_by=0.0)

    def monotonic(self) -> float:
        return float(self.now)

    def time(self) -> float:
        return float(self.now + self.set_by)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(records, "time", clock)
    return clock


def receipt(shard: int, rows: int, **dead: int) -> Receipt:
    entry = ShardEntry(name="", rows=rows, bytes=0, sha256="")
    return Receipt(shard=shard, fingerprint="", entry=entry, dead_letters=dead)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lines_tell_start_job_progress_and_end(tmp_path: Path, clock: Clock) -> None:
    log = tmp_path / "log.jsonl"
    with Records(str(log)) as kept:
        assert records.current() is kept
        kept.begin("tokens", "images", 4, 20)
        kept.show([receipt(0, 5)])
        clock.now += 4
        kept.show([receipt(0, 5), receipt(1, 3, Broken=2)])
        kept.show([receipt(0, 5), receipt(1, 3, Broken=2), receipt(2, 5)])  # too soon
        clock.now += 1
        kept.show([receipt(0, 5), receipt(1, 3, Broken=2), receipt(2, 5)])
        clock.now += 60
        kept.show([receipt(0, 5), receipt(1, 3, Broken=2), receipt(2, 5)])  # nothing new
    assert records.current() is None
    start, job, *progress, end = lines(log)
    assert (start["event"], start["time"]) == ("start", 1_000_000)
    assert job == {"event": "job", "time": 1_000_000, "url": "tokens", "unit": "images",
                   "shards": 4, "shards_done": 1, "inputs": 20, "inputs_done": 5, "rows": 5,
                   "dead_letters": {}, "inputs_per_second": None, "seconds_left": None}
    assert [item["event"] for item in progress] == ["progress", "progress"]
    assert progress[0]["dead_letters"] == {"Broken": 2} and progress[0]["rows"] == 8
    assert progress[0]["inputs_per_second"] == 1.25 and progress[0]["seconds_left"] == 8
    assert progress[1]["inputs_done"] == 15 and progress[1]["inputs_per_second"] == 2
    assert end == {"event": "end", "time": 1_000_065, "outcome": "done", "error": None,
                   "seconds": 65}


def test_a_clock_that_is_set_changes_no_rate(tmp_path: Path, clock: Clock) -> None:
    with Records(str(tmp_path / "log")) as kept:
        kept.begin("tokens", "images", 2, 10)
        kept.show([])
        clock.now, clock.set_by = clock.now + 5, -86_400.0
        kept.show([receipt(0, 5)])
    progress, end = lines(tmp_path / "log")[-2:]
    assert progress["inputs_per_second"] == 1 and progress["seconds_left"] == 5
    assert end["seconds"] == 5 and end["time"] == 1_000_005 - 86_400


@pytest.mark.parametrize(("error", "outcome", "words"), [
    (OSError("the store\nis down"), "failed", "the store is down"),
    (KeyboardInterrupt(), "stopped", "KeyboardInterrupt"), (KeyError("bug"), "failed", "'bug'")])
def test_the_end_says_how_it_was(tmp_path: Path, error: BaseException, outcome: str,
                                 words: str) -> None:
    with pytest.raises(type(error)), Records(str(tmp_path / "log")):
        raise error
    end = lines(tmp_path / "log")[-1]
    assert (end["outcome"], end["error"]) == (outcome, words)


def test_prometheus_text_is_whole_at_any_time(tmp_path: Path, clock: Clock) -> None:
    file = tmp_path / "job.prom"
    with Records(prometheus=str(file)) as kept:
        assert "img2tokens_running 1\n" in file.read_text()
        kept.begin('a "b"\\c', "images", 2, 10)
        kept.show([receipt(0, 3, Broken=1, Missing=1)])
        text = file.read_text()
    labels = r'{url="a \"b\"\\c",unit="images"'
    assert f"# TYPE img2tokens_rows gauge\nimg2tokens_rows{labels}}} 3\n" in text
    assert f'img2tokens_dead_letters{labels},error="Missing"}} 1\n' in text
    assert f"img2tokens_running{labels}}} 1\n" in text
    assert f"img2tokens_running{labels}}} 0\n" in file.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["job.prom"]
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names))


def test_what_is_not_known_is_left_out_of_prometheus_text() -> None:
    assert exposition({"shards": 3, "inputs_per_second": None}) == (
        "# HELP img2tokens_shards Shards of the plan that this command works on.\n"
        "# TYPE img2tokens_shards gauge\nimg2tokens_shards 3\n")


def test_files_that_cannot_be_written_are_refused_before_the_work_and_left_out_later(
        tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Records(str(tmp_path / "nowhere/log"))
    with pytest.raises(ValueError, match="--log-json s3://a/log: lines are appended"):
        Records("s3://a/log")
    folder = tmp_path / "logs"
    folder.mkdir()
    with Records(str(folder / "log")) as kept:
        (folder / "log").unlink()
        folder.rmdir()
        kept.begin("tokens", "images", 1, 1)
        kept.show([receipt(0, 1)])


def test_paths_that_are_no_utf8_are_told_as_escapes(tmp_path: Path) -> None:
    with (pytest.raises(ValueError, match="of a file"),
          Records(str(tmp_path / "log"), str(tmp_path / "job.prom")) as kept):
        kept.begin("tokens-\udcff", "images", 1, 1)
        kept.show([receipt(0, 1)])
        raise ValueError("of a file named \udcfe")
    assert lines(tmp_path / "log")[-1]["error"] == "of a file named \udcfe"
    assert r'url="tokens-\\udcff"' in (tmp_path / "job.prom").read_text()


def test_jobs_are_recorded_by_their_receipts(config: Settings, tmp_path: Path) -> None:
    make = config()
    (tmp_path / "photos/img-005.png").write_bytes(b"no image")
    for run in range(2):
        with Records(str(tmp_path / "log"), str(tmp_path / "job.prom")):
            encode_corpus(make)
        told = [item for item in lines(tmp_path / "log") if "shards" in item][-1]
        assert (told["shards_done"], told["inputs_done"], told["rows"]) == (3, 10, 9)
        assert told["dead_letters"] == {"UnreadableImage": 1}
        assert told["event"] == ("progress", "job")[run]  # the second run finds all of it done
    assert 'error="UnreadableImage"} 1' in (tmp_path / "job.prom").read_text()
