"""A real S3 server on loopback, moto's, behind a proxy that spoils some of its answers."""
import http.client
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BUSY = (b"<Error><Code>ServiceUnavailable</Code><Message>The store rests."
        b"</Message></Error>")
DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
EXPIRED = b"<Error><Code>ExpiredToken</Code><Message>The token has expired.</Message></Error>"
KEPT = (b"<DeleteResult><Error><Key>a</Key><Code>InternalError</Code><Message>not now</Message>"
        b"</Error></DeleteResult>")
ANSWERS = {"busy": (503, BUSY), "denied": (403, DENIED), "expired": (400, EXPIRED),
           "kept": (200, KEPT)}
"""Kinds of faults that are answers, and these."""

SIGNED = ("AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request, "
          "SignedHeaders=host, Signature=0")
"""Proof of who asks, as far as the server looks."""

SECONDS = 2.0
"""How late a slow answer is where nothing else is said."""


@dataclass
class Fault:
    """What happens to some requests instead of what they ask for.

    Attributes:
        kind: one of `ANSWERS`; or ``slow``; ``cut``, in the middle of the body of a request that
            has one, else of the answer; ``lost``, after the request was carried out.
        request: pattern of the requests, such as ``PUT /bucket/key``, from their beginning.
        times: how many of them; all where it is not said.
        seconds: how late the answer is, where it is slow.
    """
    kind: str
    request: str = ""
    times: float = float("inf")
    seconds: float = SECONDS


@dataclass
class ObjectStore:
    """The server as tests see it.

    Attributes:
        endpoint: its address.
        bucket: URL of a bucket of its own for each test.
        faults: what is to go wrong; one that has happened often enough is taken off.
        requests: what was asked, since the test began.
    """
    endpoint: str = ""
    bucket: str = ""
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fault(self, request: str) -> Fault | None:
        """The fault that befalls a request, if any."""
        with self._lock:
            self.requests.append(request)
            found = next((one for one in self.faults if re.match(one.request, request)), None)
            if found is not None:
                found.times -= 1
                if found.times <= 0:
                    self.faults.remove(found)
            return found

    def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Status and body of an answer to another client, which shares nothing with ours."""
        connection = http.client.HTTPConnection(self.endpoint.removeprefix("http://"))
        name = f"{self.bucket.removeprefix('s3:/')}/{path}" if path else self.bucket[4:]
        connection.request(method, name, body, {"Authorization": SIGNED})
        answer = connection.getresponse()
        return answer.status, answer.read()


class Proxy(BaseHTTPRequestHandler):
    """Hands requests on to the server, and its answers back, as far as no fault forbids."""
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    store: ObjectStore
    upstream: tuple[str, int]

    def log_message(self, *_: Any) -> None:
        pass

    def handle_request(self) -> None:
        fault = self.store.fault(f"{self.command} {self.path}")
        kind = "" if fault is None else fault.kind
        length = int(self.headers.get("Content-Length") or 0)
        if kind == "cut" and length:
            self.rfile.read(length // 2)
            self.close_connection = True
            return
        body = self.rfile.read(length)
        if fault is not None and kind == "slow":
            time.sleep(fault.seconds)
        if kind in ANSWERS:
            status, content = ANSWERS[kind]
            self.answer(status, {"Content-Type": "application/xml"}, content)
            return
        status, headers, content = self.hand_on(body)
        if kind == "lost":
            self.close_connection = True
        else:
            self.answer(status, headers, content, is_cut=kind == "cut")

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_request

    def hand_on(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the server's answer."""
        upstream = http.client.HTTPConnection(*self.upstream)
        headers = {name: value for name, value in self.headers.items()
                   if name.lower() not in ("expect", "connection")}
        upstream.request(self.command, self.path, body, headers)
        answer = upstream.getresponse()
        content = answer.read()
        upstream.close()
        kept = {name: value for name, value in answer.getheaders()
                if name.lower() not in ("connection", "transfer-encoding", "date", "server")}
        return answer.status, kept, content

    def answer(self, status: int, headers: dict[str, str], content: bytes,
               is_cut: bool = False) -> None:
        self.send_response(status)
        known = {name.lower() for name in headers}
        for name, value in headers.items():
            self.send_header(name, value)
        if "content-length" not in known:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:len(content) // 2] if is_cut else content)
        self.wfile.flush()
        self.close_connection |= is_cut


def start() -> tuple[ObjectStore, Any]:
    """The store, and a function that stops its servers."""
    from moto.server import ThreadedMotoServer
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    store = ObjectStore()
    handler = type("Handler", (Proxy,), {"store": store, "upstream": server.get_host_and_port()})
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    proxy.daemon_threads = True
    proxy.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that are killed
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    store.endpoint = f"http://127.0.0.1:{proxy.server_address[1]}"

    def stop() -> None:
        proxy.shutdown()
        proxy.server_close()
        server.stop()
    return store, stop
