"""One shard: every input becomes a row or a dead letter, in the order of the plan."""
import errno
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest
from colour_profiles import rgb_profile
from job_fakes import SIZE, FakeCodec, save_maps
from PIL import Image

from pipelines.shard import SourceUnreachable, concerns_source, encode_entries
from tokenizer.corpus.modalities import RGB, Depth, LowRes, Segmentation
from tokenizer.corpus.sources import Entry, FolderSource
from tokenizer.schema import codes_array

ImageFolder = Callable[[int], Path]


class FlakySource(FolderSource):
    """A folder, some of whose files raise errors when read."""

    def __init__(self, url: str, errors: dict[str, OSError]) -> None:
        super().__init__(url)
        self.errors = errors

    def read(self, entry: Entry) -> dict[str, bytes]:
        if entry.key in self.errors:
            raise self.errors[entry.key]
        return super().read(entry)


def test_rows_hold_codes_geometry_and_labels(image_folder: ImageFolder) -> None:
    source = FolderSource(str(image_folder(3)))
    codec = FakeCodec(RGB())
    table, dead = encode_entries(source.entries(), source, [{"image": codec}], 2)
    assert dead == []
    assert table["key"].to_pylist() == ["img-000", "img-001", "img-002"]
    row = table.slice(1, 1).to_pylist()[0]
    with Image.open(row["source"]) as image:
        assert (row["height"], row["width"]) == (image.height, image.width) == (37, 41)
    box = (row["left"], row["top"], row["crop_width"], row["crop_height"])
    assert box == (0, 5, 41, 27) and row["crop_index"] == 0 and not row["flipped"]
    assert row["label"] is None and row["class_name"] is None


def test_codes_are_those_of_each_image_alone(image_folder: ImageFolder) -> None:
    source = FolderSource(str(image_folder(6)))
    codec = FakeCodec(RGB())
    table, _ = encode_entries(source.entries(), source, [{"image": codec}], 2)
    for entry, codes in zip(source.entries(), codes_array(codec.spec, table), strict=True):
        alone, _ = encode_entries([entry], source, [{"image": codec}], 1)
        assert (codes_array(codec.spec, alone)[0] == codes).all()


def test_batches_are_full_but_the_last_whatever_fails_between(image_folder: ImageFolder) -> None:
    folder = image_folder(11)
    for index in (1, 2, 6):
        (folder / f"img-{index:03d}.png").write_bytes(b"no image")
    source, codec = FolderSource(str(folder)), FakeCodec(RGB(), batch_size=4)
    table, dead = encode_entries(source.entries(), source, [{"image": codec}], 3)
    assert codec.batches == [4, 4]
    assert table.num_rows == 8 and [letter.key for letter in dead] == ["img-001", "img-002",
                                                                      "img-006"]


@pytest.mark.parametrize("num_threads", [1, 3, 8])
def test_results_do_not_depend_on_the_number_of_threads(image_folder: ImageFolder,
                                                        num_threads: int) -> None:
    folder = image_folder(9)
    (folder / "img-004.png").write_bytes(b"no image")
    source, codecs = FolderSource(str(folder)), [{"image": FakeCodec(RGB())}]
    expected = encode_entries(source.entries(), source, codecs, 2)
    assert encode_entries(source.entries(), source, codecs, num_threads) == expected


def test_each_failure_says_stage_error_and_reason(image_folder: ImageFolder) -> None:
    folder = image_folder(5)
    (folder / "img-001.png").write_bytes(b"")
    Image.new("RGB", (40, 40), "white").save(folder / "img-003.png")
    source = FlakySource(str(folder), {
        "img-002": PermissionError(errno.EACCES, "Permission denied", "img-002.png")})
    entries = [Entry(key="x", sources={"image": "x.png"}, problem=("MissingMap", "no depth")),
               *source.entries()]
    table, dead = encode_entries(entries, source, [{"image": FakeCodec(RGB())}], 2)
    assert table["key"].to_pylist() == ["img-000", "img-004"]
    assert {letter.key: (letter.stage, letter.error) for letter in dead} == {
        "x": ("plan", "MissingMap"), "img-001": ("decode", "UnreadableImage"),
        "img-002": ("read", "PermissionError"), "img-003": ("encode", "ValueError")}
    reasons = {letter.key: letter.message for letter in dead}
    assert reasons["img-001"] == "the file is empty (0 bytes)"
    assert reasons["img-002"] == "Permission denied: img-002.png"
    assert reasons["img-003"] == "white pictures are refused"


