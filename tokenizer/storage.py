"""Files on any fsspec URL: read, list, and write so that a file is there whole or not at all.

A path without a scheme is a local path. Local files are written to a temporary name in the same
folder, flushed to disk and renamed; object stores take the bytes in one put.
"""
import hashlib
import os
import posixpath
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

TEMPORARY_MARK = ".tmp-"
"""Names that hold this mark are unfinished writes; no reader looks at them."""


def locate(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL and the path within it."""
    fs, path = fsspec.core.url_to_fs(url)
    return fs, path


def join(url: str, *parts: str) -> str:
    """A URL below ``url``; parts are relative POSIX paths."""
    return posixpath.join(url, *parts)


def exists(url: str) -> bool:
    """Whether a file or folder is at ``url``."""
    fs, path = locate(url)
    return bool(fs.exists(path))


def is_folder(url: str) -> bool:
    """Whether ``url`` is a folder."""
    fs, path = locate(url)
    return bool(fs.isdir(path))


def read_bytes(url: str) -> bytes:
    """The content of one file.

    Raises:
        FileNotFoundError: nothing is at ``url``.
    """
    fs, path = locate(url)
    return bytes(fs.cat_file(path))


def write_bytes(url: str, content: bytes) -> None:
    """Write one file atomically; an older file at ``url`` stays until the new one is whole.

    Raises:
        OSError: the store refuses, for example because the disk is full; nothing is left behind.
    """
    fs, path = locate(url)
    if not isinstance(fs, LocalFileSystem):
        fs.pipe_file(path, content)
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}{TEMPORARY_MARK}{secrets.token_hex(4)}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def list_files(url: str) -> dict[str, int]:
    """Names and sizes in bytes of the files directly in a folder; empty when there is no folder.

    Unfinished writes are left out.
    """
    fs, path = locate(url)
    if not fs.isdir(path):
        return {}
    return {posixpath.basename(entry["name"]): int(entry["size"] or 0)
            for entry in fs.ls(path, detail=True)
            if entry["type"] == "file" and TEMPORARY_MARK not in entry["name"]}


def remove(url: str) -> None:
    """Remove a file, or a folder with all it holds; nothing happens where there is none."""
    fs, path = locate(url)
    if fs.exists(path):
        fs.rm(path, recursive=True)


def read_chunks(url: str, chunk_size: int = 1 << 20) -> Iterator[bytes]:
    """The content of one file in pieces of at most ``chunk_size`` bytes."""
    fs, path = locate(url)
    with fs.open(path, "rb") as file:
        while chunk := file.read(chunk_size):
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
