"""Estimators: functions by name, held to their contract, and maps that are computed anyway."""
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from random_tokenizers import save_tokenizer

from cli.estimators import MapReader, find_estimators, load_function
from tokenizer.codec import Codec
from tokenizer.corpus.images import centre_crop

SIDE = 32


def codec(folder: Path, modality: str, **settings: Any) -> Codec:
    return Codec.load(save_tokenizer(folder / modality, modality=modality, **settings))


@pytest.fixture
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3)).astype(np.uint8)


def test_class_ids_come_as_pixels_of_the_tokenizer(tmp_path: Path, pictures: np.ndarray) -> None:
    reader = MapReader(lambda given: given[..., 0].astype(np.int64) % 3, "mine:segment",
                       codec(tmp_path, "segmentation", num_classes=3))
    found = reader(pictures)
    assert found.dtype == np.uint8 and reader.words == "mine:segment"
    np.testing.assert_array_equal(found, pictures[..., 0] % 3)


@pytest.mark.parametrize("settings", [{}, {"range": [1.0, 5.0]},
                                      {"range": [1.0, 5.0], "inverse": True}])
def test_depth_is_read_as_a_file_of_that_depth_would_be(
        settings: dict[str, Any], tmp_path: Path, pictures: np.ndarray) -> None:
    depth = 1 + pictures[..., 1].astype(np.float32) / 64
    mine = codec(tmp_path, "depth", **settings)
    np.save(tmp_path / "file.npy", depth[1])
    modality = mine.modality
    raw = modality.read((tmp_path / "file.npy").read_bytes(), "file.npy")
    expected = modality.fit(raw, centre_crop(SIDE, SIDE, (SIDE, SIDE)), (SIDE, SIDE))
    found = MapReader(lambda given: depth, "mine:depth", mine)(pictures)
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found[1], expected)


def test_maps_of_pictures_of_another_size_are_resampled(tmp_path: Path) -> None:
    large = np.zeros((1, 2 * SIDE, 2 * SIDE, 3), np.uint8)
    large[:, :SIDE] = 1
    reader = MapReader(lambda given: given[..., 0], "mine:segment",
                       codec(tmp_path, "segmentation", num_classes=3))
    found = reader(large)
    assert found.shape == (1, SIDE, SIDE) and found[0, :16].all() and not found[0, 16:].any()


@pytest.mark.parametrize(("result", "words"), [
    ([[0]], "mine:read must return an array, got list"),
    (np.zeros((3, 8, 8), np.uint8), r"maps of shape \(3, 32, 32\).*got \(3, 8, 8\)"),
    (np.zeros((2, SIDE, SIDE), np.uint8), r"one for each picture and of its size, got \(2, 32, 32"),
    (np.full((3, SIDE, SIDE), 7), "returned no segmentation map: class ids 7 at 1024 pixels"),
    (np.full((3, SIDE, SIDE), -1), "class ids are integers from 0 to 65535, got -1 to -1"),
    (np.zeros((3, SIDE, SIDE)), "class ids are integers from 0 to 65535, got float64"),
    (np.full((3, SIDE, SIDE), None), "class ids are integers from 0 to 65535, got object")])
def test_what_breaks_the_contract_is_told(result: Any, words: str, tmp_path: Path,
                                          pictures: np.ndarray) -> None:
    reader = MapReader(lambda given: result, "mine:read",
                       codec(tmp_path, "segmentation", num_classes=3))
    with pytest.raises(ValueError, match=words):
        reader(pictures)


def test_depth_that_is_not_finite_is_told(tmp_path: Path, pictures: np.ndarray) -> None:
    reader = MapReader(lambda given: np.full(given.shape[:3], np.nan), "mine:depth",
                       codec(tmp_path, "depth"))
    with pytest.raises(ValueError, match="mine:depth returned no depth map: 1024 of 1024 depth"):
        reader(pictures)


def test_pixels_without_a_class_are_refused(tmp_path: Path, pictures: np.ndarray) -> None:
    reader = MapReader(lambda given: np.full(given.shape[:3], 255), "mine:segment",
                       codec(tmp_path, "segmentation", num_classes=3, ignore_id=255))
    with pytest.raises(ValueError, match="class id 255, which stands for pixels without a class"):
        reader(pictures)


def test_edges_need_no_estimator(tmp_path: Path, pictures: np.ndarray) -> None:
    mine = codec(tmp_path, "edges")
    reader = find_estimators([], {"edges": mine}, ["edges", "depth"])["edges"]
    crop = centre_crop(SIDE, SIDE, (SIDE, SIDE))
    np.testing.assert_array_equal(
        reader(pictures), np.stack([mine.modality.fit(item, crop, (SIDE, SIDE))
                                    for item in pictures]))
    assert reader.words == "computed as edges of images are"


@pytest.fixture
def write_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Writes a module into the folder that the process then stands in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return lambda name, text: (tmp_path / f"{name}.py").write_text(text) and None


def test_an_estimator_without_a_name_is_of_the_only_map(
        write_module: Callable[[str, str], None], tmp_path: Path) -> None:
    write_module("reader_one", "def segment(images):\n    return images[..., 0]\n")
    mine = {"segmentation": codec(tmp_path, "segmentation", num_classes=3)}
    found = find_estimators([("", "reader_one:segment")], mine, ["segmentation"])
    assert found["segmentation"].words == "reader_one:segment"
    with pytest.raises(click.UsageError, match=r"none of the maps.*\(segmentation, depth\)"):
        find_estimators([("", "reader_one:segment")], mine, ["segmentation", "depth"])
    with pytest.raises(click.UsageError, match="--estimator normals is of none of the maps"):
        find_estimators([("normals", "reader_one:segment")], mine, ["segmentation"])
    with pytest.raises(click.UsageError, match="--tokenizer depth=FOLDER"):
        find_estimators([("depth", "reader_one:segment")], mine, ["segmentation", "depth"])
    with pytest.raises(click.UsageError, match="--estimator segmentation= is given twice: reader"):
        find_estimators([("", "reader_one:segment"), ("segmentation", "two:read")], mine,
                        ["segmentation"])


def test_a_function_that_is_not_there_is_told(write_module: Callable[[str, str], None]) -> None:
    write_module("reader_two", "import os\ndef segment(images):\n    return images\nFIVE = 5\n")
    write_module("reader_three", "import a_library_that_is_not_here\n")
    write_module("reader_four", "raise KeyError('a bug')\n")
    assert load_function("reader_two:segment")(3) == 3
    with pytest.raises(ValueError, match="no module 'reader_none' can be imported.*reader_none.py"):
        load_function("reader_none:segment")
    with pytest.raises(ValueError, match="reader_two has no function 'FIVE'; it has segment"):
        load_function("reader_two:FIVE")
    with pytest.raises(ValueError, match="needs a_library_that_is_not_here, which is not inst"):
        load_function("reader_three:segment")
    with pytest.raises(KeyError, match="a bug"):
        load_function("reader_four:segment")
