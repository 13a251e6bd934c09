"""The VQGAN as one model: published sizes, names, and weights that decide codes."""
from typing import Any

import pytest
import torch

from tokenizer import configs
from tokenizer.vqgan.autoencoder import AutoencoderConfig
from tokenizer.vqgan.model import VQGAN, VQGANConfig
from tokenizer.vqgan.quantizers import QuantizerConfig

SETTINGS: list[dict[str, Any]] = [{"name": "image"}, {"name": "depth"},
                                  {"name": "segmentation", "num_classes": 5}]


def published(modality: dict[str, Any], codebook_size: int = 1024) -> VQGAN:
    config = VQGANConfig(modality=modality, quantizer=QuantizerConfig(
        kind="classic", codebook_size=codebook_size, code_dim=256))
    with torch.device("meta"):
        return VQGAN(config)


def small_config(modality: dict[str, Any] | None = None, **quantizer: Any) -> VQGANConfig:
    return VQGANConfig(
        modality=modality or {"name": "image"}, image_size=(16, 24),
        autoencoder=AutoencoderConfig(width=8, channel_multipliers=(1, 2), num_res_blocks=1,
                                      attention_levels=(), latent_channels=6, patch=2),
        quantizer=QuantizerConfig(**{"codebook_size": 16, "code_dim": 4, **quantizer}))


def small(modality: dict[str, Any] | None = None) -> VQGAN:
    torch.manual_seed(0)
    return VQGAN(small_config(modality))


@pytest.mark.parametrize(("modality", "codebook_size", "expected"), [
    ({"name": "image"}, 1024, 72_141_699),
    ({"name": "image"}, 16384, 76_073_859),
    ({"name": "depth"}, 1024, 72_137_089),
    ({"name": "segmentation", "num_classes": 182}, 1024, 72_554_294),
    ({"name": "segmentation", "num_classes": 183}, 1024, 72_556_599)])
def test_published_models_have_their_number_of_parameters(
        modality: dict[str, Any], codebook_size: int, expected: int) -> None:
    model = published(modality, codebook_size)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_only_names_of_the_published_model_decide_codes() -> None:
    model = published({"name": "image"})
    rest = {name: tuple(tensor.shape) for name, tensor in model.codec_weights().items()
            if not name.startswith(("encoder.", "decoder."))}
    assert rest == {"quantize.embedding.weight": (1024, 256),
                    "quant_conv.weight": (256, 256, 1, 1), "quant_conv.bias": (256,),
                    "post_quant_conv.weight": (256, 256, 1, 1), "post_quant_conv.bias": (256,)}


@pytest.mark.parametrize("modality", SETTINGS)
def test_every_modality_passes_through(modality: dict[str, Any]) -> None:
    model = small(modality)
    channels = {"image": 3, "depth": 1, "segmentation": 5}[modality["name"]]
    inputs = torch.randn(2, channels, 16, 24)
    outputs, quantized = model(inputs)
    assert outputs.shape == inputs.shape
    assert quantized.codes.shape == (2, *model.config.grid) == (2, 4, 6)


def test_decoding_codes_gives_what_forward_gives() -> None:
    model, inputs = small().eval(), torch.randn(2, 3, 16, 24)
    outputs, quantized = model(inputs)
    assert torch.equal(model.encode(inputs), quantized.codes)
    torch.testing.assert_close(model.decode(quantized.codes), outputs)


def test_all_losses_reach_every_parameter() -> None:
    model = small()
    outputs, quantized = model(torch.randn(2, 3, 16, 24))
    (outputs.square().mean() + sum(quantized.losses.values())).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_last_layer_is_the_weight_before_the_outputs() -> None:
    model = small()
    assert model.last_layer is model.decoder.conv_out.weight


def test_a_few_steps_of_training_lower_the_error_and_revive_codes() -> None:
    model = small().train()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    inputs, errors, num_revived = torch.rand(4, 3, 1, 1) * torch.ones(4, 3, 16, 24), [], 0
    for _ in range(30):
        outputs, quantized = model(inputs)
        error = (outputs - inputs).abs().mean()
        (error + sum(quantized.losses.values())).backward()
        optimizer.step()
        optimizer.zero_grad()
        num_revived += len(model.revive())
        errors.append(error.item())
    assert errors[-1] < 0.5 * errors[0]
    assert num_revived


def test_the_model_comes_back_from_its_codec_weights() -> None:
    model, inputs = small().eval(), torch.randn(2, 3, 16, 24)
    for weights in (model.codec_weights(), model.state_dict()):
        loaded = VQGAN.from_weights(model.config, weights)
        assert not loaded.training
        assert torch.equal(loaded.encode(inputs), model.encode(inputs))
        assert not any(tensor.is_meta for tensor in loaded.state_dict().values())


def test_half_precision_weights_are_loaded_as_float32() -> None:
    weights = {name: tensor.half() for name, tensor in small().codec_weights().items()}
    loaded = VQGAN.from_weights(small_config(), weights)
    assert {tensor.dtype for tensor in loaded.parameters()} == {torch.float32}


def test_loading_draws_no_random_numbers() -> None:
    weights = small().codec_weights()
    before = torch.get_rng_state()
    VQGAN.from_weights(small_config(), weights)
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_of_another_model_are_refused_by_name() -> None:
    weights = small().codec_weights()
    with pytest.raises(ValueError, match=r"embedding.weight is \(16, 4\) in .* \(32, 4\) by the"):
        VQGAN.from_weights(small_config(codebook_size=32), weights)
    del weights["quant_conv.bias"]
    with pytest.raises(ValueError, match=r"quant_conv.bias is no such tensor in .* \(4,\) by"):
        VQGAN.from_weights(small_config(), weights)


def test_a_config_comes_back_from_json() -> None:
    config = small_config({"name": "segmentation", "num_classes": 5})
    assert configs.from_dict(VQGANConfig, configs.to_dict(config)) == config


@pytest.mark.parametrize(("changes", "message"), [
    ({"image_size": (250, 256)}, r"multiples of 16 \(patch 1, 5 levels\), got \(250, 256\)"),
    ({"image_size": (0, 256)}, r"image_size must be multiples of 16 .* got \(0, 256\)"),
    ({"modality": {"name": "smell"}}, "unknown modality 'smell'"),
    ({"modality": {"name": "segmentation"}}, "num_classes is missing")])
def test_nonsense_is_refused_with_its_value(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VQGANConfig(**changes)
