"""Files are there whole or not at all, on local disks and on object stores."""
import errno
import os
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from tokenizer import storage

WEATHER = "weather"


class Storm(Exception):
    """An error of a client library, which is neither an `OSError` nor a `ValueError`."""


class WeatherFileSystem(fsspec.AbstractFileSystem):
    """A remote file system that nothing can be had from."""
    protocol = WEATHER

    def _fail(self, *arguments: object, **options: object) -> None:
        raise Storm("no line")

    info = ls = cat_file = pipe_file = put_file = open = rm = _fail


def write_in_pieces(url: str) -> None:
    with storage.writing(url) as file:
        file.write(b"1")


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "memory":
        fsspec.filesystem("memory").rm("/", recursive=True)
        return "memory://corpus"
    return str(tmp_path / "corpus")


def test_what_is_written_is_read_and_listed(folder: str) -> None:
    storage.write_bytes(f"{folder}/a/b.bin", b"12345")
    storage.write_bytes(f"{folder}/a/c/d.bin", b"6")
    assert storage.read_bytes(f"{folder}/a/b.bin") == b"12345"
    assert storage.list_files(f"{folder}/a") == {"b.bin": 5}
    assert storage.list_names(f"{folder}/a") == ["b.bin", "c"]
    assert storage.exists(f"{folder}/a/c/d.bin") and storage.is_folder(f"{folder}/a/c")


def test_a_second_write_replaces_the_first(folder: str) -> None:
    storage.write_bytes(f"{folder}/x", b"old and long")
    storage.write_bytes(f"{folder}/x", b"new")
    assert storage.read_bytes(f"{folder}/x") == b"new"


def test_a_folder_that_is_not_there_holds_no_files(folder: str) -> None:
    assert storage.list_files(f"{folder}/none") == {}
    assert not storage.exists(f"{folder}/none")
    storage.remove(f"{folder}/none")


def test_removing_a_folder_removes_what_it_holds(folder: str) -> None:
    storage.write_bytes(f"{folder}/a/b/c", b"1")
    storage.remove(f"{folder}/a")
    assert not storage.exists(f"{folder}/a/b/c")


def test_reading_what_is_not_there_names_it(folder: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.bin"):
        storage.read_bytes(f"{folder}/none.bin")


@pytest.mark.parametrize("call", [
    storage.read_bytes, storage.size, storage.is_folder, storage.list_files, storage.list_names,
    write_in_pieces, lambda url: storage.write_bytes(url, b"1"),
    lambda url: list(storage.read_chunks(url))])
def test_errors_of_a_client_library_are_system_errors_that_name_the_url(
        call: Callable[[str], object]) -> None:
    fsspec.register_implementation(WEATHER, WeatherFileSystem, clobber=True)
    words = r"weather://a/b cannot be reached \(Storm: no line\)"
    with pytest.raises(OSError, match=words) as caught:
        call("weather://a/b")
    assert isinstance(caught.value.__cause__, Storm)


def test_bugs_around_local_files_and_damage_elsewhere_keep_their_class(tmp_path: Path) -> None:
    for url, error in ((str(tmp_path), KeyError), ("memory://a", ValueError)):
        with pytest.raises(error), storage.remote_errors(url):
            raise error


def test_pieces_and_hash_cover_the_whole_file(folder: str) -> None:
    storage.write_bytes(f"{folder}/x", bytes(range(256)) * 10)
    pieces = list(storage.read_chunks(f"{folder}/x", 1000))
    assert [len(piece) for piece in pieces] == [1000, 1000, 560]
    assert storage.sha256_of_file(f"{folder}/x") == storage.sha256(b"".join(pieces))


def test_a_full_disk_leaves_the_old_file_and_no_rest(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    storage.write_bytes(str(path), b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
        storage.write_bytes(str(path), b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x"]


def test_unfinished_writes_are_not_listed_and_can_be_removed(tmp_path: Path) -> None:
    (tmp_path / f"{storage.TEMPORARY_MARK}12ab").write_bytes(b"half")
    (tmp_path / "whole").write_bytes(b"whole")
    assert storage.list_files(str(tmp_path)) == {"whole": 5}
    assert storage.list_names(str(tmp_path)) == ["whole"]
    storage.remove_unfinished(str(tmp_path))
    assert os.listdir(tmp_path) == ["whole"]


def test_the_longest_name_that_a_disk_takes_can_be_written(tmp_path: Path) -> None:
    storage.write_bytes(f"{tmp_path}/{'n' * 255}", b"1")
    assert storage.list_files(str(tmp_path)) == {"n" * 255: 1}


def test_what_is_written_in_pieces_is_there_once_the_block_ends(folder: str) -> None:
    with storage.writing(f"{folder}/x") as file:
        file.write(b"one ")
        file.write(b"two")
    assert storage.read_bytes(f"{folder}/x") == b"one two"


def test_a_block_that_fails_leaves_nothing(folder: str) -> None:
    with pytest.raises(ValueError), storage.writing(f"{folder}/x") as file:
        file.write(b"half")
        raise ValueError
    assert storage.list_names(folder) == []
