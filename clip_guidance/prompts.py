"""Prompts: texts and pictures that images should, or should not, come close to.

A story is prompts that follow one another: each has the steps at which it acts.

Letters: N cutouts of an image, P prompts, E numbers of an embedding.
"""
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tokenizer.corpus.modalities import MODALITIES

SEPARATOR = "|"
"""Between several prompts in one text."""

THEN = " > "
"""Between the chapters of a story, where it is shown in one line."""

PICTURE = "@"
"""Before the name of an image file that is a prompt."""

HIGHEST_SINE = 1 - 1e-6
"""Of half the angle between two embeddings; at 1 the gradient of the distance is infinite."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A text or a picture, how much it counts, and when.

    Attributes:
        text: what CLIP compares the image with; an image file's name behind an ``@``.
        weight: of its distance in the loss; below 0 the image moves away from the text.
        stop: a distance, with the sign of the weight, below which a cutout is close enough and
            pulls no more; see `spherical_distances` for the unit.
        begin, end: steps from which on and before which it acts; no end acts to the last.
    """
    text: str
    weight: float = 1.0
    stop: float = -math.inf
    begin: int = 0
    end: int | None = None

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise ValueError(f"a prompt needs words, got {self.text!r}")
        if self.file is not None and not self.file.lower().endswith(MODALITIES["image"].suffixes):
            raise ValueError(f"behind @ a prompt names an image file, as in '@photo.jpg:0.5', got "
                             f"{self.text!r}")
        if not math.isfinite(self.weight) or not self.weight:
            raise ValueError(f"the weight of a prompt is a number other than 0, got {self.weight} "
                             f"for {self.text!r}")
        if math.isnan(self.stop) or self.stop == math.inf:
            raise ValueError(f"the stop of a prompt is a number, got {self.stop} for {self.text!r}")
        if self.begin < 0 or (self.end is not None and self.end <= self.begin):
            raise ValueError(f"a prompt acts from a step, at least 0, to a later one, got "
                             f"{self.begin} to {self.end} for {self.text!r}")

    @property
    def file(self) -> str | None:
        """The image file that it is, if it is one."""
        return self.text[len(PICTURE):] if self.text.startswith(PICTURE) else None

    def acts_at(self, step: int) -> bool:
        """Whether it counts at a step."""
        return self.begin <= step and (self.end is None or step < self.end)

    def describe(self) -> str:
        """The prompt as `parse_prompts` takes it."""
        if ":" in self.text or self.stop != -math.inf:
            return f"{self.text}:{_exact(self.weight)}:{_exact(self.stop)}"
        return self.text if self.weight == 1 else f"{self.text}:{_exact(self.weight)}"


def parse_prompts(text: str) -> tuple[Prompt, ...]:
    """Prompts, each ``text[:weight[:stop]]`` or ``@file[:weight[:stop]]``, separated by ``|``.

    Raises:
        ValueError: a prompt is empty, or its weight or stop is no such number.
    """
    return tuple(_parse(part.strip()) for part in text.split(SEPARATOR))


