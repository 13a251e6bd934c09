"""Two processes train a prior as one does, may come and go between two steps, and end together."""
import shutil
from pathlib import Path

import diverging_prior
import pytest
import shared_prior_training
import torch
from drawn_codes import write_corpus
from launched import run_ranks
from shared_prior_training import HALF, WHOLE, train

from tokenizer import checkpoints
from tokenizer.training.journal import read_metrics

TIMES = {"train/seconds", "train/rows_per_second"}

pytestmark = pytest.mark.slow


def assert_equal_trainings(one: Path, other: Path) -> None:
    """Every line of metrics and every weight is equal to 1e-5."""
    lines = [[line for line in read_metrics(str(folder)) if "train/bits" in line]
             for folder in (one, other)]
    assert [len(each) for each in lines] == [WHOLE] * 2
    for first, second in zip(*lines, strict=True):
        for name in first.keys() - TIMES:
            assert first[name] == pytest.approx(second[name], rel=1e-5, abs=1e-5), first["step"]
    weights = [checkpoints.load_weights(str(folder)) for folder in (one, other)]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], rtol=1e-5, atol=1e-5)


def test_two_processes_train_as_one_and_one_goes_on_where_two_stopped(tmp_path: Path) -> None:
    corpus = write_corpus(str(tmp_path / "tokens"), num_shards=5).url
    joined, alone = tmp_path / "joined", tmp_path / "alone"
    for name, steps in (("whole", WHOLE), ("half", HALF)):
        codes, outputs, errors = run_ranks(shared_prior_training.__file__, corpus,
                                           str(joined / name), str(steps))
        assert (codes, outputs) == ([0, 0], ["2", "2"]), errors
        train(corpus, str(alone / name), steps)
    assert_equal_trainings(joined / "whole", alone / "whole")
    for folder in (joined, alone):
        train(corpus, str(folder / "half"), WHOLE)
    assert_equal_trainings(joined / "half", alone / "half")


def test_processes_that_share_one_copy_of_the_weights_train_as_one(tmp_path: Path) -> None:
    """Stopped half way, their checkpoint is as good for one process, and goes on for both."""
    corpus = write_corpus(str(tmp_path / "tokens"), num_shards=5).url
    alone, joined, left = tmp_path / "alone", tmp_path / "joined", tmp_path / "left"
    for steps in (HALF, WHOLE):
        train(corpus, str(alone), steps)
        codes, outputs, errors = run_ranks(shared_prior_training.__file__, corpus, str(joined),
                                           str(steps), "sharded")
        assert codes == [0, 0], errors
        (all_numbers, first, _), (_, second, _) = (map(int, text.split()) for text in outputs)
        assert first + second == all_numbers and first < 0.6 * all_numbers
        if steps == HALF:
            shutil.copytree(joined, left)
    assert_equal_trainings(joined, alone)
    train(corpus, str(left), WHOLE)
    assert_equal_trainings(left, alone)


def test_a_loss_that_one_process_alone_sees_spoilt_ends_all_at_that_step(tmp_path: Path) -> None:
    corpus, out = write_corpus(str(tmp_path / "tokens")).url, str(tmp_path / "out")
    codes, _, errors = run_ranks(diverging_prior.__file__, corpus, out)
    assert codes == [1, 1]
    for text in errors:
        assert "DivergedError: a loss is not finite at step 4" in text
        assert "gradient_norm nan" in text
