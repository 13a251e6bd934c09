"""Token corpora become foreign files of codes, and come back from them."""
import dataclasses
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from foreign_files import (
    IMAGES,
    WRITERS,
    codes_of,
    drawn,
    imported,
    npy,
    rows_of,
    write_tar,
    write_webdataset,
)
from job_fakes import GRID, FakeCodec, run_inline, tree, writes_that_end

from pipelines.engines import BeamEngine
from pipelines.exporting import ExportConfig, export_corpus
from pipelines.formats import LAYOUTS, READERS
from pipelines.job import ShardTask
from pipelines.plan import PlanMismatch
from tokenizer import audit, tokens
from tokenizer.corpus.modalities import RGB, Depth
from tokenizer.schema import TokenSpec, rows_table
from tokenizer.tokens import TokenCorpus

pytestmark = pytest.mark.usefixtures("fakes", "without_beam")


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
