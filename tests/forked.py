"""Processes that have imported everything when they begin: each costs a fork, not seconds.

One server for each process of the tests imports the heavy libraries, once, and forks. What has to
show how a process starts (a launcher, a command that decides how torch loads) uses `subprocess`.
"""
import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from subprocess import TimeoutExpired

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["torch._dynamo", "tokenizer.training.loop", "prior.training", "prior.sampling",
     "tokenizer.codec", "pipelines.encode", "pipelines.graph", "cli.encode"])


class Forked:
    """A Python program in a process group of its own; in use like a `subprocess.Popen`.

    Args:
        program: a file, or the name of a module that ``python -m`` would run.
        variables: of the environment, beside those of this process.
    Attributes:
        returncode: its exit code once it was waited for; less than 0 where a signal has ended it.
    """

    def __init__(self, program: str | Path, *arguments: object,
                 variables: Mapping[str, str] | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._texts = [Path(self._folder.name, name) for name in ("output", "errors")]
        words = [str(program), *map(str, arguments)]
        self._process: BaseProcess = CONTEXT.Process(
            target=_run, args=(words, os.environ | dict(variables or {}), self._texts),
            daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        """Its exit code, or nothing while it runs."""
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code.

        Raises:
            TimeoutExpired: it runs on.
        """
        self._process.join(timeout)
        if self.returncode is None:
            raise TimeoutExpired(self._process.name, timeout or 0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait until it ends; what it wrote to standard output and to standard error."""
        self.wait(timeout)
        output, errors = (path.read_text() if path.exists() else "" for path in self._texts)
        return output, errors


def _run(words: list[str], variables: dict[str, str], texts: list[Path]) -> None:
    """What the forked process does."""
    os.setsid()
    multiprocessing.set_start_method(None, force=True)  # that of any other process
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(variables)
    for number, path in zip((1, 2), texts, strict=True):
        os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND), number)
    sys.argv = words
    run = runpy.run_path if words[0].endswith(".py") else runpy.run_module
    run(words[0], run_name="__main__")
