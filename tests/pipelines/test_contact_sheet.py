"""Contact sheets: the right source beside each reconstruction, and missing ones told."""
import dataclasses
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from job_fakes import SIZE, FakeCodec, save_maps
from PIL import Image

from pipelines.contact_sheet import MISSING, TEXT_HEIGHT, SheetConfig, contact_sheet
from pipelines.encode import EncodeConfig, encode_corpus
from tokenizer.corpus.images import Crop, centre_crop
from tokenizer.corpus.modalities import RGB

Settings = Callable[..., EncodeConfig]
FACTOR = 96 // SIZE[1]
HEIGHT, WIDTH = FACTOR * SIZE[0], FACTOR * SIZE[1]


@pytest.fixture
def sheet(config: Settings, tmp_path: Path) -> SheetConfig:
    """Shows four of ten images in one column."""
    encode_corpus(config())
    return SheetConfig(tokens=str(tmp_path / "tokens"), output=str(tmp_path / "sheet.png"),
                       tokenizers={"image": "tok"}, num=4, columns=1)


def halves(path: str, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Source and reconstruction of one row of a sheet of one column, at their own size."""
    with Image.open(path) as image:
        whole = np.asarray(image)
    top = 4 + row * (HEIGHT + TEXT_HEIGHT + 4)
    parts = [whole[top:top + HEIGHT, left:left + WIDTH] for left in (4, 4 + WIDTH + 2)]
    return parts[0][::FACTOR, ::FACTOR], parts[1][::FACTOR, ::FACTOR]


def seen(photo: Path) -> np.ndarray:
    """What the encoder saw of a photo, ``(1, *SIZE, 3)``."""
    raw = RGB().read(photo.read_bytes(), photo.name)
    box = centre_crop(raw.shape[0], raw.shape[1], SIZE)
    crop = Crop(left=box.left, top=box.top, width=box.width, height=box.height)
    return RGB().fit(raw, crop, SIZE)[None]


def test_sources_stand_beside_their_reconstructions(sheet: SheetConfig, tmp_path: Path) -> None:
    made = contact_sheet(sheet)
    codec, decibels = FakeCodec(RGB()), []
    for row, number in enumerate((0, 3, 6, 9)):
        source = seen(tmp_path / f"photos/img-{number:03d}.png")
        decoded = codec.decode(codec.encode(source))
        shown = halves(sheet.output, row)
        assert (shown[0] == source[0]).all() and (shown[1] == decoded[0]).all()
        decibels.append(RGB().difference(decoded, source)["psnr"])
    assert [found["psnr"] for found in made.figures["image"]] == decibels
    assert str(made) == f"4 rows, image psnr {np.mean(decibels):.2f} on average"


def test_sources_that_are_gone_are_grey_and_told(sheet: SheetConfig, tmp_path: Path) -> None:
    (tmp_path / "photos/img-003.png").unlink()
    (tmp_path / "photos/img-006.png").write_bytes(b"no picture")
    made = contact_sheet(sheet)
    assert made.missing == {"img-003": "FileNotFoundError", "img-006": "UnreadableImage"}
    assert (halves(sheet.output, 1)[0] == MISSING).all()
    assert "1 without source (FileNotFoundError)" in str(made)


def test_sources_within_tar_files_are_found(config: Settings, tmp_path: Path,
                                            image_folder: Callable[[int], Path]) -> None:
    photos = image_folder(3)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for photo in sorted(photos.iterdir()):
            archive.add(photo, photo.name)
    encode_corpus(config(corpus=str(tmp_path / "a.tar")))
    made = contact_sheet(SheetConfig(tokens=str(tmp_path / "tokens"), columns=1,
                                     output=str(tmp_path / "sheet.png"),
                                     tokenizers={"image": "tok"}))
    assert made.num_rows == 3 and not made.missing
    assert (halves(str(tmp_path / "sheet.png"), 2)[0] == seen(photos / "img-002.png")[0]).all()


def test_sources_within_parquet_files_are_found(config: Settings, tmp_path: Path,
                                                image_folder: Callable[[int], Path]) -> None:
    photos = sorted(image_folder(3).iterdir())
    pq.write_table(pa.table({"name": [photo.stem for photo in photos],
                             "image": [photo.read_bytes() for photo in photos]}),
                   tmp_path / "a.parquet")
    encode_corpus(config(corpus=str(tmp_path / "a.parquet")))
    made = contact_sheet(SheetConfig(tokens=str(tmp_path / "tokens"), columns=1,
                                     output=str(tmp_path / "sheet.png"),
                                     tokenizers={"image": "tok"}))
    assert made.num_rows == 3 and not made.missing
    assert (halves(str(tmp_path / "sheet.png"), 1)[0] == seen(photos[1])[0]).all()


def test_keys_and_filter_choose_the_rows(sheet: SheetConfig, tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_text("img-002\nimg-007\nimg-070")
    made = contact_sheet(SheetConfig(**{**vars(sheet), "keys": str(tmp_path / "keys.txt"),
                                        "filter": "key > 'img-005'"}))
    assert made.num_rows == 1 and str(made).endswith(", 1 key of the list without row")
    assert (halves(sheet.output, 0)[0] == seen(tmp_path / "photos/img-007.png")[0]).all()
    with pytest.raises(ValueError, match="no row of .* is selected"):
        contact_sheet(SheetConfig(**{**vars(sheet), "keys": str(tmp_path / "keys.txt"),
                                     "filter": "key == 'img-000'"}))


def test_maps_stand_beside_theirs(config: Settings, tmp_path: Path) -> None:
    make = config(maps={"depth": f"{tmp_path}/depths"},
                  tokenizers={"image": "tok", "depth": "depth-tok"})
    save_maps(tmp_path / "depths", tmp_path / "photos", lambda size: np.full(size, 5, np.uint16))
    encode_corpus(make)
    made = contact_sheet(SheetConfig(tokens=make.output, output=str(tmp_path / "sheet.png"), num=2,
                                     tokenizers={"depth": "depth-tok", "image": "tok"}))
    assert not made.missing and [len(found) for found in made.figures.values()] == [2, 2]


def test_maps_of_inputs_that_were_added_stand_beside_theirs(
        config: Settings, tmp_path: Path, drawn: Callable[..., np.ndarray]) -> None:
    make = config(maps={"depth": f"{tmp_path}/depths"},
                  tokenizers={"image": "tok", "depth": "depth-tok"})
    save_maps(tmp_path / "depths", tmp_path / "photos", lambda size: np.full(size, 5, np.uint16))
    encode_corpus(make)
    Image.fromarray(drawn(99)).save(tmp_path / "photos/z.png")
    height, width = drawn(99).shape[:2]
    Image.fromarray(np.full((height, width), 7, np.uint16)).save(tmp_path / "depths/z.png")
    encode_corpus(dataclasses.replace(make, extend=True))
    made = contact_sheet(SheetConfig(tokens=make.output, output=str(tmp_path / "sheet.png"),
                                     tokenizers={"depth": "depth-tok"}, filter="key == 'z'"))
    assert made.num_rows == 1 and not made.missing and len(made.figures["depth"]) == 1


@pytest.mark.parametrize("name", ["num", "columns"])
def test_a_sheet_shows_at_least_one_row(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        SheetConfig(**{"tokens": "t", "output": "o", "tokenizers": {"image": "tok"},
                       name: 0})  # type: ignore[arg-type]
