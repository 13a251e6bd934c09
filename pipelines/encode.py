"""The encode job: an image corpus, with maps beside it, becomes a token corpus.

    listing -> plan -> shards on an engine -> audit -> manifest and ``_SUCCESS``
"""
import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipelines import codecs
from pipelines.array import (
    ArrayJob,
    Part,
    Unfinished,
    refuse_overwrite,
    require_own_machine,
)
from pipelines.deltas import (
    grow,
    load_plans,
    make_all,
    merged_classes,
    relabelled,
    require_rows,
    require_same_files,
    without_retried,
)
from pipelines.engines import LOCAL, engine_of, require_absolute
from pipelines.entries import PLAN_SCHEMA, entry_of, row_of
from pipelines.fates import changed_files, kind_of
from pipelines.folders import prepare_folder
from pipelines.job import Job, ShardTask, commit
from pipelines.limits import ErrorLimit
from pipelines.plan import Plan, fixed_size_shards, make_plan
from pipelines.shard import encode_entries, token_spec
from tokenizer import audit, buckets, configs, storage
from tokenizer.corpus.crops import CENTRE, CropRule, crop_rule
from tokenizer.corpus.limits import MAX_PIXELS
from tokenizer.corpus.modalities import file_modality
from tokenizer.corpus.sources import Source, is_within_corpus, open_source
from tokenizer.deltas import RETRY, Generation
from tokenizer.schema import FORMAT_VERSION, Manifest, TokenSpec
from tokenizer.tokens import DeadLetter, Receipt, TokenCorpus

OF_ONE_RUN = frozenset({"output", "tokenizers", "engine", "num_workers", "beam_flags", "max_errors",
                        "overwrite", "extend"})
