"""How the threads of a training wait: what OpenMP itself says that it has read."""
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from cli.threads import CHOICES, SPIN_COUNT, share_cores

ROOT = Path(__file__).parents[2]
SPEC = find_spec("torch")
GNU_OPENMP = list(Path(SPEC.origin).parent.glob("lib/libgomp*")) if SPEC and SPEC.origin else []
STAND_IN = "import ctypes\nctypes.CDLL({!r})\nraise SystemExit('enough of torch')\n"
"""What a command imports as torch: the library of torch, which reads its variables, and no more."""

needs_gnu_openmp = pytest.mark.skipif(not GNU_OPENMP,
                                      reason="torch does not bring GNU OpenMP here")


def read_by_openmp(folder: Path, command: str, **variables: str) -> str:
    """``GOMP_SPINCOUNT`` as the library shows it when a command has loaded it."""
    (folder / "torch.py").write_text(STAND_IN.format(str(GNU_OPENMP[0])))
    environment = {name: value for name, value in os.environ.items() if name not in CHOICES}
    finished = subprocess.run(
        [sys.executable, "-m", "cli", command, "nowhere", "out", "--steps", "1"],
        env={**environment, "PYTHONPATH": str(folder), "OMP_DISPLAY_ENV": "verbose", **variables},
        capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert finished.returncode == 1 and "enough of torch" in finished.stderr
    shown = [line for line in finished.stderr.splitlines() if "GOMP_SPINCOUNT" in line]
    return shown[0].partition("=")[2].strip(" '")


@needs_gnu_openmp
@pytest.mark.parametrize("command", ["train-tokenizer", "train-prior"])
def test_threads_of_a_training_wait_in_a_short_loop(tmp_path: Path, command: str) -> None:
    assert read_by_openmp(tmp_path, command) == str(SPIN_COUNT)


@needs_gnu_openmp
def test_no_loop_is_what_openmp_makes_of_a_passive_policy(tmp_path: Path) -> None:
    assert read_by_openmp(tmp_path, "train-tokenizer", OMP_WAIT_POLICY="passive") == "0"


@pytest.mark.parametrize(("name", "value"), [("GOMP_SPINCOUNT", "7"),
                                             ("OMP_WAIT_POLICY", "active")])
def test_what_the_user_chose_stands(name: str, value: str,
                                    monkeypatch: pytest.MonkeyPatch) -> None:
    for other in CHOICES:
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, value)
    share_cores()
    assert {other: os.environ[other] for other in CHOICES if other in os.environ} == {name: value}


def test_without_a_choice_the_loop_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CHOICES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    share_cores()
    assert os.environ["GOMP_SPINCOUNT"] == str(SPIN_COUNT)
