"""What the page of ``img2tokens demo --guide`` shows, gathered from the files of a finished one.

A picture is what its stored codes decode to, and it is compared with all prompts as a whole: not by
the cutouts that it was made by.

Letters: N pictures, and as many prompts; F frames of a picture; H and W its sides.
"""
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from cli.demo.charts import Series, line_chart
from cli.demo.clip import RETRIEVAL, Retrieval, compare
from cli.demo.exhibits import loss_chart, machine
from cli.demo.guide_page import Cell, GuidedCard, GuidePage
from cli.demo.page import Picture, Stage, data_uri, duration, picture
from cli.demo.render import Array
from tokenizer import configs
from tokenizer.pictures import enlarge, save_png, tile
from tokenizer.schema import codes_array
from tokenizer.tokens import TokenCorpus

if TYPE_CHECKING:
    from clip_guidance.clip import Clip
    from tokenizer.codec import Codec

KEY = "guided-00000"
"""Of the one row of each token corpus."""
PARTS = 5
"""Of its steps, between which the similarity of a picture should rise."""
SHOWN, COURSES, FACTOR = 6, 4, 2
"""Frames shown of each picture; pictures in course.png; its pixels a pixel."""


@dataclass(frozen=True, eq=False)
class GuidedImage:
    """One finished picture.

    Attributes:
        prompt: the text that steered it.
        pixels: ``(H, W, 3)`` uint8, as its stored codes decode.
        losses, similarities: at each step, over the cutouts.
        frames: pictures by step, likewise.
        animation: a GIF of them.
    """
    prompt: str
    pixels: Array
    losses: list[float]
    similarities: list[float]
    frames: dict[int, Array]
    animation: bytes

    @classmethod
    def read(cls, folder: Path, codec: "Codec") -> "GuidedImage":
        """The picture in a folder that ``img2tokens guide`` made."""
        table = next(iter(TokenCorpus.open(str(folder)).tables()))
        codes = codes_array(codec.spec, table)
        lines = [json.loads(line) for line
                 in (folder / "curves" / f"{KEY}.jsonl").read_text().splitlines()]
        frames = {int(path.stem): np.asarray(Image.open(io.BytesIO(path.read_bytes())))
                  for path in sorted((folder / "frames" / KEY).glob("*.png"))}
        return cls(prompt=table["caption"][0].as_py(), pixels=codec.decode(codes)[0],
                   losses=[line["loss"] for line in lines],
                   similarities=[line["similarity"] for line in lines], frames=frames,
                   animation=(folder / "frames" / f"{KEY}.gif").read_bytes())


def gather_guided(out: Path, num: int, stages: Sequence[Stage]) -> GuidePage:
    """Everything on the page; the pictures that stand beside it are written."""
    from clip_guidance.clip import Clip
    from tokenizer.codec import Codec
    codec = Codec.load(str(out / "tokenizers" / "image"))
    images = [GuidedImage.read(out / "guided" / f"{number:02d}", codec) for number in range(num)]
    guide, judge = (Clip.load(str(out / name)) for name in ("clip", "judge"))
    prompts, pixels = [image.prompt for image in images], [image.pixels for image in images]
    table = compare(guide, np.stack(pixels), prompts)
    judged = compare(judge, np.stack(pixels), prompts)
    write_pictures(out, images)
    return GuidePage(
        headline=headline(out, images, table, judged, stages),
        cards=[card(guide, images, number, table) for number in range(num)],
        tokenizer=loss_chart(out / "tokenizers" / "image", "reconstruction", "loss",
                             "reconstruction loss of the tokenizer"),
        facts=facts(out, images, table, judged),
        columns=[str(number + 1) for number in range(num)], table=cells(prompts, table),
        judged=cells(prompts, judged),
        animation=Picture(data_uri(images[0].animation, "gif"), f"from noise to {prompts[0]}",
                          prompts[0]),
        stages=list(stages), machine=machine())


def num_closest(table: Array) -> int:
    """How many pictures are closer to their own prompt than to every other one.

    Args:
        table: ``(N, N)``, similarity of picture i to prompt j at i, j.
    """
    own = np.diag(table)
    others = np.where(np.eye(len(table), dtype=bool), -np.inf, table).max(1)
    return int((own > others).sum())


def num_rises(values: Sequence[float], parts: int = PARTS) -> int:
    """How often, of ``parts - 1`` times, the mean over a part of the steps is above the last."""
    means = [part.mean() for part in np.array_split(np.array(values), parts)]
    return int((np.diff(means) > 0).sum())


def read_retrieval(folder: Path) -> Retrieval:
    """What retrieval a CLIP showed after its training."""
    return configs.from_dict(Retrieval, json.loads((folder / RETRIEVAL).read_text()))


