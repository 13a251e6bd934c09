"""What planning, resuming and auditing cost for a corpus of very many images.

    python benchmarks/plan_scale.py [--num-keys 10000000] [--num-shards 10000] [--receipts 5000]

Nothing is encoded. Simulated are the listing, which draws keys from a counter, and the shards,
whose rows are those of the plan with codes drawn anew, 2 x 2 a row. Plan, receipts, driver, audit
and manifest are the program's own, on the disk that holds ``--folder``. Each phase is a process:

    imports   nothing but loading the modules, for comparison
    plan      list every key once and write the plan
    resume    a job with so many receipts, up to the moment its first shard would be made: list
              again, compare with the plan, read the receipts
    audit     check every shard against its receipt and keys, write manifest and ``_SUCCESS``
    again     the same command on the finished corpus up to its audit: list, compare, receipts
    open      what every reader begins with: the manifest

Printed are wall time, processor time and peak memory (``ru_maxrss``) of each, as one JSON object.
"""
import argparse
import contextlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.encode import PLAN_SCHEMA, EncodeTask, row_of
from pipelines.job import Job, ShardTask
from pipelines.plan import Plan, fixed_size_shards, load_plan, make_plan
from tokenizer import configs, storage, tokens
from tokenizer.corpus.sources import Entry, open_source
from tokenizer.receipts import Receipt
from tokenizer.schema import GEOMETRY, CodeSpec, TokenSpec, rows_table

SPEC = TokenSpec(codes=(CodeSpec(modality="image", grid=(2, 2), codebook_size=1024,
                                 image_size=(32, 32), tokenizer="sha256:" + "0" * 64),))

KEYS_OF_A_FOLDER = 1000


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large the simulated corpus is; ``receipts`` shards are done when the job resumes."""
    url: str
    num_keys: int
    num_shards: int
    receipts: int

    def __post_init__(self) -> None:
        if self.num_keys % self.num_shards or not 0 < self.receipts < self.num_shards:
            raise ValueError(f"--num-keys must be a multiple of --num-shards, and --receipts fewer "
                             f"than these, got {self.num_keys}, {self.num_shards} and "
                             f"{self.receipts}")

    def plan(self) -> Plan:
        """List every key, and write the plan or compare it with the one that stands."""
        size = self.num_keys // self.num_shards

        def shards() -> Iterator[pa.Table]:
            return fixed_size_shards(map(row_of, entries(self.num_keys)), PLAN_SCHEMA, size)
        settings = {"codes": configs.to_dict(SPEC)["codes"], "shard_size": size, "classes": []}
        return make_plan(self.url, "encode", settings, shards)

    def planned(self) -> Plan:
        """The plan that stands."""
        plan = load_plan(self.url)
        if plan is None:
            raise FileNotFoundError(f"{self.url} holds no plan")
        return plan


class Begun(Exception):
    """A job has come to its first shard, or to its audit."""


class DrawnTask(ShardTask):
    """Makes shards of drawn codes."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    @property
    def url(self) -> str:
        return self._plan.url

    def prepare(self) -> None:
        pass

    def run(self, shard: int) -> Receipt:
        keys = self._plan.keys(shard)
        codes = np.random.default_rng(shard).integers(0, 1024, (len(keys), 2, 2), np.uint16)
        zeros = np.zeros(len(keys), np.int32)
        columns: dict[str, Any] = {"key": keys, "source": keys, "flipped": zeros.astype(bool),
                                   **dict.fromkeys(GEOMETRY, zeros)}
        rows = rows_table(SPEC, {"image": codes}, columns)
        return tokens.commit_shard(self.url, shard, self._plan.num_shards, self._plan.fingerprint,
                                   rows)


def entries(num_keys: int) -> Iterator[Entry]:
    """The simulated listing, in the order of the keys."""
    for number in range(num_keys):
        key = f"{number // KEYS_OF_A_FOLDER:07d}/{number:010d}"
        yield Entry(key=key, sources={"image": f"s3://bucket/images/{key}.jpg"},
                    stamps={"image": f"12345 bytes, {number:032x}"})


