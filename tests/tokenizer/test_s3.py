"""Files on a real S3 server: what passes is not seen, what lasts is told, nothing is half there."""
from collections.abc import Callable

import fsspec
import pytest
from object_store import SECONDS, Fault, ObjectStore

from tokenizer import storage, stores
from tokenizer.corpus.labels import labels_from
from tokenizer.corpus.sources.urls import expand

CONTENT = bytes(range(256)) * 1000
SMALLEST_PART = 5 << 20
"""Bytes; stores take no smaller one, and the client's own are ten times as large."""

CALLS: dict[str, Callable[[str], object]] = {
    "read": storage.read_bytes, "size": storage.size, "exists": storage.exists,
    "chunks": lambda url: b"".join(storage.read_chunks(url)), "is_folder": storage.is_folder,
    "list": lambda url: storage.list_files(url.rpartition("/")[0]), "remove": storage.remove,
    "write": lambda url: storage.write_bytes(f"{url}.new", CONTENT),
    "pieces": lambda url: write_in_pieces(f"{url}.new")}


def write_in_pieces(url: str) -> None:
    with storage.writing(url) as file:
        file.write(CONTENT)


@pytest.fixture
def url(s3: ObjectStore) -> str:
    """A file in the bucket."""
    storage.write_bytes(f"{s3.bucket}/a/file", CONTENT)
    return f"{s3.bucket}/a/file"


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("kind", ["busy", "cut", "lost"])
def test_faults_that_pass_are_not_seen(s3: ObjectStore, url: str, name: str, kind: str) -> None:
    call = CALLS[name]
    expected = None if name in ("write", "pieces", "remove") else call(url)
    s3.faults = [Fault(kind, "(GET|PUT|POST)" if kind == "cut" else "", times=2)]
    assert call(url) == expected
    assert not s3.faults or (kind == "cut" and name in ("exists", "size"))  # these have no body
    assert storage.exists(url) == (name != "remove")
    if name in ("write", "pieces"):
        assert storage.read_bytes(f"{url}.new") == CONTENT


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("kind", ["busy", "denied", "expired"])
def test_faults_that_last_name_the_url_and_leave_nothing(s3: ObjectStore, url: str, name: str,
                                                         kind: str) -> None:
    s3.faults = [Fault(kind)]
    with pytest.raises(OSError) as caught:
        CALLS[name](url)
    folder = url.rpartition("/")[0]
    assert folder in str(caught.value) and not isinstance(caught.value, FileNotFoundError)
    s3.faults.clear()
    assert storage.list_files(folder) == {"file": len(CONTENT)}
    assert storage.read_bytes(url) == CONTENT


def test_a_body_that_is_cut_each_time_is_never_a_file(s3: ObjectStore, url: str,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "PAUSES", (0.0,))
    s3.faults = [Fault("cut")]
    for name in ("read", "chunks", "write", "pieces"):
        with pytest.raises(OSError, match=f"{url}.* cannot be reached"):
            CALLS[name](url)
    s3.faults.clear()
    assert storage.list_names(url.rpartition("/")[0]) == ["file"]


