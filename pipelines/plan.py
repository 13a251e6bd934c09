"""The plan of a job: every input and its shard, written before any work and never changed.

    _plan/inputs-00000.parquet   one row group for each of 1000 shards, one row for each input
    _plan/plan.json              job, settings, fingerprint, sums; without it there is no plan

A worker reads the row group of its shard and nothing else. There are several files because their
footers, which writers and readers hold in memory, grow with the number of row groups.

Several processes may make the same plan at once. On a disk the first whole plan stays, and the
others are compared with it; on an object store each writes the same bytes.

The fingerprint is a hash over the settings, which hold everything that decides the job's output,
the listing of its inputs included. A job goes on only under the fingerprint it started with; so
does one of an early version, where settings and columns that came later are at their defaults.
"""
import dataclasses
import hashlib
import itertools
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.differences import completed, differences, short
from tokenizer import configs, deltas, storage, tokens
from tokenizer.stores import StoredFile, is_local

FORMAT = "img2tokens.plan"
FORMAT_VERSION = 1
PLAN_JSON = f"{tokens.PLAN}/plan.json"
INPUTS = "inputs-"

SHARDS_PER_FILE = 1000
"""Row groups of each file of inputs but the last."""

LATER_COLUMNS = frozenset({"ranges"})
"""Columns of inputs that the first plans did not have; where empty they count as absent."""

STAMPS = "stamps"
"""Column that tells whether files change; compared by itself, and no part of the fingerprint: a
copy of a corpus has other times and the same codes."""

Shards = Callable[[], Iterable[pa.Table]]
"""Lists the inputs anew at each call: one table for each shard, with a column ``key``."""


class PlanMismatch(ValueError):
    """A folder holds the work of another plan; the message names what changed."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a job has to do.

    Attributes:
        url: folder of the job.
        job: ``encode`` or ``decode``.
        settings: JSON values that decide the output; their hash is the fingerprint.
        num_inputs: rows of its files of inputs.
        num_shards: row groups of these files.
        notes: files of the corpus that are no inputs, counted by kind.
        options: what the command was given, as far as that is needed to reach the inputs again and
            to treat others alike; decides nothing by itself.
    """
    url: str
    job: str
    settings: dict[str, Any]
    num_inputs: int
    num_shards: int
    notes: dict[str, int] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def delta(self) -> int:
        """Number of the delta of a token corpus that this is the plan of, or 0."""
        return int(self.settings.get("delta", {}).get("number", 0))

    @property
    def corpus_url(self) -> str:
        """The token corpus that the plan belongs to; its own folder where it is no delta's."""
        return deltas.corpus_url(self.url, self.delta)

    @cached_property
    def fingerprint(self) -> str:
        """``sha256:...`` over job and settings."""
        text = configs.canonical_json({"job": self.job, "settings": self.settings})
        return f"sha256:{storage.sha256(text.encode())}"

    def __getstate__(self) -> dict[str, Any]:
        """What workers need: not the many input files, which would go along with each shard."""
        settings = {name: value for name, value in self.settings.items() if name != "files"}
        return {**self.__dict__, "settings": settings, "fingerprint": self.fingerprint}

    def rows(self, shard: int) -> list[dict[str, Any]]:
        """The inputs of one shard, in order."""
        rows: list[dict[str, Any]] = self._read(shard).to_pylist()
        return rows

    def keys(self, shard: int) -> list[str]:
        """The keys of one shard's inputs, in order."""
        keys: list[str] = self._read(shard, ["key"])["key"].to_pylist()
        return keys

    def to_json(self) -> str:
        """Readable JSON, the same text for the same plan."""
        data = {"format": FORMAT, "format_version": FORMAT_VERSION, "fingerprint": self.fingerprint,
                **configs.to_dict(self)}
        del data["url"]
        if not self.options:  # of the decode job, and of early versions
            del data["options"]
        return json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False) + "\n"

    def _read(self, shard: int, columns: Sequence[str] | None = None) -> pa.Table:
        part, row_group = divmod(shard, SHARDS_PER_FILE)
        name = storage.join(self.url, inputs_name(part))
        try:
            return _open_inputs(name, self.fingerprint).read(row_group, columns)
        except FileNotFoundError as error:
            raise ValueError(f"{name} is damaged ({error}); start over with --overwrite") from error


def inputs_name(part: int) -> str:
    """Path of one file of inputs below the job's folder."""
    return f"{tokens.PLAN}/{_inputs_file(part)}"


def holds_plan(url: str) -> bool:
    """Whether a plan of this program, whole or not and of any version, lies in a folder."""
    return storage.read_json_object(storage.join(url, PLAN_JSON)).get("format") == FORMAT


def is_unplanned(url: str) -> bool:
    """Whether a folder is empty, or holds what a stopped listing has left and nothing else."""
    names = [name for name in storage.list_names(url) if not name.startswith(".")]
    if names != [tokens.PLAN]:
        return not names
    left = storage.list_names(storage.join(url, tokens.PLAN))
    return all(name.startswith(INPUTS) for name in left)


