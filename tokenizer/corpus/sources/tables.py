"""Sources that are tables with files in columns: which column is what, and records of rows."""
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from tokenizer.corpus.labels import OwnLabels
from tokenizer.corpus.sources import columns
from tokenizer.corpus.sources.listed import ListedSource, Record


class TableSource(ListedSource):
    """A table with a column of files for each modality.

    Args:
        options: ``column``, ``key`` and ``caption`` name columns.

    Attributes:
        file_columns: the column of each modality.
        text_columns: the columns of ``key``, ``label`` and ``caption``, as far as there are some.
    """
    known_options: tuple[str, ...] = ("caption", "column", "key")

    def __init__(self, url: str, maps: Mapping[str, str] | None = None, labels: str = "auto",
                 modality: str = "image", options: Mapping[str, str] | None = None) -> None:
        super().__init__(url, maps, labels, modality, options)
        self.file_columns: dict[str, str] = {}
        self.text_columns: dict[str, str | None] = {}
        self._class_names: list[str] | None = None

    def class_names(self) -> list[str] | None:
        self._listed()
        return self._class_names

    def choose_columns(self, schema: pa.Schema) -> None:
        """Settle which column holds what.

        Raises:
            ValueError: there is no such column, or it holds no files.
        """
        first, *maps = self.modalities
        named = {name: column for name, column in self.columns.items() if column is not None}
        taken = [named[name] for name in maps]
        own = named.get(first) or columns.choose_images(schema, first, taken)
        self.file_columns = {first: own, **{name: named[name] for name in maps}}
        for modality, column in self.file_columns.items():
            columns.require_files(schema, column, modality, str(self))
        wanted = self.labels.column if isinstance(self.labels, OwnLabels) else None
        self.text_columns = columns.text_columns(schema, {**self.options, "label": wanted})
        self._class_names = columns.class_names(schema, self.text_columns["label"])

    def record(self, place: str, fallback: str, texts: Mapping[str, Any],
               problem: tuple[str, str] | None = None) -> Record:
        """The record of one row.

        Args:
            place: where the row lies; behind it stands the column of each map.
            fallback: its key, where it has none of its own.
            texts: its values for `text_columns`.
        """
        key, column = texts.get("key"), self.text_columns["key"]
        if problem is None and column is not None and key in (None, ""):
            problem = ("NoKey", f"the row has nothing in its column {column} of keys")
        label = columns.label_text(texts.get("label"), place)
        if (label is not None and self._class_names is not None
                and columns.class_number(label, place) < 0):
            label = None  # as rows of unlabelled test sets have it
        first, *maps = self.modalities
        sources = {first: place, **{name: f"{place}&column={self.file_columns[name]}"
                                    for name in maps}}
        return Record(key=fallback if key in (None, "") else str(key), sources=sources, label=label,
                      caption=columns.caption_text(texts.get("caption")), problem=problem)
