"""Worker processes end with their driver, at whatever moment that ends."""
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

WORKER = """
import sys, time
from pipelines import worker
worker.SECONDS_BETWEEN_LOOKS = float(sys.argv[2])
worker.die_with(int(sys.argv[1]))
print("begun", flush=True)
time.sleep(300)
"""

DRIVER = """
import os, subprocess, sys
subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid()), sys.argv[2]]).wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a worker looks for its driver")
def test_the_kernel_ends_a_worker_whose_driver_is_killed() -> None:
    require_end_with_driver(seconds_between_looks=300)


def test_a_worker_that_looks_finds_its_driver_gone() -> None:
    require_end_with_driver(0.05, "import sys; sys.platform = 'other'")


def require_end_with_driver(seconds_between_looks: float, before: str = "") -> None:
    """Kill the driver of a worker, and wait until the worker holds its output open no more."""
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, f"{before}\n{WORKER}", str(seconds_between_looks)],
        stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert driver.stdout and driver.stdout.readline() == "begun\n"
    driver.kill()
    assert driver.communicate(timeout=150)[0] == ""


def test_a_worker_whose_driver_was_faster_gone_does_not_begin() -> None:
    done = subprocess.run([sys.executable, "-c", WORKER, "1", "60"], cwd=ROOT, timeout=90,
                          capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
