"""Values of options: each is read from its text by one function, which says what is wrong with it.

To add one, write a function that raises `ValueError` with the value and an example, and name a
`Value` of it here.
"""
import sys
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import click


class Value(click.ParamType):
    """An option's value.

    Args:
        name: its form, as ``--help`` shows it.
        read: the value of a text.
    """

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """The form as it is, so that ``x`` stays small beside ``HEIGHT`` and ``WIDTH``."""
        return self.name

    def __init__(self, name: str, read: Callable[[str], Any]) -> None:
        self.name = name
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None,
                ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._read(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _Count(click.IntRange):
    """An integer, which ``--help`` calls N."""
    name = "n"

    def convert(self, value: Any, param: click.Parameter | None,
                ctx: click.Context | None) -> Any:
        try:
            number = int(value)
        except ValueError:
            self.fail(f"{value!r} is no whole number, for example 1000", param, ctx)
        if number > sys.maxsize:
            self.fail(f"{value} is larger than {sys.maxsize}", param, ctx)
        return super().convert(value, param, ctx)


def at_least(lowest: int) -> click.IntRange:
    """An integer from ``lowest`` on."""
    return _Count(min=lowest)


def place(text: str) -> str:
    """A path or URL; an empty word is none."""
    if not text.strip():
        raise ValueError(f"{text!r} is no path or URL; is a variable of the shell not set?")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{text!a} is no text in UTF-8, which files of a job name it "
                         "in") from None
    return text


def png(text: str) -> str:
    """A path or URL of a PNG to write."""
    if not place(text).lower().endswith(".png"):
        raise ValueError(f"{text!r} becomes a PNG: let its name end in .png")
    return text


def crops(text: str) -> str:
    """The name of a crop rule; see `tokenizer.corpus.crops`."""
    from tokenizer.corpus.crops import crop_rule
    crop_rule(text)  # refuses what is none
    return text


def assignment(text: str) -> tuple[str, str]:
    """``NAME=VALUE`` as a pair."""
    name, separator, value = text.partition("=")
    if not (separator and name and value):
        raise ValueError(f"{text!r} is not of the form NAME=VALUE, for example image=my-tokenizer")
    return name, value


def size(text: str) -> tuple[int, int]:
    """A height and a width in pixels, as in ``256x384``."""
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise ValueError(f"{text!r} is no height and width, for example 256x384")
    return int(height), int(width)


def bucket_sizes(text: str) -> tuple[tuple[int, int], ...]:
    """Heights and widths in pixels, as in ``256x384,256x256,384x256``; or those of one area, as in
    ``area:256x256,step:32,ratio:2``."""
    from tokenizer import buckets
    if text.startswith("area:"):
        return sizes_of_area(text)
    found = tuple(size(part.strip()) for part in text.split(","))
    buckets.in_order(found)  # refuses what are no buckets
    return found


def sizes_of_area(text: str) -> tuple[tuple[int, int], ...]:
    """The sizes of an area, with a step and a ratio where these are given; see
    `tokenizer.buckets.sizes_of_area`."""
    from tokenizer import buckets
    reads: dict[str, Callable[[str], Any]] = {
        "area": size, "step": int, "ratio": lambda word: Fraction(repr(float(word)))}
    parts = [part.strip().partition(":") for part in text.split(",")]
    try:
        given = {name: reads[name](value) for name, _, value in parts}
    except (KeyError, ArithmeticError, ValueError):
        given = {}
    if len(given) < len(parts):
        raise ValueError(f"{text!r} is no area with a step and a ratio, for example "
                         "area:256x256,step:32,ratio:2")
    height, width = given.pop("area")
    return buckets.sizes_of_area(height * width, **given)


def box(text: str) -> tuple[int, ...]:
    """Top, left, height and width in pixels, as in ``64,64,128,96``."""
    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().isdecimal() for part in parts):
        raise ValueError(f"{text!r} is no top,left,height,width in pixels, for example "
                         "64,64,128,96")
    return tuple(map(int, parts))


