"""The course of an image: loss and similarity by step, as JSON lines and as a picture."""
import json
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from clip_guidance.optimise import Record
from clip_guidance.prompts import Prompt, chapters_of

WIDTH, HEIGHT, MARGIN, GAP = 640, 200, 48, 16
"""Of one panel, its margins, and the space between names, in pixels."""
INK, FRAME = (40, 40, 40), (190, 190, 190)
COLOURS = ((31, 90, 160), (200, 90, 30), (60, 140, 60), (140, 60, 150), (120, 100, 40))
"""Of lines, in turn."""


def json_lines(records: Sequence[Record]) -> bytes:
    """A line for each record: step, loss, similarities, and the prior's bits if there is one.

    The one similarity is that to the first prompt that acts, whose number is ``prompt``.
    """
    lines = [json.dumps({"step": record.step, "loss": round(record.loss, 6),
                         "similarity": round(record.similarity, 6), "prompt": record.leading,
                         "similarities": [round(value, 6) for value in record.similarities],
                         **({} if record.bits is None else {"bits": round(record.bits, 6)})})
             for record in records]
    return "".join(f"{line}\n" for line in lines).encode()


def draw_curves(records: Sequence[Record], prompts: Sequence[Prompt]) -> np.ndarray:
    """Loss above, similarities to the prompts below: a picture ``(H, W, 3)`` uint8.

    With a prior its bits for a code stand at the bottom. Where prompts of a story change, there
    are lines across.
    """
    steps = [record.step for record in records]
    losses = {"loss": [record.loss for record in records]}
    cosines = {prompt.text: [record.similarities[index] for record in records]
               for index, prompt in enumerate(prompts)}
    changes = [step for step in chapters_of(prompts) if step]
    panels = [panel("", steps, losses, marks=changes),
              panel("similarity to ", steps, cosines, marks=changes)]
    bits = [record.bits for record in records if record.bits is not None]
    if bits:
        panels.append(panel("", steps, {"bits for a code": bits}, marks=changes))
    return np.concatenate(panels)


def panel(title: str, steps: Sequence[float], lines: Mapping[str, Sequence[float]],
          unit: str = "step", marks: Sequence[float] = ()) -> np.ndarray:
    """One frame with lines over steps, or whatever the unit is, their names above behind a title.

    Args:
        lines: as many values as steps, by name.
        marks: steps with a line across the frame.
    Returns:
        A picture ``(H, W, 3)`` uint8.
    """
    picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(picture)
    values = np.array(list(lines.values()))
    low, high = float(values.min()), float(values.max())
    _frame(draw, (low, high), (f"{unit} {steps[0]:g}", f"{unit} {steps[-1]:g}"))
    ends = (steps[0], max(steps[-1], steps[0] + 1))
    across = np.interp(steps, ends, (MARGIN, WIDTH - MARGIN // 2))
    for mark in np.interp(marks, ends, (MARGIN, WIDTH - MARGIN // 2)).tolist():
        draw.line((mark, MARGIN // 2, mark, HEIGHT - MARGIN // 2), fill=FRAME)
    draw.text((MARGIN, 6), title, fill=INK)
    left = MARGIN + int(draw.textlength(title))
    room = (WIDTH - left) // len(lines) - GAP
    for index, (name, line) in enumerate(lines.items()):
        colour = COLOURS[index % len(COLOURS)]
        down = np.interp(line, (low, max(high, low + 1e-9)),
                         (HEIGHT - MARGIN // 2 - 2, MARGIN // 2 + 2))
        draw.line(list(zip(across.tolist(), down.tolist(), strict=True)), fill=colour, width=2)
        shown = _shortened(draw, name.encode("ascii", "replace").decode(), room)
        draw.text((left, 6), shown, fill=colour)
        left += int(draw.textlength(shown)) + GAP
    return np.asarray(picture)


def _shortened(draw: ImageDraw.ImageDraw, name: str, room: int) -> str:
    """As much of a name, of letters that every font of Pillow has, as takes ``room`` pixels."""
    if draw.textlength(name) <= room:
        return name
    ends = (end for end in range(len(name), 0, -1) if draw.textlength(f"{name[:end]}..") <= room)
    return f"{name[:next(ends, 0)]}.."


def _frame(draw: ImageDraw.ImageDraw, values: tuple[float, float], ends: tuple[str, str]) -> None:
    """Draw a frame, its lowest and highest value, and what stands at its left and right end."""
    draw.rectangle((MARGIN, MARGIN // 2, WIDTH - MARGIN // 2, HEIGHT - MARGIN // 2), outline=FRAME)
    draw.text((4, MARGIN // 2), f"{values[1]:.3g}", fill=INK)
    draw.text((4, HEIGHT - MARGIN // 2 - 12), f"{values[0]:.3g}", fill=INK)
    draw.text((MARGIN, HEIGHT - 18), ends[0], fill=INK)
    right = WIDTH - MARGIN // 2 - int(draw.textlength(ends[1]))
    draw.text((right, HEIGHT - 18), ends[1], fill=INK)
