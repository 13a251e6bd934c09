"""Contact sheets: sources beside what their codes decode to, with the difference in figures.

Rows are spread evenly over a corpus, or over those of its rows that keys and a filter select.
Sources are read from where the corpus says that they lie; one that cannot be read is grey, and
told.

Letters: h and w rows and columns of a picture.
"""
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from pipelines import codecs
from pipelines.decode import settled_spec
from pipelines.deltas import load_plans
from pipelines.entries import entry_of
from pipelines.formats.base import read_range
from pipelines.selection import KEY, Selection
from tokenizer import pictures, storage
from tokenizer.corpus.images import Crop
from tokenizer.corpus.limits import at_most
from tokenizer.corpus.sources import Entry, Source, open_source
from tokenizer.corpus.sources.urls import split_options
from tokenizer.grids import buckets_of, codes_of_rows
from tokenizer.schema import GEOMETRY
from tokenizer.tokens import TokenCorpus

LEAST_WIDTH = 96
"""Pixels of a picture on the sheet; smaller ones are enlarged."""

BATCH_SIZE = 1
TEXT_HEIGHT = 14
MISSING = 160
"""Grey level of a source that cannot be read."""


@dataclass(frozen=True, kw_only=True)
class SheetConfig:
    """What to show.

    Attributes:
        tokens: folder of a completed token corpus.
        output: the PNG file.
        tokenizers: folder of the tokenizer of each modality to show.
        num: rows on the sheet, fewer where there are fewer.
        columns: rows side by side.
        keys: a list of keys to choose from; see `pipelines.selection`.
        filter: an expression of `tokenizer.filters` to choose by.
    """
    tokens: str
    output: str
    tokenizers: Mapping[str, str]
    num: int = 32
    columns: int = 4
    keys: str | None = None
    filter: str | None = None

    def __post_init__(self) -> None:
        for name in ("num", "columns"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass
class Sheet:
    """What a sheet shows.

    Attributes:
        num_rows: of the corpus.
        figures: of each modality, the difference of each row whose source could be read.
        missing: keys of rows with a source that could not be read, with the reason.
        num_unknown: keys of the list that the corpus does not hold.
    """
    num_rows: int = 0
    num_unknown: int = 0
    figures: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Counts, the mean of each modality's first figure, and what is missing by reason."""
        parts = [f"{self.num_rows} row" + "s" * (self.num_rows != 1)]
        for name, found in self.figures.items():
            if found:
                figure = next(iter(found[0]))
                mean = float(np.mean([row[figure] for row in found]))
                parts.append(f"{name} {figure} {mean:.2f} on average")
        for reason, count in Counter(self.missing.values()).most_common():
            parts.append(f"{count} without source ({reason})")
        if self.num_unknown:
            parts.append(f"{self.num_unknown} key{'s' * (self.num_unknown != 1)} of the list "
                         "without row")
        return ", ".join(parts)


def contact_sheet(config: SheetConfig) -> Sheet:
    """Write a contact sheet.

    Raises:
        OSError: the corpus or a tokenizer is missing, or the sheet cannot be written.
        ValueError: a tokenizer did not make the codes, or no row is selected.
    """
    corpus = TokenCorpus.open(config.tokens)
    spec = settled_spec(corpus, config.tokenizers, BATCH_SIZE)
    decoders = codecs.codecs_by_bucket(config.tokenizers, spec, BATCH_SIZE)
    sheet = Sheet(figures={name: [] for name in decoders[0]})
    selection, sources = Selection.read(corpus, config.keys, config.filter), Sources(corpus)
    found: set[str] = set()
    cells = [cell(row, codes, decoders[row["place"]], sources, sheet)
             for row, codes in chosen(corpus, selection, config.num, list(decoders[0]), found)]
    if not cells:
        raise ValueError(f"no row of {config.tokens} is selected; a sheet shows at least one")
    sheet.num_rows, sheet.num_unknown = len(cells), len((selection.keys or found) - found)
    columns = min(config.columns, len(cells))
    pictures.save_png(config.output, in_rows(cells, columns, padding=4))
    return sheet


def chosen(corpus: TokenCorpus, selection: Selection, num: int, modalities: Sequence[str],
           found: set[str]) -> Iterator[tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """Columns, shard and place of the bucket, and codes ``(1, ...)`` by modality, of ``num`` rows,
    spread evenly; ``found`` as of `Selection.tables`."""
    counts = ([entry.rows for entry in corpus.manifest.shards] if selection.takes_all else
              [table.num_rows for table in selection.tables(corpus, [KEY], found)])
    ends = np.cumsum(counts)
    total = sum(counts)
    places = np.unique(np.linspace(0, total - 1, min(num, total)).round().astype(np.int64))
    columns = [KEY, "source", *GEOMETRY, "flipped"]
    for shard, (count, end) in enumerate(zip(counts, ends, strict=True)):
        wanted = places[(places >= end - count) & (places < end)] - (end - count)
        if len(wanted):
            table = corpus.read_shard(shard)
            table = table.take(selection.rows(table)[wanted])
            codes = {name: codes_of_rows(corpus.spec[name], table) for name in modalities}
            buckets = buckets_of(corpus.spec, table).tolist()
            for index, row in enumerate(table.select(columns).to_pylist()):
                yield {**row, "shard": shard, "place": buckets[index]}, {
                    name: codes[name][index][None] for name in modalities}


class Sources:
    """Reads the files that rows of a corpus were made of.

    Attributes:
        max_pixels: of an image that could become a row; nothing for the usual limit.
    """

    def __init__(self, corpus: TokenCorpus) -> None:
        self._plans = load_plans(corpus.url)
        self._opened: dict[str, Source] = {}
        self._shard = -1  # whose plan is held
        self.max_pixels = (self._plans[0].settings.get("max_pixels") if self._plans else None)
        self._planned: dict[str, dict[str, Any]] = {}

    def read(self, row: Mapping[str, Any], modality: str) -> tuple[bytes, str]:
        """The file of one modality, and its name.

        Raises:
            OSError, ValueError: it cannot be read.
        """
        entry = self._entry(row, modality)
        if (source := entry.sources.get(modality)) is None:
            raise FileNotFoundError(f"the corpus names no {modality} file of {row[KEY]}")
        file = file_of_part(source)
        if (stretch := entry.ranges.get(modality)) is not None:
            return read_range(file, *stretch), source
        if file == source:
            return storage.read_bytes(source), source
        part = Entry(key=entry.key, sources={modality: source})
        return self._table(file, source, modality).read(part)[modality], source

    def _table(self, file: str, source: str, modality: str) -> Source:
        """The table of which a row is a source, opened once."""
        column = split_options(source)[1].get("column")
        name = file if column is None else f"{file}#column={column}"
        if name not in self._opened:
            self._opened[name] = open_source(name, labels="none", modality=modality)
            next(self._opened[name].entries(), None)  # settles which column holds what
        return self._opened[name]

    def _entry(self, row: Mapping[str, Any], modality: str) -> Entry:
        """The input of a row as it was planned, or as its row says where there is no plan."""
        if row["shard"] != self._shard:
            self._shard = row["shard"]
            self._planned = {planned[KEY]: planned for planned in self._planned_rows(self._shard)
                             if planned.get("sources") and not planned["error"]}
        if (found := self._planned.get(row[KEY])) is not None:
            return entry_of(found)
        return Entry(key=row[KEY], sources={modality: row["source"]})

    def _planned_rows(self, shard: int) -> list[dict[str, Any]]:
        """The inputs of a shard of the corpus, whichever plan it is of; none without a plan."""
        for plan in self._plans:
            if shard < plan.num_shards:
                return plan.rows(shard)
            shard -= plan.num_shards
        return []


def file_of_part(source: str) -> str:
    """The file in which a source lies, which may be itself; both may hold a ``#`` in their names.
    """
    parts = source.split("#")
    for end in range(len(parts), 0, -1):
        if storage.exists(found := "#".join(parts[:end])):
            return found
    return source.rpartition("#")[0] or source


def cell(row: Mapping[str, Any], codes: Mapping[str, np.ndarray],
         decoders: "Mapping[str, codecs.Codec]", sources: Sources, sheet: Sheet) -> np.ndarray:
    """The pictures of one row side by side, a text below: ``(h + 14, w, 3)`` uint8."""
    shown, words = [], []
    for name, decoder in decoders.items():
        decoded = decoder.decode(codes[name])
        original = original_of(row, decoder, sources, sheet)
        if original is None:
            shown.append(np.full_like(decoder.modality.show(decoded)[0], MISSING))
            words.append("no source")
        else:
            figures = decoder.modality.difference(decoded, original[None])
            sheet.figures[name].append(figures)
            shown.append(decoder.modality.show(original[None])[0])
            words.append(", ".join(f"{what} {value:.2f}" for what, value in figures.items()))
        shown.append(decoder.modality.show(decoded)[0])
    height, width, _ = max(picture.shape for picture in shown)
    height *= -(-LEAST_WIDTH // width)
    shown = [sized(picture, height) for picture in shown]
    gap = np.full((len(shown[0]), 2, 3), 255, np.uint8)
    joined = np.concatenate([part for picture in shown for part in (picture, gap)][:-1], axis=1)
    return captioned(joined, f"{'; '.join(words)}  {row[KEY]}")


def original_of(row: Mapping[str, Any], decoder: "codecs.Codec", sources: Sources,
                sheet: Sheet) -> np.ndarray | None:
    """The pixels that the encoder saw, or nothing where the source cannot be read."""
    modality = decoder.modality
    try:
        content, name = sources.read(row, modality.file_modality())
        with at_most(sources.max_pixels):
            raw = modality.read(content, name)
        crop = Crop(left=row["left"], top=row["top"], width=row["crop_width"],
                    height=row["crop_height"], flipped=row["flipped"], index=row["crop_index"])
        return modality.fit(raw, crop, decoder.spec.image_size)
    except (OSError, ValueError) as error:
        sheet.missing[row[KEY]] = type(error).__name__
        return None


def sized(picture: np.ndarray, height: int) -> np.ndarray:
    """A picture ``(h, w, 3)`` scaled to another height without new colours."""
    width = round(picture.shape[1] * height / len(picture))
    scaled = Image.fromarray(picture).resize((width, height), Image.Resampling.NEAREST)
    return np.asarray(scaled)


def in_rows(cells: Sequence[np.ndarray], columns: int, padding: int) -> np.ndarray:
    """Pictures ``(h, w, 3)`` row by row: rows as tall as what they hold, with white around; all
    columns as wide as the widest picture."""
    width = max(picture.shape[1] for picture in cells)
    rows = [pictures.tile(of_one_size(cells[start:start + columns], width), columns, padding)
            for start in range(0, len(cells), columns)]
    return np.concatenate([*(row[:-padding] for row in rows[:-1]), rows[-1]])


def of_one_size(cells: Sequence[np.ndarray], width: int) -> np.ndarray:
    """Pictures ``(h, w, 3)`` with white at the right, and below where others are taller."""
    height = max(picture.shape[0] for picture in cells)
    return np.stack([np.pad(picture, ((0, height - picture.shape[0]),
                                      (0, width - picture.shape[1]), (0, 0)), constant_values=255)
                     for picture in cells])


def captioned(picture: np.ndarray, text: str) -> np.ndarray:
    """A picture ``(h, w, 3)`` with a line of text below, cut to its width."""
    height, width, _ = picture.shape
    image = Image.new("RGB", (width, height + TEXT_HEIGHT), "white")
    image.paste(Image.fromarray(picture))
    printable = text.encode("ascii", "replace").decode()
    ImageDraw.Draw(image).text((1, height + 1), printable, fill="black")
    return np.asarray(image)
