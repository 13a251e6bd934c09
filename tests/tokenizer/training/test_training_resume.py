"""Going on from a checkpoint: exactly as if never stopped, or refused with what changed."""
import dataclasses
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tokenizer import checkpoints, storage
from tokenizer.training import updates
from tokenizer.training.config import AdversarialConfig, TrainingConfig
from tokenizer.training.journal import read_metrics
from tokenizer.training.loop import train_tokenizer
from tokenizer.training.observer import Observer
from tokenizer.training.state import TrainingState
from tokenizer.vqgan.model import VQGANConfig

Folder = Callable[[int], Path]
Model = Callable[..., VQGANConfig]
Training = Callable[..., TrainingConfig]

TIMES = ("train/seconds", "train/images_per_second")


@pytest.fixture
def ctrl_c_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sends SIGINT to this process while the given step is being looked at."""
    def set_up(step: int) -> None:
        original = Observer.after_step

        def after_step(self: Observer, *arguments: Any) -> None:
            original(self, *arguments)
            if self.state.step == step:
                os.kill(os.getpid(), signal.SIGINT)

        monkeypatch.setattr(Observer, "after_step", after_step)
    return set_up


def timeless_metrics(out: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name not in TIMES}
            for line in read_metrics(str(out))]


def tensors_of(state: Any) -> Iterator[torch.Tensor]:
    """Every tensor in nested containers, in order."""
    if isinstance(state, torch.Tensor):
        yield state
    elif isinstance(state, dict):
        for name in sorted(state, key=str):
            yield from tensors_of(state[name])
    elif isinstance(state, list | tuple):
        for item in state:
            yield from tensors_of(item)


def test_stopped_and_continued_equals_straight_through(
        image_folder: Folder, model: Model, training: Training, tmp_path: Path,
        adversarial: AdversarialConfig, ctrl_c_after: Callable[[int], None],
        monkeypatch: pytest.MonkeyPatch) -> None:
    corpus, settings = str(image_folder(8)), training(adversarial=adversarial, accumulation=2)
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    train_tokenizer(corpus, str(straight), model(), settings)
    ctrl_c_after(5)
    with pytest.raises(KeyboardInterrupt):
        train_tokenizer(corpus, str(stopped), model(), settings)
    state = checkpoints.load_state(str(stopped))
    assert state is not None and state["step"] == 5
    monkeypatch.undo()
    trained = train_tokenizer(corpus, str(stopped), model(), settings)
    assert trained.step == 10
    assert (stopped / "model.safetensors").read_bytes() == \
        (straight / "model.safetensors").read_bytes()
    assert timeless_metrics(stopped) == timeless_metrics(straight)
    states = [checkpoints.load_state(str(out)) for out in (straight, stopped)]
    pairs = zip(tensors_of(states[0]), tensors_of(states[1]), strict=True)
    assert all(torch.equal(expected, found) for expected, found in pairs)


def test_skipped_steps_and_remarks_are_those_of_an_uninterrupted_training(
        image_folder: Folder, model: Model, training: Training, tmp_path: Path,
        adversarial: AdversarialConfig, ctrl_c_after: Callable[[int], None],
        monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = str(image_folder(8))
    with_all = dataclasses.replace(adversarial, lecam_weight=0.1, r1_weight=1.0, r1_every=3)
    settings = training(adversarial=with_all, log_every=1)

    def spoil(state: TrainingState, totals: dict[str, torch.Tensor]) -> dict[str, float]:
        spoilt = {"loss": float("nan")} if state.step in (3, 6, 7, 8) else {}
        return updates.joined_figures(state, totals) | spoilt

    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    monkeypatch.setattr("tokenizer.training.steps.joined_figures", spoil)
    train_tokenizer(corpus, str(straight), model(), settings)
    ctrl_c_after(7)
    with pytest.raises(KeyboardInterrupt):
        train_tokenizer(corpus, str(stopped), model(), settings)
    monkeypatch.undo()
    monkeypatch.setattr("tokenizer.training.steps.joined_figures", spoil)
    train_tokenizer(corpus, str(stopped), model(), settings)
    lines = timeless_metrics(stopped)
    assert lines == timeless_metrics(straight)
    assert [line["train/skipped_steps"] for line in lines if "train/skipped_steps" in line] == \
        [0, 0, 0, 1, 1, 1, 2, 3, 4, 4]
    assert ["steps were skipped" in line["remark"] for line in lines if "remark" in line] == [True]
    states = [checkpoints.load_state(str(out)) for out in (straight, stopped)]
    pairs = zip(tensors_of(states[0]), tensors_of(states[1]), strict=True)
    assert all(torch.equal(expected, found) for expected, found in pairs)


def test_a_killed_training_goes_on_from_its_last_checkpoint(
        image_folder: Folder, model: Model, training: Training, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch) -> None:
    corpus, settings = str(image_folder(6)), training(checkpoint_minutes=1e-9)
    out = tmp_path / "out"
    original = Observer.after_step

    def die_at_eight(self: Observer, *arguments: Any) -> None:
        original(self, *arguments)
        if self.state.step == 8:
            raise RuntimeError("killed")

    monkeypatch.setattr(Observer, "after_step", die_at_eight)
    with pytest.raises(RuntimeError, match="killed"):
        train_tokenizer(corpus, str(out), model(), settings)
    monkeypatch.undo()
    state = checkpoints.load_state(str(out))
    assert state is not None and state["step"] == 7
    train_tokenizer(corpus, str(out), model(), settings)
    train_tokenizer(corpus, str(tmp_path / "straight"), model(), settings)
    assert timeless_metrics(out) == timeless_metrics(tmp_path / "straight")


def test_a_training_killed_before_its_first_checkpoint_starts_again(
        image_folder: Folder, model: Model, training: Training, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch) -> None:
    corpus, out = str(image_folder(6)), str(tmp_path / "out")

    def die(*_: Any) -> None:
        raise RuntimeError("killed")

    monkeypatch.setattr(checkpoints, "save_weights", die)
    with pytest.raises(RuntimeError, match="killed"):
        train_tokenizer(corpus, out, model(), training(steps=3))
    monkeypatch.undo()
    assert train_tokenizer(corpus, out, model(), training(steps=3)).step == 3


def test_held_out_images_that_cannot_be_measured_cost_no_training(
        image_folder: Folder, model: Model, training: Training, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch) -> None:
    corpus, out = str(image_folder(6)), str(tmp_path / "out")

    def fail(self: Observer) -> None:
        raise ValueError("no held-out image can be read")

    monkeypatch.setattr(Observer, "evaluate", fail)
    with pytest.raises(ValueError, match="no held-out image can be read"):
        train_tokenizer(corpus, out, model(), training(steps=3, evaluate_every=100))
    state = checkpoints.load_state(out)
    assert state is not None and state["step"] == 3
    assert checkpoints.load_weights(out)


def test_a_finished_training_is_left_as_it_is(image_folder: Folder, model: Model,
                                              training: Training, tmp_path: Path) -> None:
    corpus, out = str(image_folder(6)), tmp_path / "out"
    first = train_tokenizer(corpus, str(out), model(), training(steps=3))
    before = {name: (out / name).read_bytes()
              for name in ("model.safetensors", "metrics.jsonl", "training/state.pt")}
    again = train_tokenizer(corpus, str(out), model(), training(steps=3))
    assert again.evaluation == first.evaluation and again.step == 3
    assert all((out / name).read_bytes() == content for name, content in before.items())


def test_a_longer_budget_trains_on(image_folder: Folder, model: Model, training: Training,
                                   tmp_path: Path) -> None:
    corpus, out = str(image_folder(6)), str(tmp_path / "out")
    train_tokenizer(corpus, out, model(), training(steps=2))
    trained = train_tokenizer(corpus, out, model(), training(steps=4, log_every=1, num_pictures=1))
    assert trained.step == 4
    assert [line["step"] for line in read_metrics(out) if "held_out/psnr" in line] == [2, 4]


def test_other_settings_are_refused_by_name_with_both_values(
        image_folder: Folder, model: Model, training: Training, tmp_path: Path) -> None:
    corpus, out = str(image_folder(6)), str(tmp_path / "out")
    train_tokenizer(corpus, out, model(), training(steps=1))
    config = (tmp_path / "out" / "config.json").read_bytes()
    with pytest.raises(ValueError, match=r"trained with other settings: training.batch_size was 4, "
                                         r"now 2; training.seed was 0, now 1; give the same"):
        train_tokenizer(corpus, out, model(), training(steps=1, batch_size=2, seed=1))
    with pytest.raises(ValueError, match=r"model.modality.name was image, now depth"):
        train_tokenizer(corpus, out, model(name="depth"), training(steps=1))
    assert (tmp_path / "out" / "config.json").read_bytes() == config


def test_a_precision_found_by_itself_stays_when_the_machine_changes(
        image_folder: Folder, model: Model, training: Training, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch) -> None:
    corpus, out = str(image_folder(6)), str(tmp_path / "out")
    settings = training(steps=1, mixed_precision="auto")
    monkeypatch.setattr("tokenizer.training.resume.fastest_precision", lambda: "bf16")
    train_tokenizer(corpus, out, model(), settings)
    monkeypatch.setattr("tokenizer.training.resume.fastest_precision", lambda: "no")
    assert train_tokenizer(corpus, out, model(), dataclasses.replace(settings, steps=2)).step == 2
    state = checkpoints.load_state(out)
    assert state is not None and state["run"]["training"]["mixed_precision"] == "bf16"


def made_older(out: str, **settings: Any) -> None:
    """Take out of a checkpoint what early versions did not save, and change settings."""
    state = checkpoints.load_state(out)
    assert state is not None
    run = state["run"]
    del run["model"]["autoencoder"]["design"], run["model"]["quantizer"]["depth"]
    del run["training"]["max_skipped_steps"], run["training"]["adversarial"]["ramp_steps"]
    run["training"] |= settings
    del state["skipped"], state["watch"], state["moving"]
    for tensors in (state["model"], state["average"]["tensors"]):
        del tensors["quantize.placed"]
    state["discriminator"]["layers.3.running_mean"] = torch.zeros(8)
    checkpoints.save_state(out, state)


def test_a_training_of_an_early_version_goes_on_with_newer_settings_at_their_defaults(
        image_folder: Folder, model: Model, training: Training, tmp_path: Path,
        adversarial: AdversarialConfig) -> None:
    corpus, out = str(image_folder(6)), str(tmp_path / "out")
    adversarial = dataclasses.replace(adversarial, start=2, ramp_steps=1000)
    train_tokenizer(corpus, out, model(), training(steps=4, adversarial=adversarial))
    made_older(out)
    with pytest.raises(ValueError, match=r"other settings: training.max_skipped_steps was 20, now "
                                         r"5; give"):
        train_tokenizer(corpus, out, model(),
                        training(steps=6, adversarial=adversarial, max_skipped_steps=5))
    again = train_tokenizer(corpus, out, model(), training(steps=6, adversarial=adversarial))
    assert again.step == 6


def test_a_setting_that_is_no_more_is_named(
        image_folder: Folder, model: Model, training: Training, tmp_path: Path,
        adversarial: AdversarialConfig) -> None:
    corpus, out = str(image_folder(6)), str(tmp_path / "out")
    settings = training(steps=1, adversarial=adversarial)
    train_tokenizer(corpus, out, model(), settings)
    made_older(out, warmth=3)
    with pytest.raises(ValueError, match=r"training.warmth was 3, now absent"):
        train_tokenizer(corpus, out, model(), settings)


def test_another_corpus_is_refused(image_folder: Folder, model: Model, training: Training,
                                   tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    train_tokenizer(str(image_folder(6)), out, model(), training(steps=1))
    with pytest.raises(ValueError, match="corpus.num_train was 4, now 5"):
        train_tokenizer(str(image_folder(7)), out, model(), training(steps=1))


def test_a_tokenizer_without_its_state_is_not_overwritten(
        image_folder: Folder, model: Model, training: Training, tmp_path: Path) -> None:
    corpus, out = str(image_folder(6)), str(tmp_path / "out")
    train_tokenizer(corpus, out, model(), training(steps=1))
    storage.remove(storage.join(out, "training"))
    with pytest.raises(ValueError, match="holds a tokenizer without its training state"):
        train_tokenizer(corpus, out, model(), training(steps=1))


def test_a_training_that_never_saved_may_start_again_with_other_settings(
        image_folder: Folder, model: Model, training: Training, tmp_path: Path) -> None:
    out = tmp_path / "out"
    checkpoints.save_config(str(out), "tokenizer", model(name="depth"))
    train_tokenizer(str(image_folder(6)), str(out), model(), training(steps=1))
    assert json.loads((out / "config.json").read_text())["config"]["modality"]["name"] == "image"


def test_a_remote_folder_is_refused_with_the_remedy(image_folder: Folder, model: Model,
                                                    training: Training) -> None:
    with pytest.raises(ValueError, match="local folder, got memory://out; copy"):
        train_tokenizer(str(image_folder(6)), "memory://out", model(), training(steps=1))


def test_a_full_disk_leaves_the_last_checkpoint_whole(
        image_folder: Folder, model: Model, training: Training, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch) -> None:
    corpus, out = str(image_folder(6)), tmp_path / "out"
    train_tokenizer(corpus, str(out), model(), training(steps=1))
    before = (out / "training" / "state.pt").read_bytes()

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            train_tokenizer(corpus, str(out), model(), training(steps=2))
    assert (out / "training" / "state.pt").read_bytes() == before
    assert train_tokenizer(corpus, str(out), model(), training(steps=2)).step == 2
