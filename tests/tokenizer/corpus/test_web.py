"""Files from a real server on this machine: slow, failing, leading on, too large, cut off."""
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from tokenizer.corpus.sources import web
from tokenizer.corpus.sources.web import FetchConfig, fetch

QUICK = FetchConfig(timeout=0.3, deadline=1.0, retries=2, backoff=0.01, max_redirects=3,
                    max_bytes=5000)


class Answers(BaseHTTPRequestHandler):
    """Behaves as the path says; counts what was asked for."""
    protocol_version = "HTTP/1.1"
    asked: ClassVar[Counter[str]] = Counter()
    agents: ClassVar[set[str]] = set()

    def do_GET(self) -> None:
        self.asked[self.path] += 1
        self.agents.add(self.headers["User-Agent"])
        getattr(self, "do_" + self.path.split("/")[1].split("?")[0], self.do_missing)()

    def send(self, status: int, body: bytes = b"", length: int | None = None,
             **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def do_sound(self) -> None:
        self.send(200, b"image")

    def do_missing(self) -> None:
        self.send(404)

    def do_busy(self) -> None:
        self.send(503 if self.asked[self.path] < 3 else 200, b"at last")

    def do_later(self) -> None:
        self.send(429 if self.asked[self.path] < 2 else 200, b"later", Retry_After="1")

    def do_broken(self) -> None:
        self.send(500)

    def do_slow(self) -> None:
        if self.asked[self.path] < 2:
            time.sleep(0.6)
        self.send(200, b"slow")

    def do_drip(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "100")
        self.end_headers()
        self.do_drip_bytes()

    def do_dripping_headers(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        self.do_drip_bytes()

    def do_drip_bytes(self) -> None:
        for _ in range(100):
            time.sleep(0.1)
            try:
                self.wfile.write(b"x")
            except OSError:
                return

    def do_half_headers(self) -> None:
        if self.asked[self.path] > 2:
            return self.send(200, b"whole")
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Ty")
        self.close_connection = True

    def do_loop(self) -> None:
        self.send(302, Location=f"/loop/{self.asked.total()}")

    def do_hop(self) -> None:
        left = int(self.path.split("/")[2])
        self.send(308 if left % 2 else 302, Location=f"/hop/{left - 1}" if left else "/sound")

    def do_file(self) -> None:
        self.send(302, Location="file:///etc/passwd")

    def do_ftp(self) -> None:
        self.send(301, Location="ftp://host/a")

    def do_large(self) -> None:
        self.send(200, bytes(6000))

    def do_endless(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for _ in range(20):
                self.wfile.write(b"3e8\r\n" + bytes(1000) + b"\r\n")
        except OSError:
            return

    def do_cut(self) -> None:
        whole = self.asked[self.path] > 2
        self.send(200, b"whole body" if whole else b"half", length=10)
        self.close_connection = True

    def do_hangup(self) -> None:
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    """The address of a server that answers as `Answers` does."""
    Answers.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as running:
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def test_a_file_is_fetched_once(server: str) -> None:
    assert fetch(f"{server}/sound", QUICK) == b"image"
    assert Answers.asked == {"/sound": 1} and "img2tokens" in Answers.agents.pop()


@pytest.mark.parametrize(("path", "body", "tries"), [
    ("busy", b"at last", 3), ("later", b"later", 2), ("slow", b"slow", 2),
    ("cut", b"whole body", 3), ("half_headers", b"whole", 3)])
def test_what_may_pass_is_tried_again(server: str, path: str, body: bytes, tries: int) -> None:
    started = time.monotonic()
    assert fetch(f"{server}/{path}", QUICK) == body
    assert Answers.asked[f"/{path}"] == tries
    assert path != "later" or time.monotonic() - started >= 1  # as Retry-After asks


@pytest.mark.parametrize(("path", "kind", "words", "tries"), [
    ("missing", web.RefusedURL, "answers 404 Not Found$", 1),
    ("broken", web.RefusedURL, r"answers 500 Internal Server Error \(3 tries\)", 3),
    ("hangup", web.UnreachableURL, r"cannot be reached: .*\(3 tries\)", 3),
    ("large", web.TooLarge, "has 6000 bytes; at most 5000", 1),
    ("endless", web.TooLarge, "more than 5000 bytes", 1),
    ("file", web.RefusedURL, "answers 302 .*file:///etc/passwd.* is not allowed", 1),
    ("ftp", web.TooManyRedirects, "leads to ftp://host/a, which is no web address", 1),
    ("hop/4", web.TooManyRedirects, "leads on more than 3 times", 1)])
def test_what_stays_has_its_reason(server: str, path: str, kind: type[Exception], words: str,
                                   tries: int) -> None:
    with pytest.raises(kind, match=words) as caught:
        fetch(f"{server}/{path}", QUICK)
    assert type(caught.value) is kind and server in str(caught.value)
    assert Answers.asked[f"/{path}"] == tries


def test_a_circle_of_redirects_ends(server: str) -> None:
    with pytest.raises(web.TooManyRedirects):
        fetch(f"{server}/loop", QUICK)
    assert Answers.asked.total() == 4


def test_a_few_redirects_are_followed(server: str) -> None:
    assert fetch(f"{server}/hop/2", QUICK) == b"image"


@pytest.mark.parametrize("path", ["drip", "dripping_headers"])
def test_an_answer_that_drips_ends_at_the_deadline(server: str, path: str) -> None:
    started = time.monotonic()
    with pytest.raises(web.SlowURL, match="took more than 0.25 s"):
        fetch(f"{server}/{path}", FetchConfig(timeout=0.3, deadline=0.25, retries=0))
    assert time.monotonic() - started < 5  # of ten


def test_silence_ends_at_the_time_out(server: str) -> None:
    with pytest.raises(web.SlowURL, match=r"sent nothing for 0.1 s$"):
        fetch(f"{server}/slow", FetchConfig(timeout=0.1, retries=0))


def test_no_server_is_unreachable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(web.UnreachableURL, match="refused"):
            fetch(f"http://127.0.0.1:{taken.getsockname()[1]}/a.jpg", QUICK)


@pytest.mark.parametrize("url", ["http://[::1/a.png", "http://host:port/a.png", "http:///a.png"])
def test_what_is_no_address_is_not_tried_again(url: str) -> None:
    with pytest.raises(web.BadURL, match="is no web address"):
        fetch(url, FetchConfig(backoff=2))


def test_addresses_with_spaces_and_letters_are_quoted(server: str) -> None:
    assert fetch(f"{server}/sound?name=tom & jerry/ü.jpg#part", QUICK) == b"image"
    assert list(Answers.asked) == ["/sound?name=tom%20&%20jerry/%C3%BC.jpg"]


@pytest.mark.parametrize("settings", [{"timeout": 0}, {"retries": -1}, {"max_bytes": 0},
                                      {"deadline": float("nan")}, {"timeout": float("inf")}])
def test_nonsense_limits_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be finite and at least"):
        FetchConfig(**settings)  # type: ignore[arg-type]
