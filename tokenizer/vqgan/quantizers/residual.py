"""A quantizer with several codes a cell, each of what the ones before it left over.

Letters: B images, C channels of a latent, D codes a cell, H and W the latent grid, K codebook size.
"""
import dataclasses

import torch
from torch import Tensor, nn

from tokenizer.vqgan.quantizers.base import (
    MovedRows,
    Quantizer,
    QuantizerConfig,
    QuantizerOutput,
    in_float32,
    rotate_to,
    straight_through,
)
from tokenizer.vqgan.quantizers.codebook import ClassicQuantizer


class ResidualQuantizer(Quantizer, kind="residual"):
    """D classic quantizers in a row, each with its own codebook; the latent is the sum of entries.

    The first d codes of a cell alone give the best approximation that d steps find.

    Attributes:
        steps: the D quantizers.

    Source: Lee et al. 2022, arXiv:2203.01941, section 3.1, with a codebook for each step.
    """
    training_notes = ClassicQuantizer.training_notes

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__(config)
        step = dataclasses.replace(config, kind="classic", depth=1)
        self.steps = nn.ModuleList(ClassicQuantizer(step) for _ in range(config.depth))

    @classmethod
    def check(cls, config: QuantizerConfig) -> None:
        if config.depth < 2:
            raise ValueError(f"residual needs a depth of at least 2, got {config.depth}; with one "
                             "code a cell it would be classic")

    @in_float32
    def forward(self, latents: Tensor) -> QuantizerOutput:
        points = latents.permute(0, 2, 3, 1)
        rest, total = points, torch.zeros_like(points)
        codes, losses = [], dict[str, Tensor]()
        for step in self._steps():
            entries, chosen = step.look_up(rest)
            codes.append(chosen)
            for name, loss in step.losses(rest, entries).items():
                losses[name] = losses.get(name, loss.new_zeros(())) + loss / len(self.steps)
            rest, total = rest - entries.detach(), total + entries.detach()
        carry = rotate_to if self.config.rotation else straight_through
        return QuantizerOutput(latents=carry(points, total).permute(0, 3, 1, 2),
                               codes=torch.stack(codes, 1), losses=losses)

    @in_float32
    def encode(self, latents: Tensor) -> Tensor:
        rest, codes = latents, []
        for step in self._steps():
            codes.append(step.encode(rest))
            rest = rest - step.codes_to_latents(codes[-1])
        return torch.stack(codes, 1)

    @in_float32
    def encode_with_distances(self, latents: Tensor) -> tuple[Tensor, Tensor | None]:
        rest, codes, distances = latents, [], list[Tensor]()
        for step in self._steps():
            chosen, found = step.encode_with_distances(rest)
            codes.append(chosen)
            distances += [] if found is None else [found]
            rest = rest - step.codes_to_latents(chosen)
        return torch.stack(codes, 1), torch.stack(distances, 2)

    def codes_to_latents(self, codes: Tensor) -> Tensor:
        latents = [step.codes_to_latents(chosen)
                   for step, chosen in zip(self._steps(), codes.unbind(1), strict=True)]
        return torch.stack(latents).sum(0)

    def revive(self) -> MovedRows:
        return {f"steps.{index}.{name}": rows for index, step in enumerate(self._steps())
                for name, rows in step.revive().items()}

    def assume_trained(self) -> None:
        for step in self._steps():
            step.assume_trained()

    def discard(self) -> None:
        for step in self._steps():
            step.discard()

    def _steps(self) -> list[ClassicQuantizer]:
        return [step for step in self.steps if isinstance(step, ClassicQuantizer)]
