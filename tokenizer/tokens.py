"""Token corpora on disk: commit shards, read them back, complete and verify a corpus.

A shard is committed in three steps: its Parquet file, its dead letters, and last its receipt. What
has no receipt does not exist for readers. `complete` checks every shard, then writes the manifest
and ``_SUCCESS``; `TokenCorpus` reads a completed corpus; `verify` finds what is damaged.

Two attempts at one shard write the same bytes, so it does not matter which of them is kept.
"""
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tokenizer import configs, storage
from tokenizer.schema import (
    DEAD_SCHEMA,
    CodeUsage,
    Manifest,
    ShardEntry,
    TokenSpec,
    codes_array,
)

DATA, PLAN, RECEIPTS, DEAD = "data", "_plan", "_receipts", "_dead"
MANIFEST, SUCCESS, CARD = "manifest.json", "_SUCCESS", "README.md"


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """An input that failed.

    Attributes:
        key: stable id of the input.
        source: where it came from.
        stage: ``plan``, ``read``, ``crop`` or ``encode``.
        error: class of the error, such as ``UnreadableImage``.
        message: what was wrong, in words.
    """
    key: str
    source: str
    stage: str
    error: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """The commit of one shard, written last.

    Attributes:
        shard: its index in the plan.
        fingerprint: of the plan it belongs to.
        entry: path, rows, bytes and SHA-256 of its file.
        dead_letters: how many of its inputs failed, by error class.
    """
    shard: int
    fingerprint: str
    entry: ShardEntry
    dead_letters: dict[str, int]

    @property
    def num_inputs(self) -> int:
        """Inputs that this shard accounts for: rows and dead letters."""
        return self.entry.rows + sum(self.dead_letters.values())


def shard_name(shard: int, num_shards: int) -> str:
    """Path of a shard below its corpus."""
    return f"{DATA}/part-{shard:05d}-of-{num_shards:05d}.parquet"


def receipt_name(shard: int) -> str:
    """Path of a shard's receipt below its corpus."""
    return f"{RECEIPTS}/{shard:05d}.json"


def dead_name(shard: int) -> str:
    """Path of a shard's dead letters below its corpus; there is no file when nothing failed."""
    return f"{DEAD}/{shard:05d}.parquet"


def commit_shard(url: str, shard: int, num_shards: int, fingerprint: str,
                 rows: pa.Table, dead: Sequence[DeadLetter] = ()) -> Receipt:
    """Write one shard, its dead letters and its receipt, in this order, each atomically.

    Args:
        url: the corpus.
        rows: a table of `tokenizer.schema.rows_table`.
        dead: the inputs of this shard that failed.
    Raises:
        OSError: the store refuses; without its receipt the shard counts as not done.
    """
    content = parquet_bytes(rows)
    name = shard_name(shard, num_shards)
    storage.write_bytes(storage.join(url, name), content)
    if dead:
        table = pa.Table.from_pylist([configs.to_dict(letter) for letter in dead], DEAD_SCHEMA)
        storage.write_bytes(storage.join(url, dead_name(shard)), parquet_bytes(table))
    entry = ShardEntry(name=name, rows=rows.num_rows, bytes=len(content),
                       sha256=storage.sha256(content))
    reasons = dict(sorted(Counter(letter.error for letter in dead).items()))
    receipt = Receipt(shard=shard, fingerprint=fingerprint, entry=entry, dead_letters=reasons)
    text = json.dumps(configs.to_dict(receipt), indent=1, sort_keys=True) + "\n"
    storage.write_bytes(storage.join(url, receipt_name(shard)), text.encode())
    return receipt


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as one Parquet file: the same bytes for the same rows."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", compression_level=1,
                   dictionary_pagesize_limit=1 << 20, write_statistics=False)
    return buffer.getvalue()


