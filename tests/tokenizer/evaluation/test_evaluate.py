"""A whole evaluation: figures by hand, conditions, reports of every modality, and bad images."""
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tokenizer import checkpoints, recipes
from tokenizer.codec import Codec
from tokenizer.corpus.images import centre_crop
from tokenizer.corpus.sources import open_source
from tokenizer.evaluation.evaluate import EvaluationConfig, _examples, evaluate_tokenizer
from tokenizer.evaluation.images import EvaluationImages
from tokenizer.evaluation.measures import MEASURES, PretrainedFiles
from tokenizer.training.metrics import evaluate
from tokenizer.vqgan.model import KIND, VQGAN, VQGANConfig

Folder = Callable[[int], Path]
SCORES = {"image": ["psnr"], "low_res": ["psnr"], "depth": ["abs_rel", "rmse", "delta1"],
          "segmentation": ["miou", "pixel_accuracy"], "edges": ["f1"], "normals": ["mean_angle"]}
CODES = ["codes_used", "perplexity", "dead_codes"]


def save_tokenizer(folder: Path, modality: dict[str, Any]) -> str:
    """A tokenizer of 32 px with random weights."""
    config = recipes.tiny(modality).model
    torch.manual_seed(0)
    checkpoints.save_config(str(folder), KIND, config)
    checkpoints.save_weights(str(folder), VQGAN(config).codec_weights())
    return str(folder)


@pytest.fixture
def tokenizer(tmp_path: Path) -> str:
    return save_tokenizer(tmp_path / "tok", {"name": "image"})


@pytest.fixture
def depth_maps(tmp_path: Path) -> Path:
    """Five depth maps of 16 bits."""
    folder = tmp_path / "maps"
    folder.mkdir()
    for index in range(5):
        plane = np.add.outer(np.arange(40) * (index + 1), np.arange(36)) * 100 + 500
        Image.fromarray(plane.astype(np.uint16)).save(folder / f"map-{index}.png")
    return folder


def load(folder: object) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((Path(str(folder)) / "evaluation.json").read_text())
    return data


def test_figures_are_those_of_the_codec_by_hand(tokenizer: str, image_folder: Folder) -> None:
    folder = image_folder(5)
    report = evaluate_tokenizer(EvaluationConfig(tokenizer=tokenizer, corpus=str(folder)))
    codec = Codec.load(tokenizer)
    pixels = []
    for path in sorted(folder.iterdir()):
        image = Image.open(path).convert("RGB")
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        crop = image.crop((left, top, left + side, top + side))
        pixels.append(np.asarray(crop.resize((32, 32), Image.Resampling.BILINEAR)))
    codes = codec.encode(np.stack(pixels))
    errors = np.square(codec.decode(codes).astype(float) - np.stack(pixels)).mean((1, 2, 3))
    shares = np.bincount(codes.ravel(), minlength=32) / codes.size
    entropy = -(shares[shares > 0] * np.log2(shares[shares > 0])).sum()
    values = {name: figure.value for name, figure in report.figures.items()}
    assert values["psnr"] == pytest.approx((10 * np.log10(255 ** 2 / errors)).mean(), abs=0.05)
    assert values["codes_used"] == len(np.unique(codes)) / 32
    assert values["dead_codes"] == 32 - len(np.unique(codes))
    assert values["perplexity"] == pytest.approx(2 ** entropy, rel=1e-5)


def test_training_and_evaluation_find_the_same(tokenizer: str, image_folder: Folder) -> None:
    folder = image_folder(6)
    report = evaluate_tokenizer(EvaluationConfig(tokenizer=tokenizer, corpus=str(folder)))
    model = VQGAN.from_weights(checkpoints.load_config(tokenizer, KIND, VQGANConfig),
                               checkpoints.load_weights(tokenizer))
    modality = model.config.build_modality()
    images = EvaluationImages(open_source(str(folder)), modality, (32, 32))
    other = evaluate(model, modality, (pixels for _, pixels in images.batches(4)))
    assert report.figures["psnr"].value == pytest.approx(other.scores["psnr"], abs=1e-3)
    assert report.figures["perplexity"].value == pytest.approx(other.usage.perplexity)


@pytest.mark.parametrize(("settings", "source"), [
    ({"name": "image"}, "photos"), ({"name": "low_res"}, "photos"), ({"name": "edges"}, "photos"),
    ({"name": "normals"}, "photos"), ({"name": "depth"}, "maps"),
    ({"name": "depth", "scaling": "standardised"}, "maps"),
    ({"name": "segmentation", "num_classes": 3}, "labels")])
