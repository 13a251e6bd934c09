"""Conversions: foreign files, written here as their programs write them, and back again."""
import dataclasses
import io
import json
import os
import pickle
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from job_fakes import GRID, FakeCodec, run_inline, tree, writes_that_end

from pipelines import job
from pipelines.decode import DecodeConfig, decode_corpus
from pipelines.engines import BeamEngine
from pipelines.exporting import ExportConfig, export_corpus
from pipelines.formats import LAYOUTS, READERS, rar
from pipelines.importing import ImportConfig, import_corpus
from pipelines.job import ShardTask
from pipelines.plan import PlanMismatch
from tokenizer import audit, tokens
from tokenizer.corpus.modalities import RGB, Depth
from tokenizer.schema import UNKNOWN, TokenSpec, codes_array, rows_table
from tokenizer.tokens import TokenCorpus

K, NUM_CODES = 16, GRID[0] * GRID[1]
IMAGES = 5


@pytest.fixture(autouse=True)
def inline(monkeypatch: pytest.MonkeyPatch, fakes: dict[str, FakeCodec]) -> None:
    monkeypatch.setattr(BeamEngine, "__call__",
                        lambda engine, task, shards: run_inline(task, shards))
    monkeypatch.setattr(job, "PAUSES", (0.0, 0.0))


def drawn(num_crops: int, seed: int = 0) -> np.ndarray:
    """Codes ``(IMAGES, num_crops, NUM_CODES)``, int64."""
    return np.random.default_rng(seed).integers(0, K, (IMAGES, num_crops, NUM_CODES))


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


def write_llamagen(folder: Path, codes: np.ndarray) -> str:
    """As extract_codes_c2i.py writes it."""
    for number, crops in enumerate(codes):
        save(folder / f"imagenet256_codes/{number}.npy", crops[None])
        save(folder / f"imagenet256_labels/{number}.npy", np.array([number % 3]))
    return str(folder)


def write_rar(path: Path, codes: np.ndarray) -> str:
    """As pretokenization.py writes it."""
    with path.open("w") as file:
        for number, crops in enumerate(codes):
            for crop in crops:
                json.dump({"class_id": number % 3, "tokens": crop.tolist()}, file)
                file.write("\n")
    return str(path)


def write_4m(folder: Path, codes: np.ndarray) -> str:
    """As save_vq_tokens.py writes it; image i is i pixels high, its second crop mirrored."""
    for number, crops in enumerate(codes):
        place = f"class{number % 2}/img{number}.npy"
        save(folder / "rgb_dvae_BUa_224" / place, crops.astype(np.int16))
        boxes = [[1, 2, 10 + number, 20, index % 2] for index in range(len(crops))]
        save(folder / "crop_settings" / place, np.array(boxes))
    return str(folder / "rgb_dvae_BUa_224")


def write_tar(path: Path, members: dict[str, bytes]) -> str:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return str(path)


def write_webdataset(path: Path, codes: np.ndarray) -> str:
    return write_tar(path, {f"a/{number:03d}{suffix}": content for number, crops in enumerate(codes)
                            for suffix, content in ((".npy", npy(crops)),
                                                    (".cls", b"%d" % (number % 3)),
                                                    (".txt", f"no. {number}".encode()))})


WRITERS: dict[str, Callable[[Path, np.ndarray], str]] = {
    "llamagen": lambda folder, codes: write_llamagen(folder / "c2i", codes),
    "rar": lambda folder, codes: write_rar(folder / "lines.jsonl", codes),
    "4m": lambda folder, codes: write_4m(folder / "train", codes),
    "webdataset": lambda folder, codes: write_webdataset(folder / "codes.tar", codes)}
"""Foreign files of each format, as other programs write them; returns what to convert."""


def imported(tmp_path: Path, source: str, format: str, **settings: Any) -> TokenCorpus:
    defaults: dict[str, Any] = {"output": str(tmp_path / "tokens"), "codebook_size": K,
                                "grid": GRID, "shard_size": 2}
    import_corpus(ImportConfig(source=source, format=format, **(defaults | settings)))
    return TokenCorpus.open(str(tmp_path / "tokens"))


def rows_of(corpus: TokenCorpus) -> list[dict[str, Any]]:
    return [row for table in corpus.tables() for row in table.to_pylist()]


def codes_of(corpus: TokenCorpus) -> np.ndarray:
    code, = corpus.spec.codes
    return np.concatenate([codes_array(code, table) for table in corpus.tables()])


