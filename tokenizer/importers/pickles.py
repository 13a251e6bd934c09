"""Tensors of a file that ``torch.save`` wrote, read without running anything that it names.

Such a file is a zip archive of raw numbers and a pickle, a small program that may name any function
of any module to be called. Here its names mean nothing: those that make up tensors stand for plain
descriptions of them, every other one for an object that takes anything and does nothing. No module
is imported and no function of torch is called while the pickle is read; numbers are read only of
the tensors that are asked for, so training state costs neither time nor memory. What is read takes
no more memory than it has bytes in the file: nothing in the archive may be compressed, as
``torch.save`` never does, and no tensor may repeat its numbers.
"""
import io
import math
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from tokenizer import storage

if TYPE_CHECKING:
    from torch import Tensor

MAX_PICKLE_BYTES = 64 << 20
"""A pickle beside its tensors is a few MB; a larger one is refused."""

CHUNK_BYTES = 1 << 20
BYTE_ORDERS = (b"little", b"big")

NOTES = ("PUT", "BINPUT", "LONG_BINPUT")
"""Steps of a pickle that keep a value under a number."""

DTYPES = {"DoubleStorage": ("float64", 8), "FloatStorage": ("float32", 4),
          "HalfStorage": ("float16", 2), "BFloat16Storage": ("bfloat16", 2),
          "LongStorage": ("int64", 8), "IntStorage": ("int32", 4), "ShortStorage": ("int16", 2),
          "CharStorage": ("int8", 1), "ByteStorage": ("uint8", 1), "BoolStorage": ("bool", 1)}
"""Classes of ``torch`` that a file names for its numbers: our dtype, and bytes of one number."""


@dataclass(frozen=True)
class Stored:
    """One tensor of a file, not yet read.

    Attributes:
        shape: its shape.
        read: reads it, on the CPU, in the type it was stored in.
    """
    shape: tuple[int, ...]
    read: "Callable[[], Tensor]"


@dataclass(frozen=True)
class Pickled:
    """What a file of ``torch.save`` holds.

    Attributes:
        content: dicts, lists, numbers and strings as they were; tensors as `Stored`.
        ignored: names of the functions and classes that were left alone, sorted.
    """
    content: Any
    ignored: tuple[str, ...]


def read_pickled(url: str) -> Pickled:
    """What the file at ``url`` holds, without running any of it.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: it is damaged, or no file of ``torch.save`` since torch 1.6.
    """
    fs, path = storage.locate(url)
    with storage.remote_errors(url):
        file = fs.open(path, "rb")  # stays open for the tensors to be read from
    try:
        archive = zipfile.ZipFile(file)
        info = _pickle_info(url, archive)
        root = info.filename[:-len("data.pkl")]
        _check_byte_order(url, archive, root)
        program = archive.read(info)
        _check_memory(program)
        reader = _Reader(program, _Storages(url, archive, root))
        content = reader.load()
    except (zipfile.BadZipFile, KeyError) as error:
        raise ValueError(f"{url} is no zip archive of torch.save ({error}): it is damaged, or of "
                         "before torch 1.6; load it where you trust it and save it again with "
                         "safetensors") from error
    except _Refused:
        raise
    # Broad on purpose: a damaged or hostile pickle is a program that may fail in any way.
    except Exception as error:
        raise ValueError(f"the pickle in {url} is damaged ({type(error).__name__}: {error}); copy "
                         "the file again") from error
    return Pickled(content, tuple(sorted(reader.ignored)))


class _Refused(ValueError):
    """A file that is refused in words of its own."""


class _Inert:
    """Stands for whatever a pickle names or makes that is no tensor: takes anything, does nothing.

    Both the class and its objects are safe wherever the pickle machine may put them.
    """
    __slots__ = ()

    def __new__(cls, *args: Any, **settings: Any) -> Any:
        return object.__new__(cls)

    def __init__(self, *args: Any, **settings: Any) -> None:
        """Takes and forgets anything."""

    def __setstate__(*args: Any) -> None:
        """Takes and forgets anything; of the class itself, too."""

    def __call__(self, *args: Any, **settings: Any) -> "_Inert":
        return self

    def __setitem__(self, *args: Any) -> None:
        """Takes and forgets anything."""

    append = extend = add = __setitem__


class _Mapping(dict[Any, Any]):
    """Stands for ``OrderedDict``: its items, without attributes."""
    __slots__ = ()

    def __setstate__(*args: Any) -> None:
        """Attributes such as a module's version notes are left out."""


class _Kind(NamedTuple):
    """Stands for a storage class of torch: the type of its numbers and their size in bytes."""
    dtype: str
    size: int


class _Storage(NamedTuple):
    """One run of numbers in the archive: its file name there, type, and how many they are."""
    key: str
    kind: _Kind
    numel: int


