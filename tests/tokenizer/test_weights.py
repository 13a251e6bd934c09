"""Weights by path, URL and hub id, against a server of this machine that also fails in its ways."""
import hashlib
import os
import pickle
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import fsspec
import pytest
import safetensors.torch
import torch
from torch import nn

from tokenizer import weights
from tokenizer.weights import cache_folder, copy_tensors, fetch, read_tensors

BODY = os.urandom(1 << 16) * 20
DIGEST = hashlib.sha256(BODY).hexdigest()
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Handler(BaseHTTPRequestHandler):
    """Answers by the first part of the path, and notes what it was asked."""
    asked: ClassVar[list[str]] = []
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.asked.append(self.path)
        kind = self.path.split("/")[1]
        if kind == "busy" or (kind == "recovers" and self.asked.count(self.path) == 1):
            self.send_error(503)
        elif kind in ("missing", "forbidden"):
            self.send_error(404 if kind == "missing" else 403)
        elif kind == "chunked":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"5\r\nhello\r\n")
            self.close_connection = True
        else:
            self.send_response(200)
            self.send_header("Content-Length", str(len(BODY)))
            self.send_header("ETag", '"' + DIGEST[:32] + '"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(BODY[:len(BODY) // 2] if kind == "cut" else BODY)
            self.close_connection = True

    do_HEAD = do_GET

    def log_message(self, *arguments: object) -> None:
        """Be silent."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of a server on this machine; downloads do not wait between attempts."""
    monkeypatch.setattr(weights, "WAIT_SECONDS", 0.0)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy",
                 "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    Handler.asked.clear()
    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{running.server_address[1]}"
    running.shutdown()
    running.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("IMG2TOKENS_CACHE", str(folder))
    return folder


def files(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*")] if folder.exists() else []


def test_a_path_is_taken_where_it_lies(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "a.pth").write_bytes(BODY)
    assert fetch(str(tmp_path / "a.pth")) == str(tmp_path / "a.pth")
    assert fetch(f"file://{tmp_path}/a.pth") == str(tmp_path / "a.pth")
    assert not cache.exists()


def test_a_download_is_whole_and_made_once(server: str, cache: Path) -> None:
    first = fetch(f"{server}/good/a.pth")
    assert Path(first).read_bytes() == BODY
    assert fetch(f"{server}/good/a.pth") == first
    assert Handler.asked == ["/good/a.pth"]
    assert files(cache) == [Path(first).name] and first.endswith("-a.pth")


def test_files_of_one_name_from_two_places_are_kept_apart(server: str) -> None:
    assert fetch(f"{server}/good/a.pth") != fetch(f"{server}/other/a.pth")


def test_a_busy_server_is_tried_again_and_then_named_with_what_to_do(server: str,
                                                                     cache: Path) -> None:
    with pytest.raises(OSError, match=r"busy/a\.pth cannot be downloaded \(HTTP 503 .*tried 3 "
                                      r"times\); check the connection, or download the file"):
        fetch(f"{server}/busy/a.pth")
    assert len(Handler.asked) == 3 and files(cache) == []


def test_a_server_that_recovers_is_forgiven(server: str) -> None:
    assert Path(fetch(f"{server}/recovers/a.pth")).read_bytes() == BODY
    assert len(Handler.asked) == 2


@pytest.mark.parametrize(("kind", "words"), [
    ("cut", f"broke off after {len(BODY) // 2} of {len(BODY)} bytes"),
    ("chunked", "broke off: IncompleteRead")])
def test_a_body_that_ends_early_leaves_no_file(server: str, cache: Path, kind: str,
                                               words: str) -> None:
    with pytest.raises(OSError, match=words):
        fetch(f"{server}/{kind}/a.pth")
    assert files(cache) == []


@pytest.mark.parametrize(("kind", "error", "words"), [
    ("missing", FileNotFoundError, r"a\.pth does not exist \(HTTP 404\)"),
    ("forbidden", OSError, r"HTTP 403 Forbidden; tried 1 times")])
def test_a_final_answer_is_not_asked_for_twice(server: str, kind: str, error: type[Exception],
                                               words: str) -> None:
    with pytest.raises(error, match=words):
        fetch(f"{server}/{kind}/a.pth")
    assert len(Handler.asked) == 1


def test_no_server_at_all_is_said_so(server: str, cache: Path) -> None:
    with pytest.raises(OSError, match=r"cannot be downloaded \(.*refused.*give its path"):
        fetch("http://127.0.0.1:9/a.pth")
    assert files(cache) == []


@pytest.mark.parametrize("digest", [DIGEST, DIGEST[:8], DIGEST[:8].upper()],
                         ids=["whole", "beginning", "capitals"])
def test_the_right_hash_is_accepted(server: str, digest: str) -> None:
    assert Path(fetch(f"{server}/good/a.pth#sha256={digest}")).read_bytes() == BODY


def test_a_wrong_hash_of_a_download_leaves_no_file(server: str, cache: Path) -> None:
    with pytest.raises(ValueError, match=rf"has the SHA-256 {DIGEST}, which should begin with 00"):
        fetch(f"{server}/good/a.pth#sha256=00")
    assert files(cache) == [] and len(Handler.asked) == 1


@pytest.mark.parametrize("name", ["vgg16-397923af.pth", "pt_inception-2015-12-05-6726825d.pth"])
def test_published_files_are_checked_by_their_name(server: str, tmp_path: Path,
                                                   name: str) -> None:
    (tmp_path / name).write_bytes(BODY)
    url = f"{server}/good/{name}"
    for place in (str(tmp_path / name), url, f"{url}?download=true&at=a/b"):
        with pytest.raises(ValueError, match=r"should begin with (397923af|6726825d): it"):
            fetch(place)


def test_a_damaged_copy_in_the_cache_is_fetched_again(server: str) -> None:
    place = f"{server}/good/a.pth#sha256={DIGEST}"
    Path(fetch(place)).write_bytes(BODY[:100])
    assert Path(fetch(place)).read_bytes() == BODY


@pytest.mark.parametrize("digest", ["xyz", "", "0" * 65])
def test_a_hash_that_is_none_is_refused(tmp_path: Path, digest: str) -> None:
    (tmp_path / "a.pth").write_bytes(BODY)
    with pytest.raises(ValueError, match="1 to 64 hexadecimal digits"):
        fetch(f"{tmp_path}/a.pth#sha256={digest}")


def test_other_stores_are_cached_too(cache: Path) -> None:
    with fsspec.open("memory://weights/b.pth", "wb") as file:
        file.write(BODY)
    path = fetch("memory://weights/b.pth")
    assert Path(path).read_bytes() == BODY and Path(path).parent == cache
    with pytest.raises(FileNotFoundError):
        fetch("memory://weights/none.pth")


@pytest.mark.parametrize("place", [
    "hf://someone/model/folder/a.pth", "someone/model:folder/a.pth",
    "someone/model@v1:folder/a.pth", "hf://someone/model@v1/folder/a.pth"])
def test_hub_ids_ask_the_hub(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                             place: str) -> None:
    from huggingface_hub import constants
    monkeypatch.setenv("HF_ENDPOINT", server)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert Path(fetch(place)).read_bytes() == BODY
    revision = "v1" if "@" in place else "main"
    assert f"/someone/model/resolve/{revision}/folder/a.pth" in Handler.asked


def test_a_hub_that_cannot_be_reached_is_named(tmp_path: Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # before the library asks again
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(OSError, match=r"someone/model:a\.pth cannot be had from the Hugging Face "
                                      r"hub .*give its path"):
        fetch("someone/model:a.pth")


def test_half_a_hub_id_is_explained() -> None:
    with pytest.raises(ValueError, match="a file on the hub is hf://owner/repo/path, got hf://a/b"):
        fetch("hf://a/b")


def test_a_file_here_wins_over_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b:c.pth").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    assert Path(fetch("a/b:c.pth")).read_bytes() == b"x"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.pth does not exist"):
        fetch(str(tmp_path / "gone.pth"))
    with pytest.raises(FileNotFoundError, match=r"gone\.pth does not exist; it should hold layer"):
        read_tensors(str(tmp_path / "gone.pth"), "layers")


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("IMG2TOKENS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "img2tokens"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache/img2tokens"


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "old.pth"])
def test_tensors_are_read_by_name(tmp_path: Path, name: str) -> None:
    tensors = {"x": torch.arange(3.0)}
    if name.endswith(".safetensors"):
        safetensors.torch.save_file(tensors, tmp_path / name)
    else:
        torch.save(tensors, tmp_path / name, _use_new_zipfile_serialization=name == "a.pth")
    assert torch.equal(read_tensors(str(tmp_path / name), "layers")["x"], tensors["x"])


class Hostile:
    """Unpickling it would make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("new", [True, False])
def test_a_hostile_pickle_does_not_run(tmp_path: Path, new: bool) -> None:
    torch.save({"x": Hostile(tmp_path / "harm")}, tmp_path / "a.pth",
               _use_new_zipfile_serialization=new)
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Hostile(tmp_path / "harm")))
    for name in ("a.pth", "plain.pth"):
        with pytest.raises(ValueError, match="holds no layers that can be read"):
            read_tensors(str(tmp_path / name), "layers")
    assert not (tmp_path / "harm").exists()


def test_copying_takes_the_first_name_found_and_refuses_other_shapes() -> None:
    module = nn.Linear(2, 1, bias=False)
    copy_tensors(module, {"b": torch.tensor([[1.0, 2.0]]), "c": torch.zeros(9)},
                 {"weight": ("a", "b")}, "file")
    assert module.weight.tolist() == [[1.0, 2.0]]
    with pytest.raises(ValueError, match=r"file should hold a of shape \(1, 2\), but holds \(9,\)"):
        copy_tensors(module, {"c": torch.zeros(9)}, {"weight": ("a", "c")}, "file")
    with pytest.raises(ValueError, match="but holds nothing"):
        copy_tensors(module, {"a": 3}, {"weight": ("a",)}, "file")  # type: ignore[dict-item]
