"""Rows of a corpus with equal or nearly equal codes, without comparing every row with every other.

Near are two rows whose codes differ at no more than T of n places. The places are dealt out to
T + 1 bands; two near rows then agree in a whole band, since T differences cannot reach all of them.
So only rows with the same hash of some band are compared, code by code: every pair that is told is
one, and none is missed, unless a band has one content in more than `WINDOW` rows, which are then
compared with the `WINDOW` rows after each only (``complete`` is false). Bands take every (T + 1)th
place, so that an even patch such as sky does not fill one.

Hashes and codes lie in temporary files, n codes and 8 (T + 2) bytes a row; memory holds
`HASHES_AT_ONCE` hashes and one byte a row, whatever the size of the corpus, or the 24 bytes of each
row of the largest group where that is more.

Letters: N rows, n codes of a row, T places that may differ.

Source: Manku et al. 2007, doi:10.1145/1242572.1242592, section 3, with codes in place of bits.
"""
import contextlib
import heapq
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tokenizer.filters import RowFilter, selected_tables
from tokenizer.schema import CodeSpec, codes_array
from tokenizer.tokens import TokenCorpus

HASHES_AT_ONCE = 1 << 23
"""Hashes that are sorted in memory at once: about 200 MB with their places."""

WINDOW = 256
"""Rows with an equal band that each row is compared with at most."""

CHUNK = 4096
"""Rows that are hashed at once, and rows with equal hashes whose codes are read at once."""

ROWS_LISTED = 20
"""Rows named of one group of equal ones."""


class SpilledCodes:
    """The codes of some rows in a file, and beside them hashes of all of a row and of its bands.

    Attributes:
        codes: ``(N, n)`` as stored, mapped from the file.
        hashes: uint64 ``(N,)``, mapped: of all codes first, then of each band.
        bands: places of each band, T + 1 of them.
        rows_of_shards: how many rows each shard has given.
    """

    def __init__(self, folder: Path, corpus: TokenCorpus, spec: CodeSpec, max_distance: int,
                 rows: RowFilter | None) -> None:
        places = np.arange(spec.num_codes)
        self.bands = [places[band::max_distance + 1] for band in range(max_distance + 1)]
        sets = [places, *(self.bands if max_distance else [])]
        self.rows_of_shards: list[int] = []
        paths = [folder / f"hashes-{index}" for index in range(len(sets))]
        with contextlib.ExitStack() as stack:
            file, *files = (stack.enter_context(path.open("wb"))
                            for path in (folder / "codes", *paths))
            for table in selected_tables(corpus, [spec.column], rows):
                codes = codes_array(spec, table).reshape(table.num_rows, spec.num_codes)
                for start in range(0, len(codes), CHUNK):
                    part = codes[start:start + CHUNK]
                    file.write(part.tobytes())
                    for target, chosen in zip(files, sets, strict=True):
                        target.write(hashed(part[:, chosen]).tobytes())
                self.rows_of_shards.append(table.num_rows)
        shape = (sum(self.rows_of_shards), spec.num_codes)
        self.codes = _mapped(folder / "codes", spec.dtype, shape)
        self.hashes = [_mapped(path, np.dtype(np.uint64), shape[:1]) for path in paths]


def find_duplicates(corpus: TokenCorpus, modality: str, max_distance: int = 0,
                    rows: RowFilter | None = None, num_listed: int = 20) -> dict[str, Any]:
    """Groups of rows with equal codes, and pairs of rows with nearly equal ones.

    Args:
        modality: whose codes are compared.
        max_distance: T, codes that may differ; 0 looks for equal rows only.
        rows: takes some of the rows; nothing takes all.
        num_listed: groups and pairs that are named, the largest and the nearest; all are counted.
    Returns:
        JSON values: ``exact`` with ``num_groups``, ``num_copies`` (rows beside the first of each
        group) and ``listed``; ``near`` with ``num_pairs``, ``complete`` and ``listed``, among the
        first rows of all groups.
    Raises:
        ValueError: the corpus has no such codes, T is out of range, or no row is taken.
    """
    spec = corpus.spec[modality]
    if not 0 <= max_distance < spec.num_codes:
        raise ValueError(f"codes that may differ must be 0 to {spec.num_codes - 1}, fewer than a "
                         f"row of {modality} codes has, got {max_distance}")
    with tempfile.TemporaryDirectory(prefix="img2tokens-") as folder:
        spilled = SpilledCodes(Path(folder), corpus, spec, max_distance, rows)
        num_rows = len(spilled.codes)
        if rows is not None:
            rows.require_rows(num_rows, corpus.url)
        is_copy = np.zeros(num_rows, bool)
        exact = exact_groups(spilled, is_copy, num_listed)
        near = near_pairs(spilled, is_copy, num_listed)
    named = [place for item in exact["listed"] for place in item["rows"]]
    named += [place for item in near["listed"] for place in item["rows"]]
    names = name_rows(corpus, rows, spilled.rows_of_shards, named)
    for item in (*exact["listed"], *near["listed"]):
        item["rows"] = [names[place] for place in item["rows"]]
    return {"modality": modality, "num_rows": num_rows, "max_distance": max_distance,
            "exact": exact, "near": near}


def exact_groups(spilled: SpilledCodes, is_copy: np.ndarray, num_listed: int) -> dict[str, Any]:
    """Rows with equal codes; notes in ``is_copy`` ``(N,)`` all but the first row of each group."""
    num_groups = 0
    largest: list[tuple[int, int, list[int]]] = []  # size, minus the first row, rows
    for run in equal_hashes(spilled.hashes[0]):
        for size, members in _equal_codes(spilled.codes, run, is_copy):
            num_groups += 1
            heapq.heappush(largest, (size, -members[0], members))
            if len(largest) > num_listed:
                heapq.heappop(largest)
    listed = [{"size": size, "rows": members} for size, _, members in sorted(largest, reverse=True)]
    return {"num_groups": num_groups, "num_copies": int(is_copy.sum()), "listed": listed}


