"""What holds for every kind of quantizer."""
import pytest
import torch
from small_quantizers import SETTINGS, small

from tokenizer.vqgan.quantizers import QUANTIZERS, QuantizerConfig

KINDS = sorted(QUANTIZERS)

NOT_IDEMPOTENT = {
    "gumbel": "logits are learned apart from the entries, so an entry may have another's logits",
    "ibq": "an entry's product with a longer one may exceed that with itself",
    "fsq": "latents are bounded by tanh before they are rounded, values are not bounded again",
    "residual": "a sum of entries may lie nearer to another first entry than to its own"}
"""Kinds whose codes -> latents -> codes need not be the identity, and why."""


def test_every_kind_is_tried_here() -> None:
    assert set(KINDS) == set(SETTINGS)


@pytest.mark.parametrize("kind", KINDS)
def test_codes_have_a_grid_for_each_depth_and_lie_in_the_codebook(kind: str) -> None:
    quantizer = small(kind)
    codes = quantizer(3 * torch.randn(2, 4, 3, 5)).codes
    depth = quantizer.config.depth
    assert codes.shape == ((2, 3, 5) if depth == 1 else (2, depth, 3, 5))
    assert codes.dtype == torch.int64
    assert codes.min() >= 0 and codes.max() < quantizer.config.codebook_size


@pytest.mark.parametrize("kind", KINDS)
def test_codes_give_back_the_latents_that_the_decoder_sees(kind: str) -> None:
    quantizer = small(kind)
    found = quantizer(torch.randn(2, 4, 3, 5))
    torch.testing.assert_close(quantizer.codes_to_latents(found.codes), found.latents)


@pytest.mark.parametrize("kind", KINDS)
def test_encode_agrees_with_forward_outside_training(kind: str) -> None:
    quantizer, latents = small(kind).eval(), torch.randn(2, 4, 3, 5)
    assert torch.equal(quantizer.encode(latents), quantizer(latents).codes)


@pytest.mark.parametrize("kind", KINDS)
def test_encoding_draws_nothing(kind: str) -> None:
    quantizer, latents = small(kind).eval(), torch.randn(2, 4, 3, 5)
    state = torch.get_rng_state()
    assert torch.equal(quantizer.encode(latents), quantizer.encode(latents))
    quantizer(latents)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", KINDS)
def test_quantizing_the_latents_of_codes_gives_the_codes(kind: str) -> None:
    quantizer = small(kind).eval()
    size = quantizer.config.codebook_size
    codes = torch.arange(size).view(1, 4, -1)
    if quantizer.config.depth > 1:
        codes = torch.stack([codes, codes.flip(2), codes.roll(1)], 1)
    again = quantizer.encode(quantizer.codes_to_latents(codes))
    if kind in NOT_IDEMPOTENT:
        assert not torch.equal(again, codes), f"{kind} need not be listed"
    else:
        assert torch.equal(again, codes)


@pytest.mark.parametrize("kind", KINDS)
def test_every_code_has_latents_of_its_own(kind: str) -> None:
    quantizer = small(kind)
    if quantizer.config.depth == 1:
        codes = torch.arange(quantizer.config.codebook_size).view(1, 1, -1)
        latents = quantizer.codes_to_latents(codes)[0, :, 0].T
        assert len(latents.unique(dim=0)) == quantizer.config.codebook_size


@pytest.mark.parametrize("kind", KINDS)
def test_code_of_a_position_does_not_depend_on_the_others(kind: str) -> None:
    quantizer, latents = small(kind).eval(), torch.randn(2, 4, 3, 5)
    codes = quantizer.encode(latents)
    assert torch.equal(quantizer.encode(latents[1:, :, :, 2:]), codes[1:, ..., 2:])


@pytest.mark.parametrize("kind", KINDS)
def test_latents_and_parameters_learn_and_losses_are_finite(kind: str) -> None:
    quantizer = small(kind).train()
    latents = torch.randn(2, 4, 3, 5, requires_grad=True)
    found = quantizer(latents)
    (found.latents.square().sum() + sum(found.losses.values())).backward()
    assert latents.grad is not None and latents.grad.abs().sum() > 0
    assert latents.grad.isfinite().all()
    for name, parameter in quantizer.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
    assert all(loss.ndim == 0 and loss.isfinite() for loss in found.losses.values())


