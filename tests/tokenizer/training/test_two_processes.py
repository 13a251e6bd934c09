"""Two processes with shares of a batch train as one process with the whole of it."""
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import rank_normalisation
import shared_training
import torch
import vanishing_training

from tokenizer import checkpoints
from tokenizer.training.journal import read_metrics
from tokenizer.training.state import TrainingState
from tokenizer.vqgan.quantizers import MovedRows

ROOT = Path(__file__).parents[3]
TIMES = {"train/seconds", "train/images_per_second"}
FIRST_SHARE = {"train/psnr"}
"""Scores of the first process's images alone."""

pytestmark = pytest.mark.slow


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def launch(*arguments: str) -> None:
    """Run the shared training as two processes on the CPU, through ``accelerate launch``."""
    # Without --multi_gpu one process is started; what it runs on says the environment.
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines",
               "1", "--num_processes", "2", "--num_cpu_threads_per_process", "1",
               "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port",
               free_port(), shared_training.__file__, *arguments]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, env=variables, timeout=300, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "".join(done.stdout.split()) == "22"


def run_ranks(*arguments: str) -> tuple[list[int], list[str]]:
    """Run a script as two processes that know of each other, without a launcher that ends both.

    Returns:
        Their exit codes, and what they wrote to standard error.
    """
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true",
                 "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    ranks = [subprocess.Popen([sys.executable, *arguments], stderr=subprocess.PIPE, text=True,
                              env={**variables, "RANK": rank, "LOCAL_RANK": rank})
             for rank in "01"]
    try:
        errors = [process.communicate(timeout=120)[1] for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    return [process.returncode for process in ranks], errors


@pytest.mark.parametrize("pair", ["batch-cosine", "group-ema"])
def test_two_processes_give_the_figures_of_one(pair: str, image_folder: Callable[[int], Path],
                                               tmp_path: Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    revived, original = [], TrainingState.forget_codes

    def forget_codes(self: TrainingState, moved: MovedRows) -> None:
        revived.append(moved)
        original(self, moved)

    monkeypatch.setattr(TrainingState, "forget_codes", forget_codes)
    corpus, (joined, alone) = str(image_folder(12)), (tmp_path / "joined", tmp_path / "alone")
    launch(corpus, str(joined), pair)
    shared_training.train(corpus, str(alone / pair), *pair.split("-"))
    lines = [[line for line in read_metrics(str(folder / pair)) if "train/skipped_steps" in line]
             for folder in (joined, alone)]
    assert [len(each) for each in lines] == [shared_training.STEPS] * 2
    for two, one in zip(*lines, strict=True):
        assert two.keys() == one.keys()
        for name in one.keys() - TIMES - FIRST_SHARE:
            assert two[name] == pytest.approx(one[name], rel=1e-5, abs=1e-5), (name, one["step"])
    assert len(revived) >= 3
    assert [line["train/skipped_steps"] for line in lines[0]] == [0] * 5 + [1] * 3
    heard = lines[1][shared_training.FIRST_HEARD]
    assert {"train/adversarial", "train/adaptive_weight", "train/lecam", "train/r1"} <= \
        lines[1][-2].keys() | heard.keys()


def test_all_processes_end_with_a_checkpoint_when_the_first_cannot_measure(
        image_folder: Callable[[int], Path], tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    codes, errors = run_ranks(vanishing_training.__file__, str(image_folder(8)), out)
    state = checkpoints.load_state(out)
    assert state is not None and state["step"] == vanishing_training.LAST_STEP
    assert checkpoints.load_weights(out)
    assert codes == [1, 1]
    assert "ValueError: none of the held-out images can be read" in errors[0]
    assert "FirstProcessFailed: the first process failed" in errors[1]


def test_batch_normalisation_over_two_processes_is_that_of_all_images(tmp_path: Path) -> None:
    assert run_ranks(rank_normalisation.__file__, str(tmp_path))[0] == [0, 0]
    shares = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2)]
    exact = rank_normalisation.normalised(slice(None), torch.float64)
    for name, expected in exact.items():
        found = torch.cat([share[name] for share in shares])
        assert (found - expected).abs().max() < 1e-3 * expected.abs().max(), name
