"""Every kind of quantizer has a range, and codes that its latents lead back to."""
import pytest
import torch

from clip_guidance.latents import LatentSpace
from tokenizer.vqgan.quantizers import QUANTIZERS, Quantizer, QuantizerConfig, build_quantizer

SETTINGS = {"fsq": {"codebook_size": 60, "code_dim": 3, "levels": (5, 4, 3)},
            "lfq": {"codebook_size": 64, "code_dim": 6}, "residual": {"depth": 3}}


def quantizer(kind: str) -> Quantizer:
    torch.manual_seed(0)
    settings = {"codebook_size": 64, "code_dim": 4, **SETTINGS.get(kind, {})}
    return build_quantizer(QuantizerConfig(kind=kind, **settings)).eval().requires_grad_(False)


def some_codes(space: LatentSpace, kind: str, num: int = 2) -> torch.Tensor:
    shape = (num, 3, 4, 5) if kind == "residual" else (num, 4, 5)
    return torch.randint(0, 60, shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_the_latents_of_codes_lie_in_the_range_and_have_its_spread(kind: str) -> None:
    space = LatentSpace(quantizer(kind))
    latents = space.latents(some_codes(space, kind, num=200))
    spread = latents.transpose(0, 1).flatten(1)
    assert (spread.amin(1) >= space.low - 1e-6).all()
    assert (spread.amax(1) <= space.high + 1e-6).all()
    torch.testing.assert_close(spread.std(1), space.scale, rtol=0.1, atol=1e-6)


@pytest.mark.parametrize("kind", [kind for kind in QUANTIZERS if kind != "residual"])
def test_codes_are_the_nearest_to_their_own_latents(kind: str) -> None:
    space = LatentSpace(quantizer(kind))
    codes = some_codes(space, kind)
    latents = space.latents(codes)
    assert torch.equal(space.codes(latents), codes)
    assert torch.equal(space.codes(latents + 0.01 * space.scale[:, None, None]), codes)


def test_residual_codes_are_those_that_the_tokenizer_would_give() -> None:
    residual = quantizer("residual")
    latents = torch.randn(1, 4, 4, 5) * 0.01
    assert torch.equal(LatentSpace(residual).codes(latents), residual.encode(latents))


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_what_leaves_the_range_is_brought_to_its_edge(kind: str) -> None:
    space = LatentSpace(quantizer(kind))
    latents = torch.stack([torch.full((2, 2), 99.0)] * len(space.low))[None]
    space.clamp_(latents)
    torch.testing.assert_close(latents[0, :, 0, 0], space.high)
    space.clamp_(latents.mul_(-9e9 * latents.sign()))
    torch.testing.assert_close(latents[0, :, 1, 1], space.low)


@pytest.mark.parametrize("num_used", [512, 40])
def test_entries_that_training_left_on_one_spot_do_not_silence_a_prior(num_used: int) -> None:
    """Most entries of published codebooks are such; used ones must still feel each other."""
    generator = torch.Generator().manual_seed(0)
    classic = build_quantizer(QuantizerConfig(kind="classic", codebook_size=512, code_dim=16))
    entries = classic.get_parameter("embedding.weight").requires_grad_(False)
    entries[:num_used] = torch.randn(num_used, 16, generator=generator)
    space = LatentSpace(classic.eval())
    codes = torch.randint(0, num_used, (1, 4, 4), generator=generator)
    gains = torch.randn(1, 1, 4, 4, 512, generator=generator)
    ascent = space.ascent(space.latents(codes), codes, gains)
    lengths = ascent.norm(dim=1)
    assert 1e-3 < lengths.median() < 1


def test_more_entries_than_can_be_searched_are_refused() -> None:
    config = QuantizerConfig(kind="lfq", codebook_size=1 << 20, code_dim=20)
    with pytest.raises(ValueError, match=r"1048576 codes \(lfq\); guidance .* most 262144"):
        LatentSpace(build_quantizer(config))
