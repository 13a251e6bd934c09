"""How much of the codec's own speed the encode job keeps, from files on disk to a verified corpus.

    python benchmarks/encode_job.py CORPUS TOKENIZER [--num-workers N] [--repeats 5]

Three things are timed in turn, so that all meet the same state of the machine; medians count:

    bare      `Codec.encode` over batches of images that already lie decoded in memory, by as many
              threads as the job has workers, each encoder on one
    job       `encode_corpus` in this process: plan, read, decode, crop, encode, commit, audit
    command   ``img2tokens encode`` in a new process: the job, and loading Python, torch and Beam

The job's share is bare time over job time. With several workers the job starts processes within its
time, and each loads torch and Beam. A job has about 0.3 s of its own whatever its size.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from pipelines.encode import EncodeConfig, encode_corpus
from pipelines.shard import read_entry
from tokenizer.codec import Codec
from tokenizer.corpus.sources import open_source
from tokenizer.tokens import DeadLetter


def decoded(corpus: str, codec: Codec) -> np.ndarray:
    """All sound images of a corpus at the codec's size: ``(N, h, w, 3)`` uint8."""
    source = open_source(corpus, labels="none")
    results = (read_entry(entry, source, [{"image": codec}]) for entry in source.entries())
    return np.stack([record.pixels["image"] for result in results
                     if not isinstance(result, DeadLetter) for record in result])


def bare(codec: Codec, images: np.ndarray, num_workers: int) -> Callable[[], None]:
    """The codec alone, over batches in memory."""
    batches = [images[start:start + codec.batch_size]
               for start in range(0, len(images), codec.batch_size)]

    def run() -> None:
        with ThreadPoolExecutor(num_workers) as pool:
            list(pool.map(codec.encode, batches))
    return run


def job(config: EncodeConfig) -> Callable[[], None]:
    """The whole job in this process."""
    def run() -> None:
        shutil.rmtree(config.output, ignore_errors=True)
        encode_corpus(config)
    return run


def command(config: EncodeConfig) -> Callable[[], None]:
    """The whole job as a command."""
    arguments = [sys.executable, "-m", "cli", "encode", config.corpus, config.output,
                 "--tokenizer", f"image={config.tokenizers['image']}", "--labels", config.labels,
                 "--shard-size", str(config.shard_size), "--num-workers", str(config.num_workers)]

    def run() -> None:
        shutil.rmtree(config.output, ignore_errors=True)
        subprocess.run(arguments, check=True, capture_output=True)
    return run


def alternate(runs: dict[str, Callable[[], None]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each run, taken in turn; one round before that warms everything up."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            if repeat:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("corpus")
    parser.add_argument("tokenizer")
    parser.add_argument("--num-workers", type=int, default=1)
    parser.add_argument("--shard-size", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    codec = Codec.load(options.tokenizer)
    images = decoded(options.corpus, codec)
    with tempfile.TemporaryDirectory() as folder:
        config = EncodeConfig(corpus=options.corpus, output=f"{folder}/tokens", labels="none",
                              tokenizers={"image": options.tokenizer},
                              shard_size=options.shard_size, num_workers=options.num_workers)
        seconds = alternate({"bare": bare(codec, images, options.num_workers), "job": job(config),
                             "command": command(config)}, options.repeats)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(json.dumps({
        "num_images": len(images), "num_workers": options.num_workers, "seconds": seconds,
        "images_per_second": {name: len(images) / value for name, value in medians.items()},
        "job_share": medians["bare"] / medians["job"],
        "command_share": medians["bare"] / medians["command"]}, indent=1))


if __name__ == "__main__":
    main()