def read_receipts(url: str, fingerprint: str) -> dict[int, Receipt]:
    """The receipts of a corpus by shard.

    A receipt that cannot be read counts as absent, so that its shard is made again.

    Raises:
        ValueError: a receipt belongs to another plan.
    """
    receipts = {}
    for name in storage.list_files(storage.join(url, RECEIPTS)):
        content = storage.read_bytes(storage.join(url, RECEIPTS, name))
        try:
            receipt = configs.from_dict(Receipt, json.loads(content))
        except ValueError:
            continue
        if receipt.fingerprint != fingerprint:
            raise ValueError(f"{storage.join(url, RECEIPTS, name)} belongs to the plan "
                             f"{receipt.fingerprint}, this one is {fingerprint}")
        receipts[receipt.shard] = receipt
    return receipts


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
            started = storage.exists(storage.join(url, PLAN))
            remedy = ("its job has not finished; run the same encode command again to complete it"
                      if started else "give the folder that `img2tokens encode` wrote")
            raise FileNotFoundError(
                f"{url} holds no completed token corpus (no {SUCCESS}): {remedy}")
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
        return read_shard(self.url, self.manifest.shards[shard], self.spec, columns)

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The rows shard by shard, in order."""
        for shard in range(self.num_shards):
            yield self.read_shard(shard, columns)

    def dead_letters(self) -> Iterator[DeadLetter]:
        """All dead letters, in the order of the plan."""
        for name in sorted(storage.list_files(storage.join(self.url, DEAD))):
            content = storage.read_bytes(storage.join(self.url, DEAD, name))
            for row in pq.read_table(io.BytesIO(content)).to_pylist():
                yield DeadLetter(**row)


def read_shard(url: str, entry: ShardEntry, spec: TokenSpec,
               columns: Sequence[str] | None = None) -> pa.Table:
    """Rows of the shard ``entry`` of the corpus at ``url``, checked against ``spec``."""
    name = storage.join(url, entry.name)
    fs, path = storage.locate(name)
    try:
        with fs.open(path, "rb") as file:
            parquet = pq.ParquetFile(file)
            spec.require_equal(TokenSpec.from_arrow(parquet.schema_arrow, name), name)
            return parquet.read(columns=list(columns) if columns is not None else None)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{name} is damaged ({error}); `img2tokens inspect {url} --verify` "
                         "lists every damaged shard") from error


def check_shard(url: str, entry: ShardEntry, spec: TokenSpec,
                counts: dict[str, np.ndarray] | None = None) -> str | None:
    """What is wrong with a shard's file, or nothing: size, SHA-256, spec, rows and code range.

    Args:
        counts: per modality, integer ``(K,)``; the shard's codes are added to it.
    """
    name = storage.join(url, entry.name)
    try:
        content = storage.read_bytes(name)
    except FileNotFoundError:
        return f"{entry.name} is missing"
    if len(content) != entry.bytes:
        return f"{entry.name} is damaged: {len(content)} bytes, its receipt says {entry.bytes}"
    if (digest := storage.sha256(content)) != entry.sha256:
        return f"{entry.name} is damaged: SHA-256 {digest}, its receipt says {entry.sha256}"
    try:
        table = pq.read_table(io.BytesIO(content))
        spec.require_equal(TokenSpec.from_arrow(table.schema, entry.name), entry.name)
        for modality in spec.codes:
            codes = codes_array(modality, table)
            modality.check_codes(codes)
            if counts is not None:
                counts[modality.modality] += np.bincount(codes.reshape(-1),
                                                         minlength=modality.codebook_size)
    except (pa.ArrowException, ValueError) as error:
        return f"{entry.name} is damaged: {error}"
    if table.num_rows != entry.rows:
        return f"{entry.name} holds {table.num_rows} rows, its receipt says {entry.rows}"
    return None


def complete(url: str, spec: TokenSpec, fingerprint: str, receipts: Iterable[Receipt],
             classes: Sequence[str], num_inputs: int) -> Manifest:
    """Check every shard, then write the dataset card, the manifest and ``_SUCCESS``.

    Args:
        receipts: one for each shard of the plan.
        num_inputs: inputs of the plan; rows and dead letters must add up to it.
    Raises:
        ValueError: a shard is missing, damaged or surplus, or inputs are unaccounted for.
    """
    receipts = sorted(receipts, key=lambda receipt: receipt.shard)
    counts = {code.modality: np.zeros(code.codebook_size, np.int64) for code in spec.codes}
    problems = [problem for receipt in receipts
                if (problem := check_shard(url, receipt.entry, spec, counts))]
    problems += surplus_files(url, [receipt.entry for receipt in receipts])
    accounted = sum(receipt.num_inputs for receipt in receipts)
    if accounted != num_inputs:
        problems.append(f"{accounted} of {num_inputs} inputs are accounted for")
    if problems:
        raise ValueError(f"the audit of {url} failed: " + "; ".join(problems))
    dead: Counter[str] = Counter()
    for receipt in receipts:
        dead.update(receipt.dead_letters)
    manifest = Manifest(
        spec=spec, fingerprint=fingerprint, num_inputs=num_inputs,
        num_rows=sum(receipt.entry.rows for receipt in receipts),
        shards=tuple(receipt.entry for receipt in receipts),
        dead_letters=dict(sorted(dead.items())), classes=tuple(classes),
        usage={name: CodeUsage.of(count) for name, count in counts.items()})
    storage.write_bytes(storage.join(url, CARD), dataset_card(manifest).encode())
    storage.write_bytes(storage.join(url, MANIFEST), manifest.to_json().encode())
    storage.write_bytes(storage.join(url, SUCCESS), b"")
    return manifest


def surplus_files(url: str, entries: Sequence[ShardEntry]) -> list[str]:
    """Files under ``data/`` that belong to no shard of the corpus."""
    known = {entry.name for entry in entries}
    found = (f"{DATA}/{name}" for name in sorted(storage.list_files(storage.join(url, DATA))))
    return [f"{name} is surplus: no receipt names it" for name in found if name not in known]


def verify(corpus: TokenCorpus) -> Iterator[str | None]:
    """Check every shard of a completed corpus: one item a shard, then one for each surplus file.

    Yields:
        ``None`` for a sound shard, else what is wrong.
    """
    for entry in corpus.manifest.shards:
        yield check_shard(corpus.url, entry, corpus.spec)
    yield from surplus_files(corpus.url, corpus.manifest.shards)


def dataset_card(manifest: Manifest) -> str:
    """README.md of a corpus: with it, `datasets.load_dataset` and the Hub read the shards as is."""
    lines = ["---", "configs:", "- config_name: default", f"  data_files: {DATA}/*.parquet",
             "tags:", "- img2tokens", "---", "", "# Token corpus", "",
             f"{manifest.num_rows} rows from {manifest.num_inputs} inputs, "
             f"{manifest.num_dead_letters} dead letters, {len(manifest.shards)} shards.", "",
             "| modality | grid | codebook | used | perplexity | tokenizer |",
             "|---|---|---|---|---|---|"]
    for spec in manifest.spec.codes:
        usage = manifest.usage[spec.modality]
        lines.append(f"| {spec.modality} | {spec.grid[0]} x {spec.grid[1]} | {spec.codebook_size} "
                     f"| {usage.used} | {usage.perplexity:.1f} | `{spec.tokenizer}` |")
    lines += ["", "Codes are stored in raster order; `manifest.json` holds the spec, and each "
              "shard's metadata repeats it.", ""]
    return "\n".join(lines)


