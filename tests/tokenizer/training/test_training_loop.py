"""A training as a whole: what it leaves behind, for every modality, and what it refuses."""
import dataclasses
import json
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tokenizer import checkpoints
from tokenizer.codec import Codec
from tokenizer.corpus.dataset import CorpusDataset
from tokenizer.corpus.modalities import modality_from_dict
from tokenizer.training import loop
from tokenizer.training.config import AdversarialConfig, PerceptualConfig, TrainingConfig
from tokenizer.training.journal import read_metrics
from tokenizer.training.loop import open_dataset, train_tokenizer
from tokenizer.training.report import reconstruction_sheet
from tokenizer.vqgan.model import VQGAN, VQGANConfig

Folder = Callable[[int], Path]
Model = Callable[..., VQGANConfig]
Training = Callable[..., TrainingConfig]


def test_the_saved_tokenizer_scores_what_the_evaluation_says(
        image_folder: Folder, model: Model, training: Training, tmp_path: Path) -> None:
    corpus, out = str(image_folder(9)), str(tmp_path / "out")
    trained = train_tokenizer(corpus, out, model(), training(held_out=3))
    codec = Codec.load(out)
    originals = np.concatenate(list(
        open_dataset(corpus, model(), training(held_out=3)).held_out_batches(2)))
    errors = (codec.decode(codec.encode(originals)) / 1.0 - originals) ** 2
    psnr = (10 * np.log10(255 ** 2 / errors.mean((1, 2, 3)))).mean()
    assert trained.evaluation is not None and trained.evaluation.num_images == 3
    assert trained.evaluation.scores["psnr"] == pytest.approx(psnr, abs=0.01)


def test_figures_are_written_with_their_conditions(
        image_folder: Folder, model: Model, training: Training, tmp_path: Path) -> None:
    train_tokenizer(str(image_folder(9)), str(tmp_path), model(), training(held_out_by="name"))
    written = json.loads((tmp_path / "evaluation.json").read_text())
    assert written["num_images"] == 2 and written["training"]["steps"] == 10
    assert written["codebook_size"] == 16 and written["num_codes_used"] <= 16
    conditions = written["conditions"]
    assert conditions["images"] == "held out of training: 2 by name"
    assert conditions["image_size"] == [24, 24]
    assert conditions["pixels"].startswith("uint8, 0 to 255; outputs clipped and rounded")
    assert "psnr" in conditions["scores"] and "average" in conditions["weights"]
    assert conditions["loss"] == "l1"


def test_the_held_out_loss_can_be_compared_with_that_of_training(
        image_folder: Folder, model: Model, training: Training, tmp_path: Path) -> None:
    corpus, settings = str(image_folder(9)), training(reconstruction="l2")
    trained = train_tokenizer(corpus, str(tmp_path), model(), settings)
    vqgan = VQGAN.from_weights(model(), checkpoints.load_weights(str(tmp_path)))
    pixels = np.concatenate(list(open_dataset(corpus, model(), settings).held_out_batches(2)))
    inputs = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        expected = (vqgan(inputs)[0] - inputs).square().mean().item()
    assert trained.evaluation is not None
    assert trained.evaluation.loss == pytest.approx(expected, rel=1e-4)
    written = json.loads((tmp_path / "evaluation.json").read_text())
    assert written["conditions"]["loss"] == "l2"


def test_metrics_hold_losses_usage_rate_speed_and_held_out_scores(
        image_folder: Folder, model: Model, training: Training, tmp_path: Path,
        adversarial: AdversarialConfig) -> None:
    train_tokenizer(str(image_folder(9)), str(tmp_path), model(),
                    training(adversarial=adversarial))
    lines = read_metrics(str(tmp_path))
    train = [line for line in lines if "train/loss" in line]
    assert [line["step"] for line in train] == [2, 4, 6, 8, 10]
    assert {"train/reconstruction", "train/codebook", "train/commitment", "train/gradient_norm",
            "train/psnr", "train/codes_used", "train/perplexity", "train/learning_rate",
            "train/images_per_second", "train/skipped_steps", "train/seconds"} <= train[0].keys()
    assert {"train/adversarial", "train/adaptive_weight", "train/discriminator",
            "train/logits_real", "train/logits_fake"} <= train[-1].keys()
    held_out = [line for line in lines if "held_out/psnr" in line]
    assert [line["step"] for line in held_out] == [5, 10]
    assert held_out[0].keys() == {"step", "held_out/loss", "held_out/psnr", "held_out/codes_used",
                                  "held_out/perplexity"}


