"""Sinks: the same pictures as files, in tar files and in Parquet, whole, in order and resumable."""
import dataclasses
import io
import json
import os
import pickle
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from job_fakes import full_disk, tree, writes_that_end
from PIL import Image

from pipelines.array import Part, Unfinished
from pipelines.decode import DecodeConfig, Decoded, decode_corpus, decode_part, prepare_task
from pipelines.encode import EncodeConfig, encode_corpus
from pipelines.job import JobFailed
from pipelines.names import key_of
from pipelines.sinks import SINKS
from pipelines.sinks.base import FileSink
from pipelines.sinks.tar import sample_name
from tokenizer.corpus.sources import open_source
from tokenizer.receipts import receipt_name
from tokenizer.tokens import TokenCorpus

Settings = Callable[..., EncodeConfig]
OF_ONE_FILE = [name for name, sink in SINKS.items() if issubclass(sink, FileSink)]


@pytest.fixture
def job(config: Settings, tmp_path: Path) -> DecodeConfig:
    """Decodes ten images with labels and captions, encoded in shards of four."""
    rows = [{"key": f"img-{index:03d}", "label": ("cat", "dog")[index % 2],
             "caption": f"no. {index}"} for index in range(10)]
    (tmp_path / "labels.jsonl").write_text("\n".join(map(json.dumps, rows)))
    encode_corpus(config(labels=str(tmp_path / "labels.jsonl")))
    return DecodeConfig(tokens=str(tmp_path / "tokens"), output=str(tmp_path / "out"),
                        tokenizers={"image": "tok"}, batch_size=4)


def pictures(url: str, to: str) -> Iterator[tuple[str, bytes]]:
    """Key and content of each picture that a sink has written, in the order of its files."""
    for path in sorted(Path(url).rglob("*")):
        if path.suffix == ".tar":
            with tarfile.open(path) as archive:
                for member in archive:
                    if not member.name.endswith(".json"):
                        file = archive.extractfile(member)
                        assert file is not None
                        yield key_of(os.path.splitext(member.name)[0])[0], file.read()
        elif path.suffix == ".parquet" and to == "parquet" and "_decode" not in path.parts:
            for row in pq.read_table(path).to_pylist():
                yield row["key"], row["image"]["bytes"]
        elif path.suffix == ".png":
            yield path.stem, path.read_bytes()


@pytest.mark.parametrize("to", SINKS)
def test_every_sink_holds_the_same_pictures_in_the_same_order(job: DecodeConfig, to: str) -> None:
    decode_corpus(job)
    expected = list(pictures(job.output, "folder"))
    other = dataclasses.replace(job, to=to, output=f"{job.output}-{to}")
    assert decode_corpus(other) == Decoded(num_crops=10, dead_letters={})
    assert list(pictures(other.output, to)) == expected and len(expected) == 10


def test_tar_files_are_read_as_a_source_with_keys_labels_and_captions(job: DecodeConfig) -> None:
    decode_corpus(dataclasses.replace(job, to="tar"))
    source = open_source(f"{job.output}/*.tar")
    corpus = pa.concat_tables(TokenCorpus.open(job.tokens).tables(["key", "label", "caption"]))
    assert [{"key": entry.key, "label": entry.label, "caption": entry.caption}
            for entry in source.entries()] == corpus.to_pylist()


def test_a_sample_of_a_tar_file_says_its_crop(job: DecodeConfig) -> None:
    decode_corpus(dataclasses.replace(job, to="tar"))
    with tarfile.open(f"{job.output}/part-00000-of-00003.tar") as archive:
        assert archive.getnames()[:2] == ["img-000.png", "img-000.json"]
        assert {(member.mtime, member.uid, member.mode) for member in archive} == {(0, 0, 0o644)}
        file = archive.extractfile("img-000.json")
        assert file is not None
        about = json.load(file)
    row = TokenCorpus.open(job.tokens).read_shard(0).drop_columns("image_codes").slice(0, 1)
    assert about == row.to_pylist()[0]


