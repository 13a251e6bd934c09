"""One shard of the encode job, as a plain function: inputs in, rows and dead letters out.

    source -> decode threads -> bounded queue -> full batches -> codecs -> rows

Decoding runs ahead of the encoder on threads of its own; results are taken in the order of the
plan, so the rows do not depend on timing. An input is decoded once and gives one row for each of
its crops, which fill batches together with those of its neighbours. An input that fails, or one of
whose crops does, becomes one dead letter; a source that fails is raised, and the whole shard is
tried again.

With buckets, each batch is of one of them, and rows are put back into the order of the plan.

Letters: N rows, B images of a batch, h and w rows and columns of a code grid or a crop's pixels.
"""
import errno
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from pipelines.ordered import ordered
from tokenizer.buckets import Bucket, nearest
from tokenizer.corpus.crops import CENTRE, CropRule
from tokenizer.corpus.images import Crop
from tokenizer.corpus.limits import at_most
from tokenizer.corpus.modalities import Modality, fit_together
from tokenizer.corpus.sources import Entry, InputError, Source
from tokenizer.corpus.sources.web import UnreachableURL
from tokenizer.quality import encode_and_measure, quality_columns
from tokenizer.schema import BUCKET, CodeSpec, TokenSpec, rows_table
from tokenizer.tokens import DeadLetter

OF_ONE_FILE = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError,
               InputError)
OF_ONE_FILE_CODES = {errno.EIO, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL}
"""System errors that concern one file; any other means that the source cannot be reached."""

GONE = {FileNotFoundError.__name__: "is there any more", PermissionError.__name__: "may be read",
        UnreachableURL.__name__: "can be reached"}
"""Errors of one file that, where they are those of all, mean that the source is gone."""


class SourceUnreachable(OSError):
    """The corpus as a whole cannot be read, rather than one of its files."""


class Encoder(Protocol):
    """What a shard needs of a `tokenizer.codec.Codec`."""

    @property
    def spec(self) -> CodeSpec:
        """What its codes mean."""

    @property
    def modality(self) -> Modality:
        """How files become pixels."""

    @property
    def batch_size(self) -> int:
        """B, images that it takes at once."""

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels ``(B, h, w[, 3])`` to codes ``(B, h, w)``."""

    def encode_with_distances(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """The same, with distances from the entries of a codebook, where there is one."""

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Codes to pixels."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One crop of an input, read.

    Attributes:
        size: height and width of the original, in pixels.
        crop: the box that all modalities share.
        pixels: per modality ``(h, w[, 3])``, ready for its codec.
        bucket: place of the bucket that the input takes, 0 where there are none.
    """
    entry: Entry
    size: tuple[int, int]
    crop: Crop
    pixels: dict[str, np.ndarray]
    bucket: int = 0


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """One crop, encoded: its record without pixels, and per modality its codes ``(h, w)``.

    Attributes:
        quality: quality columns by name, where they are asked for; NaN for null.
    """
    entry: Entry
    size: tuple[int, int]
    crop: Crop
    codes: dict[str, np.ndarray]
    quality: dict[str, float]
    bucket: int = 0


