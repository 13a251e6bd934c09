"""Records of a job for programs: JSON lines, and a text file for Prometheus.

    {"event": "start", ...}      one line when the command begins
    {"event": "job", ...}        one for each plan that it works on
    {"event": "progress", ...}   whenever shards were finished, at most one a second
    {"event": "end", ...}        one at the end: done, failed or stopped

Everything is read from receipts, so it is the same whatever runs the shards. Intervals are
measured with a clock that nobody sets; only ``time``, in seconds since 1970, is that of the
machine. Once the work has begun, a record that cannot be written is left out: it must not cost the
job.
"""
import contextlib
import json
import time
from collections import Counter
from collections.abc import Collection
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from tokenizer import storage
from tokenizer.bars import remark
from tokenizer.receipts import Receipt
from tokenizer.stores import is_local

SECONDS_BETWEEN_RECORDS = 1.0

SECONDS_WORTH_TELLING = 0.5
"""What ends sooner needs no summary."""

AS_ESCAPES = "backslashreplace"
"""What becomes of bytes in paths that are no UTF-8."""

PREFIX = "img2tokens"

METRICS = {
    "shards": "Shards of the plan that this command works on.",
    "shards_done": "Shards of it that are finished.",
    "inputs": "Inputs of the plan, images or crops.",
    "inputs_done": "Inputs in finished shards.",
    "rows": "Rows in finished shards.",
    "dead_letters": "Inputs that failed, by error class.",
    "inputs_per_second": "Inputs finished a second since this command began.",
    "running": "1 while the command runs, 0 when it has ended.",
    "updated_timestamp_seconds": "When this file was written.",
}
"""Gauges by name, without the prefix, and what they say."""


@dataclass(kw_only=True)
class State:
    """How far the work on one plan is.

    Attributes:
        url: folder of the job; ``unit`` what an input is called, in the plural.
        shards: of the part of the plan that this process sees to; ``inputs`` likewise.
        shards_done: of these, whoever finished them; ``inputs_done`` and ``rows`` are theirs.
        dead_letters: inputs that failed, by error class.
        inputs_before: ``inputs_done`` when this process began.
        began: when that was, by `time.monotonic`.
    """
    url: str
    unit: str
    shards: int
    inputs: int
    began: float
    shards_done: int = 0
    inputs_done: int = 0
    inputs_before: int | None = None
    rows: int = 0
    dead_letters: Counter[str] = field(default_factory=Counter)

    def update(self, receipts: Collection[Receipt]) -> bool:
        """Take over what these receipts say; returns whether that is new."""
        before = (self.shards_done, self.inputs_before)
        self.shards_done = len(receipts)
        self.inputs_done = sum(receipt.num_inputs for receipt in receipts)
        self.rows = sum(receipt.entry.rows for receipt in receipts)
        self.dead_letters = Counter()
        for receipt in receipts:
            self.dead_letters.update(receipt.dead_letters)
        if self.inputs_before is None:
            self.inputs_before = self.inputs_done
        return before != (self.shards_done, self.inputs_before)

    @property
    def made(self) -> int:
        """Inputs that were finished since this process began."""
        return self.inputs_done - (self.inputs_before or 0)

    def values(self, now: float) -> dict[str, Any]:
        """The state as JSON values; rate and time left are null while nothing tells them."""
        rate = self.made / (now - self.began) if now > self.began else 0.0
        left = (self.inputs - self.inputs_done) / rate if rate else None
        return {"url": self.url, "unit": self.unit, "shards": self.shards,
                "shards_done": self.shards_done, "inputs": self.inputs,
                "inputs_done": self.inputs_done, "rows": self.rows,
                "dead_letters": dict(sorted(self.dead_letters.items())),
                "inputs_per_second": round(rate, 3) if rate else None,
                "seconds_left": None if left is None else round(left, 1)}