@pytest.fixture
def corpus(tmp_path: Path) -> Callable[..., str]:
    """Writes a token corpus of images with labels, captions and crops, in shards of two inputs."""
    def make(num_crops: int = 1, modalities: tuple[str, ...] = ("image",)) -> str:
        codecs = {"image": FakeCodec(RGB()), "depth": FakeCodec(Depth(), "d")}
        spec = TokenSpec(codes=tuple(codecs[name].spec for name in modalities))
        url, receipts, classes = str(tmp_path / "ours"), [], ("cat", "dog", "eel")
        for shard, inputs in enumerate((range(2), range(2, 4), range(4, IMAGES))):
            rows = [(image, crop) for image in inputs for crop in range(num_crops)]
            codes = {name: np.stack([drawn(num_crops, seed)[row].reshape(GRID) for row in rows])
                     for seed, name in enumerate(modalities)}
            labels = [image % 3 for image, _ in rows]
            receipts.append(tokens.commit_shard(url, shard, 3, "sha256:x", rows_table(spec, codes, {
                "key": [f"dir.{image % 2}/im.{image}" for image, _ in rows],
                "source": ["s"] * len(rows), "height": [30] * len(rows), "width": [40] * len(rows),
                "crop_index": [crop for _, crop in rows], "left": [3] * len(rows),
                "top": [image for image, _ in rows], "crop_width": [20] * len(rows),
                "crop_height": [10] * len(rows), "flipped": [crop % 2 == 1 for _, crop in rows],
                "label": labels, "class_name": [classes[label] for label in labels],
                "caption": [f"no. {image}" for image, _ in rows]}), (), num_crops))
        audit.complete(url, spec, "sha256:x", receipts, classes, IMAGES)
        return url
    return make


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


@pytest.mark.parametrize("line", [b"{cut", b"[1]", b'{"class_id": 1}', b'{"class_id": -1, '
                                  b'"tokens": [1]}', b'{"class_id": 0, "tokens": [0.5]}', b"\xff",
                                  b"[" * 100_000])
def test_lines_that_are_no_codes_are_dead_letters(tmp_path: Path, line: bytes) -> None:
    source = Path(WRITERS["rar"](tmp_path, drawn(1)))
    source.write_bytes(line + b"\n\n" + source.read_bytes())
    found = imported(tmp_path, str(source), "rar")
    assert found.manifest.dead_letters == {"UnreadableCodes": 1}
    assert [row["key"] for row in rows_of(found)] == ["2", "3", "4", "5", "6"]


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
    source = write_tar(tmp_path / "a.tar", {"a.npy": codes, "\udcff.npy": codes})
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
    ({"codebook_size": None}, "give either the tokenizer"),
    ({"tokenizer": "tok"}, "give either the tokenizer"),
    ({"format": "zip"}, "formats that are read are llamagen, rar, 4m, webdataset, got 'zip'"),
    ({"source": "none.jsonl"}, "No such file|does not exist")])
def test_what_does_not_fit_is_refused(tmp_path: Path, settings: dict[str, Any],
                                      words: str) -> None:
    source = WRITERS["rar"](tmp_path, drawn(1))
    defaults = {"source": source, "format": "rar", "output": str(tmp_path / "tokens"),
                "codebook_size": K, "grid": GRID}
    with pytest.raises((OSError, ValueError), match=words):
        import_corpus(ImportConfig(**(defaults | settings)))
    assert not (tmp_path / "tokens").exists()


@pytest.mark.parametrize("format", LAYOUTS)
@pytest.mark.parametrize("num_crops", [1, 2, 20])
def test_what_was_exported_is_imported_with_equal_codes(
        tmp_path: Path, corpus: Callable[..., str], format: str, num_crops: int) -> None:
    ours = TokenCorpus.open(corpus(num_crops))
    out = str(tmp_path / "foreign")
    done = export_corpus(ExportConfig(tokens=ours.url, output=out, format=format))
    assert done.num_items == IMAGES * (num_crops if format == "rar" else 1)
    source = {"4m": f"{out}/image", "webdataset": f"{out}/*.tar"}.get(format, out)
    back = imported(tmp_path, source, format)
    if format == "4m":  # classes are folders, which order the images
        order = np.argsort([row["key"] for row in rows_of(ours)], kind="stable")
        assert (codes_of(back) == codes_of(ours)[order]).all()
    else:
        assert (codes_of(back) == codes_of(ours)).all()
        assert [row["label"] for row in rows_of(back)] == [row["label"] for row in rows_of(ours)]


def test_the_card_of_a_webdataset_speaks_of_codes(tmp_path: Path,
                                                  corpus: Callable[..., str]) -> None:
    export_corpus(ExportConfig(tokens=corpus(2), output=str(tmp_path / "wds"), format="webdataset"))
    assert "5 samples with codes of image as .npy" in (tmp_path / "wds/README.md").read_text()


def test_a_webdataset_keeps_every_column_but_the_source(tmp_path: Path,
                                                        corpus: Callable[..., str]) -> None:
    ours = TokenCorpus.open(corpus(2))
    export_corpus(ExportConfig(tokens=ours.url, output=str(tmp_path / "wds"), format="webdataset"))
    back = imported(tmp_path, str(tmp_path / "wds/*.tar"), "webdataset")
    assert [{**row, "source": "s"} for row in rows_of(back)] == rows_of(ours)
    assert back.manifest.classes == ours.manifest.classes