def tell_story(chapters: Sequence[str], num_steps: int, every: int | None = None
               ) -> tuple[Prompt, ...]:
    """The prompts of a story: those of each chapter act in its part of the steps.

    Args:
        chapters: at least one, each as `parse_prompts` takes it.
        num_steps: of the optimiser.
        every: steps of a chapter before the next; an equal part of all without. The last stays.
    Raises:
        ValueError: a prompt is none, or a chapter would begin after the last step.
    """
    each = every or max(1, num_steps // len(chapters))
    if each * (len(chapters) - 1) >= num_steps:
        raise ValueError(f"{len(chapters)} prompts, one every {each} steps, take more than the "
                         f"{num_steps} steps there are: raise these, or change prompts more often")
    last = len(chapters) - 1
    return tuple(dataclasses.replace(prompt, begin=index * each,
                                     end=None if index == last else (index + 1) * each)
                 for index, chapter in enumerate(chapters) for prompt in parse_prompts(chapter))


def check_course(prompts: Sequence[Prompt], num_steps: int) -> None:
    """Refuse prompts that never act, and steps at which none does."""
    for prompt in prompts:
        if prompt.begin >= num_steps:
            raise ValueError(f"a prompt would begin at step {prompt.begin} of {num_steps}: raise "
                             f"the steps, or let {prompt.text!r} begin earlier")
    for step, text in chapters_of(prompts).items():
        if not text:
            raise ValueError("guidance needs at least one prompt at every step; none acts at step "
                             f"{step}")


def chapters_of(prompts: Sequence[Prompt]) -> dict[int, str]:
    """What acts from which step on, as `parse_prompts` takes it; one entry where nothing changes.
    """
    changes = {0} | {step for prompt in prompts for step in (prompt.begin, prompt.end or 0)}
    return {step: f" {SEPARATOR} ".join(prompt.describe() for prompt in prompts
                                        if prompt.acts_at(step)) for step in sorted(changes)}


def _exact(number: float) -> str:
    """A number in as few digits as it needs, since requests of jobs are compared by them."""
    short = f"{number:g}"
    return short if float(short) == number else repr(number)


def _parse(part: str) -> Prompt:
    text, *numbers = (_split_file(part) if part.startswith(PICTURE) else part.rsplit(":", 2))
    try:
        values = [float(number) for number in numbers]
    except ValueError:
        raise ValueError(
            f"a prompt reads text:weight:stop, as in 'fog:-0.5', and weight and stop are numbers, "
            f"got {part!r}; behind words with a colon write both, as in 'a sign: stop:1:-inf'"
            ) from None
    weight, stop = values + [1.0, -math.inf][len(values):]
    return Prompt(text=text.strip(), weight=weight, stop=stop)


def _split_file(part: str) -> list[str]:
    """``@file``, weight and stop; the name of the file may hold colons."""
    text, numbers = part, list[str]()
    while len(numbers) < 2 and not text.lower().endswith(MODALITIES["image"].suffixes):
        text, separator, number = text.rpartition(":")
        if not separator:
            return [part]
        numbers.insert(0, number)
    return [text, *numbers]


def spherical_distances(embeddings: Tensor, target: Tensor) -> Tensor:
    """Half the square of the angle between embeddings and a target, in square radians.

    Args:
        embeddings: ``(N, E)`` float32, of any length.
        target: ``(E,)`` likewise.
    Returns:
        ``(N,)`` in [0, pi^2 / 2]; 1.23 at right angles.

    Source: published VQGAN-CLIP, ``2 arcsin(d / 2)^2`` of the chord d.
    """
    chords = (F.normalize(embeddings, dim=-1) - F.normalize(target, dim=-1)).norm(dim=-1)
    return 2 * (chords / 2).clamp(max=HIGHEST_SINE).arcsin().square()


def prompt_losses(embeddings: Tensor, targets: Tensor, prompts: tuple[Prompt, ...]) -> Tensor:
    """What each prompt adds to the loss of each cutout, ``(N, P)``.

    The values are weighted distances; the gradient is 0 where a stop is reached.

    Args:
        embeddings: ``(N, E)`` float32 of the cutouts.
        targets: ``(P, E)`` likewise, of the P prompts.
    """
    columns = []
    for prompt, target in zip(prompts, targets, strict=True):
        signed = spherical_distances(embeddings, target) * math.copysign(1, prompt.weight)
        pulling = torch.where(signed > prompt.stop, signed, signed.detach())
        columns.append(abs(prompt.weight) * pulling)
    return torch.stack(columns, 1)


def similarities(embeddings: Tensor, targets: Tensor) -> Tensor:
    """Cosines ``(N, P)`` of the angles between embeddings ``(N, E)`` and targets ``(P, E)``."""
    return F.normalize(embeddings, dim=-1) @ F.normalize(targets, dim=-1).T