def test_every_modality_has_a_report(tmp_path: Path, image_folder: Folder, depth_maps: Path,
                                     settings: dict[str, Any], source: str) -> None:
    image_folder(5)
    (tmp_path / "labels").mkdir()
    for index in range(5):
        labels = np.arange(40 * 40).reshape(40, 40) // (100 + index) % 3
        Image.fromarray(labels.astype(np.uint8)).save(tmp_path / f"labels/{index}.png")
    out = tmp_path / "out"
    report = evaluate_tokenizer(EvaluationConfig(
        tokenizer=save_tokenizer(tmp_path / "tok", settings), corpus=str(tmp_path / source),
        out=str(out)))
    data = load(out)
    expected = ["rmse"] if "scaling" in settings else SCORES[settings["name"]]
    names = [name for name in data["figures"] if name not in MEASURES]
    assert names == [*expected, *CODES]
    for name, figure in data["figures"].items():
        conditions = figure["conditions"]
        assert conditions["num_images"] == 5 and conditions["reference"].startswith("sha256:"), name
        assert {"range", "rounding", "resize", "crop", "image_size", "tokenizer",
                "precision"} <= conditions.keys()
        assert figure["label"] in report.table()
    assert set(data["figures"]) | set(data["left_out"]) >= set(MEASURES)
    assert [example["rank"] for example in data["examples"]] == ["best", "median", "worst"]
    picture = np.asarray(Image.open(out / "examples.png"))
    assert picture.shape == (3 * (2 * 132 + 14) + 4, 136, 3)


