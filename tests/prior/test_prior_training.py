"""Training: conditions are learned, a stopped training goes on exactly, errors say what to do."""
import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn_codes import conditions, mapped_stream, tiny_training

from prior import training as module
from prior.evaluation import HeldOutBits
from prior.loading.config import Mixture
from prior.model import KIND, Prior, PriorConfig
from prior.recipes import tiny
from prior.state import TrainingConfig, TrainingState
from prior.training import Trained, train_prior
from tokenizer import checkpoints
from tokenizer.splits import Split
from tokenizer.tokens import TokenCorpus
from tokenizer.training.journal import read_metrics
from tokenizer.training.processes import build_accelerator


def config_of(corpus: TokenCorpus, *names: str, split: Split | None = None,
              **settings: object) -> PriorConfig:
    shape = {"num_layers": 1, "width": 16, "num_heads": 2, "dropout": 0.1, **settings}
    return PriorConfig.of(corpus, conditions=conditions(*names), split=split,
                          transformer=type(tiny().transformer)(**shape))


def short(corpus: TokenCorpus, out: Path, *settings: str) -> Trained:
    """A few steps with all conditions."""
    return train_prior(corpus, str(out), config_of(corpus, "label", "segmentation"),
                       tiny_training("batch_size=8", "evaluate_every=4", "log_every=2", *settings))


def same_weights(first: Path, other: Path) -> bool:
    one, two = (checkpoints.load_weights(str(folder)) for folder in (first, other))
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def same_states(first: Path, other: Path) -> bool:
    one, two = (checkpoints.load_state(str(folder)) for folder in (first, other))
    assert one is not None and two is not None
    return same_values({**one, "seconds": 0}, {**two, "seconds": 0})


def same_values(one: object, two: object) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(same_values(one[name], two[name]) for name in one)
    if isinstance(one, list) and isinstance(two, list):
        return len(one) == len(two) and all(map(same_values, one, two))
    return one == two


