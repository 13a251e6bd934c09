"""Processes that train together on the CPU, for tests."""
import os
import socket
import subprocess
import sys
from pathlib import Path

from forked import Forked

ROOT = Path(__file__).parent.parent


def free_port() -> str:
    """A port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def launch(script: str, *arguments: str) -> str:
    """Run a script as two processes on the CPU, through ``accelerate launch``.

    Returns:
        What both wrote to standard output, without white space.
    """
    # Without --multi_gpu one process is started; what it runs on says the environment.
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines",
               "1", "--num_processes", "2", "--num_cpu_threads_per_process", "1",
               "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port",
               free_port(), script, *arguments]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, env=variables, timeout=600, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return "".join(_own(done.stdout).split())


def run_ranks(script: str, *arguments: str) -> tuple[list[int], list[str], list[str]]:
    """Run a script as two processes that know of each other, without a launcher that ends both.

    Returns:
        Their exit codes, and what each wrote to standard output, stripped, and to standard error.
    """
    shared = {"ACCELERATE_USE_CPU": "true", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
              "MASTER_PORT": free_port()}
    ranks = [Forked(script, *arguments, variables={**shared, "RANK": rank, "LOCAL_RANK": rank})
             for rank in "01"]
    try:
        written = [process.communicate(timeout=300) for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    return ([process.wait() for process in ranks], [_own(output) for output, _ in written],
            [errors for _, errors in written])


def _own(output: str) -> str:
    """Standard output, stripped, without what some versions of torch say there of connections."""
    return "\n".join(line for line in output.splitlines()
                     if not line.startswith("[Gloo] ")).strip()
