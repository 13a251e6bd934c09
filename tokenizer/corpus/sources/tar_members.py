"""Members of a tar file by their headers alone: where each one's bytes begin, and what is damaged.

Payloads are skipped, not read. A header that is damaged ends nothing: the walk goes on at the next
one that is sound. See POSIX.1-2017, pax, "ustar interchange format".
"""
import hashlib
import io
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

BLOCK = tarfile.BLOCKSIZE
"""Bytes that headers and the starts of payloads are multiples of."""

EXTENSIONS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE,
              tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
"""Types of headers that say something about the member behind them, such as its long name."""

MAX_EXTENSIONS, MAX_EXTENSION_BYTES = 16, 1 << 20
"""How many of these may precede one member, and bytes of one: Python reads them whole, nested."""

MAX_PADDING = 21
"""Blocks of zeros that may end an archive: the end mark of two, and what fills a record of 20."""

MAX_SIZE = 1 << 62
"""Bytes of a member that no archive holds."""

GZIP, ZSTD, BZIP2, XZ = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ"


@dataclass(frozen=True, kw_only=True)
class Member:
    """One file of an archive.

    Attributes:
        name: its path as the archive has it.
        offset: of its first byte in the archive.
        size: in bytes.
        problem: why it has no such bytes, in words: it is a link, a device, or cut off.
        content: its bytes, where they were wanted.
    """
    name: str
    offset: int
    size: int
    problem: str | None = None
    content: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class Damage:
    """A stretch of an archive in which no member can be found.

    Attributes:
        start: its first byte, and ``end`` the first one behind it.
        reason: what is wrong, in words.
    """
    start: int
    end: int
    reason: str


class MemberWalk:
    """The members of one archive, in order.

    Args:
        file: the archive, open for reading.
        size: of the archive in bytes.
        wanted: whether a member's content is read, by its name and size.

    Attributes:
        digest: SHA-256 over all headers; complete when the walk is.
        num_zeros: blocks of zeros at the end, likewise.
    """

    def __init__(self, file: IO[bytes], size: int, wanted: Callable[[str, int], bool]) -> None:
        self._file, self._size, self._wanted = file, size, wanted
        self._archive = tarfile.TarFile(fileobj=io.BytesIO(bytes(2 * BLOCK)),
                                        errors="surrogateescape")
        self._archive.fileobj = file
        self.digest = hashlib.sha256()
        self.num_zeros = 0

    def __iter__(self) -> Iterator[Member | Damage]:
        position, has_end = 0, False
        while position < self._size:
            self._file.seek(position)
            block = self._file.read(BLOCK)
            if len(block) == BLOCK and not any(block):
                has_end, position = True, position + BLOCK
                self.num_zeros += 1
                continue
            self.num_zeros = 0
            found, position = self._next(position, block)
            has_end = isinstance(found, Damage)  # what is damaged to the end has been told
            if found is not None:
                yield found
        if not has_end:
            yield Damage(start=self._size, end=self._size, reason="the file is empty" if not
                         self._size else "it ends without an end mark, as one that was cut off")

    def _next(self, position: int, block: bytes) -> tuple[Member | Damage | None, int]:
        """What begins at a position with a block, and the position behind it."""
        if block[156:157] in EXTENSIONS and (damage := self._surplus_extensions(position)):
            self.digest.update(b"damage %d %d\n" % (damage.start, damage.end))
            return damage, damage.end
        self._file.seek(position)
        self._archive.offset = position
        try:
            info = tarfile.TarInfo.fromtarfile(self._archive)
            if self._archive.offset <= position or not 0 <= info.size < MAX_SIZE:
                raise tarfile.ReadError("a header states a negative size" if info.size < MAX_SIZE
                                        else f"a header states a size of {info.size} bytes")
        except (tarfile.TarError, ValueError, OverflowError, IndexError) as error:
            end = self._sound_header_after(position)
            self.digest.update(b"damage %d %d\n" % (position, end))
            return Damage(start=position, end=end, reason=str(error) or "no header"), end
        self.digest.update(info.name.encode("utf-8", "surrogateescape")
                           + b" %d %d %d\n" % (info.offset_data, info.size, info.chksum))
        if info.isdir():
            return None, self._archive.offset
        return self._member(info), self._archive.offset

    def _surplus_extensions(self, start: int) -> Damage | None:
        """The headers about a member that begin here, where they are too large or too many."""
        position, count, reason = start, 0, ""
        while (info := self._extension_at(position)) is not None:
            count += 1
            if info.size > MAX_EXTENSION_BYTES:
                reason = (f"a header about a member has {info.size} bytes; at most "
                          f"{MAX_EXTENSION_BYTES} are read")
            position += BLOCK + -(-info.size // BLOCK) * BLOCK
        if count > MAX_EXTENSIONS:
            reason = f"{count} headers about one member; at most {MAX_EXTENSIONS} are read"
        return Damage(start=start, end=min(position, self._size), reason=reason) if reason else None

    def _extension_at(self, position: int) -> tarfile.TarInfo | None:
        """The header at a position, if it is one about a member."""
        if position >= self._size:
            return None
        self._file.seek(position)
        block = self._file.read(BLOCK)
        if block[156:157] not in EXTENSIONS:
            return None
        try:
            info = tarfile.TarInfo.frombuf(block, tarfile.ENCODING, "surrogateescape")
        except (tarfile.TarError, ValueError):
            return None
        return info if info.size >= 0 else None

    def _member(self, info: tarfile.TarInfo) -> Member:
        problem, content = None, None
        if not info.isreg() or info.issparse():
            kind = (f"a link to {info.linkname!r}" if info.issym() or info.islnk() else
                    "a sparse file" if info.issparse() else "a device or pipe")
            problem = f"it is {kind}; store the file itself"
        elif info.offset_data + info.size > self._size:
            problem = (f"its {info.size} bytes begin at byte {info.offset_data}, but the archive "
                       f"ends at {self._size}")
        elif self._wanted(info.name, info.size):
            self._file.seek(info.offset_data)
            content = self._file.read(info.size)
        return Member(name=info.name, offset=info.offset_data, size=info.size, problem=problem,
                      content=content)

    def _sound_header_after(self, position: int) -> int:
        """Where the next header with a right checksum begins, or the end of the archive."""
        position += BLOCK
        self._file.seek(position)
        while len(block := self._file.read(BLOCK)) == BLOCK:
            if any(block) and is_header(block):
                return position
            position += BLOCK
        return self._size


def is_header(block: bytes, size: int | None = None) -> bool:
    """Whether a block is the header of a member, and of one with ``size`` bytes where it is given.

    Sizes of 8 GiB and more stand elsewhere in some archives, and are not compared.
    """
    try:
        info = tarfile.TarInfo.frombuf(block, tarfile.ENCODING, "surrogateescape")
    except (tarfile.TarError, ValueError):
        return False
    return size is None or info.size == size or size >= 8 << 30


def compression(head: bytes) -> str | None:
    """The name of the compression that a file's first bytes announce."""
    names = {GZIP: "gzip", ZSTD: "zstd", BZIP2: "bzip2", XZ: "xz"}
    return next((name for start, name in names.items() if head.startswith(start)), None)
