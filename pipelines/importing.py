"""Token corpora of other programs become ours: a job over shards, like encode.

    listing of foreign inputs -> plan -> shards of rows -> audit -> manifest and ``_SUCCESS``

The same command goes on after any kind of stop. What the other program does not say is recorded as
unknown, or as the whole picture; see `docs/converting.md`.

Letters: C crops of an input, N codes of a crop, h and w rows and columns of the code grid.
"""
import dataclasses
import math
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines import codecs
from pipelines.engines import LocalEngine
from pipelines.folders import prepare_folder
from pipelines.formats import READERS, Listed, Reader
from pipelines.formats.base import Codes
from pipelines.job import Job, ShardTask, commit
from pipelines.plan import Plan, fixed_size_shards, make_plan
from pipelines.shard import concerns_source, describe
from tokenizer import audit, configs, storage
from tokenizer.corpus.images import Crop
from tokenizer.corpus.limits import MAX_PIXELS
from tokenizer.corpus.sources.urls import printable
from tokenizer.schema import FORMAT_VERSION, UNKNOWN, CodeSpec, Manifest, TokenSpec, rows_table
from tokenizer.tokens import DeadLetter, Receipt

INPUTS_SCHEMA = pa.schema([
    pa.field("key", pa.string(), nullable=False),
    pa.field("source", pa.string(), nullable=False),
    pa.field("first_byte", pa.int64()),
    pa.field("num_bytes", pa.int64()),
    pa.field("label", pa.int32()),
    *(pa.field(name, pa.string()) for name in ("class_name", "caption", "about", "error",
                                               "message")),
])
"""One input in the plan: what `Listed` says of it."""


BATCH_SIZE = 8
"""Of the tokenizer, which only says what its codes mean."""


class OtherCodes(ValueError):
    """An input has another number of crops or codes than the first one."""


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """What to import, and what its files do not say.

    Attributes:
        source: where the foreign corpus lies.
        output: folder of the token corpus.
        format: a name of `READERS`.
        tokenizer: folder of the tokenizer that made the codes; nothing where there is none.
        modality: of the codes; where not given that of the tokenizer, or ``image`` without one.
        codebook_size: K; needed without a tokenizer.
        grid: h and w; square where not given.
        image_size: height and width in pixels of what the encoder saw, without a tokenizer; 16 a
            code where not given.
        shard_size: inputs of one shard.
        num_workers: processes that convert at the same time.
        overwrite: start over where another job's work lies.
    """
    source: str
    output: str
    format: str
    tokenizer: str | None = None
    modality: str | None = None
    codebook_size: int | None = None
    grid: tuple[int, int] | None = None
    image_size: tuple[int, int] | None = None
    shard_size: int = 4096
    num_workers: int = 1
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.format not in READERS:
            raise ValueError(f"formats that are read are {', '.join(READERS)}, got {self.format!r}")
        if (self.tokenizer is None) == (self.codebook_size is None):
            raise ValueError("give either the tokenizer that made the codes (--tokenizer) or, "
                             "without one, the size of its codebook (--codebook-size)")
        if self.tokenizer is not None and self.image_size is not None:
            raise ValueError("the size of images follows from the tokenizer and the grid: leave "
                             f"out {self.image_size[0]}x{self.image_size[1]}")
        if not (self.modality or "image").isidentifier():
            raise ValueError(f"--modality is a name such as image or depth, got {self.modality!r}")
        if self.shard_size < 1:
            raise ValueError(f"shard_size must be at least 1, got {self.shard_size}")

    @property
    def reader(self) -> Reader:
        """Reads the foreign corpus."""
        return READERS[self.format](self.source, self.modality or "")


