"""RAR's JSON lines: one line for each crop, without order among crops and without keys.

    {"class_id": 207, "tokens": [310, 84, ...]}

Source: bytedance/1d-tokenizer, scripts/pretokenization.py.
"""
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pipelines.formats.base import (
    Codes,
    Layout,
    Listed,
    Reader,
    TokenInput,
    UnreadableCodes,
    checked_label,
    file_of,
    read_range,
    sorted_files,
)
from pipelines.sinks import Item, Sink
from pipelines.sinks.base import FileSink, FileWriter, Measured, ShardWriter
from tokenizer import storage
from tokenizer.corpus.sources.urls import expand, stems

SUFFIX = ".jsonl"

MAX_LINE = 1 << 26
"""Bytes of a line beyond which a file has none; one of a million codes takes a tenth."""


@dataclass(frozen=True)
class RARReader(Reader):
    """Reads one file, several by ``{00..07}`` and ``*``, or all in a folder.

    Keys are numbers of lines, from 0, of several files behind the name of the file.
    """
    name: ClassVar[str] = "rar"
    form: ClassVar[str] = ("a .jsonl file of {class_id, tokens}, several by {00..07} and *, or a "
                           "folder of such files")

    def inputs(self) -> Iterator[Listed]:
        files = ([storage.join(self.url, name) for name in sorted_files(self.url, SUFFIX)]
                 if storage.is_folder(self.url) else expand(self.url))
        if not files:
            raise FileNotFoundError(f"{self.url} is not {self.form}")
        for url, stem in zip(files, stems(files), strict=True):
            prefix = f"{stem}/" if len(files) > 1 else ""
            first = 0
            for number, line in enumerate(lines_of(url)):
                if line.strip():
                    yield listed_line(f"{prefix}{number}", f"{url}#{number}", first, line)
                first += len(line)

    def read(self, listed: Listed) -> Codes:
        assert listed.first_byte is not None and listed.num_bytes is not None
        url = file_of(listed.source)
        line = parsed(read_range(url, listed.first_byte, listed.num_bytes), listed.source)
        return Codes(codes=line["tokens"][None])


@dataclass(frozen=True)
class RARLayout(Layout):
    """Writes ``part-00000-of-00016.jsonl`` for each shard; ``cat`` makes one file of them."""
    name: ClassVar[str] = "rar"
    needs_labels: ClassVar[bool] = True
    names_files: ClassVar[bool] = False
    one_modality: ClassVar[bool] = True

    @property
    def items_each(self) -> int:
        return self.num_crops

    def sink(self, output: str, num_shards: int) -> Sink:
        return LinesSink(output=output, modalities=(), num_shards=num_shards)

    def items(self, source: TokenInput, name: str) -> list[Item]:
        codes = next(iter(source.codes.values()))
        return [Item(name=name, files={}, columns={
            **row, "line": {"class_id": row["label"], "tokens": crop.tolist()}})
            for row, crop in zip(source.rows, codes, strict=True)]


@dataclass(frozen=True, kw_only=True)
class LinesSink(FileSink):
    """A text file for each shard."""
    beside: ClassVar[tuple[str, ...]] = ()
    pattern: ClassVar[str] = f"*{SUFFIX}"

    def path(self, name: str, modality: str, suffix: str) -> str:
        return name

    def writer(self, shard: int) -> ShardWriter:
        return LinesWriter(self.output, self.file(shard))

    def complete(self, num_items: int) -> None:
        """Nothing stands beside the files."""


class LinesWriter(FileWriter):
    """One text file."""
    _lines: Measured

    def begin(self, file: Measured) -> None:
        self._lines = file

    def append(self, item: Item) -> None:
        self._lines.write(f"{json.dumps(item.columns['line'])}\n".encode())

    def end(self) -> None:
        """Nothing follows the last line."""


def lines_of(url: str) -> Iterator[bytes]:
    """The lines of a file with their ends, read in pieces.

    Raises:
        UnreadableCodes: a line is longer than `MAX_LINE`.
    """
    rest = b""
    for chunk in storage.read_chunks(url):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line + b"\n" for line in lines)
        if len(rest) > MAX_LINE:
            raise UnreadableCodes(f"{url} has a line of more than {MAX_LINE} bytes; it must have "
                                  "one of {class_id, tokens} for each crop")
    if rest:
        yield rest


def listed_line(key: str, source: str, first: int, line: bytes) -> Listed:
    """One line, as far as the listing needs it."""
    try:
        label = parsed(line, source)["class_id"]
    except UnreadableCodes as error:
        return Listed(key=key, source=source, error=type(error).__name__, message=str(error))
    return Listed(key=key, source=source, first_byte=first, num_bytes=len(line), label=label)


def parsed(line: bytes, source: str) -> dict[str, Any]:
    """Class and tokens, the latter int64 ``(N,)``.

    Raises:
        UnreadableCodes: the line holds something else.
    """
    try:
        data = json.loads(line)
        tokens, label = np.array(data["tokens"]), checked_label(data["class_id"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UnreadableCodes(f"{source} is no JSON object with class_id and tokens ({error!r})"
                              ) from error
    if tokens.ndim != 1 or not np.issubdtype(tokens.dtype, np.integer):
        raise UnreadableCodes(f"{source}: tokens are no list of integers")
    return {"tokens": tokens, "class_id": label}
