"""Tokenizers of diffusers, in and out: equal codes on every cell, both ways."""
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tokenizer import checkpoints
from tokenizer.codec import Codec
from tokenizer.importers.base import ImportOptions
from tokenizer.importers.diffusers import to_theirs
from tokenizer.importers.exporting import export_tokenizer
from tokenizer.importers.importing import import_tokenizer
from tokenizer.vqgan.autoencoder import AutoencoderConfig
from tokenizer.vqgan.model import KIND, VQGAN, VQGANConfig
from tokenizer.vqgan.quantizers import QuantizerConfig

diffusers = pytest.importorskip("diffusers")

SMALL: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
    "up_block_types": ("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
    "block_out_channels": (16, 48), "layers_per_block": 2, "latent_channels": 6, "vq_embed_dim": 4,
    "num_vq_embeddings": 40, "norm_num_groups": 8, "sample_size": 32}


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture
def pixels(drawn: Callable[..., np.ndarray]) -> np.ndarray:
    return np.stack([drawn(seed, 32, 32) for seed in range(4)])


def random_model(**changes: Any) -> Any:
    """A `VQModel` with random weights whose codes are many."""
    torch.manual_seed(0)
    model = diffusers.VQModel(**SMALL | changes).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.add_(0.2 * torch.randn(parameter.shape))
        elif parameter.ndim > 1:
            parameter.copy_(torch.randn(parameter.shape) * parameter[0].numel() ** -0.5)
    model.quantize.embedding.weight.copy_(torch.randn(model.quantize.embedding.weight.shape))
    return model


