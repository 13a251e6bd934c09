"""Encode jobs killed with SIGKILL at random moments and run again: are the files the same?

    python tests/faults.py [--runs 30] [--seed 0]

Each run starts ``img2tokens encode`` as a process, kills what its kind says once a drawn number of
shards is done, gives the same command again, and compares every byte below the output folder with
an undisturbed run: a file too many is as wrong as one that differs. One Dask cluster on loopback
serves all runs; its workers are replaced when they are killed. Ends with 1 when a run differs.
"""
import argparse
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path += [str(ROOT), str(ROOT / "tests/cli")]

from clusters import DaskCluster, dask_cluster  # noqa: E402
from forked import Forked  # noqa: E402
from PIL import Image  # noqa: E402
from random_tokenizers import encode, save_tokenizer, tree  # noqa: E402

NUM_SHARDS = 40
SHAPES = ((48, 40), (60, 30), (31, 62))
"""Widths and heights of the images."""

FEWEST_LEFT = 12
"""Shards that are still to be made when something is killed, at least."""

SECONDS = 300
"""How long a job, or the end of its last writes, may take on a busy machine."""


@dataclass(frozen=True)
class Kind:
    """What is killed on which engine.

    Attributes:
        engine: ``local`` or ``dask``.
        num_workers: processes of the local engine.
        victim: ``driver`` alone, one ``worker`` alone, or ``all`` of them.
        buckets: what ``--buckets`` is given, if anything.
    """
    engine: str
    num_workers: int
    victim: str
    buckets: str = ""

    def __str__(self) -> str:
        where = f"local, {self.num_workers}" if self.engine == "local" else "Dask, 2"
        return f"{where}{', buckets' * bool(self.buckets)} | {self.victim}"


BUCKETS = "16x32,24x24,32x16"


KINDS = (Kind("local", 1, "driver"), Kind("dask", 1, "driver"), Kind("local", 2, "worker"),
         Kind("dask", 1, "worker"), Kind("local", 2, "all"), Kind("dask", 1, "all"),
         Kind("local", 2, "driver"), Kind("local", 1, "driver", BUCKETS),
         Kind("local", 2, "worker", BUCKETS), Kind("dask", 1, "all", BUCKETS))


@dataclass(frozen=True)
class Moment:
    """When to kill: so many seconds after so many shards were done."""
    num_done: int
    seconds: float

    @classmethod
    def drawn(cls, numbers: random.Random) -> "Moment":
        """Any moment from the beginning of the plan until only `FEWEST_LEFT` shards are left."""
        return cls(numbers.randint(0, NUM_SHARDS - FEWEST_LEFT), numbers.uniform(0, 0.05))


@dataclass(frozen=True)
class Outcome:
    """What came of one run: shards done when it was killed, and what was wrong, if anything."""
    num_done: int
    wrong: str