def test_a_slow_answer_is_asked_for_again(s3: ObjectStore, url: str,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": {"read_timeout": SECONDS / 4}})
    s3.faults = [Fault("slow", "GET", times=1)]
    assert storage.read_bytes(url) == CONTENT
    assert not s3.faults and sum(asked.startswith("GET") for asked in s3.requests) > 1


def test_what_others_write_and_remove_is_seen_at_once(s3: ObjectStore, url: str) -> None:
    folder = url.rpartition("/")[0]
    assert storage.list_names(folder) == ["file"] and not storage.exists(f"{folder}/other")
    assert s3.ask("PUT", "a/other", b"1")[0] == 200
    assert storage.exists(f"{folder}/other") and storage.read_bytes(f"{folder}/other") == b"1"
    assert storage.list_files(folder) == {"file": len(CONTENT), "other": 1}
    assert s3.ask("DELETE", "a/other")[0] == 204
    assert not storage.exists(f"{folder}/other") and storage.list_names(folder) == ["file"]
    s3.ask("DELETE", "a/file")
    assert not storage.exists(folder) and storage.list_names(folder) == []


def test_a_write_is_one_put_under_the_final_name(s3: ObjectStore) -> None:
    storage.write_bytes(f"{s3.bucket}/b/x", b"1")
    write_in_pieces(f"{s3.bucket}/b/y")
    bucket = s3.bucket.removeprefix("s3:/")
    assert [request for request in s3.requests if request.startswith(("PUT", "POST", "DELETE"))] \
        == [f"PUT {bucket}/b/x", f"PUT {bucket}/b/y"]


def test_a_large_file_goes_up_and_comes_down_in_parts_or_not_at_all(
        s3: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3fs.S3FileSystem._pipe_file.__defaults__",
                        (SMALLEST_PART, None, "overwrite"))
    url, content = f"{s3.bucket}/big", CONTENT * 42
    s3.faults = [Fault("busy", "PUT .*partNumber=2")]
    with pytest.raises(OSError, match=f"{url} cannot be reached"):
        storage.write_bytes(url, content)
    s3.faults.clear()
    assert not storage.exists(url) and b"<Upload>" not in s3.ask("GET", "?uploads")[1]
    s3.faults = [Fault("cut", "PUT .*partNumber", times=2), Fault("cut", "GET .*/big", times=2)]
    storage.write_bytes(url, content)
    assert storage.read_bytes(url) == content and not s3.faults


def test_removing_takes_names_literally(s3: ObjectStore) -> None:
    for name in ("a[1]/x", "a1/x", "b*", "bc"):
        storage.write_bytes(f"{s3.bucket}/{name}", b"1")
    storage.remove(f"{s3.bucket}/a[1]")
    storage.remove(f"{s3.bucket}/b*")
    assert storage.list_names(s3.bucket) == ["a1", "bc"]


def test_a_removal_that_the_store_only_seems_to_carry_out_is_told(
        s3: ObjectStore, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "NUM_TRIES", 3)
    s3.faults = [Fault("kept", "POST", times=1)]
    storage.remove(url)
    assert not storage.exists(url)
    storage.write_bytes(url, b"1")
    s3.faults = [Fault("kept", "POST")]
    with pytest.raises(OSError, match=f"{url} cannot be removed whole"):
        storage.remove(url)


def test_the_marker_of_a_folder_is_no_file(s3: ObjectStore) -> None:
    s3.ask("PUT", "data/")
    s3.ask("PUT", "data/x", b"1")
    assert storage.list_files(f"{s3.bucket}/data") == {"x": 1}
    assert storage.is_folder(f"{s3.bucket}/data") and storage.is_folder(s3.bucket)


def test_stars_find_the_same_as_on_a_disk_or_say_why_not(s3: ObjectStore) -> None:
    for name in ("0.tar", "x/1.tar", "x/y/2.tar", "x/y/note.txt", "z/3.tar"):
        storage.write_bytes(f"{s3.bucket}/{name}", b"1")
    for pattern, names in {"*.tar": ["0.tar"], "*/*.tar": ["x/1.tar", "z/3.tar"],
                           "**/*.tar": ["0.tar", "x/1.tar", "x/y/2.tar", "z/3.tar"],
                           "x/**": ["x/1.tar", "x/y/2.tar", "x/y/note.txt"],
                           "x/**/2.tar": ["x/y/2.tar"]}.items():
        assert expand(f"{s3.bucket}/{pattern}") == [f"{s3.bucket}/{name}" for name in names]
    s3.faults = [Fault("busy", "GET .*prefix=x%2Fy%2F")]
    with pytest.raises(OSError, match="x/y cannot be reached"):
        expand(f"{s3.bucket}/**/*.tar")


def test_labels_are_read_from_a_bucket_or_the_url_is_told(s3: ObjectStore) -> None:
    url = f"{s3.bucket}/labels.csv"
    storage.write_bytes(url, b"key,label\na,cat\n")
    assert labels_from(url).of("a", "a.png").class_name == "cat"
    s3.faults = [Fault("busy", "GET .*/labels.csv")]
    with pytest.raises(OSError, match=rf"{url} cannot be reached \(The store rests"):
        labels_from(url).of("a", "a.png")
    s3.faults.clear()
    storage.write_bytes(url, b'key,label\na,"cat\n')
    with pytest.raises(ValueError, match=f"{url}: "):
        labels_from(url).of("a", "a.png")


def test_a_bucket_that_is_not_there_is_named(s3: ObjectStore) -> None:
    with pytest.raises(FileNotFoundError, match="s3://nowhere-at-all/a"):
        storage.read_bytes("s3://nowhere-at-all/a")


def test_without_keys_the_url_is_named(s3: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(OSError, match=rf"{s3.bucket}/a cannot be reached \(NoCredentialsError: "):
        storage.read_bytes(f"{s3.bucket}/a")
    s3fs.S3FileSystem.clear_instance_cache()
