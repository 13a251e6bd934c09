"""The encode job: an image corpus, with maps beside it, becomes a token corpus.

    listing -> plan -> shards on an engine -> audit -> manifest and ``_SUCCESS``
"""
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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
from pipelines.job import FAILED, Job, ShardTask, commit
from pipelines.limits import ErrorLimit
from pipelines.plan import Plan, fixed_size_shards, holds_plan, is_unplanned, make_plan
from pipelines.shard import encode_entries, token_spec
from tokenizer import audit, configs, storage, tokens
from tokenizer.corpus.crops import CENTRE, CropRule, crop_rule
from tokenizer.corpus.modalities import file_modality
from tokenizer.corpus.sources import Entry, Source, is_within_corpus, open_source
from tokenizer.schema import FORMAT_VERSION, Manifest, TokenSpec
from tokenizer.tokens import Receipt, TokenCorpus

PLAN_SCHEMA = pa.schema([
    pa.field("key", pa.string(), nullable=False),
    pa.field("sources", pa.map_(pa.string(), pa.string()), nullable=False),
    pa.field("ranges", pa.map_(pa.string(), pa.list_(pa.int64(), 2))),
    pa.field("label", pa.int32()),
    pa.field("class_name", pa.string()),
    pa.field("caption", pa.string()),
    pa.field("error", pa.string()),
    pa.field("message", pa.string()),
    pa.field("stamps", pa.map_(pa.string(), pa.string())),
])
"""One input: its key, the URL of each modality and which bytes of it, its label, what the listing
found wrong, and what tells whether its files change."""

PARTS = (tokens.SUCCESS, tokens.MANIFEST, tokens.CARD, tokens.RECEIPTS, FAILED, tokens.DEAD,
         tokens.DATA, tokens.PLAN)
"""What a token corpus consists of; ``--overwrite`` removes these, in this order, nothing else."""

DECODE_THREADS = (2, 8)
"""Fewest and most threads that read and decode images in one process."""


