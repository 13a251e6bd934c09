"""The report of an evaluation: a table, ``evaluation.json`` and ``examples.png``.

Letters: N images, h and w sides of the crop in pixels.
"""
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from tokenizer import configs, storage
from tokenizer.corpus.modalities import Modality
from tokenizer.evaluation.figures import Figure, table_lines
from tokenizer.pictures import enlarge, save_png
from tokenizer.schema import CodeSpec

FORMAT, FORMAT_VERSION = "img2tokens.evaluation", 1
RESULTS, PICTURES = "evaluation.json", "examples.png"
CAPTION_HEIGHT, PADDING, LEAST_SIDE = 14, 4, 128
"""Pixels: height of a caption, space between pictures, side up to which pictures are enlarged."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """One image that is shown: its rank (``best``, ``median``, ``worst``), key and first score."""
    rank: str
    key: str
    score: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """What an evaluation found.

    Attributes:
        tokenizer: where the tokenizer lies, and ``corpus`` the images.
        spec: what the tokenizer's codes mean, with its fingerprint.
        selection: which images of the corpus were measured, in words.
        num_found: inputs of the corpus.
        unreadable: images left out, by where they lie, with what is wrong.
        figures: every figure by name.
        left_out: figures that could not be taken, by name, with the reason.
        examples: images that are shown, best first.
    """
    tokenizer: str
    corpus: str
    spec: CodeSpec
    selection: str
    num_found: int
    unreadable: dict[str, str]
    figures: dict[str, Figure]
    left_out: dict[str, str]
    examples: list[Example]

    @property
    def num_images(self) -> int:
        """Images that were measured."""
        return int(next(iter(self.figures.values())).conditions["num_images"])

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; equal evaluations, equal values."""
        return {
            "format": FORMAT, "format_version": FORMAT_VERSION,
            "tokenizer": {"path": self.tokenizer, **configs.to_dict(self.spec)},
            "corpus": {"path": self.corpus, "selection": self.selection,
                       "num_found": self.num_found, "num_measured": self.num_images,
                       "num_unreadable": len(self.unreadable), "unreadable": self.unreadable},
            "figures": {name: configs.to_dict(figure) for name, figure in self.figures.items()},
            "left_out": self.left_out,
            "examples": [configs.to_dict(example) for example in self.examples]}

    def table(self) -> str:
        """The figures for people, with what they hang on."""
        height, width = self.spec.image_size
        first = next(iter(self.figures.values())).conditions
        lines = [f"tokenizer  {self.tokenizer}: {self.spec.modality}, {height} x {width} px, "
                 f"{self.spec.codebook_size} codes, {self.spec.tokenizer[:19]}",
                 f"images     {self.num_images} of {self.num_found} in {self.corpus} "
                 f"({self.selection}), {len(self.unreadable)} unreadable, "
                 f"{first['reference'][:19]}",
                 f"pixels     {first['range']}; {first['rounding']}; {first['precision']}", ""]
        lines += table_lines(self.figures, self.left_out)
        return "\n".join(lines)


def save_report(out: str, report: Report, modality: Modality, originals: np.ndarray,
                found: np.ndarray) -> None:
    """Write ``evaluation.json`` and ``examples.png``.

    Args:
        out: folder, a path or fsspec URL.
        originals: pixels ``(N, h, w[, 3])`` of the report's examples, in their order.
        found: their reconstructions.
    """
    text = json.dumps(report.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
    storage.write_bytes(storage.join(out, RESULTS), f"{text}\n".encode())
    label = next(iter(report.figures.values())).label
    sheet = example_sheet(report.examples, label, modality.show(originals), modality.show(found))
    save_png(storage.join(out, PICTURES), sheet)


def example_sheet(examples: list[Example], label: str, originals: np.ndarray,
                  found: np.ndarray) -> np.ndarray:
    """Originals above their reconstructions, a row of pairs for each rank, with captions.

    Args:
        label: name of the score.
        originals: pictures ``(N, h, w, 3)`` uint8 of the examples.
        found: likewise.
    Returns:
        ``(height, width, 3)`` uint8.
    """
    factor = max(1, LEAST_SIDE // min(originals.shape[1:3]))
    originals, found = enlarge(originals, factor), enlarge(found, factor)
    ranks = list(dict.fromkeys(example.rank for example in examples))
    columns = max(sum(example.rank == rank for example in examples) for rank in ranks)
    height, width = originals.shape[1:3]
    across, down = width + PADDING, 2 * (height + PADDING) + CAPTION_HEIGHT
    sheet = Image.new("RGB", (columns * across + PADDING, len(ranks) * down + PADDING), "white")
    draw = ImageDraw.Draw(sheet)
    placed = dict.fromkeys(ranks, 0)
    for example, original, reconstruction in zip(examples, originals, found, strict=True):
        left = PADDING + placed[example.rank] * across
        top = PADDING + ranks.index(example.rank) * down
        placed[example.rank] += 1
        draw.text((left, top), f"{example.rank}   {label}  {example.score:.4g}", fill="black")
        sheet.paste(Image.fromarray(original), (left, top + CAPTION_HEIGHT))
        sheet.paste(Image.fromarray(reconstruction),
                    (left, top + CAPTION_HEIGHT + height + PADDING))
    return np.asarray(sheet)
