"""Adversarial losses, what keeps the discriminator in check, and the adaptive weight.

Reconstruction losses belong to the modalities, quantizer losses to the quantizers. All arithmetic
here is float32, whatever precision the networks ran in. To add an adversarial loss, write its two
functions here and list them in `ADVERSARIAL_LOSSES`; ``training.adversarial.loss`` names it.

Letters: B images, C channels, H and W pixels, P parameters of the decoder's last layer.
"""
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

GRADIENT_SCALE = 4096.0
"""Factor on losses whose gradients are only compared, so that float16 does not round them to 0."""

SHORTEST = 1e-30
"""Gradients shorter than this count as none."""


def hinge_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """The discriminator's loss: real logits above 1 and fake ones below -1 cost nothing.

    Args:
        real_logits: on images of the corpus, any shape, float.
        fake_logits: on reconstructions, any shape, float.
    Returns:
        Scalar, float32.

    Source: Lim and Ye 2017, arXiv:1705.02894; the half is that of VQGAN.
    """
    real = torch.relu(1 - real_logits.float()).mean()
    fake = torch.relu(1 + fake_logits.float()).mean()
    return 0.5 * (real + fake)


def cross_entropy_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """The discriminator's loss: cross entropy of telling real from fake; arguments as above.

    Source: Goodfellow et al. 2014, arXiv:1406.2661, equation 1; the half is that of VQGAN.
    """
    real = F.softplus(-real_logits.float()).mean()
    fake = F.softplus(fake_logits.float()).mean()
    return 0.5 * (real + fake)


def linear_generator_loss(fake_logits: Tensor) -> Tensor:
    """The autoencoder's loss: scalar float32, the lower the higher the logits of fakes."""
    return -fake_logits.float().mean()


def non_saturating_generator_loss(fake_logits: Tensor) -> Tensor:
    """The autoencoder's loss: scalar float32, ``-log`` of the probability that fakes are real.

    Source: Goodfellow et al. 2014, arXiv:1406.2661, section 3.
    """
    return F.softplus(-fake_logits.float()).mean()


@dataclass(frozen=True)
class AdversarialLoss:
    """The two sides of one adversarial loss.

    Attributes:
        discriminator: of real and fake logits.
        generator: of fake logits.
        chance: the discriminator's loss while all logits are 0.
    """
    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]
    chance: float


ADVERSARIAL_LOSSES = {
    "hinge": AdversarialLoss(hinge_loss, linear_generator_loss, 1.0),
    "vanilla": AdversarialLoss(cross_entropy_loss, linear_generator_loss, math.log(2)),
    "non_saturating": AdversarialLoss(cross_entropy_loss, non_saturating_generator_loss,
                                      math.log(2))}
"""Adversarial losses by name; ``vanilla`` pairs as VQGAN's published training does."""


def lecam_penalty(real_logits: Tensor, fake_logits: Tensor, mean_real: float,
                  mean_fake: float) -> Tensor:
    """Squared distance of logits from the moving mean of the other side: scalar float32.

    Args:
        real_logits: any shape, float, with graph.
        fake_logits: likewise.
        mean_real: moving mean of real logits over earlier steps.
        mean_fake: that of fake ones.

    Source: Tseng et al. 2021, arXiv:2104.03310, equation 3.
    """
    real = (real_logits.float() - mean_fake).square().mean()
    fake = (fake_logits.float() - mean_real).square().mean()
    return real + fake


def r1_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """Half the squared length of the logits' gradient at real images, mean over these.

    Args:
        logits: ``(B, ...)`` with graph; an image's are added up.
        images: ``(B, C, H, W)`` float32 that they were computed from, with ``requires_grad``.
    Returns:
        Scalar float32, with graph.

    Source: Mescheder et al. 2018, arXiv:1801.04406, equation 9.
    """
    gradient, = torch.autograd.grad(logits.float().sum(), images, create_graph=True)
    return 0.5 * gradient.float().square().sum((1, 2, 3)).mean()


def last_layer_gradients(losses: Sequence[Tensor], outputs: Tensor, last_layer: Tensor) -> Tensor:
    """Gradients of several losses at the decoder's last layer.

    A loss's gradient at the outputs is brought to length 1 before it passes the layer, so that
    float16 neither rounds it to 0 nor overflows, however small or large the loss.

    Args:
        losses: scalars with graph.
        outputs: of the decoder, float32; all losses depend on the layer through them alone.
        last_layer: weights of the decoder's last layer, P values.
    Returns:
        ``(len(losses), P)`` float32, without graph; all graphs can still be used.
    """
    rows = []
    for loss in losses:
        outward, = torch.autograd.grad(loss * GRADIENT_SCALE, outputs, retain_graph=True)
        length = outward.float().norm().clamp(min=SHORTEST)
        direction = (outward / length).to(outputs.dtype)
        inward, = torch.autograd.grad(outputs, last_layer, direction, retain_graph=True)
        rows.append(inward.float().flatten() * (length / GRADIENT_SCALE))
    return torch.stack(rows)


def adaptive_weight(gradients: Tensor, maximum: float) -> Tensor:
    """Weight that makes both losses pull equally hard on the decoder's last layer.

    Args:
        gradients: ``(2, P)`` float32, those of reconstruction and of adversarial loss.
        maximum: upper limit of the weight.
    Returns:
        Scalar in ``[0, maximum]``, float32.

    Source: Esser et al. 2021, arXiv:2012.09841, equation 7, with 1e-4 beside the lower norm.
    """
    reconstruction, adversarial = gradients.float().norm(dim=1)
    return (reconstruction / (adversarial + 1e-4)).clamp(0.0, maximum)
