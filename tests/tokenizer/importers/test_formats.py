"""Formats are told apart by their tensors; published sizes come out; misfits are refused."""
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_files import taming_config
from published import F16, LLAMAGEN, TAMING, Network, Shapes, layout, maskgit_layout, undrawn

from tokenizer.importers.base import ImportedTokenizer, ImportOptions, modality_settings
from tokenizer.importers.files import open_source
from tokenizer.importers.formats import IMPORTERS, choose_importer
from tokenizer.importers.importing import read_tensors
from tokenizer.importers.source import Source
from tokenizer.vqgan.model import VQGAN

NET = Network(blocks=1)
MASKGIT = Network(attention=(), middle_attention=False, z=6, code_dim=6)
VQ16 = replace(F16, code_dim=8, codes=16384)
VQ8 = replace(VQ16, multipliers=(1, 2, 2, 4), attention=(3,))
LDM = "ldm.models.autoencoder.VQModel"


def source(shapes: Shapes, settings: Mapping[str, Any] | None = None) -> Source:
    return Source("last.ckpt", undrawn(shapes), settings or {})


def convert(shapes: Shapes, settings: Mapping[str, Any] | None = None,
            **options: Any) -> ImportedTokenizer:
    found = source(shapes, settings)
    return choose_importer(found).convert(found, ImportOptions(**options))


def num_parameters(imported: ImportedTokenizer) -> int:
    with torch.device("meta"):
        model = VQGAN(imported.config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.codec_weights().items()}
    assert expected == {name: tensor.shape for name, tensor in imported.tensors.items()}
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("naming", "net", "expected"), [
    (TAMING, F16, 72_141_699), (TAMING, replace(F16, codes=16384), 76_073_859),
    (TAMING, replace(F16, channels=1), 72_137_089),
    (TAMING, replace(F16, channels=182), 72_554_294),
    (TAMING, replace(F16, channels=183), 72_556_599),
    (LLAMAGEN, VQ16, 71_883_403), (LLAMAGEN, VQ8, 70_109_835)])
def test_published_networks_have_their_number_of_parameters(naming: Any, net: Network,
                                                            expected: int) -> None:
    assert num_parameters(convert(layout(naming, net))) == expected


def test_the_published_f8_gumbel_network_is_expressed() -> None:
    net = replace(F16, multipliers=(1, 1, 2, 4), attention=(3,), codes=8192)
    shapes = layout(TAMING, net, gumbel=True)
    imported = convert(shapes)
    assert imported.config.grid == (32, 32)
    assert imported.config.quantizer.kind == "gumbel"
    assert num_parameters(imported) == sum(torch.Size(shape).numel() for shape in shapes.values())


@pytest.mark.parametrize(("net", "grid"), [
    (replace(F16, multipliers=(1, 2, 4), attention=(), z=3, code_dim=3, codes=8192), 64),
    (replace(F16, multipliers=(1, 2, 2, 4), attention=(3,), z=4, code_dim=4, codes=16384), 32),
    (replace(F16, z=8, code_dim=8, codes=16384), 16)])
def test_published_latent_diffusion_networks_are_expressed(net: Network, grid: int) -> None:
    settings = taming_config(net, LDM)
    settings["model"]["params"]["ddconfig"]["resolution"] = 256
    imported = convert(layout(TAMING, net), settings)
    assert imported.config.grid == (grid, grid)
    assert num_parameters(imported) > 50_000_000


def test_the_published_maskgit_network_is_expressed() -> None:
    net = replace(F16, attention=(), middle_attention=False)
    shapes = maskgit_layout(net)
    imported = convert(shapes)
    assert imported.config.modality["input_range"] == [0.0, 1.0]
    assert imported.config.grid == (16, 16)
    own = sum(torch.Size(shape).numel() for shape in shapes.values())
    assert num_parameters(imported) == own + 2 * (256 * 256 + 256)


@pytest.mark.parametrize(("name", "shapes", "settings"), [
    ("taming", layout(TAMING, NET), {}),
    ("taming", layout(TAMING, NET), taming_config(NET)),
    ("latent-diffusion", layout(TAMING, NET), taming_config(NET, LDM)),
    ("llamagen", layout(LLAMAGEN, NET), {}),
    ("maskgit", maskgit_layout(MASKGIT), {}),
    ("diffusers", {"encoder.down_blocks.0.resnets.0.norm1.weight": (8,)}, {})])
def test_formats_are_told_apart(name: str, shapes: Shapes, settings: dict[str, Any]) -> None:
    assert choose_importer(source(shapes, settings)).name == name


def test_every_importer_is_listed_by_its_name() -> None:
    assert all(importer.name == name and importer.description
               for name, importer in IMPORTERS.items())