def test_what_the_watch_notices_is_shown_once_and_stands_in_the_journal(
        image_folder: Folder, model: Model, training: Training, tmp_path: Path,
        adversarial: AdversarialConfig, capsys: pytest.CaptureFixture[str]) -> None:
    capped = dataclasses.replace(adversarial, max_adaptive_weight=1e-6)
    train_tokenizer(str(image_folder(9)), str(tmp_path), model(), training(adversarial=capped))
    remarks = [line for line in read_metrics(str(tmp_path)) if "remark" in line]
    assert [line["step"] for line in remarks] == [6]
    assert remarks[0]["remark"].startswith("adaptive weight at its cap: 1e-06 of 1e-06; raise")
    assert capsys.readouterr().err.count(f"step 6: {remarks[0]['remark']}") == 1


@pytest.mark.parametrize(("steps", "heard"), [(4, False), (5, True)])
def test_a_discriminator_that_was_never_felt_is_told(
        image_folder: Folder, model: Model, training: Training, tmp_path: Path, steps: int,
        heard: bool, adversarial: AdversarialConfig, capsys: pytest.CaptureFixture[str]) -> None:
    train_tokenizer(str(image_folder(4)), str(tmp_path), model(),
                    training(steps=steps, adversarial=adversarial))
    words = "training ended after 4 steps, training.adversarial.start is 4; lower it"
    assert (words in capsys.readouterr().err) != heard
    assert any("train/adversarial" in line for line in read_metrics(str(tmp_path))) == heard


