"""A training step of our prior beside one of a plain GPT of the same sizes, in the same run.

    python benchmarks/prior_step.py [--layers 6] [--width 384] [--batch-size 16] [--cpu-time]

    gpt     nanoGPT's design: learned positions, LayerNorm, GELU with 4C channels, one matrix for
            queries, keys and values, `scaled_dot_product_attention`, tied output; a step is
            forward, backward, clipping and fused AdamW
    ours    `prior.state.TrainingState.train_step`: the same of our blocks (RMS norm, SwiGLU with
            8C/3 channels, rotary positions, normalised queries and keys), and the averaged weights

Both predict the same 256 codes of a 16 x 16 grid from the same batches, on one thread of a CPU or a
GPU, in turn, so that they meet the same state of the machine; medians count. On a machine that does
other work meanwhile, ``--cpu-time`` counts the seconds of the processor alone.
"""
import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor, nn
from torch.nn import functional

from prior.dataset import Batch
from prior.model import PriorConfig
from prior.state import TrainingConfig, TrainingState
from prior.transformer import TransformerConfig
from tokenizer.memory import keep_freed_memory
from tokenizer.schema import CodeSpec, TokenSpec
from tokenizer.training.optim import OptimizerConfig, build_adamw
from tokenizer.training.processes import build_accelerator

GRID, CODEBOOK_SIZE, HEAD_SIZE = (16, 16), 1024, 64


class Block(nn.Module):
    """Attention, then a feed-forward part, as in nanoGPT's ``model.py`` without biases."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_attention, self.norm_feed_forward = (nn.LayerNorm(width, bias=False)
                                                       for _ in range(2))
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        rows, length, width = inputs.shape
        parts = self.qkv(self.norm_attention(inputs)).split(width, 2)
        queries, keys, values = (part.view(rows, length, width // HEAD_SIZE, HEAD_SIZE)
                                 .transpose(1, 2) for part in parts)
        mixed = functional.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        inputs = inputs + self.out(mixed.transpose(1, 2).reshape(rows, length, width))
        return inputs + self.down(functional.gelu(self.up(self.norm_feed_forward(inputs))))


class GPT(nn.Module):
    """nanoGPT's design over codes and a start token."""

    def __init__(self, num_layers: int, width: int) -> None:
        super().__init__()
        self.codes = nn.Embedding(CODEBOOK_SIZE + 1, width)
        self.positions = nn.Embedding(GRID[0] * GRID[1], width)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(num_layers)))
        self.norm = nn.LayerNorm(width, bias=False)
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        """Ids ``(B, n)`` to scores ``(B, n, K + 1)``."""
        places = torch.arange(ids.shape[1], device=ids.device)
        hidden = self.norm(self.blocks(self.codes(ids) + self.positions(places)))
        return functional.linear(hidden, self.codes.weight)


def gpt_step(model: GPT, optimizer: torch.optim.Optimizer, codes: Tensor) -> None:
    """One training step of the plain GPT on codes ``(B, n)``."""
    starts = torch.full_like(codes[:, :1], CODEBOOK_SIZE)
    scores = model(torch.cat([starts, codes[:, :-1]], 1))
    functional.cross_entropy(scores.flatten(0, 1), codes.flatten()).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def build_ours(num_layers: int, width: int, training: TrainingConfig) -> TrainingState:
    """Our prior over the same codes, without conditions."""
    spec = TokenSpec(codes=(CodeSpec(modality="image", grid=GRID, codebook_size=CODEBOOK_SIZE,
                                     image_size=(256, 256), tokenizer="sha256:random"),))
    shape = TransformerConfig(num_layers=num_layers, width=width, num_heads=width // HEAD_SIZE)
    config = PriorConfig(spec=spec, corpus="sha256:random", transformer=shape)
    return TrainingState(config, training, build_accelerator(training))


def measure(steps: dict[str, Callable[[], None]], num_rounds: int,
            clock: Callable[[], float]) -> dict[str, float]:
    """Median seconds of a step of each, taken in turn after two that do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(num_rounds + 2):
        for name, step in steps.items():
            started = clock()
            step()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number > 1:
                seconds[name].append(clock() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    """Print the seconds of a step of each, and how many times the speed of the plain GPT ours has.
    """
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("layers", 6), ("width", 384), ("batch-size", 16), ("rounds", 7)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--cpu-time", action="store_true", help="count processor seconds")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    training = TrainingConfig(steps=1000, batch_size=arguments.batch_size,
                              optimizer=OptimizerConfig(learning_rate=3e-4))
    state = build_ours(arguments.layers, arguments.width, training)
    device = state.accelerator.device
    gpt = GPT(arguments.layers, arguments.width).to(device)
    optimizer = build_adamw(gpt.parameters(), training.optimizer)
    codes = torch.randint(CODEBOOK_SIZE, (arguments.batch_size, GRID[0] * GRID[1]), device=device)
    medians = measure({"gpt": lambda: gpt_step(gpt, optimizer, codes),
                       "ours": lambda: state.train_step(Batch({}, codes), 0.0)},
                      arguments.rounds, time.process_time if arguments.cpu_time
                      else time.perf_counter)
    print(f"{arguments.layers} layers x {arguments.width}, {arguments.batch_size} rows of "
          f"{codes.shape[1]} codes, {device}")
    for name, model in (("gpt", gpt), ("ours", state.model)):
        size = sum(parameter.numel() for parameter in model.parameters())
        print(f"{name:<6}{size / 1e6:>7.2f}M parameters {medians[name] * 1e3:>9.1f} ms a step "
              f"{codes.numel() / medians[name]:>10,.0f} codes/s")
    print(f"ours has {medians['gpt'] / medians['ours']:.3f} times the speed")


if __name__ == "__main__":
    main()
