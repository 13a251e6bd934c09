"""Pictures that a CLIP leads to while it learns, so that it can tell them from real ones.

For each caption there is one picture, which starts from codes drawn at random and is moved now and
then as guidance moves its own. What the CLIP finds close to a caption and is no picture shows up
here, and is what it has to learn next.

Source: persistent chains as negatives of an energy-based model, Du and Mordatch 2019,
arXiv:1903.08689; here in the latents of a tokenizer.

Letters: U captions, n of them at a step; C channels of a latent, h and w its grid; H and W of a
picture in pixels.
"""
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from cli.demo.render import Array

if TYPE_CHECKING:
    from torch import Tensor

    from tokenizer.vqgan.model import VQGAN

STEP, FORGOTTEN = 0.15, 0.03
"""Mean move of a latent at a step, in standard deviations of the codebook's channels; chance of a
picture to start anew.
"""


class Dreams:
    """One picture for each of ``num`` captions, as latents.

    Attributes:
        points: ``(U, C, h, w)`` float32, in units of the standard deviations of the channels.
    """

    def __init__(self, model: "VQGAN", num: int, rng: np.random.Generator) -> None:
        from clip_guidance.latents import LatentSpace
        self._model, self._rng = model, rng
        self._space = LatentSpace(model.quantize)
        self._scale = self._space.scale[:, None, None]
        self._modality = model.config.build_modality()
        self.points = self._noise(num)

    def move(self, numbers: Array, judge: "Callable[[Tensor], Tensor]") -> "Tensor":
        """Move the pictures of some captions a step.

        Args:
            numbers: n of them, none twice.
            judge: from pictures ``(n, 3, H, W)``, black 0 and white 1, to how close each is to its
                caption, ``(n,)``.
        Returns:
            The pictures ``(n, 3, H, W)`` as they were before the step.
        """
        import torch
        forgotten = numbers[self._rng.random(len(numbers)) < FORGOTTEN]
        self.points[forgotten] = self._noise(len(forgotten))
        points = self.points[numbers].requires_grad_()
        images = self._decode(points)
        gradient, = torch.autograd.grad(judge(images).sum(), points)
        lengths = gradient.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-12)
        moved = (points.detach() + STEP * gradient / lengths) * self._scale
        self._space.clamp_(moved)
        self.points[numbers] = moved / self._scale
        return images.detach()

    def _noise(self, num: int) -> "Tensor":
        """Points of codes that are drawn at random."""
        import torch

        from clip_guidance.optimise import noise_codes
        seeds = self._rng.integers(1 << 31, size=(num, 2))
        grid = self._model.config.grid
        codes = [noise_codes(self._model, grid, (int(run), int(image))) for run, image in seeds]
        if not codes:
            return torch.empty(0, *self.points.shape[1:])
        latents = self._space.latents(torch.from_numpy(np.concatenate(codes)))
        return (latents / self._scale).detach()

    def _decode(self, points: "Tensor") -> "Tensor":
        """Pictures of the codes nearest to points, with gradients as guidance passes them."""
        from clip_guidance.optimise import clamp_to_levels
        from tokenizer.vqgan.quantizers.base import straight_through
        latents = points * self._scale
        nearest = self._space.latents(self._space.codes(latents.detach()))
        outputs = self._model.decoder(self._model.post_quant_conv(
            straight_through(latents, nearest)))
        return clamp_to_levels((self._modality.centred(outputs) + 1) / 2)
