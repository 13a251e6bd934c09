"""Prompts: texts that images should, or should not, come close to.

Letters: N cutouts of an image, E numbers of an embedding.
"""
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SEPARATOR = "|"
"""Between several prompts in one text."""

HIGHEST_SINE = 1 - 1e-6
"""Of half the angle between two embeddings; at 1 the gradient of the distance is infinite."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A text, and how much it counts.

    Attributes:
        text: what CLIP compares the image with.
        weight: of its distance in the loss; below 0 the image moves away from the text.
        stop: a distance, with the sign of the weight, below which a cutout is close enough and
            pulls no more; see `spherical_distances` for the unit.
    """
    text: str
    weight: float = 1.0
    stop: float = -math.inf

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise ValueError(f"a prompt needs words, got {self.text!r}")
        if not math.isfinite(self.weight) or not self.weight:
            raise ValueError(f"the weight of a prompt is a number other than 0, got {self.weight} "
                             f"for {self.text!r}")
        if math.isnan(self.stop) or self.stop == math.inf:
            raise ValueError(f"the stop of a prompt is a number, got {self.stop} for {self.text!r}")

    def describe(self) -> str:
        """The prompt as `parse_prompts` takes it."""
        if ":" in self.text or self.stop != -math.inf:
            return f"{self.text}:{self.weight:g}:{self.stop:g}"
        return self.text if self.weight == 1 else f"{self.text}:{self.weight:g}"


def parse_prompts(text: str) -> tuple[Prompt, ...]:
    """Prompts of the form ``text[:weight[:stop]]``, separated by ``|``.

    Raises:
        ValueError: a prompt is empty, or its weight or stop is no such number.
    """
    return tuple(_parse(part.strip()) for part in text.split(SEPARATOR))


def _parse(part: str) -> Prompt:
    text, *numbers = part.rsplit(":", 2)
    try:
        values = [float(number) for number in numbers]
    except ValueError:
        raise ValueError(
            f"a prompt reads text:weight:stop, as in 'fog:-0.5', and weight and stop are numbers, "
            f"got {part!r}; behind words with a colon write both, as in 'a sign: stop:1:-inf'"
            ) from None
    return Prompt(text=text.strip(), **dict(zip(("weight", "stop"), values, strict=False)))


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
