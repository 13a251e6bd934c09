"""The decode job: a token corpus becomes image files, named by key.

    OUT/<key>.png              with one modality; OUT/<modality>/<key>.png with several
    OUT/_decode/data/          one table a shard: which files hold which key, with their SHA-256
    OUT/_decode/_plan/ ...     plan, receipts and dead letters, as in a token corpus
    OUT/_decode/_SUCCESS       only after every file was found

It runs on the same machinery as the encode job, one element a shard, and continues alike.

Letters: B images of a batch, h and w rows and columns of the code grid.
"""
import contextlib
import errno
import itertools
import posixpath
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines import codecs
from pipelines.array import (
    ArrayJob,
    Part,
    Unfinished,
    make_part,
    refuse_overwrite,
    require_own_machine,
)
from pipelines.engines import LOCAL, engine_of, require_absolute
from pipelines.job import Job, OutputRefused, ShardTask, commit
from pipelines.names import RESERVED, SUFFIXES, DuplicateKey, NameTable, UnusableKey
from pipelines.ordered import ordered
from pipelines.plan import Plan, load_plan, make_plan
from pipelines.shard import describe
from tokenizer import configs, storage, tokens
from tokenizer.corpus.modalities import PICTURE_SUFFIXES
from tokenizer.filters import RowFilter, selected_tables
from tokenizer.schema import codes_array
from tokenizer.tokens import AuditFailure, DeadLetter, Receipt, TokenCorpus

NAMES_SCHEMA = pa.schema([
    pa.field("key", pa.string(), nullable=False),
    pa.field("crop_index", pa.int32(), nullable=False),
    pa.field("name", pa.string()),
    pa.field("error", pa.string()),
    pa.field("message", pa.string()),
])
"""One crop in the plan: its file's path without suffix, or why it can have none."""

OF_ONE_NAME = {errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EILSEQ,
               errno.EINVAL}
"""System errors that concern the name of one file; any other means that the store refuses."""

NUM_WRITERS = 4
"""Threads that compress and write files, and that look for them in the audit."""


