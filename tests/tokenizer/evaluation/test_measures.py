"""Measures over pixels: what each is, where it applies, and that batches do not matter."""
import dataclasses

import numpy as np
import pytest
import torch

from tokenizer.corpus.modalities import MODALITIES, RGB, Depth, Modality, modality_from_dict
from tokenizer.evaluation.frechet import FeatureStatistics, frechet_distance
from tokenizer.evaluation.inception import load_inception
from tokenizer.evaluation.measures import (
    MEASURES,
    Lpips,
    MultiscaleSimilarity,
    NotMeasured,
    PretrainedFiles,
    ReconstructionFid,
    StructuralSimilarity,
    build_measures,
)
from tokenizer.evaluation.similarity import structural_similarity
from tokenizer.training.config import PerceptualConfig
from tokenizer.training.perceptual import load_perceptual

CPU, NONE = torch.device("cpu"), PretrainedFiles()
SETTINGS = {"segmentation": {"num_classes": 3}}


def pair(count: int = 3, side: int = 32, channels: tuple[int, ...] = (3,),
         dtype: type = np.uint8) -> tuple[np.ndarray, np.ndarray]:
    """Originals, and the same with some noise."""
    generator = np.random.default_rng(0)
    largest = np.iinfo(dtype).max
    pixels = generator.integers(0, largest + 1, (count, side, side, *channels))
    noise = generator.normal(0, largest / 12, pixels.shape)
    return (pixels + noise).clip(0, largest).astype(dtype), pixels.astype(dtype)


def test_ssim_is_the_mean_over_images_with_the_range_of_bytes() -> None:
    found, pixels = pair()
    measure = StructuralSimilarity(RGB(), (32, 32), NONE, CPU)
    measure.add(found, pixels)
    planes = [torch.from_numpy(images.astype(np.float64)).permute(0, 3, 1, 2)
              for images in (found, pixels)]
    figure = measure.figure()
    assert figure.value == pytest.approx(structural_similarity(*planes, 255).mean().item())
    assert figure.conditions["data_range"] == 255 and figure.better == "higher"


@pytest.mark.parametrize("name", MEASURES)
def test_figures_do_not_depend_on_how_images_are_batched(name: str, files: PretrainedFiles,
                                                         small_network: None) -> None:
    side = 176 if name == "ms_ssim" else 32
    found, pixels = pair(4, side)
    whole, parts = (MEASURES[name](RGB(), (side, side), files, CPU) for _ in range(2))
    with torch.inference_mode():
        whole.add(found, pixels)
        for part in (slice(0, 1), slice(1, 4)):
            parts.add(found[part], pixels[part])
    assert whole.figure().value == pytest.approx(parts.figure().value, rel=1e-4, abs=1e-7)
    assert whole.figure().value != 0
    assert whole.figure().conditions == parts.figure().conditions


@pytest.mark.parametrize("input_range", [(-1.0, 1.0), (0.0, 1.0)])
def test_lpips_sees_rounded_pixels_from_minus_1_to_1(files: PretrainedFiles,
                                                     input_range: tuple[float, float]) -> None:
    found, pixels = pair(2)
    measure = Lpips(RGB(input_range=input_range), (32, 32), files, CPU)
    measure.add(found, pixels)
    distance = load_perceptual(PerceptualConfig(
        weight=1.0, vgg16=files.lpips_vgg16, linear=files.lpips_linear))
    planes = [torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1
              for images in (found, pixels)]
    assert measure.figure().value == pytest.approx(distance(*planes).mean().item(), rel=1e-4)


def test_lpips_takes_depth_as_grey(files: PretrainedFiles) -> None:
    found, pixels = pair(2, channels=(), dtype=np.uint16)
    depth, grey = (Lpips(modality, (32, 32), files, CPU) for modality in (Depth(), RGB()))
    depth.add(found, pixels)
    grey.add(*((images / 257).round().astype(np.uint8)[..., None].repeat(3, -1)
               for images in (found, pixels)))
    assert depth.figure().value == pytest.approx(grey.figure().value, rel=0.02)


