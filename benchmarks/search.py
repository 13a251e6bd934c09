"""The nearest-code search beside the plain expanded formula, on one thread.

    python benchmarks/search.py [--points 2048] [--repeats 5]

    plain     |z|^2 + |e|^2 - 2 z e for all N x K pairs at once, then argmin: what published
              quantizers do
    tiled     `tokenizer.vqgan.quantizers.search.nearest_codes`

Both are timed in turn, so that they meet the same state of the machine; medians count. ``differ``
counts points whose codes are not the same, which rounding explains where two entries are equally
near.
"""
import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor

from tokenizer.vqgan.quantizers.search import nearest_codes

SIZES = ((1024, 8), (1024, 256), (16384, 8), (16384, 32), (16384, 256), (65536, 8), (262144, 8),
         (262144, 18))
"""Codebook sizes K and channels C."""


def plain(points: Tensor, codebook: Tensor) -> Tensor:
    """Codes by the distances of all pairs, ``(N, K)`` in memory."""
    distances = (points.square().sum(1, keepdim=True) + codebook.square().sum(1)
                 - 2 * points @ codebook.T)
    return distances.argmin(1)


def seconds(function: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def main() -> None:
    """Print one line for each size."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=2048, help="N, latents searched for at once")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"{arguments.points} points, one thread, {arguments.repeats} rounds, medians")
    print(f"{'K':>7} {'C':>4} {'plain ms':>9} {'tiled ms':>9} {'ratio':>6} {'differ':>6}")
    for num_codes, code_dim in SIZES:
        points, codebook = torch.randn(arguments.points, code_dim), torch.randn(num_codes, code_dim)
        differ = int((plain(points, codebook) != nearest_codes(points, codebook)).sum())
        times: dict[str, list[float]] = {"plain": [], "tiled": []}
        for _ in range(arguments.repeats):
            times["plain"].append(seconds(lambda: plain(points, codebook)))  # noqa: B023
            times["tiled"].append(seconds(lambda: nearest_codes(points, codebook)))  # noqa: B023
        slow, fast = (statistics.median(values) for values in times.values())
        print(f"{num_codes:>7} {code_dim:>4} {slow * 1e3:>9.1f} {fast * 1e3:>9.1f} "
              f"{slow / fast:>6.2f} {differ:>6}")


if __name__ == "__main__":
    main()
