"""Formats in which others publish tokens: read into token corpora of ours, and written from them.

To add one, put a module with a `Reader` and a writer (`Layout`) into this folder and list both
here; ``img2tokens convert`` finds them by name. `docs/converting.md` describes each format.
"""
from pipelines.formats.base import Layout, Listed, Reader
from pipelines.formats.fourm import FourMLayout, FourMReader
from pipelines.formats.llamagen import LlamaGenLayout, LlamaGenReader
from pipelines.formats.rar import RARLayout, RARReader
from pipelines.formats.webdataset import WebDatasetLayout, WebDatasetReader

READERS: dict[str, type[Reader]] = {reader.name: reader for reader in (
    LlamaGenReader, RARReader, FourMReader, WebDatasetReader)}
"""Every format that is read, by name."""

LAYOUTS: dict[str, type[Layout]] = {layout.name: layout for layout in (
    LlamaGenLayout, RARLayout, FourMLayout, WebDatasetLayout)}
"""Every format that is written, by name."""

__all__ = ["LAYOUTS", "READERS", "Layout", "Listed", "Reader"]
