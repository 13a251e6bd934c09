"""Two processes with shares of a batch train as one process with the whole of it."""
from collections.abc import Callable
from pathlib import Path

import pytest
import rank_normalisation
import shared_training
import torch
import vanishing_training
from launched import launch, run_ranks

from tokenizer import checkpoints
from tokenizer.training.journal import read_metrics
from tokenizer.training.state import TrainingState
from tokenizer.vqgan.quantizers import MovedRows

TIMES = {"train/seconds", "train/images_per_second"}
FIRST_SHARE = {"train/psnr"}
"""Scores of the first process's images alone."""

pytestmark = pytest.mark.slow


def start_ranks(script: str, *arguments: str) -> str:
    codes, outputs, errors = run_ranks(script, *arguments)
    assert codes == [0, 0], errors
    return "".join(outputs)


@pytest.mark.parametrize(("pair", "start"), [("batch-cosine", launch), ("group-ema", start_ranks),
                                             ("spectral-lfq", start_ranks)])
def test_two_processes_give_the_figures_of_one(pair: str, start: Callable[..., str],
                                               image_folder: Callable[[int], Path],
                                               tmp_path: Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    revived, original = [], TrainingState.forget_codes

    def forget_codes(self: TrainingState, moved: MovedRows) -> None:
        revived.append(moved)
        original(self, moved)

    monkeypatch.setattr(TrainingState, "forget_codes", forget_codes)
    corpus, (joined, alone) = str(image_folder(12)), (tmp_path / "joined", tmp_path / "alone")
    assert start(shared_training.__file__, corpus, str(joined / pair), *pair.split("-")) == "22"
    shared_training.train(corpus, str(alone / pair), *pair.split("-"))
    lines = [[line for line in read_metrics(str(folder / pair)) if "train/skipped_steps" in line]
             for folder in (joined, alone)]
    assert [len(each) for each in lines] == [shared_training.STEPS] * 2
    for two, one in zip(*lines, strict=True):
        assert two.keys() == one.keys()
        for name in one.keys() - TIMES - FIRST_SHARE:
            assert two[name] == pytest.approx(one[name], rel=1e-5, abs=1e-5), (name, one["step"])
    assert len(revived) >= 3 or pair.endswith("lfq")  # which has no entries to revive
    assert [line["train/skipped_steps"] for line in lines[0]] == [0] * 5 + [1] * 3
    heard = lines[1][shared_training.FIRST_HEARD]
    assert {"train/adversarial", "train/adaptive_weight", "train/lecam", "train/r1"} <= \
        lines[1][-2].keys() | heard.keys()


def test_all_processes_end_with_a_checkpoint_when_the_first_cannot_measure(
        image_folder: Callable[[int], Path], tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    codes, _, errors = run_ranks(vanishing_training.__file__, str(image_folder(8)), out)
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