def encode_entries(entries: Iterable[Entry], source: Source,
                   codecs: Sequence[Mapping[str, Encoder]], num_threads: int,
                   crops: CropRule = CENTRE, quality: bool = False, may_all_be_gone: bool = False,
                   max_pixels: int | None = None) -> tuple[pa.Table, list[DeadLetter]]:
    """Encode the inputs of one shard.

    Args:
        entries: in the order of the plan.
        codecs: by modality, at the size of each bucket, of which each input takes the nearest; at
            one size where there are no buckets. The first modality's size decides the crops.
        num_threads: how many inputs are read and decoded at once.
        crops: which boxes of each input become rows.
        quality: whether rows have quality columns.
        may_all_be_gone: whether that no file is there says nothing of the source.
        max_pixels: of an input, see `tokenizer.corpus.limits.at_most`.
    Returns:
        Rows of `TokenSpec.arrow_schema` in the order of the plan, those of one input by their
        crops, and a dead letter for each input that failed; both are the same whatever the number
        of threads.
    Raises:
        SourceUnreachable: the source cannot be read.
    """
    batch_size = next(iter(codecs[0].values())).batch_size
    done: dict[int, Encoded] = {}
    dead: list[DeadLetter] = []
    refused: set[str] = set()
    window = num_threads - (-2 * batch_size // crops.num_crops)

    def read(entry: Entry) -> list[Record] | DeadLetter:
        with at_most(max_pixels):
            return read_entry(entry, source, codecs, crops)
    with ordered(read, entries, num_threads, window) as results:
        for batch in in_batches(_apart(results, dead), batch_size):
            own = codecs[next(iter(batch.values())).bucket]
            encoded = encode_batch(list(batch.values()), own, quality)
            for place, result in zip(batch, encoded, strict=True):
                if isinstance(result, Encoded):
                    done[place] = result
                elif result.key not in refused:
                    refused.add(result.key)
                    dead.append(result)
    rows = [done[place] for place in sorted(done) if done[place].entry.key not in refused]
    if not (rows or may_all_be_gone):
        require_present(dead)
    return to_table(rows, token_spec(codecs, crops, quality)), dead


def in_batches(records: Iterable[Record], batch_size: int) -> Iterator[dict[int, Record]]:
    """Records by their place in the stream, B of one bucket at a time; what is left comes last."""
    waiting: dict[int, dict[int, Record]] = defaultdict(dict)
    for place, record in enumerate(records):
        waiting[record.bucket][place] = record
        if len(waiting[record.bucket]) == batch_size:
            yield waiting.pop(record.bucket)
    yield from (waiting[bucket] for bucket in sorted(waiting))


def token_spec(codecs: Sequence[Mapping[str, Encoder]], crops: CropRule,
               quality: bool = False) -> TokenSpec:
    """What rows of these crops hold, with or without quality columns and buckets.

    Args:
        codecs: of each bucket; of one size where there are none.
    """
    columns = [name for modality in codecs[0] for name in quality_columns(modality)]
    specs = []
    for name, codec in codecs[0].items():
        sizes = [Bucket(image_size=own[name].spec.image_size, grid=own[name].spec.grid)
                 for own in codecs]
        buckets = tuple(sizes) if len(sizes) > 1 else ()
        specs.append(replace(codec.spec.cropped(crops.settings()), buckets=buckets))
    return TokenSpec(codes=tuple(specs), quality=tuple(columns) if quality else ())


def read_entry(entry: Entry, source: Source, codecs: Sequence[Mapping[str, Encoder]],
               crops: CropRule = CENTRE) -> list[Record] | DeadLetter:
    """Read one input and bring its crops to the size of its codecs.

    Each file is read and decoded once, for all crops, for its own modality and those that are
    computed from it.

    Args:
        codecs: of each bucket; of one size where there are none.
    Raises:
        SourceUnreachable: the source, rather than this input, cannot be read.
    """
    if entry.problem is not None:
        error, message = entry.problem
        return DeadLetter(key=entry.key, source=entry.source, stage="plan", error=error,
                          message=message)
    stage, url = "read", entry.source
    try:
        payloads = source.read(entry)
        stage = "decode"
        decoded: dict[str, np.ndarray] = {}
        for modality in (codec.modality for codec in codecs[0].values()):
            if modality.reading not in decoded:
                held = modality.file_modality()
                url = entry.sources[held]
                decoded[modality.reading] = modality.read(payloads[held], url)
        raws = {name: decoded[codec.modality.reading] for name, codec in codecs[0].items()}
        stage, url = "crop", entry.source
        return crop_records(entry, raws, codecs, crops)
    except (OSError, ValueError) as error:
        if stage == "read" and concerns_source(error):
            raise SourceUnreachable(f"{entry.source} cannot be read: {describe(error)}") from error
        return DeadLetter(key=entry.key, source=url, stage=stage, error=type(error).__name__,
                          message=describe(error))


def crop_records(entry: Entry, raws: Mapping[str, np.ndarray],
                 codecs: Sequence[Mapping[str, Encoder]], crops: CropRule) -> list[Record]:
    """Cut the same crops out of every modality of one input, in the shape of its bucket.

    Args:
        raws: per modality ``(H, W, ...)`` as `Modality.read` returned it.
        codecs: of each bucket; of one size where there are none.
    """
    first = next(iter(codecs[0]))
    height, width = raws[first].shape[:2]
    bucket = nearest(height, width, [own[first].spec.image_size for own in codecs])
    modalities = {name: codec.modality for name, codec in codecs[bucket].items()}
    sizes = {name: codec.spec.image_size for name, codec in codecs[bucket].items()}
    return [Record(entry=entry, size=(height, width), crop=crop, bucket=bucket,
                   pixels=fit_together(modalities, raws, crop, sizes))
            for crop in crops.crops(height, width, sizes[first], entry.key)]


def encode_batch(records: Sequence[Record], codecs: Mapping[str, Encoder],
                 quality: bool = False) -> list[Encoded | DeadLetter]:
    """Encode up to B records of one bucket; where they are refused, each alone, to find which are
    at fault."""
    codes, columns = dict[str, np.ndarray](), dict[str, np.ndarray]()
    try:
        for name, codec in codecs.items():
            pixels = np.stack([record.pixels[name] for record in records])
            if quality:
                codes[name], measured = encode_and_measure(codec, pixels)
                columns |= measured
            else:
                codes[name] = codec.encode(pixels)
    except ValueError as error:
        if len(records) > 1:
            return [result for record in records
                    for result in encode_batch([record], codecs, quality)]
        entry = records[0].entry
        return [DeadLetter(key=entry.key, source=entry.source, stage="encode",
                           error=type(error).__name__, message=describe(error))]
    return [Encoded(entry=record.entry, size=record.size, crop=record.crop, bucket=record.bucket,
                    codes={name: codes[name][index] for name in codecs},
                    quality={name: float(column[index]) for name, column in columns.items()})
            for index, record in enumerate(records)]


def to_table(done: Sequence[Encoded], spec: TokenSpec) -> pa.Table:
    """Rows of one shard, N of them, which may be 0."""
    codes: dict[str, Any] = {code.modality: [item.codes[code.modality] for item in done]
                             for code in spec.codes}
    if not spec.buckets:
        codes = {code.modality: np.array(codes[code.modality], code.dtype).reshape(
            len(done), *code.code_shape) for code in spec.codes}
    return rows_table(spec, codes, {
        "key": [item.entry.key for item in done],
        "source": [item.entry.source for item in done],
        "height": [item.size[0] for item in done],
        "width": [item.size[1] for item in done],
        "crop_index": [item.crop.index for item in done],
        "left": [item.crop.left for item in done],
        "top": [item.crop.top for item in done],
        "crop_width": [item.crop.width for item in done],
        "crop_height": [item.crop.height for item in done],
        "flipped": [item.crop.flipped for item in done],
        "label": [item.entry.label for item in done],
        "class_name": [item.entry.class_name for item in done],
        "caption": [item.entry.caption for item in done],
        **{name: [item.quality[name] for item in done] for name in spec.quality},
        **bucket_columns([item.bucket for item in done], spec),
    })


def bucket_columns(places: Sequence[int], spec: TokenSpec) -> dict[str, list[Any]]:
    """The columns that say the bucket of each row and its grids, from the places of the buckets."""
    if not spec.buckets:
        return {}
    columns: dict[str, list[Any]] = {BUCKET: [spec.buckets[place] for place in places]}
    for code in spec.codes:
        sides = zip(*(bucket.grid for bucket in code.buckets), strict=True)
        columns |= {name: [side[place] for place in places]
                    for name, side in zip(code.grid_columns, sides, strict=True)}
    return columns


def require_present(dead: Sequence[DeadLetter]) -> None:
    """Refuse to take a corpus that has gone away for one whose files are all broken.

    Args:
        dead: all inputs of a shard.
    Raises:
        SourceUnreachable: there are several, and none of the files is there any more or can be
            reached.
    """
    planned = [letter for letter in dead if letter.stage != "plan"]
    errors = {letter.error for letter in planned}
    if len(planned) > 1 and len(errors) == 1 and (state := GONE.get(errors.pop())):
        raise SourceUnreachable(f"none of {len(planned)} files {state}, the first being "
                                f"{planned[0].source}: bring the corpus back, or give them up "
                                "with --max-errors 100%")


def concerns_source(error: OSError | ValueError) -> bool:
    """Whether an error while reading one file is one of its whole source."""
    return (isinstance(error, OSError) and not isinstance(error, OF_ONE_FILE)
            and error.errno not in OF_ONE_FILE_CODES)


def describe(error: Exception) -> str:
    """An error in words; of system errors without their number."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + (f": {error.filename}" if error.filename else "")
    return str(error) or type(error).__name__


def _apart(results: Iterable[list[Record] | DeadLetter],
           dead: list[DeadLetter]) -> Iterator[Record]:
    """The records among ``results``; dead letters go to ``dead``."""
    for result in results:
        if isinstance(result, DeadLetter):
            dead.append(result)
        else:
            yield from result
