"""What a decode job has to do: the crops of each shard, and a name for the files of each."""
import contextlib
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from pipelines.names import DuplicateKey, NameTable, UnusableKey
from pipelines.plan import Plan, make_plan
from pipelines.selection import ROW, Selection
from tokenizer.tokens import TokenCorpus

NAMES_SCHEMA = pa.schema([
    pa.field("key", pa.string(), nullable=False),
    pa.field("crop_index", pa.int32(), nullable=False),
    pa.field("name", pa.string()),
    pa.field("error", pa.string()),
    pa.field("message", pa.string()),
])
"""One crop in the plan: its file's path without suffix, or why it can have none."""

CHOSEN_SCHEMA = NAMES_SCHEMA.append(pa.field(ROW, pa.int32()))
"""The same where not all rows are decoded: also the crop's row in its shard."""


def plan_decoding(url: str, corpus: TokenCorpus, selection: Selection,
                  settings: dict[str, Any]) -> Plan:
    """The plan of a decode job, written or found as it must be; see `make_plan`.

    Args:
        url: folder of the job.
        settings: everything that decides the files but the selection.
    """
    if selection.filter is not None:
        settings = {**settings, "filter": selection.filter.text}
    return make_plan(url, "decode", settings, lambda: plan_shards(corpus, selection))


def plan_shards(corpus: TokenCorpus, selection: Selection) -> Iterator[pa.Table]:
    """The crops to decode, a table for each shard; keys of which there is no row end the last one.
    """
    names, found = NameTable(), set[str]()
    for table in selection.tables(corpus, ["key", "crop_index"], found):
        for row in table.to_pylist():
            with contextlib.suppress(UnusableKey):  # told below
                names.add(row["key"], row["crop_index"])
    missing = sorted((selection.keys or frozenset()) - found)
    schema = NAMES_SCHEMA if selection.takes_all else CHOSEN_SCHEMA
    num_rows = 0
    for shard, table in enumerate(selection.tables(corpus, ["key", "crop_index"])):
        rows = [name_row(names, **row) for row in table.to_pylist()]
        if shard == corpus.num_shards - 1:
            rows += [missing_row(key, corpus.url) for key in missing]
        num_rows += len(rows)
        yield pa.Table.from_pylist(rows, schema)
    if not (num_rows or selection.takes_all):
        raise ValueError(f"the filter takes none of the rows of {corpus.url} with these keys")


def name_row(names: NameTable, key: str, crop_index: int, row: int) -> dict[str, Any]:
    """One crop as a row of the plan."""
    planned = {"key": key, "crop_index": crop_index, "name": None, "error": None, "message": None,
               ROW: row}
    try:
        return planned | {"name": names.name(key, crop_index)}
    except (UnusableKey, DuplicateKey) as error:
        return planned | {"error": type(error).__name__, "message": str(error)}


def missing_row(key: str, url: str) -> dict[str, Any]:
    """A key of which the corpus holds no row, as a row of the plan."""
    return {"key": key, "crop_index": 0, "error": "MissingKey",
            "message": f"{url} holds no row with this key"}


def names_of(plan: Plan, shard: int) -> list[str]:
    """The names of the crops of one shard that have one."""
    return [row["name"] for row in plan.rows(shard) if row["name"] is not None]
