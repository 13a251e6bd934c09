"""Precision and recall of images by their features, each set's region found from neighbours.

The region of a set is the union of balls about its items, each as far as the item's k-th nearest
neighbour in the set. Precision is the share of found items in the region of the true ones, recall
the share of true items in the region of the found ones.

Distances are taken block by block, in float64, about the mean of the true features.

Letters: N and M items, D features of an item, B items of a block.
"""
from collections.abc import Iterator

import torch
from torch import Tensor

NEIGHBOURS = 3
"""k of published figures."""

DISTANCES_AT_ONCE = 1 << 22

ROUNDING = 1e-12
"""Squared distances up to so many times the sum of both squares are 0: those of equal items."""


def precision_recall(found: Tensor, true: Tensor, neighbours: int = NEIGHBOURS
                     ) -> tuple[float, float]:
    """Precision and recall of found items against true ones.

    Args:
        found: features ``(N, D)``, float, on the device that computes.
        true: features ``(M, D)``, likewise.
        neighbours: k.
    Returns:
        Both in [0, 1].
    Raises:
        ValueError: a set has no k-th neighbour, the features differ in number or are not finite.

    Source: Kynkaanniemi et al. 2019, arXiv:1904.06991, equations 1 and 2.
    """
    for name, features in (("found", found), ("true", true)):
        if features.ndim != 2 or features.shape[1] != true.shape[1]:
            raise ValueError(f"{name} features must be of shape (N, {true.shape[-1]}), got "
                             f"{tuple(features.shape)}")
        if len(features) <= neighbours:
            raise ValueError(f"{neighbours} nearest neighbours need more than {neighbours} {name} "
                             f"items, got {len(features)}")
        if not features.isfinite().all():
            raise ValueError("features must be finite; some are not a number or infinite")
    mean = true.double().mean(0)
    found, true = found.double() - mean, true.double() - mean
    return (_covered(found, true, _radii(true, neighbours)),
            _covered(true, found, _radii(found, neighbours)))


def _radii(items: Tensor, neighbours: int) -> Tensor:
    """Squared distance ``(N,)`` of each item to its k-th nearest other one."""
    # Each item is its own nearest one, at a distance of 0.
    return torch.cat([distances.topk(neighbours + 1, 1, largest=False).values[:, -1]
                      for distances in _distances(items, items)])


def _covered(items: Tensor, centres: Tensor, radii: Tensor) -> float:
    """Share of items ``(N, D)`` that lie in one of the balls about centres ``(M, D)``."""
    inside = sum(int((distances <= radii).any(1).sum()) for distances in _distances(items, centres))
    return inside / len(items)


def _distances(items: Tensor, others: Tensor) -> Iterator[Tensor]:
    """Squared distances ``(B, M)`` of some items at a time to all others."""
    squares = others.square().sum(1)
    for part in items.split(max(1, DISTANCES_AT_ONCE // len(others))):
        sums = part.square().sum(1)[:, None] + squares
        distances = sums - 2 * part @ others.T
        yield distances.where(distances > ROUNDING * sums, 0)
