"""The cache of codes holds what the shards hold, appears whole, and belongs to one corpus."""
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from prior.dataset import CodeRows
from prior.loading import cache as module
from prior.loading.cache import CachedRows, cached_rows
from prior.loading.shards import ShardReader
from prior.sequence import LABEL
from tokenizer.tokens import TokenCorpus

MODALITIES = ("image", "segmentation")


def caches(folder: Path) -> list[Path]:
    return sorted(folder.glob("codes-*"))


def holds(cached: CachedRows, corpus: TokenCorpus) -> bool:
    rows = CodeRows.load(corpus, MODALITIES)
    expected = rows.columns(np.arange(len(rows)))
    keys = [key for array in cached.keys for key in array.to_pylist()]
    return keys == rows.keys and all(
        column.dtype == expected[name].dtype and np.array_equal(column, expected[name])
        for name, column in cached.columns.items())


def no_reading(self: ShardReader, shard: int) -> None:
    raise AssertionError("a shard was read")


def test_the_cache_holds_the_rows_at_their_stored_width(make_corpus: Callable[..., TokenCorpus],
                                                        tmp_path: Path) -> None:
    corpus = make_corpus("deep", num_shards=5, depths={"image": 3})
    cached = cached_rows(corpus, MODALITIES, str(tmp_path / "cache"))
    assert holds(cached, corpus)
    assert cached.columns["image"].dtype == np.uint16
    assert cached.columns.keys() == {LABEL, *MODALITIES}
    assert not cached.columns["image"].flags.owndata  # mapped, not read
    assert [len(array) for array in cached.keys] == [12] * 5


def test_a_corpus_is_read_once(corpus: TokenCorpus, tmp_path: Path,
                               monkeypatch: pytest.MonkeyPatch) -> None:
    cached_rows(corpus, MODALITIES, str(tmp_path / "cache"))
    monkeypatch.setattr(ShardReader, "codes", no_reading)
    assert holds(cached_rows(corpus, MODALITIES, str(tmp_path / "cache")), corpus)
    assert len(caches(tmp_path / "cache")) == 1


def test_other_modalities_or_rows_have_a_cache_of_their_own(
        corpus: TokenCorpus, make_corpus: Callable[..., TokenCorpus], tmp_path: Path) -> None:
    same_fingerprint = make_corpus("other", seed=3)
    cached_rows(corpus, MODALITIES, str(tmp_path / "cache"))
    cached_rows(corpus, ["image"], str(tmp_path / "cache"))
    cached = cached_rows(same_fingerprint, MODALITIES, str(tmp_path / "cache"))
    assert len(caches(tmp_path / "cache")) == 3 and holds(cached, same_fingerprint)


@pytest.mark.parametrize("name", ["image.npy", "label.npy", "keys.arrow", "cache.json"])
def test_a_cache_with_a_part_missing_or_cut_short_is_made_again(
        name: str, corpus: TokenCorpus, tmp_path: Path) -> None:
    for damage in ("missing", "cut"):
        cached_rows(corpus, MODALITIES, str(tmp_path / "cache"))
        path = caches(tmp_path / "cache")[0] / name
        if damage == "missing":
            path.unlink()
        elif name != "keys.arrow":
            path.write_bytes(path.read_bytes()[:-4])
        assert holds(cached_rows(corpus, MODALITIES, str(tmp_path / "cache")), corpus)
        assert len(list((tmp_path / "cache").iterdir())) == 1


def test_processes_that_make_it_at_once_end_up_with_one(corpus: TokenCorpus,
                                                        tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: cached_rows(corpus, MODALITIES, str(tmp_path / "cache")),
                             range(8)))
    assert all(holds(cached, corpus) for cached in made)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [
        caches(tmp_path / "cache")[0].name]


def test_making_that_fails_leaves_nothing_behind(corpus: TokenCorpus, tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    original = ShardReader.codes

    def full_disk(self: ShardReader, shard: int) -> object:
        if shard == 1:
            raise OSError(28, "No space left on device")
        return original(self, shard)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(ShardReader, "codes", full_disk)
        cached_rows(corpus, MODALITIES, str(tmp_path / "cache"))
    assert not list((tmp_path / "cache").iterdir())
    assert holds(cached_rows(corpus, MODALITIES, str(tmp_path / "cache")), corpus)


def test_what_a_killed_maker_left_is_removed(corpus: TokenCorpus, tmp_path: Path) -> None:
    name = module.storage._temporary_name().replace(f"-{module.os.getpid()}-", "-999999999-")
    (tmp_path / "cache" / name).mkdir(parents=True)
    cached_rows(corpus, MODALITIES, str(tmp_path / "cache"))
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_the_cache_says_what_it_was_made_of(corpus: TokenCorpus, tmp_path: Path) -> None:
    cached_rows(corpus, ["image"], str(tmp_path))
    content = json.loads((caches(tmp_path)[0] / "cache.json").read_text())
    assert content["fingerprint"] == corpus.manifest.fingerprint
    assert content["shards"] == [entry.sha256 for entry in corpus.manifest.shards]


def test_a_remote_folder_is_refused(corpus: TokenCorpus) -> None:
    with pytest.raises(ValueError, match="local folder, got memory://cache"):
        cached_rows(corpus, MODALITIES, "memory://cache")
