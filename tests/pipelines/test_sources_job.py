"""The encode job over every kind of source: the same images give the same codes."""
import dataclasses
import io
import json
import os
import socket
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from job_fakes import tree
from PIL import Image

from pipelines import encode
from pipelines.encode import EncodeConfig, encode_corpus
from pipelines.job import JobFailed
from pipelines.plan import Plan, PlanMismatch
from tokenizer.corpus.sources import SOURCES
from tokenizer.tokens import TokenCorpus

Settings = Callable[..., EncodeConfig]
Writer = Callable[[Path, Path], str]


def save_tars(photos: Path, folder: Path, maps: Path | None = None) -> str:
    """Photos, their labels and maps as three archives; returns what names them."""
    folder.mkdir(exist_ok=True)
    for number in range(3):
        with tarfile.open(folder / f"{number:02d}.tar", "w") as archive:
            for path in sorted(photos.iterdir())[number * 4:number * 4 + 4]:
                members = {path.name: path.read_bytes(),
                           f"{path.stem}.cls": str(int(path.stem[-3:]) % 3).encode()}
                if maps is not None:
                    members[f"{path.stem}.segmentation.png"] = (maps / path.name).read_bytes()
                for name, content in members.items():
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
    return f"{folder}/{{00..02}}.tar"


def as_folder(photos: Path, folder: Path) -> str:
    return str(photos)


def save_parquet(photos: Path, folder: Path, maps: Path | None = None) -> str:
    """The same in two Parquet files of two row groups each."""
    folder.mkdir(exist_ok=True)
    paths = sorted(photos.iterdir())
    for number in range(2):
        some = paths[number * 5:number * 5 + 5]
        columns = {"key": [path.stem for path in some],
                   "image": [{"bytes": path.read_bytes(), "path": path.name} for path in some],
                   "label": [int(path.stem[-3:]) % 3 for path in some]}
        if maps is not None:
            columns["seg"] = [(maps / path.name).read_bytes() for path in some]
        pq.write_table(pa.table(columns), folder / f"{number}.parquet", row_group_size=3)
    return f"{folder}/*.parquet"


def save_list(photos: Path, folder: Path, maps: Path | None = None) -> str:
    """The same named by a table."""
    folder.mkdir(exist_ok=True)
    lines = [f"{path},{path.stem},{int(path.stem[-3:]) % 3},{maps and maps / path.name}"
             for path in sorted(photos.iterdir())]
    (folder / "list.csv").write_text("\n".join(["path,key,label,seg", *lines]))
    return f"{folder}/list.csv"


def save_dataset(photos: Path, folder: Path, maps: Path | None = None) -> str:
    """The same as a data set of the library `datasets`."""
    import datasets
    paths = sorted(photos.iterdir())
    columns = {"key": [path.stem for path in paths],
               "image": [{"bytes": path.read_bytes(), "path": None} for path in paths],
               "label": [int(path.stem[-3:]) % 3 for path in paths],
               "seg": [(maps / path.name).read_bytes() if maps else b"" for path in paths]}
    features = datasets.Features({
        "key": datasets.Value("string"), "image": datasets.Image(),
        "label": datasets.ClassLabel(names=["0", "1", "2"]), "seg": datasets.Value("binary")})
    if not folder.exists():
        datasets.Dataset.from_dict(columns, features=features).save_to_disk(folder)
    return str(folder)


WRITERS: dict[str, Writer] = {"folder": as_folder, "tar": save_tars, "parquet": save_parquet,
                              "list": save_list, "datasets": save_dataset}
LABELLED = ["tar", "parquet", "list", "datasets"]
CHANGED = {"tar": "01.tar", "parquet": "1.parquet"}
"""A file of each kind of source that holds many inputs."""


@pytest.fixture
def corpus(config: Settings, tmp_path: Path) -> Callable[[str], EncodeConfig]:
    """Makes the config of a job over ten drawn images that lie in some kind of source."""
    def make(kind: str, **settings: Any) -> EncodeConfig:
        plain = config()
        url = WRITERS[kind](tmp_path / "photos", tmp_path / "source")
        return dataclasses.replace(plain, **{"corpus": url, **settings})
    return make