"""Settings of `EncodeConfig` that each run is given anew; its plan keeps the others."""

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
        buckets: several such sizes in place of one; each image takes that which is nearest to it in
            shape. See `tokenizer.buckets`.
        crops: which boxes of each image become rows: ``centre``, or another rule of
            `tokenizer.corpus.crops`.
        flips: whether crops are mirrored by a draw, left to right.
        crop_seed: of the draws of crops and flips.
        max_pixels: of an image; larger ones are dead letters. Part of the fingerprint where it is
            not the usual one, since it decides which rows there are.
        shard_size: inputs of one shard.
        batch_size: images that pass through a codec at once; part of the fingerprint.
        precision: arithmetic of the encoders, ``float32`` or ``bf16``; part of the codes' spec.
        backend: what computes them: ``torch``, ``openvino`` or ``onnxruntime``; part of the
            fingerprint where it is not torch, since it may flip a near tie.
        engine: what makes the shards; see `pipelines.engines`.
        num_workers: processes of the local engine that encode at the same time.
        beam_flags: further flags of Beam's, for the engine.
        max_errors: how many inputs may fail: a number, or as a float a share of all; ``None`` for
            any number short of all. Where all may, also those of shards of which nothing can be
            reached do, which otherwise means that the corpus is away.
        overwrite: start over where another job's work lies.
        extend: add inputs that are new since the job was planned, as a delta.
        stats: whether rows have quality columns, see `tokenizer.quality`; the codes are the same.
    """
    corpus: str
    output: str
    tokenizers: Mapping[str, str]
    maps: Mapping[str, str] = field(default_factory=dict)
    labels: str = "auto"
    size: tuple[int, int] | None = None
    buckets: tuple[tuple[int, int], ...] = ()
    crops: str = CENTRE.name
    flips: bool = False
    crop_seed: int = 0
    max_pixels: int = MAX_PIXELS
    shard_size: int = 512
    batch_size: int = 8
    precision: str = "float32"
    backend: str = "torch"
    engine: str = LOCAL
    num_workers: int = 1
    beam_flags: tuple[str, ...] = ()
    max_errors: int | float | None = None
    overwrite: bool = False
    extend: bool = False
    stats: bool = False

    def __post_init__(self) -> None:
        crop_rule(self.crops, self.flips, self.crop_seed)  # refuses what is no rule
        ErrorLimit(self.max_errors)  # and what is no limit
        buckets.in_order(self.buckets)  # and what are no buckets
        if self.buckets and self.size is not None:
            raise ValueError("images have one size or buckets of several: leave out --size "
                             f"{buckets.size_name(self.size)} or --buckets")
        for name in ("shard_size", "batch_size", "max_pixels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.extend and self.overwrite:
            raise ValueError("what is started over needs no delta: leave out --extend or "
                             "--overwrite")
        maps = (place for place in self.maps.values() if not is_within_corpus(place))
        require_absolute(engine_of(self), [self.corpus, self.output, *maps,
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
            remedy = ("add --maps NAME=FOLDER for all but one" if without_maps else
                      "leave out the --maps of what CORPUS holds")
            raise ValueError("one tokenizer is for the corpus itself, each other one for maps; "
                             f"without --maps are {', '.join(without_maps) or 'none'}: {remedy}")

    @property
    def arithmetic(self) -> dict[str, str]:
        """Precision and backend, where they are not the usual ones."""
        asked = {"precision": self.precision, "backend": self.backend}
        return {name: value for name, value in asked.items()
                if value != type(self).__dataclass_fields__[name].default}

    @property
    def options(self) -> dict[str, Any]:
        """What was asked for beside the defaults, but for `OF_ONE_RUN`; see `plan.Plan`."""
        defaults = configs.to_dict(type(self)(corpus="", output="", tokenizers={"image": ""}))
        return {name: value for name, value in configs.to_dict(self).items()
                if name not in OF_ONE_RUN and value != defaults[name]}

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
        max_pixels: of an image.
        deltas: plans of the generations after the first one.
        may_all_be_gone: whether a shard of which nothing can be reached becomes dead letters, where
            it would fail otherwise.
        changed_files: files with many inputs that are others than when ``plan`` was made.
    """
    plan: Plan
    source: Source
    spec: TokenSpec
    tokenizers: Mapping[str, str]
    batch_size: int
    num_threads: int
    arithmetic: Mapping[str, str] = field(default_factory=dict)
    crops: CropRule = CENTRE
    max_pixels: int = MAX_PIXELS
    deltas: tuple[Plan, ...] = ()
    may_all_be_gone: bool = False
    changed_files: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        return self.plan.url

    def prepare(self) -> None:
        codecs.codecs_by_bucket(self.tokenizers, self.spec, self.batch_size, **self.arithmetic)

    def encode(self, rows: Iterable[Mapping[str, Any]],
               may_all_be_gone: bool) -> tuple[pa.Table, list[DeadLetter]]:
        """Encode some rows of a plan; see `encode_entries`."""
        encoders = codecs.codecs_by_bucket(self.tokenizers, self.spec, self.batch_size,
                                           **self.arithmetic)
        return encode_entries(map(entry_of, rows), self.source, encoders, self.num_threads,
                              self.crops, bool(self.spec.quality), may_all_be_gone,
                              self.max_pixels)

    def run(self, shard: int) -> Receipt:
        planned = without_retried(self.plan.rows(shard), self.plan, self.deltas)
        require_same_files(planned, self.changed_files)
        rows, dead = self.encode(planned,
                                 self.may_all_be_gone or kind_of(self.plan) == RETRY)
        require_rows(dead, self.plan, self.deltas)
        return commit(self.plan, shard, rows, dead, self.crops.num_crops)

    def complete(self, receipts: Sequence[Receipt],
                 deltas: Sequence[Generation] = ()) -> Manifest:
        """Audit and complete the token corpus; see `audit.complete`."""
        classes = (self.plan, *self.deltas)[-1].settings["classes"]
        return audit.complete(self.url, self.spec, self.plan.fingerprint, receipts, classes,
                              self.plan.num_inputs, self.plan.keys, deltas)


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
    if task.deltas:
        return encode_deltas(task, config)
    return Job(task.plan, task, engine_of(config), config.max_errors).run(task.complete)


def encode_deltas(task: EncodeTask, config: EncodeConfig) -> Manifest:
    """Make what is left of a corpus with deltas, and complete it; see `encode_corpus`."""
    now = {"files": task.source.files()}
    tasks = [(plan, dataclasses.replace(task, plan=plan,
                                        changed_files=tuple(changed_files([plan], now))))
             for plan in (task.plan, *task.deltas)]
    return make_all(tasks, engine_of(config), config.max_errors, task.complete)


