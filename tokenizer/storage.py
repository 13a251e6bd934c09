"""Files on any fsspec URL: read, list, and write so that a file is there whole or not at all.

A path without a scheme is a local path. Local files are written to a temporary name in the same
folder, flushed to disk and renamed; object stores take the bytes in one put. Several processes, of
one machine or many, may write and clean up in one folder at the same time.

Whatever a remote file system raises arrives here as `OSError`, with the URL, or `ValueError`; see
`tokenizer.stores`. What a store does not say is an error, never absence.
"""
import contextlib
import errno
import hashlib
import json
import os
import platform
import posixpath
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, NamedTuple

from fsspec.implementations.local import LocalFileSystem

from tokenizer.stores import is_local, kind_of, locate, persistently, remote_errors

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

TEMPORARY_MARK = ".tmp-"
"""Names that begin with this mark are unfinished writes; no reader looks at them. Behind it stand
the machine and the process that write, so that another process does not take it for a rest."""

SECONDS_UNTIL_OLD = 86400.0
"""An unfinished write that nothing was added to for so long is a rest, whoever wrote it."""

ENDED = (b"Z", b"X")
"""States of processes that have ended, as ``proc(5)`` of Linux names them."""

NUM_TRIES = 100
"""How often a folder is removed or put in place when others keep writing there meanwhile."""


def join(url: str, *parts: str) -> str:
    """A URL below ``url``; parts are relative POSIX paths.

    Of a chained URL such as ``zip://folder::archive.zip`` the first link is extended.
    """
    head, mark, chain = url.partition("::")
    return posixpath.join(head, *parts) + mark + chain


def exists(url: str) -> bool:
    """Whether a file or folder is at ``url``.

    Raises:
        OSError: its store does not say.
    """
    return kind_of(url) is not None


def is_folder(url: str) -> bool:
    """Whether ``url`` is a folder.

    Raises:
        OSError: its store does not say.
    """
    kind = kind_of(url)
    if kind != "file" or is_local(url):
        return kind == "directory"
    fs, path = locate(url)
    with remote_errors(url):  # a page of the web may list a folder; a key may begin other keys
        return bool(fs.isdir(path))


def is_within(inner: str, outer: str) -> bool:
    """Whether ``inner`` is the folder ``outer``, or would lie in it; local links are followed."""
    (fs, path), (outer_fs, folder) = locate(inner), locate(outer)
    if isinstance(fs, LocalFileSystem):
        path, folder = os.path.realpath(path), os.path.realpath(folder)
    return bool(fs == outer_fs and f"{path.rstrip('/')}/".startswith(f"{folder.rstrip('/')}/"))


def size(url: str) -> int | None:
    """Size of a file in bytes, or nothing where there is no file."""
    fs, path = locate(url)
    try:
        with remote_errors(url):
            return int(fs.info(path)["size"])
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_bytes(url: str) -> bytes:
    """The content of one file; read again, a few times, where the connection to a store breaks.

    Raises:
        FileNotFoundError: nothing is at ``url``.
        OSError: it cannot be read or reached.
    """
    fs, path = locate(url)
    if isinstance(fs, LocalFileSystem):  # quicker than through fsspec, which small files feel
        return Path(path).read_bytes()
    with remote_errors(url):
        return bytes(persistently(url, lambda: fs.cat_file(path)))


def read_json_object(url: str) -> dict[str, Any]:
    """The object in a JSON file; an empty one where there is no file, or it holds anything else.

    Raises:
        OSError: the file cannot be read or reached.
    """
    try:
        data = json.loads(read_bytes(url))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def write_bytes(url: str, content: bytes) -> None:
    """Write one file atomically; an older file at ``url`` stays until the new one is whole.

    Raises:
        OSError: the store refuses, for example because the disk is full; nothing is left behind.
    """
    fs, path = locate(url)
    if isinstance(fs, LocalFileSystem):
        with writing(url) as file:
            file.write(content)
    else:
        _put(url, lambda: fs.pipe_file(path, content))