def near_pairs(spilled: SpilledCodes, is_copy: np.ndarray, num_listed: int) -> dict[str, Any]:
    """Pairs of rows, copies left out, that differ in 1 to T codes."""
    num_pairs, complete = 0, True
    nearest: list[tuple[int, int, int]] = []  # minus the distance, minus both rows
    for band, hashes in enumerate(spilled.hashes[1:]):
        for run in equal_hashes(hashes, ~is_copy):
            complete &= len(run) <= WINDOW + 1
            for first in range(len(run) - 1):
                others = run[first + 1:first + 1 + WINDOW]
                for other, distance in _near_rows(spilled, band, run[first], others):
                    num_pairs += 1
                    heapq.heappush(nearest, (-distance, -int(run[first]), -other))
                    if len(nearest) > num_listed:
                        heapq.heappop(nearest)
    listed = [{"distance": -distance, "rows": [-first, -other]}
              for distance, first, other in sorted(nearest, reverse=True)]
    return {"num_pairs": num_pairs, "complete": complete, "listed": listed}


def hashed(codes: np.ndarray) -> np.ndarray:
    """A 64-bit hash of each row of codes ``(N, m)``, uint64 ``(N,)``; the same on every machine."""
    factors = np.random.default_rng(codes.shape[1]).integers(
        1 << 64, size=codes.shape[1], dtype=np.uint64)
    mixed: np.ndarray = ((codes.astype(np.uint64) + 1) * (factors | np.uint64(1))).sum(
        1, dtype=np.uint64)
    mixed ^= mixed >> np.uint64(32)
    mixed *= np.uint64(0x9E3779B97F4A7C15)
    return mixed ^ mixed >> np.uint64(29)


def equal_hashes(hashes: np.ndarray, taken: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Rows that share a hash with another one, ascending, int64 ``(m,)`` with m at least 2.

    Args:
        hashes: uint64 ``(N,)``.
        taken: bool ``(N,)``, rows to look at.
    """
    num_parts = -(-len(hashes) // HASHES_AT_ONCE)
    for part in range(num_parts):
        rows, values = _of_part(hashes, taken, part, num_parts)
        order = np.argsort(values, kind="stable")
        rows, values = rows[order], values[order]
        starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1], True])
        for start in np.flatnonzero(np.diff(starts) > 1):
            yield rows[starts[start]:starts[start + 1]]


def name_rows(corpus: TokenCorpus, rows: RowFilter | None, rows_of_shards: Sequence[int],
              places: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Key, crop and source of rows by their place among all that are taken."""
    ends = np.cumsum(rows_of_shards)
    wanted: dict[int, list[int]] = {}
    for place in sorted(set(places)):
        wanted.setdefault(int(np.searchsorted(ends, place, side="right")), []).append(place)
    names: dict[int, dict[str, Any]] = {}
    columns = ["key", "crop_index", "source"]
    for shard, found in wanted.items():
        table = corpus.read_shard(shard, [*columns, *(rows.columns if rows else ())])
        table = (table if rows is None else rows.select(table)).select(columns)
        first = int(ends[shard]) - rows_of_shards[shard]
        taken = table.take(pa.array([place - first for place in found])).to_pylist()
        names |= dict(zip(found, taken, strict=True))
    return names


def _of_part(hashes: np.ndarray, taken: np.ndarray | None, part: int,
             num_parts: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows, and their hashes, whose hash falls into one of several parts."""
    rows = [np.empty(0, np.int64)]
    for start in range(0, len(hashes), HASHES_AT_ONCE):
        piece = hashes[start:start + HASHES_AT_ONCE]
        inside = piece % np.uint64(num_parts) == part
        if taken is not None:
            inside &= taken[start:start + HASHES_AT_ONCE]
        rows.append(np.flatnonzero(inside) + start)
    found = np.concatenate(rows)
    return found, np.asarray(hashes[found])


def _equal_codes(codes: np.ndarray, run: np.ndarray,
                 is_copy: np.ndarray) -> Iterator[tuple[int, list[int]]]:
    """Groups of rows with equal codes among rows with equal hashes; notes all but the first.

    Yields:
        Their number, and the first `ROWS_LISTED` of them.
    """
    sizes, groups = Counter[bytes](), dict[bytes, list[int]]()
    for start in range(0, len(run), CHUNK):
        part = run[start:start + CHUNK]
        for row, found in zip(part.tolist(), codes[part], strict=True):
            content = found.tobytes()
            members = groups.setdefault(content, [])
            is_copy[row] = sizes[content] > 0
            sizes[content] += 1
            if len(members) < ROWS_LISTED:
                members.append(row)
    yield from ((sizes[content], members) for content, members in groups.items()
                if sizes[content] > 1)


def _near_rows(spilled: SpilledCodes, band: int, first: int,
               others: np.ndarray) -> Iterator[tuple[int, int]]:
    """Rows near to one, and how many codes differ; not those told of an earlier band."""
    differs = spilled.codes[others] != spilled.codes[first]
    distances = differs.sum(1)
    near = (distances > 0) & (distances < len(spilled.bands))
    for earlier in spilled.bands[:band]:
        near &= differs[:, earlier].any(1)
    yield from zip(others[near].tolist(), distances[near].tolist(), strict=True)


def _mapped(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
    """An array in a file; an empty one where there is nothing to map."""
    return np.memmap(path, dtype, "r", shape=shape) if shape[0] else np.empty(shape, dtype)
