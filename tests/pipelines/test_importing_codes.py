"""Foreign files of codes become token corpora."""
import dataclasses
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_files import (
    IMAGES,
    NUM_CODES,
    WRITERS,
    K,
    codes_of,
    drawn,
    imported,
    npy,
    rows_of,
    save,
    write_llamagen,
    write_tar,
    write_webdataset,
)
from job_fakes import GRID, tree, writes_that_end

from pipelines.decode import DecodeConfig, decode_corpus
from pipelines.formats import READERS, rar
from pipelines.importing import ImportConfig, import_corpus
from pipelines.plan import PlanMismatch
from tokenizer import audit
from tokenizer.schema import UNKNOWN

pytestmark = pytest.mark.usefixtures("fakes", "without_beam")


@pytest.mark.parametrize("format", READERS)
@pytest.mark.parametrize("num_crops", [1, 10])
def test_foreign_codes_become_rows_in_order(tmp_path: Path, format: str, num_crops: int) -> None:
    codes = drawn(num_crops)
    found = imported(tmp_path, WRITERS[format](tmp_path, codes), format)
    order, num_classes = ([0, 2, 4, 1, 3], 2) if format == "4m" else (list(range(IMAGES)), 3)
    assert (codes_of(found) == codes[order].reshape(-1, *GRID)).all()
    assert [problem for problem in audit.verify(found) if problem] == []
    labels = [row["label"] for row in rows_of(found)]
    assert labels == [number % num_classes for number in order for _ in range(num_crops)]
    assert found.manifest.num_crops == (1 if format == "rar" else num_crops)
    assert found.spec.codes[0].tokenizer == UNKNOWN


def test_keys_classes_and_captions_are_kept_where_there_are_some(tmp_path: Path) -> None:
    found = imported(tmp_path, WRITERS["4m"](tmp_path, drawn(1)), "4m")
    assert [row["key"] for row in rows_of(found)][:2] == ["class0/img0", "class0/img2"]
    assert found.manifest.classes == ("class0", "class1")
    found = imported(tmp_path, WRITERS["webdataset"](tmp_path, drawn(1)), "webdataset",
                     overwrite=True)
    assert (rows_of(found)[1]["key"], rows_of(found)[1]["caption"]) == ("a/001", "no. 1")
    assert found.manifest.classes == ("0", "1", "2")


def test_crops_are_kept_where_the_format_has_them(tmp_path: Path) -> None:
    row = rows_of(imported(tmp_path, WRITERS["4m"](tmp_path, drawn(2)), "4m"))[1]
    names = ("top", "left", "crop_height", "crop_width", "flipped", "crop_index", "height")
    assert [row[name] for name in names] == [1, 2, 10, 20, True, 1, 11]
    rows = rows_of(imported(tmp_path, WRITERS["llamagen"](tmp_path, drawn(2)), "llamagen",
                            overwrite=True))
    assert [row["flipped"] for row in rows[:2]] == [False, True]
    assert (rows[0]["height"], rows[0]["crop_width"]) == (32, 48)  # unknown: the whole, 16 a code


def test_two_scales_of_ten_crop_are_joined(tmp_path: Path) -> None:
    codes = drawn(20)
    write_llamagen(tmp_path / "both/flip_ten_crop", codes[:, :10])
    write_llamagen(tmp_path / "both/flip_ten_crop_105", codes[:, 10:])
    found = imported(tmp_path, str(tmp_path / "both"), "llamagen")
    assert (codes_of(found) == codes.reshape(-1, *GRID)).all() and found.manifest.num_crops == 20


