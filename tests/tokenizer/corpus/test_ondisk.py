"""What waits on disk comes back as it was, in Python's order, and memory does not grow with it."""
import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from corpus_files import encode, noise

from tokenizer.corpus.sources import FolderSource, folder, ondisk
from tokenizer.corpus.sources.ondisk import sorted_rows

NAMES = ["", "a", "a.b", "a/", "a b", "A", "é", "e\u0301", "\udcff", "\udc80x", "日本",
         "\U0001f600", "\uffff", "\x00", "a\x00b", "'", '"', "%"]


@pytest.mark.parametrize("rows_at_once", [3, 1000])
def test_rows_come_in_the_order_of_python(monkeypatch: pytest.MonkeyPatch,
                                          rows_at_once: int) -> None:
    monkeypatch.setattr(ondisk, "ROWS_AT_ONCE", rows_at_once)
    rows = [(name, number, other) for name in NAMES for number in (2, 10) for other in NAMES[:4]]
    random.Random(0).shuffle(rows)
    assert list(sorted_rows(iter(rows), 3)) == sorted(rows)
    assert list(sorted_rows([], 3)) == []


def test_memory_does_not_grow_with_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ondisk, "ROWS_AT_ONCE", 500)
    tracemalloc.start()
    rows = ((f"{number * 7919 % 20_011:020d}", number) for number in range(20_000))
    previous, count = "", 0
    for name, _ in sorted_rows(rows, 2):
        assert name > previous
        previous, count = name, count + 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 20_000
    assert peak < 400_000  # all rows are 3 million bytes


def test_a_folder_sorted_on_disk_is_listed_like_any_other(monkeypatch: pytest.MonkeyPatch,
                                                          tmp_path: Path) -> None:
    for name in ("b.png", "a.png", "a.jpg", "a/x.png", "a.b/y.png", "c.txt", "B.png", "é.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(encode(noise(0, 2, 2)))
    (tmp_path / "photos/gone.png").symlink_to("nowhere")
    source = FolderSource(str(tmp_path / "photos"))
    before = list(source.entries()), source.notes
    monkeypatch.setattr(ondisk, "ROWS_AT_ONCE", 2)
    assert (list(source.entries()), source.notes) == before
    assert [entry.key for entry in before[0]] == ["B", "a", "a", "a.b/y", "a/x", "b", "gone", "é"]


def test_memory_does_not_hold_one_flat_folder(monkeypatch: pytest.MonkeyPatch,
                                              tmp_path: Path) -> None:
    def listing(root: str, path: str) -> Iterator[folder.Listed]:
        return (folder.Listed(f"{number:06d}.png", "file", "2 bytes") for number in range(10_000))
    monkeypatch.setattr(folder, "_list_local", listing)
    monkeypatch.setattr(ondisk, "ROWS_AT_ONCE", 500)
    source = FolderSource(str(tmp_path), labels="none")
    tracemalloc.start()
    count = sum(1 for _ in source.entries())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 10_000
    assert peak < 500_000
