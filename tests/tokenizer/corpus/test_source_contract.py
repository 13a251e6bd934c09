"""What holds for every kind of source: repeatable, picklable, complete, the same in training."""
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from source_kinds import WRITERS

from tokenizer.corpus.dataset import CorpusDataset
from tokenizer.corpus.modalities import RGB
from tokenizer.corpus.sources import SOURCES, Source, open_source


@pytest.fixture(params=list(SOURCES))
def url(request: pytest.FixtureRequest, image_folder: Callable[[int], Path],
        tmp_path: Path) -> str:
    """Ten drawn photos in each kind of source."""
    return WRITERS[request.param](image_folder(10), tmp_path / "source")


@pytest.fixture
def source(url: str) -> Source:
    return open_source(url, labels="none")


def test_entries_are_the_same_each_time(source: Source, url: str) -> None:
    first = list(source.entries())
    assert list(source.entries()) == first
    assert list(open_source(url, labels="none").entries()) == first
    assert [entry.key for entry in first] == list(source.keys())
    assert len({entry.key for entry in first}) == len({entry.source for entry in first}) == 10


def test_slices_are_disjoint_and_complete(source: Source) -> None:
    entries = list(source.entries())
    again = [entry for start in (0, 4, 8) for entry in list(source.entries())[start:start + 4]]
    assert again == entries and not any(entry.problem for entry in entries)


@pytest.mark.parametrize("is_listed", [False, True])
def test_a_copy_in_another_process_reads_the_same(source: Source, tmp_path: Path,
                                                  is_listed: bool) -> None:
    entries = list(source.entries())
    if is_listed:
        source.read(entries[0])
    copy = pickle.loads(pickle.dumps(source))
    for entry in pickle.loads(pickle.dumps(entries))[::-1]:
        assert copy.read(entry) == {
            "image": (tmp_path / f"photos/{entry.key}.png").read_bytes()}


def test_files_are_told_the_same_each_time(source: Source, url: str) -> None:
    assert source.files() == open_source(url).files() == pickle.loads(pickle.dumps(source)).files()
    assert bool(source.files()) == (type(source).name != "folder")


def test_training_sees_the_same_pixels(source: Source, tmp_path: Path) -> None:
    folder = open_source(str(tmp_path / "photos"), labels="none")
    found, expected = (CorpusDataset(some, RGB(), (16, 16), seed=3) for some in (source, folder))
    assert [entry.key for entry in found.train] == [entry.key for entry in expected.train]
    assert np.array_equal(found.batch(1, 6), expected.batch(1, 6))


def test_an_unknown_option_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="has no option 'colour' behind its '#'"):
        open_source(f"{url}#colour=red")