@dataclass(frozen=True, kw_only=True)
class DecodeConfig:
    """What to decode, and how.

    Attributes:
        tokens: folder of a completed token corpus.
        output: folder of the images.
        tokenizers: folder of the tokenizer of each modality to decode.
        picture: format of images, ``png``, ``jpeg`` or ``webp``; maps are always PNG.
        batch_size: crops that pass through a codec at once.
        engine: what makes the shards; see `pipelines.engines`.
        num_workers: processes of the local engine that decode at the same time.
        beam_flags: further flags of Beam's, for the engine.
        overwrite: start over where an earlier decode job has written.
        filter: which rows to decode, an expression of `tokenizer.filters`; ``None`` for all.
    """
    tokens: str
    output: str
    tokenizers: Mapping[str, str]
    picture: str = "png"
    batch_size: int = 8
    engine: str = LOCAL
    num_workers: int = 1
    beam_flags: tuple[str, ...] = ()
    overwrite: bool = False
    filter: str | None = None

    def __post_init__(self) -> None:
        if self.picture not in PICTURE_SUFFIXES:
            raise ValueError(f"images are written as {', '.join(PICTURE_SUFFIXES)}, got "
                             f"{self.picture!r}")
        if not self.tokenizers:
            raise ValueError("give the tokenizer of at least one modality")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
        require_absolute(engine_of(self), [self.tokens, self.output, *self.tokenizers.values()])

    @property
    def job_folder(self) -> str:
        """Folder of the job's own files."""
        return storage.join(self.output, RESERVED)


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """What a decode job has written.

    Attributes:
        num_crops: rows of the corpus whose files are there, one for each modality.
        dead_letters: how many rows failed, by error class.
    """
    num_crops: int
    dead_letters: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class DecodeTask(ShardTask):
    """Decodes the shards of a corpus."""
    plan: Plan
    corpus: TokenCorpus
    config: DecodeConfig

    @property
    def url(self) -> str:
        return self.plan.url

    def prepare(self) -> None:
        codecs.codecs_of(self.config.tokenizers, self.corpus.spec, self.config.batch_size)

    def run(self, shard: int) -> Receipt:
        entry = self.corpus.manifest.shards[shard]
        if problem := tokens.check_shard(self.corpus.url, entry, self.corpus.spec):
            raise ValueError(f"{self.corpus.url}: {problem}; run its encode command again to make "
                             "the shard anew")
        planned = self.plan.rows(shard)
        dead = [DeadLetter(key=row["key"], source=entry.name, stage="name", error=row["error"],
                           message=row["message"]) for row in planned if row["error"] is not None]
        written = []
        window = 2 * self.config.batch_size + NUM_WRITERS
        with ordered(self._write, self._crops(shard, planned), NUM_WRITERS, window) as results:
            for result in results:
                if isinstance(result, DeadLetter):
                    dead.append(result)
                else:
                    written.append(result)
        schema = index_schema(self.config.tokenizers)
        return commit(self.plan, shard, pa.Table.from_pylist(written, schema), dead)

    def _crops(self, shard: int, planned: Sequence[Mapping[str, Any]],
               ) -> Iterator[tuple[Mapping[str, Any], dict[str, np.ndarray]]]:
        """Rows that have a name, each with its pixels ``(h, w[, 3])`` of every modality."""
        decoders = codecs.codecs_of(self.config.tokenizers, self.corpus.spec,
                                    self.config.batch_size)
        table = self.corpus.read_shard(shard)
        if (rows := row_filter(self.corpus, self.config)) is not None:
            table = rows.select(table)
        codes = {name: codes_array(self.corpus.spec[name], table) for name in decoders}
        living = iter(index for index, row in enumerate(planned) if row["error"] is None)
        while batch := list(itertools.islice(living, self.config.batch_size)):
            pixels = {name: decoder.decode(codes[name][batch])
                      for name, decoder in decoders.items()}
            for place, index in enumerate(batch):
                yield planned[index], {name: pixels[name][place] for name in decoders}

    def _write(self, crop: tuple[Mapping[str, Any], Mapping[str, np.ndarray]],
               ) -> dict[str, Any] | DeadLetter:
        """Write the files of one crop; returns its row of the index.

        Raises:
            OutputRefused: the store takes no more.
        """
        row, pixels = crop
        decoders = codecs.codecs_of(self.config.tokenizers, self.corpus.spec,
                                    self.config.batch_size)
        found: dict[str, Any] = {"key": row["key"], "crop_index": row["crop_index"]}
        for name in pixels:
            payload, suffix = decoders[name].modality.write(pixels[name], self.config.picture)
            path = row["name"] + suffix
            path = posixpath.join(name, path) if len(pixels) > 1 else path
            try:
                storage.write_bytes(storage.join(self.config.output, path), payload)
            except OSError as error:
                if error.errno not in OF_ONE_NAME:
                    raise OutputRefused(f"{self.config.output} takes no data: "
                                        f"{error.strerror or error}") from error
                return DeadLetter(key=row["key"], source=path, stage="write",
                                  error=type(error).__name__, message=describe(error))
            found |= {f"{name}_file": path, f"{name}_bytes": len(payload),
                      f"{name}_sha256": storage.sha256(payload)}
        return found


def decode_corpus(config: DecodeConfig) -> Decoded:
    """Decode a token corpus to image files, or go on where an earlier run stopped.

    Raises:
        OSError: a folder or tokenizer is missing, a store refuses, or shards could not be made.
        ValueError: a tokenizer is not the one that made the codes, or the output folder holds
            something else.
    """
    task = prepare_task(config)
    ended: list[Decoded] = []

    def finish(receipts: Sequence[Receipt]) -> None:
        ended.append(complete(task.plan, config, receipts))
    Job(task.plan, task, engine_of(config), unit="crops").run(finish)
    return ended[-1]


def decode_part(config: DecodeConfig, part: Part) -> Decoded | Unfinished:
    """Decode one part of a token corpus, without Beam unless there are several workers.

    Returns:
        What is left to other parts, or what was decoded where nothing is.
    Raises:
        OSError, ValueError: see `decode_corpus`.
    """
    refuse_overwrite(config.overwrite, config.output)
    require_own_machine(config)
    task = prepare_task(config)
    engine = engine_of(config) if config.num_workers > 1 else None
    job = ArrayJob(task.plan, task, part, engine, unit="crops")
    return make_part(job, lambda receipts: complete(task.plan, config, receipts),
                     lambda: decoded(tokens.read_receipts(task.url,
                                                          task.plan.fingerprint).values()))


