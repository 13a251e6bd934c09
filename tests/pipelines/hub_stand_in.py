"""A stand-in for the Hugging Face Hub: the calls that an upload of small files makes, and no more.

It keeps one repository in memory and takes all files within commits. The Hub itself would ask for
large ones to be sent to a store of its own, which no test here does.
"""
import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


@dataclass
class StandIn:
    """Attributes:
        files: what the repository holds.
        commits: message and paths of each commit.
        requests: method and path of each request.
        refuse: paths that contain this are answered with 403.
    """
    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[tuple[str, list[str]]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    visibility: str | None = None
    refuse: str | None = None


@contextmanager
def serving() -> Iterator[StandIn]:
    """A stand-in on loopback."""
    hub = StandIn()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *arguments: object) -> None:
            pass

        def _answer(self, status: int, data: Any) -> None:
            body = json.dumps(data).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _respond(self, body: bytes) -> None:
            path = urlsplit(self.path).path
            hub.requests.append(f"{self.command} {path}")
            if hub.refuse is not None and hub.refuse in path:
                self._answer(403, {"error": "you may not"})
            else:
                self._answer(*answer(hub, path, body))

        def do_GET(self) -> None:
            self._respond(b"")

        def do_POST(self) -> None:
            self._respond(self.rfile.read(int(self.headers.get("Content-Length", 0))))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answer(hub: StandIn, path: str, body: bytes) -> tuple[int, Any]:
    """Status and JSON for one request."""
    if path == "/api/repos/create":
        hub.visibility = json.loads(body).get("visibility")
        return 200, {"url": f"{hub.url}/datasets/me/corpus"}
    if path == "/api/validate-yaml":
        return 200, {"errors": [], "warnings": []}
    if "/tree/" in path:
        return 200, [{"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
                     for name, content in sorted(hub.files.items())]
    if "/preupload/" in path:
        return 200, {"files": [{"path": file["path"], "uploadMode": "regular",
                                "shouldIgnore": False} for file in json.loads(body)["files"]]}
    if "/commit/" in path:
        return 200, commit(hub, [json.loads(line) for line in body.splitlines()])
    return 404, {"error": f"the stand-in knows no {path}"}


def commit(hub: StandIn, lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Carry out one commit."""
    header, *operations = lines
    for operation in operations:
        value = operation["value"]
        if operation["key"] == "file":
            hub.files[value["path"]] = base64.b64decode(value["content"])
        elif operation["key"] == "deletedFile":
            del hub.files[value["path"]]
        else:
            raise AssertionError(f"the stand-in knows no {operation['key']}")
    hub.commits.append((header["value"]["summary"],
                        [operation["value"]["path"] for operation in operations]))
    oid = f"{len(hub.commits):040x}"
    return {"success": True, "commitOid": oid, "hookOutput": "",
            "commitUrl": f"{hub.url}/datasets/me/corpus/commit/{oid}"}
