"""Encoder and decoder: published sizes and names, sides, the pixel-unshuffle stem."""
import re
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from tokenizer.vqgan.autoencoder import DESIGNS, AutoencoderConfig, Decoder, Encoder


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def small(**changes: object) -> AutoencoderConfig:
    settings: dict = {"width": 8, "channel_multipliers": (1, 2), "num_res_blocks": 1,
                      "attention_levels": (), "latent_channels": 6, **changes}
    return AutoencoderConfig(**settings)


def published_names(side: str, config: AutoencoderConfig) -> Iterator[str]:
    """Modules with parameters of a published f16 encoder (``down``) or decoder (``up``)."""
    in_decoder = side == "up"
    yield from ("conv_in", "norm_out", "conv_out")
    block = ("norm1", "conv1", "norm2", "conv2")
    attention = ("norm", "q", "k", "v", "proj_out")
    yield from (f"mid.{name}.{part}" for name in ("block_1", "block_2") for part in block)
    yield from (f"mid.attn_1.{part}" for part in attention)
    for level in range(5):
        for index in range(3 if in_decoder else 2):
            yield from (f"{side}.{level}.block.{index}.{part}" for part in block)
        resized = level > 0 if in_decoder else level < 4
        if resized:
            yield f"{side}.{level}.{'upsample' if in_decoder else 'downsample'}.conv"
    for level in (1, 3) if in_decoder else (2, 4):
        yield f"{side}.{level}.block.0.nin_shortcut"
    for index in range(3 if in_decoder else 2):
        yield from (f"{side}.4.attn.{index}.{part}" for part in attention)


def test_the_default_is_the_published_f16_shape() -> None:
    with torch.device("meta"):
        encoder, decoder = Encoder(AutoencoderConfig(), 3), Decoder(AutoencoderConfig(), 3)
    assert num_parameters(encoder) == 29_298_176
    assert num_parameters(decoder) == 42_449_795


def test_parameters_are_named_as_published() -> None:
    config = AutoencoderConfig()
    with torch.device("meta"):
        models = {"down": Encoder(config, 3), "up": Decoder(config, 3)}
    for side, model in models.items():
        expected = {f"{name}.{part}" for name in published_names(side, config)
                    for part in ("weight", "bias")}
        assert set(model.state_dict()) == expected


@pytest.mark.parametrize(("multipliers", "patch", "factor"), [
    ((1,), 1, 1), ((1, 2), 1, 2), ((1, 1, 2), 1, 4), ((1, 2, 2, 4), 1, 8), ((1, 1, 2, 2, 4), 1, 16),
    ((1, 2), 4, 8), ((2,), 8, 8), ((1, 2, 3), 4, 16)])
def test_latents_are_smaller_by_the_downsampling_factor(multipliers: tuple[int, ...], patch: int,
                                                        factor: int) -> None:
    config = small(channel_multipliers=multipliers, patch=patch)
    latents = Encoder(config, 3)(torch.zeros(2, 3, 32, 48))
    assert config.downsampling == factor
    assert latents.shape == (2, 6, 32 // factor, 48 // factor)
    assert Decoder(config, 5)(latents).shape == (2, 5, 32, 48)


def test_the_stem_turns_each_square_into_channels_and_back() -> None:
    config = small(channel_multipliers=(1,), patch=4)
    encoder, decoder = Encoder(config, 3), Decoder(config, 3)
    assert encoder.conv_in.in_channels == decoder.conv_out.out_channels == 48
    seen: list[torch.Tensor] = []
    encoder.conv_in.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    image = torch.arange(3 * 8 * 8.0).reshape(1, 3, 8, 8)
    encoder(image)
    assert seen[0][0, :16, 0, 0].tolist() == image[0, 0, :4, :4].flatten().tolist()


def test_attention_sits_where_it_is_asked_for() -> None:
    names = Encoder(small(attention_levels=(1,)), 3).state_dict()
    assert "down.1.attn.0.q.weight" in names
    assert "down.0.attn.0.q.weight" not in names
    without = Encoder(small(middle_attention=False), 3).state_dict()
    assert not any("attn" in name for name in without)


def test_the_maskgit_design_has_its_published_tensors() -> None:
    config = small(design="maskgit", middle_attention=False, num_res_blocks=2)
    encoder, decoder = Encoder(config, 3).state_dict(), Decoder(config, 3).state_dict()
    assert not {"conv_in.bias", "down.0.downsample.conv.weight"} & set(encoder)
    assert encoder["conv_out.weight"].shape == (6, 16, 1, 1)
    assert {"conv_in.bias", "up.1.upsample.conv.bias", "conv_out.bias"} <= set(decoder)
    assert not [name for name in (*encoder, *decoder) if re.search(r"block.*conv\d\.bias", name)]
    for room, names in (("up", decoder), ("down", encoder)):
        assert {name.split(".")[3] for name in names if name.startswith(f"{room}.1.block.")
                } == {"0", "1"}


def test_the_maskgit_design_keeps_sides() -> None:
    config = small(design="maskgit", middle_attention=False)
    latents = Encoder(config, 3)(torch.zeros(2, 3, 16, 24))
    assert latents.shape == (2, 6, 8, 12)
    assert Decoder(config, 3)(latents).shape == (2, 3, 16, 24)


def test_norm_groups_are_the_same_everywhere_where_given() -> None:
    modules = [*Encoder(small(norm_groups=4, attention_levels=(1,)), 3).modules(),
               *Decoder(small(norm_groups=4), 3).modules()]
    assert {layer.num_groups for layer in modules if isinstance(layer, nn.GroupNorm)} == {4}


@pytest.mark.parametrize("design", DESIGNS)
def test_every_parameter_gets_a_gradient(design: str) -> None:
    attention = {"attention_levels": (0, 1)} if design == "vqgan" else {"middle_attention": False}
    config = small(patch=2, design=design, **attention)
    encoder, decoder = Encoder(config, 3), Decoder(config, 3)
    decoder(encoder(torch.randn(1, 3, 16, 16))).square().mean().backward()
    for name, parameter in [*encoder.named_parameters(), *decoder.named_parameters()]:
        assert parameter.grad is not None, name


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    encoder, image = Encoder(small(dropout=0.5), 3), torch.randn(1, 3, 16, 16)
    assert not torch.equal(encoder(image), encoder(image))
    encoder.eval()
    assert torch.equal(encoder(image), encoder(image))


@pytest.mark.parametrize(("changes", "message"), [
    ({"width": 0}, "width must be at least 1, got 0"),
    ({"num_res_blocks": 0}, "num_res_blocks must be at least 1, got 0"),
    ({"patch": 0}, "patch must be at least 1, got 0"),
    ({"channel_multipliers": ()}, r"channel_multipliers must be one or more .* got \(\)"),
    ({"channel_multipliers": (1, 0)}, r"at least 1, got \(1, 0\)"),
    ({"attention_levels": (2,)}, r"attention_levels must lie in \[0, 2\).* got \(2,\)"),
    ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
    ({"norm_groups": 3}, r"norm_groups must be 0 or divide .* \[8, 16\], got 3"),
    ({"norm_groups": -1}, "norm_groups must be 0 or divide .* got -1"),
    ({"design": "vit"}, "design must be one of vqgan, maskgit, got 'vit'"),
    ({"design": "maskgit"}, r"maskgit design has no attention.* got \(\) and True")])
def test_nonsense_is_refused_with_its_value(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**changes)
