"""The commands between S3 buckets: the bytes of a local run, whatever befalls the connection."""
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from click.testing import CliRunner, Result
from object_store import Fault, ObjectStore
from PIL import Image
from random_tokenizers import save_tokenizer, tree

from cli.main import main
from tokenizer.tokens import TokenCorpus

NUM_IMAGES = 10


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def encode(photos: object, tokens: object, tok: object) -> Result:
    return run("encode", photos, tokens, "--tokenizer", f"image={tok}", "--shard-size", 3)


def upload(folder: Path, url: str) -> str:
    fsspec.filesystem("s3").put(str(folder), url, recursive=True)
    return url


def objects(url: str) -> dict[str, bytes]:
    """Every object below a URL by its path."""
    fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
    return {name.removeprefix(f"{root}/"): fs.cat_file(name) for name in fs.find(root)}


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, drawn: Callable[..., np.ndarray]) -> Path:
    """A folder with ``photos``, ``tok``, ``tokens`` and ``pictures``, all made on a disk."""
    folder = tmp_path_factory.mktemp("local")
    save_tokenizer(folder / "tok")
    (folder / "photos").mkdir()
    for index in range(NUM_IMAGES):
        Image.fromarray(drawn(index)).save(folder / f"photos/img-{index}.png")
    (folder / "photos/img-4.png").write_bytes(b"no image")
    assert encode(folder / "photos", folder / "tokens", folder / "tok").exit_code == 0
    done = run("decode", folder / "tokens", folder / "pictures", "--tokenizer",
               f"image={folder}/tok")
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs try failed shards again at once."""
    monkeypatch.setattr("pipelines.job.PAUSES", (0.0, 0.0))


@pytest.fixture
def bucket(s3: ObjectStore, local: Path) -> Iterator[str]:
    """A bucket with ``photos`` and ``tok``."""
    upload(local / "photos", f"{s3.bucket}/photos")
    upload(local / "tok", f"{s3.bucket}/tok")
    yield s3.bucket


def require_equal_rows(found: str, expected: Path) -> None:
    """The rows are the same but for the place where their images lie."""
    tables = [TokenCorpus.open(place).tables() for place in (found, str(expected))]
    for one, other in zip(*tables, strict=True):
        assert one.drop_columns("source").equals(other.drop_columns("source"))
        assert all(source.startswith("s3://") for source in one["source"].to_pylist())


def test_tokens_in_a_bucket_are_those_on_a_disk_byte_for_byte(bucket: str, local: Path) -> None:
    done = encode(local / "photos", f"{bucket}/tokens", f"{bucket}/tok")
    assert done.exit_code == 0, done.output
    assert f"{bucket}/tokens: 9 rows in 4 shards, 1 dead letter" in done.output
    assert objects(f"{bucket}/tokens") == tree(local / "tokens")


def test_everything_may_lie_in_buckets(bucket: str, local: Path, tmp_path: Path) -> None:
    done = encode(f"{bucket}/photos", f"{bucket}/tokens", f"{bucket}/tok")
    assert done.exit_code == 0, done.output
    require_equal_rows(f"{bucket}/tokens", local / "tokens")
    done = run("inspect", f"{bucket}/tokens", "--verify")
    assert done.exit_code == 0, done.output
    done = run("decode", f"{bucket}/tokens", f"{bucket}/pictures", "--tokenizer",
               f"image={bucket}/tok")
    assert done.exit_code == 0, done.output
    found, expected = objects(f"{bucket}/pictures"), tree(local / "pictures")
    pictures = {name for name in expected if not name.startswith("_decode")}
    assert {name: found[name] for name in pictures} == {name: expected[name] for name in pictures}
    assert {name for name in found if not name.startswith("_decode")} == pictures


def test_a_prior_trains_on_tokens_in_a_bucket(s3: ObjectStore, bucket: str, local: Path,
                                              tmp_path: Path) -> None:
    upload(local / "tokens", f"{bucket}/tokens")
    weights = []
    for name, tokens in (("a", f"{bucket}/tokens"), ("b", str(local / "tokens"))):
        done = run("train-prior", tokens, tmp_path / name, "--recipe", "tiny", "--steps", 2,
                   "--seed", 1, "--set", "transformer.num_layers=1", "--set",
                   "training.batch_size=2")
        assert done.exit_code == 0, done.output
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    s3.faults = [Fault("busy", "GET .*/data/part-00001")]
    done = run("train-prior", f"{bucket}/tokens", tmp_path / "c", "--recipe", "tiny", "--steps", 2)
    assert done.exit_code == 1 and "part-00001-of-00004.parquet cannot be reached" in done.output


def test_faults_that_pass_do_not_show_in_the_tokens(s3: ObjectStore, bucket: str,
                                                    local: Path) -> None:
    s3.faults = [Fault("busy", "GET .*/photos/", times=2), Fault("cut", "GET .*/photos/", times=3),
                 Fault("cut", "GET .*/tok/model", times=2), Fault("cut", "PUT .*/data/", times=2),
                 Fault("lost", "PUT .*/_receipts/", times=2), Fault("busy", "HEAD", times=2),
                 Fault("cut", "PUT .*/_plan/", times=1)]
    done = encode(f"{bucket}/photos", f"{bucket}/tokens", f"{bucket}/tok")
    assert done.exit_code == 0, done.output
    assert not s3.faults
    require_equal_rows(f"{bucket}/tokens", local / "tokens")
    assert run("inspect", f"{bucket}/tokens", "--verify").exit_code == 0


@pytest.mark.parametrize("faults", [
    # Each but the last leaves the shards undone that the next one is about.
    [(Fault("busy", "GET .*/tok/model"), "tok/model.safetensors cannot be reached"),
     (Fault("busy", "GET .*prefix=photos"), "cannot be reached (The store rests.)"),
     (Fault("busy", "HEAD .*/tokens/_plan/plan.json"), "_plan/plan.json cannot be reached"),
     (Fault("busy", "GET .*/tokens/_plan/inputs"), "inputs-00000.parquet cannot be reached"),
     (Fault("expired", "GET .*/photos/img-[5-9]"), "The token has expired"),
     (Fault("busy", "GET .*/photos/img-5"), "photos/img-5.png cannot be read"),
     (Fault("cut", "PUT .*/_receipts/00001"), "takes no data"),
     (Fault("busy", "PUT .*/tokens/_SUCCESS"), "_SUCCESS cannot be reached")],
    [(Fault("denied", "GET .*/photos/img-[678]"), "none of 3 files may be read"),
     (Fault("busy", "PUT .*/data/part-00002"), "takes no data")],
], ids=["begin to end", "one shard"])
def test_faults_that_last_are_one_line_and_the_same_command_goes_on(
        s3: ObjectStore, bucket: str, local: Path, faults: list[tuple[Fault, str]]) -> None:
    command = (f"{bucket}/photos", f"{bucket}/tokens", f"{bucket}/tok")
    for fault, words in faults:
        s3.faults = [fault]
        done = encode(*command)
        assert done.exit_code == 1 and words in done.stderr and bucket in done.stderr, done.output
        errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
        assert len(errors) == 1 and "Traceback" not in done.stderr
        s3.faults.clear()
        assert run("inspect", f"{bucket}/tokens").exit_code == 1
    done = encode(*command)
    assert done.exit_code == 0, done.output
    require_equal_rows(f"{bucket}/tokens", local / "tokens")


def test_a_store_that_does_not_answer_is_not_taken_for_an_empty_folder(
        s3: ObjectStore, bucket: str, local: Path) -> None:
    upload(local / "photos", f"{bucket}/tokens")
    s3.faults = [Fault("busy", "GET .*prefix=tokens")]
    done = encode(local / "photos", f"{bucket}/tokens", f"{bucket}/tok")
    assert done.exit_code == 1 and "cannot be reached (The store rests.)" in done.output
    s3.faults.clear()
    done = encode(local / "photos", f"{bucket}/tokens", f"{bucket}/tok")
    assert done.exit_code == 1 and "holds other files, such as img-0.png" in done.output
    assert objects(f"{bucket}/tokens") == tree(local / "photos")


def test_pictures_come_out_the_same_whatever_befalls_them(s3: ObjectStore, bucket: str,
                                                          local: Path) -> None:
    upload(local / "tokens", f"{bucket}/tokens")
    command = ("decode", f"{bucket}/tokens", f"{bucket}/pictures", "--tokenizer",
               f"image={bucket}/tok")
    s3.faults = [Fault("cut", "GET .*/data/", times=2), Fault("cut", "PUT .*/img", times=2),
                 Fault("lost", "PUT .*/img", times=2), Fault("busy", "PUT .*/img-7")]
    done = run(*command)
    assert done.exit_code == 1 and f"{bucket}/pictures" in done.stderr
    assert sum(line.startswith("Error: ") for line in done.stderr.splitlines()) == 1
    s3.faults = [Fault("busy", "GET .*/_receipts/", times=1)]
    done = run(*command)
    assert done.exit_code == 0, done.output
    assert objects(f"{bucket}/pictures") == tree(local / "pictures")


@pytest.mark.parametrize("to", ["tar", "parquet"])
def test_files_of_many_pictures_in_a_bucket_are_those_on_a_disk(
        s3: ObjectStore, local: Path, tmp_path: Path, to: str) -> None:
    s3.faults = [Fault("cut", "PUT .*part-00001", times=2)]
    for out in (tmp_path / "pictures", f"{s3.bucket}/pictures"):
        done = run("decode", local / "tokens", out, "--tokenizer", f"image={local}/tok", "--to", to)
        assert done.exit_code == 0, done.output
    assert not s3.faults
    assert objects(f"{s3.bucket}/pictures") == tree(tmp_path / "pictures")


@pytest.mark.slow
def test_a_job_killed_in_mid_run_goes_on_to_the_same_bytes(s3: ObjectStore, bucket: str,
                                                           local: Path) -> None:
    command = ("encode", local / "photos", f"{bucket}/tokens", "--tokenizer", f"image={bucket}/tok",
               "--shard-size", 3)
    s3.faults = [Fault("slow", "PUT .*/data/part-0000[23]", seconds=0.3)]
    process = subprocess.Popen([sys.executable, "-m", "cli", *map(str, command)],
                               stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while not any(request.endswith("_receipts/00001.json") for request in s3.requests
                  if request.startswith("PUT")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    s3.faults.clear()
    done_before = {name for name in objects(f"{bucket}/tokens") if name.startswith("_receipts")}
    assert 1 <= len(done_before) < 4
    assert run(*command).exit_code == 0
    assert objects(f"{bucket}/tokens") == tree(local / "tokens")
