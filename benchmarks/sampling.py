"""Sampling with a key-value cache beside sampling without one, and beside a training step.

    python benchmarks/sampling.py [--layers 6] [--width 384] [--side 16] [--rounds 3]

    without cache   one image; every code reads the whole sequence again
    with cache      one image; every code reads one position
    batch           images drawn together, with cache
    training step   as many images: scores, gradients, AdamW

On one thread, of a prior without conditions whose weights are drawn. All four are timed in turn, so
that they meet the same state of the machine; medians of processor time count. Wanted: with a cache
at least 10 times as fast as without, and a batch at least 0.8 of the codes a second of a step.
"""
import argparse
import copy
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from prior.dataset import Batch
from prior.evaluation import sequence_loss
from prior.generate import Generation, generate
from prior.sequence import Segment, SequenceLayout
from prior.stepping import store_by_columns
from prior.transformer import Transformer, TransformerConfig


def build(layers: int, width: int, side: int, num_codes: int) -> Transformer:
    """A prior over ``side * side`` codes, with drawn weights."""
    torch.manual_seed(0)
    layout = SequenceLayout((), Segment(name="image", grid=(side, side), vocabulary=num_codes))
    config = TransformerConfig(num_layers=layers, width=width, num_heads=max(1, width // 64))
    model = Transformer(config, layout)
    torch.nn.init.normal_(model.head.weight, std=0.02)
    return model


def sampling(model: Transformer, batch_size: int, cached: bool) -> Callable[[], object]:
    """Draws ``batch_size`` images."""
    settings = Generation(batch_size=batch_size, cached=cached)
    seeds = [(0, row) for row in range(batch_size)]
    return lambda: generate(model.eval(), {}, seeds, settings)


def training(model: Transformer, batch_size: int) -> Callable[[], object]:
    """Takes one step on ``batch_size`` images; the weights stay, as the rate is 0."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=0.0, fused=True)
    target = model.layout.target
    codes = torch.randint(target.vocabulary, (batch_size, target.length))

    def step() -> None:
        model.train()
        sequence_loss(model, model.layout, Batch({}, codes)).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def measure(works: dict[str, tuple[Callable[[], object], int]],
            rounds: int) -> dict[str, list[float]]:
    """Codes a second of each work and round; each is a call and the codes that it makes."""
    speeds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, (work, codes) in works.items():
            if number == 0 and name == "without cache":
                continue  # the others warm up what it needs
            started = time.process_time()
            work()
            if number:
                speeds[name].append(codes / (time.process_time() - started))
    return speeds


def main() -> None:
    """Print the codes a second of each, and the two ratios."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=384, help="a multiple of 64")
    parser.add_argument("--side", type=int, default=16, help="of the code grid")
    parser.add_argument("--codebook-size", type=int, default=1024)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = build(given.layers, given.width, given.side, given.codebook_size)
    trained = copy.deepcopy(model)
    store_by_columns(model)  # as `Prior.load` does
    size, codes = given.batch_size, given.side ** 2
    speeds = measure({"without cache": (sampling(model, 1, cached=False), codes),
                      "with cache": (sampling(model, 1, cached=True), codes),
                      f"batch of {size}": (sampling(model, size, cached=True), size * codes),
                      "training step": (training(trained, size), size * codes)}, given.rounds)
    print(f"{given.layers} layers x {given.width}, {codes} codes of {given.codebook_size}, one "
          f"thread, {given.rounds} rounds, medians of processor time")
    for name, found in speeds.items():
        print(f"{name:>14} {statistics.median(found):>8.0f} codes/s "
              f"({min(found):.0f} to {max(found):.0f})")
    slow, fast, batch, step = (statistics.median(found) for found in speeds.values())
    print(f"with cache / without {fast / slow:.1f} (wanted 10)   batch / training step "
          f"{batch / step:.2f} (wanted 0.8)")


if __name__ == "__main__":
    main()
