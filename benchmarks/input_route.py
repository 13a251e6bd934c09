"""From JPEG bytes to pixels of a crop: the routes srgb and turbo beside each other, on one thread.

    python benchmarks/input_route.py FOLDER [--side 256] [--images 100] [--repeats 7]

Each route reads every JPEG of a folder and fits its largest centred square to ``--side``, as the
job does; `docs/images.md` says how they differ. They are timed in turn over the same files, so that
both meet the same state of the machine, in CPU seconds of the thread; medians count. Beside them
stand the largest differences in levels, of decoding and of resampling apart. ``sha256`` is over
the resampled pixels of turbo: ``ATEN_CPU_CAPABILITY=default`` before the command takes torch's code
for processors without AVX2, and must not change it.
"""
import argparse
import hashlib
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from tokenizer.corpus.images import SRGB, TURBO, UnreadableImage, centre_crop
from tokenizer.corpus.modalities import RGB

Read = Callable[[bytes], np.ndarray]


def whole(modality: RGB, size: tuple[int, int]) -> Read:
    """Bytes to the pixels of the centred crop."""
    def run(payload: bytes) -> np.ndarray:
        raw = modality.read(payload, "")
        return modality.fit(raw, centre_crop(*raw.shape[:2], size), size)
    return run


def alternate(runs: dict[str, Read], payloads: Sequence[bytes],
              repeats: int) -> dict[str, list[float]]:
    """CPU seconds of each route over all files, taken in turn, after a round that warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            began = time.thread_time()
            for payload in payloads:
                run(payload)
            if repeat:
                seconds[name].append(time.thread_time() - began)
    return seconds


def differences(payloads: Sequence[bytes], size: tuple[int, int]) -> dict[str, float | str]:
    """Largest differences in levels, the share of resampled levels that differ, and their hash."""
    decoded = resampled = differing = total = 0
    digest = hashlib.sha256()
    slow, fast = RGB(route=SRGB), RGB(route=TURBO)
    for payload in payloads:
        ours, theirs = slow.read(payload, ""), fast.read(payload, "")
        decoded = max(decoded, int(np.abs(ours.astype(int) - theirs).max()))
        crop = centre_crop(*ours.shape[:2], size)
        small, other = slow.fit(ours, crop, size), fast.fit(ours, crop, size)
        apart = np.abs(small.astype(int) - other)
        resampled = max(resampled, int(apart.max()))
        differing += int((apart > 0).sum())
        total += apart.size
        digest.update(other.tobytes())
    return {"levels_by_decoding": decoded, "levels_by_resampling": resampled,
            "share_resampled_otherwise": round(differing / total, 4),
            "sha256": digest.hexdigest()[:16]}


def readable(paths: Sequence[Path], count: int) -> list[bytes]:
    """The first files that can be read."""
    payloads: list[bytes] = []
    for path in paths:
        try:
            RGB(route=SRGB).read(path.read_bytes(), path.name)
        except UnreadableImage:
            continue
        payloads.append(path.read_bytes())
        if len(payloads) == count:
            break
    return payloads


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args(arguments)
    size = (options.side, options.side)
    paths = sorted(path for path in options.folder.rglob("*")
                   if path.suffix.lower() in (".jpg", ".jpeg"))
    payloads = readable(paths, options.images)
    runs = {route: whole(RGB(route=route), size) for route in (SRGB, TURBO)}
    seconds = alternate(runs, payloads, options.repeats)
    milliseconds = {name: round(1000 * statistics.median(values) / len(payloads), 3)
                    for name, values in seconds.items()}
    print(json.dumps({
        "images": len(payloads), "side": options.side,
        "milliseconds_an_image": milliseconds,
        "ratio": round(milliseconds[SRGB] / milliseconds[TURBO], 2),
        "capability": torch.backends.cpu.get_cpu_capability(),
        **differences(payloads, size)}, indent=1))


if __name__ == "__main__":
    main()
