"""The steps of one image: decode the nearest codes, let CLIP judge, move the latents.

    latents --nearest codes--> decoder --> image --> cutouts --> CLIP --> distances to the prompts
       ^                                                                        |
       +------------- Adam, then back into the range of the codebook -----------+

A prior may add how unlikely it finds the codes, see `clip_guidance.likelihood`.

Cutouts pass through CLIP in chunks, whose gradients add up at the image: memory is that of one
chunk, however many cutouts there are. What is drawn at a step depends on the seed and the step
alone, so a stopped image goes on as it would have gone.

Letters: C channels of a latent, D codes a cell, h and w the code grid, H and W of the image and S
of a cutout in pixels, N cutouts, P prompts, E numbers of an embedding.
"""
import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from clip_guidance.cutouts import CutoutConfig, cut, draw_cutout
from clip_guidance.latents import LatentSpace
from clip_guidance.likelihood import GuidingPrior
from clip_guidance.memory import (
    Arrangement,
    StepBytes,
    checkpointed,
    measure_decoder,
    peak_bytes,
)
from clip_guidance.prompts import Prompt, prompt_losses, similarities
from tokenizer.vqgan.model import VQGAN
from tokenizer.vqgan.quantizers.base import straight_through


class Judge(Protocol):
    """What compares images with texts, such as `clip_guidance.clip.Clip`."""

    @property
    def side(self) -> int:
        """S."""

    def embed_images(self, images: Tensor) -> Tensor:
        """Embeddings ``(N, E)`` of images ``(N, 3, S, S)``, black 0 and white 1, with graph."""


@dataclass(frozen=True, kw_only=True)
class OptimiseConfig:
    """How one image is made.

    Attributes:
        num_steps: of the optimiser.
        learning_rate: of Adam, in standard deviations of the codebook's channels.
        cutouts: of each step.
    """
    num_steps: int = 500
    learning_rate: float = 0.1
    cutouts: CutoutConfig = field(default_factory=CutoutConfig)

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {self.num_steps}")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be more than 0, got {self.learning_rate}")


@dataclass(frozen=True, kw_only=True)
class Record:
    """How an image stood.

    Attributes:
        step: steps taken before.
        loss: mean over the cutouts, summed over the prompts that act; and the prior's term.
        similarities: mean cosine to each prompt over the cutouts.
        leading: number of the first prompt that acts.
        bits: that the prior needs for a code, where there is one; weighted it is part of the loss.
    """
    step: int
    loss: float
    similarities: tuple[float, ...]
    leading: int = 0
    bits: float | None = None

    @property
    def similarity(self) -> float:
        """To the first prompt that acts."""
        return self.similarities[self.leading]


