"""Order on disk, for what is too much for memory."""
import sqlite3
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any

ROWS_AT_ONCE = 100_000
"""Rows that are sorted in memory; more of them wait in a temporary file."""


def sorted_rows(rows: Iterable[tuple[Any, ...]], width: int) -> Iterator[tuple[Any, ...]]:
    """Rows of texts and whole numbers in the order in which Python sorts them.

    Memory holds no more than `ROWS_AT_ONCE` of them, however many there are.

    Args:
        width: how many values a row has; texts may hold what is no UTF-8, as file names do.
    """
    iterator = iter(rows)
    first = list(islice(iterator, ROWS_AT_ONCE + 1))
    if len(first) <= ROWS_AT_ONCE:
        return iter(sorted(first))
    return _sorted_by_database(chain(first, iterator), width)


def _sorted_by_database(rows: Iterable[tuple[Any, ...]], width: int) -> Iterator[tuple[Any, ...]]:
    """The same by way of a temporary database, which sorts on disk."""
    database = sqlite3.connect("", check_same_thread=False)  # "" is a temporary file
    columns = [f"c{number}" for number in range(width)]
    database.execute(f"CREATE TABLE stored ({', '.join(columns)})")
    # Bytes of UTF-8 are ordered as the characters are, also of what stands for other bytes.
    database.executemany(f"INSERT INTO stored VALUES ({', '.join('?' * width)})", (
        [value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
         for value in row] for row in rows))
    for row in database.execute(f"SELECT * FROM stored ORDER BY {', '.join(columns)}"):
        yield tuple(value.decode("utf-8", "surrogatepass") if isinstance(value, bytes) else value
                    for value in row)