def test_what_cannot_be_read_is_a_dead_letter(tmp_path: Path) -> None:
    source = Path(WRITERS["llamagen"](tmp_path, drawn(2)))
    files = {number: source / f"imagenet256_codes/{number}.npy" for number in range(IMAGES)}
    save(files[1], drawn(1)[0][None])
    save(files[2], np.full((1, 2, NUM_CODES), K))
    files[3].write_bytes(b"")
    (source / "imagenet256_labels/4.npy").unlink()
    found = imported(tmp_path, str(source), "llamagen")
    assert found.manifest.num_rows == 2 and found.manifest.dead_letters == {
        "OtherCodes": 1, "UnreadableCodes": 1, "UnreadableLabel": 1, "ValueError": 1}


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "loaded"),)
    source = Path(WRITERS["llamagen"](tmp_path, drawn(1)))
    np.save(source / "imagenet256_codes/2.npy", np.array([Trap()], object), allow_pickle=True)
    found = imported(tmp_path, str(source), "llamagen")
    assert found.manifest.dead_letters == {"UnreadableCodes": 1}
    assert not (tmp_path / "loaded").exists()


@pytest.mark.parametrize(("old", "new"), [
    (b"(1, 1, 6)", b"(1, 1, 6 "), (b"(1, 1, 6)", b"(9,9,999)"), (b"(1, 1, 6)", b"(1, 1,-6)"),
    (b"(1, 1, 6)", b"(1, 1, x)"), (b"(1, 1, 6), ", b"(10**15,)  "), (b"NUMPY", b"NUMPX"),
    (b"'<i8'", b"'|O '"), (b"'<i8'", b"'<f8'"), (b"{'descr'", b"((((((((")])
def test_a_damaged_npy_file_is_a_dead_letter(tmp_path: Path, old: bytes, new: bytes) -> None:
    source = Path(WRITERS["llamagen"](tmp_path, drawn(1)))
    file = source / "imagenet256_codes/2.npy"
    assert old in file.read_bytes()
    file.write_bytes(file.read_bytes().replace(old, new))
    found = imported(tmp_path, str(source), "llamagen")
    assert found.manifest.dead_letters == {"UnreadableCodes": 1}


@pytest.mark.parametrize("line", [b"{cut", b"[1]", b'{"class_id": 1}', b'{"class_id": -1, '
                                  b'"tokens": [1]}', b'{"class_id": 0, "tokens": [0.5]}', b"\xff",
                                  b"[" * 100_000])
def test_lines_that_are_no_codes_are_dead_letters(tmp_path: Path, line: bytes) -> None:
    source = Path(WRITERS["rar"](tmp_path, drawn(1)))
    source.write_bytes(line + b"\n\n" + source.read_bytes())
    found = imported(tmp_path, str(source), "rar")
    assert found.manifest.dead_letters == {"UnreadableCodes": 1}
    assert [row["key"] for row in rows_of(found)] == ["2", "3", "4", "5", "6"]