def test_what_the_encoder_refuses_takes_nothing_else_with_it(image_folder: ImageFolder) -> None:
    folder = image_folder(8)
    sound, _ = encode_entries((source := FolderSource(str(folder))).entries(), source,
                              [{"image": FakeCodec(RGB())}], 2)
    Image.new("RGB", (41, 37), "white").save(folder / "img-001.png")
    table, dead = encode_entries(source.entries(), source, [{"image": FakeCodec(RGB())}], 2)
    assert [letter.key for letter in dead] == ["img-001"]
    expected = [row for row in sound.to_pylist() if row["key"] != "img-001"]
    assert table.to_pylist() == expected


def test_all_modalities_share_one_crop(image_folder: ImageFolder, tmp_path: Path) -> None:
    photos = image_folder(4)
    save_maps(tmp_path / "depths", photos, lambda size: np.arange(
        size[0] * size[1], dtype=np.uint16).reshape(size))
    save_maps(tmp_path / "labels", photos, lambda size: np.full(size, 3, np.uint8))
    source = FolderSource(str(photos), {"depth": str(tmp_path / "depths"),
                                        "segmentation": str(tmp_path / "labels")})
    codecs = {"image": FakeCodec(RGB()), "depth": FakeCodec(Depth()),
              "segmentation": FakeCodec(Segmentation(num_classes=16))}
    table, dead = encode_entries(source.entries(), source, [codecs], 2)
    assert dead == [] and table.num_rows == 4
    assert table.column_names[2:5] == ["image_codes", "depth_codes", "segmentation_codes"]
    depths = codes_array(codecs["depth"].spec, table).astype(int)
    assert (np.diff(depths.reshape(4, -1)) >= 0).all() and depths.min() < 4 and depths.max() > 11


