"""Values that are not finite: counted, and refused when too many."""
import pytest
import torch

from tokenizer.training.divergence import DivergedError, SkippedSteps, require_finite
from tokenizer.training.settings import TrainingSettings

NAN = {"loss": float("nan")}


def test_skipped_steps_are_counted_and_those_in_a_row_apart() -> None:
    skipped = SkippedSteps(limit=3)
    for step, figures in enumerate((NAN, {}, NAN, NAN, {})):
        skipped.count(figures, step, TrainingSettings())
    assert (skipped.total, skipped.in_a_row) == (3, 0)


def test_too_many_in_a_row_are_refused_with_figures_and_remedy() -> None:
    skipped = SkippedSteps(limit=2)
    skipped.count(NAN, 6, TrainingSettings())
    with pytest.raises(DivergedError, match=r"nothing was learned in 2 steps in a row, .*at step 8 "
                                            r"\(loss nan, gradient_norm inf\): train into another "
                                            r"folder with .*learning_rate below 0.0003 or with "
                                            r"training.mixed_precision=no; the last"):
        skipped.count(NAN | {"gradient_norm": float("inf")}, 7,
                      TrainingSettings(mixed_precision="fp16"))


def test_the_count_goes_on_where_it_was() -> None:
    skipped, again = SkippedSteps(limit=2), SkippedSteps(limit=2)
    skipped.count(NAN, 0, TrainingSettings())
    again.load_state_dict(skipped.state_dict())
    with pytest.raises(DivergedError):
        again.count(NAN, 1, TrainingSettings())


def test_finite_losses_pass_and_others_are_named() -> None:
    require_finite({"loss": torch.tensor(1.0)}, 0, TrainingSettings())
    with pytest.raises(DivergedError, match=r"not finite at step 1 \(loss inf\)"):
        require_finite({"loss": torch.tensor(float("inf"))}, 0, TrainingSettings())
