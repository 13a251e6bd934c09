"""Training pixels are a function of the seed and their number; held-out pixels are the job's."""
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus_files import broken_files, encode, noise, save

from tokenizer.corpus.dataset import CorpusDataset
from tokenizer.corpus.images import Crop, centre_crop
from tokenizer.corpus.modalities import (
    RGB,
    Depth,
    Edges,
    LabelOutOfRange,
    LowRes,
    Modality,
    Segmentation,
)
from tokenizer.corpus.sources import open_source
from tokenizer.splits import Split

SIZE = (16, 16)
Make = Callable[[], tuple[Modality, np.ndarray]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve images of varied sizes, each of its own grey level in red, and of noise in green."""
    for number in range(12):
        pixels = noise(number, 20 + number, 40 - number)
        pixels[..., 0] = 10 * number
        save(tmp_path / "images" / f"{number:02d}.png", pixels)
    return tmp_path / "images"


def open_dataset(folder: Path, modality: Modality | None = None, **options: Any) -> CorpusDataset:
    modality = modality or RGB()
    source = open_source(str(folder), modality=modality.name)
    split = Split(held_out=options.pop("held_out", 2), by=options.pop("held_out_by", "hash"))
    return CorpusDataset(source, modality, SIZE, split=split, **options)


def numbers_of(pixels: np.ndarray) -> list[int]:
    """Which images these are, by their red level."""
    return (pixels[:, 0, 0, 0] // 10).tolist()


def test_batches_have_the_size_and_type_of_the_modality(folder: Path) -> None:
    batch = open_dataset(folder).batch(0, 4)
    assert batch.shape == (4, 16, 16, 3) and batch.dtype == np.uint8


def test_every_epoch_shows_every_training_image_once_in_a_new_order(folder: Path) -> None:
    found = open_dataset(folder)
    expected = sorted(int(entry.key) for entry in found.train)
    orders = [numbers_of(found.samples(10 * epoch, 10)) for epoch in range(3)]
    assert [sorted(order) for order in orders] == [expected] * 3
    assert orders[0] != orders[1] != orders[2]


def test_a_batch_depends_on_seed_and_step_alone(folder: Path) -> None:
    straight = open_dataset(folder)
    batches = [straight.batch(step, 4) for step in range(8)]
    resumed = open_dataset(folder, cache_bytes=0)
    for step in (7, 2, 5):
        assert np.array_equal(resumed.batch(step, 4), batches[step])
    other = open_dataset(folder, seed=1)
    assert not np.array_equal(other.batch(0, 4), batches[0])


def test_parts_of_a_batch_are_slices_of_one_stream(folder: Path) -> None:
    found = open_dataset(folder)
    parts = [found.samples(12 + 2 * part, 2) for part in range(3)]
    assert np.array_equal(np.concatenate(parts), found.batch(2, 6))


@pytest.mark.parametrize("cache_bytes", [0, 3000, 1 << 30])
def test_the_cache_changes_nothing_and_keeps_its_limit(folder: Path, cache_bytes: int) -> None:
    found = open_dataset(folder, cache_bytes=cache_bytes)
    first, second = found.batch(3, 10), found.batch(3, 10)
    assert np.array_equal(first, second)
    assert np.array_equal(first, open_dataset(folder).batch(3, 10))
    kept = sum(array.nbytes for array in found._cache._arrays.values())
    assert kept <= cache_bytes and (kept > 0) == (cache_bytes > 0)


def test_cached_images_are_not_read_again(folder: Path) -> None:
    found = open_dataset(folder)
    first = found.samples(0, 10), list(found.held_out_batches(8))
    for path in folder.iterdir():
        path.unlink()
    assert np.array_equal(found.samples(0, 10), first[0])
    assert np.array_equal(next(found.held_out_batches(8)), first[1][0])


def test_held_out_images_take_the_preprocessing_of_the_encode_job(folder: Path) -> None:
    found = open_dataset(folder)
    batches = list(found.held_out_batches(1))
    assert [batch.shape for batch in batches] == [(1, 16, 16, 3)] * 2
    for entry, batch in zip(found.held_out, batches, strict=True):
        raw = RGB().read(found.source.read(entry)["image"], entry.key)
        assert np.array_equal(batch[0], RGB().fit(raw, centre_crop(*raw.shape[:2], SIZE), SIZE))


def test_held_out_images_never_train(folder: Path) -> None:
    found = open_dataset(folder, held_out=5)
    held_out = {int(entry.key) for entry in found.held_out}
    assert len(held_out) == 5
    assert not held_out & set(numbers_of(found.samples(0, 21)))


def test_held_out_batches_can_be_limited(folder: Path) -> None:
    found = open_dataset(folder, held_out=5)
    assert [len(batch) for batch in found.held_out_batches(2)] == [2, 2, 1]
    assert [len(batch) for batch in found.held_out_batches(2, limit=3)] == [2, 1]


@pytest.mark.parametrize("make", [
    lambda: (RGB(), noise(0, 30, 50)),
    lambda: (Depth(), noise(0, 30, 50)[..., 0]),
    lambda: (Segmentation(num_classes=256), noise(0, 30, 50)[..., 0])])
def test_without_augmentation_training_pixels_are_those_of_the_job(tmp_path: Path,
                                                                   make: Make) -> None:
    modality, pixels = make()
    for name in ("a.png", "b.png"):
        save(tmp_path / name, pixels)
    found = open_dataset(tmp_path, modality, held_out=1, crop_share=1.0, flip=False)
    raw = modality.read(encode(pixels), "")
    expected = modality.fit(raw, centre_crop(30, 50, SIZE), SIZE)
    for step in range(3):
        assert np.array_equal(found.batch(step, 1)[0], expected)


def test_flips_mirror_about_half_of_the_images(tmp_path: Path) -> None:
    pixels = noise(1, 16, 16)
    save(tmp_path / "a.png", pixels)
    found = open_dataset(tmp_path, held_out=0, crop_share=1.0)
    samples = found.samples(0, 200)
    mirrored = sum(np.array_equal(sample, pixels[:, ::-1]) for sample in samples)
    upright = sum(np.array_equal(sample, pixels) for sample in samples)
    assert mirrored + upright == 200 and 70 < mirrored < 130


def test_crops_take_every_place_and_every_share(tmp_path: Path) -> None:
    rows, columns = np.mgrid[0:100, 0:150]
    save(tmp_path / "a.png", np.stack([rows, columns, rows], 2).astype(np.uint8))
    found = open_dataset(tmp_path, held_out=0, crop_share=0.5, flip=False)
    samples = found.samples(0, 300).astype(int)
    tops, lefts = samples[:, 0, 0, 0], samples[:, 0, 0, 1]
    sides = (samples[:, -1, 0, 0] - tops) * 16 / 15
    assert tops.min() < 4 and tops.max() > 42
    assert lefts.min() < 6 and lefts.max() > 85
    assert 48 < sides.min() < 53 and 97 < sides.max() < 102


def test_maps_and_their_ids_survive_augmentation(tmp_path: Path) -> None:
    save(tmp_path / "a.png", np.random.default_rng(0).choice([0, 3, 7], (40, 60)).astype(np.uint8))
    found = open_dataset(tmp_path, Segmentation(num_classes=8), held_out=0)
    batch = found.batch(0, 8)
    assert batch.dtype == np.uint8 and set(np.unique(batch)) == {0, 3, 7}


def test_depth_crops_fill_their_own_range(tmp_path: Path) -> None:
    save(tmp_path / "a.png", (np.arange(40 * 60).reshape(40, 60) * 7).astype(np.uint16))
    batch = open_dataset(tmp_path, Depth(), held_out=0).batch(0, 8)
    assert batch.dtype == np.uint16
    assert (batch.min((1, 2)) == 0).all() and (batch.max((1, 2)) == 65535).all()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 200), (200, 3), (15, 17)])
def test_images_of_any_shape_can_be_cropped(tmp_path: Path, height: int, width: int) -> None:
    save(tmp_path / "a.png", noise(0, height, width))
    assert open_dataset(tmp_path, held_out=0).batch(0, 20).shape == (20, 16, 16, 3)


def test_large_images_are_kept_only_as_large_as_crops_need(tmp_path: Path) -> None:
    save(tmp_path / "a.png", noise(0, 200, 900))
    found = open_dataset(tmp_path, held_out=0, crop_share=0.8)
    found.batch(0, 1)
    kept, = found._cache._arrays.values()
    assert kept.shape == (20, 40, 3)


def test_unreadable_images_give_way_and_are_named(folder: Path) -> None:
    for name, (content, _) in broken_files().items():
        save(folder / f"broken-{name.replace('.', '-')}.png", content)
    save(folder / "11.tiff", encode(noise(0), "TIFF"))
    found = open_dataset(folder, held_out=0)
    assert len(found.train) == 24
    samples = found.samples(0, 48)
    assert set(numbers_of(samples)) == set(range(12))
    assert len(found.unreadable) == 13
    assert "same key" in found.unreadable[f"{folder}/11.tiff"]
    assert "empty" in found.unreadable[f"{folder}/broken-empty-jpg.png"]
    assert np.array_equal(samples, open_dataset(folder, held_out=0).samples(0, 48))


def test_unreadable_held_out_images_are_left_out(folder: Path) -> None:
    save(folder / "zz.png", b"")
    found = open_dataset(folder, held_out=2, held_out_by="name")
    assert [len(batch) for batch in found.held_out_batches(8)] == [1]
    assert list(found.unreadable) == [f"{folder}/zz.png"]


def test_a_corpus_without_readable_images_is_an_error(tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / f"{number}.png", b"")
    with pytest.raises(ValueError, match=r"3 images .* unreadable, 3 of them in a row; .* empty"):
        open_dataset(tmp_path, held_out=0).batch(0, 2)


def test_a_label_outside_the_classes_names_its_file(tmp_path: Path) -> None:
    save(tmp_path / "a.png", np.full((8, 8), 9, np.uint8))
    with pytest.raises(LabelOutOfRange, match=r"a\.png: class ids 9 at 64 pixels"):
        open_dataset(tmp_path, Segmentation(num_classes=4), held_out=0).batch(0, 1)


def test_the_corpus_must_be_of_the_modality(folder: Path) -> None:
    with pytest.raises(ValueError, match="holds image files, the tokenizer is for depth"):
        CorpusDataset(open_source(str(folder)), Depth(), SIZE)


@pytest.mark.parametrize("crop_share", [0.0, -1.0, 1.5])
def test_crop_shares_beyond_the_image_are_refused(folder: Path, crop_share: float) -> None:
    with pytest.raises(ValueError, match=r"crop_share must lie in \(0, 1\]"):
        open_dataset(folder, crop_share=crop_share)


@pytest.mark.parametrize("modality", [Edges(sigma=0.5), LowRes(factor=2)])
def test_what_is_computed_from_images_trains_on_images(folder: Path, modality: Modality) -> None:
    found = open_dataset(folder, modality)
    pixels = found.samples(0, 20)
    assert pixels.dtype == np.uint8 and len(np.unique(pixels)) > 1
    assert np.array_equal(open_dataset(folder, modality, cache_bytes=0).samples(13, 3),
                          pixels[13:16])
    (batch,) = found.held_out_batches(2)
    path = Path(found.held_out[0].source)
    raw = modality.read(path.read_bytes(), path.name)
    assert np.array_equal(batch[0], modality.fit(raw, centre_crop(*raw.shape[:2], SIZE), SIZE))


def test_every_modality_trains_on_the_same_part_at_the_same_position(folder: Path) -> None:
    images, small = open_dataset(folder, seed=2), open_dataset(folder, LowRes(factor=2), seed=2)
    for pixels, coarse in zip(images.samples(0, 12), small.samples(0, 12), strict=True):
        whole = Crop(left=0, top=0, width=16, height=16)
        expected = LowRes(factor=2).fit(pixels, whole, SIZE)
        assert np.abs(coarse.astype(int) - expected).max() <= 1  # mirrored before or after


def test_computed_modalities_do_not_train_on_maps(folder: Path) -> None:
    source = open_source(str(folder), modality="depth")
    with pytest.raises(ValueError, match="holds depth files, the tokenizer is for edges"):
        CorpusDataset(source, Edges(), SIZE)


def test_colours_vary_in_training_images_alone(folder: Path) -> None:
    plain, varied = (open_dataset(folder, colours=share) for share in (0.0, 0.3))
    recoloured = varied.samples(0, 5)
    assert np.array_equal(recoloured, varied.samples(0, 5))
    expected = [varied.augmentation.recolouring(number).apply(pixels)
                for number, pixels in enumerate(plain.samples(0, 5))]
    assert np.array_equal(recoloured, np.stack(expected))
    held_out = [next(found.held_out_batches(8)) for found in (plain, varied)]
    assert np.array_equal(*held_out)


@pytest.mark.parametrize("modality", [Edges(), Segmentation(num_classes=256)])
def test_colours_of_maps_never_vary(folder: Path, modality: Modality) -> None:
    if modality.computed_from is None:
        folder = folder.parent / "maps"
        for number in range(4):
            save(folder / f"{number}.png", noise(number, 20, 20)[..., 0])
    plain, varied = (open_dataset(folder, modality, colours=share) for share in (0.0, 0.3))
    assert np.array_equal(plain.samples(0, 4), varied.samples(0, 4))


def test_an_input_that_its_source_cannot_give_is_left_out(tmp_path: Path) -> None:
    images = [encode(noise(number, 20, 20)) if number != 3 else None for number in range(8)]
    pq.write_table(pa.table({"image": images}), tmp_path / "data.parquet")
    dataset = CorpusDataset(open_source(f"{tmp_path}/data.parquet", labels="none"), RGB(), SIZE)
    assert dataset.samples(0, 8).shape == (8, *SIZE, 3)
    assert [message for message in dataset.unreadable.values()] == [
        "row 3 of row group 0 has no image in column image"]
