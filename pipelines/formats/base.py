"""What every format is: a reader, which lists inputs and reads the codes of one, and a layout.

Letters: C crops of an input, N codes of a crop, D codes a cell.
"""
import io
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pipelines.sinks.base import Item, Sink
from tokenizer import storage, stores
from tokenizer.corpus.images import Crop
from tokenizer.corpus.labels import MAX_LABEL
from tokenizer.corpus.maps import npy_header
from tokenizer.schema import CodeSpec, Manifest, TokenSpec

MAX_PIXELS = (1 << 31) - 1
"""What a column of sides and places in pixels holds."""


class UnreadableCodes(ValueError):
    """A file that should hold codes holds something else."""


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One input of a foreign corpus, as its listing finds it.

    Attributes:
        key: its stable id.
        source: the file that holds its codes; behind a ``#``, the part of that file.
        first_byte: where in that file its codes begin, and ``num_bytes`` how many they are, where
            they are a part of it.
        label: number of its class; ``class_name`` its name, where there are names.
        caption: a text about it.
        about: what else is said of it, as JSON.
        error: what is wrong with it, as the class of an error, and ``message`` in words.
    """
    key: str
    source: str
    first_byte: int | None = None
    num_bytes: int | None = None
    label: int | None = None
    class_name: str | None = None
    caption: str | None = None
    about: str | None = None
    error: str | None = None
    message: str | None = None


@dataclass(frozen=True, kw_only=True)
class Codes:
    """The codes of one input.

    Attributes:
        codes: ``(C, N)`` integers.
        crops: which box of the original each crop is, and ``size`` the original's height and width
            in pixels, where the format says so; of others only whether they are ``flipped``.
    """
    codes: np.ndarray
    crops: Sequence[Crop] | None = None
    size: tuple[int, int] | None = None
    flipped: Sequence[bool] | None = None

    def __post_init__(self) -> None:
        boxes = [(crop.left, crop.top, crop.width, crop.height) for crop in self.crops or ()]
        for number in itertools.chain(self.size or (), *boxes):
            if type(number) is not int or not 0 <= number <= MAX_PIXELS:
                raise UnreadableCodes(f"sizes and boxes are whole numbers of pixels from 0 to "
                                      f"{MAX_PIXELS}, got {number!r}")


@dataclass(frozen=True)
class Reader(ABC):
    """Reads one foreign corpus; picklable.

    Attributes:
        name: of the format.
        form: how a corpus of it looks, in words.
        url: where it lies.
        part: suffix or name of the codes where several lie side by side.
    """
    name: ClassVar[str]
    form: ClassVar[str]
    url: str
    part: str = ""

    @abstractmethod
    def inputs(self) -> Iterator[Listed]:
        """Every input once, in the same order each time.

        Raises:
            FileNotFoundError: nothing of this format lies there.
            ValueError: a file is damaged.
        """

    @abstractmethod
    def read(self, listed: Listed) -> Codes:
        """The codes of one input.

        Raises:
            OSError: its file cannot be read.
            ValueError: it holds something else.
        """

    def classes(self) -> list[str]:
        """Names of the classes by label: where labels have none, the numbers up to the greatest."""
        names: dict[int, str] = {}
        for listed in self.inputs():
            if listed.label is not None:
                names.setdefault(listed.label, listed.class_name or str(listed.label))
        return [names.get(label, str(label)) for label in range(max(names, default=-1) + 1)]


@dataclass(frozen=True, kw_only=True)
class TokenInput:
    """One input of a corpus of ours, with all its crops.

    Attributes:
        number: its place among all inputs, from 0.
        rows: the rows of its crops without codes.
        codes: ``(C, N)`` by modality.
    """
    number: int
    rows: Sequence[Mapping[str, Any]]
    codes: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Layout(ABC):
    """Writes corpora of ours as a foreign format lays them out; picklable.

    Attributes:
        name: of the format.
        needs_labels: whether every input must have a label.
        names_files: whether files are named after keys.
        one_modality: whether it holds codes of one modality only.
        spec: the codes to write.
        num_crops: of each input.
        data: name of the data set, for formats that have it in paths.
    """
    name: ClassVar[str]
    needs_labels: ClassVar[bool] = False
    names_files: ClassVar[bool] = True
    one_modality: ClassVar[bool] = False
    spec: TokenSpec
    num_crops: int
    data: str = "imagenet"

    def check(self, manifest: Manifest) -> None:
        """Refuse a corpus that this format cannot hold.

        Raises:
            ValueError: the message says why.
        """
        if self.one_modality and len(self.spec.codes) > 1:
            raise ValueError(f"{self.name} holds codes of one modality, the corpus those of "
                             f"{', '.join(self.spec.modalities)}: choose one with --modality")
        num_labels = sum(manifest.class_counts.values())
        if self.needs_labels and num_labels < manifest.num_rows:
            raise ValueError(f"{self.name} holds a label for each image, but "
                             f"{manifest.num_rows - num_labels} of {manifest.num_rows} rows of the "
                             "corpus have none")

    @property
    def items_each(self) -> int:
        """Items of each input."""
        return 1

    @abstractmethod
    def sink(self, output: str, num_shards: int) -> Sink:
        """Where the files go; its modalities are the names of `items`' files."""

    @abstractmethod
    def items(self, source: TokenInput, name: str) -> list[Item]:
        """What is written for one input; ``name`` is a path for it, made of its key."""


