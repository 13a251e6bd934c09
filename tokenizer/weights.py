"""Files with pretrained weights: found by path, URL or hub id, cached, checked, and read as data.

    /models/vgg16-397923af.pth                 a path
    https://host/vgg16-397923af.pth            a URL; ``s3://`` and whatever else fsspec knows too
    hf://owner/repo/folder/file.pth            a file on the Hugging Face hub, or
    owner/repo:folder/file.pth                 the same; ``owner/repo@revision`` takes a revision

Each may end in ``#sha256=HEX``, the hash of the file or its beginning; files of `KNOWN_HASHES` are
checked without being asked. What is downloaded lies in `cache_folder` (of the hub: in its own
cache) and is there whole or not at all. Nothing that is read here can run code.
"""
import hashlib
import http.client
import os
import pickle
import posixpath
import re
import struct
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import fsspec
from fsspec.implementations.local import LocalFileSystem

from tokenizer import storage
from tokenizer.bars import progress_bar

if TYPE_CHECKING:
    from torch import Tensor, nn

CACHE_VARIABLE = "IMG2TOKENS_CACHE"
"""Environment variable that names another folder for the cache."""

KNOWN_HASHES = {"vgg16-397923af.pth": "397923af",
                "pt_inception-2015-12-05-6726825d.pth": "6726825d"}
"""SHA-256, or its first digits, of published files by their name."""

ATTEMPTS, WAIT_SECONDS, TIMEOUT_SECONDS = 3, 1.0, 60.0
"""Downloads are tried this often, with a pause that doubles; a silent server is left then."""
CHUNK_BYTES = 1 << 20
TRY_AGAIN = {408, 429, 500, 502, 503, 504}
"""HTTP answers after which a server may have recovered; others are final."""

DAMAGED = (pickle.UnpicklingError, EOFError, RuntimeError, ValueError, LookupError, AttributeError,
           TypeError, AssertionError, OverflowError, struct.error)
"""What torch raises for files that are cut short, are something else, or hold other objects."""

_HUB = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+?)(@(?P<revision>[^:/]+))?[:/](?P<path>.+)")


def cache_folder() -> Path:
    """Where downloads are kept: ``$IMG2TOKENS_CACHE``, else the user's cache folder."""
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "img2tokens"


def fetch(place: str) -> str:
    """The local path of a file, downloaded when it is not there yet, and checked.

    Args:
        place: path, URL or hub id; see the head of this module.
    Raises:
        FileNotFoundError: nothing is there.
        OSError: it cannot be reached or was cut short, after `ATTEMPTS`; nothing is left behind.
        ValueError: the file has another hash than it must.
    """
    name, mark, digest = place.partition("#sha256=")
    digest = digest.lower()
    if mark and not re.fullmatch("[0-9a-f]{1,64}", digest):
        raise ValueError(f"{place}: after #sha256= stand 1 to 64 hexadecimal digits")
    digest = digest or KNOWN_HASHES.get(_file_name(name), "")
    local = _local_path(name)
    if local is None and (hub := _hub_file(name)) is not None:
        local = _from_hub(name, hub)
    if local is None:
        return _from_url(name, digest)
    if not os.path.isfile(local):
        raise FileNotFoundError(f"{name} does not exist")
    if digest:
        _require_hash(storage.sha256_of_file(local), digest, name)
    return local


def read_tensors(place: str, what: str) -> "dict[str, Tensor]":
    """The tensors by name of a ``.pth`` or ``.safetensors`` file, read without running code.

    Args:
        place: as `fetch` takes it.
        what: what the file should hold, for messages.
    Raises:
        OSError, ValueError: as `fetch`; or the file is damaged or holds something else.
    """
    import safetensors.torch
    import torch
    try:
        path = fetch(place)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}; it should hold {what}") from error
    try:
        tensors = (safetensors.torch.load_file(path) if path.endswith(".safetensors")
                   else torch.load(path, map_location="cpu", weights_only=True))
    except (safetensors.SafetensorError, *DAMAGED) as error:
        raise ValueError(f"{place} holds no {what} that can be read") from error
    if not isinstance(tensors, dict):
        raise ValueError(f"{place} holds a {type(tensors).__name__}, not {what} by name")
    return tensors


def copy_tensors(module: "nn.Module", tensors: "Mapping[str, Tensor]",
                 names: Mapping[str, Sequence[str]], place: str) -> None:
    """Fill parameters and buffers of a module from tensors of other names.

    Args:
        tensors: what `read_tensors` returned; surplus ones are left out.
        names: for each parameter or buffer, the names it may have in ``tensors``.
        place: where they are from, for messages.
    Raises:
        ValueError: a tensor lacks or has another shape.
    """
    import torch
    targets = dict(module.named_parameters()) | dict(module.named_buffers())
    for name, sources in names.items():
        target = targets[name]
        found = next((tensors[source] for source in sources if source in tensors), None)
        if not isinstance(found, torch.Tensor) or found.shape != target.shape:
            holds = tuple(found.shape) if isinstance(found, torch.Tensor) else "nothing"
            raise ValueError(f"{place} should hold {sources[0]} of shape {tuple(target.shape)}, "
                             f"but holds {holds}")
        target.data.copy_(found)


