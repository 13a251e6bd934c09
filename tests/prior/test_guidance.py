"""Which stages guidance computes, and how it joins them."""
import pytest
import torch

from prior.guidance import SCHEDULES, Guidance

BOTH = ("label", "depth")
STAGES = torch.tensor([[1.0], [3.0], [4.0]])
"""Scores without conditions, with the label, and with both."""


def combined(guidance: Guidance, share: float = 0.0) -> float:
    chain = guidance.chain(BOTH)
    names = ((), ("label",), BOTH)
    scores = torch.stack([STAGES[names.index(stage)] for stage in chain.stages])
    return chain.combine(scores, guidance.strength(share)).item()


@pytest.mark.parametrize(("guidance", "stages", "expected"), [
    (Guidance(), (BOTH,), 4),
    (Guidance(scale=0.0), ((),), 1),
    (Guidance(scale=2.0), ((), BOTH), 1 + 2 * 3),
    (Guidance(scales={"label": 2.0}), ((), ("label",), BOTH), 1 + 2 * 2 + 1),
    (Guidance(scales={"depth": 3.0}), (("label",), BOTH), 3 + 3 * 1),
    (Guidance(scales={"depth": 0.0}), (("label",),), 3),
    (Guidance(scale=2.0, scales={"label": 0.5}), ((), ("label",), BOTH), 1 + 0.5 * 2 + 2 * 1)])
def test_only_the_stages_that_matter_are_computed(guidance: Guidance, stages: object,
                                                  expected: float) -> None:
    assert guidance.chain(BOTH).stages == stages
    assert combined(guidance) == expected


def test_nothing_given_leaves_nothing_to_guide() -> None:
    assert Guidance(scale=3.0).chain(()).stages == ((),)


def test_schedules_rise_from_the_plain_prior_to_the_full_scale() -> None:
    for schedule in ("cosine", "power-cosine"):
        found = [combined(Guidance(scale=2.0, schedule=schedule), share) for share in (0, 0.5, 1)]
        assert found[0] == 4 and found[2] == pytest.approx(7) and 4 < found[1] < 7
    assert Guidance(schedule="cosine").strength(0.5) == pytest.approx(0.5)
    late, early = (Guidance(schedule="power-cosine", power=power) for power in (3.0, 0.5))
    assert late.strength(0.5) < 0.5 < early.strength(0.5)


def test_a_scale_of_zero_keeps_its_stage_where_a_schedule_begins_at_one() -> None:
    guidance = Guidance(scale=0.0, schedule="cosine")
    assert guidance.chain(BOTH).stages == ((), BOTH)
    assert [combined(guidance, share) for share in (0.0, 1.0)] == pytest.approx([4, 1])


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_stays_between_nothing_and_all(name: str) -> None:
    strengths = [Guidance(schedule=name).strength(step / 10) for step in range(11)]
    assert strengths == sorted(strengths) and strengths[0] >= 0 and strengths[-1] <= 1


@pytest.mark.parametrize(("settings", "message"), [
    ({"scale": -1.0}, "guidance must be a number of at least 0, got -1.0"),
    ({"scales": {"depth": float("nan")}}, "guidance of depth must be a number of at least 0, got"),
    ({"schedule": "linear"}, "no schedule of guidance is named 'linear'; known are constant, cos"),
    ({"power": 0.0}, "the power of guidance must be more than 0, got 0.0")])
def test_impossible_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Guidance(**settings)
