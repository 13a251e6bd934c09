"""Nearest codebook entries, without ever holding all N x K distances.

Pieces of points meet tiles of the codebook; each product is small enough to stay in the caches
while its minimum is taken. Letters: N points, K codebook size, C channels.
"""
import torch
from torch import Tensor

POINTS, GPU_POINTS, TILE, BLOCK = 256, 2048, 2048, 32
"""Points and entries that meet in one product, and entries that share a first minimum.

A product of 2 MiB stays in the caches; a GPU wants fewer and larger ones.
"""


@torch.no_grad()
def nearest_codes(points: Tensor, codebook: Tensor) -> Tensor:
    """Index of the codebook entry nearest to each point, by Euclidean distance.

    Args:
        points: ``(N, C)`` float32.
        codebook: ``(K, C)`` float32, on the device of ``points``.
    Returns:
        Codes ``(N,)`` int64 in ``[0, K)``; ties go to the lower index. Distances are compared in
        float32; beside the result at most 16 MiB are taken, at any N and K.
    Raises:
        ValueError: points and codebook have different numbers of channels.

    Source: van den Oord et al. 2017, arXiv:1711.00937, equation 1.
    """
    if points.shape[1] != codebook.shape[1]:
        raise ValueError(f"latents have {points.shape[1]} channels, "
                         f"codebook entries have {codebook.shape[1]}")
    with torch.autocast(points.device.type, enabled=False):
        num_points = POINTS if points.device.type == "cpu" else GPU_POINTS
        squares = torch.cat([tile.square().sum(1) for tile in codebook.split(TILE)])
        return torch.cat([_nearest_of_piece(piece, codebook, squares)
                          for piece in points.split(num_points)])


@torch.no_grad()
def two_distances(points: Tensor, codebook: Tensor, codes: Tensor) -> Tensor:
    """Euclidean distances of points to the entries of their codes, and to the nearest other entry.

    Args:
        points: ``(N, C)`` float32.
        codebook: ``(K, C)`` float32, K at least 2.
        codes: ``(N,)`` int64, as `nearest_codes` gives them.
    Returns:
        ``(N, 2)`` float32. The second may be less than the first by an error of rounding.
    """
    num_points = POINTS if points.device.type == "cpu" else GPU_POINTS
    squares = torch.cat([tile.square().sum(1) for tile in codebook.split(TILE)])
    parts = []
    for piece, chosen in zip(points.split(num_points), codes.split(num_points), strict=True):
        other = _nearest_of_piece(piece, codebook, squares, excluded=chosen)
        pairs = torch.stack([chosen, other], 1)
        parts.append((codebook[pairs] - piece[:, None]).square().sum(-1).sqrt())
    return torch.cat(parts)


def _nearest_of_piece(points: Tensor, codebook: Tensor, squares: Tensor,
                      excluded: Tensor | None = None) -> Tensor:
    """Codes ``(n,)`` of a piece of the points ``(n, C)``: a running minimum over tiles.

    Args:
        excluded: ``(n,)``, for each point an entry that is not to be chosen.
    """
    least = points.new_full((len(points),), torch.inf)
    codes = torch.zeros_like(least, dtype=torch.int64)
    for start in range(0, len(codebook), TILE):
        entries = codebook[start:start + TILE]
        # |z - e|^2 without its |z|^2 term, which is the same for every entry.
        scores = torch.addmm(squares[start:start + TILE, None], entries, points.T, alpha=-2)
        if excluded is not None:
            inside = ((excluded >= start) & (excluded < start + len(entries))).nonzero()[:, 0]
            scores[excluded[inside] - start, inside] = torch.inf
        values, indices = _first_minimum(scores)
        closer = values < least
        least = torch.where(closer, values, least)
        codes = torch.where(closer, indices + start, codes)
    return codes


def _first_minimum(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Least value and its lowest row, in each column of ``(T, n)``: two tensors ``(n,)``.

    Minima of whole blocks are vectorised, a search for the place is not: it is made among the
    blocks, and then in one block for each column.
    """
    num_blocks = len(scores) // BLOCK
    if num_blocks * BLOCK < len(scores) or num_blocks < 2:
        indices = scores.argmin(0)
        return scores.gather(0, indices[None])[0], indices
    blocks = scores.view(num_blocks, BLOCK, -1)
    best = blocks.amin(1).argmin(0)
    block = blocks.gather(0, best.expand(1, BLOCK, -1))[0]
    inside = block.argmin(0)
    return block.gather(0, inside[None])[0], best * BLOCK + inside
