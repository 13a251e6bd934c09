"""The adversarial half of a step: what the discriminator tells the autoencoder, and what it learns.

Letters: B images, h and w sides of the crop in pixels, C channels.
"""
from collections.abc import Sequence

import torch
from torch import Tensor

from tokenizer.training.losses import (
    ADVERSARIAL_LOSSES,
    adaptive_weight,
    last_layer_gradients,
    lecam_penalty,
    r1_penalty,
)
from tokenizer.training.optim import learning_rate, set_learning_rate
from tokenizer.training.state import TrainingState
from tokenizer.training.updates import (
    add_part,
    apply_gradients,
    clip,
    gradients_kept_local,
    joined_figures,
    not_finite,
)


def generator_terms(state: TrainingState, wanted: Tensor, outputs: Tensor) -> dict[str, Tensor]:
    """What the discriminator makes of reconstructions.

    Args:
        wanted: scalar with graph, reconstruction and perceptual loss of the outputs.
        outputs: ``(B, C, h, w)`` float32, with graph.
    Returns:
        ``adversarial``, the loss, with graph; ``adaptive_weight``, its factor: the moving mean with
        this part's weight in it; ``measured_weight``, that weight alone. The last two without.
    """
    config, discriminator = state.training.adversarial, state.discriminator
    assert discriminator is not None
    discriminator.requires_grad_(False)
    with state.accelerator.autocast():
        adversarial = ADVERSARIAL_LOSSES[config.loss].generator(discriminator(outputs))
    discriminator.requires_grad_(True)
    gradients = last_layer_gradients((wanted, adversarial), outputs, state.model.last_layer)
    measured = adaptive_weight(state.accelerator.reduce(gradients, "mean"),
                               config.max_adaptive_weight)
    return {"adversarial": adversarial, "measured_weight": measured,
            "adaptive_weight": state.moving["measured_weight"].blended(measured)}


def train_discriminator(state: TrainingState, parts: Sequence[Tensor], outputs: Sequence[Tensor],
                        progress: float) -> dict[str, float]:
    """Teach the discriminator to tell ``parts`` from their reconstructions ``outputs``.

    Returns:
        Figures, means over parts and processes. When one is not finite, nothing has changed.
    """
    config, model = state.training.adversarial, state.wrapped_discriminator
    optimizer = state.discriminator_optimizer
    set_learning_rate(optimizer, learning_rate(
        config.optimizer, state.step - config.first_step, progress))
    totals: dict[str, Tensor] = {}
    for index, (part, fakes) in enumerate(zip(parts, outputs, strict=True)):
        with gradients_kept_local(state, model, index + 1 < len(parts)):
            losses = _discriminator_losses(state, state.modality.to_inputs(part), fakes.float())
            state.accelerator.backward(losses.pop("total") / len(parts))
        add_part(totals, losses, len(parts))
    totals["discriminator_norm"] = clip(state, model, optimizer, config.optimizer.clip_norm)
    figures = joined_figures(state, totals)
    is_sound = not not_finite(figures)
    apply_gradients(state, optimizer, is_sound)
    if is_sound:
        for name in ("logits_real", "logits_fake"):
            state.moving[name].update(figures[name])
    return figures


def _discriminator_losses(state: TrainingState, images: Tensor, fakes: Tensor) -> dict[str, Tensor]:
    """Losses of one part by name, and mean logits; ``total`` is what is minimised, with graph."""
    config, model = state.training.adversarial, state.wrapped_discriminator
    # Two passes, as the normalisation of fakes must be that which the autoencoder meets.
    real, fake = model(images), model(fakes)
    losses = {"discriminator": ADVERSARIAL_LOSSES[config.loss].discriminator(real, fake),
              "logits_real": real.float().mean(), "logits_fake": fake.float().mean()}
    total = losses["discriminator"]
    means = state.moving["logits_real"], state.moving["logits_fake"]
    if config.lecam_weight and means[0].count:
        losses["lecam"] = lecam_penalty(real, fake, means[0].value, means[1].value)
        total = total + config.lecam_weight * losses["lecam"]
    if config.has_r1(state.step):
        losses["r1"] = _r1(state, images)
        total = total + config.r1_weight * config.r1_every * losses["r1"]
    return losses | {"total": total}


def _r1(state: TrainingState, images: Tensor) -> Tensor:
    """`r1_penalty` of real images, in float32: its gradient is one of gradients."""
    assert state.discriminator is not None
    images = images.detach().float().requires_grad_(True)
    with torch.autocast(images.device.type, enabled=False):
        return r1_penalty(state.discriminator.layers(images), images)
