"""Which column of a table holds what: images, keys, labels and captions by their usual names."""
import json
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

KEYS = ("key", "__key__")
LABELS = ("label", "cls", "class", "class_name", "category", "labels")
CAPTIONS = ("caption", "text", "txt")
IMAGES = ("image", "img", "picture", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes")
PLACES = ("url", "path", "image", "file", "file_name", "filename", "image_url", "image_path", "uri",
          "URL")


def is_bytes(kind: pa.DataType) -> bool:
    """Whether a column holds files: bytes, or a struct with bytes, as of Hugging Face images."""
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and is_bytes(field.type) for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
                or pa.types.is_binary_view(kind) or pa.types.is_fixed_size_binary(kind)
                or (pa.types.is_dictionary(kind) and is_bytes(kind.value_type)))


def is_text(kind: pa.DataType) -> bool:
    """Whether a column holds texts or numbers, as keys, labels and captions are."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind)
                or pa.types.is_string_view(kind) or pa.types.is_integer(kind)
                or pa.types.is_floating(kind)
                or (pa.types.is_dictionary(kind) and is_text(kind.value_type)))


def text_columns(schema: pa.Schema, named: Mapping[str, str | None]) -> dict[str, str | None]:
    """The columns of ``key``, ``label`` and ``caption``, as named or else by their usual names.

    Raises:
        ValueError: a name is not that of a column.
    """
    texts = [field.name for field in schema if is_text(field.type)]
    usual = {"key": KEYS, "label": LABELS, "caption": CAPTIONS}
    return {use: choose(texts if named.get(use) is None else schema.names, named.get(use), names,
                        f"the {use}") for use, names in usual.items()}


def file_columns(schema: pa.Schema) -> list[str]:
    """The columns that hold files."""
    return [field.name for field in schema if is_bytes(field.type)]


def choose(columns: Iterable[str], wanted: str | None, usual: Iterable[str], what: str,
           required: bool = False) -> str | None:
    """The column for some purpose.

    Args:
        wanted: the name that was asked for; a name within a struct stands behind a dot.
        usual: names to look for where none was asked for.
        what: the purpose and the option, for messages.
        required: whether there must be one.
    Raises:
        ValueError: there is no such column.
    """
    columns = list(columns)
    if wanted is not None:
        if wanted not in columns and wanted.partition(".")[0] not in columns:
            raise ValueError(f"there is no column {wanted!r} for {what}; there are "
                             f"{', '.join(columns)}")
        return wanted
    found = next((name for name in usual if name in columns), None)
    if found is None and required:
        raise ValueError(f"none of the columns {', '.join(columns)} is known to hold {what}; "
                         "name it")
    return found


def choose_images(schema: pa.Schema, modality: str, taken: Iterable[str]) -> str:
    """The column of the corpus's own modality, where none was named.

    Raises:
        ValueError: there is none, or there are several of equal right.
    """
    found = [name for name in file_columns(schema) if name not in taken]
    usual = [name for name in (modality, *IMAGES) if name in found]
    if len(found) != 1 and not usual:
        raise ValueError(f"{len(found)} columns hold files ({', '.join(found) or 'none'} of "
                         f"{', '.join(schema.names)}); name the one of {modality}: #column=NAME")
    return usual[0] if usual else found[0]


def require_files(schema: pa.Schema, column: str, modality: str, where: str) -> None:
    """Refuse a column that holds no files.

    Raises:
        ValueError: there is no such column, or it is of another type.
    """
    choose(schema.names, column, (), modality)
    if column not in file_columns(schema):
        raise ValueError(f"column {column} of {where} is of type {schema.field(column).type} and "
                         f"holds no files for {modality}")


def class_names(schema: pa.Schema, column: str | None) -> list[str] | None:
    """Names of the classes of a column, as Hugging Face keeps them in a file's metadata."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[column]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return [str(name) for name in names] if isinstance(names, list) else None


def value_at(row: Mapping[str, Any], name: str | None) -> Any:
    """A row's value by a name that may lead into structs; nothing where there is none."""
    if name is None:
        return None
    if name in row:
        return row[name]
    value: Any = row
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def label_text(value: Any, where: str) -> str | None:
    """A label as text; nothing where there is none.

    Raises:
        ValueError: it is neither text nor a whole number.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # of a column of whole numbers with gaps, as pandas writes it
    if value is None or value == "" or value != value:
        return None
    if isinstance(value, bool | float | list | dict | bytes):
        raise ValueError(f"{where} holds the label {value!r}; labels are class names or whole "
                         "numbers")
    return str(value)


def class_number(label: str, where: str) -> int:
    """The number of a class whose name the file's metadata holds.

    Raises:
        ValueError: the label is no whole number.
    """
    try:
        return int(label)
    except ValueError:
        raise ValueError(f"{where} holds the label {label!r}, but the file names its classes by "
                         "numbers: give another column (--labels column:NAME), or none") from None


def caption_text(value: Any) -> str | None:
    """A caption; nothing where it is empty or no text."""
    return value if isinstance(value, str) and value else None
