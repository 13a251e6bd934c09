"""One optimiser step of a tokenizer: first the autoencoder, then the discriminator.

Losses of the autoencoder: reconstruction (the modality's own) + perceptual + those of the quantizer
+ adversarial, the last with the adaptive weight.

Letters: B images, h and w sides of the crop in pixels, C channels.
"""
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tokenizer.training.divergence import require_finite
from tokenizer.training.losses import adaptive_weight, generator_loss, hinge_loss
from tokenizer.training.optim import learning_rate, set_learning_rate
from tokenizer.training.perceptual import PerceptualDistance
from tokenizer.training.state import TrainingState
from tokenizer.vqgan.quantizers import QuantizerOutput


@dataclass(frozen=True)
class StepResult:
    """What one optimiser step returns.

    Attributes:
        figures: losses and norms of the step by name, means over its parts.
        outputs: model outputs ``(B, C, h, w)`` of the last part, without graph.
        pixels: the pixels ``(B, h, w[, 3])`` they should be.
    """
    figures: dict[str, float]
    outputs: Tensor
    pixels: Tensor


def train_step(state: TrainingState, pixels: Tensor, progress: float,
               perceptual: PerceptualDistance | None = None) -> StepResult:
    """Train on one batch; `TrainingState.step` is one more afterwards.

    Args:
        pixels: this process's share of the batch, ``(B, h, w[, 3])`` on its device.
        progress: share of the budget spent, in [0, 1]; it drives the learning rates.
        perceptual: the LPIPS term, when it is on.
    Raises:
        DivergedError: a loss is not finite; no weight was changed by it.
    """
    state.seed_step()
    parts = pixels.chunk(state.training.accumulation)
    totals: dict[str, Tensor] = {}
    outputs, codes = [], []
    config = state.training.optimizer
    set_learning_rate(state.optimizer, learning_rate(config, state.step, progress))
    for index, part in enumerate(parts):
        with _gradients_kept_local(state, state.wrapped, index + 1 < len(parts)):
            reconstructed, quantized = state.wrapped(state.modality.to_inputs(part))
            losses = _autoencoder_losses(state, part, reconstructed, quantized, perceptual)
            require_finite(losses, state.step, state.training)
            state.accelerator.backward(losses["loss"] / len(parts))
        _add(totals, losses, len(parts))
        outputs.append(reconstructed.detach())
        codes.append(quantized.codes)
    totals["gradient_norm"] = _update(state, state.model, state.optimizer, config.clip_norm)
    moved = state.model.revive()
    if len(moved):
        state.forget_codes(moved)
    state.average.update(state.model)
    state.recent.add(state.accelerator.gather(torch.cat(codes)))
    if state.discriminator is not None and state.step >= state.training.adversarial.first_step:
        totals |= _train_discriminator(state, parts, outputs, progress)
    state.step += 1
    return StepResult(figures=_figures(state, totals), outputs=outputs[-1], pixels=parts[-1])


def _autoencoder_losses(state: TrainingState, pixels: Tensor, outputs: Tensor,
                        quantized: QuantizerOutput,
                        perceptual: PerceptualDistance | None) -> dict[str, Tensor]:
    """The losses of one part by name, with graph; ``loss`` is their sum as it is minimised."""
    outputs = outputs.float()
    losses = {"reconstruction": state.modality.reconstruction_loss(outputs, pixels)}
    wanted = losses["reconstruction"]
    if perceptual is not None:
        with state.accelerator.autocast():
            losses["perceptual"] = perceptual(outputs, state.modality.to_inputs(pixels)).mean()
        wanted = wanted + state.training.perceptual.weight * losses["perceptual"]
    losses["loss"] = wanted + torch.stack(list(quantized.losses.values())).sum()
    losses |= quantized.losses
    config = state.training.adversarial
    if state.discriminator is not None and state.step >= config.start:
        state.discriminator.requires_grad_(False)
        with state.accelerator.autocast():
            losses["adversarial"] = generator_loss(state.discriminator(outputs))
        state.discriminator.requires_grad_(True)
        weight = adaptive_weight(wanted, losses["adversarial"], state.model.last_layer,
                                 config.max_adaptive_weight)
        losses["adaptive_weight"] = state.accelerator.reduce(weight, "mean")
        losses["loss"] = losses["loss"] + (config.weight * losses["adaptive_weight"]
                                           * losses["adversarial"])
    return losses


def _train_discriminator(state: TrainingState, parts: tuple[Tensor, ...], outputs: list[Tensor],
                         progress: float) -> dict[str, Tensor]:
    """Teach the discriminator to tell ``parts`` from their reconstructions ``outputs``."""
    config = state.training.adversarial
    model = state.wrapped_discriminator
    set_learning_rate(state.discriminator_optimizer, learning_rate(
        config.optimizer, state.step - config.first_step, progress))
    totals: dict[str, Tensor] = {}
    for index, (part, fakes) in enumerate(zip(parts, outputs, strict=True)):
        with _gradients_kept_local(state, model, index + 1 < len(parts)):
            # Two passes, as the normalisation of fakes must be that which the autoencoder meets.
            real, fake = model(state.modality.to_inputs(part)), model(fakes.float())
            losses = {"discriminator": hinge_loss(real, fake)}
            require_finite(losses, state.step, state.training)
            state.accelerator.backward(losses["discriminator"] / len(parts))
        _add(totals, losses | {"logits_real": real.mean(), "logits_fake": fake.mean()}, len(parts))
    _update(state, model, state.discriminator_optimizer, config.optimizer.clip_norm)
    return totals


def _update(state: TrainingState, model: nn.Module, optimizer: torch.optim.Optimizer,
            clip_norm: float | None) -> Tensor:
    """Clip the gradients, step and drop them; the norm before clipping."""
    state.accelerator.unscale_gradients(optimizer)
    limit = float("inf") if clip_norm is None else clip_norm
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
    optimizer.step()
    optimizer.zero_grad()
    return norm


def _gradients_kept_local(state: TrainingState, model: nn.Module,
                          keep: bool) -> AbstractContextManager[None]:
    """Defers the exchange of gradients between processes while ``keep``."""
    if not keep:
        return nullcontext()
    context: AbstractContextManager[None] = state.accelerator.no_sync(model)
    return context


def _add(totals: dict[str, Tensor], losses: dict[str, Tensor], num_parts: int) -> None:
    for name, loss in losses.items():
        totals[name] = totals.get(name, 0) + loss.detach().float() / num_parts


def _figures(state: TrainingState, totals: dict[str, Tensor]) -> dict[str, float]:
    """Figures as numbers, means over processes."""
    values = state.accelerator.reduce(torch.stack(list(totals.values())), "mean").tolist()
    return dict(zip(totals, values, strict=True))