class Records:
    """What one command tells about its jobs; while the block runs, `current` gives it to them.

    Args:
        log_json: file of this machine to which JSON lines are appended; empty for none.
        prometheus: file that is replaced, as a whole, whenever there is news; empty for none.
    Raises:
        OSError: a file cannot be written.
        ValueError: ``log_json`` is a URL, to which nothing can be appended.
    """

    def __init__(self, log_json: str | None = None, prometheus: str | None = None) -> None:
        if log_json and not is_local(log_json):
            raise ValueError(f"--log-json {log_json}: lines are appended to a file of this "
                             "machine; give a path")
        self._log_json, self._prometheus = log_json, prometheus
        self._began = time.monotonic()
        self._written = float("-inf")
        self._state: State | None = None
        self._made: Counter[str] = Counter()
        self._append("start")
        self._replace(1)

    def __enter__(self) -> "Records":
        self._token = _CURRENT.set(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        _CURRENT.reset(self._token)
        self._leave_plan()
        seconds = time.monotonic() - self._began
        outcome = ("done" if error is None else
                   "failed" if isinstance(error, Exception) else "stopped")
        said = None if error is None else " ".join(str(error).split()) or type(error).__name__
        with contextlib.suppress(OSError):
            self._append("end", outcome=outcome, error=said, seconds=round(seconds, 3))
        with contextlib.suppress(OSError):
            self._replace(0)
        if error is None and seconds > SECONDS_WORTH_TELLING and self._made:
            made = " and ".join(f"{number} {unit if number != 1 else unit.removesuffix('s')}"
                                for unit, number in sorted(self._made.items()))
            rate = self._made.total() / seconds
            remark(f"this run: {made} in {seconds:.1f} s, {rate:.1f} a second")

    def begin(self, url: str, unit: str, num_shards: int, num_inputs: int) -> None:
        """The work on one plan begins, or is taken up again."""
        self._leave_plan()
        self._state = State(url=url, unit=unit, shards=num_shards, inputs=num_inputs,
                            began=time.monotonic())

    def show(self, receipts: Collection[Receipt], at_once: bool = False) -> None:
        """Record what these receipts account for, where it is news and the last was not just now.

        Args:
            at_once: do not wait.
        """
        if self._state is None:
            return
        now, is_first = time.monotonic(), self._state.inputs_before is None
        if not (is_first or at_once) and now - self._written < SECONDS_BETWEEN_RECORDS:
            return
        if self._state.update(receipts):
            self._written = now
            with contextlib.suppress(OSError):
                self._append("job" if is_first else "progress", **self._state.values(now))
            with contextlib.suppress(OSError):
                self._replace(1)

    def _leave_plan(self) -> None:
        if self._state is not None and self._state.made:
            self._made[self._state.unit] += self._state.made

    def _append(self, event: str, **values: Any) -> None:
        if self._log_json:
            line = json.dumps({"event": event, "time": round(time.time(), 3), **values},
                              ensure_ascii=False)
            with open(self._log_json, "a", encoding="utf-8", errors=AS_ESCAPES) as file:
                file.write(f"{line}\n")

    def _replace(self, running: int) -> None:
        if self._prometheus:
            values: dict[str, Any] = {"running": running,
                                      "updated_timestamp_seconds": round(time.time(), 3)}
            if self._state is not None:
                values = {**self._state.values(time.monotonic()), **values}
            storage.write_bytes(self._prometheus, exposition(values).encode())


_CURRENT: ContextVar[Records | None] = ContextVar("records", default=None)


def current() -> Records | None:
    """The records that are kept now, if any."""
    return _CURRENT.get()


def exposition(values: dict[str, Any]) -> str:
    """A state in Prometheus's text format, as node_exporter's textfile collector reads it.

    Source: https://prometheus.io/docs/instrumenting/exposition_formats/
    """
    labels: dict[str, str] = {name: str(values[name]) for name in values
                              if name in ("url", "unit")}
    lines = []
    for name, meaning in METRICS.items():
        if values.get(name) is None:
            continue
        full = f"{PREFIX}_{name}"
        lines += [f"# HELP {full} {meaning}", f"# TYPE {full} gauge"]
        if isinstance(values[name], dict):
            lines += [f"{full}{_braced({**labels, 'error': error})} {number}"
                      for error, number in values[name].items()]
        else:
            lines.append(f"{full}{_braced(labels)} {values[name]}")
    return "\n".join(lines) + "\n"


def _braced(labels: dict[str, str]) -> str:
    def escaped(text: str) -> str:
        text = text.encode("utf-8", AS_ESCAPES).decode()
        return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    inner = ",".join(f'{name}="{escaped(value)}"' for name, value in labels.items())
    return f"{{{inner}}}" if inner else ""