class _Storages:
    """The numbers of one archive."""

    def __init__(self, url: str, archive: zipfile.ZipFile, root: str) -> None:
        self.url, self.archive, self.root = url, archive, root

    def tensor(self, store: _Storage, offset: int, shape: tuple[int, ...],
               stride: tuple[int, ...]) -> Stored:
        """A tensor that is a view of ``store``.

        Raises:
            ValueError: it reaches beyond its numbers.
        """
        is_empty = 0 in shape
        last = offset + sum((side - 1) * step for side, step in zip(shape, stride, strict=True))
        if not is_empty and last >= store.numel:
            raise _Refused(f"{self.url} is damaged: a tensor {shape} reaches beyond the "
                             f"{store.numel} numbers of its storage; copy the file again")

        def read() -> "Tensor":
            import torch
            if math.prod(shape) > store.numel:
                raise ValueError(f"a tensor {shape} of {self.url} repeats the {store.numel} numbers"
                                 " of its storage; save it again with .contiguous()")
            numbers = self._numbers(store, offset, last + 1)
            flat = torch.frombuffer(numbers, dtype=getattr(torch, store.kind.dtype))
            return flat.as_strided(shape, stride).contiguous()

        def empty() -> "Tensor":
            import torch
            return torch.empty(shape, dtype=getattr(torch, store.kind.dtype))
        return Stored(shape, empty if is_empty else read)

    def _numbers(self, store: _Storage, first: int, end: int) -> bytearray:
        """The bytes of numbers ``first`` to ``end - 1`` of ``store``, held once."""
        name, size = f"{self.root}data/{store.key}", store.kind.size
        numbers = bytearray()
        try:
            info = _stored(self.url, self.archive, name)
            if info.file_size != store.numel * size:
                raise ValueError(f"{name} holds {info.file_size} bytes, expected "
                                 f"{store.numel * size}")
            with self.archive.open(info) as file:
                file.seek(first * size)
                while rest := (end - first) * size - len(numbers):
                    chunk = file.read(min(rest, CHUNK_BYTES))
                    if not chunk:
                        raise ValueError(f"{name} ends early")
                    numbers += chunk
        except _Refused:
            raise
        except (KeyError, EOFError, zipfile.BadZipFile, struct.error, ValueError) as error:
            raise ValueError(f"{self.url} is damaged ({error}); copy the file again") from error
        return numbers


class _Reader(pickle.Unpickler):
    """The pickle machine with names that mean nothing but tensors."""

    def __init__(self, program: bytes, storages: _Storages) -> None:
        super().__init__(io.BytesIO(program), encoding="latin1")
        self.ignored: set[str] = set()
        self._known: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): _Mapping,
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor(storages),
            ("torch._utils", "_rebuild_parameter"): _Parameter,
            **{("torch", name): _Kind(*kind) for name, kind in DTYPES.items()}}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self._known:
            return self._known[module, name]
        self.ignored.add(f"{module}.{name}")
        return _Inert

    def persistent_load(self, pid: Any) -> Any:
        is_storage = isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage"
        if is_storage and isinstance(pid[1], _Kind) and _is_count(pid[4]):
            return _Storage(str(pid[2]), pid[1], pid[4])
        return _Inert()


def _rebuild_tensor(storages: _Storages) -> type[_Inert]:
    """What stands for torch's ``_rebuild_tensor_v2``: describes the tensor instead of making it."""
    class Rebuild(_Inert):
        __slots__ = ()

        def __new__(cls, *args: Any, **settings: Any) -> Any:
            if len(args) < 4 or not isinstance(args[0], _Storage):
                return object.__new__(cls)
            store, offset, shape, stride = args[:4]
            whole = (isinstance(part, tuple) and all(map(_is_count, part))
                     for part in (shape, stride))
            if not (all(whole) and _is_count(offset) and len(shape) == len(stride)):
                return object.__new__(cls)
            return storages.tensor(store, offset, shape, stride)
    return Rebuild


class _Parameter(_Inert):
    """Stands for torch's ``_rebuild_parameter``: the tensor it wraps."""
    __slots__ = ()

    def __new__(cls, *args: Any, **settings: Any) -> Any:
        return args[0] if args and isinstance(args[0], Stored) else object.__new__(cls)


def _check_memory(program: bytes) -> None:
    """Refuse a pickle that asks for more memory than its length accounts for.

    The machine's notes are an array as long as their largest number, and some strings are given
    memory before they are read; each step is looked at before any is taken.
    """
    for step, argument, _ in pickletools.genops(program):
        if step.name in NOTES and not 0 <= (argument or 0) <= len(program):
            raise pickle.UnpicklingError(f"a note numbered {argument} in {len(program)} bytes")


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 48


def _pickle_info(url: str, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    """The pickle in the archive; torch puts it into a folder named after the file."""
    names = (info.filename for info in archive.infolist()
             if info.filename.split("/")[1:] == ["data.pkl"])
    name = next(names, None)
    if name is None:
        raise KeyError("no data.pkl in it")
    info = _stored(url, archive, name)
    if info.file_size > MAX_PICKLE_BYTES:
        raise _Refused(f"the pickle in {url} has {info.file_size} bytes, more than the "
                         f"{MAX_PICKLE_BYTES} of any checkpoint")
    return info


def _check_byte_order(url: str, archive: zipfile.ZipFile, root: str) -> None:
    name = f"{root}byteorder"
    if name not in archive.namelist():
        return
    info = _stored(url, archive, name)
    order = archive.read(info) if info.file_size <= max(map(len, BYTE_ORDERS)) else b""
    if order not in BYTE_ORDERS:
        raise _Refused(f"{url} is damaged: {name} of {info.file_size} bytes is neither little nor "
                       "big; copy the file again")
    if order != b"little":
        raise _Refused(f"{url} was written on a big-endian machine; save it again on another")


def _stored(url: str, archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """What the archive says of a file in it, which takes no more memory than it has bytes.

    Raises:
        KeyError: there is no such file.
        ValueError: it is compressed, so that few bytes could become many.
    """
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise _Refused(f"{name} in {url} is compressed, as torch.save never does; load it where "
                       "you trust it and save it again")
    return info
