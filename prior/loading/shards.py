"""Shards of a corpus as training reads them: only those with a receipt, and checked against it.

Letters: N rows of a corpus or a shard, D codes a cell, h and w of a code grid.
"""
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from prior.dataset import Columns, columns_of, row_columns
from tokenizer import storage
from tokenizer.deltas import job_url
from tokenizer.filters import RowFilter
from tokenizer.receipts import read_receipts
from tokenizer.schema import TokenSpec
from tokenizer.tokens import TokenCorpus


class ShardReader:
    """Reads the shards of a corpus in any order; each file is checked when it is first read.

    Args:
        corpus: completed.
        modalities: whose codes are read, and ``coordinates`` for the records of crops.
    Raises:
        FileNotFoundError, ValueError: a modality is not there, or a shard has no receipt.
    """

    def __init__(self, corpus: TokenCorpus, modalities: Sequence[str]) -> None:
        self.corpus = corpus
        self.columns = row_columns(corpus.spec, modalities)
        self.sizes = np.array([entry.rows for entry in corpus.manifest.shards], np.int64)
        self._checked: set[int] = set()
        require_receipts(corpus)

    def codes(self, shard: int) -> Columns:
        """Codes and labels of one shard.

        Raises:
            FileNotFoundError: the file is missing.
            ValueError: it is not the one that its receipt tells of, or holds other codes.
        """
        table = self.table(shard, ["label", *(name for column in self.columns
                                              for name in column.columns)])
        try:
            return columns_of(table, self.columns, len(self.corpus.manifest.classes))
        except ValueError as error:
            raise ValueError(f"{self._name(shard)}: {error}; {self._remedy}") from error

    def table(self, shard: int, columns: Sequence[str]) -> pa.Table:
        """Some columns of one shard; raises as `codes` does."""
        entry, name = self.corpus.manifest.shards[shard], self._name(shard)
        try:
            content = storage.read_bytes(name)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{name} is missing; {self._remedy}") from error
        if shard not in self._checked and (found := storage.sha256(content)) != entry.sha256:
            raise ValueError(f"{name} is damaged: sha256 {found}, its receipt says "
                             f"{entry.sha256}; {self._remedy}")
        try:
            file = pq.ParquetFile(pa.BufferReader(content))
            if shard not in self._checked:
                stored = self.corpus.manifest.spec
                stored.require_equal(TokenSpec.from_arrow(file.schema_arrow, name), name)
            table = self.corpus.read_columns(file, columns)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{name} is damaged: {error}; {self._remedy}") from error
        if table.num_rows != entry.rows:
            raise ValueError(f"{name} holds {table.num_rows} rows, its receipt says {entry.rows}; "
                             f"{self._remedy}")
        self._checked.add(shard)
        return table

    def shard_keys(self) -> list[pa.Array]:
        """The keys of each shard's rows."""
        return [self.table(shard, ["key"])["key"].combine_chunks()
                for shard in range(len(self.sizes))]

    def mask(self, row_filter: RowFilter) -> np.ndarray:
        """Which rows of the corpus a filter takes, bool ``(N,)``.

        Raises:
            ValueError: it takes none.
        """
        mask = np.concatenate([row_filter.mask(self.table(shard, row_filter.columns))
                               for shard in range(len(self.sizes))])
        row_filter.require_rows(int(mask.sum()), self.corpus.url)
        return mask

    @property
    def _remedy(self) -> str:
        return (f"`img2tokens inspect {self.corpus.url} --verify` lists every shard that is "
                "missing or damaged")

    def _name(self, shard: int) -> str:
        return storage.join(self.corpus.url, self.corpus.manifest.shards[shard].name)


def require_receipts(corpus: TokenCorpus) -> None:
    """Refuse a corpus with a shard whose receipt is missing or tells of another file.

    Those of shards that were added later lie with their delta.

    Raises:
        ValueError: names the first such shard and how many there are.
    """
    committed = {receipt.entry for number in range(1 + len(corpus.manifest.deltas))
                 for receipt in read_receipts(job_url(corpus.url, number), None).values()}
    missing = [entry.name for entry in corpus.manifest.shards if entry not in committed]
    if missing:
        raise ValueError(
            f"{corpus.url}: {missing[0]}" + (f" and {len(missing) - 1} more" if missing[1:] else "")
            + " has no receipt that tells of it, and what has none does not count as written: "
              "copy the corpus whole, with its _receipts, or make the shard again")


def image_numbers(keys: Sequence[pa.Array]) -> np.ndarray:
    """A number for each row that neighbouring rows of one key share, ascending int64 ``(N,)``.

    Args:
        keys: of each shard; an image never goes on in the next one.
    """
    parts = []
    for array in keys:
        begins = np.ones(len(array), bool)
        if len(array) > 1:
            begins[1:] = pc.not_equal(array[1:], array[:-1]).to_numpy(zero_copy_only=False)
        parts.append(begins)
    return np.cumsum(np.concatenate(parts)) - 1