def load_plan(url: str) -> Plan | None:
    """The plan in the folder of a job, or nothing where none was finished.

    Raises:
        ValueError: it is damaged, or of another version.
    """
    name = storage.join(url, PLAN_JSON)
    if not storage.exists(name):
        return None
    try:
        data = json.loads(storage.read_bytes(name))
    except ValueError as error:
        raise ValueError(f"{name} is not JSON ({error}): the file is damaged; start over with "
                         "--overwrite") from error
    data = data if isinstance(data, dict) else {}
    found = (data.pop("format", None), data.pop("format_version", None))
    if found != (FORMAT, FORMAT_VERSION):
        raise ValueError(f"{name} is of format {found[0]} version {found[1]}; this program reads "
                         f"{FORMAT} version {FORMAT_VERSION}: start over with --overwrite")
    fingerprint = data.pop("fingerprint", None)
    plan = configs.from_dict(Plan, {"url": url, **data})
    if plan.fingerprint != fingerprint:
        raise ValueError(f"{name} was edited: its fingerprint is {fingerprint}, that of its "
                         f"settings {plan.fingerprint}; start over with --overwrite")
    return plan


def make_plan(url: str, job: str, settings: dict[str, Any], shards: Shards,
              notes: Callable[[], dict[str, int]] = dict,
              options: dict[str, Any] | None = None) -> Plan:
    """Write the plan of a job, or check that the plan which stands in its folder is the same.

    Memory holds one shard's inputs at a time.

    Args:
        settings: everything that decides the output but the inputs themselves.
        notes: called after the listing; see `Plan`.
        options: see `Plan`; a plan of an early version, which has none, takes them over.
    Raises:
        PlanMismatch: the folder holds the work of another plan.
        OSError: the store refuses.
    """
    stored, listing = load_plan(url), _Listing()
    is_new = stored is None

    def listed() -> Plan:
        plan = listing.plan(url, job, settings, notes())
        return dataclasses.replace(plan, options=options or {})
    if stored is None:
        plan = _write(listing, url, shards, listed)
        stored = load_plan(url) or plan  # another process may have been first
    else:
        listing.compare(shards(), stored)
        plan = listed()
    if (stored.job, completed(stored.settings)) != (job, completed(plan.settings)):
        mismatch = PlanMismatch(_explain(stored, plan, shards))
        if is_new and not is_local(url):  # its inputs may have become those of ours
            storage.remove(storage.join(url, PLAN_JSON))
        raise mismatch
    if listing.changed is not None:
        raise PlanMismatch(f"{url} was planned for other files: {listing.changed}. Put back the "
                           "old one, with its time, or start over with --overwrite")
    if plan.options and not stored.options:
        _write_json(dataclasses.replace(stored, options=plan.options))
    return dataclasses.replace(plan, settings=stored.settings)


def require_current(plan: Plan) -> None:
    """Refuse to write for a plan that has been replaced in the meantime.

    Raises:
        PlanMismatch: another job has started over in this folder.
    """
    current = load_plan(plan.url)
    if current is None or current.fingerprint != plan.fingerprint:
        raise PlanMismatch(f"{plan.url} now holds the plan of another job; this one stops")


def fixed_size_shards(rows: Iterable[dict[str, Any]], schema: pa.Schema,
                      shard_size: int) -> Iterator[pa.Table]:
    """Rows as tables of ``shard_size`` rows each, the last one shorter."""
    iterator = iter(rows)
    while chunk := list(itertools.islice(iterator, shard_size)):
        yield pa.Table.from_pylist(chunk, schema)


def _write_json(plan: Plan) -> None:
    storage.write_bytes(storage.join(plan.url, PLAN_JSON), plan.to_json().encode())


def _write(listing: "_Listing", url: str, shards: Shards, listed: Callable[[], Plan]) -> Plan:
    """Write the plan of a job; where another process has written one meanwhile, that stays."""
    last = PLAN_JSON.removeprefix(f"{tokens.PLAN}/")
    with storage.writing_folder(storage.join(url, tokens.PLAN), last) as folder:
        num_files = listing.write(shards(), folder)
        written = {_inputs_file(part) for part in range(num_files)}
        for name in storage.list_names(folder):  # what a stopped listing has left
            if name.startswith(INPUTS) and name not in written:
                storage.remove(storage.join(folder, name))
        plan = listed()
        if not storage.exists(storage.join(folder, last)):
            storage.write_bytes(storage.join(folder, last), plan.to_json().encode())
    return plan


