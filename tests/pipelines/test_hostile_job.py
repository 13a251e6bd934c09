"""Hostile corpora: inputs are rows and dead letters, whatever they are called and hold."""
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from colour_profiles import rgb_profile
from job_fakes import FakeCodec, tree
from PIL import Image

from pipelines.encode import EncodeConfig, encode_corpus
from pipelines.plan import PlanMismatch, load_plan
from tokenizer.corpus.modalities import RGB
from tokenizer.tokens import TokenCorpus

Settings = Callable[..., EncodeConfig]
KEYS = ["new\nline", "nul\0key", "tab\tkey", "k" * 4096, "../up", "/root", "a/../../b", "\u202ertl",
        "CON", " "]


def png(grey: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (9, 8), grey).save(buffer, "PNG")
    return buffer.getvalue()


def save_tar(folder: Path, files: list[tuple[str, bytes]]) -> str:
    """An archive whose names stand in headers of their own, which may hold any character."""
    with tarfile.open(folder / "0.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        for key, content in files:
            info = tarfile.TarInfo("x")
            info.size, info.pax_headers = len(content), {"path": f"{key}.png"}
            archive.addfile(info, io.BytesIO(content))
    return f"{folder}/0.tar"


def save_parquet(folder: Path, files: list[tuple[str, bytes]]) -> str:
    keys, contents = zip(*files, strict=True)
    pq.write_table(pa.table({"key": keys, "image": contents}), folder / "0.parquet")
    return f"{folder}/0.parquet"


def save_lines(folder: Path, files: list[tuple[str, bytes]]) -> str:
    for number, (_, content) in enumerate(files):
        (folder / f"{number}.png").write_bytes(content)
    lines = [json.dumps({"path": f"{number}.png", "key": key})
             for number, (key, _) in enumerate(files)]
    (folder / "list.jsonl").write_text("\n".join(lines))
    return f"{folder}/list.jsonl"


@pytest.mark.parametrize("save", [save_tar, save_parquet, save_lines])
def test_keys_of_any_characters_are_kept_and_a_second_one_is_told(
        config: Settings, tmp_path: Path,
        save: Callable[[Path, list[tuple[str, bytes]]], str]) -> None:
    no_text = {"nul\0key", "lone\ud800"} if save is save_lines else set()
    keys = [*KEYS, *sorted(no_text - set(KEYS)), "twice", "twice"]
    files = [(key, png(10 * number)) for number, key in enumerate(keys)]
    (tmp_path / "source").mkdir()
    make = config(corpus=save(tmp_path / "source", files), labels="none")
    manifest = encode_corpus(make)
    expected = {key: 10 * number // 16 for number, key in enumerate(keys[:-1])
                if key not in no_text}
    assert {key: codes[0] for table in TokenCorpus.open(make.output).tables()
            for key, codes in zip(table["key"].to_pylist(), table["image_codes"].to_pylist(),
                                  strict=True)} == expected
    assert manifest.dead_letters == {"DuplicateKey": 1} | ({"NotUTF8": 2} if no_text else {})
    assert manifest.num_inputs == manifest.num_rows + manifest.num_dead_letters == len(keys)
    assert {path.name for path in tmp_path.iterdir()} <= {"source", "tokens", "photos"}


def test_a_key_whose_first_input_lacks_its_map_is_a_dead_letter_and_a_row(
        config: Settings, tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.png").write_bytes(png(9))
    (tmp_path / "list.csv").write_text(
        "path,key,seg\na.png,same,\nb.png,other,b.png\nc.png,same,c.png\n")
    made = encode_corpus(config(
        corpus=f"{tmp_path}/list.csv", maps={"segmentation": "column:seg"},
        tokenizers={"image": "tok", "segmentation": "seg-tok"}))
    rows = [row["key"] for table in TokenCorpus.open(f"{tmp_path}/tokens").tables()
            for row in table.to_pylist()]
    assert (rows, made.dead_letters) == (["other", "same"], {"MissingMap": 1})


def test_archives_within_archives_are_counted_not_opened(config: Settings, tmp_path: Path) -> None:
    inner = Path(save_tar(tmp_path, [("in", png(0))])).read_bytes()
    with tarfile.open(tmp_path / "outer.tar", "w") as archive:
        for name, content in (("a.png", png(0)), ("inner.tar", inner), ("b.tar.gz", b"\x1f\x8b")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    make = config(corpus=f"{tmp_path}/outer.tar", labels="none")
    assert encode_corpus(make).num_rows == 1
    plan = load_plan(make.output)
    assert plan is not None and plan.notes == {".tar members": 1, ".tar.gz members": 1}


def test_nulls_in_parquet_are_dead_letters(config: Settings, tmp_path: Path) -> None:
    table = pa.table({"key": ["a", None, "c", "d"], "label": ["x", None, "y", None],
                      "image": [png(0), png(9), None, b""], "text": [None, "t", None, None]})
    pq.write_table(table, tmp_path / "0.parquet")
    make = config(corpus=f"{tmp_path}/0.parquet")
    manifest = encode_corpus(make)
    assert manifest.dead_letters == {"NoKey": 1, "NullImage": 1, "UnreadableImage": 1}
    assert (manifest.num_inputs, manifest.num_rows) == (4, 1)
    messages = {letter.key: letter.message for letter in TokenCorpus.open(make.output)
                .dead_letters()}
    assert messages["c"] == "row 2 of row group 0 has no image in column image"
    assert messages["d"] == "the file is empty (0 bytes)"


def test_a_corpus_of_an_earlier_route_goes_on_with_it_and_no_other(
        config: Settings, fakes: dict[str, FakeCodec], tmp_path: Path) -> None:
    make = config()
    image = Image.new("RGB", (9, 8), (90, 90, 90))
    image.save(tmp_path / "photos/img-004.png", icc_profile=rgb_profile(gamma=1.0))
    encode_corpus(make)
    before = tree(tmp_path / "tokens")
    spec = TokenCorpus.open(make.output).spec["image"]
    assert spec.preprocessing == {"name": "image", "crop": "centre",
                                  "resampling": "bilinear with antialiasing"}
    (tmp_path / "tokens/_receipts/00001.json").unlink()
    encode_corpus(make)
    assert tree(tmp_path / "tokens") == before
    fakes["tok"] = FakeCodec(RGB(route="srgb"))
    words = "codes.image.preprocessing.route was None, now 'srgb'"
    with pytest.raises(PlanMismatch, match=words):
        encode_corpus(make)
    assert tree(tmp_path / "tokens") == before
    encode_corpus(config(output=str(tmp_path / "other")))
    codes = [{row["key"]: row["image_codes"] for table in TokenCorpus.open(str(url)).tables()
              for row in table.to_pylist()} for url in (tmp_path / "tokens", tmp_path / "other")]
    assert [key for key in codes[0] if codes[0][key] != codes[1][key]] == ["img-004"]
