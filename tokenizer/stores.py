"""Remote stores behind fsspec: what they answer, told alike whichever client library asks them.

Whatever a remote file system raises becomes an `OSError` with the URL; see `remote_errors`. Absence
is what a store says, never what it fails to say. Listings are not kept, as other processes write
too. `tokenizer.storage` reads and writes files by these means.
"""
import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, TypeVar

import fsspec
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

PAUSES = (0.1, 1.0)
"""Seconds to wait before a file is read again whose connection broke; so often is it read again."""

OF_ONE_FILE = {FileNotFoundError: errno.ENOENT, PermissionError: errno.EACCES,
               IsADirectoryError: errno.EISDIR, NotADirectoryError: errno.ENOTDIR,
               FileExistsError: errno.EEXIST}
"""What stores say of one file, and its number; anything else concerns the whole store."""

BAD_KEYS = ("ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "RequestTimeTooSkewed",
            "SignatureDoesNotMatch", "TokenRefreshRequired")
"""Codes by which S3 refuses who asks rather than what is asked for."""

CLIENTS = ("aiohttp", "asyncio", "builtins", "fsspec")
"""Modules whose system errors do not say which file they are about."""

Result = TypeVar("Result")


@contextmanager
def remote_errors(url: str) -> Iterator[None]:
    """In the block, turn errors of a remote file system into `OSError` that name its URL.

    What concerns one file stays a `FileNotFoundError`, `PermissionError` or the like; anything else
    has no number and means that the store cannot be reached, or refuses whoever asks.

    Args:
        url: what the block reads or writes, and nothing else, so that no other error is taken for
            one of its file system. Errors of local files are left as they are.
    """
    try:
        yield
    # Broad on purpose: each client library has error classes of its own, without a common base, and
    # fsspec takes any library as a plugin.
    except Exception as error:
        told = error if is_local(url) else _in_words(url, error)
        if told is error:
            raise
        raise told from error


def is_local(url: str) -> bool:
    """Whether a path or URL is one of this machine's own file system."""
    return fsspec.utils.get_protocol(url) in LocalFileSystem.protocol


def locate(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, which keeps no listings, and the path within it.

    Raises:
        OSError: there is none of its kind, or it cannot be reached.
    """
    try:
        with remote_errors(url):
            fs, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except ValueError as error:
        raise OSError(f"{url} cannot be reached ({error})") from error
    return fs, path


def kind_of(url: str) -> str | None:
    """``file`` or ``directory``, or nothing where there is neither.

    Raises:
        OSError: the store does not say.
    """
    fs, path = locate(url)
    try:
        if isinstance(fs, LocalFileSystem):
            return "directory" if stat.S_ISDIR(os.stat(path).st_mode) else "file"
        with remote_errors(url):
            return str(fs.info(path)["type"])
    except (FileNotFoundError, NotADirectoryError):
        return None


def persistently(url: str, read: Callable[[], Result]) -> Result:
    """What ``read`` returns; where the connection to a store breaks, it is called again.

    Client libraries try again themselves when a store is busy, but not after every cut body.
    """
    for pause in () if is_local(url) else PAUSES:
        try:
            return read()
        except (OSError, ValueError):
            raise
        except Exception:  # a client's own class, as in `remote_errors`
            time.sleep(pause)
    return read()


class StoredFile:
    """A file to read, for Arrow, which may disguise the error of a store as damage.

    Attributes:
        error: what the store raised at last.
    """

    def __init__(self, url: str) -> None:
        self.error: Exception | None = None
        self._url = url
        fs, path = locate(url)
        with remote_errors(url):
            self._file: IO[bytes] = fs.open(path, "rb")

    def __enter__(self) -> "StoredFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    @contextmanager
    def telling_damage(self, remedy: str) -> Iterator[None]:
        """In the block, errors of Arrow become those of the store, or else of a damaged file.

        Raises:
            OSError: the store could not be read.
            ValueError: what it gave is damaged; the message ends with ``remedy``.
        """
        self.error = None
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            if self.error is not None:
                raise self.error from error
            raise ValueError(f"{self._url} is damaged ({error}); {remedy}") from error

    def read(self, size: int = -1) -> bytes:
        """The next bytes, ``size`` of them or all."""
        try:
            with remote_errors(self._url):
                return self._file.read(size)
        except Exception as error:
            self.error = error
            raise


def read_lines(url: str) -> Iterator[str]:
    """The lines of a text in UTF-8, with their ends and without a byte order mark.

    Raises:
        OSError: it cannot be read or reached.
        ValueError: it is not UTF-8.
    """
    fs, path = locate(url)
    with remote_errors(url):
        file = fs.open(path, "rt", encoding="utf-8-sig", newline="")
    with file:
        while line := _next_line(url, file):
            yield line


def _next_line(url: str, file: IO[str]) -> str:
    with remote_errors(url):
        return file.readline()


def _in_words(url: str, error: Exception) -> Exception:
    """An error as `remote_errors` raises it; itself where it says enough."""
    if isinstance(error, ValueError):
        return error
    if isinstance(error, ImportError):
        return OSError(f"{url} needs a package that is not installed ({error})")
    if isinstance(error, OSError) and (
            type(error).__module__.partition(".")[0] not in CLIENTS
            or error.filename is not None or str(error).startswith(f"{url} ")):
        return error
    cause = _hidden_cause(error)
    if cause is None and _code(error) not in BAD_KEYS:
        for kind, number in OF_ONE_FILE.items():
            if isinstance(error, kind):
                words = str(error) if _code(error) else os.strerror(number)
                return kind(number, words, url)
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            return OSError(error.errno, os.strerror(error.errno), url)
    error = cause or error
    words = str(getattr(error, "strerror", None) or error) or "no reason given"
    name = "" if type(error) is OSError else f"{type(error).__name__}: "
    return OSError(f"{url} cannot be reached ({name}{words})")


def _hidden_cause(error: Exception) -> Exception | None:
    """Why a file is not there, if that is no absence: fsspec's web client takes any error for one.
    """
    cause = error.__cause__
    if not isinstance(error, FileNotFoundError) or not isinstance(cause, Exception):
        return None
    is_answer = type(cause).__module__.startswith("aiohttp.") or isinstance(cause, OSError)
    is_absence = isinstance(cause, FileNotFoundError) or getattr(cause, "status", 0) in (404, 410)
    return cause if is_answer and not is_absence else None


def _code(error: Exception) -> str:
    """The code of an S3 store's answer; empty where there is none."""
    answer = getattr(error.__cause__, "response", None)
    found = answer.get("Error", {}).get("Code", "") if isinstance(answer, dict) else ""
    return str(found)