def codes_and_levels(model: Any, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What diffusers makes of images: codes ``(B, h, w)`` and grey levels."""
    inputs = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    latents = model.encode(inputs).latents
    codes = model.quantize(latents)[2][2].reshape(len(pixels), *latents.shape[2:]).numpy()
    levels = ((model.decode(latents).sample / 2 + 0.5).clamp(0, 1) * 255).round()
    return codes, levels.permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("changes", [
    {}, {"vq_embed_dim": None}, {"mid_block_add_attention": False}, {"norm_num_groups": 16},
    {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3,
     "block_out_channels": (32, 32, 64), "layers_per_block": 1}])
def test_codes_of_a_vq_model_are_equal_on_every_cell(tmp_path: Path, pixels: np.ndarray,
                                                     changes: dict[str, Any]) -> None:
    model = random_model(**changes)
    model.save_pretrained(tmp_path / "vq")
    report = import_tokenizer(str(tmp_path / "vq"), str(tmp_path / "tok"))
    codec, (codes, levels) = Codec.load(str(tmp_path / "tok")), codes_and_levels(model, pixels)
    found = codec.encode(pixels)
    assert len(np.unique(codes)) > 8
    assert int((found != codes).sum()) == 0
    assert np.abs(codec.decode(found) - levels).max() <= 1
    assert report.num_parameters == sum(parameter.numel() for parameter in model.parameters())


def test_a_folder_with_weights_in_half_precision_alone_is_read(tmp_path: Path,
                                                               pixels: np.ndarray) -> None:
    model = random_model().half()
    model.save_pretrained(tmp_path / "vq", variant="fp16")
    report = import_tokenizer(str(tmp_path / "vq"), str(tmp_path / "tok"))
    assert report.converted == report.num_tensors
    assert (Codec.load(str(tmp_path / "tok")).encode(pixels)
            == codes_and_levels(model.float(), pixels)[0]).all()


def test_names_of_attention_before_0_17_are_known(tmp_path: Path, pixels: np.ndarray) -> None:
    model = random_model()
    model.save_pretrained(tmp_path / "vq")
    file = tmp_path / "vq" / "diffusion_pytorch_model.safetensors"
    former = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = load_file(file)
    for new, old in former.items():
        state = {name.replace(f".{new}.", f".{old}."): tensor for name, tensor in state.items()}
    save_file(state, file)
    import_tokenizer(str(tmp_path / "vq"), str(tmp_path / "tok"))
    assert (Codec.load(str(tmp_path / "tok")).encode(pixels)
            == codes_and_levels(model, pixels)[0]).all()


def test_one_channel_is_depth(tmp_path: Path) -> None:
    random_model(in_channels=1, out_channels=1).save_pretrained(tmp_path / "vq")
    report = import_tokenizer(str(tmp_path / "vq"), str(tmp_path / "tok"))
    assert Codec.load(str(tmp_path / "tok")).spec.modality == "depth"
    assert "pixels are taken in [-1, 1]" in report.text()


@pytest.mark.parametrize(("options", "message"), [
    ({"input_range": (0.0, 1.0)}, "tokenizer of depth, whose inputs have their own; leave it out"),
    ({"stage": "condition"}, "is a tokenizer itself")])
def test_options_that_would_do_nothing_are_refused(tmp_path: Path, options: dict[str, Any],
                                                   message: str) -> None:
    random_model(in_channels=1, out_channels=1).save_pretrained(tmp_path / "vq")
    with pytest.raises(ValueError, match=message):
        import_tokenizer(str(tmp_path / "vq"), str(tmp_path / "tok"),
                         options=ImportOptions(**options))
    assert not (tmp_path / "tok").exists()


def test_the_range_of_pixels_may_be_said(tmp_path: Path, pixels: np.ndarray) -> None:
    model = random_model()
    model.save_pretrained(tmp_path / "vq")
    report = import_tokenizer(str(tmp_path / "vq"), str(tmp_path / "tok"),
                              options=ImportOptions(input_range=(0.0, 1.0), image_size=16))
    codec = Codec.load(str(tmp_path / "tok"))
    inputs = torch.from_numpy(pixels[:, :16, :16]).permute(0, 3, 1, 2).float() / 255
    codes = model.quantize(model.encode(inputs).latents)[2][2].numpy()
    assert (codec.encode(pixels[:, :16, :16]).reshape(-1) == codes).all()
    assert "pixels are taken in [0, 1]" in report.text()


@pytest.mark.parametrize(("changes", "message"), [
    ({"_class_name": "AutoencoderKL"}, "AutoencoderKL.*reads VQModel, which alone has a codebook"),
    ({"act_fn": "relu"}, "act_fn 'relu'; this program has silu and swish"),
    ({"norm_type": "spatial"}, "norm_type 'spatial'; this program has group"),
    ({"down_block_types": ["DownBlock3D"]}, "down_block_types DownBlock3D are not known"),
    ({"block_out_channels": [16, 64]}, r"block_out_channels \(16, 64\), the tensors.*\(16, 48\)"),
    ({"num_vq_embeddings": 41}, "num_vq_embeddings 41, the tensors of .* say 40"),
    ({"down_block_types": [["DownEncoderBlock2D"]]}, "down_block_types .* are not known"),
    ({"norm_num_groups": "many"}, "norm_num_groups 'many', which must be a number"),
    ({"sample_size": [32, "wide"]}, "sample_size 'wide', which must be a number"),
    ({"sample_size": [32]}, r"sample_size \[32\], which must be a number"),
    ({"sample_size": 33}, "multiples of 2")])
def test_what_cannot_be_expressed_is_refused(tmp_path: Path, changes: dict[str, Any],
                                             message: str) -> None:
    random_model().save_pretrained(tmp_path / "vq")
    path = tmp_path / "vq" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError, match=message):
        import_tokenizer(str(tmp_path / "vq"), str(tmp_path / "tok"), format_name="diffusers")
    assert not (tmp_path / "tok").exists()


def save_ours(folder: Path, kind: str = "classic", modality: dict[str, Any] | None = None,
              codebook_size: int = 64, **shape: Any) -> str:
    """A tokenizer of ours with random weights whose codes are many."""
    torch.manual_seed(1)
    settings: dict[str, Any] = {
        "width": 32, "channel_multipliers": (1, 2), "num_res_blocks": 1, "attention_levels": (1,),
        "latent_channels": 8, "norm_groups": 8, **shape}
    model = VQGAN(VQGANConfig(
        modality=modality or {"name": "image"}, image_size=(32, 32),
        autoencoder=AutoencoderConfig(**settings),
        quantizer=QuantizerConfig(kind=kind, codebook_size=codebook_size, code_dim=6)))
    weights = model.codec_weights()
    for tensor in weights.values():
        if tensor.ndim > 1:
            tensor.copy_(torch.randn(tensor.shape) * tensor[0].numel() ** -0.5)
    if kind == "classic":
        weights["quantize.embedding.weight"].mul_(3)
    checkpoints.save_config(str(folder), KIND, model.config)
    checkpoints.save_weights(str(folder), weights)
    return str(folder)


@pytest.mark.parametrize("kind", ["classic", "ema", "cosine"])
def test_diffusers_loads_our_tokenizer_with_equal_codes(tmp_path: Path, pixels: np.ndarray,
                                                        kind: str) -> None:
    ours = save_ours(tmp_path / "tok", kind)
    told = export_tokenizer(ours, str(tmp_path / "vq"))
    model, info = diffusers.VQModel.from_pretrained(tmp_path / "vq", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    codes, levels = codes_and_levels(model.eval(), pixels)
    codec = Codec.load(ours)
    found = codec.encode(pixels)
    assert len(np.unique(found)) > 8
    assert int((found != codes).sum()) == 0
    assert np.abs(codec.decode(found) - levels).max() <= 1
    assert "[-1, 1]" in told


@pytest.mark.parametrize(("modality", "words"), [
    ({"name": "image", "input_range": [0.0, 1.0]}, "its pixels lie in [0, 1]"),
    ({"name": "edges"}, "its pixels lie in [-1, 1]"),
    ({"name": "depth", "scaling": "standardised"}, "its pixels lie in [-8, 8]"),
    ({"name": "segmentation", "num_classes": 5},
     "its 5 channels are 1 where a pixel has the class, else 0, and its outputs are logits")])
def test_an_export_tells_what_the_network_takes(tmp_path: Path, modality: dict[str, Any],
                                                words: str) -> None:
    ours = save_ours(tmp_path / "tok", modality=modality)
    assert export_tokenizer(ours, str(tmp_path / "vq")).endswith(words)


def test_what_was_exported_comes_back_the_same(tmp_path: Path) -> None:
    ours = save_ours(tmp_path / "tok", middle_attention=False, attention_levels=())
    export_tokenizer(ours, str(tmp_path / "vq"))
    import_tokenizer(str(tmp_path / "vq"), str(tmp_path / "back"))
    before, after = (checkpoints.load_weights(str(tmp_path / name)) for name in ("tok", "back"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    configs = [checkpoints.load_config(str(tmp_path / name), KIND, VQGANConfig)
               for name in ("tok", "back")]
    assert configs[0].autoencoder == configs[1].autoencoder


@pytest.mark.parametrize(("changes", "message"), [
    ({"kind": "gumbel"}, "quantizer gumbel, whose code is not the nearest entry"),
    ({"patch": 4}, "the stem of 4 x 4 pixels"),
    ({"channel_multipliers": (2, 2)}, "2 times as many channels in the first level"),
    ({"norm_groups": 0, "width": 48}, r"norms with \[12, 32\] groups"),
    ({"design": "maskgit", "middle_attention": False, "attention_levels": ()},
     "the maskgit design")])
def test_what_diffusers_cannot_express_is_refused(tmp_path: Path, changes: dict[str, Any],
                                                  message: str) -> None:
    ours = save_ours(tmp_path / "tok", **changes)
    with pytest.raises(ValueError, match=f"VQModel cannot express {message}"):
        export_tokenizer(ours, str(tmp_path / "vq"))
    assert not (tmp_path / "vq").exists()


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown format 'tflite'; known are diffusers, onnx"):
        export_tokenizer(str(tmp_path), str(tmp_path / "out"), "tflite")


def test_our_names_become_theirs_one_by_one() -> None:
    assert to_theirs("decoder.up.3.attn.0.proj_out.bias", 5) == (
        "decoder.up_blocks.1.attentions.0.to_out.0.bias")
    assert to_theirs("encoder.mid.attn_1.norm.weight", 5) == (
        "encoder.mid_block.attentions.0.group_norm.weight")
    assert to_theirs("quant_conv.bias", 5) == "quant_conv.bias"