def test_llamagen_finds_its_files_where_its_data_set_looks(tmp_path: Path,
                                                           corpus: Callable[..., str]) -> None:
    out = tmp_path / "c2i"
    export_corpus(ExportConfig(tokens=corpus(20), output=str(out), format="llamagen"))
    for folder, crops in (("flip_ten_crop", slice(10)), ("flip_ten_crop_105", slice(10, 20))):
        codes = np.load(out / folder / "imagenet8_codes/3.npy")
        assert codes.dtype == np.int64 and (codes == drawn(20)[3][crops][None]).all()
        assert np.load(out / folder / "imagenet8_labels/3.npy").tolist() == [0]


def test_4m_has_a_tree_for_each_modality_and_shared_crops(tmp_path: Path,
                                                          corpus: Callable[..., str]) -> None:
    out = tmp_path / "4m"
    export_corpus(ExportConfig(tokens=corpus(2, ("image", "depth")), output=str(out), format="4m"))
    depth = np.load(out / "depth/dir.1/im.3.npy")
    assert depth.dtype == np.int16 and (depth == drawn(2, 1)[3]).all()
    assert np.load(out / "crop_settings/dir.1/im.3.npy").tolist() == [[3, 3, 10, 20, 0],
                                                                      [3, 3, 10, 20, 1]]


def test_keys_that_look_like_files_of_others_are_exported_too(tmp_path: Path) -> None:
    codes = drawn(1)
    ours = imported(tmp_path, write_tar(tmp_path / "a.tar", {
        "a.npy": npy(codes[0]), "a.json": b'{"key": "x"}',
        "b.npy": npy(codes[1]), "b.json": b'{"key": "x.npy/y"}'}), "webdataset")
    out = tmp_path / "4m"
    done = export_corpus(ExportConfig(tokens=ours.url, output=str(out), format="4m"))
    assert done.num_items == 2 and not done.dead_letters
    assert (np.load(out / "image/x.npy") == codes[0]).all()
    assert (np.load(out / "image/x%2Enpy/y.npy") == codes[1]).all()


@pytest.mark.parametrize("format", LAYOUTS)
def test_an_interrupted_export_ends_in_the_same_files(
        tmp_path: Path, corpus: Callable[..., str], format: str) -> None:
    whole = ExportConfig(tokens=corpus(), output=str(tmp_path / "whole"), format=format)
    export_corpus(whole)
    again = dataclasses.replace(whole, output=str(tmp_path / "again"))
    with writes_that_end(5, KeyboardInterrupt()), pytest.raises(KeyboardInterrupt):
        export_corpus(again)
    assert not (tmp_path / "again/_convert/_SUCCESS").exists()
    export_corpus(again)
    assert tree(tmp_path / "again") == tree(tmp_path / "whole")
    lost = next(path for path in tree(tmp_path / "again") if not path.startswith("_convert"))
    (tmp_path / "again" / lost).unlink()
    export_corpus(again)
    assert tree(tmp_path / "again") == tree(tmp_path / "whole")


@pytest.mark.parametrize(("format", "words"), [
    ("llamagen", "holds codes of one modality, the corpus those of image, depth: choose one"),
    ("rar", "choose one with --modality")])
def test_a_format_of_one_modality_says_so(tmp_path: Path, corpus: Callable[..., str], format: str,
                                          words: str) -> None:
    with pytest.raises(ValueError, match=words):
        export_corpus(ExportConfig(tokens=corpus(1, ("image", "depth")), format=format,
                                   output=str(tmp_path / "out")))


def test_labels_that_a_format_needs_must_be_there(tmp_path: Path) -> None:
    write_webdataset(tmp_path / "a.tar", drawn(1))
    write_tar(tmp_path / "b.tar", {"b.npy": npy(drawn(1)[0])})
    ours = imported(tmp_path, str(tmp_path / "*.tar"), "webdataset")
    with pytest.raises(ValueError, match="but 1 of 6 rows of the corpus have none"):
        export_corpus(ExportConfig(tokens=ours.url, output=str(tmp_path / "out"), format="rar"))


def test_another_export_in_the_folder_is_refused(tmp_path: Path,
                                                 corpus: Callable[..., str]) -> None:
    first = ExportConfig(tokens=corpus(), output=str(tmp_path / "out"), format="llamagen")
    export_corpus(first)
    with pytest.raises(PlanMismatch, match="data was 'imagenet', now 'other'.*remove "):
        export_corpus(dataclasses.replace(first, data="other"))


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path,
                                                  corpus: Callable[..., str]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("x")
    with pytest.raises(ValueError, match="holds other files, such as mine.txt"):
        export_corpus(ExportConfig(tokens=corpus(), output=str(tmp_path / "out"), format="rar"))


@pytest.mark.parametrize("format", READERS)
def test_tasks_do_the_same_in_another_process(tmp_path: Path, format: str,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    def send(engine: BeamEngine, task: ShardTask, shards: Sequence[int]) -> None:
        run_inline(pickle.loads(pickle.dumps(task)), shards)
    monkeypatch.setattr(BeamEngine, "__call__", send)
    found = imported(tmp_path, WRITERS[format](tmp_path, drawn(1)), format)
    assert found.manifest.num_rows == IMAGES and not found.manifest.dead_letters
    out = str(tmp_path / "out")
    assert export_corpus(ExportConfig(tokens=found.url, output=out, format=format)).num_items == 5
