"""The items of a shard into a sink, the index that says where they lie, and the audit of it all."""
import errno
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pyarrow as pa

from pipelines.job import OutputRefused
from pipelines.ordered import ordered
from pipelines.plan import Plan
from pipelines.shard import describe
from pipelines.sinks.base import SHARD_FILE, Item, Sink, refusals
from tokenizer import configs, storage, tokens
from tokenizer.tokens import AuditFailure, DeadLetter, Receipt

Source = TypeVar("Source")

OF_ONE_NAME = {errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EILSEQ,
               errno.EINVAL}
"""System errors that concern the name of one file; any other means that the store refuses."""

NUM_WRITERS = 4
"""Threads that make and write files, and that look for them in the audit."""


def store(sink: Sink, shard: int, sources: Iterable[Source], make: Callable[[Source], Item],
          window: int) -> tuple[pa.Table, list[DeadLetter]]:
    """Make the items of one shard, and write them.

    Args:
        make: called by several threads.
        window: items that are made or waiting at most, beside those of the threads.
    Returns:
        The index of the shard, and a dead letter for each item whose name the store refuses.
    Raises:
        OutputRefused: the store takes no more.
    """
    dead, rows = [], []
    with (sink.writer(shard) as writer,
          ordered(lambda source: put(sink, make(source)), sources, NUM_WRITERS,
                  window + NUM_WRITERS) as items):
        for item in items:
            if isinstance(item, DeadLetter):
                dead.append(item)
            else:
                writer.add(item)
                rows.append(index_row(sink, item))
    schema = index_schema(sink.modalities)
    if writer.entry is not None:
        entry = json.dumps(configs.to_dict(writer.entry), sort_keys=True)
        schema = schema.with_metadata({SHARD_FILE: entry})
    return pa.Table.from_pylist(rows, schema), dead


def put(sink: Sink, item: Item) -> Item | DeadLetter:
    """Write of one item what needs no order; a dead letter where the store refuses its name.

    Raises:
        OutputRefused: the store takes no more.
    """
    try:
        with refusals(sink.output, OF_ONE_NAME):
            sink.put(item)
    except OutputRefused:
        raise
    except OSError as error:
        first, (_, suffix) = next(iter(item.files.items()))
        return DeadLetter(key=item.columns["key"], stage="write",
                          source=sink.path(item.name, first, suffix),
                          error=type(error).__name__, message=describe(error))
    return item


def index_row(sink: Sink, item: Item) -> dict[str, Any]:
    """One item as a row of the index of its shard."""
    row = {"key": item.columns["key"], "crop_index": item.columns["crop_index"]}
    for modality, (content, suffix) in item.files.items():
        row |= {f"{modality}_file": sink.path(item.name, modality, suffix),
                f"{modality}_bytes": len(content),
                f"{modality}_sha256": storage.sha256(content)}
    return row


def index_schema(modalities: Iterable[str]) -> pa.Schema:
    """Schema of the tables that say which file holds which item."""
    columns = [("key", pa.string()), ("crop_index", pa.int32())]
    for name in modalities:
        columns += [(f"{name}_file", pa.string()), (f"{name}_bytes", pa.int64()),
                    (f"{name}_sha256", pa.string())]
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in columns])


def complete(plan: Plan, sink: Sink, receipts: Sequence[Receipt]) -> int:
    """Check that every file is there, then write ``_SUCCESS``; returns how many items there are.

    Raises:
        AuditFailure: files are missing or of another size, or items are unaccounted for.
    """
    with ThreadPoolExecutor(NUM_WRITERS) as pool:
        found = list(pool.map(lambda receipt: check_files(plan, sink, receipt), receipts))
    damaged = [(receipt.shard, problem) for receipt, problem in zip(receipts, found, strict=True)
               if problem]
    if damaged:
        raise AuditFailure(sink.output, [problem for _, problem in damaged],
                           [shard for shard, _ in damaged])
    num_items = sum(receipt.entry.rows for receipt in receipts)
    sink.complete(num_items)
    storage.write_bytes(storage.join(plan.url, tokens.SUCCESS), b"")
    return num_items


def check_files(plan: Plan, sink: Sink, receipt: Receipt) -> str | None:
    """What is wrong with the files of one shard, or nothing."""
    content, problem = tokens.read_checked(plan.url, receipt.entry)
    if content is None:
        return problem
    if receipt.num_inputs != len(plan.keys(receipt.shard)):
        return f"{receipt.entry.name} does not account for all items of its shard"
    for path, num_bytes in sink.written(tokens.read_parquet(content)):
        if (size := storage.size(storage.join(sink.output, path))) != num_bytes:
            return f"{path} is {'missing' if size is None else f'{size} bytes, not {num_bytes}'}"
    return None
