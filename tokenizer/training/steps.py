"""One optimiser step of a tokenizer: first the autoencoder, then the discriminator.

Losses of the autoencoder: reconstruction (the modality's own) + perceptual + those of the quantizer
+ adversarial, the last with the adaptive weight. Where a loss or the length of a gradient is not
finite, the step is skipped in all processes: no weight, average, moment or note changes. (Spectral
normalisation still refines its estimates of singular vectors, which follow from the weights alone.)

Letters: B images, h and w sides of the crop in pixels, C channels.
"""
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tokenizer.training.adversarial import generator_terms, train_discriminator
from tokenizer.training.optim import learning_rate, set_learning_rate
from tokenizer.training.perceptual import PerceptualDistance
from tokenizer.training.state import TrainingState
from tokenizer.training.updates import (
    add_part,
    apply_gradients,
    clip,
    gradients_kept_local,
    joined_figures,
    not_finite,
)
from tokenizer.vqgan.quantizers import QuantizerOutput


@dataclass(frozen=True)
class StepResult:
    """What one optimiser step returns.

    Attributes:
        figures: losses and norms of what was learned from, by name: means over parts and processes.
        outputs: model outputs ``(B, C, h, w)`` of the last part, without graph.
        pixels: the pixels ``(B, h, w[, 3])`` they should be.
        skipped: figures that were not finite, so that autoencoder, discriminator or both learned
            nothing; empty for a step as it should be.
    """
    figures: dict[str, float]
    outputs: Tensor
    pixels: Tensor
    skipped: dict[str, float] = field(default_factory=dict)


def train_step(state: TrainingState, pixels: Tensor, progress: float,
               perceptual: PerceptualDistance | None = None) -> StepResult:
    """Train on one batch; `TrainingState.step` is one more afterwards.

    Args:
        pixels: this process's share of the batch, ``(B, h, w[, 3])`` on its device.
        progress: share of the budget spent, in [0, 1]; it drives the learning rates.
        perceptual: the LPIPS term, when it is on.
    Raises:
        DivergedError: values were not finite in too many steps in a row.
    """
    state.seed_step()
    state.model.quantize.progress = progress
    parts = pixels.chunk(state.training.accumulation)
    figures, outputs, codes = _train_autoencoder(state, parts, progress, perceptual)
    skipped = not_finite(figures)
    if skipped:
        figures = {}
    else:
        _follow_up(state, figures, codes)
        config = state.training.adversarial
        if state.discriminator is not None and state.step >= config.first_step:
            found = train_discriminator(state, parts, outputs, progress)
            skipped = not_finite(found)
            figures |= {} if skipped else found
    state.skipped.count(skipped, state.step, state.training)
    state.step += 1
    return StepResult(figures=figures, outputs=outputs[-1], pixels=parts[-1], skipped=skipped)


def _train_autoencoder(state: TrainingState, parts: Sequence[Tensor], progress: float,
                       perceptual: PerceptualDistance | None
                       ) -> tuple[dict[str, float], list[Tensor], Tensor]:
    """Update the autoencoder, unless a figure is not finite.

    Returns:
        Figures; outputs by part, without graph; the codes of all parts.
    """
    totals: dict[str, Tensor] = {}
    outputs, codes = [], []
    config = state.training.optimizer
    set_learning_rate(state.optimizer, learning_rate(config, state.step, progress))
    for index, part in enumerate(parts):
        with gradients_kept_local(state, state.wrapped, index + 1 < len(parts)):
            reconstructed, quantized = state.wrapped(state.modality.to_inputs(part))
            losses = _autoencoder_losses(state, part, reconstructed, quantized, perceptual)
            state.accelerator.backward(losses["loss"] / len(parts))
        add_part(totals, losses, len(parts))
        outputs.append(reconstructed.detach())
        codes.append(quantized.codes)
    totals["gradient_norm"] = clip(state, state.model, state.optimizer, config.clip_norm)
    figures = joined_figures(state, totals)
    is_sound = not not_finite(figures)
    apply_gradients(state, state.optimizer, is_sound)
    if not is_sound:
        state.model.quantize.discard()
    return figures, outputs, torch.cat(codes)


def _follow_up(state: TrainingState, figures: dict[str, float], codes: Tensor) -> None:
    """What follows an update of the autoencoder: the codebook, averages and notes."""
    moved = state.model.revive()
    if len(moved):
        state.forget_codes(moved)
    state.average.update(state.model)
    state.recent.add(state.accelerator.gather(codes))
    if "measured_weight" in figures:
        state.moving["measured_weight"].update(figures["measured_weight"])


def _autoencoder_losses(state: TrainingState, pixels: Tensor, outputs: Tensor,
                        quantized: QuantizerOutput,
                        perceptual: PerceptualDistance | None) -> dict[str, Tensor]:
    """The losses of one part by name, with graph; ``loss`` is their sum as it is minimised."""
    outputs = outputs.float()
    losses = {"reconstruction": state.modality.reconstruction_loss(
        outputs, pixels, state.training.reconstruction)}
    wanted = losses["reconstruction"]
    if perceptual is not None:
        pair = (state.modality.centred(outputs),
                state.modality.centred(state.modality.to_inputs(pixels)))
        with state.accelerator.autocast():
            losses["perceptual"] = perceptual(*pair).mean()
        wanted = wanted + state.training.perceptual.weight * losses["perceptual"]
    losses["loss"] = sum(quantized.losses.values(), start=wanted)
    losses |= quantized.losses
    config = state.training.adversarial
    if state.discriminator is not None and state.step >= config.start:
        losses |= generator_terms(state, wanted, outputs)
        factor = config.weight * config.ramp(state.step) * losses["adaptive_weight"]
        losses["loss"] = losses["loss"] + factor * losses["adversarial"]
    return losses