def test_what_no_importer_knows_is_described() -> None:
    with pytest.raises(ValueError, match=r"none of taming, .*begins with a\.weight"):
        choose_importer(source({"a.weight": (3,)}))
    with pytest.raises(ValueError, match="unknown format 'vqgan'; known are taming"):
        choose_importer(source({}), "vqgan")
    with pytest.raises(ValueError, match=r"its config says ldm\.models\.autoencoder\.AutoencoderK"):
        choose_importer(source(layout(TAMING, NET),
                               taming_config(NET, "ldm.models.autoencoder.AutoencoderKL")))


@pytest.mark.parametrize(("place", "name", "value", "message"), [
    ("ddconfig", "ch", 64, "ch 64, the tensors of last.ckpt say 32"),
    ("ddconfig", "ch_mult", [1, 1, 2], r"ch_mult \(1, 1, 2\), the tensors of .* say \(1, 2\)"),
    ("ddconfig", "z_channels", 9, "z_channels 9"), ("ddconfig", "out_ch", 1, "out_ch 1"),
    ("ddconfig", "double_z", True, "double_z True; this program has False"),
    ("ddconfig", "tanh_out", True, "tanh_out True"),
    ("ddconfig", "resamp_with_conv", False, "resamp_with_conv False; this program has True"),
    ("ddconfig", "attn_type", "linear", "attn_type linear; this program has vanilla and none"),
    (None, "embed_dim", 5, "embed_dim 5, the tensors of last.ckpt say 4"),
    (None, "n_embed", 25, "n_embed 25")])
def test_a_config_of_another_model_is_refused(place: str | None, name: str, value: Any,
                                              message: str) -> None:
    settings = taming_config(NET)
    params = settings["model"]["params"]
    (params[place] if place else params)[name] = value
    with pytest.raises(ValueError, match=message):
        convert(layout(TAMING, NET), settings)


def test_the_quantizer_must_be_the_configs() -> None:
    with pytest.raises(ValueError, match="GumbelVQ, but the quantizer of .* is of kind classic"):
        convert(layout(TAMING, NET), taming_config(NET, "taming.models.vqgan.GumbelVQ"))


@pytest.mark.parametrize(("name", "value"), [
    ("hidden_channels", 64), ("channel_mult", [1, 2, 2]), ("num_embeddings", 7),
    ("resample_with_conv", False)])
def test_a_maskgit_config_of_another_model_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"config says {name}"):
        convert(maskgit_layout(MASKGIT), {"_class_name": "MaskGitVQGAN", name: value})


def test_maskgit_networks_of_one_block_a_level_are_refused() -> None:
    with pytest.raises(ValueError, match="2 residual blocks a level .* got 1 blocks"):
        convert(maskgit_layout(replace(MASKGIT, blocks=1)))


def test_dropout_and_resolution_are_the_configs() -> None:
    settings = taming_config(NET)
    settings["model"]["params"]["ddconfig"] |= {"dropout": 0.25, "resolution": 64}
    config = convert(layout(TAMING, NET), settings).config
    assert config.autoencoder.dropout == 0.25 and config.image_size == (64, 64)
    assert convert(layout(TAMING, NET), settings, image_size=96).config.image_size == (96, 96)


@pytest.mark.parametrize(("channels", "params", "modality"), [
    (1, {"image_key": "depth"}, "depth"), (3, {}, "image"), (3, {"n_labels": 3}, "segmentation"),
    (7, {"image_key": "segmentation"}, "segmentation"), (7, {"n_labels": 7}, "segmentation")])
def test_the_modality_is_that_of_channels_and_config(channels: int, params: dict[str, Any],
                                                     modality: str) -> None:
    net = replace(NET, channels=channels)
    config = convert(layout(TAMING, net), taming_config(net, **params)).config
    assert config.modality["name"] == modality


def test_channels_of_no_known_meaning_are_refused() -> None:
    net = replace(NET, channels=4)
    with pytest.raises(ValueError, match="inputs have 4 channels, and the config names neither"):
        convert(layout(TAMING, net), taming_config(net))


@pytest.mark.parametrize("shapes", [
    layout(TAMING, NET), layout(LLAMAGEN, NET), maskgit_layout(MASKGIT)])
def test_a_stage_of_what_is_no_prior_is_refused(shapes: Shapes) -> None:
    with pytest.raises(ValueError, match=r"last\.ckpt is a tokenizer itself, no checkpoint of a "
                                         r"prior with a stage 'condition'; leave the stage out"):
        convert(shapes, stage="condition")
    with pytest.raises(ValueError, match="is a tokenizer itself"):
        convert(layout(TAMING, NET), taming_config(NET), stage="condition")


@pytest.mark.parametrize(("channels", "params", "modality"), [
    (1, {}, "depth"), (7, {"n_labels": 7}, "segmentation")])
def test_a_range_of_pixels_is_for_images_alone(channels: int, params: dict[str, Any],
                                               modality: str) -> None:
    net = replace(NET, channels=channels)
    with pytest.raises(ValueError, match=rf"\(0\.0, 1\.0\) was given, but .* of {modality}, whose"):
        convert(layout(TAMING, net), taming_config(net, **params), input_range=(0.0, 1.0))