def _put(url: str, put: Callable[[], object]) -> None:
    """Write to a store, and once more where it misses the parts of a large file.

    They are gone when their completion was carried out but its answer got lost on the way.
    """
    try:
        with remote_errors(url):
            put()
    except FileNotFoundError:
        with remote_errors(url):
            put()


@contextmanager
def writing(url: str) -> Iterator[IO[bytes]]:
    """A file to write in pieces; it is there, and whole, once the block has ended without an error.

    The pieces for an object store wait in a temporary file of this machine.

    Raises:
        OSError: the store refuses; or a folder or device lies there, which nothing replaces.
    """
    fs, path = locate(url)
    if not isinstance(fs, LocalFileSystem):
        with tempfile.NamedTemporaryFile() as pieces:
            yield pieces
            pieces.flush()
            _put(url, lambda: fs.put_file(pieces.name, path))
        return
    target = Path(path)
    if target.exists() and not target.is_file():
        raise OSError(errno.EISDIR if target.is_dir() else errno.EINVAL, "is no file", str(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(_temporary_name())
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and (
                error.filename == str(temporary)  # a name by chance, which tells nobody anything
                or (error.errno in DISK_FULL and error.filename is None)):  # which says none
            error.filename = str(target)
        raise


@contextmanager
def writing_folder(url: str, last: str) -> Iterator[str]:
    """A folder to fill; it is there, with all it holds, once the block has ended without an error.

    Where others fill the same folder at the same time, one of them wins as a whole, and what the
    others wrote is dropped. An object store has no folders to rename: there the files appear one by
    one, under their final names.

    Args:
        last: name of the file that the block writes last; a folder without it counts as none.
    Yields:
        Where to write.
    """
    fs, path = locate(url)
    if not isinstance(fs, LocalFileSystem):
        yield url
        return
    target = Path(path)
    temporary = target.with_name(_temporary_name())
    try:
        temporary.mkdir(parents=True)
        yield str(temporary)
        _put_in_place(temporary, target, last)
    except OSError as error:
        if error.filename is not None:
            error.filename = str(error.filename).replace(str(temporary), str(target))
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def list_files(url: str) -> dict[str, int]:
    """Names and sizes in bytes of the files directly in a folder; empty when there is no folder.

    Unfinished writes are left out.
    """
    return {name: size for name, size in _files(url).items() if not _is_unfinished(name)}


def list_names(url: str) -> list[str]:
    """Names of the files and folders directly in a folder, sorted, without unfinished writes."""
    return sorted(item.name for item in _items(url) if not _is_unfinished(item.name))


def list_kinds(url: str) -> dict[str, str]:
    """What lies directly in a folder: by name ``file``, ``directory`` or whatever else it is."""
    return {item.name: item.kind for item in _items(url) if not _is_unfinished(item.name)}


def remove_unfinished(url: str) -> None:
    """Remove what killed writers left directly in a folder, and nothing that is being written.

    What processes of other machines left is removed when it is old; of this machine, at once. On
    object stores there is nothing such.
    """
    for item in _items(url) if is_local(url) else ():
        if _is_unfinished(item.name) and _is_abandoned(item):
            remove(join(url, item.name))


def remove(url: str) -> None:
    """Remove a file, or a folder with all it holds; nothing happens where there is none.

    Others may remove the same, or write into the folder: then it is tried again.
    """
    for left in reversed(range(NUM_TRIES)):
        try:
            if kind_of(url) is None:
                return
            _remove(url)
            if is_local(url):
                return
        except OSError as error:
            meanwhile = (isinstance(error, FileNotFoundError)
                         or error.errno in (errno.ENOTEMPTY, errno.EEXIST))
            if not left or not meanwhile:
                raise
    raise OSError(f"{url} cannot be removed whole; run the same command again")


def read_chunks(url: str, chunk_size: int = 1 << 20) -> Iterator[bytes]:
    """The content of one file in pieces of at most ``chunk_size`` bytes."""
    fs, path = locate(url)
    with remote_errors(url):
        file = fs.open(path, "rb")
    with file:
        while chunk := _read(url, file, chunk_size):
            yield chunk


def sha256(content: bytes) -> str:
    """Hexadecimal SHA-256 of ``content``."""
    return hashlib.sha256(content).hexdigest()


def sha256_of_file(url: str) -> str:
    """Hexadecimal SHA-256 of a file's content, read in pieces."""
    digest = hashlib.sha256()
    for chunk in read_chunks(url):
        digest.update(chunk)
    return digest.hexdigest()


def _read(url: str, file: IO[bytes], num_bytes: int) -> bytes:
    with remote_errors(url):
        return file.read(num_bytes)


class _Item(NamedTuple):
    """A file or folder by name: size in bytes, type, and when it changed, in seconds, if known."""
    name: str
    size: int
    kind: str
    modified: float | None


def _remove(url: str) -> None:
    """Remove what is there; clients that remove many files in one call may say nothing of the rest.
    """
    fs, path = locate(url)
    with remote_errors(url):
        if isinstance(fs, LocalFileSystem) or not set(path) & set("*?["):
            fs.rm(path, recursive=True)
            return
        for name in fs.find(path):  # other file systems would take the path for a pattern
            fs.rm_file(name)


def _files(url: str) -> dict[str, int]:
    return {item.name: item.size for item in _items(url) if item.kind == "file"}


def _items(url: str) -> list[_Item]:
    """What lies directly in a folder."""
    fs, path = locate(url)
    with remote_errors(url), contextlib.suppress(FileNotFoundError):  # removed meanwhile
        fs.invalidate_cache(path)  # other processes write here
        items = fs.ls(path, detail=True) if is_folder(url) else []
        if not isinstance(fs, LocalFileSystem):  # object stores may list a folder's own marker
            items = [item for item in items if item["name"].strip("/") != path.strip("/")]
        return [_Item(posixpath.basename(item["name"].rstrip("/")), int(item["size"] or 0),
                      item["type"], _seconds(item.get("mtime"))) for item in items]
    return []


def _seconds(modified: Any) -> float | None:
    return float(modified) if isinstance(modified, int | float) else None


def _put_in_place(temporary: Path, target: Path, last: str) -> None:
    """Rename a folder to ``target``, unless one with the file ``last`` stands there."""
    for left in reversed(range(NUM_TRIES)):
        try:
            temporary.rename(target)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not left:
                raise
        if (target / last).exists():
            return
        aside = target.with_name(_temporary_name())
        with contextlib.suppress(OSError):  # another process was faster
            target.rename(aside)
            if (aside / last).exists():  # it was put in place since we looked
                aside.rename(target)
        shutil.rmtree(aside, ignore_errors=True)


def _is_unfinished(name: str) -> bool:
    return name.startswith(TEMPORARY_MARK)


def _temporary_name() -> str:
    return f"{TEMPORARY_MARK}{_machine()}-{os.getpid()}-{secrets.token_hex(8)}"


def _is_abandoned(item: _Item) -> bool:
    """Whether nobody writes any more what is unfinished."""
    machine, _, rest = item.name.removeprefix(TEMPORARY_MARK).partition("-")
    process = rest.partition("-")[0]
    if machine == _machine() and process.isdecimal() and not _is_running(int(process)):
        return True
    return item.modified is not None and time.time() - item.modified > SECONDS_UNTIL_OLD


@lru_cache(maxsize=1)
def _machine() -> str:
    """Short name of this machine since its start, and of the container that numbers processes."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):  # not on every system
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return sha256("\n".join(parts).encode())[:12]


def _is_running(process: int) -> bool:
    """Whether a process of this machine has this number; where that cannot be asked, yes.

    One that has ended counts as ended also while nobody has asked how, as long as in a container
    whose first process asks for none.
    """
    if os.name != "posix":
        return True
    with contextlib.suppress(OSError):  # only Linux says
        if Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()[0] in ENDED:
            return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
