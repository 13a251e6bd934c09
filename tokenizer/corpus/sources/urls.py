"""What a corpus argument names: options behind a ``#``, braces and stars, one file or many.

    shards/{00..07}.tar    data/*.parquet    list.csv#column=url&retries=5    s3://bucket/a/**/*.tar
"""
import glob
import os
import posixpath
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tokenizer import storage
from tokenizer.stores import kind_of

ETAGS = ("ETag", "etag", "md5Hash", "content_md5", "blob_id", "crc32c", "sha256")
"""Names under which file systems keep what changes with a file's content."""

TIMES = ("mtime", "LastModified", "last_modified", "updated")
"""Names under which file systems keep when a file was written."""

LITERAL = str.maketrans({"[": "[[]", "?": "[?]"})
"""How patterns write what means itself in names: of all wildcards there are stars alone."""

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def split_options(url: str) -> tuple[str, dict[str, str]]:
    """A corpus argument without its options, and these by name.

    Only ``NAME=VALUE`` pairs behind the last ``#`` are options; any other ``#`` belongs to a name.
    """
    head, mark, tail = url.rpartition("#")
    if not mark or not all("=" in part for part in tail.split("&")):
        return url, {}
    return head, dict(parse_qsl(tail, keep_blank_values=True))


def require_known(options: Mapping[str, str], known: Iterable[str], what: str) -> None:
    """Refuse options that a kind of source does not have.

    Raises:
        ValueError: there is one; the message lists those that are known.
    """
    known = sorted(known)
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(f"{what} has no option {unknown[0]!r} behind its '#'; "
                         f"it has {', '.join(known) or 'none'}")


def suffix_of(url: str) -> str:
    """Lower-case suffix of the path that a URL ends in; the query of a web address is no part."""
    path = urlsplit(url).path if is_web(url) else url.partition("::")[0]
    return posixpath.splitext(path)[1].lower()


def names_files(url: str, suffixes: Iterable[str]) -> bool:
    """Whether a URL names files with one of these suffixes: not a folder that is called so, as the
    tables are that Spark writes."""
    return suffix_of(url) in suffixes and (any(mark in url for mark in "*{")
                                           or kind_of(url) != "directory")


def is_within_corpus(place: str) -> bool:
    """Whether maps are named by a column of the corpus, or by a suffix of its members."""
    return place.startswith("column:") or (place.startswith(".") and "/" not in place
                                           and len(place.strip(".")) > 0)


def is_web(url: str) -> bool:
    """Whether a URL is a web address."""
    return url.lower().startswith(("http://", "https://"))


def expand(url: str) -> list[str]:
    """The files that a URL with braces and stars names; braces in their order, stars sorted.

    Raises:
        FileNotFoundError: a star matches nothing.
    """
    names = []
    for name in _unbraced(url):
        found = _matches(name) if "*" in name and not is_web(name) else [name]
        if not found:
            raise FileNotFoundError(f"no file matches {name}")
        names += found
    return list(dict.fromkeys(names))


def require_files(urls: Iterable[str]) -> None:
    """Refuse what does not exist, by name.

    Raises:
        FileNotFoundError: a file does not exist.
    """
    for url in urls:
        if not storage.exists(url):
            raise FileNotFoundError(f"{url} does not exist")


def identity(url: str) -> str:
    """Size and, where the store keeps one, entity tag of a file.

    Raises:
        FileNotFoundError: there is no such file.
    """
    fs, path = storage.locate(url)
    with storage.remote_errors(url):
        info = fs.info(path)
    return ", ".join([*_size(info), *_tag(info)])


def stamp(info: Mapping[str, Any]) -> str:
    """Size, and entity tag or else time, of a file in a listing; as far as they are told."""
    times = [_moment(info[name]) for name in TIMES if info.get(name)]
    return ", ".join([*_size(info), *(_tag(info) or times[:1])])


def local_stamp(state: os.stat_result) -> str:
    """The same of a local file."""
    seconds, rest = divmod(state.st_mtime_ns, 10 ** 9)
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{state.st_size} bytes, {moment}.{rest:09d}Z"


def printable(name: str) -> str:
    """A name as UTF-8 can hold it; bytes that are none show as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def stems(urls: list[str]) -> list[str]:
    """For each file a short name, unique among them: its path below what they share, unsuffixed."""
    paths = [posixpath.splitext(urlsplit(url).path if "://" in url else url)[0] for url in urls]
    shared = posixpath.commonpath([posixpath.dirname(path) or "." for path in paths]) \
        if len({path.startswith("/") for path in paths}) == 1 else ""
    found = [posixpath.relpath(path, shared) if shared not in ("", ".") else path
             for path in paths]
    return found if len(set(found)) == len(urls) else [
        f"{number:05d}-{stem}" for number, stem in enumerate(found)]


def _size(info: Mapping[str, Any]) -> list[str]:
    return [] if info.get("size") is None else [f"{info['size']} bytes"]


def _tag(info: Mapping[str, Any]) -> list[str]:
    return [str(info[name]).strip('"') for name in ETAGS if info.get(name)][:1]


def _moment(value: Any) -> str:
    return str(value.isoformat() if isinstance(value, datetime) else value)


def _unbraced(url: str) -> list[str]:
    match = _BRACES.search(url)
    if match is None:
        return [url]
    inside = _RANGE.fullmatch(match[1])
    if inside:
        first, last = inside.groups()
        step = 1 if int(first) <= int(last) else -1
        parts = [f"{number:0{len(first) if first.startswith('0') else 1}d}"
                 for number in range(int(first), int(last) + step, step)]
    else:
        parts = match[1].split(",")
    return [name for part in parts
            for name in _unbraced(url[:match.start()] + part + url[match.end():])]


def _matches(pattern: str) -> list[str]:
    if "://" not in pattern:
        return sorted(glob.glob(pattern.translate(LITERAL), recursive=True))
    head, mark, chain = pattern.partition("::")
    start = head[:head.index("*")].rindex("/") + 1
    parts = head[start:].translate(LITERAL).split("/")
    return sorted(_below(f"{head[:start]}{mark}{chain}", [parts]))


def _below(folder: str, patterns: list[list[str]]) -> Iterator[str]:
    """What matches one of several patterns, given by their parts, below a folder.

    The search that a file system offers itself leaves out what could not be listed.
    """
    current = list(patterns)
    for parts in current:  # grows meanwhile: ** is also no folder at all
        if parts[0] == "**" and parts[1:]:
            current.append(parts[1:])
    for name, kind in storage.list_kinds(folder).items():
        place, is_folder = storage.join(folder, name), kind == "directory"
        deeper = [parts for parts in current if parts[0] == "**" and is_folder]
        named = [rest for first, *rest in current if first != "**" and fnmatchcase(name, first)]
        if [] in named or (["**"] in current and not is_folder):
            yield place
        if deeper := deeper + [rest for rest in named if rest and is_folder]:
            yield from _below(place, deeper)
