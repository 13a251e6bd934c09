"""``img2tokens retry``, and ``encode`` with ``--extend``, ``--dry-run`` and its records."""
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from random_tokenizers import encode, save_tokenizer, tree

from cli.main import main

ImageFolder = Callable[[int], Path]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)])


def test_dead_letters_new_images_forecasts_and_records(image_folder: ImageFolder, tmp_path: Path,
                                                       tokenizer: str) -> None:
    photos, out, log = image_folder(6), tmp_path / "tokens", tmp_path / "log.jsonl"
    command = (photos, out, "--tokenizer", f"image={tokenizer}", "--shard-size", 4)
    good = (photos / "img-002.png").read_bytes()
    (photos / "img-002.png").write_bytes(b"no image")

    done = encode(*command, "--dry-run")
    assert done.exit_code == 0, done.output
    assert "inputs: 6 inputs in 2 shards, 2 of them left to make\n" in done.output
    assert "failed in the trial: 1 UnreadableImage\nnothing was written\n" in done.output
    assert not out.exists()

    done = encode(*command, "--log-json", log, "--prometheus", tmp_path / "job.prom")
    assert done.exit_code == 0, done.output
    events = [json.loads(line) for line in log.read_text().splitlines()]
    names = [event["event"] for event in events]
    assert [*names[:2], names[-1]] == ["start", "job", "end"] and set(names[2:-1]) == {"progress"}
    assert events[-2]["dead_letters"] == {"UnreadableImage": 1}
    assert events[-1]["outcome"] == "done"
    assert "img2tokens_rows" in (tmp_path / "job.prom").read_text()

    refused = run("retry", out, "--tokenizer", f"image={save_tokenizer(tmp_path / 'b', seed=9)}")
    assert refused.exit_code == 1 and "codes.image.tokenizer was 'sha256:" in refused.output
    (photos / "img-002.png").write_bytes(good)
    done = run("retry", out, "--tokenizer", f"image={tokenizer}", "--log-json", log)
    assert done.exit_code == 0, done.output
    assert done.stdout == (f"{out}: 1 of 1 dead letter now encoded\n"
                           f"{out}: 6 rows in 3 shards, 0 dead letters\n")
    assert len(log.read_text().splitlines()) > len(events)

    image_folder(8)
    for path in photos.iterdir():  # written anew, at other times
        if path.stem < "img-006":
            path.unlink()
    refused = encode(*command, "--extend")
    assert refused.exit_code == 1 and "the input 'img-000'" in refused.output


def test_an_extension_is_one_command(image_folder: ImageFolder, tmp_path: Path,
                                     tokenizer: str) -> None:
    photos, out = image_folder(3), tmp_path / "tokens"
    command = (photos, out, "--tokenizer", f"image={tokenizer}")
    assert encode(*command).exit_code == 0
    (photos / "z.png").write_bytes((photos / "img-001.png").read_bytes())
    before = tree(out)
    done = encode(*command, "--extend", "--dry-run")
    assert done.exit_code == 0 and "inputs: 1 input in 1 shard" in done.output
    done = encode(*command, "--dry-run")
    assert done.exit_code == 1 and "Error: it would be refused: " in done.output
    assert tree(out) == before
    done = encode(*command, "--extend")
    assert done.exit_code == 0 and "4 rows in 2 shards, 0 dead letters" in done.output
    assert run("inspect", out, "--verify").exit_code == 0
    assert "delta 1: 1 new input added, 1 row in 1 shard" in run("inspect", out).output
    (photos / "zz.png").write_bytes(b"no image")
    done = encode(*command, "--extend")
    assert done.exit_code == 0 and "4 rows in 3 shards, 1 dead letter (" in done.output
    assert "  zz  " in run("inspect", out, "--dead-letters", 5).output.splitlines()[-1]


def test_a_failed_command_says_so_in_its_records(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    done = run("retry", tmp_path / "nowhere", "--tokenizer", "image=tok", "--log-json", log)
    assert done.exit_code == 1 and "holds no plan of an encode job" in done.output
    end = json.loads(log.read_text().splitlines()[-1])
    assert end["outcome"] == "failed" and "holds no plan" in end["error"]
    done = run("retry", tmp_path, "--tokenizer", "image=tok", "--log-json", tmp_path / "no/log")
    assert done.exit_code == 1 and "No such file or directory" in done.output


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["dask", "service"])
def test_a_retry_on_every_engine_writes_the_same_bytes(
        image_folder: ImageFolder, tmp_path: Path, tokenizer: str, engine: str,
        request: pytest.FixtureRequest) -> None:
    photos, out = image_folder(8), tmp_path / "tokens"
    command = (photos, out, "--tokenizer", f"image={tokenizer}", "--shard-size", 2)
    good = {path: path.read_bytes() for path in sorted(photos.iterdir())[1:6]}
    for path in good:
        path.write_bytes(b"no image")
    assert encode(*command).exit_code == 0
    for path, content in good.items():
        path.write_bytes(content)
    shutil.copytree(out, tmp_path / "alone")
    assert run("retry", tmp_path / "alone", "--tokenizer", f"image={tokenizer}").exit_code == 0
    done = run("retry", out, "--tokenizer", f"image={tokenizer}", "--engine",
               request.getfixturevalue(engine).engine)
    assert done.exit_code == 0, done.output
    assert tree(out) == tree(tmp_path / "alone")
