"""Token corpora on disk: commit shards, and read them back.

A shard is committed in three steps: its Parquet file, its dead letters, and last its receipt. What
has no receipt does not exist for readers. `TokenCorpus` reads a corpus that `tokenizer.audit` has
completed.

Two attempts at one shard write the same bytes, so it does not matter which of them is kept.

Letters: h and w the rows and columns of the code grid, K codebook size.
"""
import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from tokenizer import configs, storage
from tokenizer.census import Census
from tokenizer.deltas import delta_folder, delta_mark, job_url
from tokenizer.grids import check_grids

# Receipts are part of a corpus, so that its readers and writers find them here too.
from tokenizer.receipts import RECEIPTS as RECEIPTS
from tokenizer.receipts import Receipt, write_receipt
from tokenizer.receipts import read_receipt as read_receipt
from tokenizer.receipts import read_receipts as read_receipts
from tokenizer.receipts import receipt_name as receipt_name
from tokenizer.receipts import receipted_shards as receipted_shards
from tokenizer.schema import (
    DEAD_SCHEMA,
    Manifest,
    ShardEntry,
    TokenSpec,
    naming_file,
)
from tokenizer.stores import StoredFile

DATA, PLAN, DEAD = "data", "_plan", "_dead"
MANIFEST, SUCCESS, CARD = "manifest.json", "_SUCCESS", "README.md"


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """An input that failed.

    Attributes:
        key: stable id of the input.
        source: where it came from.
        stage: ``plan`` (found while listing), ``read`` (bytes), ``decode`` (bytes to pixels),
            ``crop``, ``encode`` (pixels to codes); of the decode job ``name``, ``decode`` (codes to
            pixels) or ``write``.
        error: class of the error, such as ``UnreadableImage``.
        message: what was wrong, in words.
    """
    key: str
    source: str
    stage: str
    error: str
    message: str


class AuditFailure(ValueError):
    """A corpus is not what its receipts say.

    Attributes:
        problems: what is wrong, one line for each file or sum.
        shards: indices of the shards to make again.
        shards_of_deltas: the same of deltas, by their numbers.
    """

    def __init__(self, url: str, problems: Sequence[str], shards: Sequence[int],
                 shards_of_deltas: Mapping[int, Sequence[int]] | None = None) -> None:
        shown = "; ".join(problems[:8])
        more = f"; and {len(problems) - 8} more" if len(problems) > 8 else ""
        super().__init__(f"the audit of {url} failed: {shown}{more}")
        self.problems = list(problems)
        self.shards = list(shards)
        self.shards_of_deltas = dict(shards_of_deltas or {})


def shard_name(shard: int, num_shards: int, delta: int = 0) -> str:
    """Path of a shard below its corpus."""
    return f"{DATA}/part-{delta_mark(delta)}{shard:05d}-of-{num_shards:05d}.parquet"


def dead_name(shard: int, delta: int = 0) -> str:
    """Path of a shard's dead letters below its corpus; there is no file when nothing failed."""
    return f"{dead_folder(delta)}/{shard:05d}.parquet"


def dead_folder(delta: int) -> str:
    """Path of a generation's dead letters below its corpus."""
    return f"{delta_folder(delta)}/{DEAD}" if delta else DEAD


def commit_shard(url: str, shard: int, num_shards: int, fingerprint: str,
                 rows: pa.Table, dead: Sequence[DeadLetter] = (), num_crops: int = 1,
                 delta: int = 0) -> Receipt:
    """Write one shard, its dead letters and its receipt, in this order, each atomically.

    Dead letters that an earlier attempt has left are removed when there are none now.

    Args:
        url: the corpus.
        rows: a table of `tokenizer.schema.rows_table`.
        dead: the inputs of this shard that failed.
        num_crops: rows of each other input.
        delta: number of the generation that the shard belongs to; see `tokenizer.deltas`.
    Raises:
        OSError: the store refuses; without its receipt the shard counts as not done.
    """
    entry = _write_table(url, shard_name(shard, num_shards, delta), rows)
    dead_file = None
    if dead:
        table = pa.Table.from_pylist([configs.to_dict(letter) for letter in dead], DEAD_SCHEMA)
        dead_file = _write_table(url, dead_name(shard, delta), table)
    else:
        storage.remove(storage.join(url, dead_name(shard, delta)))
    reasons = dict(sorted(Counter(letter.error for letter in dead).items()))
    receipt = Receipt(shard=shard, fingerprint=fingerprint, entry=entry, dead_letters=reasons,
                      dead_file=dead_file, num_crops=num_crops)
    write_receipt(job_url(url, delta), receipt)
    return receipt


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as one Parquet file: the same bytes for the same rows."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", compression_level=1,
                   dictionary_pagesize_limit=1 << 20, write_statistics=False)
    return buffer.getvalue()


