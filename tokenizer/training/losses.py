"""Adversarial losses and the adaptive weight between them and the reconstruction loss.

Reconstruction losses belong to the modalities, quantizer losses to the quantizers. All arithmetic
here is float32, whatever precision the networks ran in.
"""
import torch
from torch import Tensor

GRADIENT_SCALE = 4096.0
"""Factor on losses whose gradients are only compared, so that float16 does not round them to 0."""


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


def generator_loss(fake_logits: Tensor) -> Tensor:
    """The autoencoder's adversarial loss: scalar float32, low when fakes are taken for real."""
    return -fake_logits.float().mean()


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last_layer: Tensor,
                    maximum: float) -> Tensor:
    """Weight that makes both losses pull equally hard on the decoder's last layer.

    Args:
        reconstruction: scalar with graph, reconstruction and perceptual loss.
        adversarial: scalar with graph, `generator_loss`.
        last_layer: weights of the decoder's last layer, in the graph of both.
        maximum: upper limit of the weight.
    Returns:
        Scalar in ``[0, maximum]``, float32, without graph; both graphs can still be used.

    Source: Esser et al. 2021, arXiv:2012.09841, equation 7, with 1e-4 beside the lower norm.
    """
    norms = []
    for loss in (reconstruction, adversarial):
        gradient, = torch.autograd.grad(loss * GRADIENT_SCALE, last_layer, retain_graph=True)
        norms.append(gradient.float().norm() / GRADIENT_SCALE)
    return (norms[0] / (norms[1] + 1e-4)).clamp(0.0, maximum).detach()
