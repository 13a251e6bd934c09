"""One bucket of a token corpus, for what needs rows of one grid: priors, duplicates.

A filter says which bucket: `img2tokens train-prior TOKENS PRIOR --filter 'bucket == "192x320"'`;
or the size of the pictures that are needed, which for a trained prior is known.
"""
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tokenizer.buckets import Size, size_name
from tokenizer.filters import RowFilter, selected_tables
from tokenizer.grids import codes_by_grid
from tokenizer.schema import BUCKET, TokenSpec, codes_column
from tokenizer.tokens import TokenCorpus


class OneBucket(TokenCorpus):
    """A corpus as those see it who take rows of one of its buckets alone.

    It has that bucket's grid, and as many rows as ever, since places in it stay what they are. The
    codes of rows of other buckets are zeros; the filter that chose the bucket leaves them out.
    """

    def __init__(self, corpus: TokenCorpus, bucket: str) -> None:
        super().__init__(corpus.url, corpus.manifest)
        self.bucket = bucket

    @property
    def spec(self) -> TokenSpec:
        """What the codes of this bucket mean."""
        stored = self.manifest.spec
        return stored.grids[stored.buckets.index(self.bucket)]

    @property
    def rows(self) -> RowFilter:
        """What takes the rows of this bucket, and no others."""
        return RowFilter.parse(_filter_of(self.bucket), self.manifest.spec.arrow_schema())

    def read_columns(self, file: pq.ParquetFile, columns: Sequence[str] | None) -> pa.Table:
        """See `TokenCorpus.read_columns`; codes are lists of one length."""
        wanted = file.schema_arrow.names if columns is None else list(columns)
        table = super().read_columns(file, list(dict.fromkeys([*wanted, BUCKET])))
        stored, held = self.manifest.spec, self.spec
        for code in (code for code in held.codes if code.column in wanted):
            codes = np.zeros((table.num_rows, *code.code_shape), code.dtype)
            for part, rows, found in codes_by_grid(stored[code.modality], table):
                if part == code:
                    codes[rows] = found
            place = table.column_names.index(code.column)
            field = held.arrow_schema().field(code.column)
            table = table.set_column(place, field, codes_column(code, codes))
        return table.select(wanted)


def one_bucket(corpus: TokenCorpus, row_filter: RowFilter | str | None) -> TokenCorpus:
    """A corpus with rows of one grid: itself, or with buckets the one whose rows a filter takes.

    Raises:
        ValueError: the filter takes rows of several buckets, or none, or cannot be read; or there
            are no rows.
    """
    if not corpus.spec.buckets:
        return corpus
    counts = _rows_by_bucket(corpus, row_filter)
    if len(counts) != 1:
        raise ValueError(f"rows of one grid are needed, and {corpus.url} has several: "
                         f"{_listed(counts)}; take one bucket, as with --filter "
                         f"'{_filter_of(min(counts))}'")
    return OneBucket(corpus, next(iter(counts)))


def bucket_of_size(corpus: TokenCorpus, size: Size,
                   row_filter: RowFilter | str | None = None) -> TokenCorpus:
    """A corpus with rows of one grid: itself, or with buckets the one with pictures of this size.

    Args:
        size: height and width in pixels.
        row_filter: must take rows of this bucket; which others it takes does not matter.
    Raises:
        ValueError: there are no rows of this bucket, or the filter takes none or cannot be read.
    """
    if not corpus.spec.buckets:
        return corpus
    counts, wanted = _rows_by_bucket(corpus, row_filter), size_name(size)
    if not counts[wanted]:
        remedy = (f"take that bucket, as with --filter '{_filter_of(wanted)}', or leave the filter "
                  "out" if wanted in corpus.manifest.bucket_counts else
                  "give a corpus with this bucket")
        raise ValueError(f"rows of the bucket {wanted} are needed, and {corpus.url} has"
                         f"{' with the filter' if row_filter else ''} {_listed(counts)}; {remedy}")
    return OneBucket(corpus, wanted)


def _filter_of(bucket: str) -> str:
    """The filter that takes the rows of a bucket, as text."""
    return f'{BUCKET} == "{bucket}"'


def _listed(counts: Counter[str]) -> str:
    """Rows by bucket: ``2 of 16x32, 1 of 32x16``."""
    return ", ".join(f"{number} of {name}" for name, number in sorted(counts.items()))


def _rows_by_bucket(corpus: TokenCorpus, row_filter: RowFilter | str | None) -> Counter[str]:
    """How many rows of each bucket a filter takes, or there are; buckets without any are left out.

    Raises:
        ValueError: there is no row, or the filter takes none or cannot be read.
    """
    if isinstance(row_filter, str):
        row_filter = RowFilter.parse(row_filter, corpus.spec.arrow_schema())
    counts: Counter[str] = Counter(corpus.manifest.bucket_counts)
    if row_filter is not None:
        tables = selected_tables(corpus, [BUCKET], row_filter)
        counts = Counter(name for table in tables for name in table[BUCKET].to_pylist())
        row_filter.require_rows(counts.total(), corpus.url)
    if not counts:
        raise ValueError(f"{corpus.url} holds no rows, so that none of its buckets can be taken; "
                         f"`img2tokens inspect {corpus.url}` says why")
    return counts