@dataclass(frozen=True, kw_only=True)
class ImportTask(ShardTask):
    """Makes the shards of an imported corpus.

    Attributes:
        num_crops: C, of each input.
    """
    plan: Plan
    reader: Reader
    spec: TokenSpec
    num_crops: int

    @property
    def url(self) -> str:
        return self.plan.url

    def prepare(self) -> None:
        """Nothing is heavy here."""

    def run(self, shard: int) -> Receipt:
        rows: list[tuple[Listed, Codes]] = []
        dead = []
        for row in self.plan.rows(shard):
            listed = configs.from_dict(Listed, row)
            result = self._read(listed)
            if isinstance(result, DeadLetter):
                dead.append(result)
            else:
                rows.append((listed, result))
        return commit(self.plan, shard, self._table(rows), dead, self.num_crops)

    def _read(self, listed: Listed) -> Codes | DeadLetter:
        """The codes of one input.

        Raises:
            OSError: the corpus as a whole cannot be read.
        """
        stage, error, message = "plan", listed.error, listed.message or ""
        if error is None:
            stage = "read"
            try:
                return self._checked(self.reader.read(listed))
            except (OSError, ValueError) as found:
                if concerns_source(found):
                    raise
                error, message = type(found).__name__, describe(found)
        return DeadLetter(key=listed.key, source=listed.source, stage=stage, error=error,
                          message=message)

    def _checked(self, found: Codes) -> Codes:
        spec, = self.spec.codes
        shape = (self.num_crops, spec.num_codes)
        if found.codes.shape != shape:
            raise OtherCodes(f"codes are of shape {found.codes.shape}, those of the first input "
                             f"are {shape}: (crops, codes)")
        if found.crops is not None and len(found.crops) != self.num_crops:
            raise OtherCodes(f"{len(found.crops)} crops are described, {self.num_crops} have codes")
        spec.check_codes(found.codes.reshape(-1, *spec.code_shape))
        return found

    def _table(self, rows: Sequence[tuple[Listed, Codes]]) -> pa.Table:
        spec, = self.spec.codes
        codes = [found.codes.reshape(-1, *spec.code_shape) for _, found in rows]
        empty = np.empty((0, *spec.code_shape), spec.dtype)
        columns = [columns_of(listed, found, spec, index) for listed, found in rows
                   for index in range(self.num_crops)]
        names = columns_of(Listed(key="", source=""), Codes(codes=empty), spec, 0)
        return rows_table(self.spec, {spec.modality: np.concatenate([empty, *codes])},
                          {name: [row[name] for row in columns] for name in names})


def columns_of(listed: Listed, found: Codes, spec: CodeSpec, index: int) -> dict[str, Any]:
    """One crop's row of the corpus, without codes; unknown boxes are the whole picture."""
    height, width = found.size or spec.image_size
    flipped = bool(found.flipped is not None and found.flipped[index])
    crop = (found.crops[index] if found.crops is not None else
            Crop(left=0, top=0, width=width, height=height, flipped=flipped))
    return {"key": listed.key, "source": listed.source, "height": height, "width": width,
            "crop_index": index, "left": crop.left, "top": crop.top, "crop_width": crop.width,
            "crop_height": crop.height, "flipped": crop.flipped, "label": listed.label,
            "class_name": listed.class_name, "caption": listed.caption}


def import_corpus(config: ImportConfig) -> Manifest:
    """Import a corpus, or go on where an earlier run of the same job stopped.

    Returns:
        The manifest of the completed token corpus.
    Raises:
        OSError: the corpus or tokenizer is missing, a store refuses, or shards could not be made.
        ValueError: the output holds the work of another plan, or the tokenizer does not fit.
    """
    if storage.is_within(config.output, config.source):
        raise ValueError(f"the output folder {config.output} lies in {config.source}; choose "
                         "another folder for the tokens")
    codec = None if config.tokenizer is None else codecs.open_codec(config.tokenizer, BATCH_SIZE)
    config = with_modality(config, codec)
    reader = config.reader
    first = first_codes(reader)
    spec = TokenSpec(codes=(code_spec(config, first.codes.shape[1], codec),))
    prepare_folder(config.output, config.overwrite)
    classes = reader.classes()
    task = ImportTask(plan=plan_import(config, reader, spec, first, classes), reader=reader,
                      spec=spec, num_crops=len(first.codes))

    def finish(receipts: Sequence[Receipt]) -> Manifest:
        return audit.complete(task.url, spec, task.plan.fingerprint, receipts, classes,
                              task.plan.num_inputs, task.plan.keys)
    return Job(task.plan, task, LocalEngine(num_workers=config.num_workers)).run(finish)


def with_modality(config: ImportConfig, codec: "codecs.Codec | None") -> ImportConfig:
    """The config with the modality of the codes, which decides what is read of several.

    Raises:
        ValueError: the tokenizer is of another modality than the one asked for.
    """
    found = codec.spec.modality if codec is not None else config.modality or "image"
    if config.modality not in (None, found):
        raise ValueError(f"{config.tokenizer} is a tokenizer of {found}, not of {config.modality}: "
                         "give the one that made these codes")
    return dataclasses.replace(config, modality=found)


