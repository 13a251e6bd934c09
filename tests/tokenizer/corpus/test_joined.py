"""Maps in a source of their own pair with their images by key, whatever both lie in."""
import io
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus_files import save

from tokenizer.corpus.sources import open_source

Save = Callable[[Path, dict[str, bytes]], str]


def as_folder(place: Path, files: dict[str, bytes]) -> str:
    for name, content in files.items():
        save(place / name, content)
    return str(place)


def as_tar(place: Path, files: dict[str, bytes]) -> str:
    with tarfile.open(f"{place}.tar", "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return f"{place}.tar"


def as_parquet(place: Path, files: dict[str, bytes]) -> str:
    pq.write_table(pa.table({"key": [name.rpartition(".")[0] for name in files],
                             "image": list(files.values())}), f"{place}.parquet")
    return f"{place}.parquet"


def as_list(place: Path, files: dict[str, bytes]) -> str:
    as_folder(place, files)
    (place / "list.csv").write_text("\n".join(["path", *files]))
    return f"{place}/list.csv"


KINDS = [as_folder, as_tar, as_parquet, as_list]


@pytest.mark.parametrize("save_maps", KINDS)
@pytest.mark.parametrize("save_images", KINDS)
def test_maps_pair_by_key(tmp_path: Path, save_images: Save, save_maps: Save) -> None:
    images = {f"x/{name}.png": name.encode() for name in "abc"}
    maps = {f"x/{name}.png": name.encode() * 2 for name in "bcd"}
    source = open_source(save_images(tmp_path / "images", images),
                         {"depth": save_maps(tmp_path / "maps", maps)}, "none")
    assert source.modalities == ("image", "depth")
    for _ in range(2):
        entries = list(source.entries())
        assert [(entry.key, entry.problem and entry.problem[0]) for entry in entries] == [
            ("x/a", "MissingMap"), ("x/b", None), ("x/c", None), ("x/d", "MapWithoutImage")]
    copy = pickle.loads(pickle.dumps(source))
    assert [copy.read(entry) for entry in entries[1:3]] == [
        {"image": b"b", "depth": b"bb"}, {"image": b"c", "depth": b"cc"}]
    assert set(copy.files()) == set(source.files())


def test_a_damaged_map_is_the_problem_of_its_image(tmp_path: Path) -> None:
    images = as_folder(tmp_path / "images", {"a.png": b"a", "b.png": b"b"})
    url = as_tar(tmp_path / "maps", {"a.png": b"a" * 600, "b.png": b"b" * 600})
    Path(url).write_bytes(Path(url).read_bytes()[:2300])
    source = open_source(images, {"depth": url})
    assert {entry.key: entry.problem and entry.problem[0] for entry in source.entries()} == {
        "a": None, "b": "TruncatedArchive", "maps#2300": "DamagedArchive"}


def test_a_damaged_image_is_one_dead_letter_and_its_map_none(tmp_path: Path) -> None:
    url = as_tar(tmp_path / "images", {"a.png": b"a" * 600, "b.png": b"b" * 600})
    Path(url).write_bytes(Path(url).read_bytes()[:2300])
    maps = as_folder(tmp_path / "maps", {"a.png": b"a", "b.png": b"b", "c.png": b"c"})
    source = open_source(url, {"depth": maps}, "none")
    assert [(entry.key, entry.problem and entry.problem[0]) for entry in source.entries()] == [
        ("a", None), ("b", "TruncatedArchive"), ("images#2300", "DamagedArchive"),
        ("c", "MapWithoutImage")]


def test_own_and_further_maps_go_together(tmp_path: Path) -> None:
    url = as_tar(tmp_path / "images", {"a.png": b"a", "a.segmentation.png": b"s"})
    maps = as_folder(tmp_path / "depths", {"a.npy": b"d"})
    source = open_source(url, {"segmentation": ".segmentation.png", "depth": maps})
    entry, = source.entries()
    assert source.read(entry) == {"image": b"a", "segmentation": b"s", "depth": b"d"}
    assert set(entry.ranges) == {"image", "segmentation"}


def test_wrong_maps_are_refused(tmp_path: Path) -> None:
    url = as_tar(tmp_path / "images", {"a.png": b"a"})
    folder = as_folder(tmp_path / "photos", {"a.png": b"a"})
    with pytest.raises(ValueError, match="edges are computed from image files"):
        open_source(url, {"edges": folder})
    with pytest.raises(ValueError, match="image is the corpus itself"):
        open_source(url, {"image": folder})
    with pytest.raises(FileNotFoundError, match=r"depth maps .*nowhere.*give depth=column:NAME"):
        open_source(url, {"depth": f"{tmp_path}/nowhere"})
    with pytest.raises(ValueError, match="the maps column:depth are a column"):
        open_source(folder, {"depth": "column:depth"})
