"""Token corpora of ours become those of other programs: a job over shards, like decode.

    OUT/...                    as the format's layout has it
    OUT/_convert/data/         one table a shard: which files hold which key
    OUT/_convert/_plan/ ...    plan, receipts and dead letters
    OUT/_convert/_SUCCESS      only after every file was found

The same command goes on after any kind of stop.

Letters: C crops of an input.
"""
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipelines.decode_folder import remove_unfinished
from pipelines.decode_plan import NAMES_SCHEMA, plan_shards
from pipelines.engines import LocalEngine
from pipelines.formats import LAYOUTS, Layout
from pipelines.formats.base import TokenInput, flat
from pipelines.job import Job, ShardTask, commit
from pipelines.plan import Plan, PlanMismatch, make_plan
from pipelines.selection import Selection
from pipelines.sinks import Item, Sink
from pipelines.sinks.base import ABOUT
from pipelines.sinks.storing import complete, store
from tokenizer import configs, storage, tokens
from tokenizer.schema import TokenSpec, codes_array
from tokenizer.tokens import DeadLetter, Receipt, TokenCorpus

JOB = "_convert"
"""Folder of the job's own files below its output."""

FIRST_ROW = "first_row"
PLAN_SCHEMA = NAMES_SCHEMA.append(pa.field("number", pa.int64())).append(
    pa.field(FIRST_ROW, pa.int32()))
"""One input in the plan: its name, its number among all, and its first row in its shard."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What to export, and how.

    Attributes:
        tokens: folder of a completed token corpus.
        output: folder of the foreign corpus.
        format: a name of `LAYOUTS`.
        modality: the one to export; nothing for all.
        data: name of the data set, for formats that have it in paths.
        num_workers: processes that convert at the same time.
    """
    tokens: str
    output: str
    format: str
    modality: str | None = None
    data: str = "imagenet"
    num_workers: int = 1

    def __post_init__(self) -> None:
        if self.format not in LAYOUTS:
            raise ValueError(f"formats that are written are {', '.join(LAYOUTS)}, got "
                             f"{self.format!r}")
        if not self.data or "/" in self.data:
            raise ValueError(f"--data is part of the name of a folder, got {self.data!r}")


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an export has written.

    Attributes:
        num_items: inputs, or lines where a format has a line for each crop.
        dead_letters: how many inputs failed, by error class.
    """
    num_items: int
    dead_letters: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class ExportTask(ShardTask):
    """Writes the shards of a corpus in another layout."""
    plan: Plan
    corpus: TokenCorpus
    layout: Layout
    sink: Sink

    @property
    def url(self) -> str:
        return self.plan.url

    def prepare(self) -> None:
        """Nothing is heavy here."""

    def run(self, shard: int) -> Receipt:
        entry = self.corpus.manifest.shards[shard]
        if problem := tokens.check_shard(self.corpus.url, entry, self.corpus.spec):
            raise ValueError(f"{self.corpus.url}: {problem}; make the shard anew first")
        planned = self.plan.rows(shard)
        dead = [DeadLetter(key=row["key"], source=entry.name, stage="name", error=row["error"],
                           message=row["message"]) for row in planned if row["error"] is not None]
        index, refused = store(self.sink, shard, self._items(shard, planned), _as_it_is, 16)
        return commit(self.plan, shard, index, [*dead, *refused], self.layout.items_each)

    def _items(self, shard: int, planned: Sequence[Mapping[str, Any]]) -> Iterator[Item]:
        """What is written for each input that has a name."""
        table = self.corpus.read_shard(shard)
        codes = {code.modality: flat(code, codes_array(code, table))
                 for code in self.layout.spec.codes}
        rows = table.select(["key", "crop_index", *ABOUT]).to_pylist()
        for row in planned:
            if row["error"] is None:
                crops = slice(row[FIRST_ROW], row[FIRST_ROW] + self.layout.num_crops)
                yield from self.layout.items(TokenInput(
                    number=row["number"], rows=rows[crops],
                    codes={name: array[crops] for name, array in codes.items()}), row["name"])


def export_corpus(config: ExportConfig) -> Exported:
    """Export a corpus, or go on where an earlier run of the same job stopped.

    Raises:
        OSError: the corpus is missing, a store refuses, or shards could not be made.
        ValueError: the format cannot hold the corpus, or the output holds something else.
    """
    corpus = TokenCorpus.open(config.tokens)
    if storage.is_within(config.output, config.tokens):
        raise ValueError(f"the output folder {config.output} lies in the corpus {config.tokens}; "
                         "choose another folder")
    spec = corpus.spec
    if config.modality is not None:
        spec = TokenSpec(codes=(spec[config.modality],))
    if spec.buckets:
        raise ValueError(f"{config.format} holds codes of one grid, {config.tokens} has those of "
                         f"the buckets {', '.join(spec.buckets)}: encode with --size for it")
    layout = LAYOUTS[config.format](spec, corpus.manifest.num_crops, config.data)
    layout.check(corpus.manifest)
    require_free(config.output)
    plan = plan_export(config, corpus, layout)
    sink = layout.sink(config.output, corpus.num_shards)
    remove_unfinished(plan, sink)
    task = ExportTask(plan=plan, corpus=corpus, layout=layout, sink=sink)

    def finish(receipts: Sequence[Receipt]) -> Exported:
        num_items = complete(plan, sink, receipts)
        dead = sum((Counter(receipt.dead_letters) for receipt in receipts), Counter[str]())
        return Exported(num_items=num_items, dead_letters=dict(sorted(dead.items())))
    engine = LocalEngine(num_workers=config.num_workers)
    return Job(plan, task, engine, unit="inputs").run(finish)


def require_free(output: str) -> None:
    """Refuse a folder that holds something else.

    Raises:
        ValueError: names what it holds.
    """
    names = [name for name in storage.list_names(output) if not name.startswith(".")]
    if names and JOB not in names:
        raise ValueError(f"{output} holds other files, such as {names[0]}: choose an empty folder")


def plan_export(config: ExportConfig, corpus: TokenCorpus, layout: Layout) -> Plan:
    """The plan of an export, written or found as it must be.

    Raises:
        PlanMismatch: the folder holds another export.
    """
    settings = {"corpus": corpus.manifest.fingerprint, "format": config.format,
                "data": config.data, "codes": configs.to_dict(layout.spec)["codes"],
                "num_crops": layout.num_crops}
    try:
        return make_plan(storage.join(config.output, JOB), "export", settings,
                         lambda: input_shards(corpus, layout))
    except PlanMismatch as error:
        raise PlanMismatch(f"{error} (of an export: there is no --overwrite; remove "
                           f"{config.output} instead)") from error


def input_shards(corpus: TokenCorpus, layout: Layout) -> Iterator[pa.Table]:
    """The inputs of a corpus by their first crops, numbered, a table for each shard."""
    number = 0
    for table in plan_shards(corpus, Selection()):
        inputs = []
        for first_row in range(0, table.num_rows, layout.num_crops):
            row, = table.slice(first_row, 1).to_pylist()
            if not layout.names_files:
                row |= {"name": str(number), "error": None, "message": None}
            inputs.append({**row, "number": number, FIRST_ROW: first_row})
            number += 1
        yield pa.Table.from_pylist(inputs, PLAN_SCHEMA)


def _as_it_is(item: Item) -> Item:
    return item
