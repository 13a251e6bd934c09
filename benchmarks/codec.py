"""How near encoding and decoding come to what this machine's convolutions reach, on one thread.

    python benchmarks/codec.py [--repeats 5] [--recipes f16_1024,fast_f16] [--backends torch]

For each recipe, with random weights and the images at the codec's size, in float32 and in bf16:

    images/s, GFLOP/s    per second, of `Codec.encode` and `Codec.decode`, numpy in and out
    of peak              their GFLOP/s beside the fastest convolution of the same precision
    to float32           how many times as fast as in float32 with torch

The peak is that of single 3 x 3 convolutions, channels last, in the shapes that do most of the
published network's work. Operations are counted as two for each multiplication with addition, in
convolutions and in the two products of attention; nothing else counts. Everything is timed in turn
in one process, round after round, so that all meet the same state of the machine; medians count.
``--clock cpu`` takes the processor time of the process, where other programs share the machine.
"""
import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tokenizer.codec import Codec, reproducible
from tokenizer.recipes import build_recipe
from tokenizer.vqgan.model import VQGAN

PEAK_SHAPES = ((128, 256), (128, 128), (256, 64), (512, 16))
"""Channels in and out, and side, of the convolutions that set the peak."""

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}

GFLOP_A_CALL = 300
"""Codecs get as many images a call as make about this work, 8 at most."""

TYPES = {"float32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Case:
    """One thing that is timed: what it is, its work in GFLOP, and how many images that is."""
    name: str
    precision: str
    gflop: float
    images: int
    run: Callable[[], object]


def peak_case(channels: int, side: int, precision: str) -> Case:
    """A single 3 x 3 convolution, often enough for about 20 GFLOP."""
    layer = nn.Conv2d(channels, channels, 3, padding=1).to(TYPES[precision])
    layer = layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    features = torch.randn(1, channels, side, side, dtype=TYPES[precision])
    features = features.contiguous(memory_format=torch.channels_last)
    gflop = 2 * 9 * channels ** 2 * side ** 2 / 1e9
    times = max(1, round(20 / gflop))

    def run() -> None:
        with reproducible(torch.device("cpu")):
            for _ in range(times):
                layer(features)
    return Case(f"convolution {channels} x {side} x {side}", precision, times * gflop, 0, run)


def gflop_of(model: VQGAN) -> tuple[float, float]:
    """Work of encoding and of decoding one image."""
    height, width = model.config.image_size
    counts = []
    with torch.device("meta"):
        meta = VQGAN(model.config).eval()
        inputs = torch.zeros(1, model.config.build_modality().in_channels, height, width)
        codes = torch.zeros(1, *model.config.grid, dtype=torch.int64)
    for function in (lambda: meta.encode_to_latents(inputs), lambda: meta.decode(codes)):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            function()
        counts.append(counter.get_total_flops() / 1e9)
    return counts[0], counts[1]


def codec_cases(recipe: str, backends: list[str]) -> list[Case]:
    """Encoding and decoding of one recipe in each precision, and encoding by other backends."""
    torch.manual_seed(0)
    model = VQGAN(build_recipe(recipe, {"name": "image"}).model)
    encode, decode = gflop_of(model)
    num = min(8, max(1, round(GFLOP_A_CALL / encode)))
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (num, *model.config.image_size, 3), dtype=np.uint8)
    size = model.config.quantizer.codebook_size
    codes = rng.integers(0, size, (num, *model.config.grid))
    cases = []
    for precision in TYPES:
        codec = Codec(model, "random", num, precision=precision)
        cases += [Case(f"{recipe} encode", precision, num * encode, num,
                       lambda codec=codec: codec.encode(pixels)),
                  Case(f"{recipe} decode", precision, num * decode, num,
                       lambda codec=codec: codec.decode(codes))]
    for backend in backends:
        codec = Codec(model, "random", num, backend=backend)
        cases.append(Case(f"{recipe} encode {backend}", "float32", num * encode, num,
                          lambda codec=codec: codec.encode(pixels)))
    return cases


def measure(cases: list[Case], repeats: int, clock: Callable[[], float]) -> list[float]:
    """Median seconds of each case, timed in turn; one round before that warms everything up."""
    seconds: list[list[float]] = [[] for _ in cases]
    for repeat in range(repeats + 1):
        for case, times in zip(cases, seconds, strict=True):
            began = clock()
            case.run()
            if repeat:
                times.append(clock() - began)
    return [statistics.median(times) for times in seconds]


def show(cases: list[Case], seconds: list[float]) -> None:
    """Print one line for each case, with the ratios."""
    rates = [case.gflop / time for case, time in zip(cases, seconds, strict=True)]
    peaks = {precision: max(rate for case, rate in zip(cases, rates, strict=True)
                            if not case.images and case.precision == precision)
             for precision in TYPES}
    by_name: Mapping[tuple[str, str], float] = {
        (case.name, case.precision): time for case, time in zip(cases, seconds, strict=True)}
    print(f"{'':32} {'type':>8} {'GFLOP':>7} {'images/s':>9} {'GFLOP/s':>8} {'of peak':>8} "
          f"{'to float32':>10}")
    for case, time_, rate in zip(cases, seconds, rates, strict=True):
        base = by_name[" ".join(case.name.split(" ")[:2]) if case.images else case.name, "float32"]
        per_image = f"{case.gflop / case.images:>7.1f}" if case.images else f"{'':>7}"
        images = f"{case.images / time_:>9.2f}" if case.images else f"{'':>9}"
        ratio = base / time_ if case.images else rate / peaks["float32"]
        print(f"{case.name:32} {case.precision:>8} {per_image} {images} {rate:>8.1f} "
              f"{rate / peaks[case.precision]:>8.2f} {ratio:>10.2f}")


def main() -> None:
    """Print the conditions, then the table."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--recipes", default="f16_1024,fast_f16", help="names, with commas between")
    parser.add_argument("--backends", default="", help="others than torch, with commas between")
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    backends = [name for name in arguments.backends.split(",") if name]
    cases = [peak_case(*shape, precision) for precision in TYPES for shape in PEAK_SHAPES]
    for recipe in arguments.recipes.split(","):
        cases += codec_cases(recipe, backends)
    print(f"torch {torch.__version__}, {platform.processor() or platform.machine()}, one thread, "
          f"{arguments.repeats} rounds in turn, medians of {arguments.clock} time")
    show(cases, measure(cases, arguments.repeats, CLOCKS[arguments.clock]))


if __name__ == "__main__":
    main()
