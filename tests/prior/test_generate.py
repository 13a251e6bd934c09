"""Generated codes depend on seed and conditions alone, and the cache changes nothing."""
from typing import Any

import numpy as np
import pytest
import torch
from drawn_codes import GRID, SIZES

from prior.generate import Generation, draw_noise, generate
from prior.guidance import SCHEDULES, Guidance
from prior.model import Prior
from prior.samplers import SAMPLERS, GreedySampler, RandomSampler
from prior.sequence import Segment, SequenceLayout
from prior.transformer import Transformer, TransformerConfig

SEEDS = [(7, row) for row in range(10)]


def givens(num_rows: int = 10) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(5)
    cells = GRID[0] * GRID[1]
    return {"label": generator.integers(0, 2, (num_rows, 1)),
            "segmentation": generator.integers(0, SIZES["segmentation"], (num_rows, cells))}


def codes(prior: Prior, rows: slice | list[int] = slice(None), start: np.ndarray | None = None,
          **settings: Any) -> np.ndarray:
    chosen = np.arange(10)[rows]
    given = {name: array[chosen] for name, array in givens().items()}
    return generate(prior.model, given, [SEEDS[row] for row in chosen],
                    Generation(**{"batch_size": 4, **settings}), start)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("guidance", [1.0, 1.5])
def test_codes_with_a_cache_are_those_without(prior: Prior, name: str, guidance: float) -> None:
    settings = {"sampler": SAMPLERS[name](), "guidance": Guidance(scale=guidance)}
    np.testing.assert_array_equal(codes(prior, **settings),
                                  codes(prior, cached=False, **settings))


def test_codes_with_a_cache_are_those_without_when_completing(prior: Prior) -> None:
    start = np.arange(20).reshape(10, 2) % SIZES["image"]
    np.testing.assert_array_equal(codes(prior, start=start),
                                  codes(prior, start=start, cached=False))


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_codes_do_not_depend_on_the_batch_size(prior: Prior, batch_size: int) -> None:
    np.testing.assert_array_equal(codes(prior, batch_size=batch_size), codes(prior))


def test_codes_of_an_image_do_not_depend_on_order_or_company(prior: Prior) -> None:
    together = codes(prior)
    order = [9, 2, 5, 0, 7]
    np.testing.assert_array_equal(codes(prior, order), together[order])
    np.testing.assert_array_equal(codes(prior, [3]), together[[3]])


def test_codes_of_a_seed_are_the_same_again_and_of_another_differ(prior: Prior) -> None:
    free = {"label": np.full((1, 1), 2)}
    drawn = [generate(prior.model, free, [(seed, 0)], Generation(batch_size=1)).tolist()
             for seed in (0, 0, 1, 2, 3)]
    assert drawn[0] == drawn[1]
    assert len({str(each) for each in drawn}) > 1


def test_codes_follow_their_conditions(prior: Prior) -> None:
    given = givens()
    expected = given["segmentation"] * 2 + given["label"]
    found = codes(prior, sampler=GreedySampler()).reshape(10, -1)
    assert (found == expected).mean() > 0.9


def test_given_codes_are_kept(prior: Prior) -> None:
    start = np.arange(20).reshape(10, 2) % SIZES["image"]
    found = codes(prior, start=start).reshape(10, -1)
    np.testing.assert_array_equal(found[:, :2], start)


def test_codes_fill_the_grid_and_lie_in_the_codebook(prior: Prior) -> None:
    found = codes(prior, sampler=RandomSampler(temperature=100.0))
    assert found.shape == (10, *GRID) and found.dtype == np.int64
    assert found.min() >= 0 and found.max() < SIZES["image"]


def test_guidance_of_one_is_the_plain_prior(prior: Prior) -> None:
    np.testing.assert_array_equal(codes(prior, guidance=Guidance(scale=1.0)), codes(prior))


def test_guidance_of_zero_ignores_the_conditions(prior: Prior) -> None:
    free = generate(prior.model, {}, SEEDS, Generation(batch_size=4))
    np.testing.assert_array_equal(codes(prior, guidance=Guidance(scale=0.0)), free)


def test_scales_of_one_condition_alone_leave_the_others_out(prior: Prior) -> None:
    label = {"label": givens()["label"]}
    alone = generate(prior.model, label, SEEDS, Generation(batch_size=4))
    guidance = Guidance(scales={"segmentation": 0.0})
    np.testing.assert_array_equal(codes(prior, guidance=guidance), alone)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_separate_scales_and_schedules_are_the_same_with_and_without_a_cache(
        prior: Prior, schedule: str) -> None:
    guidance = Guidance(scales={"label": 3.0, "segmentation": 1.5}, schedule=schedule)
    np.testing.assert_array_equal(codes(prior, guidance=guidance),
                                  codes(prior, guidance=guidance, cached=False))