@dataclass(frozen=True, kw_only=True)
class EncodeConfig:
    """What to encode, and how.

    Attributes:
        corpus: folder of the images, or of the maps when there are no images; or any other source
            that `tokenizer.corpus.sources` reads.
        output: folder of the token corpus.
        tokenizers: folder of the tokenizer of each modality; those that are computed from images,
            such as edges, need no maps.
        maps: folder of each modality that lies beside the corpus, or its column in it.
        labels: where classes and captions come from; see `tokenizer.corpus.labels`.
        size: height and width in pixels of what the encoders see, where not each tokenizer's own.
        crops: which boxes of each image become rows: ``centre``, or another rule of
            `tokenizer.corpus.crops`.
        flips: whether crops are mirrored by a draw, left to right.
        crop_seed: of the draws of crops and flips.
        shard_size: inputs of one shard.
        batch_size: images that pass through a codec at once; part of the fingerprint.
        precision: arithmetic of the encoders, ``float32`` or ``bf16``; part of the codes' spec.
        backend: what computes them: ``torch``, ``openvino`` or ``onnxruntime``; part of the
            fingerprint where it is not torch, since it may flip a near tie.
        engine: what makes the shards; see `pipelines.engines`.
        num_workers: processes of the local engine that encode at the same time.
        beam_flags: further flags of Beam's, for the engine.
        max_errors: how many inputs may fail: a number, or as a float a share of all; ``None`` for
            any number short of all.
        overwrite: start over where another job's work lies.
        stats: whether rows have quality columns, see `tokenizer.quality`; the codes are the same.
    """
    corpus: str
    output: str
    tokenizers: Mapping[str, str]
    maps: Mapping[str, str] = field(default_factory=dict)
    labels: str = "auto"
    size: tuple[int, int] | None = None
    crops: str = CENTRE.name
    flips: bool = False
    crop_seed: int = 0
    shard_size: int = 512
    batch_size: int = 8
    precision: str = "float32"
    backend: str = "torch"
    engine: str = LOCAL
    num_workers: int = 1
    beam_flags: tuple[str, ...] = ()
    max_errors: int | float | None = None
    overwrite: bool = False
    stats: bool = False

    def __post_init__(self) -> None:
        crop_rule(self.crops, self.flips, self.crop_seed)  # refuses what is no rule
        ErrorLimit(self.max_errors)  # and what is no limit
        for name, least in (("shard_size", 1), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        require_absolute(engine_of(self), [self.corpus, self.output, *self.maps.values(),
                                           *self.tokenizers.values()])
        held = {name: file_modality(name) for name in self.tokenizers}
        for name, folder in self.maps.items():
            if (source := file_modality(name)) != name:
                raise ValueError(f"{name} are computed from {source} files and need no folder of "
                                 f"their own; leave out --maps {name}={folder}")
            if name not in held.values():
                raise ValueError(f"{name} maps are given without a tokenizer; add "
                                 f"--tokenizer {name}=FOLDER")
        without_maps = dict.fromkeys(name for name in held.values() if name not in self.maps)
        if len(without_maps) != 1:
            raise ValueError(f"one tokenizer is for the corpus itself, each other one for maps; "
                             f"without --maps are {', '.join(without_maps) or 'none'}: add "
                             "--maps NAME=FOLDER for all but one")

    @property
    def arithmetic(self) -> dict[str, str]:
        """Precision and backend, where they are not the usual ones."""
        asked = {"precision": self.precision, "backend": self.backend}
        return {name: value for name, value in asked.items()
                if value != type(self).__dataclass_fields__[name].default}

    @property
    def crop_rule(self) -> CropRule:
        """Which boxes of each image become rows."""
        return crop_rule(self.crops, self.flips, self.crop_seed)

    @property
    def corpus_modality(self) -> str:
        """What the files of the corpus itself are."""
        return next(held for name in self.tokenizers
                    if (held := file_modality(name)) not in self.maps)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The corpus's own modality, those computed from it, then those of the maps, by name."""
        own = self.corpus_modality
        return tuple(sorted(self.tokenizers, key=lambda name: (
            name != own, file_modality(name) != own, name)))


@dataclass(frozen=True, kw_only=True)
class EncodeTask(ShardTask):
    """Encodes the shards of a plan.

    Attributes:
        tokenizers: folder of the tokenizer of each modality.
        num_threads: inputs that are read and decoded at once.
        crops: which boxes of each input become rows.
    """
    plan: Plan
    source: Source
    spec: TokenSpec
    tokenizers: Mapping[str, str]
    batch_size: int
    num_threads: int
    arithmetic: Mapping[str, str] = field(default_factory=dict)
    crops: CropRule = CENTRE

    @property
    def url(self) -> str:
        return self.plan.url

    def prepare(self) -> None:
        codecs.codecs_of(self.tokenizers, self.spec, self.batch_size, **self.arithmetic)

    def run(self, shard: int) -> Receipt:
        encoders = codecs.codecs_of(self.tokenizers, self.spec, self.batch_size, **self.arithmetic)
        entries = (entry_of(row) for row in self.plan.rows(shard))
        rows, dead = encode_entries(entries, self.source, encoders, self.num_threads, self.crops,
                                    bool(self.spec.quality))
        return commit(self.plan, shard, rows, dead, self.crops.num_crops)

    def complete(self, receipts: Sequence[Receipt]) -> Manifest:
        """Audit and complete the token corpus; see `audit.complete`."""
        return audit.complete(self.url, self.spec, self.plan.fingerprint, receipts,
                              self.plan.settings["classes"], self.plan.num_inputs, self.plan.keys)


def encode_corpus(config: EncodeConfig) -> Manifest:
    """Encode a corpus, or go on where an earlier run of the same job stopped.

    Returns:
        The manifest of the completed token corpus.
    Raises:
        OSError: a folder or tokenizer is missing, a store refuses, or shards could not be made.
        ValueError: the output holds the work of another plan, a tokenizer does not fit, or too many
            inputs failed.
    """
    task = prepare_task(config)
    manifests: list[Manifest] = []

    def finish(receipts: Sequence[Receipt]) -> None:
        manifests.append(task.complete(receipts))
    Job(task.plan, task, engine_of(config), config.max_errors).run(finish)
    return manifests[-1]


def encode_part(config: EncodeConfig, part: Part) -> Manifest | Unfinished:
    """Encode one part of a corpus, without Beam unless there are several workers.

    Returns:
        What is left to other parts, or the manifest where nothing is.
    Raises:
        OSError, ValueError: see `encode_corpus`.
    """
    refuse_overwrite(config.overwrite, config.output)
    require_own_machine(config)
    task = prepare_task(config)
    engine = engine_of(config) if config.num_workers > 1 else None
    job = ArrayJob(task.plan, task, part, engine, config.max_errors)
    return make_part(job, task.complete, lambda: TokenCorpus.open(config.output).manifest)


def prepare_task(config: EncodeConfig) -> EncodeTask:
    """Plan the job in its folder, or find it planned as it must be.

    Raises:
        OSError, ValueError: see `encode_corpus`.
    """
    require_apart(config)
    source = open_source(config.corpus, {name: config.maps[name] for name in sorted(config.maps)},
                         config.labels, config.corpus_modality)
    urls = {name: config.tokenizers[name] for name in config.modalities}
    loaded = codecs.open_codecs(urls, config.batch_size, config.size, **config.arithmetic)
    spec = token_spec(loaded, config.crop_rule, config.stats)
    require_one_ratio(spec)
    classes = source.classes()
    next(source.entries())  # refuses an empty corpus before anything is removed
    require_no_output(config, source)
    prepare_folder(config.output, config.overwrite)
    plan = plan_encoding(config, source, spec, classes)
    return EncodeTask(plan=plan, source=source, spec=spec, tokenizers=urls,
                      batch_size=config.batch_size,
                      num_threads=num_decode_threads(config),
                      arithmetic=config.arithmetic, crops=config.crop_rule)


def require_apart(config: EncodeConfig) -> None:
    """Refuse to write tokens among the inputs, where the next run would list them.

    Raises:
        ValueError: the output folder lies in the corpus or in a folder of maps, or holds one.
    """
    maps = {f"folder of {name} maps": place for name, place in config.maps.items()
            if not is_within_corpus(place)}
    for what, folder in {"corpus": config.corpus, **maps}.items():
        if storage.is_within(folder, config.output):
            raise ValueError(f"the {what} {folder} lies in the output folder {config.output}; "
                             "choose another folder for the tokens")
        if storage.is_within(config.output, folder):
            raise ValueError(f"the output folder {config.output} lies in the {what} {folder}; "
                             "choose another folder for the tokens")


def require_no_output(config: EncodeConfig, source: Source) -> None:
    """Refuse inputs that stars have found among the tokens.

    Raises:
        ValueError: a file of the corpus lies in the output folder.
    """
    for url in source.files():
        if storage.is_within(url, config.output):
            raise ValueError(f"the input {url} lies in the output folder {config.output}; choose "
                             "another folder for the tokens, or name the inputs more narrowly")


def plan_encoding(config: EncodeConfig, source: Source, spec: TokenSpec,
                  classes: Sequence[str]) -> Plan:
    """The plan of an encode job, written or found as it must be."""
    settings = {"format_version": FORMAT_VERSION, "codes": configs.to_dict(spec)["codes"],
                "batch_size": config.batch_size, "shard_size": config.shard_size,
                "classes": list(classes)}
    if "backend" in config.arithmetic:
        settings["backend"] = config.backend
    if spec.quality:
        settings["quality"] = list(spec.quality)
    if files := source.files():
        settings["files"] = files

    def shards() -> Iterator[pa.Table]:
        rows = (row_of(entry) for entry in source.entries())
        return fixed_size_shards(rows, PLAN_SCHEMA, config.shard_size)
    return make_plan(config.output, "encode", settings, shards, lambda: dict(source.notes))


def row_of(entry: Entry) -> dict[str, Any]:
    """An input as a row of the plan."""
    error, message = entry.problem or (None, None)
    ranges = [(name, list(stretch)) for name, stretch in entry.ranges.items()] or None
    return {"key": entry.key, "sources": list(entry.sources.items()), "ranges": ranges,
            "label": entry.label, "class_name": entry.class_name, "caption": entry.caption,
            "error": error, "message": message, "stamps": list(entry.stamps.items()) or None}


def entry_of(row: Mapping[str, Any]) -> Entry:
    """The input that `row_of` described."""
    problem = None if row["error"] is None else (row["error"], row["message"])
    ranges = {name: (first, count) for name, (first, count) in row.get("ranges") or ()}
    return Entry(key=row["key"], sources=dict(row["sources"]), ranges=ranges,
                 stamps=dict(row.get("stamps") or ()), label=row["label"],
                 class_name=row["class_name"], caption=row["caption"], problem=problem)


def require_one_ratio(spec: TokenSpec) -> None:
    """Refuse tokenizers that cannot share a crop.

    Raises:
        ValueError: their images have different ratios of height to width.
    """
    first, *others = spec.codes
    height, width = first.image_size
    for code in others:
        if code.image_size[0] * width != code.image_size[1] * height:
            raise ValueError(f"all modalities share one crop, but the {code.modality} tokenizer "
                             f"takes {code.image_size[0]} x {code.image_size[1]} pixels, that of "
                             f"{first.modality} {height} x {width}: their ratios must be equal")


def prepare_folder(url: str, overwrite: bool) -> None:
    """Make sure that the job may write here; remove a token corpus that is to be overwritten.

    Raises:
        ValueError: the folder holds something else.
    """
    is_planned = holds_plan(url)
    is_ours = is_planned or _holds_manifest(url)
    if overwrite and is_ours:
        for part in PARTS:
            storage.remove(storage.join(url, part))
    elif not (is_planned or is_unplanned(url) or holds_plan(url)):  # planned by others just now
        first = next(name for name in storage.list_names(url) if not name.startswith("."))
        what = "a token corpus without a plan" if is_ours else f"other files, such as {first}"
        remedy = "add --overwrite to replace it" if is_ours else "choose another folder"
        raise ValueError(f"{url} holds {what}: {remedy}")


def num_decode_threads(config: EncodeConfig) -> int:
    """Threads that decode in each process: of several on this machine, or of workers elsewhere."""
    fewest, most = DECODE_THREADS
    if config.engine != LOCAL:
        return fewest
    return min(most, max(fewest, (os.cpu_count() or 1) // config.num_workers))


def _holds_manifest(url: str) -> bool:
    name = storage.join(url, tokens.MANIFEST)
    if not storage.exists(name):
        return False
    try:
        Manifest.from_json(storage.read_bytes(name), name)
    except ValueError:
        return False
    return True
