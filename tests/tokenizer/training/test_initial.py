"""A training that starts from a trained tokenizer: its weights, its codes, and where it is from."""
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tokenizer import checkpoints
from tokenizer.training.config import TrainingConfig
from tokenizer.training.initial import check_initial
from tokenizer.training.loop import train_tokenizer
from tokenizer.training.optim import OptimizerConfig
from tokenizer.training.processes import build_accelerator
from tokenizer.training.state import TrainingState
from tokenizer.training.steps import train_step
from tokenizer.vqgan.model import KIND, VQGAN, VQGANConfig
from tokenizer.vqgan.quantizers import QUANTIZERS, QuantizerConfig, build_quantizer

Folder = Callable[[int], Path]
Model = Callable[..., VQGANConfig]
Training = Callable[..., TrainingConfig]

SIZES: dict[str, dict[str, Any]] = {
    "lfq": {"codebook_size": 16, "code_dim": 4}, "fsq": {"levels": (4, 4), "code_dim": 2},
    "residual": {"depth": 2}}
REVIVED = ("classic", "cosine", "ema", "residual")


def with_quantizer(config: VQGANConfig, kind: str, **settings: Any) -> VQGANConfig:
    quantizer = dataclasses.replace(config.quantizer, kind=kind, **SIZES.get(kind, {}), **settings)
    return dataclasses.replace(config, quantizer=quantizer)


def save(folder: Path, config: VQGANConfig, seed: int = 7) -> dict[str, torch.Tensor]:
    """A tokenizer of random weights with spread entries; returns its weights."""
    torch.manual_seed(seed)
    weights = VQGAN(config).codec_weights()
    for name in [name for name in weights if name.endswith("embedding.weight")]:
        weights[name] = torch.randn_like(weights[name]) * 3
    checkpoints.save_config(str(folder), KIND, config)
    checkpoints.save_weights(str(folder), weights)
    return weights


def fresh_state(config: VQGANConfig, training: TrainingConfig) -> TrainingState:
    return TrainingState(config, training, build_accelerator(training))


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_before_the_first_step_it_is_that_tokenizer(tmp_path: Path, model: Model,
                                                    training: Training, kind: str) -> None:
    config = with_quantizer(model(), kind)
    weights = save(tmp_path, config)
    state = fresh_state(config, training())
    state.start_from(checkpoints.load_weights(str(tmp_path)))
    for network in (state.model, state.averaged_model()):
        found = network.codec_weights()
        assert found.keys() == weights.keys()
        assert all(torch.equal(found[name], weights[name]) for name in weights)


@pytest.mark.parametrize("kind", REVIVED)
@pytest.mark.parametrize("kmeans", [False, True])
def test_entries_that_a_batch_does_not_use_stay_where_they_are(
        tmp_path: Path, model: Model, training: Training, pixels: Callable[..., torch.Tensor],
        kind: str, kmeans: bool) -> None:
    config = with_quantizer(model(), kind, kmeans=kmeans)
    weights = save(tmp_path, config)
    state = fresh_state(config, training(optimizer=OptimizerConfig(
        learning_rate=1e-9, warmup_steps=0, weight_decay=0.0)))
    state.start_from(weights)
    with torch.no_grad():
        codes = VQGAN.from_weights(config, weights).encode(
            state.modality.to_inputs(pixels())).unique()
    assert len(codes) < config.quantizer.codebook_size
    train_step(state, pixels(), 0.0)
    unused = sorted(set(range(config.quantizer.codebook_size)) - set(codes.tolist()))
    for name in [name for name in weights if name.endswith("embedding.weight")]:
        found = state.model.codec_weights()[name]
        assert found[unused].numpy() == pytest.approx(weights[name][unused].numpy(), abs=1e-5)


@pytest.mark.parametrize("kind", REVIVED)
def test_no_entry_of_a_trained_quantizer_moves_before_it_was_idle(kind: str, model: Model) -> None:
    config = with_quantizer(model(), kind).quantizer
    moved = []
    for is_trained in (False, True):
        quantizer = build_quantizer(config).train()
        if is_trained:
            quantizer.assume_trained()
        batches = []
        for _ in range(config.revive_after):
            quantizer(torch.ones(1, config.code_dim, 1, 1))
            batches.append(any(len(rows) for rows in quantizer.revive().values()))
        moved.append(batches)
    assert moved == [[True, True, True], [False, False, True]]


def test_a_trained_average_weighs_as_much_as_one_latent_a_batch() -> None:
    quantizer = build_quantizer(QuantizerConfig(kind="ema", codebook_size=2, code_dim=1, decay=0.9,
                                                revive_after=0)).train()
    codebook = quantizer.get_parameter("embedding.weight")
    codebook.copy_(torch.tensor([[0.0], [10.0]]))
    quantizer.assume_trained()
    quantizer(torch.ones(1, 1, 1, 3))
    quantizer.revive()
    expected = [(0.9 * 0 + 0.1 * 3) / (0.9 + 0.1 * 3), 10]
    assert codebook.flatten().tolist() == pytest.approx(expected, abs=1e-4)