def npy_bytes(array: np.ndarray) -> bytes:
    """An array as one ``.npy`` file."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def load_npy(content: bytes, name: str) -> np.ndarray:
    """The integers in a ``.npy`` file, which is read as data and never as a pickle.

    Raises:
        UnreadableCodes: it holds anything else.
    """
    file = io.BytesIO(content)
    try:
        shape, dtype = npy_header(file)
    except ValueError as error:
        raise UnreadableCodes(f"{name} is no .npy file of numbers ({error})") from error
    if not np.issubdtype(dtype, np.integer):
        raise UnreadableCodes(f"{name} holds {dtype}; codes are integers")
    held, expected = len(content) - file.tell(), math.prod(shape) * dtype.itemsize
    if held < expected:  # known before memory is taken for them
        raise UnreadableCodes(f"{name} is damaged: it has {held} bytes of values, {dtype} of shape "
                              f"{shape} takes {expected}")
    file.seek(0)
    array: np.ndarray = np.load(file, allow_pickle=False)
    return array


def read_range(url: str, first: int, count: int) -> bytes:
    """Some bytes of one file.

    Raises:
        OSError: they cannot be read.
        UnreadableCodes: the file ends before.
    """
    fs, path = stores.locate(url)
    with stores.remote_errors(url):
        content = bytes(stores.persistently(
            url, lambda: fs.cat_file(path, start=first, end=first + count)))
    if len(content) != count:
        raise UnreadableCodes(f"{url} has {len(content)} of {count} bytes from byte {first} on; it "
                              "was cut since it was listed")
    return content


def checked_label(label: Any) -> int:
    """A label that a file holds.

    Raises:
        ValueError: it is no whole number from 0 to `MAX_LABEL`.
    """
    text = str(label).strip()
    if isinstance(label, bool) or not text.isdecimal() or int(text) > MAX_LABEL:
        raise ValueError(f"labels are whole numbers from 0 to {MAX_LABEL}, got {label!r}")
    return int(text)


def file_of(source: str) -> str:
    """The file in which a source lies."""
    return source.rpartition("#")[0] or source


def sorted_files(url: str, suffix: str) -> list[str]:
    """Names of the files with a suffix directly in a folder, numbers in their order."""
    names = [name for name in storage.list_files(url) if name.endswith(suffix)]
    return sorted(names, key=lambda name: (len(name), name) if
                  name.removesuffix(suffix).isdecimal() else (1 << 30, name))


def flat(spec: CodeSpec, codes: np.ndarray) -> np.ndarray:
    """Codes ``(C, *code_shape)`` as ``(C, N)``."""
    return codes.reshape(len(codes), spec.num_codes)
