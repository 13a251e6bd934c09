"""How likely a prior finds codes: to rank images, and to see which cells are unusual.

Likelihoods are those of the plain prior with the conditions given: no guidance, temperature 1, all
codes. Those of images larger than the prior's own are read through `prior.windows`.

Letters: N images, n codes of an image, h and w rows and columns of its grid, D codes a cell, K
codebook size, T positions of a sequence, C width of the transformer.
"""
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from prior.guidance import Guidance
from prior.scoring import Scores
from prior.sequence import Segment, SequenceLayout
from prior.transformer import Transformer
from prior.windows import Canvas

COLUMN = "log_likelihood"
"""Column of a row's log-likelihood in nats, the sum over its codes."""

CELLS_AT_ONCE = 64


def log_likelihoods(model: Transformer, layout: SequenceLayout,
                    conditions: Mapping[str, np.ndarray], codes: np.ndarray,
                    batch_size: int) -> np.ndarray:
    """Log-likelihoods of codes, each given the conditions and the codes before it.

    Args:
        layout: the model's own, or that of a larger grid.
        conditions: per condition that is given ``(N, n)`` integers in the order of the sequence.
        codes: ``(N, n)`` integers, likewise.
        batch_size: images at a time; the last batch is padded.
    Returns:
        ``(N, n)`` float32, in nats.
    """
    device = model.head.weight.device
    found = []
    for first in range(0, len(codes), batch_size):
        rows = np.arange(first, min(first + batch_size, len(codes)))
        padded = np.pad(rows, (0, batch_size - len(rows)), "edge")
        given = {name: torch.from_numpy(values[padded].astype(np.int64)).to(device)
                 for name, values in conditions.items()}
        batch = torch.from_numpy(codes[padded].astype(np.int64)).to(device)
        if layout.target.grid == model.layout.target.grid:
            chosen = Scores(model, given, len(padded), Guidance()).log_likelihoods(batch, 0)
        else:
            chosen = _in_windows(model, layout, given, batch, batch_size)
        found.append(chosen[:len(rows)].cpu().numpy())
    return np.concatenate(found)


def _in_windows(model: Transformer, layout: SequenceLayout, given: Mapping[str, Tensor],
                codes: Tensor, batch_size: int) -> Tensor:
    """As `log_likelihoods`, of one batch on the model's device."""
    canvas = Canvas(model, layout, given, codes, Guidance(), batch_size)
    depth = layout.target.depth
    result = torch.zeros(codes.shape, device=codes.device)
    for group, place in canvas.groups(np.arange(layout.target.num_cells)):
        for cells in np.array_split(group, -(-len(group) // CELLS_AT_ONCE)):
            for code in range(depth):
                places = torch.from_numpy(cells * depth + code).to(codes.device)
                logs = canvas.scores(cells, place, code).log_softmax(-1)
                result[:, places] = logs.gather(-1, codes[:, places, None])[..., 0]
    return result


def code_gradients(model: Transformer, conditions: Mapping[str, Tensor],
                   codes: Tensor) -> tuple[Tensor, Tensor]:
    """Log-likelihoods of codes, and the gradient of their sum by the codes, as one-hot vectors.

    That of code x_i by its entry k, with e the embeddings of the transformer, is

        log p(k | x_1 .. x_{i-1})  +  e(k) * d sum_{j > i} log p(x_j | x_1 .. x_{j-1}) / d e(x_i)

    so the difference between two entries is what the image would gain if one took the place of the
    other: in first order, and exactly so for the last code.

    Args:
        model: in evaluation mode.
        conditions: per condition that is given ``(N, n)`` int64 on the model's device, in the order
            of the sequence.
        codes: ``(N, n)`` int64 of the model's own grid, likewise.
    Returns:
        ``(N, n)`` and ``(N, n, K)`` float32, in nats.

    Source: Grathwohl et al. 2021, arXiv:2102.04509, section 3.
    """
    last, depth = codes.shape[1] - 1, model.layout.target.depth
    with torch.enable_grad(), _kept_embeddings(model) as kept:
        scores = model(model.layout.inputs(conditions, codes[:, :-1]))
        logs = scores.float().log_softmax(-1)
        chosen = logs.gather(-1, codes[..., None])[..., 0]
        slopes, = torch.autograd.grad(chosen.sum(), kept)
    slopes, gradients = slopes[:, slopes.shape[1] - last:].float(), logs.detach()
    for number, table in enumerate(_embeddings_of_codes(model)):
        gradients[:, number:last:depth] += slopes[:, number::depth] @ table.T
    return chosen.detach(), gradients


@contextmanager
def _kept_embeddings(model: Transformer) -> Iterator[list[Tensor]]:
    """In the block, the embeddings ``(N, T, C)`` of what the model reads, as leaves of its graph.
    """
    kept: list[Tensor] = []

    def keep(module: torch.nn.Module, inputs: object, output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_())
        return kept[-1]

    handle = model.codes.register_forward_hook(keep)
    try:
        yield kept
    finally:
        handle.remove()


@torch.no_grad()
def _embeddings_of_codes(model: Transformer) -> list[Tensor]:
    """Of each code of a cell, the embeddings ``(K, C)`` float32 of its entries."""
    target = model.layout.target
    codes = torch.arange(target.vocabulary, device=model.head.weight.device)
    ids = model.layout.target_inputs(codes[:, None].expand(-1, target.depth), 1, target.depth)
    return [model.codes(column).float() for column in ids.T]


def surprise_pictures(logs: np.ndarray, segment: Segment, size: tuple[int, int]) -> np.ndarray:
    """Pictures ``(N, height, width, 3)`` uint8: white where the codes of a cell were unexpected.

    A cell is black where its codes were certain, and white where they were no likelier than by
    chance, or less: at log2 of the vocabulary bits for each code.

    Args:
        logs: ``(N, n)`` of `log_likelihoods`.
        segment: whose codes they are.
        size: height and width of the pictures; cells are stretched over it.
    """
    by_cell = logs.reshape(len(logs), *segment.grid, segment.depth).mean(-1)
    levels = np.clip(-by_cell / math.log(max(2, segment.vocabulary)), 0, 1)
    rows, columns = (np.arange(pixels) * count // pixels
                     for pixels, count in zip(size, segment.grid, strict=True))
    grey = (levels[:, rows][:, :, columns] * 255).round().astype(np.uint8)
    return np.repeat(grey[..., None], 3, -1)