def test_guided_samples_follow_their_conditions_more_closely(prior: Prior) -> None:
    given = givens(200)  # 1200 codes: shares to 0.015
    expected = given["segmentation"] * 2 + given["label"]
    hot = RandomSampler(temperature=8.0)  # which the plain prior hardly stands
    plain, guided = (
        (generate(prior.model, given, [(7, row) for row in range(200)],
                  Generation(batch_size=200, sampler=hot, guidance=Guidance(scale=scale)))
         .reshape(200, -1) == expected).mean() for scale in (1.0, 4.0))
    assert guided > plain + 0.15, (plain, guided)  # seen: 0.215 and 0.490


# Images with holes


def holed(prior: Prior, hole: np.ndarray, rows: slice | list[int] = slice(None),
          **settings: Any) -> np.ndarray:
    chosen = np.arange(10)[rows]
    given = {name: array[chosen] for name, array in givens().items()}
    return generate(prior.model, given, [SEEDS[row] for row in chosen],
                    Generation(**{"batch_size": 4, **settings}), ORIGINALS[chosen], hole)


HOLE = np.array([False, True, False, True, True, False])
ORIGINALS = np.random.default_rng(1).integers(0, SIZES["image"], (10, HOLE.size))


@pytest.mark.parametrize("passes", [0, 3])
def test_cells_outside_the_hole_are_kept_and_those_inside_drawn(prior: Prior, passes: int) -> None:
    found = holed(prior, HOLE, passes=passes).reshape(10, -1)
    np.testing.assert_array_equal(found[:, ~HOLE], ORIGINALS[:, ~HOLE])
    assert (found[:, HOLE] != ORIGINALS[:, HOLE]).any(0).all()


@pytest.mark.parametrize("passes", [0, 3])
def test_holes_are_filled_alike_without_a_cache_in_any_company(prior: Prior, passes: int) -> None:
    together = holed(prior, HOLE, passes=passes)
    np.testing.assert_array_equal(holed(prior, HOLE, passes=passes, cached=False), together)
    np.testing.assert_array_equal(holed(prior, HOLE, [7, 2], passes=passes), together[[7, 2]])


def test_a_hole_at_the_end_is_a_completion_and_passes_change_nothing(prior: Prior) -> None:
    tail = np.arange(HOLE.size) >= 2
    expected = codes(prior, start=ORIGINALS[:, :2])
    np.testing.assert_array_equal(holed(prior, tail), expected)
    np.testing.assert_array_equal(holed(prior, tail, passes=2), expected)


def test_passes_let_later_codes_act_as_the_exact_conditional_does() -> None:
    """Two codes of two values, the first drawn: p(a | b) against the shares of many images."""
    layout = SequenceLayout((), Segment(name="image", grid=(1, 2), vocabulary=2))
    torch.manual_seed(18)
    model = Transformer(TransformerConfig(num_layers=1, width=8, num_heads=1), layout).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.6)
    pairs = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    with torch.no_grad():
        logs = model(layout.inputs({}, pairs[:, :1])).log_softmax(-1)
    joint = logs.gather(-1, pairs[..., None]).sum((1, 2)).exp()
    exact = float(joint[2] / (joint[0] + joint[2]))  # of a = 1 where b = 0
    prior_alone = float(joint[2] + joint[3])
    assert abs(exact - prior_alone) > 0.4
    for passes, expected in ((0, prior_alone), (12, exact)):
        found = generate(model, {}, [(row,) for row in range(2000)],
                         Generation(batch_size=2000, passes=passes),
                         np.zeros((2000, 2), np.int64), np.array([True, False]))
        assert found[:, 0, 0].mean() == pytest.approx(expected, abs=0.04)


def test_each_finished_batch_is_reported(prior: Prior) -> None:
    counts: list[int] = []
    generate(prior.model, givens(), SEEDS, Generation(batch_size=4), done=counts.append)
    assert counts == [4, 4, 2]


def test_noise_is_exponential_and_each_row_has_its_own() -> None:
    sources = [np.random.default_rng(seed) for seed in (1, 2)]
    draws = draw_noise(sources, 50_000)
    assert draws.dtype == torch.float32 and not torch.equal(draws[0], draws[1])
    assert draws.mean().item() == pytest.approx(1, abs=0.02)
    assert draws.var().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(("settings", "message"), [
    ({"passes": -1}, "passes must be at least 0, got -1"),
    ({"batch_size": 0}, "batch_size must be at least 1, got 0")])
def test_impossible_settings_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Generation(**settings)