class _Listing:
    """Sums over a stream of shards.

    Attributes:
        changed: the first file that is no longer the one of an earlier plan, and what it was.
    """

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self.num_inputs = 0
        self.num_shards = 0
        self.changed: str | None = None

    def add(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            self._sha256.update(configs.canonical_json(_as_first(row)).encode() + b"\n")
        self.num_inputs += len(rows)
        self.num_shards += 1

    def compare(self, tables: Iterable[pa.Table], stored: Plan) -> None:
        """Add the tables, and look whether files are those of an earlier plan."""
        for shard, table in enumerate(tables):
            rows = table.to_pylist()
            self.add(rows)
            if self.changed is None and STAMPS in table.column_names and shard < stored.num_shards:
                self.changed = _changed_file(stored.rows(shard), rows)

    def write(self, tables: Iterable[pa.Table], folder: str) -> int:
        """Also write the tables, each as one row group, to files of inputs; returns how many."""
        iterator = iter(tables)
        for part in itertools.count():
            first = next(iterator, None)
            if first is None:
                break
            rest = itertools.islice(iterator, SHARDS_PER_FILE - 1)
            with (storage.writing(storage.join(folder, _inputs_file(part))) as file,
                  pq.ParquetWriter(file, first.schema, compression="zstd",
                                   write_statistics=False) as writer):
                for table in itertools.chain([first], rest):
                    writer.write_table(table, row_group_size=max(1, table.num_rows))
                    self.add(table.to_pylist())
        if not self.num_shards:
            raise ValueError("there is no input to plan for")
        return part

    def plan(self, url: str, job: str, settings: dict[str, Any], notes: dict[str, int]) -> Plan:
        """The plan for what was listed."""
        inputs = {"num_inputs": self.num_inputs, "sha256": self._sha256.hexdigest()}
        return Plan(url=url, job=job, settings={**settings, "inputs": inputs},
                    num_inputs=self.num_inputs, num_shards=self.num_shards, notes=notes)


def _inputs_file(part: int) -> str:
    return f"{INPUTS}{part:05d}.parquet"


class _Inputs:
    """A file of inputs; several threads may read it."""

    def __init__(self, name: str) -> None:
        self._lock = threading.Lock()
        self._file = StoredFile(name)
        with self._file.telling_damage("start over with --overwrite"):
            self._parquet = pq.ParquetFile(self._file)

    def read(self, row_group: int, columns: Sequence[str] | None) -> pa.Table:
        """Some columns, or all, of one row group.

        Raises:
            OSError: its store cannot be reached.
            ValueError: the file is damaged.
        """
        with self._lock, self._file.telling_damage("start over with --overwrite"):
            return self._parquet.read_row_group(row_group, columns=columns, use_threads=False)


@lru_cache(maxsize=4)
def _open_inputs(name: str, fingerprint: str) -> _Inputs:
    """A file of inputs of the plan with this fingerprint, opened once in a process."""
    return _Inputs(name)


def _as_first(row: dict[str, Any]) -> dict[str, Any]:
    """A row as a plan of the first version has it, without what came later and is empty."""
    return {name: value for name, value in row.items()
            if name != STAMPS and (value is not None or name not in LATER_COLUMNS)}


IS_NEW = " is new"
"""How `_first_difference` ends where the plan that stands lacks an input."""


def _explain(stored: Plan, plan: Plan, shards: Shards) -> str:
    """What differs between the plan that stands and the one asked for, and what to do."""
    changes = differences(*({"job": item.job, **item.settings} for item in (stored, plan)))
    remedy = "Start over with --overwrite"
    if stored.settings.get("inputs") != plan.settings["inputs"]:
        changes.append(difference := _first_difference(stored, shards))
        if plan.job == "encode" and difference.endswith(IS_NEW):
            remedy = "Add new images with --extend, start over with --overwrite"
    return (f"{plan.url} holds the work of another plan: {'; '.join(changes)}. {remedy}, choose "
            "another folder, or run with what it was started with")


def _first_difference(stored: Plan, shards: Shards) -> str:
    old = (row for shard in range(stored.num_shards) for row in stored.rows(shard))
    new = (row for table in shards() for row in table.to_pylist())
    for before, after in itertools.zip_longest(map(_as_first, old), map(_as_first, new)):
        if before == after:
            continue
        if after is None or (before is not None and before["key"] != after["key"]
                             and all(row["key"] != before["key"] for row in new)):
            return f"the input {before['key']!r} is gone"
        if before is None or before["key"] != after["key"]:
            return f"the input {after['key']!r}{IS_NEW}"
        name = next(name for name in before | after if before.get(name) != after.get(name))
        return (f"{name} of the input {after['key']!r} was {short(before.get(name))}, "
                f"now {short(after.get(name))}")
    return "the listing of the inputs changed"


def _changed_file(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> str | None:
    """The first file whose stamp differs, and how; nothing where the inputs themselves differ."""
    for old, new in zip(before, after, strict=False):
        if old["key"] != new["key"]:
            return None
        now, sources = dict(new[STAMPS] or ()), dict(new["sources"])
        for modality, was in old.get(STAMPS) or ():
            if now.get(modality, was) != was:
                return f"{sources[modality]} was {was}, is {now[modality]}"
    return None