@pytest.mark.parametrize("shapes", [
    layout(TAMING, NET), layout(LLAMAGEN, NET), maskgit_layout(MASKGIT)])
def test_the_range_of_an_images_pixels_may_be_said(shapes: Shapes) -> None:
    config = convert(shapes, input_range=(-2.0, 2.0)).config
    assert config.modality == {"name": "image", "input_range": [-2.0, 2.0]}


def test_the_route_of_images_may_be_said_and_is_the_published_one_else() -> None:
    assert convert(layout(TAMING, NET)).config.modality == {"name": "image"}
    config = convert(layout(TAMING, NET), route="srgb").config
    assert config.modality == {"name": "image", "route": "srgb"}
    with pytest.raises(ValueError, match="route srgb was given, but .* of depth, which are no"):
        modality_settings("depth", ImportOptions(route="srgb"))


@pytest.mark.parametrize(("name", "value", "message"), [
    ("resolution", "large", "resolution 'large', which must be a number"),
    ("resolution", [256, 256], r"resolution \[256, 256\], which must be a number"),
    ("resolution", 0, "resolution 0, which must be a whole number from 1 to 65536"),
    ("resolution", 1e30, r"resolution 1e\+30, which must be a whole number"),
    ("resolution", float("nan"), "resolution nan, which must be a whole number"),
    ("dropout", {}, "dropout {}, which must be a number"),
    ("dropout", True, "dropout True, which must be a number")])
def test_a_config_of_nonsense_is_refused_with_its_value(name: str, value: object,
                                                        message: str) -> None:
    config = taming_config(NET)
    config["model"]["params"]["ddconfig"][name] = value
    for shapes, settings in ((layout(TAMING, NET), config),
                             (maskgit_layout(MASKGIT), {name: value})):
        with pytest.raises(ValueError, match=f"the config says {message}"):
            convert(shapes, settings)


def test_settings_that_are_no_settings_are_refused_and_none_are_none() -> None:
    with pytest.raises(ValueError, match="ddconfig 'f16', which must be settings by name"):
        convert(layout(TAMING, NET), taming_config(NET, ddconfig="f16"))
    empty = taming_config(NET)
    empty["model"]["params"]["ddconfig"] |= {"resolution": None, "dropout": None}
    assert convert(layout(TAMING, NET), empty).config.image_size == (256, 256)


@pytest.mark.parametrize("shape", [(), (32,), (0, 3, 3, 3), (32, 3, 3, 3, 1)])
@pytest.mark.parametrize("name", ["encoder.conv_in.weight", "decoder.conv_out.weight",
                                  "encoder.down.1.block.0.conv1.weight",
                                  "quantize.embedding.weight"])
def test_tensors_of_no_convolution_are_refused_with_their_shape(name: str,
                                                                shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"{name} is {re.escape(str(shape))}, where [24] dim"):
        convert(layout(TAMING, NET) | {name: shape})


def test_widths_that_are_no_multiples_are_refused() -> None:
    shapes = layout(TAMING, NET)
    shapes["encoder.down.1.block.0.conv1.weight"] = (48, 32, 3, 3)
    with pytest.raises(ValueError, match="level 1 has 48 channels, no multiple of the 32"):
        convert(shapes)


def refusal_of(shapes: Shapes) -> str:
    """The message of an import of these tensors."""
    found = source(shapes)
    with pytest.raises(ValueError) as caught:
        read_tensors(found, choose_importer(found).convert(found, ImportOptions()))
    return str(caught.value)


def test_missing_surplus_and_misshapen_tensors_are_named() -> None:
    shapes = layout(TAMING, NET)
    del shapes["decoder.mid.block_1.conv1.bias"]
    shapes["decoder.extra.weight"] = (1,)
    shapes["post_quant_conv.bias"] = (7,)
    message = refusal_of(shapes)
    assert "1 missing: decoder.mid.block_1.conv1.bias" in message
    assert "1 surplus: decoder.extra.weight" in message
    assert "1 of another shape: post_quant_conv.bias is (7,), not (6,)" in message


def test_other_quantizers_of_the_same_layout_are_refused() -> None:
    shapes = layout(TAMING, NET)
    del shapes["quantize.embedding.weight"]
    with pytest.raises(ValueError, match=r"no tensor quantize\.embedding\.weight"):
        convert(shapes)


@pytest.mark.parametrize("wrapper", ["", "module.", "_orig_mod.", "module._orig_mod.",
                                     "_orig_mod.module."])
def test_what_compiled_and_distributed_models_put_before_all_names_is_taken_off(
        tmp_path: Path, wrapper: str) -> None:
    names = {"encoder.conv_in.weight", "module.weight"}
    torch.save({"model": {f"{wrapper}{name}": torch.zeros(1) for name in names}},
               tmp_path / "vq.pt")
    assert set(open_source(str(tmp_path / "vq.pt")).tensors) == names


def test_a_stage_is_first_or_condition() -> None:
    with pytest.raises(ValueError, match="stage must be first or condition, got 'second'"):
        ImportOptions(stage="second")