@pytest.mark.parametrize("cls", [Lpips, ReconstructionFid])
def test_networks_compute_in_full_float32_and_conditions_say_where(
        cls: type[Lpips | ReconstructionFid], files: PretrainedFiles, small_network: None) -> None:
    measure = cls(RGB(), (32, 32), files, CPU)
    network = measure._distance if isinstance(measure, Lpips) else measure._features._network
    seen: list[tuple[bool, str]] = []
    network.register_forward_pre_hook(lambda *_: seen.append(
        (torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision())))
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=True):
        measure.add(*pair(3))
    assert set(seen) == {(False, "highest")}
    assert measure.figure().conditions["arithmetic"] == "float32 without TF32, on cpu"


def test_rfid_is_the_frechet_distance_of_the_networks_features(files: PretrainedFiles) -> None:
    found, pixels = pair(4)
    measure = ReconstructionFid(RGB(), (32, 32), files, CPU)
    measure.add(found, pixels)
    network, sets = load_inception(str(files.inception)), []
    features = [network(torch.from_numpy(images).permute(0, 3, 1, 2)).double().numpy()
                for images in (found, pixels)]
    basis, _ = np.linalg.qr(np.concatenate(features).T)  # 8 axes hold all of them
    for each in features:
        sets.append(FeatureStatistics(basis.shape[1]))
        sets[-1].add(each @ basis)
    figure = measure.figure()
    assert figure.value == pytest.approx(frechet_distance(*sets), rel=1e-6) and figure.value > 0
    assert figure.conditions["caution"].startswith("4 images leave covariances of 2048 features")
    assert figure.conditions["weights"].startswith("sha256:")


def test_enough_images_need_no_caution(files: PretrainedFiles, small_network: None) -> None:
    measure = ReconstructionFid(RGB(), (32, 32), files, CPU)
    measure.add(*pair(12))
    assert "caution" in measure.figure().conditions
    measure.add(*pair(1))
    assert "caution" not in measure.figure().conditions


def test_one_image_has_no_rfid(files: PretrainedFiles, small_network: None) -> None:
    measure = ReconstructionFid(RGB(), (32, 32), files, CPU)
    measure.add(*pair(1))
    with pytest.raises(NotMeasured, match="at least 2 images, got 1"):
        measure.figure()


@pytest.mark.parametrize(("name", "expected"), [
    ("image", set(MEASURES)), ("low_res", set(MEASURES)), ("depth", {"lpips"}),
    ("edges", {"lpips"}), ("normals", {"lpips"}), ("segmentation", set())])
def test_each_modality_has_the_measures_that_mean_something(name: str, expected: set[str],
                                                            files: PretrainedFiles) -> None:
    modality = modality_from_dict({"name": name, **SETTINGS.get(name, {})})
    measures, left_out = build_measures(modality, (192, 192), files, CPU)
    assert {measure.name for measure in measures} == expected
    assert set(left_out) == set(MEASURES) - expected and all(left_out.values())


@pytest.mark.parametrize("name", MODALITIES)
def test_without_weights_it_is_said_how_to_give_them(name: str) -> None:
    modality: Modality = modality_from_dict({"name": name, **SETTINGS.get(name, {})})
    measures, left_out = build_measures(modality, (64, 64), NONE, CPU)
    assert not {"lpips", "rfid"} & {measure.name for measure in measures}
    if name == "image":
        assert "--lpips-vgg16" in left_out["lpips"] and "--inception" in left_out["rfid"]
        assert left_out["ms_ssim"] == "needs sides of at least 176 px, the tokenizer has 64 x 64"


def test_weights_that_are_given_but_missing_are_an_error(files: PretrainedFiles) -> None:
    gone = dataclasses.replace(files, lpips_vgg16="gone.pth")
    with pytest.raises(FileNotFoundError, match=r"gone\.pth does not exist; it should hold VGG16 "
                                                r"weights; give --lpips-vgg16"):
        build_measures(RGB(), (32, 32), gone, CPU)


def test_half_of_lpips_is_refused() -> None:
    with pytest.raises(ValueError, match="LPIPS needs two files, only one is given"):
        PretrainedFiles(lpips_linear="vgg.pth")


def test_a_measure_without_images_is_not_a_number() -> None:
    value = MultiscaleSimilarity(RGB(), (176, 176), NONE, CPU).figure().value
    assert value is not None and np.isnan(value)
