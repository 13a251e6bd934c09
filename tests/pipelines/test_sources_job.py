"""The encode job over every kind of source: the same images give the same codes."""
import dataclasses
import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from job_fakes import tree, writes_that_end
from PIL import Image
from source_kinds import (
    CHANGED,
    LABELLED,
    WRITERS,
    save_dataset,
    save_list,
    save_parquet,
    save_tars,
)

from pipelines import encode
from pipelines.encode import EncodeConfig, encode_corpus
from pipelines.job import JobFailed
from pipelines.plan import Plan, PlanMismatch
from tokenizer.corpus.sources import SOURCES
from tokenizer.tokens import TokenCorpus

Settings = Callable[..., EncodeConfig]


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
                                              kind: str) -> None:
    undisturbed = corpus(kind, output=str(tmp_path / "undisturbed"))
    encode_corpus(undisturbed)
    for num_writes in (1, 3, 5, 8):
        stopped = corpus(kind, output=str(tmp_path / f"stopped-{num_writes}"))
        with writes_that_end(num_writes, KeyboardInterrupt()), pytest.raises(KeyboardInterrupt):
            encode_corpus(stopped)
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


def test_stars_that_find_the_tokens_are_refused(corpus: Callable[..., EncodeConfig],
                                                tmp_path: Path) -> None:
    job = dataclasses.replace(corpus("parquet"), corpus=f"{tmp_path}/**/*.parquet")
    encode_corpus(job)
    with pytest.raises(ValueError, match=r"the input .*tokens/.*\.parquet lies in the output"):
        encode_corpus(job)


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
