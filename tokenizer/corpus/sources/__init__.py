"""Sources: where the images and maps of a corpus lie, and how they pair up.

A source lists its inputs, one at a time and always in the same order, and reads one when asked;
training and the jobs use the same. To add a kind, put a module with a subclass of `Source` into
this folder: every class here that has a name is listed in `SOURCES`. Where many inputs lie in one
file, `listed.ListedSource` asks for their records alone.

Nothing is passed over in silence: what is wrong with an input is its `Entry.problem`, and files
that are no input are counted in `Source.notes`.
"""
import importlib
import pkgutil
from abc import ABCMeta
from collections.abc import Mapping

from tokenizer import storage
from tokenizer.corpus.modalities import file_modality
from tokenizer.corpus.sources.base import Entry, InputError, Source, SourceChanged
from tokenizer.corpus.sources.folder import FolderSource
from tokenizer.corpus.sources.joined import JoinedSource
from tokenizer.corpus.sources.urls import is_within_corpus, split_options


def open_source(url: str, maps: Mapping[str, str] | None = None, labels: str = "auto",
                modality: str = "image") -> Source:
    """The source at ``url``, of the first kind in `SOURCES` that accepts it.

    Args:
        url: a folder, or files as `Source.form` of each kind says; options of the kind may follow
            behind a ``#``.
        maps: where each further modality lies: ``column:NAME`` or, in tar files, ``.SUFFIX`` within
            the corpus; else a source of its own, such as a folder, with the same keys.
        labels: ``auto``, ``folder``, ``none``, ``column:NAME``, ``regex:PATTERN`` or the path of a
            CSV or JSON-lines table.
        modality: what the corpus is read for; of a computed modality the source lists the files
            that it is computed from, such as images for edges.
    Raises:
        FileNotFoundError: nothing is there, or nothing that a source reads.
        ValueError: an option is wrong.
    """
    held = file_modality(modality)
    whole, options = split_options(url)
    for cls in SOURCES.values():
        if cls.accepts(whole):
            maps = dict(maps or {})
            beside = {name: maps.pop(name) for name in list(maps) if _is_beside(cls, maps[name])}
            source = cls(whole, maps, labels, held, options)
            return JoinedSource(source, {name: _open_maps(name, place, source)
                                         for name, place in beside.items()}) if beside else source
    forms = "; ".join(cls.form for cls in SOURCES.values() if cls is not FolderSource)
    state = "is a file, not a folder" if storage.exists(whole) else "does not exist"
    raise FileNotFoundError(f"the corpus {whole} {state}; give a folder of {held} files, or: "
                            f"{forms} (docs/sources.md)")


def _is_beside(cls: type[Source], place: str) -> bool:
    """Whether maps lie in a source of their own, which a corpus of kind ``cls`` does not read."""
    if cls is FolderSource:
        return any(kind.accepts(split_options(place)[0]) for kind in SOURCES.values()
                   if kind is not FolderSource)
    return not is_within_corpus(place)


def _open_maps(name: str, place: str, source: Source) -> Source:
    """The source of one modality's maps."""
    if (held := file_modality(name)) != name:
        raise ValueError(f"{name} are computed from {held} files and need no maps of their own; "
                         f"leave out {place}")
    if name in source.modalities:
        raise ValueError(f"{name} is the corpus itself; maps are of other modalities")
    try:
        return open_source(place, None, "none", name)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"the {name} maps {place}: {error}; for maps within {source} give "
                                f"{name}=column:NAME") from error


def _all_sources() -> dict[str, type[Source]]:
    """The named sources of the modules of this package, by rank."""
    found: list[type[Source]] = []
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        for value in vars(importlib.import_module(module.name)).values():
            if (isinstance(value, ABCMeta) and issubclass(value, Source)
                    and value.__module__ == module.name and "name" in vars(value)):
                found.append(value)
    return {cls.name: cls for cls in sorted(found, key=lambda cls: cls.rank)}


SOURCES: dict[str, type[Source]] = _all_sources()
"""Every kind of source by name."""

__all__ = ["SOURCES", "Entry", "FolderSource", "InputError", "Source", "SourceChanged",
           "is_within_corpus", "open_source"]
