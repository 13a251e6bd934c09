"""Bars and remarks go on when nobody reads standard error any more."""
import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tokenizer.bars import progress_bar, remark


class Gone(io.StringIO):
    """A pipe whose reader has ended."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")

    def flush(self) -> None:
        raise BrokenPipeError(32, "Broken pipe")


def test_bars_are_written_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar(total=2, unit=" rows", mininterval=0) as bar:
        bar.update(2)
        remark("half of them are cats")
    written = capsys.readouterr().err
    assert "2/2" in written and "half of them are cats\n" in written


def test_in_a_log_each_state_of_a_bar_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar(total=3, unit=" rows", mininterval=0) as bar:
        bar.update(2)
        remark("half of them are cats")
        bar.update(1)
    written = capsys.readouterr().err
    assert "\r" not in written and written.endswith("]\n") and "\n\n" not in written
    heads = [line.partition("[")[0].strip() for line in written.splitlines()]
    assert list(dict.fromkeys(heads)) == [
        "0%|          | 0/3", "67%|######6   | 2/3", "half of them are cats",
        "100%|##########| 3/3"]


def test_a_log_gets_few_lines(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in progress_bar(range(1000), unit=" rows"):
        pass
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_a_terminal_gets_what_tqdm_writes(monkeypatch: pytest.MonkeyPatch,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    for _ in progress_bar(range(3), mininterval=0):
        pass
    written = capsys.readouterr().err
    assert written.count("\r") > 3 and written.count("\n") == 1


def test_a_bar_that_nobody_reads_stops_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Gone())
    bar = progress_bar(total=4, mininterval=0)

    def work() -> None:
        bar.update(1)
        remark("unseen")
        bar.refresh()
    for _ in range(2):  # tqdm would keep its lock in the first, and stop the second for ever
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(30)
        assert not thread.is_alive()
    bar.close()
    assert bar.n == 2


def test_a_closed_standard_error_is_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    remark("unseen")


def test_a_process_whose_terminal_is_gone_ends_well(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    program = ("import pathlib, sys, time\n"
               "from tokenizer.bars import progress_bar\n"
               "with progress_bar(total=20, mininterval=0) as bar:\n"
               "    for _ in range(20):\n"
               "        bar.update(1)\n"
               "pathlib.Path(sys.argv[1]).write_text('done')\n")
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "out")],
                               stderr=writer)
    os.close(reader)
    os.close(writer)
    process.wait(120)
    assert (tmp_path / "out").read_text() == "done"