def test_dots_in_keys_do_not_divide_samples() -> None:
    assert sample_name("a.b/c.d.e~2") == "a.b/c%2Ed%2Ee~2"
    assert key_of(sample_name("a.b/c.d.e~2")) == ("a.b/c.d.e", 2)


def test_datasets_show_pictures_and_classes_of_parquet_files(job: DecodeConfig,
                                                             tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    decode_corpus(dataclasses.replace(job, to="parquet"))
    for streaming in (False, True):
        rows = datasets.load_dataset(job.output, split="train", streaming=streaming,
                                     cache_dir=str(tmp_path / "cache"))
        assert rows.features["label"].names == ["cat", "dog"]
        first = next(iter(rows))
        assert (first["key"], first["label"], first["caption"]) == ("img-000", 0, "no. 0")
        assert first["image"].size == (12, 8)


def test_several_modalities_share_a_sample(config: Settings, tmp_path: Path) -> None:
    from job_fakes import save_maps
    make = config(maps={"depth": f"{tmp_path}/depths"},
                  tokenizers={"image": "tok", "depth": "depth-tok"})
    save_maps(tmp_path / "depths", tmp_path / "photos", lambda size: np.full(size, 5, np.uint16))
    encode_corpus(make)
    job = DecodeConfig(tokens=make.output, output=str(tmp_path / "out"), to="tar", picture="jpeg",
                       tokenizers={"image": "tok", "depth": "depth-tok"})
    decode_corpus(job)
    with tarfile.open(tmp_path / "out/part-00000-of-00003.tar") as archive:
        assert sorted(archive.getnames()[:3]) == ["img-000.depth.png", "img-000.image.jpg",
                                                  "img-000.json"]
    decode_corpus(dataclasses.replace(job, to="parquet", output=str(tmp_path / "rows")))
    row = pq.read_table(tmp_path / "rows/data/part-00000-of-00003.parquet").to_pylist()[0]
    assert Image.open(io.BytesIO(row["depth"]["bytes"])).mode == "I;16"


@pytest.mark.parametrize("to", SINKS)
def test_starting_over_removes_what_the_job_has_written_and_nothing_else(job: DecodeConfig,
                                                                         to: str) -> None:
    whole = dataclasses.replace(job, to=to)
    decode_corpus(whole)
    expected = tree(Path(job.output))
    index = next((Path(job.output) / "_decode/data").iterdir())
    index.write_bytes(b"damaged")
    if to != "folder":  # there a picture of this name is the job's
        (Path(job.output) / "img-005.png").write_bytes(b"unpacked by hand")
        expected["img-005.png"] = b"unpacked by hand"
    decode_corpus(dataclasses.replace(whole, overwrite=True))
    assert tree(Path(job.output)) == expected


@pytest.mark.parametrize("to", SINKS)
def test_a_task_does_the_same_in_another_process(job: DecodeConfig, to: str) -> None:
    task = prepare_task(dataclasses.replace(job, to=to))
    sent = pickle.loads(pickle.dumps(task))
    receipt = sent.run(0)
    written = tree(Path(job.output))
    (Path(job.output) / "_decode" / receipt_name(0)).unlink()
    assert task.run(0) == receipt and tree(Path(job.output)) == written


@pytest.mark.parametrize("to", OF_ONE_FILE)
def test_the_tasks_of_an_array_write_the_same_files(job: DecodeConfig, to: str) -> None:
    whole = dataclasses.replace(job, to=to)
    decode_corpus(whole)
    parts = dataclasses.replace(whole, output=f"{job.output}-parts")
    assert isinstance(decode_part(parts, Part(index=1, size=2)), Unfinished)
    assert decode_part(parts, Part(index=0, size=2)) == Decoded(num_crops=10, dead_letters={})
    assert tree(Path(parts.output)) == tree(Path(whole.output))


@pytest.mark.parametrize("to", OF_ONE_FILE)
def test_an_interrupted_job_ends_in_the_same_files(job: DecodeConfig, tmp_path: Path,
                                                   to: str) -> None:
    whole = dataclasses.replace(job, to=to)
    decode_corpus(whole)
    for num_writes in (2, 3, 4):  # after the plan: within a shard's file, its index, its receipt
        again = dataclasses.replace(whole, output=str(tmp_path / f"stopped-{num_writes}"))
        with writes_that_end(num_writes, KeyboardInterrupt()), pytest.raises(KeyboardInterrupt):
            decode_corpus(again)
        assert not (Path(again.output) / "_decode/_SUCCESS").exists()
        decode_corpus(again)
        assert tree(Path(again.output)) == tree(Path(whole.output))


@pytest.mark.parametrize("to", OF_ONE_FILE)
def test_files_that_were_lost_or_cut_are_made_again(job: DecodeConfig, to: str) -> None:
    whole = dataclasses.replace(job, to=to)
    decode_corpus(whole)
    before = tree(Path(job.output))
    first, second, _ = (path for path in before if "part-" in path and "_decode" not in path)
    (Path(job.output) / first).unlink()
    (Path(job.output) / second).write_bytes(b"short")
    decode_corpus(whole)
    assert tree(Path(job.output)) == before


@pytest.mark.parametrize("to", OF_ONE_FILE)
def test_a_full_disk_leaves_no_rest_of_a_file(job: DecodeConfig, to: str) -> None:
    whole = dataclasses.replace(job, to=to)
    with (writes_that_end(5, full_disk()),
          pytest.raises(JobFailed, match="takes no data: No space left on device")):
        decode_corpus(whole)
    assert not [path for path in tree(Path(job.output)) if ".tmp-" in path]
    assert decode_corpus(whole).num_crops == 10


@pytest.mark.parametrize(("before", "after"), [("tar", "folder"), ("parquet", "tar")])
def test_overwriting_removes_the_files_of_another_sink(job: DecodeConfig, before: str,
                                                       after: str) -> None:
    decode_corpus(dataclasses.replace(job, to=before))
    decode_corpus(dataclasses.replace(job, to=after, overwrite=True))
    decode_corpus(dataclasses.replace(job, to=after, output=f"{job.output}-new"))
    assert tree(Path(job.output)) == tree(Path(f"{job.output}-new"))


def test_files_on_an_object_store_are_the_same(job: DecodeConfig) -> None:
    import fsspec
    memory = fsspec.filesystem("memory")
    memory.rm("/", recursive=True)
    decode_corpus(dataclasses.replace(job, to="tar"))
    decode_corpus(dataclasses.replace(job, to="tar", output="memory://images"))
    found = {path.removeprefix("/images/"): memory.cat_file(path)
             for path in memory.find("/images")}
    assert found == tree(Path(job.output))


def test_a_lower_quality_makes_smaller_files_and_is_part_of_the_plan(job: DecodeConfig) -> None:
    def size(quality: int) -> int:
        made = dataclasses.replace(job, picture="jpeg", quality=quality,
                                   output=f"{job.output}-{quality}")
        decode_corpus(made)
        return sum(len(content) for path, content in tree(Path(made.output)).items()
                   if path.endswith(".jpg"))
    assert size(30) < size(95)
    with pytest.raises(ValueError, match="quality was 30, now None"):
        decode_corpus(dataclasses.replace(job, picture="jpeg", output=f"{job.output}-30"))


@pytest.mark.parametrize(("settings", "words"), [
    ({"to": "zip"}, "images go to folder, tar, parquet, got 'zip'"),
    ({"quality": 0, "picture": "jpeg"}, "quality is 1 to 100, got 0"),
    ({"quality": 80}, "png keeps every pixel: leave out --quality 80"),
])
def test_settings_that_do_not_fit_are_refused(settings: dict[str, object], words: str) -> None:
    defaults = {"tokens": "t", "output": "o", "tokenizers": {"image": "tok"}}
    with pytest.raises(ValueError, match=words):
        DecodeConfig(**(defaults | settings))  # type: ignore[arg-type]