def rows_of(url: str) -> list[dict[str, Any]]:
    return [row for table in TokenCorpus.open(url).tables() for row in table.to_pylist()]


@pytest.mark.parametrize("kind", WRITERS)
def test_the_same_images_give_the_same_codes(corpus: Callable[..., EncodeConfig], tmp_path: Path,
                                             kind: str) -> None:
    folder, other = corpus("folder"), corpus(kind, output=str(tmp_path / "other"))
    assert encode_corpus(folder).num_rows == encode_corpus(other).num_rows == 10
    kept = ("key", "image_codes", "height", "width", "left", "top", "crop_width", "crop_height")
    expected, found = ({row["key"]: [row[name] for name in kept] for row in rows_of(url)}
                       for url in (folder.output, other.output))
    assert found == expected
    assert len({row["source"] for row in rows_of(other.output)}) == 10


@pytest.mark.parametrize("kind", LABELLED)
def test_labels_travel_with_the_images(corpus: Callable[..., EncodeConfig], kind: str) -> None:
    manifest = encode_corpus(corpus(kind))
    assert manifest.classes == ("0", "1", "2")
    for row in rows_of(corpus(kind).output):
        assert row["label"] == int(row["key"][-3:]) % 3


@pytest.mark.parametrize("kind", WRITERS)
def test_a_stopped_job_ends_in_the_same_files(corpus: Callable[..., EncodeConfig], tmp_path: Path,
                                              monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    undisturbed = corpus(kind, output=str(tmp_path / "undisturbed"))
    encode_corpus(undisturbed)
    fsync = os.fsync
    for num_writes in (1, 3, 5, 8):
        left = iter(range(num_writes))

        def interrupt(number: int, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt
            fsync(number)
        monkeypatch.setattr(os, "fsync", interrupt)
        stopped = corpus(kind, output=str(tmp_path / f"stopped-{num_writes}"))
        with pytest.raises(KeyboardInterrupt):
            encode_corpus(stopped)
        monkeypatch.setattr(os, "fsync", fsync)
        encode_corpus(stopped)
        assert tree(Path(stopped.output)) == tree(tmp_path / "undisturbed"), num_writes


def test_an_archive_that_changed_is_refused_by_name(corpus: Callable[..., EncodeConfig],
                                                    tmp_path: Path) -> None:
    job = corpus("tar")
    encode_corpus(job)
    path = tmp_path / "source/01.tar"
    content = bytearray(path.read_bytes())
    content[content.index(b"img-005.png") + 136] ^= 1  # a digit of its time of change
    path.write_bytes(content)
    with pytest.raises(PlanMismatch, match=r"source/01\.tar was '\d+ bytes, headers sha256:"):
        encode_corpus(job)


@pytest.mark.parametrize(("kind", "name"), CHANGED.items())
def test_a_file_that_vanishes_while_the_job_runs_fails_its_shards(
        corpus: Callable[..., EncodeConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        kind: str, name: str) -> None:
    job, path = corpus(kind), tmp_path / "source" / name
    planned = encode.plan_encoding

    def plan_then_remove(*args: Any) -> Plan:
        plan = planned(*args)
        path.unlink()
        return plan
    monkeypatch.setattr(encode, "plan_encoding", plan_then_remove)
    with pytest.raises(JobFailed, match=f"{name} is not there any more"):
        encode_corpus(job)
    assert (tmp_path / "tokens/_receipts/00000.json").exists()
    assert not (tmp_path / "tokens/_SUCCESS").exists()


@pytest.mark.parametrize(("write", "column"), [
    (save_tars, ".segmentation.png"), (save_parquet, "column:seg"),
    (save_list, "column:seg"), (save_dataset, "column:seg")])
def test_maps_in_the_corpus_are_cropped_with_their_image(
        config: Settings, tmp_path: Path, write: Callable[..., str], column: str) -> None:
    plain = config()
    photos, maps = tmp_path / "photos", tmp_path / "maps"
    maps.mkdir()
    for number, photo in enumerate(sorted(photos.iterdir())):
        with Image.open(photo) as image:
            labels = np.arange(image.height * image.width).reshape(image.height, image.width)
        Image.fromarray((labels % (number + 2)).astype(np.uint8)).save(maps / photo.name)
    tokenizers = {"image": "tok", "segmentation": "seg-tok"}
    folder = dataclasses.replace(plain, tokenizers=tokenizers, maps={"segmentation": str(maps)})
    archives = dataclasses.replace(
        folder, corpus=write(photos, tmp_path / "source", maps), labels="none",
        maps={"segmentation": column}, output=str(tmp_path / "other"))
    for job in (folder, archives):
        assert encode_corpus(job).num_rows == 10
    expected, found = ([(row["key"], row["image_codes"], row["segmentation_codes"])
                        for row in rows_of(job.output)] for job in (folder, archives))
    assert found == expected


def test_a_truncated_archive_loses_nothing_in_silence(corpus: Callable[..., EncodeConfig],
                                                      tmp_path: Path) -> None:
    job, path = corpus("tar"), tmp_path / "source/01.tar"
    content = path.read_bytes()
    path.write_bytes(content[:content.index(b"img-006.png") + 600])
    manifest = encode_corpus(job)
    assert manifest.num_rows == 8
    assert manifest.dead_letters == {"DamagedArchive": 1, "TruncatedArchive": 1}
    assert manifest.num_inputs == 10  # eight rows, the image that is cut, and what came after it


def test_every_kind_of_source_is_tried() -> None:
    assert set(WRITERS) == set(SOURCES)


def test_a_truncated_parquet_file_is_one_dead_letter(corpus: Callable[..., EncodeConfig],
                                                     tmp_path: Path) -> None:
    job, path = corpus("parquet"), tmp_path / "source/1.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    manifest = encode_corpus(job)
    assert (manifest.num_rows, manifest.num_inputs) == (5, 6)
    assert manifest.dead_letters == {"DamagedFile": 1}


@pytest.fixture
def server(config: Settings, tmp_path: Path) -> Iterator[str]:
    """The address of a server of the photos' folder; one name answers 503 once, another always."""
    folder, refused = str(config().corpus), set()

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=folder)

        def do_GET(self) -> None:
            if self.path == "/img-002.png" and self.path not in refused:
                refused.add(self.path)
                self.send_error(503)
            elif self.path == "/img-005.png":
                self.send_error(410)
            else:
                super().do_GET()

        def log_message(self, *args: object) -> None:
            pass
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def test_one_bad_url_is_a_dead_letter(config: Settings, tmp_path: Path, server: str) -> None:
    (tmp_path / "urls.jsonl").write_text("".join(json.dumps(
        {"url": f"{server}/img-{number:03d}.png", "key": f"img-{number:03d}"}) + "\n"
        for number in range(10)))
    job = config(corpus=f"{tmp_path}/urls.jsonl#backoff=0.01")
    assert encode_corpus(job).dead_letters == {"RefusedURL": 1}
    letter, = TokenCorpus.open(job.output).dead_letters()
    assert (letter.key, letter.stage) == ("img-005", "read")
    assert letter.message == f"{server}/img-005.png answers 410 Gone"
    folder = config(output=str(tmp_path / "folder"))
    encode_corpus(folder)
    assert [row["image_codes"] for row in rows_of(job.output)] == [
        row["image_codes"] for row in rows_of(folder.output) if row["key"] != "img-005"]


def test_no_network_is_no_corpus_of_dead_letters(config: Settings, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        (tmp_path / "urls.csv").write_text(f"url\n{address}/a.png\n{address}/b.png\n")
        with pytest.raises(JobFailed, match="none of 2 files can be reached, the first being"):
            encode_corpus(config(corpus=f"{tmp_path}/urls.csv#retries=0"))
