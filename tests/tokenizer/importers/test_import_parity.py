"""Imported tokenizers give the published codes on every cell, and images to one grey level."""
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from checkpoint_files import taming_config
from published import (
    LLAMAGEN,
    TAMING,
    Naming,
    Network,
    State,
    conv,
    draw,
    entries_of,
    image_of,
    latents_of,
    layout,
    maskgit_layout,
    maskgit_naming,
    nearest,
)
from published_files import write_lightning, write_llamagen, write_yaml
from safetensors.torch import save_file
from torch import Tensor

from tokenizer.codec import Codec
from tokenizer.importers.base import ImportOptions
from tokenizer.importers.importing import import_tokenizer
from tokenizer.importers.report import ParityReport

NUM_IMAGES, SIDE = 4, 32
MASKGIT = Network(multipliers=(1, 2), attention=(), middle_attention=False, z=6, code_dim=6)


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture
def pixels(drawn: Callable[..., np.ndarray]) -> np.ndarray:
    """``(4, 32, 32, 3)`` uint8."""
    return np.stack([drawn(seed, SIDE, SIDE) for seed in range(NUM_IMAGES)])


def to_inputs(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_levels(outputs: Tensor) -> np.ndarray:
    """Outputs in [-1, 1] as grey levels, cut off as published."""
    return ((outputs + 1) * 127.5).clamp(0, 255).permute(0, 2, 3, 1).numpy().astype(np.uint8)


def assert_same(out: Path, pixels: np.ndarray, codes: Tensor, levels: np.ndarray) -> None:
    """No cell of the imported tokenizer differs, and no level by more than 1."""
    codec = Codec.load(str(out))
    found = codec.encode(pixels)
    assert len(np.unique(codes)) > 4  # a constant would be equal for nothing
    assert int((found != codes.numpy()).sum()) == 0
    assert found.size == NUM_IMAGES * SIDE * SIDE // 4
    assert np.abs(codec.decode(found).astype(int) - levels).max() <= 1


def published(state: State, naming: Naming, net: Network,
              pixels: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """Codes and images of the classic published tokenizer."""
    codes = nearest(latents_of(state, naming, net, to_inputs(pixels)),
                    state["quantize.embedding.weight"])
    entries = entries_of(state["quantize.embedding.weight"], codes)
    return codes, to_levels(image_of(state, naming, net, entries))


def with_training(state: State) -> State:
    """The state with what taming keeps beside the network."""
    return {**state, "loss.perceptual_loss.lin0.model.1.weight": torch.zeros(1, 2, 1, 1),
            "loss.discriminator.main.0.weight": torch.zeros(2), "colorize": torch.zeros(3, 5, 1, 1)}


@pytest.mark.parametrize("net", [Network(), Network(middle_attention=False, attention=()),
                                 Network(multipliers=(2, 1), blocks=1, attention=(0, 1))])
def test_taming(tmp_path: Path, pixels: np.ndarray, net: Network) -> None:
    state = draw(layout(TAMING, net))
    file = write_lightning(tmp_path / "last.ckpt", with_training(state))
    config = write_yaml(tmp_path / "model.yaml", taming_config(net))
    report = import_tokenizer(file, str(tmp_path / "tok"), config=config)
    assert_same(tmp_path / "tok", pixels, *published(state, TAMING, net, pixels))
    assert report.num_parameters == sum(tensor.numel() for tensor in state.values())
    assert report.dropped == {"colorize": 1, "loss": 2}


def test_latent_diffusion(tmp_path: Path, pixels: np.ndarray) -> None:
    net = Network(z=3, code_dim=3, attention=(), codes=64)
    state = draw(layout(TAMING, net), seed=1)
    settings = taming_config(net, "ldm.models.autoencoder.VQModelInterface")
    folder = tmp_path / "vq-f4"
    folder.mkdir()
    write_lightning(folder / "model.ckpt", state)
    write_yaml(folder / "config.yaml", settings)
    report = import_tokenizer(str(folder), str(tmp_path / "tok"))
    assert "latent-diffusion" in report.format
    assert_same(tmp_path / "tok", pixels, *published(state, TAMING, net, pixels))


def test_the_first_stage_of_a_prior(tmp_path: Path, pixels: np.ndarray) -> None:
    net = Network()
    state = draw(layout(TAMING, net), seed=2)
    inside = {f"first_stage_model.{name}": tensor for name, tensor in state.items()}
    file = write_lightning(tmp_path / "prior.ckpt",
                           {**inside, "transformer.pos_emb": torch.zeros(1, 4, 8)})
    config = {"model": {"target": "taming.models.cond_transformer.Net2NetTransformer",
                        "params": {"first_stage_config": taming_config(net)["model"],
                                   "cond_stage_config": "__is_unconditional__"}}}
    written = write_yaml(tmp_path / "project.yaml", config)
    report = import_tokenizer(file, str(tmp_path / "tok"), config=written)
    assert_same(tmp_path / "tok", pixels, *published(state, TAMING, net, pixels))
    assert report.dropped == {"not of first_stage_model": 1}
    with pytest.raises(ValueError, match="no tokenizer as cond_stage_config.*unconditional"):
        import_tokenizer(file, str(tmp_path / "other"), config=written,
                         options=ImportOptions(stage="condition"))


def test_both_stages_of_a_prior_without_a_config(tmp_path: Path, pixels: np.ndarray) -> None:
    net, depth_net = Network(), Network(channels=1, blocks=1)
    state, depth = draw(layout(TAMING, net)), draw(layout(TAMING, depth_net), seed=1)
    file = write_lightning(tmp_path / "prior.ckpt", {
        **{f"first_stage_model.{name}": tensor for name, tensor in state.items()},
        **{f"cond_stage_model.{name}": tensor for name, tensor in depth.items()}})
    for stage in ("first", "condition"):
        import_tokenizer(file, str(tmp_path / stage),
                         options=ImportOptions(stage=stage, image_size=SIDE))
    assert_same(tmp_path / "first", pixels, *published(state, TAMING, net, pixels))
    assert Codec.load(str(tmp_path / "condition")).spec.modality == "depth"


def test_a_folder_of_a_run_is_found_its_way_in(tmp_path: Path, pixels: np.ndarray) -> None:
    net, run = Network(), tmp_path / "2021-01-20T16-54-28_run"
    state = draw(layout(TAMING, net))
    for room in ("checkpoints", "configs"):
        (run / room).mkdir(parents=True)
    write_lightning(run / "checkpoints" / "last.ckpt", state)
    write_yaml(run / "configs" / "2021-01-20T16-54-28-project.yaml", taming_config(net))
    write_yaml(run / "configs" / "2021-01-20T16-54-28-lightning.yaml", {"trainer": {}})
    import_tokenizer(str(run), str(tmp_path / "tok"))
    assert_same(tmp_path / "tok", pixels, *published(state, TAMING, net, pixels))


@pytest.mark.parametrize("remap", [False, True])
def test_gumbel(tmp_path: Path, pixels: np.ndarray, remap: bool) -> None:
    net = Network(code_dim=6)
    state = draw(layout(TAMING, net, gumbel=True), seed=3)
    used = torch.tensor([7, 3, 20, 11, 0, 19, 5, 2])
    config = taming_config(net, "taming.models.vqgan.GumbelVQ", kl_weight=1e-8)
    file = write_lightning(tmp_path / "last.ckpt", {**state, "quantize.used": used} if remap
                           else state)
    report = import_tokenizer(file, str(tmp_path / "tok"),
                              config=write_yaml(tmp_path / "model.yaml", config))
    latents = latents_of(state, TAMING, net, to_inputs(pixels))
    logits = conv(state, "quantize.proj", latents)
    codes = logits[:, used].argmax(1) if remap else logits.argmax(1)
    entries = entries_of(state["quantize.embed.weight"], used[codes] if remap else codes)
    assert_same(tmp_path / "tok", pixels, codes,
                to_levels(image_of(state, TAMING, net, entries)))
    assert ("8 of 24 entries" in report.text()) == remap
    assert "published model adds noise" in report.text()


def test_remapped_codes_are_those_of_the_remapped_model(tmp_path: Path,
                                                        pixels: np.ndarray) -> None:
    net = Network()
    state = draw(layout(TAMING, net), seed=4)
    codes, levels = published(state, TAMING, net, pixels)
    used = codes.unique().flip(0)  # what occurred, in an order of its own
    file = write_lightning(tmp_path / "last.ckpt", {**state, "quantize.used": used})
    import_tokenizer(file, str(tmp_path / "tok"), config=write_yaml(
        tmp_path / "model.yaml", taming_config(net, remap="used.npy")))
    renumbered = (codes[..., None] == used).long().argmax(-1)
    assert_same(tmp_path / "tok", pixels, renumbered, levels)
    assert Codec.load(str(tmp_path / "tok")).spec.codebook_size == len(used) < net.codes


@pytest.mark.parametrize("used", [[0, 24], [-1, 3]])
def test_remapped_codes_that_number_no_entry_are_refused(tmp_path: Path, used: list[int]) -> None:
    state = {**draw(layout(TAMING, Network())), "quantize.used": torch.tensor(used)}
    file = write_lightning(tmp_path / "last.ckpt", state)
    with pytest.raises(ValueError, match=rf"quantize.used numbers entries from {min(used)} to "
                                         rf"{max(used)}, of 24 that there are"):
        import_tokenizer(file, str(tmp_path / "tok"))
    assert not (tmp_path / "tok").exists()


@pytest.mark.parametrize(("key", "multipliers"), [("ema", (1, 2)), ("model", (2, 1, 1))])
def test_llamagen(tmp_path: Path, pixels: np.ndarray, key: str,
                  multipliers: tuple[int, ...]) -> None:
    net = Network(multipliers=multipliers, attention=(len(multipliers) - 1,), z=16, code_dim=8)
    state = draw(layout(LLAMAGEN, net), seed=5)
    other = {"model": {"encoder.conv_in.weight": torch.zeros(1)}} if key == "ema" else {}
    file = write_llamagen(tmp_path / "vq.pt", {**state, "quantize.codebook_used": torch.zeros(9)},
                          key, **other)
    report = import_tokenizer(file, str(tmp_path / "tok"), options=ImportOptions(image_size=SIDE))
    codebook = F.normalize(state["quantize.embedding.weight"], dim=1)
    latents = F.normalize(latents_of(state, LLAMAGEN, net, to_inputs(pixels)), dim=1)
    codes = nearest(latents, codebook)
    images = image_of(state, LLAMAGEN, net, entries_of(codebook, codes))
    levels = (127.5 * images + 128).clamp(0, 255).permute(0, 2, 3, 1).numpy().astype(np.uint8)
    codec = Codec.load(str(tmp_path / "tok"))
    assert len(codes.unique()) > 4
    assert int((codec.encode(pixels) != codes.numpy()).sum()) == 0
    assert np.abs(codec.decode(codes.numpy()).astype(int) - levels).max() <= 1
    assert report.part == key and report.dropped == {"quantize.codebook_used": 1}
    assert "argparse.Namespace" in report.ignored


@pytest.mark.parametrize("net", [MASKGIT, Network(multipliers=(2, 2), attention=(), z=6, code_dim=6,
                                                  middle_attention=False)])
def test_maskgit(tmp_path: Path, pixels: np.ndarray, net: Network) -> None:
    state = draw(maskgit_layout(net), seed=6)
    state["decoder.conv_out.bias"] += 0.5  # grey is in the middle of [0, 1]
    folder = tmp_path / "maskgit"
    folder.mkdir()
    torch.save(state, folder / "pytorch_model.bin")
    write_yaml(folder / "config.yaml", {
        "_class_name": "MaskGitVQGAN", "resolution": SIDE, "hidden_channels": net.width,
        "channel_mult": list(net.multipliers), "num_res_blocks": 2, "z_channels": net.z,
        "num_embeddings": net.codes, "quantized_embed_dim": net.code_dim})
    report = import_tokenizer(str(folder), str(tmp_path / "tok"))
    codebook = state["quantize.embedding.weight"]
    inputs = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    codes = nearest(latents_of(state, maskgit_naming(), net, inputs, maskgit=True), codebook)
    images = image_of(state, maskgit_naming(), net, entries_of(codebook, codes), maskgit=True)
    levels = (images.clamp(0, 1) * 255).permute(0, 2, 3, 1).numpy().astype(np.uint8)
    assert_same(tmp_path / "tok", pixels, codes, levels)
    own = sum(tensor.numel() for tensor in state.values())
    assert report.num_parameters == own + 2 * (net.z ** 2 + net.z)


def one_channel(tmp_path: Path) -> tuple[State, Network, ParityReport]:
    net = Network(channels=1)
    state = draw(layout(TAMING, net), seed=7)
    file = write_lightning(tmp_path / "last.ckpt", state)
    config = write_yaml(tmp_path / "model.yaml", taming_config(net, image_key="depth"))
    return state, net, import_tokenizer(file, str(tmp_path / "tok"), config=config)


def test_depth_of_one_channel(tmp_path: Path, pixels: np.ndarray) -> None:
    state, net, report = one_channel(tmp_path)
    depth = pixels[..., 0].astype(np.uint16) * 257
    inputs = torch.from_numpy(depth.astype(np.float32))[:, None] / 32767.5 - 1
    codes, _ = published_of(state, net, inputs)
    codec = Codec.load(str(tmp_path / "tok"))
    assert codec.spec.modality == "depth" and "depth" in report.network
    assert int((codec.encode(depth) != codes.numpy()).sum()) == 0


def published_of(state: State, net: Network, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Codes and outputs of the classic published tokenizer for any inputs."""
    codebook = state["quantize.embedding.weight"]
    codes = nearest(latents_of(state, TAMING, net, inputs), codebook)
    return codes, image_of(state, TAMING, net, entries_of(codebook, codes))


def test_segmentation(tmp_path: Path) -> None:
    net = Network(channels=9)
    state = draw(layout(TAMING, net), seed=8)
    file = write_lightning(tmp_path / "last.ckpt", {**state, "colorize": torch.zeros(3, 9, 1, 1)})
    config = taming_config(net, "taming.models.vqgan.VQSegmentationModel", n_labels=9)
    import_tokenizer(file, str(tmp_path / "tok"),
                     config=write_yaml(tmp_path / "model.yaml", config))
    labels = np.random.default_rng(0).integers(0, 9, (4, 8, 8)).repeat(4, 1).repeat(4, 2)
    inputs = F.one_hot(torch.from_numpy(labels), 9).permute(0, 3, 1, 2).float()
    codes, outputs = published_of(state, net, inputs)
    codec = Codec.load(str(tmp_path / "tok"))
    assert codec.spec.preprocessing["num_classes"] == 9
    assert codec.spec.preprocessing["loss"] == "bce"
    assert int((codec.encode(labels.astype(np.uint8)) != codes.numpy()).sum()) == 0
    assert (codec.decode(codes.numpy()) == outputs.argmax(1).numpy()).all()


def test_safetensors_in_half_precision_become_float32(tmp_path: Path, pixels: np.ndarray) -> None:
    net = Network()
    state = {name: tensor.half() for name, tensor in draw(layout(TAMING, net)).items()}
    save_file(state, tmp_path / "model.safetensors")
    report = import_tokenizer(str(tmp_path / "model.safetensors"), str(tmp_path / "tok"),
                              options=ImportOptions(image_size=SIDE))
    whole = {name: tensor.float() for name, tensor in state.items()}
    assert_same(tmp_path / "tok", pixels, *published(whole, TAMING, net, pixels))
    assert report.converted == len(state) and "no config was given" in report.text()
