"""Which images are measured: the split of the training, an even spread, and what is left out."""
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tokenizer.corpus.dataset import CorpusDataset
from tokenizer.corpus.modalities import RGB
from tokenizer.corpus.sources import open_source
from tokenizer.evaluation.figures import ReferenceHash
from tokenizer.evaluation.images import EvaluationImages
from tokenizer.splits import Split

Folder = Callable[[int], Path]
SIZE = (24, 24)


def images(folder: Path, split: Split | None = None, limit: int | None = None) -> EvaluationImages:
    return EvaluationImages(open_source(str(folder)), RGB(), SIZE, split, limit)


def keys(found: EvaluationImages, batch_size: int = 4) -> list[str]:
    return [key for keys, _ in found.batches(batch_size) for key in keys]


def test_all_images_come_once_in_the_order_of_their_keys(image_folder: Folder) -> None:
    found = images(image_folder(7))
    batches = list(found.batches(3))
    assert [len(pixels) for _, pixels in batches] == [3, 3, 1]
    assert keys(found) == [f"img-{index:03d}" for index in range(7)]
    assert batches[0][1].shape == (3, 24, 24, 3) and batches[0][1].dtype == np.uint8


@pytest.mark.parametrize("split", [Split(held_out=3), Split(held_out=2, by="name"),
                                   Split(held_out=0.4)])
def test_held_out_images_are_those_of_the_training_pixel_for_pixel(image_folder: Folder,
                                                                   split: Split) -> None:
    folder = image_folder(9)
    training = CorpusDataset(open_source(str(folder)), RGB(), SIZE, split=split)
    expected = np.concatenate(list(training.held_out_batches(4)))
    found = np.concatenate([pixels for _, pixels in images(folder, split).batches(2)])
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(("limit", "expected"), [
    (1, [0]), (3, [0, 3, 6]), (9, list(range(9))), (50, list(range(9)))])
def test_a_limit_spreads_over_the_corpus(image_folder: Folder, limit: int,
                                         expected: list[int]) -> None:
    assert keys(images(image_folder(9), limit=limit)) == [f"img-{index:03d}" for index in expected]


def test_what_cannot_be_read_is_left_out_and_named(image_folder: Folder) -> None:
    folder = image_folder(5)
    (folder / "img-001.png").write_bytes(b"no image")
    (folder / "img-003.png").write_bytes((folder / "img-003.png").read_bytes()[:60])
    Image.new("RGB", (30, 30)).save(folder / "img-004.jpg")  # the key of another file
    found = images(folder)
    assert keys(found, 1) == ["img-000", "img-002", "img-004"]
    assert {Path(url).name for url in found.unreadable} == {"img-001.png", "img-003.png",
                                                            "img-004.png"}
    assert found.num_found == 6
    assert all(found.unreadable.values())


def test_pixels_are_had_again_by_key(image_folder: Folder) -> None:
    folder = image_folder(4)
    found = images(folder)
    whole = np.concatenate([pixels for _, pixels in found.batches(4)])
    assert np.array_equal(found.pixels(["img-002", "img-000", "img-002"]), whole[[2, 0, 2]])
    (folder / "img-002.png").unlink()
    with pytest.raises(OSError, match=r"img-002\.png changed while it was measured"):
        found.pixels(["img-002"])


def test_the_reference_hash_is_of_keys_and_pixels_in_order_not_of_batches() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 6, 3)).astype(np.uint8)

    def digest(keys: list[str], pixels: np.ndarray, batch: int) -> str:
        found = ReferenceHash()
        for start in range(0, len(keys), batch):
            found.add(keys[start:start + batch], pixels[start:start + batch])
        return str(found)

    names = ["a", "b", "c", "d"]
    whole = digest(names, pixels, 4)
    assert whole == digest(names, pixels, 3) and whole.startswith("sha256:")
    other = pixels.copy()
    other[2, 3, 3, 1] ^= 1
    assert len({whole, digest(["a", "b", "c", "e"], pixels, 4), digest(names, other, 4),
                digest(names, pixels[::-1], 4), digest(names[:3], pixels[:3], 4)}) == 5
