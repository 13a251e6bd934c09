"""The watch names each trouble once, with the setting to change, from figures alone."""
import dataclasses
from typing import Any

import pytest
from conftest import tiny_model, tiny_training

from tokenizer.training.config import AdversarialConfig
from tokenizer.training.watch import TROUBLES, WINDOW, Watch
from tokenizer.vqgan.quantizers import QuantizerConfig

SOUND = {"reconstruction": 0.1, "codes_used": 0.9, "discriminator": 0.8, "measured_weight": 1.0,
         "skipped_steps": 0.0}


def watching(**settings: Any) -> Watch:
    """A watch over a training of 16 codes with a discriminator."""
    adversarial = AdversarialConfig(weight=0.5, max_adaptive_weight=50.0)
    return Watch(tiny_model(), tiny_training(**{"adversarial": adversarial, **settings}))


def show(watch: Watch, *looks: dict[str, float], first: int = 1) -> list[tuple[int, str]]:
    """Remarks by number of the look, each 20 steps after the last; figures left out are sound."""
    return [(index, line) for index, figures in enumerate(looks, first)
            for line in watch.look(20 * index, {**SOUND, **figures})]


def test_a_sound_training_is_not_remarked_on() -> None:
    falling = [{"reconstruction": 1.0 / (1 + look), "measured_weight": 1 + look % 3}
               for look in range(50)]
    assert show(watching(), *falling) == []


def test_figures_that_are_missing_are_not_judged() -> None:
    watch = watching()
    assert [watch.look(20 * look, {"codes_used": 0.9}) for look in range(20)] == [[]] * 20


def test_a_collapsed_codebook_is_named_after_a_window() -> None:
    (look, line), = show(watching(), *[{"codes_used": 0.013}] * 20)
    assert look == WINDOW
    assert line.startswith("codebook collapse: 1.3% of 16 codes are in use; lower "
                           "model.quantizer.revive_after (now 3), or take model.quantizer.kind")


@pytest.mark.parametrize(("settings", "remedy"), [
    ({"revive_after": 0}, "set model.quantizer.revive_after (100; now 0, off), or take"),
    ({"kind": "lfq", "code_dim": 4}, "raise model.quantizer.entropy_weight (now 0.1)"),
    ({"kind": "gumbel"}, "raise model.quantizer.kl_weight (now 0.0005)"),
    ({"kind": "fsq", "levels": (4, 4), "code_dim": 2}, "levels fewer values (now (4, 4))")])
def test_the_remedy_for_a_collapse_is_a_setting_of_that_kind(settings: dict[str, Any],
                                                             remedy: str) -> None:
    quantizer = QuantizerConfig(**{"codebook_size": 16, "code_dim": 4, **settings})
    watch = Watch(dataclasses.replace(tiny_model(), quantizer=quantizer), tiny_training())
    (_, line), = show(watch, *[{"codes_used": 0.013}] * 9)
    assert remedy in line


def test_a_codebook_too_large_for_the_batches_is_not_collapsed() -> None:
    large = QuantizerConfig(codebook_size=18_000, code_dim=4)
    watch = Watch(dataclasses.replace(tiny_model(), quantizer=large), tiny_training())
    # 50 batches of 4 images of 9 codes are 1800, a tenth of all entries.
    assert show(watch, *[{"codes_used": 0.011}] * 9) == []
    assert len(show(watch, *[{"codes_used": 0.009}] * 9, first=10)) == 1


def test_each_codebook_of_a_residual_quantizer_has_one_code_a_cell_to_be_used_by() -> None:
    deep = QuantizerConfig(kind="residual", codebook_size=18_000, code_dim=4, depth=4)
    watch = Watch(dataclasses.replace(tiny_model(), quantizer=deep), tiny_training())
    # As above, 1800 codes in each of the four codebooks.
    assert show(watch, *[{"codes_used": 0.011}] * 9) == []
    (_, line), = show(watch, *[{"codes_used": 0.009}] * 9, first=10)
    assert "of 18000 codes are in use, in the least used of 4 codebooks; lower" in line


def test_usage_that_recovers_within_a_window_is_no_collapse() -> None:
    assert show(watching(), *([{"codes_used": 0.01}] * (WINDOW - 1) + [{}]) * 4) == []


@pytest.mark.parametrize(("loss", "saturated"), [("hinge", 0.049), ("vanilla", 0.034)])
def test_a_saturated_discriminator_is_named_relative_to_its_loss_at_chance(
        loss: str, saturated: float) -> None:
    adversarial = AdversarialConfig(weight=0.5, loss=loss)
    (look, line), = show(watching(adversarial=adversarial), *[{"discriminator": saturated}] * 9)
    assert look == WINDOW and line.startswith(f"saturated discriminator: its loss is {saturated}")
    assert "adversarial.optimizer.learning_rate (now 0.0001)" in line
    assert "adversarial.lecam_weight (now 0; " in line
    assert show(watching(adversarial=adversarial),
                *[{"discriminator": saturated * 1.1}] * 9) == []


