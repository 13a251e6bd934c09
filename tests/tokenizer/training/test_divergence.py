"""Values that are not finite: counted, and refused when too many."""
import pytest
import torch

from tokenizer.training.config import AdversarialConfig, TrainingConfig
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


@pytest.mark.parametrize("names", [("discriminator", "discriminator_norm"), ("logits_fake",),
                                   ("adversarial", "loss", "gradient_norm"), ("r1",),
                                   ("measured_weight", "adaptive_weight", "loss")])
def test_a_discriminator_that_fails_has_remedies_of_its_own(names: tuple[str, ...]) -> None:
    adversarial = AdversarialConfig(weight=0.5, lecam_weight=0.1)
    training = TrainingConfig(adversarial=adversarial, mixed_precision="bf16")
    with pytest.raises(DivergedError) as caught:
        SkippedSteps(limit=1).count(dict.fromkeys(names, float("nan")), 0, training)
    assert ("with a training.adversarial.optimizer.learning_rate below 0.0001, or another "
            "training.adversarial.lecam_weight (now 0.1) or r1_weight (now 0) or with "
            "training.mixed_precision=no;") in str(caught.value)


def test_a_discriminator_that_sees_no_numbers_is_not_to_blame() -> None:
    figures = dict.fromkeys(("reconstruction", "adversarial", "loss"), float("nan"))
    with pytest.raises(DivergedError, match=r"with a training.optimizer.learning_rate below"):
        SkippedSteps(limit=1).count(figures, 0, TrainingConfig())


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
