"""Files are there whole or not at all, on local disks and on object stores."""
import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from tokenizer import storage

WEATHER = "weather"
ROOT = Path(__file__).parents[2]


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


def test_below_a_file_there_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    below = f"{tmp_path}/file/below"
    assert storage.size(below) is None and storage.read_json_object(below) == {}
    assert not storage.exists(below) and storage.list_files(below) == {}


def test_removing_a_folder_removes_what_it_holds(folder: str) -> None:
    storage.write_bytes(f"{folder}/a/b/c", b"1")
    storage.remove(f"{folder}/a")
    assert not storage.exists(f"{folder}/a/b/c")


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match=r"is no file: '.*/pipe'"):
        storage.write_bytes(str(tmp_path / "pipe"), b"1")
    with pytest.raises(IsADirectoryError, match=f"is no file: '{tmp_path}'"):
        storage.write_bytes(str(tmp_path), b"1")
    assert (tmp_path / "pipe").is_fifo() and storage.list_names(str(tmp_path)) == ["pipe"]


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


def test_unfinished_writes_are_not_listed_and_removed_when_old(tmp_path: Path) -> None:
    (tmp_path / "whole").write_bytes(b"whole")
    for name in ("12ab", "another-1-12ab", "another-2-34cd"):
        (tmp_path / f"{storage.TEMPORARY_MARK}{name}").write_bytes(b"half")
    assert storage.list_files(str(tmp_path)) == {"whole": 5}
    assert storage.list_names(str(tmp_path)) == ["whole"]
    yesterday = time.time() - storage.SECONDS_UNTIL_OLD - 10
    for name in ("12ab", "another-1-12ab"):
        os.utime(tmp_path / f"{storage.TEMPORARY_MARK}{name}", (yesterday, yesterday))
    storage.remove_unfinished(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == [".tmp-another-2-34cd", "whole"]


WRITER = """
import sys
from tokenizer import storage
with storage.writing(sys.argv[1] + "/x") as file, storage.writing_folder(sys.argv[1] + "/f", "z"):
    file.write(b"whole")
    print("begun", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize("is_killed", [False, True])
def test_what_a_living_process_writes_is_left_and_what_a_killed_one_wrote_removed(
        tmp_path: Path, is_killed: bool) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], text=True, cwd=ROOT,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout and writer.stdout.readline() == "begun\n"
        storage.remove_unfinished(str(tmp_path))
        assert len(os.listdir(tmp_path)) == 2
        if is_killed:
            writer.kill()
        else:
            writer.communicate("go on\n")
    storage.remove_unfinished(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == ([] if is_killed else ["f", "x"])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says that a process has ended")
def test_what_a_killed_process_wrote_is_removed_before_anyone_asks_how_it_ended(
        tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], text=True, cwd=ROOT,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout and writer.stdout.readline() == "begun\n"
        writer.kill()
        os.waitid(os.P_PID, writer.pid, os.WEXITED | os.WNOWAIT)
        os.kill(writer.pid, 0)  # its number is still taken
        storage.remove_unfinished(str(tmp_path))
        assert os.listdir(tmp_path) == []


def test_of_two_writers_of_a_folder_the_first_one_stays(tmp_path: Path) -> None:
    with storage.writing_folder(f"{tmp_path}/f", "last") as slow:
        storage.write_bytes(f"{slow}/last", b"slow")
        with storage.writing_folder(f"{tmp_path}/f", "last") as fast:
            storage.write_bytes(f"{fast}/last", b"fast")
    assert storage.read_bytes(f"{tmp_path}/f/last") == b"fast" and os.listdir(tmp_path) == ["f"]


def test_a_folder_of_a_store_is_written_in_place() -> None:
    fsspec.filesystem("memory").rm("/", recursive=True)
    with storage.writing_folder("memory://corpus/f", "last") as url:
        assert url == "memory://corpus/f"


def test_a_folder_without_its_last_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f/rest").write_bytes(b"half")
    with storage.writing_folder(f"{tmp_path}/f", "last") as url:
        storage.write_bytes(f"{url}/last", b"")
    assert os.listdir(tmp_path / "f") == ["last"] and os.listdir(tmp_path) == ["f"]


def test_a_folder_whose_writing_fails_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError), storage.writing_folder(f"{tmp_path}/f", "last") as url:
        storage.write_bytes(f"{url}/first", b"")
        raise ValueError
    assert os.listdir(tmp_path) == []


def test_several_may_remove_the_same_folder(tmp_path: Path) -> None:
    for _ in range(5):
        for name in range(20):
            (tmp_path / f"f/{name}").mkdir(parents=True)
        with ThreadPoolExecutor(3) as pool:
            assert list(pool.map(storage.remove, [f"{tmp_path}/f"] * 3)) == [None] * 3
        assert os.listdir(tmp_path) == []


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


@pytest.mark.parametrize("times", [1, 2])
def test_a_write_whose_parts_are_gone_is_made_once_more(monkeypatch: pytest.MonkeyPatch,
                                                        times: int) -> None:
    fs = fsspec.filesystem("memory")
    put, tries = type(fs).pipe_file, []

    def lose(self: fsspec.AbstractFileSystem, path: str, value: bytes, **options: object) -> None:
        tries.append(path)
        if len(tries) <= times:
            raise FileNotFoundError("the specified upload does not exist")
        put(self, path, value, **options)
    monkeypatch.setattr(type(fs), "pipe_file", lose)
    if times == 1:
        storage.write_bytes("memory://twice/a", b"1")
        assert storage.read_bytes("memory://twice/a") == b"1"
    else:
        with pytest.raises(FileNotFoundError):
            storage.write_bytes("memory://twice/b", b"1")
    assert len(tries) == 2


@pytest.mark.parametrize(("content", "found"), [
    (b'{"a": 1}', {"a": 1}), (b"[1]", {}), (b"{cut", {}), (b"\xff", {}), (None, {})])
def test_a_json_object_is_read_where_there_is_one(tmp_path: Path, content: bytes | None,
                                                  found: dict[str, int]) -> None:
    if content is not None:
        (tmp_path / "file.json").write_bytes(content)
    assert storage.read_json_object(str(tmp_path / "file.json")) == found


def test_a_name_that_the_disk_refuses_is_told_and_not_that_of_the_unfinished_write(
        tmp_path: Path) -> None:
    name = str(tmp_path / ("a" * 300))
    with pytest.raises(OSError, match="File name too long") as caught:
        storage.write_bytes(name, b"x")
    assert caught.value.filename == name
