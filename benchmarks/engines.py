"""One corpus five ways: the same bytes? At what cost?

    python benchmarks/engines.py CORPUS TOKENIZER [--shard-size 64] [--repeats 2]

    local        one process
    processes    two processes of the local engine
    Dask         a scheduler and two workers on this machine
    job service  Beam's, with its pool of workers, which starts them anew for each job
    array        two tasks of a job array at the same time, without Beam

Each way is the command as people type it, from its start to a verified corpus, so many times:
workers of the Dask cluster, which stays up in between, load torch and the tokenizer the first time
only. Every file below each output folder is compared with the first way's.
"""
import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "tests"))

from clusters import dask_cluster, job_service  # noqa: E402

from tokenizer.tokens import TokenCorpus  # noqa: E402


class Commands:
    """``img2tokens encode`` of one corpus, with different engines.

    Args:
        folder: where the outputs go.
    """

    def __init__(self, corpus: str, tokenizer: str, shard_size: int, folder: Path) -> None:
        self.folder = folder
        self._inputs = [sys.executable, "-m", "cli", "encode", os.path.abspath(corpus)]
        self._options = ["--tokenizer", f"image={os.path.abspath(tokenizer)}", "--labels", "none",
                         "--shard-size", str(shard_size)]

    def seconds(self, out: str, *engines: Sequence[str]) -> float:
        """How long commands take that write to one folder at the same time, one for each engine."""
        began = time.perf_counter()
        running = [subprocess.Popen(
            [*self._inputs, str(self.folder / out), *self._options, *engine], cwd=ROOT,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for engine in engines]
        codes = [process.wait() for process in running]
        if any(codes):
            raise RuntimeError(f"{out}: the commands ended with {codes}")
        return time.perf_counter() - began


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its path."""
    return {str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*") if path.is_file()}


def compare(commands: Commands, ways: Mapping[str, Sequence[Sequence[str]]],
            repeats: int) -> bool:
    """Encode the corpus every way, and print a line for each.

    Args:
        ways: by name, the options of each command that runs at the same time.
    Returns:
        Whether all wrote the same files.
    """
    print("| way | images | seconds, one run after the other | same files |\n|---|---|---|---|")
    expected: dict[str, bytes] = {}
    all_same = True
    for way, engines in ways.items():
        outputs = [commands.folder / f"{way} {repeat}" for repeat in range(repeats)]
        seconds = [commands.seconds(output.name, *engines) for output in outputs]
        expected = expected or tree(outputs[0])
        num_images = TokenCorpus.open(str(outputs[0])).manifest.num_inputs
        same = all(tree(output) == expected for output in outputs)
        all_same = all_same and same
        told = ", ".join(f"{value:.1f}" for value in seconds)
        print(f"| {way} | {num_images} | {told} | {'yes' if same else 'NO'} |", flush=True)
    return all_same


def main() -> None:
    """Parse the command line, start the clusters and compare; ends with 1 where bytes differ."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus")
    parser.add_argument("tokenizer")
    parser.add_argument("--shard-size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folders = [Path(stack.enter_context(
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True))) for _ in range(3)]
        dask = stack.enter_context(dask_cluster(folders[0]))
        service = stack.enter_context(job_service(folders[1]))
        ways = {
            "local": [[]], "processes": [["--num-workers", "2"]],
            "Dask": [["--engine", dask.engine]],
            "job service": [["--engine", service.engine, "--", *service.flags,
                             "--direct_num_workers=2"]],
            "array": [["--array-index", str(index), "--array-size", "2"] for index in range(2)]}
        commands = Commands(options.corpus, options.tokenizer, options.shard_size, folders[2])
        sys.exit(not compare(commands, ways, options.repeats))


if __name__ == "__main__":
    main()
