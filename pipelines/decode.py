"""The decode job: a token corpus becomes pictures, in a folder or in files of many.

    OUT/...                    what one of `pipelines.sinks` writes
    OUT/_decode/data/          one table a shard: which files hold which key, with their SHA-256
    OUT/_decode/_plan/ ...     plan, receipts and dead letters, as in a token corpus
    OUT/_decode/_SUCCESS       only after every file was found

It runs on the same machinery as the encode job, one element a shard, and continues alike.

Letters: B images of a batch, h and w rows and columns of the code grid.
"""
import itertools
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from pipelines import codecs
from pipelines.array import (
    ArrayJob,
    Part,
    Unfinished,
    refuse_overwrite,
    require_own_machine,
)
from pipelines.decode_folder import job_folder, prepare_folder, remove_unfinished
from pipelines.decode_plan import plan_decoding
from pipelines.engines import LOCAL, engine_of, require_absolute
from pipelines.job import Job, ShardTask, commit
from pipelines.plan import Plan
from pipelines.selection import ROW, Selection
from pipelines.sinks import SINKS, FolderSink, Item, Sink
from pipelines.sinks.storing import complete, store
from tokenizer import configs, storage, tokens
from tokenizer.corpus.modalities import PICTURE_SUFFIXES, QUALITY
from tokenizer.grids import buckets_of, codes_of_rows
from tokenizer.schema import UNKNOWN, ShardEntry, TokenSpec
from tokenizer.tokens import DeadLetter, Receipt, TokenCorpus


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
            raise ValueError(f"png keeps every pixel: leave out --quality {self.quality}, or "
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
class PlannedCorpus:
    """The corpus that a job was planned for; workers read its manifest themselves, once a process:
    it grows with the corpus, and would go along with each shard.

    Attributes:
        url: its folder.
        num_shards: that it had; ``sha256`` over their names and SHA-256.
    """
    url: str
    num_shards: int
    sha256: str

    @classmethod
    def of(cls, corpus: TokenCorpus) -> "PlannedCorpus":
        """What finds this corpus again."""
        return cls(url=corpus.url, num_shards=corpus.num_shards,
                   sha256=_sha256_of(corpus.manifest.shards))

    def open(self) -> TokenCorpus:
        """The corpus, which may have got more shards since.

        Raises:
            OSError, ValueError: see `TokenCorpus.open`; or another one lies there.
        """
        return _open_planned(self)


@lru_cache(maxsize=2)
def _open_planned(planned: PlannedCorpus) -> TokenCorpus:
    corpus = TokenCorpus.open(planned.url)
    if _sha256_of(corpus.manifest.shards[:planned.num_shards]) != planned.sha256:
        raise ValueError(f"{planned.url} holds other shards than when this job was planned: put "
                         "the old ones back, or start over with --overwrite")
    return corpus


def _sha256_of(shards: Sequence[ShardEntry]) -> str:
    return storage.sha256("\n".join(f"{shard.name} {shard.sha256}" for shard in shards).encode())


@dataclass(frozen=True, kw_only=True)
class DecodeTask(ShardTask):
    """Decodes the shards of a corpus.

    Attributes:
        spec: of the corpus, with tokenizers where it knows none.
        sink: where the crops go.
    """
    plan: Plan
    planned: PlannedCorpus
    spec: TokenSpec
    config: DecodeConfig
    sink: Sink

    @property
    def corpus(self) -> TokenCorpus:
        """The corpus; see `PlannedCorpus.open`."""
        return self.planned.open()

    @property
    def url(self) -> str:
        return self.plan.url

    def prepare(self) -> None:
        self._decoders()

    def run(self, shard: int) -> Receipt:
        corpus = self.corpus
        entry = corpus.manifest.shards[shard]
        if problem := tokens.check_shard(corpus.url, entry, corpus.spec):
            raise ValueError(f"{corpus.url}: {problem}; run its encode command again to make "
                             "the shard anew")
        planned = self.plan.rows(shard)
        dead = [DeadLetter(key=row["key"], source=entry.name, stage="name", error=row["error"],
                           message=row["message"]) for row in planned if row["error"] is not None]
        index, refused = store(self.sink, shard, self._crops(shard, planned), self._make,
                               2 * self.config.batch_size)
        return commit(self.plan, shard, index, [*dead, *refused])

    def _crops(self, shard: int, planned: Sequence[Mapping[str, Any]],
               ) -> Iterator[tuple[str, dict[str, Any], dict[str, np.ndarray]]]:
        """Name, columns, and pixels ``(h, w[, 3])`` of every modality, of rows that have a name."""
        decoders, corpus = self._decoders(), self.corpus
        table = corpus.read_shard(shard)
        buckets = buckets_of(corpus.spec, table)
        codes = {name: codes_of_rows(corpus.spec[name], table) for name in decoders[0]}
        columns = table.select(["key", "crop_index", *self.sink.columns]).to_pylist()
        living = iter((row.get(ROW, index), row["name"]) for index, row in enumerate(planned)
                      if row["error"] is None)
        while window := list(itertools.islice(living, self.config.batch_size * len(decoders))):
            pixels: dict[int, dict[str, np.ndarray]] = defaultdict(dict)
            for place, name in itertools.product(range(len(decoders)), decoders[0]):
                rows = [index for index, _ in window if buckets[index] == place]
                found = decoders[place][name].decode(np.stack([codes[name][row] for row in rows])
                                                     ) if rows else ()
                for row, picture in zip(rows, found, strict=True):
                    pixels[row][name] = picture
            yield from ((path, columns[index], pixels[index]) for index, path in window)

    def _make(self, crop: tuple[str, dict[str, Any], dict[str, np.ndarray]]) -> Item:
        """Compress the pictures of one crop."""
        name, columns, pixels = crop
        decoders = self._decoders()[0]
        return Item(name=name, columns=columns, files={
            modality: decoders[modality].modality.write(picture, self.config.picture,
                                                        self.config.quality)
            for modality, picture in pixels.items()})

    def _decoders(self) -> "list[dict[str, codecs.Codec]]":
        """The tokenizers at the size of each bucket, or at the one size there is."""
        return codecs.codecs_by_bucket(self.config.tokenizers, self.spec, self.config.batch_size)


def decode_corpus(config: DecodeConfig) -> Decoded:
    """Decode a token corpus to image files, or go on where an earlier run stopped.

    Raises:
        OSError: a folder or tokenizer is missing, a store refuses, or shards could not be made.
        ValueError: a tokenizer is not the one that made the codes, or the output folder holds
            something else.
    """
    task = prepare_task(config)
    job = Job(task.plan, task, engine_of(config), unit="crops")
    return job.run(lambda receipts: finished(task, receipts))


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
    return job.run_part(
        lambda receipts: finished(task, receipts),
        lambda: decoded(tokens.read_receipts(task.url, task.plan.fingerprint).values()))


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
    spec = settled_spec(corpus, config.tokenizers, config.batch_size)
    prepare_folder(config.output, config.overwrite)
    settings = {"corpus": corpus.manifest.fingerprint, "codes": codes_of(spec, config),
                **config.settings}
    plan = plan_decoding(config.job_folder, corpus, selection, settings)
    sink = sink_of(config, corpus)
    remove_unfinished(plan, sink)
    return DecodeTask(plan=plan, planned=PlannedCorpus.of(corpus), spec=spec, config=config,
                      sink=sink)


def codes_of(spec: TokenSpec, config: DecodeConfig) -> list[dict[str, Any]]:
    """The specs of the codes that a job decodes, as JSON values."""
    return [code for code in configs.to_dict(spec)["codes"]
            if code["modality"] in config.tokenizers]


def sink_of(config: DecodeConfig, corpus: TokenCorpus) -> Sink:
    """Where the crops of a job go."""
    return SINKS[config.to](output=config.output, modalities=tuple(config.tokenizers),
                            num_shards=corpus.num_shards, classes=corpus.manifest.classes)


def settled_spec(corpus: TokenCorpus, tokenizers: Mapping[str, str],
                 batch_size: int) -> TokenSpec:
    """What the codes mean: the spec of the corpus, unknown tokenizers taken from those given.

    Raises:
        ValueError: the corpus lacks a modality, or a tokenizer did not make its codes, or cannot
            have made them.
    """
    for name in tokenizers:
        corpus.spec[name]  # refuses a modality that it does not hold
    codes = {code.modality: code for code in corpus.spec.codes}
    for name, codec in codecs.open_codecs(tokenizers, batch_size).items():
        made_by, url = corpus.spec[name].tokenizer, tokenizers[name]
        if made_by == UNKNOWN:
            codes[name] = codecs.settled(corpus.spec[name], codec, url)
        elif codec.spec.tokenizer != made_by:
            raise ValueError(f"the {name} codes of {corpus.url} were made by the tokenizer "
                             f"{made_by}; {url} is {codec.spec.tokenizer}: "
                             "give the tokenizer that encoded them")
    return TokenSpec(codes=tuple(codes.values()))


def finished(task: DecodeTask, receipts: Sequence[Receipt]) -> Decoded:
    """Audit and complete the output; see `pipelines.sinks.storing.complete`."""
    complete(task.plan, task.sink, receipts)
    return decoded(receipts)


def decoded(receipts: Collection[Receipt]) -> Decoded:
    """What the shards with these receipts amount to."""
    dead: Counter[str] = Counter()
    for receipt in receipts:
        dead.update(receipt.dead_letters)
    return Decoded(num_crops=sum(receipt.entry.rows for receipt in receipts),
                   dead_letters=dict(sorted(dead.items())))