def headline(out: Path, images: Sequence[GuidedImage], table: Array, judged: Array,
             stages: Sequence[Stage]) -> list[tuple[str, str]]:
    """The figures under the pictures."""
    found, num = read_retrieval(out / "clip"), len(images)
    first, last = (np.mean([ends(image.similarities)[end] for image in images]) for end in (0, 1))
    return [(f"{num_closest(table)} of {num}", "pictures closest to their own prompt"),
            (f"{num_closest(judged)} of {num}", "as another CLIP sees it"),
            (f"{first:.2f} → {last:.2f}", "similarity, first and last tenth of the steps"),
            (f"{found.share:.0%}", f"of held-out scenes find their caption; chance "
                                   f"{found.chance:.0%}"),
            (duration(sum(stage.seconds for stage in stages)), "all in all")]


def ends(values: Sequence[float]) -> tuple[float, float]:
    """Means over the first and the last tenth of some values."""
    num = max(1, len(values) // 10)
    return float(np.mean(values[:num])), float(np.mean(values[-num:]))


def facts(out: Path, images: Sequence[GuidedImage], table: Array,
          judged: Array) -> list[tuple[str, str]]:
    """What was measured, in the order of the work."""
    guide, judge = read_retrieval(out / "clip"), read_retrieval(out / "judge")
    rises, num = sum(num_rises(image.similarities) for image in images), len(images)
    return [("held-out scenes", f"{guide.num}"),
            ("find their caption", f"{guide.share:.0%}; by the judge {judge.share:.0%}"),
            ("chance", f"{guide.chance:.1%}, as captions repeat"),
            ("steps of a picture", f"{len(images[0].losses) - 1}"),
            (f"rises from one to the next of {PARTS} parts of the steps",
             f"{rises} of {num * (PARTS - 1)}"),
            ("closest to their own prompt", f"{num_closest(table)} of {num}"),
            ("by the judge", f"{num_closest(judged)} of {num}"),
            ("by chance", "1")]


def card(guide: "Clip", images: Sequence[GuidedImage], number: int, table: Array) -> GuidedCard:
    """One picture: how it came to be, and its curves."""
    image, prompts = images[number], [image.prompt for image in images]
    steps = list(image.frames)
    whole = compare(guide, np.stack(list(image.frames.values())), prompts)
    others = np.delete(whole, number, 1).max(1)
    own, best = table[number, number], int(table[number].argmax())
    note = "closest to its own prompt" if best == number else f"closer to prompt {best + 1}"
    lines = [Series("cutouts", list(enumerate(image.similarities))),
             Series("whole picture", list(zip(steps, whole[:, number].tolist(), strict=True))),
             Series("nearest other", list(zip(steps, others.tolist(), strict=True)))]
    return GuidedCard(
        title=f"{number + 1} · {image.prompt}", figure=f"{own:.2f}", unit=note,
        picture=picture(image.pixels, image.prompt, image.prompt),
        frames=[picture(image.frames[step], f"{image.prompt} after {step} steps", f"step {step}")
                for step in spread(steps, SHOWN)],
        charts=[line_chart(lines, "step", "similarity"),
                line_chart([Series("", list(enumerate(image.losses)))], "step", "loss")])


def cells(prompts: Sequence[str], table: Array) -> list[tuple[str, list[Cell]]]:
    """The table for the page: for each picture its prompt, and a cell for each prompt."""
    low, high = float(table.min()), float(table.max())
    shares = (table - low) / max(high - low, 1e-9)
    return [(f"{row + 1} · {prompt}",
             [Cell(f"{table[row, column]:.2f}", float(shares[row, column]),
                   own=row == column, best=column == int(table[row].argmax()))
              for column in range(len(prompts))]) for row, prompt in enumerate(prompts)]


def write_pictures(out: Path, images: Sequence[GuidedImage]) -> None:
    """``guided.png``, the pictures in rows of five; ``course.png``, frames of some, a row each."""
    columns = min(5, len(images))
    pixels = np.stack([image.pixels for image in images])
    save_png(str(out / "guided.png"), tile(enlarge(pixels, FACTOR), columns))
    rows = [[image.frames[step] for step in spread(list(image.frames), SHOWN)]
            for image in (images[number] for number in spread(range(len(images)), COURSES))]
    save_png(str(out / "course.png"), tile(enlarge(np.concatenate(rows), FACTOR), len(rows[0])))


def spread(values: Sequence[int], most: int) -> list[int]:
    """At most ``most`` of some values, evenly spread, the first and the last among them."""
    places = np.linspace(0, len(values) - 1, min(most, len(values))).round().astype(int)
    return [values[place] for place in places]
