"""Which rows of a token corpus a job takes: all, those of a list of keys, those of a filter.

A list of keys is a text with one key a line, or Parquet with a column ``key``, such as the tables
that a decode job writes.

Letters: N rows.
"""
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tokenizer import storage, stores
from tokenizer.filters import RowFilter
from tokenizer.tokens import TokenCorpus

KEY, ROW = "key", "row"
"""Columns of what `Selection.tables` gives: the second is a row's number in its shard."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which rows to take: those with one of the keys for which the filter holds.

    Attributes:
        keys: nothing for any. All of them are held in memory.
        filter: nothing for any row.
    """
    keys: frozenset[str] | None = None
    filter: RowFilter | None = None

    @classmethod
    def read(cls, corpus: TokenCorpus, keys: str | None, expression: str | None) -> "Selection":
        """The selection that options describe.

        Args:
            keys: path or URL of a list of keys.
            expression: of `tokenizer.filters`.
        Raises:
            OSError: the list cannot be read.
            ValueError: it is damaged or holds no key; or the expression cannot be read, or does not
                fit the corpus.
        """
        return cls(keys=None if keys is None else frozenset(read_keys(keys)),
                   filter=None if expression is None else
                   RowFilter.parse(expression, corpus.spec.arrow_schema()))

    @property
    def takes_all(self) -> bool:
        """Whether every row is taken."""
        return self.keys is None and self.filter is None

    def tables(self, corpus: TokenCorpus, columns: Sequence[str],
               found: set[str] | None = None) -> Iterator[pa.Table]:
        """The rows to take, a table for each shard: ``columns``, and `ROW`.

        Args:
            found: is given those of `keys` that the corpus holds, whether the filter takes them or
                not; complete at the end.
        """
        needed = dict.fromkeys([KEY, *columns, *(self.filter.columns if self.filter else ())])
        for table in corpus.tables(list(needed)):
            if self.keys is not None and found is not None:
                found.update(key for key in table[KEY].to_pylist() if key in self.keys)
            rows = self.rows(table)
            yield table.select(list(columns)).take(rows).append_column(ROW, pa.array(rows))

    def rows(self, table: pa.Table) -> np.ndarray:
        """Which rows of a table to take: their numbers, int32, in order.

        Args:
            table: with the column `KEY` and those of the filter.
        """
        mask = np.ones(table.num_rows, bool)
        if self.keys is not None:
            mask &= np.array([key in self.keys for key in table[KEY].to_pylist()], bool)
        if self.filter is not None:
            mask &= self.filter.mask(table)
        return np.flatnonzero(mask).astype(np.int32)


def read_keys(url: str) -> Iterator[str]:
    """The keys of a list, one or more.

    Raises:
        OSError: the list cannot be read.
        ValueError: it holds no key, or is damaged.
    """
    num_keys = 0
    for key in _parquet_keys(url) if url.lower().endswith(".parquet") else _lines(url):
        num_keys += 1
        yield key
    if not num_keys:
        raise ValueError(f"{url} holds no key; write one key a line")


def _lines(url: str) -> Iterator[str]:
    try:
        for line in stores.read_lines(url):
            if key := line.rstrip("\r\n"):
                yield key
    except UnicodeDecodeError as error:
        raise ValueError(f"{url} is no text in UTF-8 ({error}); write one key a line") from error


def _parquet_keys(url: str) -> Iterator[str]:
    if not storage.exists(url):
        raise FileNotFoundError(f"{url} does not exist")
    with stores.StoredFile(url) as file, file.telling_damage("write the list of keys anew"):
        parquet = pq.ParquetFile(file)
        names = parquet.schema_arrow.names
        if KEY not in names:
            raise ValueError(f"{url} has no column {KEY}, but {', '.join(names)}")
        for batch in parquet.iter_batches(columns=[KEY], use_threads=False):
            yield from (str(key) for key in batch[KEY].to_pylist() if key is not None)
