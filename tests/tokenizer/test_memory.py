"""Memory that stays with the process: large blocks are not fetched from the system again."""
import platform
import resource
import subprocess
import sys

import pytest

from tokenizer.memory import keep_freed_memory

FAULTS = """
import resource, torch
{setting}
def faults(rounds):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        torch.ones(12 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(40)  # until the heap has grown enough
print(faults(4))
"""
"""Counts the pages of 48 MiB of features that the system clears in four rounds."""

on_gnu = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the GNU C library alone")


def page_faults(setting: str) -> int:
    done = subprocess.run([sys.executable, "-c", FAULTS.format(setting=setting)],
                          capture_output=True, text=True, check=True)
    return int(done.stdout)


@on_gnu
def test_kept_blocks_cost_few_page_faults() -> None:
    pages = 4 * (48 << 20) // resource.getpagesize()
    assert page_faults("") > 0.9 * pages
    kept = page_faults("from tokenizer.memory import keep_freed_memory; keep_freed_memory()")
    # A small block that took a place in between may move one of the four.
    assert kept < 0.3 * pages


@on_gnu
def test_the_gnu_library_takes_the_settings_again_and_again() -> None:
    assert keep_freed_memory()
    assert keep_freed_memory()


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    assert keep_freed_memory() is False
