"""The demo's page: what it shows, and how that becomes one HTML file.

Pictures are inside the page as data URIs and charts as SVG; there is no script and no request to
anywhere, so the file can be mailed, archived and opened without a network.
"""
import base64
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup

from tokenizer import pictures

TEMPLATE = "page.html"


@dataclass(frozen=True)
class Picture:
    """A picture with the words that stand for it; its caption, when it has one, stands below."""
    uri: str
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Row:
    """Pictures side by side under a heading."""
    title: str
    pictures: list[Picture]


@dataclass(frozen=True)
class Bar:
    """A figure from 0 to 1 as a bar; ``strong`` is the one the eye should find."""
    name: str
    value: float
    note: str = ""
    strong: bool = False


@dataclass(frozen=True, kw_only=True)
class TokenizerCard:
    """One trained tokenizer.

    Attributes:
        name: modality.
        figure, unit: its quality on held-out pictures and what that is.
        rows: originals and reconstructions.
        chart: its losses.
        facts: names and values, for the small table.
    """
    name: str
    figure: str
    unit: str
    rows: list[Row]
    chart: Markup
    facts: list[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class PriorCard:
    """One trained prior: its title, its figure on held-out rows, its losses, and facts."""
    title: str
    figure: str
    unit: str
    chart: Markup
    facts: list[tuple[str, str]]


@dataclass(frozen=True)
class Stage:
    """A step of the run: its name, how long it took, the command that does the same."""
    title: str
    seconds: float
    command: str


@dataclass(frozen=True, kw_only=True)
class Page:
    """All that the page shows, in the order of reading."""
    headline: list[tuple[str, str]]
    banner: list[Row]
    legend: list[tuple[str, str]]
    corpus: list[Row]
    captions: list[str]
    tokenizers: list[TokenizerCard]
    token_rows: list[Row]
    token_facts: list[tuple[str, str]]
    dead_letters: list[tuple[str, str, str]]
    example_row: str
    priors: list[PriorCard]
    class_rows: list[Row]
    map_columns: list[str]
    map_rows: list[list[Picture]]
    bars: list[Bar]
    completion_columns: list[str]
    completion_rows: list[list[Picture]]
    stages: list[Stage] = field(default_factory=list)
    machine: str = ""


def render(page: object, template: str = TEMPLATE) -> str:
    """A page as one HTML text; the template knows it as ``page``."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["duration"] = duration
    return environment.get_template(template).render(page=page)


def picture(pixels: np.ndarray, alt: str, caption: str = "") -> Picture:
    """A picture ``(H, W, 3)`` uint8 for the page."""
    return Picture(data_uri(pictures.png_bytes(pixels), "png"), alt, caption)


def data_uri(content: bytes, kind: str) -> str:
    """A file of a picture, such as a ``png`` or ``gif``, inside the page."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def duration(seconds: float) -> str:
    """Seconds as people say them: ``0.4 s``, ``48 s``, ``3 min 5 s``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