def test_a_training_killed_before_its_first_checkpoint_starts_again(
        corpus: TokenCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = module.checkpoints.save_weights

    def die_after(*arguments: Any) -> None:
        original(*arguments)
        raise RuntimeError("killed")

    monkeypatch.setattr(module.checkpoints, "save_weights", die_after)
    with pytest.raises(RuntimeError, match="killed"):
        short(corpus, tmp_path, "steps=6")
    monkeypatch.undo()
    assert short(corpus, tmp_path, "steps=6").step == 6


# What is learned


def test_the_conditions_are_learned_and_used(trained: tuple[TokenCorpus, str]) -> None:
    data = json.loads((Path(trained[1]) / "evaluation.json").read_text())
    assert data["matched"] < 0.5
    assert data["shuffled"] > data["matched"] + 1
    assert data["without"] > data["matched"] + 1


def test_a_prior_without_conditions_reports_one_figure(corpus: TokenCorpus,
                                                       tmp_path: Path) -> None:
    trained = train_prior(corpus, str(tmp_path / "prior"), config_of(corpus),
                          tiny_training("steps=3"))
    assert trained.bits is not None and trained.bits.shuffled is None
    assert trained.bits.matched == pytest.approx(math.log2(8), abs=0.3)
    assert "bits per held-out code; 3 steps in" in trained.summary()


def test_metrics_name_bits_of_training_and_of_held_out_rows(corpus: TokenCorpus,
                                                            tmp_path: Path) -> None:
    short(corpus, tmp_path, "steps=6")
    lines = read_metrics(str(tmp_path))
    assert [line["step"] for line in lines if "train/bits" in line] == [2, 4, 6]
    assert {"train/gradient_norm", "train/learning_rate", "train/seconds"} < lines[0].keys()
    measured = [line for line in lines if "held_out/matched" in line]
    assert [line["step"] for line in measured] == [4, 6]
    assert {"held_out/shuffled", "held_out/without"} < measured[0].keys()


def test_the_best_weights_are_kept_or_the_last(corpus: TokenCorpus, tmp_path: Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    figures = iter([2.0, 1.0, 3.0] * 2)
    monkeypatch.setattr(module, "held_out_bits", lambda *arguments: HeldOutBits(
        num_rows=1, matched=next(figures), shuffled=None, without=None))
    best, last = (short(corpus, tmp_path / keep, "steps=12", f"keep={keep}")
                  for keep in ("best", "last"))
    assert best.bits is not None and best.bits.matched == 1.0
    assert last.bits is not None and last.bits.matched == 3.0
    assert not same_weights(tmp_path / "best", tmp_path / "last")
    assert json.loads((tmp_path / "best" / "evaluation.json").read_text())["step"] == 8


def test_without_held_out_rows_the_last_weights_are_kept(corpus: TokenCorpus,
                                                         tmp_path: Path) -> None:
    config = config_of(corpus, "label", split=Split(held_out=0))
    trained = train_prior(corpus, str(tmp_path / "prior"), config, tiny_training("steps=3"))
    assert trained.bits is None and "no row held out" in trained.summary()
    state = checkpoints.load_state(str(tmp_path / "prior"))
    weights = checkpoints.load_weights(str(tmp_path / "prior"))
    assert state is not None
    for name, tensor in state["average"]["tensors"].items():
        assert torch.equal(weights[name], tensor)


def test_samples_are_shown_beside_conditions_and_originals(corpus: TokenCorpus,
                                                           tmp_path: Path) -> None:
    seen: list[str] = []

    def pictures(name: str, size: int) -> Callable[[np.ndarray], np.ndarray]:
        def draw(codes: np.ndarray) -> np.ndarray:
            seen.append(f"{name} {len(codes)}")
            return np.zeros((len(codes), size, size, 3), np.uint8)
        return draw

    train_prior(corpus, str(tmp_path), config_of(corpus, "label", "segmentation"),
                tiny_training("steps=1", "num_pictures=2"),
                {"image": pictures("image", 6), "segmentation": pictures("segmentation", 3)})
    assert seen == ["segmentation 2", "image 2", "image 4"]
    assert (tmp_path / "samples.png").stat().st_size > 0


# Going on


def test_a_stopped_training_goes_on_bit_for_bit(corpus: TokenCorpus, tmp_path: Path) -> None:
    short(corpus, tmp_path / "straight", "steps=10", "accumulation=2")
    stop_after(corpus, tmp_path / "stopped", 5, "steps=10", "accumulation=2")
    assert checkpoints.load_state(str(tmp_path / "stopped"))["step"] == 5  # type: ignore[index]
    short(corpus, tmp_path / "stopped", "steps=10", "accumulation=2")
    assert same_states(tmp_path / "straight", tmp_path / "stopped")
    assert same_weights(tmp_path / "straight", tmp_path / "stopped")
    straight, stopped = (read_metrics(str(tmp_path / name)) for name in ("straight", "stopped"))
    times = ("train/seconds", "train/rows_per_second")
    assert [{name: value for name, value in line.items() if name not in times}
            for line in straight] == [
        {name: value for name, value in line.items() if name not in times} for line in stopped]


def stop_after(corpus: TokenCorpus, out: Path, step: int, *settings: str) -> None:
    """Train as if Ctrl-C were pressed in the given step."""
    import signal
    original = TrainingState.train_step

    def train_step(self: TrainingState, *arguments: object) -> None:
        original(self, *arguments)  # type: ignore[arg-type]
        if self.step == step:
            signal.raise_signal(signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(TrainingState, "train_step", train_step)
        short(corpus, out, *settings)


def test_a_finished_training_reports_again_without_a_step(corpus: TokenCorpus,
                                                          tmp_path: Path) -> None:
    first = short(corpus, tmp_path, "steps=4")
    before = (tmp_path / "model.safetensors").read_bytes()
    again = short(corpus, tmp_path, "steps=4")
    assert again.bits == first.bits and again.step == 4
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_a_longer_budget_trains_on(corpus: TokenCorpus, tmp_path: Path) -> None:
    short(corpus, tmp_path, "steps=4")
    assert short(corpus, tmp_path, "steps=6").step == 6


def test_other_settings_or_rows_are_refused_by_name(
        corpus: TokenCorpus, tmp_path: Path, make_corpus: Callable[..., TokenCorpus]) -> None:
    short(corpus, tmp_path / "prior", "steps=2")
    with pytest.raises(ValueError, match="training.batch_size was 8, now 4.*another folder"):
        short(corpus, tmp_path / "prior", "steps=2", "batch_size=4")
    other = make_corpus("other", fingerprint="sha256:other")
    with pytest.raises(ValueError, match="prior.corpus was sha256:corpus, now sha256:other"):
        short(other, tmp_path / "prior", "steps=2")


def test_a_prior_of_an_early_version_goes_on(corpus: TokenCorpus, tmp_path: Path) -> None:
    short(corpus, tmp_path, "steps=2")
    state = checkpoints.load_state(str(tmp_path))
    assert state is not None
    for spec in state["run"]["prior"]["spec"]["codes"]:
        del spec["depth"]
    checkpoints.save_state(str(tmp_path), state)
    assert short(corpus, tmp_path, "steps=3").step == 3


def test_a_filter_is_a_part_of_the_training_and_of_the_prior(corpus: TokenCorpus,
                                                             tmp_path: Path) -> None:
    dogs = dataclasses.replace(config_of(corpus, "segmentation"), row_filter="label == 1")
    train_prior(corpus, str(tmp_path), dogs, tiny_training("steps=2"))
    assert checkpoints.load_config(str(tmp_path), KIND, PriorConfig) == dogs
    saved = checkpoints.load_state(str(tmp_path))
    assert saved is not None and saved["run"]["filter"] == "label == 1"
    assert "row_filter" not in saved["run"]["prior"]  # so that those of early versions go on
    with pytest.raises(ValueError, match="filter was label == 1, now label == 0"):
        train_prior(corpus, str(tmp_path), dataclasses.replace(dogs, row_filter="label == 0"),
                    tiny_training("steps=3"))
    assert train_prior(corpus, str(tmp_path), dogs, tiny_training("steps=3")).step == 3


def test_a_prior_without_its_training_state_is_not_overwritten(corpus: TokenCorpus,
                                                               tmp_path: Path) -> None:
    short(corpus, tmp_path, "steps=2")
    (tmp_path / checkpoints.STATE).unlink()
    with pytest.raises(ValueError, match="without its training state"):
        short(corpus, tmp_path, "steps=2")


def test_samples_that_cannot_be_shown_cost_no_training(corpus: TokenCorpus,
                                                       tmp_path: Path) -> None:
    def fail(codes: np.ndarray) -> np.ndarray:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        train_prior(corpus, str(tmp_path), config_of(corpus),
                    tiny_training("steps=9", "evaluate_every=4"), {"image": fail})
    state = checkpoints.load_state(str(tmp_path))
    assert state is not None and state["step"] == 4
    assert train_prior(corpus, str(tmp_path), config_of(corpus),
                       tiny_training("steps=9", "evaluate_every=4")).step == 9


def test_a_full_disk_leaves_the_earlier_checkpoint_whole(corpus: TokenCorpus, tmp_path: Path,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    short(corpus, tmp_path, "steps=4")
    before = checkpoints.load_state(str(tmp_path))

    def refuse(url: str, content: bytes) -> None:
        raise OSError(28, "No space left on device", url)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr("tokenizer.storage.write_bytes", refuse)
        short(corpus, tmp_path, "steps=6")
    assert same_values(checkpoints.load_state(str(tmp_path)), before)
    assert short(corpus, tmp_path, "steps=6").step == 6
    Prior.load(str(tmp_path))


# Bad input


def test_a_training_needs_an_end(corpus: TokenCorpus, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a training needs an end"):
        short(corpus, tmp_path / "prior")
    assert not (tmp_path / "prior").exists()


def test_a_remote_folder_is_refused(corpus: TokenCorpus) -> None:
    with pytest.raises(ValueError, match="local folder, got memory://prior"):
        train_prior(corpus, "memory://prior", config_of(corpus), tiny_training("steps=1"))


def test_a_prior_is_not_written_into_its_corpus(corpus: TokenCorpus) -> None:
    before = sorted(Path(corpus.url).iterdir())
    for out in (Path(corpus.url), Path(corpus.url) / "prior"):
        with pytest.raises(ValueError, match="lies in the token corpus .*; choose another fold"):
            short(corpus, out, "steps=1")
    assert sorted(Path(corpus.url).iterdir()) == before


def test_a_loss_that_is_not_finite_stops_before_any_weight_changes(corpus: TokenCorpus) -> None:
    config, training = config_of(corpus), tiny_training("steps=1")
    state = TrainingState(config, training, build_accelerator(training))
    with torch.no_grad():
        state.model.head.weight.fill_(float("nan"))
    batch = module.Batches(mapped_stream(corpus), config.layout, 8, 0, {}, 0.0).batch(0)
    before = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    with pytest.raises(ValueError, match="finite at step 1 .loss nan.*rate below 0.005"):
        state.train_step(batch, 0.0)
    for name, tensor in state.model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(("setting", "message"), [
    ("batch_size=0", "batch_size must be at least 1"),
    ("accumulation=3", "accumulation must divide batch_size 16"),
    ("keep=first", "keep is one of best, last, got 'first'"),
    ("mixed_precision=fp8", "mixed_precision is one of no, bf16, fp16"),
    ("ema_decay=1.0", r"ema_decay must lie in \[0, 1\)"),
    ("checkpoint_minutes=0", "checkpoint_minutes must be more than 0")])
def test_impossible_settings_are_refused(setting: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_training(setting)


def test_parts_of_a_batch_add_up_to_the_whole(corpus: TokenCorpus) -> None:
    config = config_of(corpus, "label", dropout=0.0)
    norms = []
    for accumulation in (1, 4):
        training = TrainingConfig(steps=1, batch_size=8, accumulation=accumulation)
        state = TrainingState(config, training, build_accelerator(training))
        stream = mapped_stream(corpus)
        state.train_step(module.Batches(stream, config.layout, 8, 0, {}, 0.0).batch(0), 0.0)
        norms.append(state.take_figures())
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)


def test_bf16_trains_and_stores_float32(corpus: TokenCorpus, tmp_path: Path) -> None:
    trained = short(corpus, tmp_path, "steps=2", "mixed_precision=bf16")
    assert trained.bits is not None and math.isfinite(trained.bits.matched)
    assert {tensor.dtype for tensor in checkpoints.load_weights(str(tmp_path)).values()} == {
        torch.float32}


def test_a_precision_found_by_itself_stays_when_the_machine_changes(
        corpus: TokenCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for found, steps in (("bf16", 1), ("no", 2)):
        monkeypatch.setattr("tokenizer.training.resume.fastest_precision", lambda kind=found: kind)
        short(corpus, tmp_path, f"steps={steps}", "mixed_precision=auto")
    state = checkpoints.load_state(str(tmp_path))
    assert state is not None and state["step"] == 2
    assert state["run"]["training"]["mixed_precision"] == "bf16"


# Order of rows


@pytest.mark.parametrize("order", ["exact", "windowed"])
def test_a_checkpoint_says_where_in_the_order_of_rows_it_stands(order: str, corpus: TokenCorpus,
                                                                tmp_path: Path) -> None:
    short(corpus, tmp_path, "steps=8", f"loader.order={order}")
    state = checkpoints.load_state(str(tmp_path))
    assert state is not None and state["place"] == {"order": order, "epoch": 1, "position": 64,
                                                    "seed": 0}


def test_a_stopped_training_in_windows_goes_on_bit_for_bit(corpus: TokenCorpus,
                                                           tmp_path: Path) -> None:
    settings = ("steps=10", "loader.order=windowed", "loader.window_rows=20", "loader.crops=one")
    short(corpus, tmp_path / "straight", *settings)
    stop_after(corpus, tmp_path / "stopped", 3, *settings)
    short(corpus, tmp_path / "stopped", *settings)
    assert same_states(tmp_path / "straight", tmp_path / "stopped")


def test_a_checkpoint_from_before_places_were_saved_goes_on_exactly(corpus: TokenCorpus,
                                                                    tmp_path: Path) -> None:
    short(corpus, tmp_path / "straight", "steps=8")
    stop_after(corpus, tmp_path / "stopped", 4, "steps=8")
    state = checkpoints.load_state(str(tmp_path / "stopped"))
    assert state is not None
    del state["place"], state["run"]["training"]["loader"], state["run"]["prior"]["mixture"]
    checkpoints.save_state(str(tmp_path / "stopped"), state)
    short(corpus, tmp_path / "stopped", "steps=8")
    assert same_states(tmp_path / "straight", tmp_path / "stopped")


def test_a_checkpoint_of_another_order_is_refused(corpus: TokenCorpus, tmp_path: Path) -> None:
    short(corpus, tmp_path, "steps=4")
    state = checkpoints.load_state(str(tmp_path))
    assert state is not None
    for place, message in (({**state["place"], "order": "windowed"}, "at order windowed .* exact"),
                           ({**state["place"], "position": 16}, "position 16 .* position 32")):
        checkpoints.save_state(str(tmp_path), {**state, "place": place})
        with pytest.raises(ValueError, match=f"{message} of this one.*another folder"):
            short(corpus, tmp_path, "steps=6")


def test_trainings_may_share_a_folder_of_codes(corpus: TokenCorpus, tmp_path: Path) -> None:
    for name in ("one", "two"):
        train_prior(corpus, str(tmp_path / name), config_of(corpus), tiny_training("steps=1"),
                    cache=str(tmp_path / "codes"))
        assert [path.name for path in (tmp_path / name / "training").iterdir()] == ["state.pt"]
    assert len(list((tmp_path / "codes").iterdir())) == 1


def test_a_mixture_is_trained_on_and_resumed_with_its_weights_alone(
        corpus: TokenCorpus, tmp_path: Path, make_corpus: Callable[..., TokenCorpus]) -> None:
    second = make_corpus("second", 20, seed=1, fingerprint="sha256:second")

    def train(weights: tuple[float, float], steps: int) -> Trained:
        mixture = Mixture((corpus, second), weights)
        config = PriorConfig.of(mixture, transformer=tiny().transformer)
        return train_prior(mixture, str(tmp_path / "prior"), config,
                           tiny_training(f"steps={steps}"))

    assert train((2.0, 1.0), 2).step == 2 and train((2.0, 1.0), 3).step == 3
    with pytest.raises(ValueError, match="prior.mixture.1.weight was 1.0, now 2.0"):
        train((2.0, 2.0), 4)


# Figures and warnings


def test_the_evaluation_says_bits_per_image_and_what_each_condition_tells(
        trained: tuple[TokenCorpus, str]) -> None:
    data = json.loads((Path(trained[1]) / "evaluation.json").read_text())
    assert data["modality"] == "image" and data["codes_per_image"] == 6
    assert data["bits_per_image"] == pytest.approx(6 * data["matched"])
    for name in ("label", "segmentation"):
        assert data["shuffled_each"][name] > data["matched"] + 0.3


def test_an_ignored_condition_is_told_while_training_and_not_again_after_a_stop(
        corpus: TokenCorpus, tmp_path: Path) -> None:
    settings = ("steps=8", "evaluate_every=1", "optimizer.learning_rate=1e-9")
    stop_after(corpus, tmp_path, 6, *settings)
    short(corpus, tmp_path, *settings)
    remarks = [line for line in read_metrics(str(tmp_path)) if "remark" in line]
    assert [line["step"] for line in remarks] == [3, 3]
    assert "the condition label is ignored" in remarks[0]["remark"]
    assert "the condition segmentation is ignored" in remarks[1]["remark"]
