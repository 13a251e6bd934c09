"""Sinks: where decoded pictures go, as files in folders or many to a file.

To add one, put a module with a subclass of `Sink` into this folder and list it here; the decode job
and its option ``--to`` find it by name. Sinks with one file for each shard subclass `FileSink`.
"""
from pipelines.sinks.base import Item, Sink
from pipelines.sinks.folder import FolderSink
from pipelines.sinks.parquet import ParquetSink
from pipelines.sinks.tar import TarSink

SINKS: dict[str, type[Sink]] = {sink.name: sink for sink in (FolderSink, TarSink, ParquetSink)}
"""Every sink by name."""

__all__ = ["SINKS", "FolderSink", "Item", "Sink"]