def _local_path(name: str) -> str | None:
    """The path of a local file; nothing for URLs, and for hub ids that are no file here."""
    if fsspec.utils.get_protocol(name) not in LocalFileSystem.protocol:
        return None
    if "://" not in name and not os.path.exists(name) and _hub_file(name) is not None:
        return None
    return str(LocalFileSystem._strip_protocol(name))


def _hub_file(name: str) -> re.Match[str] | None:
    """Repository, revision and path of a hub id; nothing where ``name`` is none."""
    if name.startswith("hf://"):
        match = _HUB.fullmatch(name.removeprefix("hf://"))
        if match is None:
            raise ValueError(f"a file on the hub is hf://owner/repo/path, got {name}")
        return match
    match = _HUB.fullmatch(name)
    return match if match and name[match.start("path") - 1] == ":" else None


def _from_hub(name: str, hub: re.Match[str]) -> str:
    """A file of the Hugging Face hub, in the cache that the hub's library keeps."""
    from huggingface_hub import hf_hub_download, utils
    missing = (utils.EntryNotFoundError, utils.RepositoryNotFoundError,
               utils.RevisionNotFoundError)
    try:
        with storage.remote_errors("hf://"):
            return str(hf_hub_download(hub["repo"], hub["path"], revision=hub["revision"],
                                       endpoint=os.environ.get("HF_ENDPOINT")))
    except OSError as error:
        reason = str(error).strip().partition("\n")[0]
        kind = FileNotFoundError if isinstance(error, missing) else OSError
        raise kind(f"{name} cannot be had from the Hugging Face hub ({reason}); check the name and "
                   "the connection, or download the file elsewhere and give its path") from error


def _from_url(url: str, digest: str) -> str:
    """The cached copy of a remote file, made when there is none or when it is damaged."""
    plain = re.sub(r"[^\w.-]", "_", _file_name(url))
    target = cache_folder() / f"{storage.sha256(url.encode())[:16]}-{plain}"
    if target.exists() and storage.sha256_of_file(str(target)).startswith(digest):
        return str(target)
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(WAIT_SECONDS * 2 ** (attempt - 1))
        try:
            _download(url, target, digest)
            return str(target)
        except FileNotFoundError:
            raise
        except OSError as error:
            failure = error
            if isinstance(error, urllib.error.HTTPError) and error.code not in TRY_AGAIN:
                break
    raise OSError(f"{url} cannot be downloaded ({_reason(failure)}; tried {attempt + 1} times); "
                  "check the connection, or download the file elsewhere and give its path"
                  ) from failure


def _download(url: str, target: Path, digest: str) -> None:
    """Write ``url`` to ``target``, which is there only when all has come and has the right hash."""
    found = hashlib.sha256()
    is_web = url.startswith(("http://", "https://"))
    with storage.writing(str(target)) as file:
        for chunk in _web_chunks(url) if is_web else storage.read_chunks(url, CHUNK_BYTES):
            file.write(chunk)
            found.update(chunk)
        _require_hash(found.hexdigest(), digest, url)


def _web_chunks(url: str) -> Iterator[bytes]:
    """The body of an HTTP answer in pieces; one that ends early is a `ConnectionError`."""
    request = urllib.request.Request(url, headers={"User-Agent": "img2tokens"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            length, received = answer.length, 0
            with progress_bar(total=length, unit="B", unit_scale=True, disable=None, leave=False,
                              desc=posixpath.basename(url)) as bar:
                while chunk := answer.read(CHUNK_BYTES):
                    received += len(chunk)
                    bar.update(len(chunk))
                    yield chunk
    except urllib.error.HTTPError as error:
        if error.code in (404, 410):
            raise FileNotFoundError(f"{url} does not exist (HTTP {error.code})") from error
        raise
    except http.client.HTTPException as error:
        raise ConnectionError(f"the connection broke off: {type(error).__name__}") from error
    if length is not None and received < length:
        raise ConnectionError(f"the download broke off after {received} of {length} bytes")


def _file_name(place: str) -> str:
    """The last part of a path or URL, without the query that a signed URL ends in."""
    return posixpath.basename(place.partition("?")[0])


def _require_hash(found: str, wanted: str, name: str) -> None:
    if not found.startswith(wanted):
        raise ValueError(f"{name} has the SHA-256 {found}, which should begin with {wanted}: it is "
                         "damaged or another file; get it again")


def _reason(error: OSError) -> str:
    """What went wrong with a download, in a few words."""
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    return str(getattr(error, "reason", None) or error)