def test_several_files_of_lines_are_named_by_a_pattern(tmp_path: Path) -> None:
    for name in ("b/part-1", "a/part-0", "a/other"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        WRITERS["rar"](tmp_path, drawn(1))
        (tmp_path / "lines.jsonl").rename(tmp_path / f"{name}.jsonl")
    found = imported(tmp_path, f"{tmp_path}/*/part-*.jsonl", "rar")
    assert [row["key"] for row in rows_of(found)][IMAGES - 1:IMAGES + 1] == [
        "a/part-0/4", "b/part-1/0"]
    found = imported(tmp_path, f"{tmp_path}/{{b/part-1,a/part-0}}.jsonl", "rar", overwrite=True)
    assert rows_of(found)[0]["key"] == "b/part-1/0" and found.manifest.num_rows == 2 * IMAGES


def test_a_file_without_lines_is_refused_before_it_fills_the_memory(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rar, "MAX_LINE", 1 << 20)
    (tmp_path / "a.jsonl").write_bytes(bytes(3 << 20))
    with pytest.raises(ValueError, match="a.jsonl has a line of more than 1048576 bytes"):
        imported(tmp_path, str(tmp_path / "a.jsonl"), "rar")


def crop_of(**columns: Any) -> bytes:
    """What our own files say of a sample with one crop."""
    crop = {"flipped": False, "left": 0, "top": 0, "crop_width": 1, "crop_height": 1, "height": 4,
            "width": 4, "crop_index": 0}
    return json.dumps({"crops": [crop | columns]}).encode()


@pytest.mark.parametrize(("said", "reason"), [
    (b'{"caption": "\\ud800"}', "UnreadableText"), (b'{"key": "\\ud800"}', "UnreadableText"),
    (b"[" * 100_000, "UnreadableSample"), (b'{"label": "cat"}', "UnreadableSample"),
    (crop_of(height="x"), "UnreadableCodes"), (crop_of(height=1 << 40), "UnreadableCodes"),
    (crop_of(left="x"), "UnreadableCodes"), (crop_of(crop_width=1.5), "UnreadableCodes")])
def test_what_a_sample_says_of_itself_fails_alone(tmp_path: Path, said: bytes, reason: str) -> None:
    codes = npy(drawn(1)[0])
    source = write_tar(tmp_path / "a.tar", {"a.npy": codes, "b.npy": codes, "b.json": said})
    found = imported(tmp_path, source, "webdataset")
    assert [row["key"] for row in rows_of(found)] == ["a"]
    assert found.manifest.dead_letters == {reason: 1}


def test_a_name_of_a_member_that_is_no_text_is_a_dead_letter(tmp_path: Path) -> None:
    codes = npy(drawn(1)[0])
    source = write_tar(tmp_path / "a.tar", {"a.\udcff": b"", "\udcff.jpg": b"", "a.npy": codes,
                                            "\udcff.npy": codes})
    letter, = imported(tmp_path, source, "webdataset").dead_letters()
    assert (letter.key, letter.error) == ("\\udcff", "UnreadableText")


def test_a_sample_without_codes_is_a_dead_letter_and_other_members_are_none(
        tmp_path: Path) -> None:
    source = write_tar(tmp_path / "a.tar", {
        "a.npy": npy(drawn(1)[0]), "b.cls": b"1", "c.depth.npy": npy(drawn(1)[0]), "LICENSE": b"x",
        "d.npy": npy(drawn(1)[0]), "d.txt": bytes(1 + (1 << 20))})
    letters = {letter.key: letter.error
               for letter in imported(tmp_path, source, "webdataset").dead_letters()}
    assert letters == {"b": "MissingCodes", "c": "MissingCodes", "d": "UnreadableSample"}


def test_members_of_a_sample_need_not_lie_side_by_side(tmp_path: Path) -> None:
    codes = drawn(1)
    source = write_tar(tmp_path / "a.tar", {
        "b.npy": npy(codes[0]), "a.npy": npy(codes[1]), "b.cls": b"1", "a.cls": b"0",
        "b.txt": b"b's"})
    rows = rows_of(imported(tmp_path, source, "webdataset"))
    assert [(row["key"], row["label"], row["caption"]) for row in rows] == [
        ("b", 1, "b's"), ("a", 0, None)]


def test_further_codes_of_one_sample_are_dead_letters(tmp_path: Path) -> None:
    first, second, plain = drawn(1)[:3]
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, array in (("a.npy", plain), ("a.image.npy", first), ("b.npy", first),
                            ("a.image.npy", second)):
            info = tarfile.TarInfo(name)
            info.size = len(npy(array))
            archive.addfile(info, io.BytesIO(npy(array)))
    found = imported(tmp_path, str(tmp_path / "a.tar"), "webdataset")
    assert [row["key"] for row in rows_of(found)] == ["a", "b"]
    assert (codes_of(found)[0] == first.reshape(GRID)).all()
    letters = [(letter.key, letter.error, letter.source.rpartition("#")[2])
               for letter in found.dead_letters()]
    assert letters == [("a", "DuplicateKey", "a.image.npy"), ("a", "DuplicateKey", "a.npy")]


def test_further_codes_take_no_key_from_other_samples(tmp_path: Path) -> None:
    """The first sample says that its key is another one than its name."""
    codes = drawn(1)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, content in (("a.npy", npy(codes[0])), ("a.json", b'{"key": "x"}'),
                              ("a.npy", npy(codes[1])), ("b.npy", npy(codes[2])),
                              ("b.json", b'{"key": "a"}')):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    found = imported(tmp_path, str(tmp_path / "a.tar"), "webdataset")
    assert [row["key"] for row in rows_of(found)] == ["x", "a"]
    letter, = found.dead_letters()
    assert (letter.key, letter.error) == ("x", "DuplicateKey")


def test_an_archive_that_was_cut_gives_the_samples_before(tmp_path: Path) -> None:
    whole = Path(write_tar(tmp_path / "b.tar", {name: npy(drawn(1)[0]) for name in
                                                ("a.npy", "b.npy")})).read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[:4 * 512 - 400])
    write_tar(tmp_path / "b.tar", {"c.npy": npy(drawn(1)[0])})
    found = imported(tmp_path, str(tmp_path / "*.tar"), "webdataset")
    assert [row["key"] for row in rows_of(found)] == ["a", "c"]
    assert found.manifest.dead_letters == {"DamagedArchive": 1, "UnreadableSample": 1}