def prepare_task(config: DecodeConfig) -> DecodeTask:
    """Plan the job in its folder, or find it planned as it must be.

    Raises:
        OSError, ValueError: see `decode_corpus`.
    """
    corpus = TokenCorpus.open(config.tokens)
    if storage.is_within(config.output, config.tokens):
        raise ValueError(f"the output folder {config.output} lies in the corpus {config.tokens}; "
                         "choose another folder for the images")
    if (rows := row_filter(corpus, config)) is not None:
        rows.require_any(corpus)
    require_same_tokenizers(corpus, config)
    prepare_folder(config)
    plan = plan_decoding(corpus, config)
    remove_unfinished(plan, config)
    return DecodeTask(plan=plan, corpus=corpus, config=config)


def row_filter(corpus: TokenCorpus, config: DecodeConfig) -> RowFilter | None:
    """Which rows of the corpus to decode; nothing for all.

    Raises:
        ValueError: the expression cannot be read, or does not fit the corpus.
    """
    if config.filter is None:
        return None
    return RowFilter.parse(config.filter, corpus.spec.arrow_schema())


def require_same_tokenizers(corpus: TokenCorpus, config: DecodeConfig) -> None:
    """Refuse tokenizers that did not make the codes of the corpus.

    Raises:
        ValueError: the corpus lacks the modality, or its tokenizer has another fingerprint.
    """
    for name in config.tokenizers:
        corpus.spec[name]  # refuses a modality that it does not hold
    for name, codec in codecs.open_codecs(config.tokenizers, config.batch_size).items():
        made_by = corpus.spec[name].tokenizer
        if codec.spec.tokenizer != made_by:
            raise ValueError(f"the {name} codes of {corpus.url} were made by the tokenizer "
                             f"{made_by}; {config.tokenizers[name]} is {codec.spec.tokenizer}: "
                             "give the tokenizer that encoded them")


def prepare_folder(config: DecodeConfig) -> None:
    """Make sure that the job may write here; remove the files of a job that is to be overwritten.

    Raises:
        ValueError: the folder holds something else.
    """
    names = [name for name in storage.list_names(config.output) if not name.startswith(".")]
    if names and RESERVED not in names:
        raise ValueError(f"{config.output} holds other files, such as {names[0]}: choose an empty "
                         "folder for the images")
    if config.overwrite and names:
        remove_decoded(config)


def remove_decoded(config: DecodeConfig) -> None:
    """Remove the files that an earlier decode job has written, and what it knew of them."""
    for path in itertools.chain(indexed_files(config.job_folder), unfinished_files(config)):
        if ".." not in path.split("/"):
            storage.remove(storage.join(config.output, path.lstrip("/")))
    storage.remove(config.job_folder)


def indexed_files(url: str) -> Iterator[str]:
    """Files that the shards of a job have written, by their indices."""
    folder = storage.join(url, tokens.DATA)
    for index in storage.list_files(folder):
        table = tokens.read_parquet(storage.read_bytes(storage.join(folder, index)))
        for column in (name for name in table.column_names if name.endswith("_file")):
            yield from table[column].to_pylist()


def unfinished_files(config: DecodeConfig) -> Iterator[str]:
    """Files that shards without an index may have written; none where the plan is damaged."""
    with contextlib.suppress(ValueError):  # starting over is the remedy for a damaged plan
        if (plan := load_plan(config.job_folder)) is None:
            return
        modalities = [code["modality"] for code in plan.settings["codes"]]
        folders = modalities if len(modalities) > 1 else [""]
        for shard in range(plan.num_shards):
            index = storage.join(plan.url, tokens.shard_name(shard, plan.num_shards))
            rows = [] if storage.exists(index) else plan.rows(shard)
            for folder, row, suffix in itertools.product(folders, rows, SUFFIXES):
                if row["name"] is not None:
                    yield posixpath.join(folder, row["name"] + suffix)