def read_parquet(content: bytes) -> pa.Table:
    """The rows of one Parquet file, read on this thread alone.

    Arrow's own threads may abort a process that ends while they still stand by, long after its work
    is done (apache/arrow issue 34314); shards are read side by side instead.
    """
    return pq.ParquetFile(io.BytesIO(content)).read(use_threads=False)


class TokenCorpus:
    """A completed token corpus: its manifest, and its rows shard by shard.

    Attributes:
        url: where it lies.
        manifest: what it holds.
    """

    def __init__(self, url: str, manifest: Manifest) -> None:
        self.url = url
        self.manifest = manifest

    @classmethod
    def open(cls, url: str) -> "TokenCorpus":
        """The corpus at ``url``.

        Raises:
            FileNotFoundError: there is no corpus, or none whose job has finished.
            ValueError: the manifest is damaged or of another version.
        """
        if not storage.exists(storage.join(url, SUCCESS)):
            raise FileNotFoundError(f"{url} holds no completed token corpus (no {SUCCESS}): "
                                    f"{_how_to_complete(url)}")
        name = storage.join(url, MANIFEST)
        return cls(url, Manifest.from_json(storage.read_bytes(name), name))

    @property
    def spec(self) -> TokenSpec:
        """What its codes mean."""
        return self.manifest.spec

    @property
    def num_shards(self) -> int:
        """Number of shards."""
        return len(self.manifest.shards)

    def read_shard(self, shard: int, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of one shard, or some of its columns.

        Raises:
            ValueError: the file is damaged, or holds codes of another spec.
        """
        return read_shard(self.url, self.manifest.shards[shard], self.manifest.spec, columns,
                          self.read_columns)

    def read_columns(self, file: pq.ParquetFile, columns: Sequence[str] | None) -> pa.Table:
        """Some columns of a shard, or all, as this corpus has them; read on this thread alone."""
        return read_columns(file, columns)

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The rows shard by shard, in order."""
        for shard in range(self.num_shards):
            yield self.read_shard(shard, columns)

    def dead_letters(self) -> Iterator[DeadLetter]:
        """All dead letters, in the order of the plan."""
        for entry in self.manifest.dead_files:
            yield from read_dead_letters(self.url, entry)


def _how_to_complete(url: str) -> str:
    if storage.exists(storage.join(url, PLAN)):
        return "its job has not finished; run the same command again to complete it"
    if not storage.exists(url):
        return "nothing lies there; look whether the name is right"
    return "give the folder that `img2tokens encode` or `sample` wrote"


def read_columns(file: pq.ParquetFile, columns: Sequence[str] | None) -> pa.Table:
    """Some columns of a Parquet file, or all, read on this thread alone."""
    return file.read(columns=list(columns) if columns is not None else None, use_threads=False)


def read_shard(url: str, entry: ShardEntry, spec: TokenSpec,
               columns: Sequence[str] | None = None,
               read: Callable[[pq.ParquetFile, Sequence[str] | None], pa.Table] = read_columns,
               ) -> pa.Table:
    """Rows of the shard ``entry`` of the corpus at ``url``, checked against ``spec``.

    Args:
        read: takes columns from the file; see `read_columns`.

    Raises:
        FileNotFoundError: the file is missing.
        OSError: its store cannot be reached.
        ValueError: the file is damaged, or holds codes of another spec.
    """
    name = storage.join(url, entry.name)
    remedy = f"`img2tokens inspect {url} --verify` lists every shard that is missing or damaged"
    try:
        file = StoredFile(name)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{name} is missing; {remedy}") from error
    with file, file.telling_damage(remedy):
        parquet = pq.ParquetFile(file)
        spec.require_equal(TokenSpec.from_arrow(parquet.schema_arrow, name), name)
        return read(parquet, columns)


def read_dead_letters(url: str, entry: ShardEntry) -> list[DeadLetter]:
    """The dead letters of one shard.

    Raises:
        FileNotFoundError: their file is missing.
        ValueError: it is damaged.
    """
    name = storage.join(url, entry.name)
    return dead_letters_in(storage.read_bytes(name), name)


def dead_letters_in(content: bytes, name: str) -> list[DeadLetter]:
    """The dead letters that a file of them holds; ``name`` is the file's, for the message."""
    with naming_file(name):
        table = read_parquet(content)
        if table.schema.names != DEAD_SCHEMA.names:
            raise ValueError(f"its columns are {', '.join(table.schema.names)}, those of dead "
                             f"letters {', '.join(DEAD_SCHEMA.names)}")
    return [DeadLetter(**row) for row in table.to_pylist()]


def read_checked(url: str, entry: ShardEntry) -> tuple[bytes | None, str | None]:
    """The content of a file, or what is wrong: it is missing, or of another size or SHA-256."""
    try:
        content = storage.read_bytes(storage.join(url, entry.name))
    except FileNotFoundError:
        return None, f"{entry.name} is missing"
    found = {"bytes": len(content), "sha256": storage.sha256(content)}
    for name, value in found.items():
        if value != getattr(entry, name):
            return None, (f"{entry.name} is damaged: {name} {value}, its receipt says "
                          f"{getattr(entry, name)}")
    return content, None


def check_shard(url: str, entry: ShardEntry, spec: TokenSpec, census: Census | None = None,
                planned: Sequence[str] | None = None, num_crops: int = 1,
                dead: Counter[str] | None = None) -> str | None:
    """What is wrong with a shard's file, or nothing: size, SHA-256, schema, codes, rows and keys.

    Args:
        census: the rows of a sound shard are added to it.
        planned: keys of the shard's inputs in order, with repeats; the rows must be those of them
            that are not dead.
        num_crops: rows that each of these inputs must have, the crops of its image in order.
        dead: how many inputs of each key failed; nothing for none.
    """
    content, problem = read_checked(url, entry)
    if content is None:
        return problem
    try:
        table = read_parquet(content)
        spec.require_equal(TokenSpec.from_arrow(table.schema, entry.name), entry.name)
        if not table.schema.equals(spec.arrow_schema()):
            return f"{entry.name} has other columns than its spec says"
        check_grids(spec, table)
    except (pa.ArrowException, OSError, ValueError) as error:
        return f"{entry.name} is damaged: {error}"
    if table.num_rows != entry.rows:
        return f"{entry.name} holds {table.num_rows} rows, its receipt says {entry.rows}"
    if planned is not None and not holds_crops(table, planned, dead or Counter(), num_crops):
        times = "once" if num_crops == 1 else f"{num_crops} times, its crops"
        return f"{entry.name} does not hold the keys of its plan, each {times} and in order"
    if census is not None:
        census.add(spec, table)
    return None


def holds_crops(table: pa.Table, planned: Sequence[str], dead: Counter[str],
                num_crops: int) -> bool:
    """Whether the rows are those of the planned inputs that are not dead, in order, each with all
    crops of its image.

    Of a key that was planned several times any of its inputs may be the dead ones: an image without
    its map may stand before another one of the same key, or behind it.
    """
    found = table["key"].to_pylist()
    keys, left = found[::num_crops], iter(planned)
    return (found == [key for key in keys for _ in range(num_crops)]
            and table["crop_index"].to_pylist() == list(range(num_crops)) * len(keys)
            and Counter(keys) + dead == Counter(planned)
            and all(key in left for key in keys))  # each is found behind the one before it


def _write_table(url: str, name: str, table: pa.Table) -> ShardEntry:
    content = parquet_bytes(table)
    storage.write_bytes(storage.join(url, name), content)
    return ShardEntry(name=name, rows=table.num_rows, bytes=len(content),
                      sha256=storage.sha256(content))
