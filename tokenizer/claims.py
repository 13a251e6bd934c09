"""Folders of jobs that can be continued: what was asked for is written first, and holds.

A job that draws or makes a token corpus writes its request as JSON before anything else. The same
request goes on with what is there, another one is refused, and folders with anything else are left
alone.
"""
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tokenizer import storage, tokens
from tokenizer.configs import flatten


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What one kind of job writes into its folder.

    Attributes:
        name: of the file with the request.
        keys: of that file's object, by which it is told from files of others.
        noun, participle: what the job makes, and how, for messages: ``samples``, ``sampled``.
        parts: files and folders written after the request, in the order in which they are removed.
    """
    name: str
    keys: frozenset[str]
    noun: str
    participle: str
    parts: tuple[str, ...]

    def claim(self, out: str, request: Mapping[str, Any], overwrite: bool) -> None:
        """Write what is asked for, or check that the folder holds the same.

        Args:
            request: all that decides the content, as JSON values.
            overwrite: remove what another request has made.
        Raises:
            ValueError: the folder holds something else, or what another request has made.
        """
        before = self._asked_before(out)
        if before is None and storage.list_names(out):
            before = self._asked_before(out)  # another task of an array may just have asked
        if before is None:
            self._require_empty(out)
        elif overwrite:
            for part in self.parts:
                storage.remove(storage.join(out, part))
        else:
            self._require_same(out, before, request)
            return
        storage.write_bytes(storage.join(out, self.name),
                            (json.dumps(request, indent=1) + "\n").encode())

    def _asked_before(self, out: str) -> dict[str, Any] | None:
        """What was asked for of what is in a folder; nothing where no such job wrote."""
        request = storage.read_json_object(storage.join(out, self.name))
        return request if request.keys() >= self.keys else None

    def _require_empty(self, out: str) -> None:
        names = [name for name in storage.list_names(out) if not name.startswith(".")]
        if names:
            what = (f"a token corpus that was not {self.participle}" if tokens.MANIFEST in names
                    else f"other files, such as {names[0]}")
            raise ValueError(f"{out} holds {what}: choose another folder")

    def _require_same(self, out: str, before: Mapping[str, Any],
                      request: Mapping[str, Any]) -> None:
        was, now = flatten(dict(before)), flatten(dict(request))
        changed = [f"{field} was {was.get(field)}, now {now.get(field)}"
                   for field in sorted(was.keys() | now.keys())
                   if was.get(field) != now.get(field)]
        if changed:
            raise ValueError(f"{out} holds other {self.noun} ({'; '.join(changed[:4])}): give "
                             "another folder, or start over with --overwrite")


def require_apart(out: str, corpora: Iterable[str | None], what: str) -> None:
    """Refuse to write into a token corpus, which holds what its manifest names alone.

    Args:
        corpora: folders of those that are read; nothing stands for none.
        what: is written, for the message.
    Raises:
        ValueError: ``out`` is one of them, or would lie in it.
    """
    for url in corpora:
        if url is not None and storage.is_within(out, url):
            raise ValueError(f"the output folder {out} lies in the token corpus {url}; choose "
                             f"another folder for {what}")