def test_pictures_are_written_as_a_file_and_for_tensorboard(
        image_folder: Folder, model: Model, training: Training, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    train_tokenizer(str(image_folder(9)), str(tmp_path), model(), training(num_pictures=2))
    assert Image.open(tmp_path / "reconstructions.png").size == (2 * 26 + 2, 2 * 26 + 2)
    events = EventAccumulator(str(tmp_path / "logs"))
    events.Reload()
    assert [event.step for event in events.Images("reconstructions")] == [5, 10]
    assert "train/loss" in events.Tags()["scalars"]


def test_a_sheet_shows_each_row_of_originals_above_its_reconstructions() -> None:
    modality = modality_from_dict({"name": "image"})
    originals = np.zeros((9, 4, 4, 3), np.uint8)
    sheet = reconstruction_sheet(modality, originals, originals + 100)
    assert sheet.shape == (4 * 6 + 2, 8 * 6 + 2, 3)
    assert [int(sheet[row, 4, 0]) for row in (4, 10, 16, 22)] == [0, 100, 0, 100]
    assert (sheet[16:, 12:] == 255).all()


def test_label_maps_train(label_folder: Path, model: Model, training: Training,
                          tmp_path: Path) -> None:
    config = model(name="segmentation", num_classes=3, ignore_id=9)
    trained = train_tokenizer(str(label_folder), str(tmp_path / "out"), config, training())
    assert trained.evaluation is not None
    assert trained.evaluation.scores.keys() == {"miou", "pixel_accuracy"}
    codec = Codec.load(str(tmp_path / "out"))
    assert codec.decode(codec.encode(np.zeros((1, 24, 24), np.uint8))).max() < 3


def test_depth_maps_train_with_a_discriminator(
        depth_folder: Path, model: Model, training: Training, tmp_path: Path,
        adversarial: AdversarialConfig) -> None:
    trained = train_tokenizer(str(depth_folder), str(tmp_path / "out"), model(name="depth"),
                              training(adversarial=adversarial))
    assert trained.evaluation is not None
    assert trained.evaluation.scores.keys() == {"abs_rel", "rmse", "delta1"}


def test_without_held_out_images_training_images_are_shown_and_nothing_is_measured(
        image_folder: Folder, model: Model, training: Training, tmp_path: Path) -> None:
    trained = train_tokenizer(str(image_folder(4)), str(tmp_path), model(), training(held_out=0))
    assert trained.evaluation is None and "no image held out, 10 steps" in trained.summary()
    assert (tmp_path / "reconstructions.png").exists()
    assert not (tmp_path / "evaluation.json").exists()


def test_minutes_end_a_training_and_its_rate(image_folder: Folder, model: Model,
                                             training: Training, tmp_path: Path) -> None:
    trained = train_tokenizer(str(image_folder(4)), str(tmp_path), model(),
                              training(steps=None, minutes=0.02))
    last = [line for line in read_metrics(str(tmp_path)) if "train/loss" in line][-1]
    assert 1.2 <= trained.seconds < 10 and last["step"] == trained.step
    assert last["train/learning_rate"] < 1e-3


def test_several_threads_read_at_once_what_one_reads(
        image_folder: Folder, model: Model, training: Training, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch) -> None:
    assert loop.num_readers(torch.device("cpu")) == 1 < loop.num_readers(torch.device("cuda"))
    corpus, settings, weights = str(image_folder(8)), training(steps=3, cache_gib=0.0), []
    samples, together = CorpusDataset.samples, threading.Barrier(2)

    def read(self: CorpusDataset, first: int, count: int) -> np.ndarray:
        together.wait(timeout=120)  # returns once another thread is here, too
        return samples(self, first, count)

    for count in (1, 2):
        monkeypatch.setattr(loop, "num_readers", lambda device, count=count: count)
        monkeypatch.setattr(CorpusDataset, "samples", read if count == 2 else samples)
        train_tokenizer(corpus, str(tmp_path / str(count)), model(), settings)
        weights.append(checkpoints.load_weights(str(tmp_path / str(count))))
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_damaged_images_are_left_out_and_named(image_folder: Folder, model: Model,
                                               training: Training, tmp_path: Path) -> None:
    folder = image_folder(6)
    (folder / "img-002.png").write_bytes(b"no picture")
    trained = train_tokenizer(str(folder), str(tmp_path / "out"), model(),
                              training(held_out_by="name"))
    assert [Path(url).name for url in trained.unreadable] == ["img-002.png"]


def test_an_empty_corpus_is_refused_before_anything_is_written(
        model: Model, training: Training, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no image files"):
        train_tokenizer(str(tmp_path / "empty"), str(tmp_path / "out"), model(), training())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("settings", [{"adversarial": AdversarialConfig(weight=0.5)},
                                      {"perceptual": PerceptualConfig(weight=1.0)}])
def test_colour_losses_on_class_logits_are_refused(
        label_folder: Path, model: Model, training: Training, tmp_path: Path,
        settings: dict[str, object]) -> None:
    name = next(iter(settings))
    with pytest.raises(ValueError, match=rf"training.{name}.weight must be 0 for segmentation"):
        train_tokenizer(str(label_folder), str(tmp_path / "out"),
                        model(name="segmentation", num_classes=3), training(**settings))


def test_a_perceptual_loss_without_weights_is_refused(
        image_folder: Folder, model: Model, training: Training, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="needs VGG16 weights, and none are given"):
        train_tokenizer(str(image_folder(4)), str(tmp_path / "out"), model(),
                        training(perceptual=PerceptualConfig(weight=1.0)))


def test_images_too_small_for_the_perceptual_loss_are_refused_before_training(
        image_folder: Folder, model: Model, training: Training, tmp_path: Path) -> None:
    small = dataclasses.replace(model(), image_size=(24, 8))
    with pytest.raises(ValueError, match=r"perceptual.weight must be 0 for images of 24 x 8 pixels"
                                         ": VGG16 takes sides of at least 16"):
        train_tokenizer(str(image_folder(4)), str(tmp_path / "out"), small,
                        training(perceptual=PerceptualConfig(weight=1.0)))
    assert not (tmp_path / "out").exists()


def test_images_too_small_for_the_discriminator_are_refused_before_training(
        image_folder: Folder, model: Model, training: Training, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"24 x 24 pixels are too small .* of 4 layers"):
        train_tokenizer(str(image_folder(4)), str(tmp_path / "out"), model(),
                        training(adversarial=AdversarialConfig(weight=1.0, num_layers=4)))
    assert not (tmp_path / "out").exists()


def test_a_training_without_an_end_is_refused_before_anything_is_written(
        image_folder: Folder, model: Model, training: Training, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a training needs an end"):
        train_tokenizer(str(image_folder(4)), str(tmp_path / "out"), model(), training(steps=None))
    assert not (tmp_path / "out").exists()
