"""The transformer: what it sees, and that a cache changes nothing."""
import numpy as np
import pytest
import torch

from prior.layouts import LlamaGenLayout, TamingLayout
from prior.operations import rotate
from prior.sequence import LABEL, Segment, SequenceLayout
from prior.transformer import RMSNorm, Transformer, TransformerConfig, rotations
from tokenizer import configs

LAYOUT = SequenceLayout((Segment(name=LABEL, grid=(1, 1), vocabulary=5),
                         Segment(name="depth", grid=(2, 2), vocabulary=6)),
                        Segment(name="image", grid=(2, 3), vocabulary=10))
DEEP_LAYOUT = SequenceLayout((Segment(name="depth", grid=(2, 2), vocabulary=5, depth=3),),
                             Segment(name="image", grid=(2, 2), vocabulary=7, depth=2))
SHAPES = [{}, {"qk_norm": False}, {"rotary": False}, {"both_ways": False}]


def build(layout: SequenceLayout = LAYOUT, **settings: object) -> Transformer:
    """A small model in evaluation mode whose output layer is not zero."""
    torch.manual_seed(0)
    shape = {"num_layers": 2, "width": 16, "num_heads": 2, **settings}
    model = Transformer(TransformerConfig(**shape), layout).eval()
    torch.nn.init.normal_(model.head.weight)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def sequences(num_rows: int = 3, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    def draw(length: int, high: int) -> torch.Tensor:
        return torch.randint(high, (num_rows, length), generator=generator)
    return LAYOUT.inputs({LABEL: draw(1, 5), "depth": draw(4, 6)}, draw(5, 10))


def test_scores_are_those_of_the_targets_codes_alone() -> None:
    assert build()(sequences()).shape == (3, 6, 10)


def test_an_untrained_model_finds_all_codes_equally_likely() -> None:
    model = Transformer(TransformerConfig(num_layers=1, width=16, num_heads=2), LAYOUT)
    assert not model(sequences()).any()


@pytest.mark.parametrize("settings", SHAPES)
def test_a_code_changes_only_what_is_predicted_after_it(settings: dict[str, bool]) -> None:
    model, ids = build(**settings), sequences()
    changed = ids.clone()
    changed[:, -2] = LAYOUT.offsets["image"] + (ids[:, -2] - LAYOUT.offsets["image"] + 1) % 10
    difference = (model(ids) - model(changed)).abs().amax((0, 2))
    assert (difference[:4] == 0).all() and (difference[4:] > 0).all()


@pytest.mark.parametrize("settings", SHAPES)
def test_every_prediction_depends_on_every_condition(settings: dict[str, bool]) -> None:
    model, ids = build(**settings), sequences()
    for position in range(LAYOUT.prefix_length):
        changed = ids.clone()
        offset = 0 if position == 0 else LAYOUT.offsets["depth"]
        changed[:, position] = offset + (ids[:, position] - offset + 1) % 5
        assert ((model(ids) - model(changed)).abs().amax((0, 2)) > 0).all()


@pytest.mark.parametrize(("settings", "cuts"), [
    *((settings, cuts) for settings in SHAPES for cuts in ((6,), (5, 9), (6, 7, 8, 9, 10))),
    ({"both_ways": False}, (3, 9))])
def test_reading_in_parts_with_a_cache_gives_the_same_scores(settings: dict[str, bool],
                                                             cuts: tuple[int, ...]) -> None:
    model, ids = build(**settings), sequences()
    cache = model.new_cache(len(ids))
    with torch.no_grad():
        parts = [model(part, cache) for part in ids.tensor_split(cuts, 1)]
        torch.testing.assert_close(torch.cat(parts, 1), model(ids), rtol=1e-4, atol=1e-5)
    assert cache.length == LAYOUT.length


def test_conditions_that_see_each_other_both_ways_are_read_in_one_part() -> None:
    model, ids = build(), sequences()
    with torch.no_grad(), pytest.raises(ValueError, match="all 5 positions of the conditions"):
        model(ids[:, :3], model.new_cache(len(ids)))


def test_both_ways_matters_only_with_several_condition_positions() -> None:
    layout = SequenceLayout((), LAYOUT.target)
    codes = torch.arange(5)[None]
    both, causal = build(layout), build(layout, both_ways=False)
    torch.testing.assert_close(both(layout.inputs({}, codes)), causal(layout.inputs({}, codes)))


def test_turning_keeps_lengths_and_depends_on_distance_alone() -> None:
    places = torch.tensor([[0.5, 0.5], [1.5, 2.5], [3.5, 4.5], [4.5, 6.5]])
    turn = rotations(places, 16)
    query, key = torch.randn(2, 1, 1, 1, 16, generator=torch.Generator().manual_seed(1))
    queries, keys = (rotate(each.expand(1, 1, 4, 16), turn)[0, 0] for each in (query, key))
    torch.testing.assert_close(queries.norm(dim=-1), query.norm().expand(4))
    near, far = queries[0] @ keys[1], queries[2] @ keys[3]
    torch.testing.assert_close(near, far)


def test_norms_are_torchs_own_and_their_gradients_finite_at_zero() -> None:
    norm, inputs = RMSNorm(16), torch.randn(5, 16, generator=torch.Generator().manual_seed(2))
    torch.nn.init.normal_(norm.weight)
    inputs[0] = 0
    ours, theirs = inputs.clone().requires_grad_(), inputs.clone().requires_grad_()
    expected = torch.nn.functional.rms_norm(theirs, (16,), norm.weight, 1e-6)
    torch.testing.assert_close(norm(ours), expected)
    (norm(ours).square().sum() + norm(ours).sum()).backward()
    (expected.square().sum() + expected.sum()).backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_dropout_acts_in_training_only() -> None:
    model, ids = build(dropout=0.5), sequences()
    assert torch.equal(model(ids), model(ids))
    model.train()
    assert not torch.equal(model(ids), model(ids))


def deep_sequences(num_rows: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    given = torch.randint(5, (num_rows, 12), generator=generator)
    return DEEP_LAYOUT.inputs({"depth": given},
                              torch.randint(7, (num_rows, 7), generator=generator))


def test_each_code_of_a_cell_is_scored_by_its_own_rows_of_the_output_layer() -> None:
    model, ids = build(DEEP_LAYOUT), deep_sequences()
    before = model(ids)
    assert before.shape == (3, 8, 7) and model.head.weight.shape == (14, 16)
    with torch.no_grad():
        model.head.weight[7:].zero_()
    after = model(ids)
    assert torch.equal(after[:, ::2], before[:, ::2])
    assert not after[:, 1::2].any() and (before[:, 1::2] != 0).all()


def test_the_vector_of_a_depth_is_added_where_a_code_of_that_depth_comes_next() -> None:
    model = build(SequenceLayout((), DEEP_LAYOUT.target))
    ids = model.layout.inputs({}, torch.tensor([[1, 2, 3]]))
    before = model(ids)
    with torch.no_grad():
        model.depths.weight[1] += torch.linspace(-1, 1, 16)
    changed = (model(ids) - before).abs().amax((0, 2)) > 0
    assert changed.tolist() == [False, True, True, True]


@pytest.mark.parametrize("cuts", [(12,), (13, 14), (12, 13, 14, 15, 16, 17, 18, 19), (15,)])
def test_several_codes_a_cell_are_read_in_parts_with_the_same_scores(cuts: tuple[int, ...]) -> None:
    model, ids = build(DEEP_LAYOUT), deep_sequences()
    cache = model.new_cache(len(ids))
    with torch.no_grad():
        parts = [model(part, cache) for part in ids.tensor_split(cuts, 1)]
        torch.testing.assert_close(torch.cat(parts, 1), model(ids), rtol=1e-4, atol=1e-5)


def test_one_code_a_cell_needs_no_parameters_for_depths() -> None:
    model = build()
    assert model.depths is None and not [name for name in model.state_dict() if "depth" in name]
    assert model.codes.weight.shape == (6 + 7 + 11, 16) and model.head.weight.shape == (10, 16)


def test_tables_of_positions_are_not_stored() -> None:
    names = set(build(DEEP_LAYOUT).state_dict())
    assert not names & {"mask", "turns", "position_ids", "segment_ids", "depth_ids"}
    assert "blocks.1.attention.qkv.weight" in names


@pytest.mark.parametrize(("settings", "message"), [
    ({"width": 20, "num_heads": 2}, r"multiple of 4 \* num_heads \(8\), got 20"),
    ({"num_layers": 0}, "at least 1, got 0, 192 and 4"),
    ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0")])
def test_impossible_shapes_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TransformerConfig(**settings)


def test_hidden_channels_are_eight_thirds_rounded_up() -> None:
    assert [TransformerConfig(width=width, num_heads=4).hidden
            for width in (32, 192, 768)] == [96, 512, 2048]


def test_a_row_does_not_depend_on_its_neighbours_or_place() -> None:
    model, ids = build(), sequences(16)
    order = np.random.default_rng(0).permutation(16)
    with torch.inference_mode():
        assert torch.equal(model(ids)[order], model(ids[order]))


PUBLISHED = [(TamingLayout(LAYOUT.conditions[1:], LAYOUT.target), "mingpt", False),
             (TamingLayout((), LAYOUT.target), "mingpt", False),
             (LlamaGenLayout(LAYOUT.conditions[:1], LAYOUT.target), "llamagen", True)]


@pytest.mark.parametrize(("layout", "blocks", "rotary"), PUBLISHED)
@pytest.mark.parametrize("cuts", [(3,), (4, 5, 6)])
def test_published_blocks_and_layouts_read_in_parts_with_the_same_scores(
        layout: SequenceLayout, blocks: str, rotary: bool, cuts: tuple[int, ...]) -> None:
    model = build(layout, blocks=blocks, rotary=rotary, qk_norm=False, both_ways=False)
    given = {segment.name: torch.arange(segment.length).expand(2, -1) for segment in
             layout.conditions}
    ids = layout.inputs(given, torch.tensor([[7, 3, 9, 0, 1], [2, 2, 8, 5, 4]]))
    cache = model.new_cache(2)
    with torch.no_grad():
        parts = [model(part, cache) for part in ids.tensor_split(cuts, 1)]
        torch.testing.assert_close(torch.cat(parts, 1), model(ids), rtol=1e-4, atol=1e-5)
    assert torch.cat(parts, 1).shape == (2, 6, 10)


def test_blocks_of_mingpt_have_layer_norms_and_biases_everywhere_but_in_the_head() -> None:
    layout = TamingLayout((), LAYOUT.target)
    settings = {"num_layers": 1, "width": 16, "num_heads": 2, "qk_norm": False}
    state = Transformer(TransformerConfig(**settings, blocks="mingpt"), layout).state_dict()
    assert {name for name in state if name.endswith("bias")} == {
        f"blocks.0.{name}.bias" for name in (
            "norm_attention", "attention.qkv", "attention.out", "norm_feed_forward",
            "feed_forward.up", "feed_forward.down")} | {"norm.bias"}
    assert not state["positions.weight"].any() and "segments.weight" not in state
    assert state["head.weight"].std() == pytest.approx(0.02, rel=0.2)


def test_configs_of_before_keep_their_meaning() -> None:
    assert "blocks" not in configs.to_dict(TransformerConfig())
    assert configs.override(TransformerConfig(), ["blocks=mingpt"]).hidden == 768


def test_unknown_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match="no blocks are named 'gpt2'; known are swiglu, mingpt"):
        TransformerConfig(blocks="gpt2")
