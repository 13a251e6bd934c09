"""Codes of rows, grid by grid: in a corpus with buckets, rows of one table have different grids.

What reads codes in this way works with and without buckets.

Letters: N rows, D codes a cell, h and w rows and columns of a code grid.
"""
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tokenizer.schema import BUCKET, CodeSpec, TokenSpec, codes_array


def codes_by_grid(spec: CodeSpec, table: pa.Table) -> Iterator[tuple[CodeSpec, np.ndarray,
                                                                     np.ndarray]]:
    """The codes of a table of shard rows, those of each grid together.

    Args:
        table: with at least the columns ``spec.columns``.
    Yields:
        What these codes mean, which rows they are of, ascending ``(N,)``, and the codes
        ``(N[, D], h, w)``, uint16 or 32. Buckets without rows are passed over.
    Raises:
        ValueError: a row names no bucket of the spec, or has another number of codes than that.
    """
    if not spec.buckets:
        yield spec, np.arange(table.num_rows), codes_array(spec, table)
        return
    places = buckets_of(spec, table)
    column = table.column(spec.column).combine_chunks()
    lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
    flat = column.flatten().to_numpy(zero_copy_only=False)
    begins = np.cumsum(lengths, dtype=np.int64) - lengths
    for place, part in enumerate(spec.grids):
        rows = np.flatnonzero(places == place)
        if not len(rows):
            continue
        if (wrong := lengths[rows] != part.num_codes).any():
            raise ValueError(f"a row of the bucket {spec.buckets[place].name} has "
                             f"{int(lengths[rows][wrong][0])} {spec.modality} codes, its grid "
                             f"{part.shapes} takes {part.num_codes}")
        codes = flat[begins[rows][:, None] + np.arange(part.num_codes)]
        yield part, rows, codes.reshape(-1, *part.code_shape)


def codes_of_rows(spec: CodeSpec, table: pa.Table) -> list[np.ndarray]:
    """The codes of each row by itself, ``([D,] h, w)``; arguments and errors as `codes_by_grid`."""
    found = {int(row): item for _, rows, codes in codes_by_grid(spec, table)
             for row, item in zip(rows, codes, strict=True)}
    return [found[row] for row in range(table.num_rows)]


def buckets_of(spec: CodeSpec | TokenSpec, table: pa.Table) -> np.ndarray:
    """The bucket of each row as its place in the spec, ``(N,)``; 0 where there are none.

    Raises:
        ValueError: a row names no bucket of the spec.
    """
    buckets = (spec.codes[0] if isinstance(spec, TokenSpec) else spec).buckets
    if not buckets:
        return np.zeros(table.num_rows, np.int64)
    names = pa.array([bucket.name for bucket in buckets])
    column = table.column(BUCKET).combine_chunks()
    places = pc.index_in(column, names)
    if places.null_count:
        name = column.filter(places.is_null())[0].as_py()
        raise ValueError(f"a row is of the bucket {name!r}; there are {', '.join(names.tolist())}")
    return places.to_numpy().astype(np.int64)


def check_grids(spec: TokenSpec, table: pa.Table) -> None:
    """Refuse rows of a shard whose codes or grids are not those of their buckets.

    Raises:
        ValueError: the message shows one.
    """
    for code in spec.codes:
        for part, rows, codes in codes_by_grid(code, table):
            part.check_codes(codes)
            for name, side in zip(code.grid_columns if code.buckets else (), part.grid,
                                  strict=False):
                if (stated := table.column(name).to_numpy()[rows] != side).any():
                    found = int(table.column(name).to_numpy()[rows][stated][0])
                    raise ValueError(f"{name} of a row is {found}, that of its bucket {side}")
