"""k-means, to start a codebook from where latents are.

Letters: N points, K clusters, C channels.
"""
import torch
from torch import Tensor

from tokenizer.vqgan.quantizers.search import nearest_codes

ROUNDS = 10
JITTER = 0.01
"""Share of the points' deviation that tells apart copies of a point, where K is above N."""


@torch.no_grad()
def kmeans(points: Tensor, num_clusters: int, rounds: int = ROUNDS) -> Tensor:
    """Centres of the clusters that ``points`` form.

    The start is drawn from the points by torch's default random numbers; a centre that loses all
    of its points stays where it is.

    Args:
        points: ``(N, C)`` float32; N may be below K.
        num_clusters: K.
        rounds: times that points are assigned and centres moved.
    Returns:
        ``(K, C)`` float32.

    Source: Lloyd 1982, doi:10.1109/TIT.1982.1056489.
    """
    order = torch.randperm(len(points))
    chosen = order.repeat(-(-num_clusters // len(points)))[:num_clusters].to(points.device)
    centres = points[chosen]
    if num_clusters > len(points):
        copies = centres[len(points):]
        copies += torch.randn_like(copies) * points.std(0, correction=0) * JITTER
    for _ in range(rounds):
        codes = nearest_codes(points, centres)
        counts = torch.bincount(codes, minlength=num_clusters)[:, None]
        sums = torch.zeros_like(centres).index_add_(0, codes, points)
        centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
    return centres