def first_codes(reader: Reader) -> Codes:
    """The codes of the first input that can be read; all others must have as many.

    Raises:
        FileNotFoundError: there is none.
    """
    for listed in reader.inputs():
        if listed.error is None:
            try:
                return reader.read(listed)
            except (OSError, ValueError) as error:  # will be a dead letter
                if concerns_source(error):
                    raise
    raise FileNotFoundError(f"{reader.url} holds no codes that can be read; it must be "
                            f"{reader.form}")


def code_spec(config: ImportConfig, num_codes: int, codec: "codecs.Codec | None") -> CodeSpec:
    """What the imported codes mean.

    Args:
        codec: what made them, where that is known.

    Raises:
        ValueError: the grid does not hold this number of codes, or no picture has the size.
    """
    preprocessing = {"crop": UNKNOWN, "resampling": UNKNOWN, "imported_from": config.format}
    if codec is None:
        grid = config.grid or square(num_codes)
        size = config.image_size or (16 * grid[0], 16 * grid[1])
        spec = CodeSpec(modality=config.modality or "", grid=grid, image_size=size,
                        codebook_size=config.codebook_size or 0, tokenizer=UNKNOWN,
                        precision=UNKNOWN,
                        preprocessing={"name": config.modality, **preprocessing})
    else:
        grid = config.grid or square(num_codes // codec.spec.depth)
        spec = codecs.spec_on_grid(codec, grid)
        spec = dataclasses.replace(spec, precision=UNKNOWN,
                                   preprocessing={**spec.preprocessing, **preprocessing})
    if spec.num_codes != num_codes:
        raise ValueError(f"the codes are {num_codes} a crop, a grid of {grid[0]} x {grid[1]} with "
                         f"{spec.depth} codes a cell takes {spec.num_codes}: give the grid as HxW")
    height, width = spec.image_size
    if height < grid[0] or width < grid[1] or height * width > MAX_PIXELS:
        raise ValueError(f"--image-size {height}x{width}: a picture has at least a pixel for each "
                         f"code of the grid {grid[0]} x {grid[1]}, and at most {MAX_PIXELS} pixels")
    return spec


def square(num_cells: int) -> tuple[int, int]:
    """The square grid of at most this number of cells."""
    side = max(1, math.isqrt(num_cells))
    return side, side


def plan_import(config: ImportConfig, reader: Reader, spec: TokenSpec, first: Codes,
                classes: Sequence[str]) -> Plan:
    """The plan of an import, written or found as it must be."""
    settings = {"format_version": FORMAT_VERSION, "codes": configs.to_dict(spec)["codes"],
                "format": config.format, "shard_size": config.shard_size,
                "num_crops": len(first.codes), "classes": list(classes)}

    def shards() -> Iterator[pa.Table]:
        rows = (named(row, classes) for row in without_repeats(reader))
        return fixed_size_shards(rows, INPUTS_SCHEMA, config.shard_size)
    return make_plan(config.output, "import", settings, shards)


def named(row: dict[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    """An input with the name of its class."""
    if row["label"] is None or row["class_name"] is not None:
        return row
    return {**row, "class_name": classes[row["label"]]}


def storable(listed: Listed) -> Listed:
    """An input as it is, or as one that is wrong where its texts are none that UTF-8 can hold."""
    for name in ("key", "source", "class_name", "caption", "about", "message"):
        try:
            (getattr(listed, name) or "").encode()
        except UnicodeEncodeError:
            text = printable(getattr(listed, name))
            return Listed(key=printable(listed.key), source=printable(listed.source),
                          error="UnreadableText", message=f"its {name} is no text: {text[:200]!r}")
    return listed


def without_repeats(reader: Reader) -> Iterator[dict[str, Any]]:
    """The inputs as rows of the plan; one whose key another had before is marked."""
    seen = sqlite3.connect("")  # "" is a temporary file
    seen.execute("CREATE TABLE keys (key TEXT PRIMARY KEY) WITHOUT ROWID")
    for listed in map(storable, reader.inputs()):
        row = configs.to_dict(listed)
        if not seen.execute("INSERT OR IGNORE INTO keys VALUES (?)", (listed.key,)).rowcount:
            row |= {"error": "DuplicateKey", "message": "an earlier input has this key"}
        yield row