def encode_part(config: EncodeConfig, part: Part) -> Manifest | Unfinished:
    """Encode one part of a corpus, without Beam unless there are several workers.

    Returns:
        What is left to other parts, or the manifest where nothing is.
    Raises:
        OSError, ValueError: see `encode_corpus`.
    """
    refuse_overwrite(config.overwrite, config.output)
    require_own_machine(config)
    if config.extend or len(load_plans(config.output)) > 1:
        raise ValueError(f"{config.output} has deltas or is to have one, which no array makes: "
                         "leave out --array-index and --array-size")
    task = prepare_task(config)
    engine = engine_of(config) if config.num_workers > 1 else None
    job = ArrayJob(task.plan, task, part, engine, config.max_errors)
    return job.run_part(task.complete, lambda: TokenCorpus.open(config.output).manifest)


def prepare_task(config: EncodeConfig) -> EncodeTask:
    """Plan the job in its folder, or find it planned as it must be.

    Raises:
        OSError, ValueError: see `encode_corpus`.
    """
    require_apart(config)
    task = open_task(config)
    next(task.source.entries())  # refuses an empty corpus before anything is removed
    require_no_output(config, task.source)
    prepare_folder(config.output, config.overwrite)
    plan, *deltas = plan_encoding(config, task.source, task.spec)
    return dataclasses.replace(task, plan=plan, deltas=tuple(deltas))


def open_task(config: EncodeConfig) -> EncodeTask:
    """A task whose source and tokenizers are open and fit together, yet without a plan.

    Raises:
        OSError, ValueError: see `encode_corpus`.
    """
    source = open_source(config.corpus, {name: config.maps[name] for name in sorted(config.maps)},
                         config.labels, config.corpus_modality)
    urls = {name: config.tokenizers[name] for name in config.modalities}
    loaded = codecs.open_codecs(urls, config.batch_size, **config.arithmetic)
    sizes = buckets.in_order(config.buckets) if config.size is None else (config.size,)
    codecs.require_whole_codes(loaded, sizes, "--size" if config.size else "--buckets")
    spec = token_spec([codecs.at_size(loaded, size, config.batch_size, **config.arithmetic)
                       for size in sizes] or [loaded], config.crop_rule, config.stats)
    codecs.require_one_ratio(spec)
    unplanned = Plan(url=config.output, job="encode", settings={}, num_inputs=0, num_shards=0)
    return EncodeTask(plan=unplanned, source=source, spec=spec, tokenizers=urls,
                      batch_size=config.batch_size,
                      num_threads=num_decode_threads(config),
                      arithmetic=config.arithmetic, crops=config.crop_rule,
                      max_pixels=config.max_pixels,
                      may_all_be_gone=ErrorLimit(config.max_errors).allows_all)


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


def plan_encoding(config: EncodeConfig, source: Source, spec: TokenSpec) -> list[Plan]:
    """The plans of an encode job and its deltas, written or found as they must be."""
    plans = load_plans(config.output)
    found = source.classes()
    grows = len(plans) > 1 or (config.extend and plans)
    classes = merged_classes(plans[-1].settings["classes"], found) if grows else found
    settings = settings_of(config, source, spec, classes)

    def rows() -> Iterator[dict[str, Any]]:
        return map(row_of, source.entries())
    if grows:
        return grow(plans, settings, lambda: relabelled(rows(), found, classes), config.extend)
    return [make_plan(config.output, "encode", settings,
                      lambda: fixed_size_shards(rows(), PLAN_SCHEMA, config.shard_size),
                      lambda: dict(source.notes), config.options)]


def settings_of(config: EncodeConfig, source: Source, spec: TokenSpec,
                classes: Sequence[str]) -> dict[str, Any]:
    """Everything that decides the output of an encode job, but the inputs themselves."""
    settings = {"format_version": FORMAT_VERSION, "codes": configs.to_dict(spec)["codes"],
                "batch_size": config.batch_size, "shard_size": config.shard_size,
                "classes": list(classes)}
    if spec.quality:
        settings["quality"] = list(spec.quality)
    if "backend" in config.arithmetic:
        settings["backend"] = config.backend
    if config.max_pixels != MAX_PIXELS:
        settings["max_pixels"] = config.max_pixels
    if files := source.files():
        settings["files"] = files
    return settings


def num_decode_threads(config: EncodeConfig) -> int:
    """Threads that decode in each process: of several on this machine, or of workers elsewhere."""
    fewest, most = DECODE_THREADS
    if config.engine != LOCAL:
        return fewest
    return min(most, max(fewest, (os.cpu_count() or 1) // config.num_workers))