def test_a_weight_far_above_its_median_is_named() -> None:
    looks: list[dict[str, float]] = [{"measured_weight": 1.0 + look / 10} for look in range(6)]
    (look, line), = show(watching(), *looks, {"measured_weight": 14.0}, {})
    assert look == 7 and line.startswith("spike of the adaptive weight: 14 after 1.3; raise "
                                         "training.adversarial.warmup_steps (now 500) or lower "
                                         "training.adversarial.max_adaptive_weight (now 50)")


def test_a_weight_at_its_cap_is_named_at_once() -> None:
    (look, line), = show(watching(), {}, {"measured_weight": 50.0}, {"measured_weight": 50.0})
    assert look == 2 and line.startswith("adaptive weight at its cap: 50 of 50; raise")


def test_a_reconstruction_loss_that_rises_over_a_window_is_named() -> None:
    rising = [{"reconstruction": 0.1 + 0.01 * look} for look in range(20)]
    (look, line), = show(watching(), *[{}] * WINDOW, *rising)
    # Means of five looks rise by 0.01 each from 0.1; 0.15 is passed with looks 4 to 8 of these.
    assert look == WINDOW + 9 and line.startswith(
        "divergence: the reconstruction loss rose to 0.16 from 0.1; lower "
        "training.optimizer.learning_rate (now 0.002) or training.adversarial.weight (now 0.5)")


def test_the_step_up_when_the_discriminator_is_first_heard_is_no_divergence() -> None:
    assert show(watching(), *[{}] * 10, *[{"reconstruction": 0.14}] * 20) == []


@pytest.mark.parametrize(("precision", "remedy"), [
    ("no", "lower training.optimizer.learning_rate (now 0.002)"),
    ("fp16", "set training.mixed_precision=bf16 or no (now fp16), or lower"),
    ("bf16", "set training.mixed_precision=no (now bf16), or lower")])
def test_many_skipped_steps_are_named_with_the_precision(precision: str, remedy: str) -> None:
    looks = [{"skipped_steps": float(2 * max(0, look - 3))} for look in range(9)]
    (look, line), = show(watching(mixed_precision=precision), *looks)
    assert look == 7 and line.startswith("6 of 100 steps were skipped") and remedy in line


def test_the_first_halvings_of_half_precision_are_not_many() -> None:
    assert show(watching(), {}, *[{"skipped_steps": 5.0}] * 9) == []


def test_two_skipped_steps_are_not_many_however_short_the_window() -> None:
    watch, remarks = watching(), []
    for step in range(12):
        remarks += watch.look(step, {**SOUND, "skipped_steps": float(min(step, 2))})
    assert remarks == []
    remarks += watch.look(12, {**SOUND, "skipped_steps": 5.0})
    assert len(remarks) == 1


def test_a_trouble_is_named_again_only_after_it_had_ended() -> None:
    high, low = {"measured_weight": 50.0}, {"measured_weight": 1.0}
    assert [look for look, _ in show(watching(), high, high, low, high, high)] == [1, 4]


def test_troubles_at_once_are_each_named() -> None:
    lines = show(watching(), *[{"codes_used": 0.0, "discriminator": 0.0}] * WINDOW)
    assert [line.partition(":")[0] for _, line in lines] == ["codebook collapse",
                                                             "saturated discriminator"]


def test_every_remark_is_one_line_that_names_a_setting() -> None:
    bad = {"codes_used": 0.0, "discriminator": 0.0, "measured_weight": 50.0, "reconstruction": 9.0}
    watch = watching()
    lines = [line for _, line in show(watch, *[{}] * WINDOW, *[
        {**bad, "skipped_steps": 9.0 * look} for look in range(WINDOW + 2)])]
    assert len(lines) == len(TROUBLES)
    assert all("\n" not in line and ("training." in line or "model." in line) for line in lines)


@pytest.mark.parametrize("stop", range(1, 14))
def test_a_stored_watch_goes_on_exactly(stop: int) -> None:
    looks = [{"codes_used": 0.01 * (look % 8), "measured_weight": 2.0 ** (look % 7),
              "reconstruction": 0.1 * 1.2 ** look, "skipped_steps": 3.0 * look}
             for look in range(15)]
    straight = show(watching(), *looks)
    first, again = watching(), watching()
    found = show(first, *looks[:stop])
    again.load_state_dict(first.state_dict())
    assert found + show(again, *looks[stop:], first=stop + 1) == straight and straight