def begin_job(scale: Scale) -> dict[str, int]:
    """Run the driver until it would make a shard or audit."""
    found: dict[str, int] = {}
    plan = scale.plan()

    def engine(task: ShardTask, shards: Sequence[int]) -> None:
        found["pending"] = len(shards)
        raise Begun

    def finish(receipts: Sequence[Receipt]) -> None:
        found["receipts"] = len(receipts)
        raise Begun
    with contextlib.suppress(Begun):
        Job(plan, DrawnTask(plan), engine).run(finish)
    return found


def fill(scale: Scale, shards: range) -> dict[str, int]:
    """Make some shards, one after the other."""
    task = DrawnTask(scale.planned())
    for shard in shards:
        task.run(shard)
    return {"shards": len(shards)}


def audit(scale: Scale) -> dict[str, int]:
    """Read the receipts, then check and complete the corpus as the encode job does."""
    plan = scale.planned()
    task = EncodeTask(plan=plan, source=open_source(plan.url), spec=SPEC, tokenizers={},
                      batch_size=1, num_threads=1)  # the audit reads neither images nor tokenizers
    receipts = tokens.read_receipts(plan.url, plan.fingerprint)
    manifest = task.complete(list(receipts.values()))
    return {"rows": manifest.num_rows,
            "manifest_bytes": storage.size(storage.join(plan.url, tokens.MANIFEST)) or 0}


def plan_sizes(scale: Scale) -> dict[str, int]:
    """Write the plan; how large it is."""
    plan = scale.plan()
    files = storage.list_files(storage.join(plan.url, tokens.PLAN))
    return {"keys": plan.num_inputs, "files": len(files), "bytes": sum(files.values())}


PHASES: dict[str, Callable[[Scale], dict[str, int]]] = {
    "imports": lambda scale: {},
    "plan": plan_sizes,
    "first shards": lambda scale: fill(scale, range(scale.receipts)),
    "resume": begin_job,
    "other shards": lambda scale: fill(scale, range(scale.receipts, scale.num_shards)),
    "audit": audit,
    "again": begin_job,
    "open": lambda scale: {"shards": tokens.TokenCorpus.open(scale.url).num_shards},
}
"""Every phase by name, in order; those that make shards prepare the next and are no measurement."""


def run_phase(name: str, scale: Scale) -> dict[str, Any]:
    """One phase in this process: what it found, seconds, and peak memory in MiB."""
    began = time.perf_counter()
    found = PHASES[name](scale)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {**found, "seconds": round(time.perf_counter() - began, 3),
            "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 3),
            "peak_mib": round(usage.ru_maxrss / 1024, 1)}


def measure(scale: Scale) -> dict[str, dict[str, Any]]:
    """Every phase, each in a process of its own."""
    figures: dict[str, dict[str, Any]] = {}
    for name in PHASES:
        done = subprocess.run(
            [sys.executable, __file__, "--folder", scale.url, "--num-keys", str(scale.num_keys),
             "--num-shards", str(scale.num_shards), "--receipts", str(scale.receipts),
             "--phase", name], check=True, stdout=subprocess.PIPE, text=True)
        figures[name] = json.loads(done.stdout)
        print(f"{name}: {done.stdout.strip()}", file=sys.stderr, flush=True)
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--num-keys", type=int, default=10_000_000)
    parser.add_argument("--num-shards", type=int, default=10_000)
    parser.add_argument("--receipts", type=int, default=5000, help="of the job that resumes")
    parser.add_argument("--folder", help="an empty folder, which is kept; else a temporary one")
    parser.add_argument("--phase", choices=PHASES, help="this one alone, in this process")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        scale = Scale(url=options.folder or folder, num_keys=options.num_keys,
                      num_shards=options.num_shards, receipts=options.receipts)
        figures = run_phase(options.phase, scale) if options.phase else measure(scale)
    print(json.dumps(figures, indent=None if options.phase else 1))


if __name__ == "__main__":
    main()
