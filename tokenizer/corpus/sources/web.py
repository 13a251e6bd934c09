"""Files from web addresses: with time-outs, retries, and limits of size and of redirects.

Every way to fail is a class of its own, so that a dead letter tells it. What may pass is tried
again after growing pauses: broken connections, cut bodies, time-outs and the statuses of `PASSING`.
"""
import functools
import http.client
import io
import math
import socket
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from email.message import Message
from typing import IO, Any
from urllib.parse import quote, urlsplit, urlunsplit

from tokenizer.corpus.sources.base import InputError

PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Statuses of servers that may answer better a moment later."""

CHUNK = 1 << 16
MAX_PAUSE = 30.0
"""Seconds that are waited at most before another try, whatever the server asks for."""

AGENT = "img2tokens (reads images that a list names)"


class FetchError(InputError):
    """A web address gives no file."""


class BadURL(FetchError):
    """It is no web address."""


class UnreachableURL(FetchError):
    """There is no connection to the server."""


class SlowURL(FetchError):
    """The server is too slow."""


class CutBody(FetchError):
    """The connection ended before the file did."""


class RefusedURL(FetchError):
    """The server answers with a status that is no success."""


class TooManyRedirects(FetchError):
    """The server leads on and on, or to what is no web address."""


class TooLarge(FetchError):
    """The file is larger than allowed."""


@dataclass(frozen=True, kw_only=True)
class FetchConfig:
    """Limits of one download.

    Attributes:
        timeout: seconds without a byte.
        deadline: seconds for one answer in all.
        retries: further tries.
        backoff: seconds before the first of them; doubled before each next one.
        max_redirects: how often a server may lead on.
        max_bytes: of a file.
    """
    timeout: float = 10.0
    deadline: float = 60.0
    retries: int = 3
    backoff: float = 0.5
    max_redirects: int = 5
    max_bytes: int = 100 << 20

    def __post_init__(self) -> None:
        for name, least in (("timeout", 0.001), ("deadline", 0.001), ("retries", 0),
                            ("backoff", 0), ("max_redirects", 0), ("max_bytes", 1)):
            if not least <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be finite and at least {least}, "
                                 f"got {getattr(self, name)}")


def fetch(url: str, config: FetchConfig) -> bytes:
    """The file at a web address.

    Raises:
        FetchError: one of its subclasses, after all tries.
    """
    pause = config.backoff
    for attempt in range(config.retries + 1):
        try:
            return _fetch_once(url, config)
        except (UnreachableURL, SlowURL, CutBody, _Passing) as error:
            if attempt == config.retries:
                tries = f" ({attempt + 1} tries)" if attempt else ""
                kind = RefusedURL if isinstance(error, _Passing) else type(error)
                raise kind(f"{error}{tries}") from error
            wanted = error.pause if isinstance(error, _Passing) else 0.0
            time.sleep(min(MAX_PAUSE, max(pause, wanted)))
            pause *= 2
    raise AssertionError("the last try returns or raises")


class _Passing(FetchError):
    """A status of `PASSING`; ``pause`` is for how many seconds the server asks."""

    def __init__(self, message: str, pause: float) -> None:
        super().__init__(message)
        self.pause = pause


class _InTime(io.RawIOBase):
    """What a connection gives, as long as it comes before a moment of the monotonic clock."""

    def __init__(self, connection: socket.socket, file: io.RawIOBase, end: float) -> None:
        self._connection, self._file, self._end = connection, file, end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(min(left, self._connection.gettimeout() or left))
        return self._file.readinto(buffer)

    def close(self) -> None:
        self._file.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    """An answer that ends before a moment, headers and all."""

    def __init__(self, sock: socket.socket, *args: Any, end: float, **settings: Any) -> None:
        super().__init__(sock, *args, **settings)
        self.fp = io.BufferedReader(_InTime(sock, self.fp.detach(), end))


class _Timed(urllib.request.AbstractHTTPHandler):
    """Opens connections whose answers end before a moment."""
    end: float

    def do_open(self, http_class: Any, req: Any, **settings: Any) -> Any:
        def connect(*args: Any, **options: Any) -> http.client.HTTPConnection:
            connection: http.client.HTTPConnection = http_class(*args, **options)
            answer: Any = functools.partial(_Answer, end=self.end)
            connection.response_class = answer
            return connection
        return super().do_open(connect, req, **settings)


class _Http(_Timed, urllib.request.HTTPHandler):
    """The same without encryption."""


class _Https(_Timed, urllib.request.HTTPSHandler):
    """The same with encryption."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to web addresses, up to a number."""

    def __init__(self, limit: int) -> None:
        self.limit, self.left = limit, limit

    def redirect_request(self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str,
                         headers: Message, newurl: str) -> urllib.request.Request | None:
        self.left -= 1
        if self.left < 0:
            raise TooManyRedirects(f"{req.full_url} leads on more than {self.limit} times")
        if urlsplit(newurl).scheme not in ("http", "https"):
            raise TooManyRedirects(f"{req.full_url} leads to {newurl}, which is no web address")
        # Python 3.10 knows no 308, which asks for nothing that 307 does not.
        return super().redirect_request(req, fp, 307 if code == 308 else code,
                                        msg, headers, newurl)  # type: ignore[arg-type]

    http_error_308 = urllib.request.HTTPRedirectHandler.http_error_302


