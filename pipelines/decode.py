"""The decode job: a token corpus becomes pictures, in a folder or in files of many.

    OUT/...                    what one of `pipelines.sinks` writes
    OUT/_decode/data/          one table a shard: which files hold which key, with their SHA-256
    OUT/_decode/_plan/ ...     plan, receipts and dead letters, as in a token corpus
    OUT/_decode/_SUCCESS       only after every file was found

It runs on the same machinery as the encode job, one element a shard, and continues alike.

Letters: B images of a batch, h and w rows and columns of the code grid.
"""
import errno
import itertools
import json
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
from pipelines.decode_folder import job_folder, prepare_folder, remove_unfinished
from pipelines.decode_plan import plan_decoding
from pipelines.engines import LOCAL, engine_of, require_absolute
from pipelines.job import Job, OutputRefused, ShardTask, commit
from pipelines.ordered import ordered
from pipelines.plan import Plan
from pipelines.selection import ROW, Selection
from pipelines.shard import describe
from pipelines.sinks import SINKS, FolderSink, Item, Sink
from pipelines.sinks.base import SHARD_FILE, ShardWriter, refusals
from tokenizer import configs, storage, tokens
from tokenizer.corpus.modalities import PICTURE_SUFFIXES, QUALITY
from tokenizer.schema import codes_array
from tokenizer.tokens import AuditFailure, DeadLetter, Receipt, TokenCorpus

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
        to: where they go, a name of `SINKS`.
        picture: format of images, ``png``, ``jpeg`` or ``webp``; maps are always PNG.
        quality: of JPEG and WebP, 1 to 100.
        keys: a list of the keys to decode; nothing for all. See `pipelines.selection`.
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
    to: str = FolderSink.name
    picture: str = "png"
    quality: int = QUALITY
    keys: str | None = None
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
        if self.to not in SINKS:
            raise ValueError(f"images go to {', '.join(SINKS)}, got {self.to!r}")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality is 1 to 100, got {self.quality}")
        if self.quality != QUALITY and self.picture == "png":
            raise ValueError(f"png keeps every pixel: leave out the quality {self.quality}, or "
                             "write jpeg or webp")
        if not self.tokenizers:
            raise ValueError("give the tokenizer of at least one modality")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
        require_absolute(engine_of(self), [self.tokens, self.output, *self.tokenizers.values()])

    @property
    def job_folder(self) -> str:
        """Folder of the job's own files."""
        return job_folder(self.output)

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the files, as JSON values; what is at its default since it came is absent.
        """
        added = {name: getattr(self, name) for name in ("to", "quality")
                 if getattr(self, name) != type(self).__dataclass_fields__[name].default}
        return {"picture": self.picture, "batch_size": self.batch_size, **added}


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
        with (self.sink.writer(shard) as writer,
              ordered(self._put, self._crops(shard, planned), NUM_WRITERS, window) as results):
            for result in results:
                if isinstance(result, DeadLetter):
                    dead.append(result)
                else:
                    writer.add(result)
                    written.append(index_row(self.sink, result))
        return commit(self.plan, shard, self._index(written, writer), dead)

    @property
    def sink(self) -> Sink:
        """Where the crops go."""
        return sink_of(self.config, self.corpus)

    def _crops(self, shard: int, planned: Sequence[Mapping[str, Any]],
               ) -> Iterator[tuple[str, dict[str, Any], dict[str, np.ndarray]]]:
        """Name, columns, and pixels ``(h, w[, 3])`` of every modality, of rows that have a name."""
        decoders = self._decoders()
        table = self.corpus.read_shard(shard)
        codes = {name: codes_array(self.corpus.spec[name], table) for name in decoders}
        columns = table.select(["key", "crop_index", *self.sink.columns]).to_pylist()
        living = iter((row.get(ROW, index), row["name"]) for index, row in enumerate(planned)
                      if row["error"] is None)
        while batch := list(itertools.islice(living, self.config.batch_size)):
            rows = [index for index, _ in batch]
            pixels = {name: decoder.decode(codes[name][rows]) for name, decoder in decoders.items()}
            for place, (index, path) in enumerate(batch):
                yield path, columns[index], {name: pixels[name][place] for name in decoders}

    def _put(self, crop: tuple[str, dict[str, Any], dict[str, np.ndarray]]) -> Item | DeadLetter:
        """Compress one crop, and write of it what needs no order.

        Raises:
            OutputRefused: the store takes no more.
        """
        name, columns, pixels = crop
        decoders = self._decoders()
        item = Item(name=name, columns=columns, files={
            modality: decoders[modality].modality.write(picture, self.config.picture,
                                                        self.config.quality)
            for modality, picture in pixels.items()})
        try:
            with refusals(self.config.output, OF_ONE_NAME):
                self.sink.put(item)
        except OutputRefused:
            raise
        except OSError as error:
            return DeadLetter(key=columns["key"], source=name, stage="write",
                              error=type(error).__name__, message=describe(error))
        return item

    def _decoders(self) -> "dict[str, codecs.Codec]":
        return codecs.codecs_of(self.config.tokenizers, self.corpus.spec, self.config.batch_size)

    def _index(self, written: Sequence[Mapping[str, Any]], writer: ShardWriter) -> pa.Table:
        """The table that says which file holds which crop."""
        schema = index_schema(self.config.tokenizers)
        if writer.entry is not None:
            entry = json.dumps(configs.to_dict(writer.entry), sort_keys=True)
            schema = schema.with_metadata({SHARD_FILE: entry})
        return pa.Table.from_pylist(list(written), schema)


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
        ended.append(complete(task.plan, task.sink, receipts))
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
    return make_part(job, lambda receipts: complete(task.plan, task.sink, receipts),
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
    selection = Selection.read(corpus, config.keys, config.filter)
    if selection.filter is not None:
        selection.filter.require_any(corpus)
    require_same_tokenizers(corpus, config)
    prepare_folder(config.output, config.overwrite)
    settings = {"corpus": corpus.manifest.fingerprint, "codes": codes_of(corpus, config),
                **config.settings}
    plan = plan_decoding(config.job_folder, corpus, selection, settings)
    remove_unfinished(plan, sink_of(config, corpus))
    return DecodeTask(plan=plan, corpus=corpus, config=config)


def codes_of(corpus: TokenCorpus, config: DecodeConfig) -> list[dict[str, Any]]:
    """The specs of the codes that a job decodes, as JSON values."""
    return [code for code in configs.to_dict(corpus.spec)["codes"]
            if code["modality"] in config.tokenizers]


def sink_of(config: DecodeConfig, corpus: TokenCorpus) -> Sink:
    """Where the crops of a job go."""
    return SINKS[config.to](output=config.output, modalities=tuple(config.tokenizers),
                            num_shards=corpus.num_shards, classes=corpus.manifest.classes)


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


def index_row(sink: Sink, item: Item) -> dict[str, Any]:
    """One crop as a row of the index of its shard."""
    row = {"key": item.columns["key"], "crop_index": item.columns["crop_index"]}
    for modality, (content, suffix) in item.files.items():
        row |= {f"{modality}_file": sink.path(item.name, modality, suffix),
                f"{modality}_bytes": len(content),
                f"{modality}_sha256": storage.sha256(content)}
    return row


def index_schema(modalities: Iterable[str]) -> pa.Schema:
    """Schema of the tables that say which file holds which crop."""
    columns = [("key", pa.string()), ("crop_index", pa.int32())]
    for name in modalities:
        columns += [(f"{name}_file", pa.string()), (f"{name}_bytes", pa.int64()),
                    (f"{name}_sha256", pa.string())]
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in columns])


def complete(plan: Plan, sink: Sink, receipts: Sequence[Receipt]) -> Decoded:
    """Check that every file is there, then write ``_SUCCESS``.

    Raises:
        AuditFailure: files are missing or of another size, or crops are unaccounted for.
    """
    with ThreadPoolExecutor(NUM_WRITERS) as pool:
        found = list(pool.map(lambda receipt: check_files(plan, sink, receipt), receipts))
    damaged = [(receipt.shard, problem) for receipt, problem in zip(receipts, found, strict=True)
               if problem]
    if damaged:
        raise AuditFailure(sink.output, [problem for _, problem in damaged],
                           [shard for shard, _ in damaged])
    done = decoded(receipts)
    sink.complete(done.num_crops)
    storage.write_bytes(storage.join(plan.url, tokens.SUCCESS), b"")
    return done


def decoded(receipts: Collection[Receipt]) -> Decoded:
    """What the shards with these receipts amount to."""
    dead: Counter[str] = Counter()
    for receipt in receipts:
        dead.update(receipt.dead_letters)
    return Decoded(num_crops=sum(receipt.entry.rows for receipt in receipts),
                   dead_letters=dict(sorted(dead.items())))


def check_files(plan: Plan, sink: Sink, receipt: Receipt) -> str | None:
    """What is wrong with the files of one shard, or nothing."""
    content, problem = tokens.read_checked(plan.url, receipt.entry)
    if content is None:
        return problem
    if receipt.num_inputs != len(plan.keys(receipt.shard)):
        return f"{receipt.entry.name} does not account for all crops of its shard"
    for path, num_bytes in sink.written(tokens.read_parquet(content)):
        if (size := storage.size(storage.join(sink.output, path))) != num_bytes:
            return f"{path} is {'missing' if size is None else f'{size} bytes, not {num_bytes}'}"
    return None