def test_class_maps_say_what_is_compared(tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    Image.fromarray(np.full((32, 32), 9, np.uint8)).save(tmp_path / "maps/ignored.png")
    Image.fromarray(np.eye(32, dtype=np.uint8)).save(tmp_path / "maps/line.png")
    Image.fromarray(np.full((32, 32), 3, np.uint8)).save(tmp_path / "maps/unknown.png")
    tokenizer = save_tokenizer(tmp_path / "tok", {"name": "segmentation", "num_classes": 3,
                                                  "ignore_id": 9})
    report = evaluate_tokenizer(EvaluationConfig(tokenizer=tokenizer,
                                                 corpus=str(tmp_path / "maps")))
    conditions = report.figures["miou"].conditions
    assert conditions["range"] == "class ids 0 to 2, without pixels of 9"
    assert conditions["rounding"] == "the class of the greatest logit"
    assert conditions["num_images"] == 2
    assert [Path(url).name for url in report.unreadable] == ["unknown.png"]
    assert report.table().count("segmentation maps are no colour images") == 1


def test_pretrained_weights_add_lpips_and_rfid(tokenizer: str, image_folder: Folder,
                                               files: PretrainedFiles, small_network: None) -> None:
    report = evaluate_tokenizer(EvaluationConfig(
        tokenizer=tokenizer, corpus=str(image_folder(3)), files=files))
    assert {"ssim", "lpips", "rfid"} <= report.figures.keys()
    assert report.left_out.keys() == {"ms_ssim"}
    assert "3 images leave covariances of 12 features" in report.table()


def test_one_image_leaves_rfid_out_with_the_reason(tokenizer: str, image_folder: Folder,
                                                   files: PretrainedFiles,
                                                   small_network: None) -> None:
    report = evaluate_tokenizer(EvaluationConfig(
        tokenizer=tokenizer, corpus=str(image_folder(1)), files=files))
    assert report.left_out["rfid"] == "a covariance needs at least 2 images, got 1"
    assert [example.key for example in report.examples] == ["img-000"] * 3


def test_unreadable_images_are_listed_counted_and_change_nothing_else(
        tokenizer: str, image_folder: Folder, tmp_path: Path) -> None:
    folder = image_folder(4)
    config = EvaluationConfig(tokenizer=tokenizer, corpus=str(folder), out=str(tmp_path / "a"))
    whole = evaluate_tokenizer(config)
    (folder / "bad.png").write_bytes(b"no image")
    (folder / "empty.jpg").write_bytes(b"")
    report = evaluate_tokenizer(dataclasses.replace(config, out=str(tmp_path / "b")))
    assert report.figures == whole.figures and report.num_images == 4
    corpus = load(tmp_path / "b")["corpus"]
    assert (corpus["num_found"], corpus["num_measured"], corpus["num_unreadable"]) == (6, 4, 2)
    assert [Path(url).name for url in corpus["unreadable"]] == ["bad.png", "empty.jpg"]
    assert "2 unreadable" in report.table()


def test_without_one_readable_image_the_first_reason_is_given(tokenizer: str,
                                                              tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/bad.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"not one of 1 images can be read; .*bad\.png: "):
        evaluate_tokenizer(EvaluationConfig(tokenizer=tokenizer, corpus=str(tmp_path / "photos")))


def test_equal_evaluations_write_equal_files(tokenizer: str, image_folder: Folder,
                                             tmp_path: Path) -> None:
    config = EvaluationConfig(tokenizer=tokenizer, corpus=str(image_folder(5)))
    for name in ("a", "b"):
        evaluate_tokenizer(dataclasses.replace(config, out=str(tmp_path / name)))
    for name in ("evaluation.json", "examples.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_batch_size_moves_no_figure(tokenizer: str, image_folder: Folder) -> None:
    config = EvaluationConfig(tokenizer=tokenizer, corpus=str(image_folder(7)), batch_size=1)
    one, many = (evaluate_tokenizer(dataclasses.replace(config, batch_size=size)).figures
                 for size in (1, 5))
    for name, figure in one.items():
        assert many[name].value == pytest.approx(figure.value, rel=1e-3), name
    assert one["psnr"].conditions == many["psnr"].conditions


def test_several_workers_write_the_files_of_one(tokenizer: str, image_folder: Folder,
                                                tmp_path: Path) -> None:
    config = EvaluationConfig(tokenizer=tokenizer, corpus=str(image_folder(9)), batch_size=2,
                              precision="bf16")
    for workers in (1, 3):
        evaluate_tokenizer(dataclasses.replace(config, num_workers=workers,
                                               out=str(tmp_path / str(workers))))
    for name in ("evaluation.json", "examples.png"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "3" / name).read_bytes()


def test_bf16_counts_the_codes_that_change(tokenizer: str, image_folder: Folder) -> None:
    config = EvaluationConfig(tokenizer=tokenizer, corpus=str(image_folder(8)), precision="bf16")
    figure = evaluate_tokenizer(config).figures["codes_changed"]
    codec = Codec.load(tokenizer)
    model = VQGAN.from_weights(checkpoints.load_config(tokenizer, KIND, VQGANConfig),
                               checkpoints.load_weights(tokenizer))
    images = EvaluationImages(open_source(config.corpus), codec.modality, (32, 32))
    pixels = np.concatenate([pixels for _, pixels in images.batches(8)])
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        latents = model.encode_to_latents(codec.modality.to_inputs(torch.from_numpy(pixels)))
    codes = model.quantize.encode(latents.float()).numpy()
    assert figure.value == pytest.approx((codes != codec.encode(pixels)).mean())
    assert figure.label == "codes changed in bf16" and 0 < figure.value < 0.5
    assert figure.conditions["precision"].startswith("bf16 autocast")


def test_float32_says_nothing_of_changed_codes(tokenizer: str, image_folder: Folder) -> None:
    report = evaluate_tokenizer(EvaluationConfig(tokenizer=tokenizer, corpus=str(image_folder(2))))
    assert "codes_changed" not in report.figures
    assert report.figures["psnr"].conditions["precision"] == "float32"


def test_examples_are_the_best_the_median_and_the_worst(tokenizer: str, image_folder: Folder,
                                                        tmp_path: Path) -> None:
    scores = [(f"{value:02d}", float(value)) for value in (7, 3, 9, 1, 5, 8, 2, 6, 4)]
    found = _examples(scores, lower_is_better=False)
    assert [example.key for example in found] == ["09", "08", "07", "06", "05", "04", "03", "02",
                                                  "01"]
    assert [example.rank for example in found[::3]] == ["best", "median", "worst"]
    assert [example.key for example in _examples(scores, True)] == [
        f"{value:02d}" for value in range(1, 10)]
    many = _examples([(str(value), float(value)) for value in range(100)], False)
    assert len(many) == 12 and many[4].score == 51 and many[-1].score == 0


def test_depth_counts_small_errors_as_the_best(tmp_path: Path, depth_maps: Path) -> None:
    report = evaluate_tokenizer(EvaluationConfig(
        tokenizer=save_tokenizer(tmp_path / "tok", {"name": "depth"}), corpus=str(depth_maps)))
    scores = {example.rank: example.score for example in report.examples}
    assert scores["best"] < scores["median"] < scores["worst"]


def test_pictures_show_originals_above_their_reconstructions(
        tokenizer: str, image_folder: Folder, tmp_path: Path) -> None:
    folder = image_folder(3)
    report = evaluate_tokenizer(EvaluationConfig(tokenizer=tokenizer, corpus=str(folder)))
    picture = np.asarray(Image.open(Path(tokenizer) / "evaluation/examples.png"))
    codec = Codec.load(tokenizer)
    best = codec.modality.read((folder / f"{report.examples[0].key}.png").read_bytes(), "")
    pixels = codec.modality.fit(best, centre_crop(*best.shape[:2], (32, 32)), (32, 32))[None]
    found = codec.decode(codec.encode(pixels))
    for image, top in ((pixels, 18), (found, 18 + 128 + 4)):
        assert np.array_equal(picture[top:top + 128:4, 4:4 + 128:4], image[0])


@pytest.mark.parametrize(("settings", "words"), [
    ({"precision": "fp8"}, "precision is float32 or bf16, got 'fp8'"),
    ({"limit": 0}, "limit must be at least 1, got 0"),
    ({"num_workers": 0}, "num_workers must be at least 1, got 0"),
    ({"held_out": 0}, "held_out must be more than 0"),
    ({"held_out": 1.5}, r"held_out is a count of keys or a share in \[0, 1\), got 1.5"),
    ({"held_out": 2, "held_out_by": "size"}, "held_out_by is hash or name, got 'size'")])
def test_wrong_settings_are_refused_with_their_value(settings: dict[str, Any],
                                                     words: str) -> None:
    with pytest.raises(ValueError, match=words):
        EvaluationConfig(tokenizer="tok", corpus="photos", **settings)


def test_a_corpus_of_another_kind_is_refused(tokenizer: str, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "none/a.txt").write_bytes(b"text")
    with pytest.raises((FileNotFoundError, ValueError), match="none"):
        evaluate_tokenizer(EvaluationConfig(tokenizer=tokenizer, corpus=str(tmp_path / "none")))