def test_the_first_steps_go_on_from_its_weights_and_are_repeated_on_resume(
        image_folder: Folder, model: Model, training: Training, tmp_path: Path) -> None:
    corpus, start = str(image_folder(6)), tmp_path / "start"
    weights = save(start, model())
    slow = training(steps=2, optimizer=OptimizerConfig(learning_rate=1e-6, warmup_steps=0))
    train_tokenizer(corpus, str(tmp_path / "on"), model(), slow, str(start))
    train_tokenizer(corpus, str(tmp_path / "anew"), model(), slow)
    for name in ("encoder.conv_in.weight", "decoder.conv_out.bias"):
        found = checkpoints.load_weights(str(tmp_path / "on"))[name]
        assert 0 < (found - weights[name]).abs().max() < 1e-4
    assert (checkpoints.load_weights(str(tmp_path / "anew"))["encoder.conv_in.weight"]
            - weights["encoder.conv_in.weight"]).abs().max() > 1e-2
    stopped = str(tmp_path / "stopped")
    train_tokenizer(corpus, stopped, model(), dataclasses.replace(slow, steps=1), str(start))
    train_tokenizer(corpus, stopped, model(), slow, str(start))
    assert (tmp_path / "stopped/model.safetensors").read_bytes() == (
        tmp_path / "on/model.safetensors").read_bytes()


def test_where_it_started_is_compared_on_resume_wherever_it_lies(
        image_folder: Folder, model: Model, training: Training, tmp_path: Path) -> None:
    corpus, out = str(image_folder(6)), str(tmp_path / "out")
    for name, seed in (("start", 7), ("same", 7), ("other", 8)):
        save(tmp_path / name, model(), seed)
    train_tokenizer(corpus, out, model(), training(steps=1), str(tmp_path / "start"))
    with pytest.raises(ValueError, match="init_from was sha256:.{64}, now absent; give the same"):
        train_tokenizer(corpus, out, model(), training(steps=2))
    with pytest.raises(ValueError, match="init_from was sha256:.{64}, now sha256:"):
        train_tokenizer(corpus, out, model(), training(steps=2), str(tmp_path / "other"))
    trained = train_tokenizer(corpus, out, model(), training(steps=2), str(tmp_path / "same"))
    assert trained.step == 2
    anew = str(tmp_path / "anew")
    train_tokenizer(corpus, anew, model(), training(steps=1))
    with pytest.raises(ValueError, match="init_from was absent, now sha256:"):
        train_tokenizer(corpus, anew, model(), training(steps=2), str(tmp_path / "start"))


@pytest.mark.parametrize(("part", "settings", "message"), [
    ("autoencoder", {"width": 16}, "autoencoder.width 8, this training 16"),
    ("autoencoder", {"norm_groups": 2}, "autoencoder.norm_groups 0, this training 2"),
    ("quantizer", {"codebook_size": 32}, "quantizer.codebook_size 16, this training 32"),
    ("quantizer", {"kind": "classic"}, "quantizer.kind cosine, this training classic")])
def test_another_network_is_refused_before_anything_is_written(
        image_folder: Folder, model: Model, training: Training, tmp_path: Path, part: str,
        settings: dict[str, Any], message: str) -> None:
    save(tmp_path / "start", model())
    changed = dataclasses.replace(getattr(model(), part), **settings)
    config = dataclasses.replace(model(), **{part: changed})
    with pytest.raises(ValueError, match=f"start has {message}; a training starts from"):
        train_tokenizer(str(image_folder(6)), str(tmp_path / "out"), config, training(steps=1),
                        str(tmp_path / "start"))
    assert not (tmp_path / "out").exists()


def test_size_training_settings_and_a_modality_of_equal_channels_may_change(
        model: Model, tmp_path: Path) -> None:
    save(tmp_path, model())
    config = dataclasses.replace(
        model(name="normals"), image_size=(48, 48),
        autoencoder=dataclasses.replace(model().autoencoder, dropout=0.1),
        quantizer=dataclasses.replace(model().quantizer, revive_after=9, beta=1.0))
    assert check_initial(str(tmp_path), config) == checkpoints.fingerprint(str(tmp_path))
    with pytest.raises(ValueError, match=r"has channels \(3, 3\), this training \(1, 1\)"):
        check_initial(str(tmp_path), model(name="depth"))


def test_a_folder_without_a_tokenizer_is_named(model: Model, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere holds no tokenizer"):
        check_initial(str(tmp_path / "nowhere"), model())
