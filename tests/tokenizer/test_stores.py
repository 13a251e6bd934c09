"""Answers of stores in the words of this program, whichever client library brings them."""
import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tokenizer import storage, stores

URL = "answers://bucket/a"


class Torn(Exception):
    """A client library's own error of a connection."""


class AnsweringFileSystem(fsspec.AbstractFileSystem):
    """A remote file system that raises what a test wants, or gives the bytes ``whole``."""
    protocol = "answers"
    errors: list[Exception] = []  # noqa: RUF012

    def cat_file(self, path: str, **options: Any) -> bytes:
        if self.errors:
            raise self.errors.pop(0)
        return b"whole"

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        self.cat_file(path)
        return {"name": path, "type": "file", "size": 5}


@pytest.fixture
def raises(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets what the file system raises, in order."""
    fsspec.register_implementation("answers", AnsweringFileSystem, clobber=True)
    monkeypatch.setattr(stores, "PAUSES", (0.0, 0.0))

    def set_errors(*errors: Exception) -> None:
        monkeypatch.setattr(AnsweringFileSystem, "errors", list(errors))
    return set_errors


def test_a_store_of_no_known_kind_is_told_with_its_url() -> None:
    with pytest.raises(OSError, match=r"^foo://bar/a cannot be reached \(Protocol not known: foo"):
        storage.read_bytes("foo://bar/a")


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def coded(error: Exception, code: str) -> Exception:
    """An error as S3's client raises it."""
    cause = Torn(code)
    cause.response = {"Error": {"Code": code}}  # type: ignore[attr-defined]
    return caused(error, cause)


def web_error(status: int) -> Exception:
    kind = type("ClientResponseError", (Exception,), {"__module__": "aiohttp.client_exceptions",
                                                      "status": status})
    return kind(f"{status} from the web")


@pytest.mark.parametrize(("error", "kind", "words"), [
    (FileNotFoundError("bucket/a"), FileNotFoundError, f"No such file or directory: '{URL}'"),
    (coded(FileNotFoundError("no such bucket"), "NoSuchBucket"), FileNotFoundError,
     f"no such bucket: '{URL}'"),
    (caused(FileNotFoundError(URL), web_error(404)), FileNotFoundError, "No such file"),
    (caused(FileNotFoundError(URL), KeyError("a")), FileNotFoundError, "No such file"),
    (coded(PermissionError("Access Denied"), "AccessDenied"), PermissionError,
     f"Access Denied: '{URL}'"),
    (IsADirectoryError(), IsADirectoryError, f"Is a directory: '{URL}'"),
    (OSError(errno.ENAMETOOLONG, "too long"), OSError, f"File name too long: '{URL}'"),
])
def test_what_concerns_one_file_keeps_its_class_and_gets_its_url(
        raises: Callable[..., None], error: Exception, kind: type[OSError], words: str) -> None:
    raises(error)
    with pytest.raises(kind) as caught:
        storage.read_bytes(URL)
    assert words in str(caught.value) and caught.value.filename == URL


@pytest.mark.parametrize(("error", "words"), [
    (OSError(errno.EBUSY, "Slow down"), f"{URL} cannot be reached (Slow down)"),
    (OSError(errno.EIO, "unknown answer"), f"{URL} cannot be reached (unknown answer)"),
    (ConnectionResetError("by peer"), f"{URL} cannot be reached (ConnectionResetError: by peer)"),
    (TimeoutError(), f"{URL} cannot be reached (TimeoutError: no reason given)"),
    (coded(PermissionError("too old"), "ExpiredToken"),
     f"{URL} cannot be reached (PermissionError: too old)"),
    (caused(FileNotFoundError(URL), web_error(503)),
     f"{URL} cannot be reached (ClientResponseError: 503 from the web)"),
    (caused(FileNotFoundError(URL), TimeoutError("late")),
     f"{URL} cannot be reached (TimeoutError: late)"),
    (ImportError("Install s3fs"), f"{URL} needs a package that is not installed (Install s3fs)"),
])
def test_what_concerns_the_store_is_no_error_of_one_file(
        raises: Callable[..., None], error: Exception, words: str) -> None:
    for ask in (storage.read_bytes, storage.exists, storage.is_folder):
        raises(*[error] * 3)
        with pytest.raises(OSError) as caught:
            ask(URL)
        assert str(caught.value) == words
        assert type(caught.value) is OSError and caught.value.errno is None


def test_a_file_is_read_again_where_the_connection_breaks(raises: Callable[..., None]) -> None:
    raises(Torn("cut"), Torn("cut"))
    assert storage.read_bytes(URL) == b"whole"
    raises(*[Torn("cut")] * 3)
    with pytest.raises(OSError, match="cannot be reached"):
        storage.read_bytes(URL)


def test_an_answer_is_not_asked_for_again(raises: Callable[..., None]) -> None:
    raises(OSError(errno.EBUSY, "Slow down"), Torn("not reached"))
    with pytest.raises(OSError, match="Slow down"):
        storage.read_bytes(URL)
    assert len(AnsweringFileSystem.errors) == 1


def test_what_may_not_be_looked_at_is_not_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                 ) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path))
    monkeypatch.setattr("os.stat", refuse)
    with pytest.raises(PermissionError):
        storage.exists(str(tmp_path))


def test_damage_is_told_from_a_store_that_fails(tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    with stores.StoredFile(str(path)) as file, file.telling_damage("mend it"):
        assert pq.ParquetFile(file).read().num_rows == 1
    with (stores.StoredFile(str(path)) as file, pytest.raises(ConnectionResetError),
          file.telling_damage("mend it")):
        def fail(size: int = -1) -> bytes:
            raise ConnectionResetError("peer")
        monkeypatch.setattr(file._file, "read", fail)
        pq.ParquetFile(file)
    path.write_bytes(path.read_bytes()[:-9])
    with (pytest.raises(ValueError, match=r"a\.parquet is damaged .*; mend it"),
          stores.StoredFile(str(path)) as file, file.telling_damage("mend it")):
        pq.ParquetFile(file)


def test_lines_come_with_their_ends_and_without_a_mark() -> None:
    fsspec.filesystem("memory").pipe_file("/lines.csv", "\ufeffa,b\r\nc\n".encode())
    assert list(stores.read_lines("memory://lines.csv")) == ["a,b\r\n", "c\n"]


def test_a_folder_is_within_another_through_links_and_dots(tmp_path: Path) -> None:
    (tmp_path / "photos" / "cats").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    for inner in ("photos/tokens", "link/tokens", "photos/../photos/x", "tokens/../link"):
        assert storage.is_within(f"{tmp_path}/{inner}", f"{tmp_path}/photos")
    assert not storage.is_within(f"{tmp_path}/photos/../tokens", f"{tmp_path}/photos")
    assert storage.is_within(f"{tmp_path}/photos/a", f"{tmp_path}/link")