def test_each_tokenizer_sees_pixels_by_its_own_route(tmp_path: Path) -> None:
    Image.new("RGB", (12, 8), (90, 90, 90)).save(tmp_path / "a.png", icc_profile=rgb_profile(
        gamma=1.0))
    source = FolderSource(str(tmp_path))
    codecs = [{"image": FakeCodec(RGB()), "low_res": FakeCodec(LowRes(route="srgb"))}]
    table, dead = encode_entries(source.entries(), source, codecs, 2)
    assert dead == []
    assert set(table["image_codes"][0].as_py()) == {90 // 16}
    assert set(table["low_res_codes"][0].as_py()) == {160 // 16}  # sRGB has 160 for 90 / 255


def test_a_bad_map_is_a_dead_letter_that_names_the_map(image_folder: ImageFolder,
                                                       tmp_path: Path) -> None:
    photos = image_folder(4)
    save_maps(tmp_path / "labels", photos, lambda size: np.zeros(size, np.uint8))
    Image.new("L", (9, 9)).save(tmp_path / "labels" / "img-001.png")
    Image.new("L", (42, 38), 99).save(tmp_path / "labels" / "img-002.png")
    (tmp_path / "labels" / "img-003.png").unlink()
    source = FolderSource(str(photos), {"segmentation": str(tmp_path / "labels")})
    codecs = {"image": FakeCodec(RGB()), "segmentation": FakeCodec(Segmentation(num_classes=16))}
    table, dead = encode_entries(source.entries(), source, [codecs], 2)
    assert table["key"].to_pylist() == ["img-000"]
    assert [(letter.stage, letter.error) for letter in dead] == [
        ("crop", "SizeMismatch"), ("decode", "LabelOutOfRange"), ("plan", "MissingMap")]
    assert dead[1].source == str(tmp_path / "labels" / "img-002.png")


def test_a_shard_in_which_all_fails_has_no_rows(image_folder: ImageFolder) -> None:
    folder = image_folder(2)
    for path in folder.iterdir():
        path.write_bytes(b"broken")
    source = FolderSource(str(folder))
    table, dead = encode_entries(source.entries(), source, [{"image": FakeCodec(RGB())}], 2)
    assert table.num_rows == 0 and len(dead) == 2
    assert table.schema.field("image_codes").type.list_size == 6


@pytest.mark.parametrize(("error", "of_source"), [
    (ConnectionError("reset"), True), (TimeoutError(), True), (OSError("no route"), True),
    (OSError(errno.ESTALE, "stale"), True), (FileNotFoundError(), False),
    (PermissionError(), False), (OSError(errno.EIO, "bad sector"), False), (ValueError(), False),
])
def test_errors_of_one_file_and_of_its_source_are_told_apart(error: OSError | ValueError,
                                                             of_source: bool) -> None:
    assert concerns_source(error) == of_source


def test_an_unreachable_source_fails_the_shard_not_its_inputs(image_folder: ImageFolder) -> None:
    source = FlakySource(str(image_folder(4)), {"img-002": ConnectionResetError("reset by peer")})
    with pytest.raises(SourceUnreachable, match=r"img-002\.png cannot be read: reset by peer"):
        encode_entries(source.entries(), source, [{"image": FakeCodec(RGB())}], 2)


def test_errors_of_a_store_s_own_classes_fail_the_shard_too() -> None:
    class Throttled(Exception):
        pass

    class BusyFileSystem(fsspec.AbstractFileSystem):
        protocol = "busy"

        def cat_file(self, *arguments: object, **options: object) -> bytes:
            raise Throttled("slow down")

        def info(self, path: str, **options: object) -> dict[str, object]:
            return {"name": path, "type": "directory", "size": 0}
    fsspec.register_implementation("busy", BusyFileSystem, clobber=True)
    entry = Entry(key="a", sources={"image": "busy://photos/a.png"})
    with pytest.raises(SourceUnreachable, match=r"a\.png cannot be reached \(Throttled: slow down"):
        encode_entries([entry], FolderSource("busy://photos"), [{"image": FakeCodec(RGB())}], 1)


def test_a_corpus_that_has_gone_away_is_no_pile_of_dead_letters(image_folder: ImageFolder) -> None:
    folder = image_folder(4)
    source = FolderSource(str(folder))
    entries = list(source.entries())
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(SourceUnreachable, match="none of 4 files is there any more"):
        encode_entries(entries, source, [{"image": FakeCodec(RGB())}], 2)
    assert len(encode_entries(entries[:1], source, [{"image": FakeCodec(RGB())}], 2)[1]) == 1


def test_a_bug_is_not_a_dead_letter(image_folder: ImageFolder,
                                    monkeypatch: pytest.MonkeyPatch) -> None:
    source, codec = FolderSource(str(image_folder(2))), FakeCodec(RGB())

    def broken(pixels: np.ndarray) -> np.ndarray:
        raise TypeError("a bug")
    monkeypatch.setattr(codec, "encode", broken)
    with pytest.raises(TypeError, match="a bug"):
        encode_entries(source.entries(), source, [{"image": codec}], 2)


def test_pixels_have_the_size_of_the_codec(image_folder: ImageFolder,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    source, codec = FolderSource(str(image_folder(1))), FakeCodec(RGB())
    shapes = []
    encode = codec.encode
    monkeypatch.setattr(codec, "encode", lambda pixels: (shapes.append(pixels.shape),
                                                         encode(pixels))[1])
    encode_entries(source.entries(), source, [{"image": codec}], 2)
    assert shapes == [(1, *SIZE, 3)]