@pytest.mark.parametrize("kind", KINDS)
def test_arithmetic_is_float32_under_autocast(kind: str) -> None:
    quantizer, latents = small(kind).eval(), torch.randn(2, 4, 16, 16)
    expected = quantizer(latents)
    with torch.autocast("cpu", torch.bfloat16):
        found = quantizer(latents)
        assert torch.equal(quantizer.encode(latents), expected.codes)
    assert torch.equal(found.codes, expected.codes)
    assert found.latents.dtype == torch.float32
    assert {loss.dtype for loss in found.losses.values()} <= {torch.float32}


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_changes_nothing(kind: str) -> None:
    quantizer = small(kind, revive_after=1).eval()
    before = {name: tensor.clone() for name, tensor in quantizer.state_dict().items()}
    quantizer(torch.randn(1, 4, 8, 8))
    assert not quantizer.revive()
    assert all(torch.equal(tensor, before[name])
               for name, tensor in quantizer.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_not_taken_leaves_no_trace(kind: str) -> None:
    quantizer = small(kind, revive_after=1).train()
    before = {name: tensor.clone() for name, tensor in quantizer.state_dict().items()}
    quantizer(torch.randn(1, 4, 8, 8))
    quantizer.discard()
    assert not quantizer.revive()
    assert all(torch.equal(tensor, before[name])
               for name, tensor in quantizer.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
def test_training_goes_on_exactly_from_the_saved_state(kind: str) -> None:
    first, second = small(kind, revive_after=2).train(), small(kind, revive_after=2).train()
    batches = torch.randn(3, 2, 4, 4, 4)
    first(batches[0])
    first.revive()
    second.load_state_dict(first.state_dict())
    results = []
    for quantizer in (first, second):
        torch.manual_seed(3)
        codes = [quantizer(batch).codes for batch in batches[1:]]
        moved = {name: rows.tolist() for name, rows in quantizer.revive().items()}
        weights = {name: tensor.tolist() for name, tensor in quantizer.state_dict().items()}
        results.append((torch.stack(codes).tolist(), moved, weights))
    assert results[0] == results[1]


@pytest.mark.parametrize(("changes", "message"), [
    ({"kind": "golden"}, "kind of quantizer must be one of classic, cosine, .*, got 'golden'"),
    ({"codebook_size": 1}, "codebook_size must be at least 2, got 1"),
    ({"code_dim": 0}, "code_dim must be at least 1, got 0"),
    ({"beta": -0.5}, "beta must be at least 0, got -0.5"),
    ({"beta": float("nan")}, "beta must be at least 0, got nan"),
    ({"entropy_weight": float("inf")}, "entropy_weight must be at least 0 and finite, got inf"),
    ({"temperatures": (float("nan"), 1.0)}, r"temperatures must be more than 0, got \(nan, 1.0\)"),
    ({"decay": 1.0}, r"decay must lie in \(0, 1\), got 1.0"),
    ({"temperatures": (1.0, 0.0)}, r"temperatures must be more than 0, got \(1.0, 0.0\)"),
    ({"entropy_temperature": 0.0}, "entropy_temperature must be more than 0, got 0.0"),
    ({"depth": 2}, "depth is 2, but cosine has one code a cell"),
    ({"kind": "residual"}, "residual needs a depth of at least 2, got 1"),
    ({"kind": "fsq"}, r"fsq needs levels, .* got \(\)"),
    ({"kind": "fsq", "levels": (8, 2)}, r"each at least 3, .* got \(8, 2\); .* take kind lfq"),
    ({"kind": "fsq", "levels": (8, 8, 8), "code_dim": 3},
     r"levels \(8, 8, 8\) make codebook_size 512 and code_dim 3, got 1024 and 3"),
    ({"kind": "lfq", "code_dim": 8}, r"2\^code_dim codes, got codebook_size 1024 with code_dim 8"),
    ({"revive_after": -1}, "revive_after must be at least 0, got -1")])
def test_nonsense_is_refused_with_its_value(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QuantizerConfig(**changes)


@pytest.mark.parametrize("kind", KINDS)
def test_distances_go_with_the_codes_of_encode(kind: str) -> None:
    quantizer, latents = small(kind).eval(), torch.randn(2, 4, 3, 5)
    codes, distances = quantizer.encode_with_distances(latents)
    assert torch.equal(codes, quantizer.encode(latents))
    if distances is not None:
        assert distances.shape == (2, 2, *codes.shape[1:]) and distances.dtype == torch.float32
        assert (distances[:, 1] - distances[:, 0] > -1e-5).all() and distances.min() >= 0


@pytest.mark.parametrize("kind", ["classic", "cosine", "ema"])
def test_distances_are_those_to_the_code_s_entry_and_to_the_best_other(kind: str) -> None:
    quantizer, latents = small(kind).eval(), torch.randn(2, 4, 3, 5)
    distances = quantizer.encode_with_distances(latents)[1]
    assert distances is not None
    points = quantizer.place(latents.permute(0, 2, 3, 1)).double()
    codebook = quantizer.place(quantizer.embedding.weight).double()
    two = torch.cdist(points.flatten(0, 2), codebook).topk(2, largest=False).values
    torch.testing.assert_close(distances.permute(0, 2, 3, 1).reshape(-1, 2).double(), two,
                               atol=1e-5, rtol=1e-4)
