"""What samplers keep, and that they draw from the distribution they are given."""
import math

import pytest
import torch

from prior.samplers import SAMPLERS, GreedySampler, RandomSampler, keep_top_k, keep_top_p

SCORES = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()


def noise(count: int, size: int = 4, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.empty(count, size).exponential_(generator=generator)


def shares(sampler: RandomSampler, count: int = 20_000) -> list[float]:
    drawn = sampler.choose(SCORES.expand(count, 4), noise(count))
    return (torch.bincount(drawn, minlength=4) / count).tolist()


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_gives_one_code_a_row_and_uses_no_other_randomness(name: str) -> None:
    sampler, draws = SAMPLERS[name](), noise(5)
    first = sampler.choose(SCORES.expand(5, 4), draws)
    torch.manual_seed(123)
    again = sampler.choose(SCORES.expand(5, 4), draws)
    assert first.dtype == torch.int64 and first.shape == (5,)
    assert first.tolist() == again.tolist()


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_certain_code_is_chosen_by_every_sampler(name: str) -> None:
    scores = torch.tensor([[-torch.inf, 0.0, -torch.inf]])
    assert SAMPLERS[name]().choose(scores, noise(1, 3)).tolist() == [1]


def test_draws_follow_the_probabilities() -> None:
    assert shares(RandomSampler()) == pytest.approx([0.5, 0.25, 0.125, 0.125], abs=0.01)


def test_temperature_is_a_power_of_the_probabilities() -> None:
    squares = [4 / 5.5, 1 / 5.5, 0.25 / 5.5, 0.25 / 5.5]
    assert shares(RandomSampler(temperature=0.5)) == pytest.approx(squares, abs=0.01)


def test_top_k_keeps_the_most_likely_codes() -> None:
    assert shares(RandomSampler(top_k=2)) == pytest.approx([2 / 3, 1 / 3, 0, 0], abs=0.01)
    assert shares(RandomSampler(top_k=99)) == shares(RandomSampler())


def test_top_p_keeps_the_fewest_codes_with_that_probability() -> None:
    assert shares(RandomSampler(top_p=0.6)) == pytest.approx([2 / 3, 1 / 3, 0, 0], abs=0.01)
    assert shares(RandomSampler(top_p=0.01)) == [1, 0, 0, 0]


def test_min_p_keeps_codes_that_share_of_the_most_likely() -> None:
    assert shares(RandomSampler(min_p=0.4)) == pytest.approx([2 / 3, 1 / 3, 0, 0], abs=0.01)
    assert shares(RandomSampler(min_p=1.0)) == [1, 0, 0, 0]
    assert shares(RandomSampler(min_p=1e-9)) == shares(RandomSampler())


def test_limits_act_together_and_the_narrowest_decides() -> None:
    both = RandomSampler(top_k=3, top_p=0.6, min_p=0.2)
    assert shares(both) == pytest.approx([2 / 3, 1 / 3, 0, 0], abs=0.01)
    assert shares(RandomSampler(top_k=1, top_p=0.9, min_p=0.1)) == [1, 0, 0, 0]


def test_cut_codes_have_no_score_and_others_keep_theirs() -> None:
    scores = torch.tensor([[1.0, 3.0, 2.0, 0.0], [0.0, 0.0, 5.0, 5.0]])
    cut = -math.inf
    assert keep_top_k(scores, 2).tolist() == [[cut, 3, 2, cut], [cut, cut, 5, 5]]
    assert keep_top_p(scores, 0.5).tolist() == [[cut, 3, cut, cut], [cut, cut, 5, 5]]


def test_equal_scores_at_the_limit_all_stay_in_top_k() -> None:
    assert keep_top_k(torch.zeros(1, 4), 2).isfinite().all()


def test_greedy_takes_the_lower_index_of_equals() -> None:
    assert GreedySampler().choose(torch.tensor([[1.0, 2.0, 2.0]]), noise(1, 3)).tolist() == [1]


def test_noise_of_zero_does_not_choose_a_code_that_was_cut() -> None:
    draws = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    assert RandomSampler(top_k=2).choose(SCORES, draws).tolist()[0] in (0, 1)


@pytest.mark.parametrize(("settings", "message"), [
    ({"temperature": 0.0}, "temperature must be more than 0, got 0.0; the greedy"),
    ({"top_k": 0}, "top_k must be at least 1, got 0"),
    ({"top_p": 1.5}, r"top_p must lie in \(0, 1\], got 1.5"),
    ({"min_p": -0.1}, r"min_p must lie in \[0, 1\], got -0.1")])
def test_impossible_settings_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RandomSampler(**settings)