def test_names_with_a_hash_are_read(tmp_path: Path) -> None:
    source = write_tar(tmp_path / "a#1.tar", {"b#2.npy": npy(drawn(1)[0])})
    row, = rows_of(imported(tmp_path, source, "webdataset"))
    assert (row["key"], row["source"]) == ("b#2", f"{source}#b%232.npy")


def test_other_members_say_what_a_json_leaves_open(tmp_path: Path) -> None:
    said = {"label": None, "key": None, "caption": ["a", "b"], "class_name": 5}
    source = write_tar(tmp_path / "a.tar", {
        "a.npy": npy(drawn(1)[0]), "a.json": json.dumps(said).encode(), "a.cls": b"1",
        "a.txt": b"text"})
    row, = rows_of(imported(tmp_path, source, "webdataset"))
    assert [row[name] for name in ("key", "label", "class_name", "caption")] == [
        "a", 1, "1", "text"]


def test_a_box_that_no_picture_has_is_a_dead_letter(tmp_path: Path) -> None:
    source = WRITERS["4m"](tmp_path, drawn(1))
    save(tmp_path / "train/crop_settings/class0/img0.npy", np.array([[0, 0, 1 << 40, 4, 0]]))
    assert imported(tmp_path, source, "4m").manifest.dead_letters == {"UnreadableCodes": 1}


def test_a_first_input_without_its_file_is_a_dead_letter_too(tmp_path: Path) -> None:
    for name in ("ten", "ten_105"):
        write_llamagen(tmp_path / "both" / name, drawn(10))
    (tmp_path / "both/ten_105/imagenet256_codes/0.npy").unlink()
    found = imported(tmp_path, str(tmp_path / "both"), "llamagen")
    assert found.manifest.dead_letters == {"FileNotFoundError": 1}
    assert found.manifest.num_rows == 20 * (IMAGES - 1)


def test_of_several_modalities_that_of_the_tokenizer_is_read(tmp_path: Path) -> None:
    image, depth = drawn(1)[:2]
    source = write_tar(tmp_path / "a.tar", {"a.image.npy": npy(image), "a.depth.npy": npy(depth)})
    found = imported(tmp_path, source, "webdataset", codebook_size=None, tokenizer="depth-tok")
    assert found.spec.modalities == ("depth",)
    assert (codes_of(found) == depth.reshape(1, *GRID)).all()
    with pytest.raises(ValueError, match="depth-tok is a tokenizer of depth, not of image"):
        imported(tmp_path, source, "webdataset", codebook_size=None, tokenizer="depth-tok",
                 modality="image")


def test_a_repeated_key_is_a_dead_letter(tmp_path: Path) -> None:
    write_webdataset(tmp_path / "a.tar", drawn(1))
    write_webdataset(tmp_path / "b.tar", drawn(1))
    found = imported(tmp_path, str(tmp_path / "*.tar"), "webdataset")
    assert found.manifest.dead_letters == {"DuplicateKey": IMAGES}


