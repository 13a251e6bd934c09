"""Peak memory of the encode job on few and on many images: it must not grow with the corpus.

    python benchmarks/job_memory.py [--num-images 2000 40000] [--per-folder 0]

Small images are drawn (PNG, 40 x 48 pixels) and encoded with a tokenizer of the recipe ``tiny``
with random weights. Each job runs in a process of its own, by ``encode_corpus`` with one worker.
Printed are images, seconds, and peak memory in MiB (``ru_maxrss``) of each, and the ratio of the
last to the first.
"""
import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from PIL import Image


def draw_images(folder: Path, num_images: int, per_folder: int) -> None:
    """Draw gradients with noise, in one folder, or in several of so many each."""
    for number in range(num_images):
        generator = np.random.default_rng(number)
        ramp = np.linspace(0, 200, 48)[None, :, None] * generator.uniform(0, 1, 3)
        pixels = (ramp + generator.integers(0, 56, (40, 1, 3))).astype(np.uint8)
        name = f"{number // per_folder:05d}/{number:06d}" if per_folder else f"{number:06d}"
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, compress_level=1)


def save_tokenizer(folder: Path) -> None:
    """A tokenizer of the recipe ``tiny`` that nobody has trained."""
    import torch

    from tokenizer import checkpoints, recipes
    from tokenizer.vqgan.model import KIND, VQGAN
    config = recipes.tiny({"name": "image"}).model
    torch.manual_seed(0)
    checkpoints.save_config(str(folder), KIND, config)
    checkpoints.save_weights(str(folder), VQGAN(config).codec_weights())


def encode(corpus: Path, tokenizer: Path, output: Path) -> dict[str, Any]:
    """Encode in this process: images, seconds, and peak memory in MiB."""
    from pipelines.encode import EncodeConfig, encode_corpus
    began = time.perf_counter()
    manifest = encode_corpus(EncodeConfig(corpus=str(corpus), output=str(output),
                                          tokenizers={"image": str(tokenizer)}, labels="none"))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {"images": manifest.num_rows, "seconds": round(time.perf_counter() - began, 1),
            "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
            "peak_mib": round(usage.ru_maxrss / 1024, 1)}


def measure(folder: Path, nums_images: Sequence[int], per_folder: int) -> dict[str, Any]:
    """One job for each number of images, each in a process of its own."""
    save_tokenizer(folder / "tokenizer")
    jobs = []
    for number in nums_images:
        corpus = folder / f"images-{number}"
        draw_images(corpus, number, per_folder)
        done = subprocess.run([sys.executable, __file__, "--job", str(corpus),
                               str(folder / "tokenizer"), str(folder / f"tokens-{number}")],
                              check=True, stdout=subprocess.PIPE, text=True)
        jobs.append(json.loads(done.stdout))
        print(done.stdout.strip(), file=sys.stderr, flush=True)
    return {"jobs": jobs, "ratio": round(jobs[-1]["peak_mib"] / jobs[0]["peak_mib"], 4)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--num-images", type=int, nargs="+", default=[2000, 40_000])
    parser.add_argument("--per-folder", type=int, default=0, help="0 for all in one folder")
    parser.add_argument("--job", type=Path, nargs=3, help="corpus, tokenizer, output: encode these")
    options = parser.parse_args(arguments)
    if options.job:
        print(json.dumps(encode(*options.job)))
        return
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder), options.num_images, options.per_folder), indent=1))


if __name__ == "__main__":
    main()