class Scene:
    """Forty images of three shapes, one of them broken, and a tokenizer."""

    def __init__(self, folder: Path, cluster: DaskCluster | None = None) -> None:
        self.folder, self.cluster = folder, cluster
        photos = folder / "photos"
        photos.mkdir()
        for index in range(NUM_SHARDS):
            slope = Image.linear_gradient("L").rotate(9 * index).resize(SHAPES[index % 3])
            slope.convert("RGB").save(photos / f"{index:03d}.png")
        (photos / "007.png").write_bytes(b"no image")
        tokenizer = save_tokenizer(folder / "tok")
        self._options = ("--tokenizer", f"image={tokenizer}", "--shard-size", 1)
        self._known: dict[str, dict[str, bytes]] = {}

    def expected(self, buckets: str) -> dict[str, bytes]:
        """What an undisturbed run makes of the images, run once."""
        if buckets not in self._known:
            out = self.folder / f"undisturbed-{buckets}"
            done = encode(*self.arguments(out, Kind("local", 1, "none", buckets)))
            assert done.exit_code == 0, done.output
            self._known[buckets] = tree(out)
        return self._known[buckets]

    def arguments(self, out: Path, kind: Kind) -> list[str]:
        """What `encode` is given."""
        asked = (("--num-workers", kind.num_workers) if kind.engine == "local" else
                 ("--engine", self.cluster.engine if self.cluster else ""))
        buckets = ("--buckets", kind.buckets) if kind.buckets else ()
        return [*map(str, (self.folder / "photos", out, *self._options, *asked, *buckets))]

    def run(self, kind: Kind, numbers: random.Random) -> Outcome:
        """Kill a job and run it again; moments by which it had ended already do not count."""
        out = self.folder / "killed"
        for _ in range(20):
            shutil.rmtree(out, ignore_errors=True)
            outcome = self._kill(out, kind, Moment.drawn(numbers))
            if outcome is not None:
                wrong = outcome.wrong or self._wrong_after_resuming(out, kind)
                return Outcome(outcome.num_done, wrong)
        raise TimeoutError(f"{kind}: every job was faster than what was to kill it")

    def _kill(self, out: Path, kind: Kind, moment: Moment) -> Outcome | None:
        """Start a job and kill its victims; nothing where it had ended by then.

        A driver that loses a worker must end well by itself.
        """
        workers = self.cluster.workers() if self.cluster and kind.engine == "dask" else []
        driver = Forked("cli", "encode", *self.arguments(out, kind))
        while not out.exists() or num_receipts(out) < moment.num_done:
            if driver.poll() is not None:
                return None
            time.sleep(0.002)
        time.sleep(moment.seconds)
        num_done, workers = num_receipts(out), workers or list(children(driver.pid))
        victims = {"driver": [driver.pid], "worker": workers[:1],
                   "all": [*workers, driver.pid]}[kind.victim]
        if not victims or driver.poll() is not None or num_done == NUM_SHARDS:
            driver.wait(SECONDS)
            return None
        for victim in victims:
            with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
                os.kill(victim, signal.SIGKILL)
        code = driver.wait(SECONDS)
        return Outcome(num_done, f"the driver ended with {code}"
                       if kind.victim == "worker" and code else "")

    def _wrong_after_resuming(self, out: Path, kind: Kind) -> str:
        """Give the command again, and compare; what lives on of the first job may end its write."""
        expected = self.expected(kind.buckets)
        done = encode(*self.arguments(out, kind))
        if done.exit_code:
            return done.output.strip().splitlines()[-1]
        deadline = time.monotonic() + (SECONDS if kind.engine == "dask" else 0)
        while (found := tree(out)) != expected and time.monotonic() < deadline:
            time.sleep(0.1)
        differing = [name for name in sorted(found.keys() | expected.keys())
                     if found.get(name) != expected.get(name)]
        return f"{len(differing)} files differ, such as {differing[0]}" if differing else ""


def num_receipts(out: Path) -> int:
    """How many shards of a job are done."""
    return sum(path.suffix == ".json" for path in out.glob("_receipts/[0-9]*"))


def children(process: int) -> Iterator[int]:
    """Numbers of the processes that a process has started and not waited for, on Linux."""
    for thread in Path(f"/proc/{process}/task").glob("*/children"):
        yield from map(int, thread.read_text().split())


def report(outcomes: Sequence[tuple[Kind, Outcome, float]]) -> str:
    """A table with one line for each kind."""
    lines = ["| engine, workers | killed | runs | shards done by then | same bytes | seconds |",
             "|---|---|---|---|---|---|"]
    for kind in dict.fromkeys(kind for kind, _, _ in outcomes):
        runs = [(outcome, seconds) for other, outcome, seconds in outcomes if other == kind]
        done = sorted(outcome.num_done for outcome, _ in runs)
        same = sum(not outcome.wrong for outcome, _ in runs)
        mean = sum(seconds for _, seconds in runs) / len(runs)
        lines.append(f"| {kind} | {len(runs)} | {done[0]} to {done[-1]} of {NUM_SHARDS} | "
                     f"{same} of {len(runs)} | {mean:.1f} |")
    return "\n".join(lines)


def main() -> None:
    """Run, print a table, and end with 1 where anything differs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    outcomes = []
    with (tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
          dask_cluster(Path(folder)) as cluster):
        scene, numbers = Scene(Path(folder), cluster), random.Random(options.seed)
        for number in range(options.runs):
            kind, began = KINDS[number % len(KINDS)], time.monotonic()
            outcome = scene.run(kind, numbers)
            outcomes.append((kind, outcome, time.monotonic() - began))
            print(f"{number + 1} of {options.runs}: {kind}: after {outcome.num_done} shards: "
                  f"{outcome.wrong or 'the same bytes'}", file=sys.stderr, flush=True)
    print(report(outcomes))
    num_same = sum(not outcome.wrong for _, outcome, _ in outcomes)
    print(f"\n{num_same} of {len(outcomes)} runs ended in the files of an undisturbed run "
          f"(seed {options.seed}).")
    sys.exit(num_same != len(outcomes))


if __name__ == "__main__":
    main()