def test_an_interrupted_import_ends_in_the_same_files(tmp_path: Path) -> None:
    source = WRITERS["rar"](tmp_path, drawn(1))
    whole = ImportConfig(source=source, format="rar", output=str(tmp_path / "whole"),
                         codebook_size=K, grid=GRID, shard_size=2)
    import_corpus(whole)
    for num_writes in (1, 3, 6):
        again = dataclasses.replace(whole, output=str(tmp_path / f"stopped-{num_writes}"))
        with writes_that_end(num_writes, KeyboardInterrupt()), pytest.raises(KeyboardInterrupt):
            import_corpus(again)
        import_corpus(again)
        assert tree(Path(again.output)) == tree(Path(whole.output))
    with pytest.raises(PlanMismatch, match="shard_size was 2, now 3"):
        import_corpus(dataclasses.replace(whole, shard_size=3))


def test_codes_of_an_unknown_tokenizer_are_decoded_by_one_that_fits(tmp_path: Path) -> None:
    imported(tmp_path, WRITERS["rar"](tmp_path, drawn(1)), "rar")
    decode = DecodeConfig(tokens=str(tmp_path / "tokens"), output=str(tmp_path / "out"),
                          tokenizers={"image": "tok"})
    assert decode_corpus(decode).num_crops == IMAGES
    with pytest.raises(PlanMismatch, match="tokenizer was 'sha256:a', now 'sha256:b'"):
        decode_corpus(dataclasses.replace(decode, tokenizers={"image": "other-tok"}))


def test_a_tokenizer_that_cannot_have_made_the_codes_is_refused(tmp_path: Path) -> None:
    imported(tmp_path, WRITERS["rar"](tmp_path, drawn(1)), "rar", codebook_size=17)
    with pytest.raises(ValueError, match="cannot have made .* codebook_size is 16, theirs 17"):
        decode_corpus(DecodeConfig(tokens=str(tmp_path / "tokens"), output=str(tmp_path / "out"),
                                   tokenizers={"image": "tok"}))


def test_a_tokenizer_gives_the_spec_and_alone_decodes(tmp_path: Path) -> None:
    found = imported(tmp_path, WRITERS["rar"](tmp_path, drawn(1)), "rar", codebook_size=None,
                     tokenizer="tok")
    spec, = found.spec.codes
    assert (spec.tokenizer, spec.image_size, spec.codebook_size) == ("sha256:a", (8, 12), K)
    assert spec.preprocessing["crop"] == spec.preprocessing["resampling"] == UNKNOWN
    with pytest.raises(ValueError, match="by the tokenizer sha256:a; other-tok is sha256:b"):
        decode_corpus(DecodeConfig(tokens=str(tmp_path / "tokens"), output=str(tmp_path / "out"),
                                   tokenizers={"image": "other-tok"}))


@pytest.mark.parametrize(("settings", "words"), [
    ({"grid": (2, 2)}, "the codes are 6 a crop, a grid of 2 x 2"),
    ({"grid": None}, "give the grid as HxW"),
    ({"image_size": (0, 0)}, "--image-size 0x0: a picture has at least a pixel for each code of "),
    ({"image_size": (99999999999, 8)}, "--image-size 99999999999x8: .* at most 178000000 pixels"),
    ({"modality": "../x"}, "--modality is a name such as image or depth, got '../x'"),
    ({"codebook_size": None}, "give either the tokenizer"),
    ({"tokenizer": "tok"}, "give either the tokenizer"),
    ({"format": "zip"}, "formats that are read are llamagen, rar, 4m, webdataset, got 'zip'"),
    ({"source": "none.jsonl"}, "No such file|does not exist"),
    ({"source": "none/*.jsonl"}, r"no file matches none/\*\.jsonl")])
def test_what_does_not_fit_is_refused(tmp_path: Path, settings: dict[str, Any],
                                      words: str) -> None:
    source = WRITERS["rar"](tmp_path, drawn(1))
    defaults = {"source": source, "format": "rar", "output": str(tmp_path / "tokens"),
                "codebook_size": K, "grid": GRID}
    with pytest.raises((OSError, ValueError), match=words):
        import_corpus(ImportConfig(**(defaults | settings)))
    assert not (tmp_path / "tokens").exists()