def plan_decoding(corpus: TokenCorpus, config: DecodeConfig) -> Plan:
    """The plan of a decode job, written or found as it must be."""
    codes = [code for code in configs.to_dict(corpus.spec)["codes"]
             if code["modality"] in config.tokenizers]
    settings = {"corpus": corpus.manifest.fingerprint, "codes": codes, "picture": config.picture,
                "batch_size": config.batch_size}
    if (rows := row_filter(corpus, config)) is not None:
        settings["filter"] = rows.text

    def shards() -> Iterator[pa.Table]:
        names = NameTable()
        for table in selected_tables(corpus, ["key", "crop_index"], rows):
            for row in table.to_pylist():
                with contextlib.suppress(UnusableKey):  # told below
                    names.add(**row)
        for table in selected_tables(corpus, ["key", "crop_index"], rows):
            named = [name_row(names, **row) for row in table.to_pylist()]
            yield pa.Table.from_pylist(named, NAMES_SCHEMA)
    return make_plan(config.job_folder, "decode", settings, shards)


def name_row(names: NameTable, key: str, crop_index: int) -> dict[str, Any]:
    """One crop as a row of the plan."""
    row = {"key": key, "crop_index": crop_index, "name": None, "error": None, "message": None}
    try:
        return row | {"name": names.name(key, crop_index)}
    except (UnusableKey, DuplicateKey) as error:
        return row | {"error": type(error).__name__, "message": str(error)}


def index_schema(modalities: Iterable[str]) -> pa.Schema:
    """Schema of the tables that say which file holds which crop."""
    columns = [("key", pa.string()), ("crop_index", pa.int32())]
    for name in modalities:
        columns += [(f"{name}_file", pa.string()), (f"{name}_bytes", pa.int64()),
                    (f"{name}_sha256", pa.string())]
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in columns])


def remove_unfinished(plan: Plan, config: DecodeConfig) -> None:
    """Remove what a killed run left of files that it had not finished."""
    done = tokens.read_receipts(plan.url, plan.fingerprint)
    parents = {posixpath.dirname(row["name"]) for shard in range(plan.num_shards)
               if shard not in done for row in plan.rows(shard) if row["name"] is not None}
    modalities = config.tokenizers if len(config.tokenizers) > 1 else ("",)
    for parent, modality in itertools.product(sorted(parents), modalities):
        storage.remove_unfinished(storage.join(config.output, modality, parent))


def complete(plan: Plan, config: DecodeConfig, receipts: Sequence[Receipt]) -> Decoded:
    """Check that every file is there, then write ``_SUCCESS``.

    Raises:
        AuditFailure: files are missing or of another size, or crops are unaccounted for.
    """
    with ThreadPoolExecutor(NUM_WRITERS) as pool:
        found = list(pool.map(lambda receipt: check_files(plan, config, receipt), receipts))
    damaged = [(receipt.shard, problem) for receipt, problem in zip(receipts, found, strict=True)
               if problem]
    if damaged:
        raise AuditFailure(config.output, [problem for _, problem in damaged],
                           [shard for shard, _ in damaged])
    storage.write_bytes(storage.join(plan.url, tokens.SUCCESS), b"")
    return decoded(receipts)


def decoded(receipts: Collection[Receipt]) -> Decoded:
    """What the shards with these receipts amount to."""
    dead: Counter[str] = Counter()
    for receipt in receipts:
        dead.update(receipt.dead_letters)
    return Decoded(num_crops=sum(receipt.entry.rows for receipt in receipts),
                   dead_letters=dict(sorted(dead.items())))


def check_files(plan: Plan, config: DecodeConfig, receipt: Receipt) -> str | None:
    """What is wrong with the files of one shard, or nothing."""
    content, problem = tokens.read_checked(plan.url, receipt.entry)
    if content is None:
        return problem
    rows = tokens.read_parquet(content).to_pylist()
    if receipt.num_inputs != len(plan.keys(receipt.shard)):
        return f"{receipt.entry.name} does not account for all crops of its shard"
    for row, name in itertools.product(rows, config.tokenizers):
        path, num_bytes = row[f"{name}_file"], row[f"{name}_bytes"]
        if (size := storage.size(storage.join(config.output, path))) != num_bytes:
            return f"{path} is {'missing' if size is None else f'{size} bytes, not {num_bytes}'}"
    return None
