"""Damaged files of every kind: none crashes the reader, takes long, or is lost without a word."""
import json
import subprocess
import sys
from pathlib import Path

FUZZ = Path(__file__).parent.parent / "benchmarks/fuzz.py"


def fuzz(*arguments: object) -> tuple[int, dict[str, object]]:
    done = subprocess.run([sys.executable, str(FUZZ), *map(str, arguments)], capture_output=True,
                          text=True)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_four_hundred_damaged_files_are_rows_or_dead_letters() -> None:
    code, found = fuzz("--files", 400, "--seed", 11, "--seconds", 300)
    assert (found["crashes"], found["hangs"], found["lost"], code) == ([], [], [], 0)
    assert found["files"] == 400 and set(found["by_kind"]) == {
        ".bmp", ".gif", ".jpg", ".npy", ".parquet", ".png", ".tar", ".tif", ".webp"}
    assert found["inputs"] == found["rows"] + found["dead"]
    assert found["rows"] > 100 and found["dead"] > 400
    assert found["peak_megabytes"] < 1000


def test_a_file_that_takes_too_long_is_found_and_the_rest_goes_on() -> None:
    code, found = fuzz("--files", 3, "--seconds", 0.000001)
    assert code == 1 and found["files"] == 3
    assert [number for number, _ in found["hangs"]] == [0, 1, 2]