def _fetch_once(url: str, config: FetchConfig) -> bytes:
    started = time.monotonic()
    try:
        request = urllib.request.Request(_quoted(url), headers={
            "User-Agent": AGENT, "Accept": "image/*, */*;q=0.5", "Accept-Encoding": "identity"})
        opener = _opener(config, started + config.deadline)
        with opener.open(request, timeout=config.timeout) as response:
            return _body(url, response, config)
    except InputError:
        raise
    except urllib.error.HTTPError as error:
        with error:
            message = f"{url} answers {error.code} {error.reason}"
            if error.code in PASSING:
                raise _Passing(message, _seconds(error.headers.get("Retry-After"))) from error
            raise RefusedURL(message) from error
    except TimeoutError as error:
        raise _slow(url, config, started) from error
    except http.client.IncompleteRead as error:
        raise CutBody(f"{url} ended after {len(error.partial)} bytes of a part") from error
    except (http.client.InvalidURL, ValueError) as error:
        raise BadURL(f"{url} is no web address: {error}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            raise _slow(url, config, started) from error
        raise UnreachableURL(f"{url} cannot be reached: "
                             f"{str(reason) or type(reason).__name__}") from error


def _slow(url: str, config: FetchConfig, started: float) -> SlowURL:
    """Which limit an answer has passed that was asked for at a moment of the monotonic clock."""
    if time.monotonic() - started >= config.deadline:
        return SlowURL(f"{url} took more than {config.deadline:g} s")
    return SlowURL(f"{url} sent nothing for {config.timeout:g} s")


def _body(url: str, response: Any, config: FetchConfig) -> bytes:
    """The content of an answer, complete and within the limits."""
    length = response.headers.get("Content-Length")
    expected = int(length) if length is not None and length.isdecimal() else None
    if expected is not None and expected > config.max_bytes:
        raise TooLarge(f"{url} has {expected} bytes; at most {config.max_bytes} are read")
    content = bytearray()
    while chunk := response.read1(CHUNK):
        content += chunk
        if len(content) > config.max_bytes:
            raise TooLarge(f"{url} has more than {config.max_bytes} bytes, the most that are read")
    if expected is not None and len(content) < expected:
        raise CutBody(f"{url} ended after {len(content)} of {expected} bytes")
    if expected is None and not content:  # as one does that ends within its headers
        raise CutBody(f"{url} ended before its first byte")
    return bytes(content)


def _opener(config: FetchConfig, end: float) -> urllib.request.OpenerDirector:
    """Opens web addresses only, no files and no other protocols; answers end before a moment."""
    opener = urllib.request.OpenerDirector()
    plain, encrypted = _Http(), _Https()
    plain.end = encrypted.end = end
    for handler in (urllib.request.ProxyHandler(), plain, encrypted,
                    urllib.request.HTTPDefaultErrorHandler(),
                    _Redirects(config.max_redirects), urllib.request.HTTPErrorProcessor()):
        opener.add_handler(handler)
    return opener


def _quoted(url: str) -> str:
    """A web address in ASCII: what may not stand in one is percent-encoded.

    Raises:
        ValueError: it has no host, or one that cannot be.
    """
    parts = urlsplit(url)
    host = parts.netloc
    if not parts.hostname:
        raise ValueError("it names no host")
    if not host.isascii():
        host = host.encode("idna").decode()
    return urlunsplit((parts.scheme, host, quote(parts.path, safe="/%:@!$&'()*+,;=~-._"),
                       quote(parts.query, safe="/?%:@!$&'()*+,;=~-._[]"), ""))


def _seconds(text: str | None) -> float:
    """What a header ``Retry-After`` asks for, where it is a number of seconds."""
    return float(text) if text is not None and text.strip().isdecimal() else 0.0
