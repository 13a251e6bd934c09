"""What the page of ``img2tokens demo --guide`` shows; `cli.demo.page` makes it one HTML file."""
from dataclasses import dataclass

from markupsafe import Markup

from cli.demo.page import Picture, Stage

GUIDE_TEMPLATE = "guide.html"


@dataclass(frozen=True, kw_only=True)
class GuidedCard:
    """One picture: its prompt, its similarity to it and what that means, frames and curves."""
    title: str
    figure: str
    unit: str
    picture: Picture
    frames: list[Picture]
    charts: list[Markup]


@dataclass(frozen=True)
class Cell:
    """A similarity as text, and as a share of the range of all; whether the prompt is the picture's
    own, and whether no other is closer.
    """
    text: str
    share: float
    own: bool
    best: bool


@dataclass(frozen=True, kw_only=True)
class GuidePage:
    """All that the page shows, in the order of reading.

    Attributes:
        headline: figures and what they are.
        cards: the pictures.
        facts: names and values.
        tokenizer: its losses.
        columns: headings of the tables.
        table, judged: a row for each picture: its prompt, and its similarity to every prompt, by
            the CLIP that guided and by the other one.
        animation: of the first picture.
    """
    headline: list[tuple[str, str]]
    cards: list[GuidedCard]
    facts: list[tuple[str, str]]
    tokenizer: Markup
    columns: list[str]
    table: list[tuple[str, list[Cell]]]
    judged: list[tuple[str, list[Cell]]]
    animation: Picture
    stages: list[Stage]
    machine: str
