"""``--engine``: every engine ends in the same files, whatever happens to its workers."""
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from clusters import DaskCluster, JobService, wait_until
from PIL import Image
from random_tokenizers import tree

from cli.main import main

NUM_IMAGES = 40
SHAPES = ((40, 48), (30, 60), (62, 31), (41, 41))
BUCKETS = ("--buckets", "16x32,24x24,32x16", "--shard-size", 9)
WAYS = ("Dask", "job service", "loopback", "flags")  # processes of this machine: test_encode.py


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, tokenizer: str,
           drawn: Callable[..., np.ndarray]) -> Path:
    """Forty images of four shapes in ``photos``, one of them broken, and what one process makes of
    them in forty shards, ``local``, and in buckets, ``buckets``."""
    folder = tmp_path_factory.mktemp("engines")
    (folder / "photos").mkdir()
    for index in range(NUM_IMAGES):
        pixels = drawn(index, *SHAPES[index % len(SHAPES)])
        Image.fromarray(pixels).save(folder / f"photos/{index:03d}.png")
    (folder / "photos/007.png").write_bytes(b"no image")
    for out, options in {"local": (), "buckets": BUCKETS}.items():
        assert encode(folder, tokenizer, out, *options).exit_code == 0
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)])


def encode(folder: Path, tokenizer: str, out: str, *options: object) -> Result:
    return run("encode", folder / "photos", folder / out, "--tokenizer", f"image={tokenizer}",
               "--shard-size", 1, *options)


def decode(folder: Path, tokenizer: str, out: str, *options: object) -> Result:
    return run("decode", folder / "buckets", folder / out, "--tokenizer", f"image={tokenizer}",
               *options)


def options_of(way: str, request: pytest.FixtureRequest) -> list[str]:
    """What asks for an engine; the cluster that it needs is started."""
    if way == "Dask":
        return ["--engine", request.getfixturevalue("dask").engine]
    service: JobService = request.getfixturevalue("service")
    return {"job service": ["--engine", service.engine, "--", *service.flags],
            "loopback": ["--engine", service.engine],
            "flags": ["--engine", "beam", "--", "--runner=FlinkRunner",
                      "--environment_type=LOOPBACK", f"--job_endpoint={service.address}"]}[way]


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_every_engine_writes_the_same_tokens(corpus: Path, tokenizer: str, way: str,
                                             request: pytest.FixtureRequest) -> None:
    done = encode(corpus, tokenizer, way, *options_of(way, request))
    assert done.exit_code == 0, done.output
    assert "39 rows in 40 shards, 1 dead letter" in done.output
    assert tree(corpus / way) == tree(corpus / "local")


@pytest.mark.slow
@pytest.mark.parametrize("way", ["Dask", "job service", "loopback"])
def test_every_engine_writes_the_same_rows_of_buckets(corpus: Path, tokenizer: str, way: str,
                                                      request: pytest.FixtureRequest) -> None:
    out = f"buckets {way}"
    done = encode(corpus, tokenizer, out, *BUCKETS, *options_of(way, request))
    assert done.exit_code == 0, done.output
    assert "39 rows in 5 shards, 1 dead letter" in done.output
    assert tree(corpus / out) == tree(corpus / "buckets")
    told = run("inspect", corpus / out)
    assert all(name in told.output for name in ("16x32", "24x24", "32x16"))


@pytest.mark.slow
@pytest.mark.parametrize(("way", "to"), [
    ("Dask", "folder"), ("Dask", "tar"), ("Dask", "parquet"),
    ("job service", "folder"), ("loopback", "tar"), ("loopback", "parquet")])
def test_every_engine_decodes_the_same_images_into_every_sink(
        corpus: Path, tokenizer: str, way: str, to: str, request: pytest.FixtureRequest) -> None:
    if not (corpus / to).exists():
        assert decode(corpus, tokenizer, to, "--to", to).exit_code == 0
    done = decode(corpus, tokenizer, f"{to} {way}", "--to", to, *options_of(way, request))
    assert done.exit_code == 0, done.output
    assert tree(corpus / f"{to} {way}") == tree(corpus / to)


@pytest.mark.slow
def test_a_dask_worker_that_is_killed_in_mid_run_costs_nothing(corpus: Path, tokenizer: str,
                                                               dask: DaskCluster) -> None:
    victims, out = dask.workers(), corpus / "killed"

    def kill() -> None:
        wait_until(lambda: len([*out.glob("_receipts/*.json")]) >= 3)
        os.kill(victims[0], signal.SIGKILL)
    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    done = encode(corpus, tokenizer, "killed", "--engine", dask.engine)
    killer.join()
    assert done.exit_code == 0, done.output
    assert tree(out) == tree(corpus / "local")
    assert victims[0] not in dask.workers()


@pytest.mark.slow
def test_a_flag_that_a_job_service_does_not_know_is_one_line(corpus: Path, tokenizer: str,
                                                             service: JobService) -> None:
    done = encode(corpus, tokenizer, "unknown", "--engine", service.engine, "--", "--zzz=1")
    assert done.exit_code == 1 and done.output.count("\n") == 1
    assert "behind -- stands --zzz=1, which neither Beam nor what it runs on knows" in done.output


def test_an_engine_that_does_not_answer_is_one_line(corpus: Path, tokenizer: str) -> None:
    done = encode(corpus, tokenizer, "nowhere", "--engine", "dask://127.0.0.1:9")
    assert done.exit_code == 1 and done.output.count("\n") == 1
    assert "127.0.0.1:9 does not answer" in done.output


@pytest.mark.parametrize(("options", "words"), [
    (("more",), "got unexpected extra argument (more); flags of Beam's begin with --"),
    (("--engine", "flink://a:1"), "an engine is one of local, dask://HOST:PORT, portable://"),
    (("--engine", "beam"), "the engine beam needs the flags of a runner"),
    (("--engine", "dask://a:1", "--num-workers", 2), "has workers of its own"),
    (("--engine", "dask://a:1", "--array-index", 0, "--array-size", 2), "on its own machine"),
])
@pytest.mark.parametrize("command", ["encode", "decode"])
def test_what_does_not_go_together_is_told(tmp_path: Path, command: str,
                                           options: tuple[object, ...], words: str) -> None:
    (tmp_path / "in").mkdir()
    done = run(command, tmp_path / "in", tmp_path / "out", "--tokenizer", f"image={tmp_path}/tok",
               *options)
    assert done.exit_code in (1, 2) and words in done.output
    assert not (tmp_path / "out").exists()


def test_relative_folders_are_refused_where_workers_run_elsewhere(tmp_path: Path) -> None:
    done = run("encode", "photos", tmp_path, "--tokenizer", "image=/tok", "--engine", "dask://a:1")
    assert done.exit_code == 1 and "photos is relative to the folder of this process" in done.output
