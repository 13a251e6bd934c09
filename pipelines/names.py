"""File names for keys: below one folder whatever the key holds, and back to the key.

A key is a relative path, and its file has the same path where that is harmless: ``cats/tom``
becomes ``cats/tom.png``. What could lead elsewhere or be taken for something else is
percent-encoded, so that the name can be turned back into the key: ``..`` and hidden names, absolute
paths, control characters, the special characters and the devices of other systems. Names that a
disk without letter case would take for one another are encoded further, until they differ.
"""
import re
import sqlite3
import unicodedata
from urllib.parse import unquote

from tokenizer.corpus.modalities import PICTURE_SUFFIXES

RESERVED = "_decode"
"""Folder of the job's own files below its output."""

SUFFIXES = tuple(PICTURE_SUFFIXES.values())

MAX_COMPONENT_BYTES, MAX_NAME_BYTES = 255, 1000
"""What disks take as one component, and object stores as one name with a few folders before it."""

_UNSAFE = re.compile(r'[\x00-\x1f\x7f%\\:*?"<>|~]|^\.|[. ]$')
_UNSAFE_OR_UNLIKE = re.compile(rf"{_UNSAFE.pattern}|[^\x00-\x7f]|[A-Z]")
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)", re.IGNORECASE)
"""What Windows takes for a device, whatever suffix follows."""

_NEXT_TO_NOTHING = re.compile(r"^/|(?<=/)/|/$")


class UnusableKey(ValueError):
    """A key that no file can be named after."""


class DuplicateKey(ValueError):
    """A second crop with the key and number of another."""


def file_name(key: str, crop_index: int = 0, strict: bool = False) -> str:
    """The path, without suffix, of a crop's file.

    Args:
        crop_index: number of the crop; those after the first add ``~`` and their number.
        strict: also encode capital letters and everything beyond ASCII.
    Returns:
        A relative POSIX path that stays below its folder; `key_of` turns it back.
    Raises:
        UnusableKey: the key is empty, or its name too long for a disk.
    """
    if not key:
        raise UnusableKey("the key is empty, so no file can be named after it")
    pattern = _UNSAFE_OR_UNLIKE if strict else _UNSAFE
    parts = [pattern.sub(_quote, part) for part in key.split("/")]
    parts = [_quote_at(part, 0) if _DEVICE.match(part) else part for part in parts]
    if parts[0].casefold() == RESERVED:
        parts[0] = _quote_at(parts[0], 0)
    parts[:-1] = [_quote_at(part, part.rindex(".")) if part.lower().endswith(SUFFIXES) else part
                  for part in parts[:-1]]  # else a folder could need the name of a file
    name = _NEXT_TO_NOTHING.sub("%2F", "/".join(parts)) + (f"~{crop_index}" if crop_index else "")
    longest = max(len(part.encode()) for part in name.split("/")) + max(map(len, SUFFIXES))
    if longest > MAX_COMPONENT_BYTES or len(name.encode()) > MAX_NAME_BYTES:
        raise UnusableKey(f"the key {key[:40]!r}... makes a file name of {len(name.encode())} "
                          f"bytes; at most {MAX_COMPONENT_BYTES} bytes between slashes and "
                          f"{MAX_NAME_BYTES} in all can be written")
    return name


def key_of(name: str) -> tuple[str, int]:
    """The key and crop number whose `file_name` this is."""
    path, _, crop_index = name.partition("~")
    return unquote(path), int(crop_index or 0)


class NameTable:
    """Names for the crops of a corpus, different from one another also without letter case.

    Every crop is announced with `add`, then named with `name`. What is known lies in a temporary
    database on disk, so memory does not grow with the corpus.
    """

    def __init__(self) -> None:
        self._database = sqlite3.connect("")  # "" is a temporary file
        self._database.execute("CREATE TABLE folded (name TEXT PRIMARY KEY, num INT) WITHOUT ROWID")
        self._database.execute("CREATE TABLE taken (name TEXT PRIMARY KEY) WITHOUT ROWID")

    def add(self, key: str, crop_index: int) -> None:
        """Announce a crop.

        Raises:
            UnusableKey: no file can be named after the key.
        """
        self._database.execute("INSERT INTO folded VALUES (?, 1) "
                               "ON CONFLICT (name) DO UPDATE SET num = num + 1",
                               (_fold(file_name(key, crop_index)),))

    def name(self, key: str, crop_index: int) -> str:
        """The path, without suffix, of a crop that was announced.

        Raises:
            UnusableKey: no file can be named after the key.
            DuplicateKey: another crop has the same key and number, and was named before.
        """
        name = file_name(key, crop_index)
        num, = self._database.execute("SELECT num FROM folded WHERE name = ?",
                                      (_fold(name),)).fetchone()
        if num == 1:
            return name
        name = file_name(key, crop_index, strict=True)
        try:
            self._database.execute("INSERT INTO taken VALUES (?)", (name,))
        except sqlite3.IntegrityError as error:
            raise DuplicateKey(f"an earlier row has the key {key!r} and crop {crop_index} too; its "
                               "file is kept") from error
        return name


def _quote(match: "re.Match[str]") -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode())


def _quote_at(text: str, index: int) -> str:
    return f"{text[:index]}%{ord(text[index]):02X}{text[index + 1:]}"


def _fold(name: str) -> str:
    """Equal for names that differ in letter case or in how accents are composed."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
