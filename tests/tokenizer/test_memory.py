"""Memory that stays with the process: large blocks are not fetched from the system again."""
import platform
import resource
from pathlib import Path

import pytest
from forked import Forked

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


def page_faults(folder: Path, setting: str) -> int:
    (folder / "faults.py").write_text(FAULTS.format(setting=setting))
    output, errors = Forked(folder / "faults.py").communicate(timeout=300)
    assert not errors
    return int(output)


@on_gnu
def test_kept_blocks_cost_few_page_faults(tmp_path: Path) -> None:
    pages = 4 * (48 << 20) // resource.getpagesize()
    assert page_faults(tmp_path, "") > 0.9 * pages
    kept = page_faults(
        tmp_path, "from tokenizer.memory import keep_freed_memory; keep_freed_memory()")
    # A small block that took a place in between may move one of the four.
    assert kept < 0.3 * pages


@on_gnu
def test_the_gnu_library_takes_the_settings_again_and_again() -> None:
    assert keep_freed_memory()
    assert keep_freed_memory()


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    assert keep_freed_memory() is False