class Guided:
    """One image on its way.

    Attributes:
        records: of all steps so far; one more than there are steps once all are taken.
        arrangement: of the next step.
    """

    def __init__(self, model: VQGAN, judge: Judge, prompts: Sequence[Prompt], targets: Tensor,
                 codes: Tensor, config: OptimiseConfig, seed: tuple[int, int],
                 free: Tensor | None = None, cutout_batch: int | None = None,
                 prior: GuidingPrior | None = None) -> None:
        """
        Args:
            model: of images, on one device with the tensors here; it is left as it is.
            targets: ``(P, E)`` embeddings of the prompts.
            codes: ``(1[, D], h, w)`` int64 to start from.
            seed: of the run, and the number of the image.
            free: bool ``(h, w)``, cells that may change; the others keep their codes.
            cutout_batch: cutouts that pass through CLIP at once; it decides memory, and the result
                up to rounding alone.
            prior: whose likelihood is part of the loss.
        """
        self.model, self.judge, self.config = model, judge, config
        self.prompts, self.targets = tuple(prompts), targets
        self.records: list[Record] = []
        self._space = LatentSpace(model.quantize)
        self._modality = model.config.build_modality()
        self._seed, self._kept = seed, codes
        self._free, self._prior = free, prior if prior and prior.weight else None
        self.arrangement = Arrangement(cutout_batch=cutout_batch or config.cutouts.num)
        self._scale = self._space.scale[:, None, None]
        self._points = (self._space.latents(codes) / self._scale).detach().requires_grad_()
        self._adam = torch.optim.Adam([self._points], lr=config.learning_rate)

    @property
    def is_done(self) -> bool:
        """Whether all steps are taken and the last image is judged."""
        return len(self.records) > self.config.num_steps

    @property
    def codes(self) -> Tensor:
        """The image as it stands: codes ``(1[, D], h, w)`` int64."""
        with torch.no_grad():
            nearest = self._space.codes(self._points * self._scale)
        return nearest if self._free is None else torch.where(self._free, nearest, self._kept)

    def advance(self) -> Record:
        """Judge the image as it stands, and take a step unless all are taken.

        Raises:
            ValueError: the loss is not finite; there is no way on from there.
        """
        moves = len(self.records) < self.config.num_steps
        with torch.set_grad_enabled(moves):
            image = self._decode()
        record, gradient = self._judge(image.detach(), moves)
        push = torch.zeros_like(self._points)
        if self._prior is not None:
            record, push = self._add_prior(self._prior, record)
        if not math.isfinite(record.loss):
            raise ValueError(f"the loss is {record.loss} after {record.step} steps: the weights of "
                             "tokenizer, CLIP or prior are damaged or not meant for float32, or "
                             "that of a prompt is too large")
        if moves:
            self._points.grad, = torch.autograd.grad(image, self._points, gradient)
            self._points.grad += push
            self._move()
        self.records.append(record)
        return record

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on, as `load_state_dict` takes it."""
        return {"points": self._points.detach(), "adam": self._adam.state_dict(),
                "records": [(record.step, record.loss, list(record.similarities), record.bits)
                            for record in self.records]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was called."""
        with torch.no_grad():
            self._points.copy_(state["points"])
        self._adam.load_state_dict(state["adam"])
        self.records = [Record(step=step, loss=loss, similarities=tuple(values),
                               leading=self._acting(step)[0], bits=bits)
                        for step, loss, values, bits in state["records"]]

    @torch.no_grad()
    def _add_prior(self, prior: GuidingPrior, record: Record) -> tuple[Record, Tensor]:
        """A record with the prior's term, and the gradient of this by the points."""
        codes = self.codes
        bits, gains = prior.judge(codes, self._seed[1])
        ascent = self._space.ascent(self._points * self._scale, codes, gains)
        return (dataclasses.replace(record, loss=record.loss + prior.weight * bits, bits=bits),
                -prior.weight * ascent * self._scale)

    @torch.no_grad()
    def _move(self) -> None:
        """Take a step, and bring the latents back into their range."""
        self._adam.step()
        latents = self._points * self._scale
        self._space.clamp_(latents)
        self._points.copy_(latents / self._scale)

    def _acting(self, step: int) -> list[int]:
        """Numbers of the prompts that act at a step."""
        return [number for number, prompt in enumerate(self.prompts) if prompt.acts_at(step)]

    def _decode(self) -> Tensor:
        """The image ``(1, 3, H, W)`` of the nearest codes, black 0 and white 1."""
        latents = straight_through(self._points * self._scale, self._space.latents(self.codes))
        with checkpointed(self.model.decoder, self.arrangement.checkpoints):
            outputs = self.model.decoder(self.model.post_quant_conv(latents))
        return clamp_to_levels((self._modality.centred(outputs) + 1) / 2)

    def _judge(self, image: Tensor, moves: bool) -> tuple[Record, Tensor]:
        """The record of an image ``(1, 3, H, W)``, and its gradient, 0 unless it ``moves``."""
        num, step, at_once = (self.config.cutouts.num, len(self.records),
                              self.arrangement.cutout_batch)
        leaf, gradient = image.requires_grad_(moves), torch.zeros_like(image)
        loss, found = 0.0, torch.zeros(len(self.prompts), dtype=torch.float64)
        for first in range(0, num, at_once):
            losses, cosines = self._judge_chunk(leaf, range(first, min(first + at_once, num)))
            if moves:
                gradient += torch.autograd.grad(losses, leaf)[0]
            loss += float(losses.detach())
            found += cosines
        return Record(step=step, loss=loss, similarities=tuple(found.tolist()),
                      leading=self._acting(step)[0]), gradient

    def _judge_chunk(self, leaf: Tensor, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        """What cutouts add to the loss, with graph if the image has one, and to similarities."""
        num, step = self.config.cutouts.num, len(self.records)
        acting = self._acting(step)
        prompts = tuple(self.prompts[number] for number in acting)
        with torch.set_grad_enabled(leaf.requires_grad):
            embeddings = self.judge.embed_images(self._cutouts(leaf[0], step, numbers))
            losses = prompt_losses(embeddings, self.targets[acting], prompts).sum() / num
        cosines = similarities(embeddings.detach(), self.targets).double().sum(0).cpu() / num
        return losses, cosines

    def measure(self) -> StepBytes:
        """What a step takes beside the weights; two cutouts are judged for that, and no more."""
        config, grid = self.model.config, (self._points.shape[-2], self._points.shape[-1])
        plain, checkpointed = (
            measure_decoder(config.autoencoder, self._modality.out_channels, grid, checkpoints)
            for checkpoints in (False, True))
        side = config.autoencoder.downsampling
        image = torch.full((1, 3, grid[0] * side, grid[1] * side), 0.5, device=self._points.device)

        def judge(num: int) -> None:
            leaf = image.clone().requires_grad_()
            torch.autograd.grad(self._judge_chunk(leaf, range(num))[0], leaf)

        one, two = (peak_bytes(partial(judge, num)) for num in (1, 2))
        other = 0
        if self._prior is not None:
            record = Record(step=0, loss=0.0, similarities=())
            other = peak_bytes(partial(self._add_prior, self._prior, record))
        return StepBytes(plain=plain, checkpointed=checkpointed, first=one, each=two - one,
                         other=other)

    def _cutouts(self, image: Tensor, step: int, numbers: Sequence[int]) -> Tensor:
        """Cutouts ``(n, 3, S, S)`` of an image ``(3, H, W)``, those of these numbers at a step."""
        size = (image.shape[1], image.shape[2])
        drawn = [draw_cutout(self.config.cutouts, size, generator(self._seed, step + 1, number))
                 for number in numbers]
        return torch.stack([cut(image, cutout, self.judge.side) for cutout in drawn])


def guide(guided: Guided, each: Callable[[Guided], object] = lambda guided: None) -> Tensor:
    """Take all steps of one image.

    Args:
        each: called before the first step, and after each.
    Returns:
        Its codes ``(1[, D], h, w)`` int64.
    """
    each(guided)
    while not guided.is_done:
        guided.advance()
        each(guided)
    return guided.codes


def noise_codes(model: VQGAN, grid: tuple[int, int], seed: tuple[int, int]) -> np.ndarray:
    """Codes ``(1[, D], h, w)`` int64 on a grid, all equally likely."""
    quantizer = model.config.quantizer
    shape = grid if quantizer.depth == 1 else (quantizer.depth, *grid)
    return generator(seed, 0, 0).integers(0, quantizer.codebook_size, (1, *shape))


def generator(seed: tuple[int, int], step: int, number: int) -> np.random.Generator:
    """The random generator of one cutout of a step; step 0 is that of the start."""
    return np.random.default_rng((*seed, step, number))


def clamp_to_levels(image: Tensor) -> Tensor:
    """An image clamped to [0, 1]; gradients that lead back inside pass."""
    clamped: Tensor = _ClampToLevels.apply(image)
    return clamped


class _ClampToLevels(torch.autograd.Function):
    """See `clamp_to_levels`: where a level is beyond an end, only a step towards it is let through.
    """

    @staticmethod
    def forward(context: Any, image: Tensor) -> Tensor:
        context.save_for_backward(image)
        return image.clamp(0, 1)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        image, = context.saved_tensors
        return gradient * (gradient * (image - image.clamp(0, 1)) >= 0)
