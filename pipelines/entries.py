"""Inputs of an encode job as rows of its plan, and back."""
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from tokenizer.corpus.sources import Entry

PLAN_SCHEMA = pa.schema([
    pa.field("key", pa.string(), nullable=False),
    pa.field("sources", pa.map_(pa.string(), pa.string()), nullable=False),
    pa.field("ranges", pa.map_(pa.string(), pa.list_(pa.int64(), 2))),
    pa.field("label", pa.int32()),
    pa.field("class_name", pa.string()),
    pa.field("caption", pa.string()),
    pa.field("error", pa.string()),
    pa.field("message", pa.string()),
    pa.field("stamps", pa.map_(pa.string(), pa.string())),
])
"""One input: its key, the URL of each modality and which bytes of it, its label, what the listing
found wrong, and what tells whether its files change."""


def row_of(entry: Entry) -> dict[str, Any]:
    """An input as a row of the plan."""
    error, message = entry.problem or (None, None)
    ranges = [(name, list(stretch)) for name, stretch in entry.ranges.items()] or None
    return {"key": entry.key, "sources": list(entry.sources.items()), "ranges": ranges,
            "label": entry.label, "class_name": entry.class_name, "caption": entry.caption,
            "error": error, "message": message, "stamps": list(entry.stamps.items()) or None}


def entry_of(row: Mapping[str, Any]) -> Entry:
    """The input that `row_of` described."""
    problem = None if row["error"] is None else (row["error"], row["message"])
    ranges = {name: (first, count) for name, (first, count) in row.get("ranges") or ()}
    return Entry(key=row["key"], sources=dict(row["sources"]), ranges=ranges,
                 stamps=dict(row.get("stamps") or ()), label=row["label"],
                 class_name=row["class_name"], caption=row["caption"], problem=problem)
