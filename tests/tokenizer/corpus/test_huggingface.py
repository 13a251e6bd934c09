"""Data sets of the library `datasets`: saved, of folders, by id; by split and row."""
import pickle
from pathlib import Path
from typing import Any

import datasets
import pytest
from corpus_files import encode, noise, save

from tokenizer.corpus.sources import Entry, InputError, SourceChanged, open_source


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library keeps its files in a folder of the test, and asks no server."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def rows(first: int = 0, count: int = 6) -> datasets.Dataset:
    features = datasets.Features({
        "image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"]),
        "depth": datasets.Value("binary"), "text": datasets.Value("string")})
    numbers = range(first, first + count)
    return datasets.Dataset.from_dict({
        "image": [{"bytes": encode(noise(number, 4, 4)), "path": None} for number in numbers],
        "label": [number % 2 if number else -1 for number in numbers],
        "depth": [b"depth %d" % number for number in numbers],
        "text": [f"number {number}" for number in numbers]}, features=features)


@pytest.fixture
def saved(tmp_path: Path) -> str:
    """A folder of one split."""
    rows().save_to_disk(str(tmp_path / "saved"))
    return str(tmp_path / "saved")


def keys_of(entries: list[Entry]) -> list[str]:
    return [entry.key for entry in entries]


@pytest.mark.parametrize("prefix", ["", "datasets:"])
def test_a_saved_data_set_is_read_by_row(saved: str, prefix: str) -> None:
    source = open_source(prefix + saved)
    entries = list(source.entries())
    assert keys_of(entries) == [f"all-{number:08d}" for number in range(6)]
    assert entries[4].source == f"{prefix}{saved}@all#row=4"
    assert source.classes() == ["cat", "dog"]
    assert [(entry.label, entry.class_name, entry.caption) for entry in entries[:3]] == [
        (None, None, "number 0"), (1, "dog", "number 1"), (0, "cat", "number 2")]
    read = pickle.loads(pickle.dumps(source)).read
    assert [read(entry)["image"] for entry in entries[::-1]] == [
        encode(noise(number, 4, 4)) for number in range(5, -1, -1)]


def test_maps_are_columns(saved: str) -> None:
    source = open_source(saved, {"depth": "column:depth"})
    entry = list(source.entries())[3]
    assert source.read(entry) == {"image": encode(noise(3, 4, 4)), "depth": b"depth 3"}
    assert entry.sources["depth"] == f"{saved}@all#row=3&column=depth"
    with pytest.raises(ValueError, match="column text of .* holds no files for depth"):
        list(open_source(saved, {"depth": "column:text"}).entries())


def test_splits_and_rows_are_chosen(tmp_path: Path) -> None:
    datasets.DatasetDict(train=rows(), test=rows(6)).save_to_disk(str(tmp_path / "saved"))
    url = f"{tmp_path}/saved"
    assert keys_of(list(open_source(f"{url}@test").entries()))[0] == "test-00000000"
    some = open_source(f"{url}@train[2:4]")
    entries = list(some.entries())
    assert keys_of(entries) == ["train-00000002", "train-00000003"]
    assert some.read(entries[0]) == {"image": encode(noise(2, 4, 4))}
    assert keys_of(list(open_source(f"datasets:{url}@train[5:]").entries())) == ["train-00000005"]
    with pytest.raises(ValueError, match=r"has the splits train, test: choose one, as in .*@train"):
        list(open_source(url).entries())
    with pytest.raises(ValueError, match="no split 'dev'; it has train, test"):
        list(open_source(f"{url}@dev").entries())
    with pytest.raises(ValueError, match=r"the split 'train\[:10%\]' .* is not of the form"):
        open_source(f"datasets:{url}@train[:10%]")
    for name in ("datasets:", "datasets:@train"):
        with pytest.raises(ValueError, match=f"{name} names no data set; write for example"):
            open_source(name)


def test_folders_keep_their_keys_and_classes(tmp_path: Path) -> None:
    for name in ("cat/a", "cat/b", "dog/c"):
        save(tmp_path / f"photos/train/{name}.png", noise(len(name)))
    source = open_source(f"datasets:imagefolder:{tmp_path}/photos")
    entries = list(source.entries())
    assert keys_of(entries) == ["train/cat/a", "train/cat/b", "train/dog/c"]
    assert [entry.class_name for entry in entries] == ["cat", "cat", "dog"]
    assert source.read(entries[2]) == {"image": (tmp_path / "photos/train/dog/c.png").read_bytes()}
    (tmp_path / "photos/train/dog/c.png").unlink()
    with pytest.raises(FileNotFoundError):
        source.read(entries[2])


def test_a_row_without_an_image_is_one_dead_letter(tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image(), "key": datasets.Value("string")})
    datasets.Dataset.from_dict({"image": [None, None], "key": ["a", None]},
                               features=features).save_to_disk(str(tmp_path / "saved"))
    source = open_source(f"{tmp_path}/saved")
    first, second = source.entries()
    with pytest.raises(InputError, match="row 0 has no image in column image"):
        source.read(first)
    assert second.problem is not None and second.problem[0] == "NoKey"


def test_a_data_set_that_changed_is_not_read(saved: str, tmp_path: Path) -> None:
    source = open_source(saved)
    entry = next(source.entries())
    before = source.files()
    assert open_source(saved).files() == before
    worker = pickle.loads(pickle.dumps(source))
    rows(3).save_to_disk(str(tmp_path / "other"))
    (tmp_path / "saved").rename(tmp_path / "old")
    (tmp_path / "other").rename(tmp_path / "saved")
    assert open_source(saved).files() != before
    with pytest.raises(SourceChanged, match="has changed since it was listed: it was 6 rows"):
        worker.read(entry)


def test_an_id_of_the_hub_is_loaded_with_its_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(*args: Any, **settings: Any) -> datasets.DatasetDict:
        asked.append((args, settings))
        return datasets.DatasetDict(train=rows())
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source = open_source("datasets:user/name@train#config=small&revision=abc")
    entry = list(source.entries())[2]
    assert entry.source == "datasets:user/name@train#row=2"
    assert source.read(entry) == {"image": encode(noise(2, 4, 4))}
    assert asked[0] == (("user/name", "small"), {"revision": "abc"})


def test_what_cannot_be_found_is_said() -> None:
    with pytest.raises(OSError, match="user/no-such-name"):
        list(open_source("datasets:user/no-such-name").entries())
    with pytest.raises(FileNotFoundError, match="/nowhere is no folder"):
        list(open_source("datasets:imagefolder:/nowhere").entries())
