"""Steps of one position say what whole sequences do, for every kind of block and of sequence."""
import pytest
import torch
from test_transformer import DEEP_LAYOUT, LAYOUT, PUBLISHED, SHAPES, build

from prior.guidance import Guidance
from prior.scoring import Scores
from prior.sequence import SequenceLayout
from prior.stepping import Stepper, store_by_columns
from prior.transformer import Cache, Transformer

FREE = SequenceLayout((), LAYOUT.target)
MODELS = [*((LAYOUT, settings) for settings in (*SHAPES, {"qk_norm": False, "rotary": False})),
          (FREE, {}), (DEEP_LAYOUT, {}),
          *((layout, {"blocks": blocks, "rotary": rotary, "qk_norm": False, "both_ways": False})
            for layout, blocks, rotary in PUBLISHED)]


def drawn_ids(layout: SequenceLayout, num_rows: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    given = {segment.name: torch.randint(segment.vocabulary, (num_rows, segment.length),
                                         generator=generator) for segment in layout.segments}
    return layout.inputs(given, given[layout.target.name][:, :-1])


def read_prefix(model: Transformer, ids: torch.Tensor) -> Cache:
    """A cache that has read the conditions."""
    cache = model.new_cache(len(ids))
    if model.layout.prefix_length:
        with torch.no_grad():
            model.read(ids[:, :model.layout.prefix_length], cache)
    return cache


@pytest.mark.parametrize(("layout", "settings"), MODELS)
@pytest.mark.parametrize("num_rows", [1, 3])
@pytest.mark.parametrize("weights", [1.0, 1e-3])
def test_each_step_gives_the_scores_of_the_whole_sequence(
        layout: SequenceLayout, settings: dict[str, object], num_rows: int,
        weights: float) -> None:
    """With small weights, what norms add to the mean square decides."""
    model, ids = build(layout, **settings), drawn_ids(layout, num_rows)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(parameter, mean=1.0, std=0.3)
        elif name != "head.weight":
            parameter.data *= weights
    cache = read_prefix(model, ids)
    stepper = Stepper(model, cache)
    with torch.no_grad():
        expected = model(ids)
    found = torch.stack([stepper.next_scores(ids[:, place])
                         for place in range(layout.prefix_length, layout.length)], 1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.std()))
    assert cache.length == layout.length


def test_a_cache_is_extended_as_by_the_model_itself() -> None:
    model, ids = build(), drawn_ids(LAYOUT)
    caches = [read_prefix(model, ids) for _ in range(2)]
    stepper = Stepper(model, caches[0])
    with torch.no_grad():
        for place in (5, 6, 7):
            stepper.next_scores(ids[:, place])
            model.next_scores(ids[:, place:place + 1], caches[1])
    for name in ("keys", "values"):
        torch.testing.assert_close(*(getattr(cache, name)[..., :8, :] for cache in caches),
                                   rtol=1e-5, atol=1e-6)


def test_what_is_forgotten_can_be_stepped_over_again() -> None:
    model, ids = build(), drawn_ids(LAYOUT)
    cache = read_prefix(model, ids)
    stepper = Stepper(model, cache)
    first = [stepper.next_scores(ids[:, place]) for place in (5, 6, 7)]
    cache.length = 6
    assert torch.equal(stepper.next_scores(ids[:, 6]), first[1])
    assert torch.equal(stepper.next_scores(ids[:, 7]), first[2])


def test_a_row_does_not_depend_on_its_neighbours_or_place() -> None:
    model, ids, order = build(FREE), drawn_ids(FREE, 5), [3, 0, 4, 1, 2]
    found = [[stepper.next_scores(rows[:, place]) for place in range(6)]
             for rows in (ids, ids[order])
             for stepper in [Stepper(model, model.new_cache(5))]]
    assert torch.equal(torch.stack(found[0])[:, order], torch.stack(found[1]))


def test_scores_with_a_cache_are_made_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    model, codes = build(FREE), torch.tensor([[1, 2, 3, 4, 5, 6]])
    scores = Scores(model, {}, 1, Guidance())
    monkeypatch.setattr(model, "next_scores", None)
    assert [scores.next(codes, count).shape for count in (0, 1, 2)] == [(1, 10)] * 3


def test_matrices_stored_by_columns_keep_shapes_and_values() -> None:
    model, ids = build(), drawn_ids(LAYOUT)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        expected = model(ids)
        store_by_columns(model)
        torch.testing.assert_close(model(ids), expected, rtol=1e-5, atol=1e-5)
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert model.blocks[0].attention.qkv.weight.t().is_contiguous()
