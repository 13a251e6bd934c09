"""Encoding and training of priors on a GPU: eager and compiled, in float32 and in bf16.

    python benchmarks/gpu.py [--recipe f16_1024] [--batch-size 64] [--repeats 10]

    eager       channels last, one kernel after the other
    graph       the same kernels, recorded once and replayed as one CUDA graph
    compiled    ``torch.compile`` with ``mode="max-autotune"``, which also fuses kernels

Times are between CUDA events, medians over rounds in turn; reading and moving images is left out.
``changed`` is the share of codes that differ from eager float32 without TF32, on random pixels with
random weights, where near ties are commoner than in a trained tokenizer. Then a training step of a
prior, plain and with ``training.compile=true``. Without a GPU the program says so and ends well.
"""
import argparse
import functools
import statistics
import time
from collections.abc import Callable

import torch
from prior_step import build_ours, measure
from sampling import build
from torch import Tensor

from prior import compiling
from prior.dataset import Batch
from prior.fixed_steps import fixed_stepper, recorded
from prior.generate import Generation, generate
from prior.state import TrainingConfig
from tokenizer.codec import reproducible, with_convolutions_in
from tokenizer.recipes import build_recipe
from tokenizer.vqgan.model import VQGAN

Encode = Callable[[], Tensor]
"""Encodes the one batch of this benchmark: codes ``(B, h, w)``."""


def encoder_of(model: VQGAN, inputs: Tensor, precision: str) -> Encode:
    """Eager encoding of ``inputs``: the network in a precision, the search in float32."""
    dtype = torch.bfloat16 if precision == "bf16" else None
    if dtype is not None:
        model = with_convolutions_in(dtype, model)

    def encode() -> Tensor:
        with torch.autocast("cuda", dtype, enabled=dtype is not None, cache_enabled=False):
            latents = model.encode_to_latents(inputs)
        return model.quantize.encode(latents.float())
    return encode


def milliseconds(encode: Encode) -> float:
    """Time of one call on the GPU."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    encode()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def ways(model: VQGAN, inputs: Tensor, compiled: bool) -> dict[tuple[str, str], Encode]:
    """Every way of encoding by name and precision; the first is eager in float32."""
    found: dict[tuple[str, str], Encode] = {}
    for precision in ("float32", "bf16"):
        encode = encoder_of(model, inputs, precision)
        found["eager", precision] = encode
        found["graph", precision] = recorded(encode)
        if compiled:
            found["compiled", precision] = torch.compile(encode, mode="max-autotune")
    return found


def compare(model: VQGAN, inputs: Tensor, compiled: bool, repeats: int) -> None:
    """Print one line for each way of encoding."""
    encoders = ways(model, inputs, compiled)
    codes = {name: encode().clone() for name, encode in encoders.items()}
    times: dict[tuple[str, str], list[float]] = {name: [] for name in encoders}
    for repeat in range(repeats + 2):
        for name, encode in encoders.items():
            time = milliseconds(encode)
            if repeat > 1:  # two rounds to warm up
                times[name].append(time)
    first = next(iter(encoders))
    base = statistics.median(times[first])
    print(f"{'':10} {'type':>8} {'images/s':>9} {'to eager':>9} {'changed':>8}")
    for name, values in times.items():
        median = statistics.median(values)
        changed = (codes[name] != codes[first]).float().mean().item()
        print(f"{name[0]:10} {name[1]:>8} {len(inputs) / median * 1e3:>9.1f} {base / median:>9.2f} "
              f"{changed:>8.2%}")


def compare_training(batch_size: int, repeats: int) -> None:
    """Print the time of a prior's training step in each precision, plain and compiled."""
    codes = torch.randint(1024, (batch_size, 256), device="cuda")
    print(f"training steps of a prior of 12 layers x 768, {batch_size} rows of 256 codes")
    for precision in ("no", "bf16"):
        states = {name: build_ours(12, 768, TrainingConfig(
            steps=1000, batch_size=batch_size, mixed_precision=precision,
            compile=name == "compiled")) for name in ("plain", "compiled")}
        seconds = measure({name: functools.partial(state.train_step, Batch({}, codes), 0.0)
                           for name, state in states.items()}, repeats, time.perf_counter)
        for name, value in seconds.items():
            print(f"{name:10} {precision:>8} {value * 1e3:>9.1f} ms "
                  f"{seconds['plain'] / value:>6.2f} times the speed of the plain one")


def compare_sampling(shape: tuple[int, int], side: int, batch_size: int, repeats: int,
                     device: torch.device) -> None:
    """Print the codes a second of a prior of some layers and channels, drawn in each way."""
    model = build(*shape, side, num_codes=1024).eval().to(device)
    seeds = [(0, row) for row in range(batch_size)]

    def draw(backend: str) -> None:
        compiling.BACKEND = backend or compiling.BACKEND
        generate(model, {}, seeds, Generation(batch_size=batch_size, compile=bool(backend)))

    print(f"sampling from a prior of {shape[0]} layers x {shape[1]}, {batch_size} images of "
          f"{side * side} codes")
    plain = None
    for name, backend in (("plain", ""), ("graph", "eager"), ("compiled", "inductor")):
        fixed_stepper.cache_clear()  # one way after the other, as one set of steps is kept
        seconds = measure({name: functools.partial(draw, backend)}, repeats,
                          time.perf_counter)[name]
        plain = plain or seconds
        print(f"{name:10} {batch_size * side * side / seconds:>9.0f} codes/s "
              f"{plain / seconds:>6.2f} times the speed of the plain one")


def main() -> None:
    """Measure, where there is a GPU."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="f16_1024")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print(f"no GPU: torch {torch.__version__} finds no CUDA device here; nothing was measured")
        return
    torch.manual_seed(0)
    model = VQGAN(build_recipe(arguments.recipe, {"name": "image"}).model).eval().cuda()
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    inputs = torch.rand(arguments.batch_size, 3, *model.config.image_size, device="cuda") * 2 - 1
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {arguments.recipe}, batches "
          f"of {arguments.batch_size}, medians of {arguments.repeats} rounds in turn")
    with reproducible(inputs.device):
        compare(model, inputs, not arguments.no_compile, arguments.repeats)
    if not arguments.no_compile:
        compare_training(arguments.batch_size, arguments.repeats)
        compare_sampling((12, 768), 16, arguments.batch_size, arguments.repeats, inputs.device)


if __name__ == "__main__":
    main()
