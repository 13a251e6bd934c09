"""How evenly codes are used: the entropy of their mean chances, for quantizers that reward it.

Letters: N latents, K codes.
"""
from torch import Tensor

from tokenizer.vqgan.quantizers.ranks import mean_of_all


def entropy_of_use(chances: Tensor, *, joined: bool) -> Tensor:
    """Entropy in nats of the codes' average use: scalar float32, at most log K.

    Args:
        chances: ``(N, K)`` float32, of each code for each latent of this process.
        joined: average over the latents of all processes, as training does: an entropy of means is
            no mean of entropies, so that the number of processes would decide otherwise. All of
            them must call it then.
    """
    use = chances.mean(0)
    if joined:
        use = mean_of_all(use)
    return -(use * use.clamp(min=1e-12).log()).sum()
