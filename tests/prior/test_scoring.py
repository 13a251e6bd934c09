"""Conditions are read once, and what is read does not depend on the rows beside it."""
import pytest
import torch
from test_transformer import DEEP_LAYOUT, LAYOUT, build

from prior.guidance import Guidance
from prior.scoring import Scores, read_conditions
from prior.sequence import SequenceLayout
from prior.transformer import Transformer


def drawn(layout: SequenceLayout, num_rows: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    given = {segment.name: torch.randint(segment.vocabulary, (num_rows, segment.length),
                                         generator=generator) for segment in layout.conditions}
    target = layout.target
    return given, torch.randint(target.vocabulary, (num_rows, target.length), generator=generator)


@pytest.mark.parametrize("layout", [LAYOUT, DEEP_LAYOUT])
@pytest.mark.parametrize("cached", [True, False])
def test_scores_are_those_of_the_whole_sequence(layout: SequenceLayout, cached: bool) -> None:
    model, (given, codes) = build(layout), drawn(layout, 3)
    with torch.no_grad():
        whole = model(layout.inputs(given, codes[:, :-1]))
    scores = Scores(model, given, 3, Guidance(), cached)
    for count in (0, 2, 3):
        torch.testing.assert_close(scores.next(codes, count), whole[:, count], rtol=1e-4,
                                   atol=1e-5)
    scores.forget(1)
    logs = whole.log_softmax(-1).gather(-1, codes[..., None])[:, 1:, 0]
    torch.testing.assert_close(scores.log_likelihoods(codes, 1), logs, rtol=1e-4, atol=1e-5)


def test_guided_scores_join_those_of_fewer_conditions() -> None:
    model, (given, codes) = build(), drawn(LAYOUT, 3)
    with torch.no_grad():
        free, label, both = (
            model(LAYOUT.inputs({name: given[name] for name in names}, codes[:, :2]))[:, 2]
            for names in ((), ("label",), ("label", "depth")))
    scores = Scores(model, given, 3, Guidance(scales={"label": 2.0, "depth": 3.0}))
    expected = free + 2 * (label - free) + 3 * (both - label)
    torch.testing.assert_close(scores.next(codes, 2), expected, rtol=1e-4, atol=1e-4)


class Counting:
    """Counts the rows of conditions that a model reads."""

    def __init__(self, model: Transformer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows = 0
        read = model.read

        def counted(ids: torch.Tensor, cache: object = None) -> torch.Tensor:
            self.rows += len(ids)
            return read(ids, cache)

        monkeypatch.setattr(model, "read", counted)


def test_equal_conditions_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (given, _) = build(), drawn(LAYOUT, 2)
    monkeypatch.setattr("prior.scoring.POSITIONS_AT_ONCE", LAYOUT.prefix_length)
    prefix = LAYOUT.first_inputs(given, 2, torch.device("cpu"))[:, :-1]
    counting = Counting(model, monkeypatch)
    cache = read_conditions(model, prefix[[0, 1, 0, 0, 1]])
    assert counting.rows == 2 and cache.length == LAYOUT.prefix_length
    keys = cache.keys[..., :cache.length, :]
    assert torch.equal(keys[:, 0], keys[:, 3]) and not torch.equal(keys[:, 0], keys[:, 1])


@pytest.mark.parametrize("at_once", [5, 10, 15])
def test_what_is_read_of_a_condition_does_not_depend_on_the_others(
        monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    model, (given, _) = build(), drawn(LAYOUT, 5)
    monkeypatch.setattr("prior.scoring.POSITIONS_AT_ONCE", at_once)
    prefix = LAYOUT.first_inputs(given, 5, torch.device("cpu"))[:, :-1]
    together = read_conditions(model, prefix)
    order = [3, 3, 0, 3, 3]
    apart = read_conditions(model, prefix[order])
    for found, expected in ((apart.keys, together.keys), (apart.values, together.values)):
        end = LAYOUT.prefix_length
        assert torch.equal(found[..., :end, :], expected[:, order][..., :end, :])


def test_a_prior_without_conditions_reads_none() -> None:
    layout = SequenceLayout((), LAYOUT.target)
    assert read_conditions(build(layout), torch.zeros(2, 0, dtype=torch.int64)).length == 0