def error_limit(text: str) -> int | float:
    """How many inputs may fail: a number, or a share such as ``1%`` or ``0.01``."""
    text = text.strip()
    is_percent = text.endswith("%")
    if text.isdecimal():
        return int(text)
    try:
        share = float(Decimal(text.removesuffix("%")) / (100 if is_percent else 1))
    except ArithmeticError:
        share = -1.0
    if not 0 <= share <= 1 or (share == 1 and not is_percent):
        raise ValueError(f"{text!r} is neither a number of images such as 5 nor a share of them "
                         "such as 1% or 0.01")
    return share


def image_count(text: str) -> int | float:
    """A number of images, or a share of them below 1."""
    try:
        return int(text) if text.isdecimal() else float(text)
    except ValueError:
        raise ValueError(f"{text!r} is neither a count such as 40 nor a share such as "
                         "0.05") from None


def tokenizer_folder(text: str) -> tuple[str, str]:
    """``MODALITY=FOLDER``, or a folder alone (``""``): its tokenizer says what it is of."""
    name, separator, folder = text.partition("=")
    if not (separator and name.isidentifier()):
        return "", place(text)
    if not folder:
        raise ValueError(f"{text!r} names no folder; write for example {name}=my-tokenizer")
    return name, folder


def byte_count(text: str) -> int:
    """Bytes, as in ``2GiB``, ``1.5GB`` or ``800MiB``."""
    units = {f"{letter}{kind}": base ** power for kind, base in (("iB", 1024), ("B", 1000))
             for power, letter in enumerate("KMGT", 1)}
    for unit, factor in units.items():
        number = text.strip().removesuffix(unit).strip()
        if number != text.strip() and number.replace(".", "", 1).isdecimal() and float(number):
            return int(float(number) * factor)
    raise ValueError(f"{text!r} is no amount of memory, for example 2GiB or 800MiB")


def guidance_scale(text: str) -> tuple[str, float]:
    """``SCALE`` of all conditions (name ``""``), or ``NAME=SCALE`` of one."""
    name, _, scale = text.rpartition("=")
    try:
        return name, float(scale)
    except ValueError:
        raise ValueError(f"{text!r} is neither SCALE nor NAME=SCALE, for example "
                         "depth=2.5") from None


def estimator(text: str) -> tuple[str, str]:
    """``NAME=MODULE:FUNCTION``, or ``MODULE:FUNCTION`` alone (name ``""``)."""
    name, _, place = text.rpartition("=")
    module, _, function = place.partition(":")
    if not (function.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        raise ValueError(f"{text!r} names no function of a module, for example "
                         "segmentation=mymodule:segment")
    return name, place


def condition_name(text: str) -> tuple[str, float | None]:
    """``NAME`` or ``NAME=DROPOUT``: a condition, and how often training leaves it out."""
    name, separator, share = text.partition("=")
    try:
        return name, float(share) if separator else None
    except ValueError:
        raise ValueError(f"{text!r} is neither NAME nor NAME=DROPOUT, for example "
                         "depth=0.2") from None


PLACE = Value("PATH", place)
PNG = Value("path", png)
CROPS = Value("RULE", crops)
ASSIGNMENT = Value("NAME=VALUE", assignment)
SIZE = Value("HEIGHTxWIDTH", size)
BUCKETS = Value("SIZES", bucket_sizes)
BOX = Value("TOP,LEFT,HEIGHT,WIDTH", box)
ERROR_LIMIT = Value("N|SHARE", error_limit)
IMAGE_COUNT = Value("COUNT|SHARE", image_count)
TOKENIZER_FOLDER = Value("[MODALITY=]FOLDER", tokenizer_folder)
BYTES = Value("N(MiB|GiB)", byte_count)
GUIDANCE_SCALE = Value("[NAME=]SCALE", guidance_scale)
ESTIMATOR = Value("[NAME=]MODULE:FUNCTION", estimator)
CONDITION_NAME = Value("NAME[=DROPOUT]", condition_name)
