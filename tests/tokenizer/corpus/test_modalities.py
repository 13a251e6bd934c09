"""Modalities: bytes to pixels to inputs and back, losses, scores, settings."""
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from corpus_files import encode, noise

from tokenizer.corpus import modalities
from tokenizer.corpus.images import Crop, centre_crop, decode_image
from tokenizer.corpus.maps import decode_depth, decode_labels
from tokenizer.corpus.modalities import (
    MODALITIES,
    PICTURE_SUFFIXES,
    RGB,
    Depth,
    Edges,
    LabelOutOfRange,
    LowRes,
    Modality,
    Normals,
    Segmentation,
    SizeMismatch,
    add_sums,
    file_modality,
    fit_together,
    modality_from_dict,
    modality_to_dict,
    new_settings,
)


@dataclass(frozen=True)
class Example:
    """A modality with what its files, raw arrays and pixels look like, and its largest input."""
    modality: Modality
    payload: bytes
    pixels: np.ndarray
    largest: float = 1.0


def examples() -> dict[str, Example]:
    generator = np.random.default_rng(0)
    depth = generator.integers(0, 65536, (2, 8, 6), np.uint16)
    labels = generator.integers(0, 5, (2, 8, 6), np.uint8)
    many = generator.integers(0, 900, (2, 8, 6), np.uint16)
    edges = generator.integers(0, 2, (2, 8, 6), np.uint8) * np.uint8(255)
    whole = Crop(left=0, top=0, width=6, height=8)
    normals = np.stack([Normals().fit(noise(seed, 8, 6), whole, (8, 6)) for seed in (3, 4)])
    return {
        "image": Example(RGB(), encode(noise(0)), np.stack([noise(1, 8, 6), noise(2, 8, 6)])),
        "depth": Example(Depth(), encode(depth[0]), depth),
        "depth in deviations": Example(Depth(scaling="standardised"), encode(depth[0]), depth, 8.0),
        "inverse depth": Example(Depth(inverse=True), encode(depth[0]), depth),
        "edges": Example(Edges(), encode(noise(0)), edges),
        "low_res": Example(LowRes(factor=2), encode(noise(0)),
                           np.stack([noise(1, 8, 6), noise(2, 8, 6)])),
        "normals": Example(Normals(), encode(normals[0]), normals),
        "many classes": Example(Segmentation(num_classes=900), encode(many[0]), many),
        "segmentation": Example(Segmentation(num_classes=5), encode(labels[0]), labels),
        "segmentation with bce": Example(Segmentation(num_classes=5, loss="bce"),
                                         encode(labels[0]), labels),
    }


EXAMPLES = examples()


@pytest.fixture(params=EXAMPLES)
def example(request: pytest.FixtureRequest) -> Example:
    return EXAMPLES[request.param]


def test_every_modality_has_an_example() -> None:
    assert {found.modality.name for found in EXAMPLES.values()} == set(MODALITIES)


def test_files_fit_to_pixels_of_the_declared_type(example: Example) -> None:
    raw = example.modality.read(example.payload, "file.png")
    pixels = example.modality.fit(raw, centre_crop(*raw.shape[:2], (4, 4)), (4, 4))
    assert pixels.shape == (4, 4, *example.pixels.shape[3:])
    assert {pixels.dtype, example.modality.pixel_dtype} == {example.pixels.dtype}


def test_pixels_survive_the_way_through_inputs(example: Example) -> None:
    modality, pixels = example.modality, torch.from_numpy(example.pixels)
    inputs = modality.to_inputs(pixels)
    assert inputs.shape == (2, modality.in_channels, 8, 6)
    assert inputs.dtype == torch.float32
    assert inputs.abs().max() <= example.largest
    back = modality.to_pixels(inputs)
    assert back.dtype == pixels.dtype
    assert np.array_equal(back.numpy(), example.pixels)


def test_loss_is_a_scalar_that_falls_towards_the_truth(example: Example) -> None:
    modality, pixels = example.modality, torch.from_numpy(example.pixels)
    truth = modality.to_inputs(pixels)
    scale = 20 if modality.name == "segmentation" else 1
    near = modality.reconstruction_loss(((2 * truth - 1) * scale) if scale > 1 else truth, pixels)
    far = modality.reconstruction_loss(torch.zeros_like(truth).requires_grad_(), pixels)
    assert near.shape == () and near.dtype == torch.float32
    assert near.item() < 1e-4 < far.item()
    far.backward()


def test_squared_and_absolute_differences_are_those_written_out() -> None:
    modality = RGB()
    pixels = torch.tensor([0, 255, 0]).view(1, 1, 1, 3).byte()
    outputs = torch.tensor([-0.5, 1.0, 1.0]).view(1, 3, 1, 1)
    # Differences 0.5, 0 and 2.
    assert modality.reconstruction_loss(outputs, pixels).item() == pytest.approx(2.5 / 3)
    assert modality.reconstruction_loss(outputs, pixels, "l2").item() == pytest.approx(4.25 / 3)


def test_the_score_of_exact_pixels_is_perfect(example: Example) -> None:
    figures = example.modality.difference(example.pixels, example.pixels)
    perfect = {"psnr": 100.0, "abs_rel": 0.0, "rmse": 0.0, "delta1": 1.0, "miou": 1.0,
               "pixel_accuracy": 1.0, "f1": 1.0, "mean_angle": 0.0}
    assert figures
    assert figures == {name: perfect[name] for name in figures}


def test_scores_of_batches_add_up_to_the_score_of_all(example: Example) -> None:
    modality, pixels = example.modality, example.pixels
    outputs = pixels[::-1].copy()
    parts = [modality.sums(outputs[[i]], pixels[[i]]) for i in range(2)]
    assert modality.figures(add_sums(parts)) == pytest.approx(modality.difference(outputs, pixels))


def test_pixels_show_as_rgb(example: Example) -> None:
    shown = example.modality.show(example.pixels)
    assert shown.shape == (2, 8, 6, 3) and shown.dtype == np.uint8


def test_written_files_are_read_back(example: Example) -> None:
    payload, suffix = example.modality.write(example.pixels[0])
    assert suffix == ".png" and suffix in example.modality.suffixes
    if example.modality.file_modality() != example.modality.name:
        pytest.skip("computed from images, it has no files of its own")
    if isinstance(example.modality, Depth) and example.modality.inverse:
        pytest.skip("its pixels are levels of 1 / depth, its files hold depth")
    assert np.array_equal(example.modality.read(payload, "x.png"), example.pixels[0])


def test_settings_travel_as_json(example: Example) -> None:
    settings = modality_to_dict(example.modality)
    assert settings["name"] == example.modality.name
    assert modality_from_dict(json.loads(json.dumps(settings))) == example.modality
    preprocessing = example.modality.preprocessing()
    kind = type(example.modality)
    unsaid = {name for name in settings.keys() & {"input_range", "route", "scaling", "inverse"}
              if getattr(example.modality, name) == getattr(kind, name)}
    assert settings.keys() - preprocessing.keys() == unsaid
    assert all(preprocessing[name] == settings[name] for name in settings.keys() - unsaid)
    assert preprocessing["crop"] == "centre" and "resampling" in preprocessing


def test_resampling_then_fitting_is_fitting() -> None:
    raw = decode_depth(encode(noise(3, 40, 30)[..., 0]))
    crop = centre_crop(40, 30, (16, 16))
    small = Depth().resample(raw, crop, (16, 16))
    whole = Crop(left=0, top=0, width=16, height=16)
    assert np.array_equal(Depth().fit(small, whole, (16, 16)), Depth().fit(raw, crop, (16, 16)))


@pytest.mark.parametrize(("settings", "message"), [
    ({"name": "sound"}, "unknown modality 'sound'; known are depth, edges, image, low_res"),
    ({}, "unknown modality None"),
    ({"name": "segmentation"}, "segmentation.num_classes is missing"),
    ({"name": "segmentation", "num_classes": 0}, "num_classes must be in"),
    ({"name": "segmentation", "num_classes": 5, "loss": "l1"}, "cross_entropy or bce, got 'l1'"),
    ({"name": "segmentation", "num_classes": 5, "ignore_id": -1}, "ignore_id must be in"),
    ({"name": "depth", "range": [1.0, 1.0]}, "low < high"),
    ({"name": "depth", "range": [0.0, float("inf")]}, "finite"),
    ({"name": "depth", "range": [0.0, 1.0], "inverse": True}, r"begin above 0.*got \(0.0, 1.0\)"),
    ({"name": "depth", "range": [0.0, 1.0], "scaling": "standardised"}, "leave one of them out"),
    ({"name": "depth", "scaling": "log"}, "min_max or standardised, got 'log'"),
    ({"name": "edges", "sigma": -1.0}, "sigma must be in .* got -1.0"),
    ({"name": "edges", "low": 0.3}, "0 <= low <= high <= 1, got 0.3 and 0.2"),
    ({"name": "low_res", "factor": 1}, "factor must be at least 2, got 1"),
    ({"name": "image", "input_range": [1, 0]}, r"low < high, got \(1.0, 0.0\)"),
    ({"name": "image", "rnge": 1}, "unknown setting image.rnge")])
def test_wrong_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        modality_from_dict(settings)


def test_a_mirrored_crop_is_the_mirror_image(example: Example) -> None:
    modality, size = example.modality, (8, 6)
    if modality.computed_from is None:
        raw = modality.read(encode(example.pixels[0]), "x.png")
    else:
        raw, size = noise(5, 8, 6).repeat(8, 0).repeat(8, 1), (32, 24)
    rows, columns = raw.shape[0] - 1, raw.shape[1] - 1
    crop = Crop(left=1, top=0, width=columns, height=rows)
    plain = modality.fit(raw, crop, size)
    mirrored = modality.fit(raw, replace(crop, flipped=True), size)
    back = mirrored[:, ::-1].copy()
    if isinstance(modality, Normals):
        back[..., 0] = 255 - back[..., 0]
    assert len(np.unique(plain)) > 1
    assert np.array_equal(back, plain)


def test_inputs_can_be_centred_for_feature_losses(example: Example) -> None:
    modality = example.modality
    inputs = modality.to_inputs(torch.from_numpy(example.pixels))
    assert torch.equal(modality.centred(inputs), inputs / example.largest)
    assert RGB(input_range=(0, 1)).centred(torch.tensor([0.0, 0.5, 1.0])).tolist() == [-1, 0, 1]


def test_a_computed_modality_reads_what_its_images_hold(example: Example) -> None:
    modality = example.modality
    held = file_modality(modality.name)
    if modality.computed_from is None:
        assert held == modality.name
    else:
        assert modality.suffixes == MODALITIES[held].suffixes
        raw = modality.read(example.payload, "x.png")
        assert np.array_equal(raw, modality_from_dict({"name": held}).read(example.payload, "x"))


def test_a_new_file_in_the_package_is_a_new_modality(tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "thermal.py").write_text(
        "from tokenizer.corpus.modalities.image import RGB\n\n\n"
        "class Thermal(RGB):\n    name = 'thermal'\n")
    monkeypatch.setattr(modalities, "__path__", [*modalities.__path__, str(tmp_path)])
    found = modalities._all_modalities()
    assert found.keys() - MODALITIES.keys() == {"thermal"}
    assert found.items() >= MODALITIES.items()


def test_a_crop_is_the_same_in_image_and_map() -> None:
    labels = np.random.default_rng(4).integers(0, 5, (37, 53), np.uint8)
    image = labels[..., None].repeat(3, 2) * 50
    modalities = {"image": RGB(), "segmentation": Segmentation(num_classes=5)}
    raws = {"image": image, "segmentation": labels.astype(np.uint16)}
    crop = Crop(left=11, top=3, width=30, height=30, flipped=True)
    fitted = fit_together(modalities, raws, crop, dict.fromkeys(modalities, (30, 30)))
    assert np.array_equal(fitted["image"][..., 0], fitted["segmentation"] * 50)
    assert np.array_equal(fitted["segmentation"], labels[3:33, 11:41][:, ::-1])


def test_a_map_of_another_size_than_its_image_is_refused() -> None:
    modalities = {"image": RGB(), "depth": Depth()}
    raws = {"image": noise(0, 8, 9), "depth": np.zeros((8, 8), np.float32)}
    with pytest.raises(SizeMismatch, match="depth map is 8 x 8 pixels, its image 9 x 8"):
        fit_together(modalities, raws, centre_crop(8, 8, (4, 4)), dict.fromkeys(modalities, (4, 4)))


def test_psnr_is_the_mean_over_images_in_decibels() -> None:
    truth = np.zeros((2, 4, 4, 3), np.uint8)
    outputs = truth.copy()
    outputs[0], outputs[1] = 255, 51  # 0 dB, and 10 log10(25) = 13.98 dB
    assert RGB().difference(outputs, truth)["psnr"] == pytest.approx((0 + 13.9794) / 2, abs=1e-4)


def test_the_spec_of_plain_images_is_the_one_of_older_corpora() -> None:
    assert RGB().preprocessing() == {"name": "image", "crop": "centre",
                                     "resampling": "bilinear with antialiasing"}
    assert RGB(input_range=(0.0, 1.0)).preprocessing()["input_range"] == [0.0, 1.0]


@pytest.mark.parametrize("kind", [RGB, LowRes, Edges])
def test_a_route_is_said_where_it_is_not_the_first(kind: type[RGB]) -> None:
    assert "route" not in kind().preprocessing()
    assert kind(route="srgb").preprocessing()["route"] == "srgb"
    assert kind(route="srgb").reading == RGB(route="srgb").reading != kind().reading
    with pytest.raises(ValueError, match="route must be stored or .*, got 'adobe'"):
        kind(route="adobe")
    assert new_settings(kind.name) == {"name": kind.name, "route": "srgb"}


def test_maps_have_no_route() -> None:
    assert new_settings("depth") == {"name": "depth"}
    assert new_settings("normals") == {"name": "normals"}
    with pytest.raises(ValueError, match="normals are directions, not colours"):
        Normals(route="srgb")


@pytest.mark.parametrize(("input_range", "values"), [
    ((-1.0, 1.0), [-1.0, -0.2, 1.0]), ((0.0, 1.0), [0.0, 0.4, 1.0]),
    ((-0.5, 2.0), [-0.5, 0.5, 2.0])])
def test_images_reach_the_model_in_its_input_range(input_range: tuple[float, float],
                                                   values: list[float]) -> None:
    modality = RGB(input_range=input_range)
    pixels = torch.tensor([0, 102, 255], dtype=torch.uint8).reshape(1, 1, 3, 1).repeat(1, 1, 1, 3)
    inputs = modality.to_inputs(pixels)
    assert inputs[0, 0, 0].tolist() == pytest.approx(values)
    assert torch.equal(modality.to_pixels(inputs), pixels)
    assert modality.reconstruction_loss(inputs, pixels).item() == 0


def test_the_default_range_computes_bit_for_bit_as_it_always_did() -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).repeat(1, 1, 1, 3)
    inputs = RGB().to_inputs(levels)
    assert torch.equal(inputs, levels.permute(0, 3, 1, 2).float() / 127.5 - 1)


@pytest.mark.parametrize("picture", PICTURE_SUFFIXES)
def test_images_are_written_in_every_picture_format(picture: str) -> None:
    pixels = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    payload, suffix = RGB().write(pixels, picture)
    assert suffix == PICTURE_SUFFIXES[picture]
    assert np.abs(decode_image(payload).astype(int) - pixels).max() <= 3


def test_an_unknown_picture_format_is_refused() -> None:
    with pytest.raises(ValueError, match="png, jpeg, webp; got 'gif'"):
        RGB().write(noise(0), "gif")


def test_outputs_beyond_the_range_are_clipped_and_rounded() -> None:
    outputs = torch.tensor([-3.0, -0.001, 0.001, 3.0]).reshape(1, 1, 2, 2)
    assert RGB().to_pixels(outputs.repeat(1, 3, 1, 1))[0, ..., 0].tolist() == [[0, 127], [128, 255]]
    assert Depth().to_pixels(outputs)[0].tolist() == [[0, 32735], [32800, 65535]]


def test_depth_fills_the_range_of_each_crop() -> None:
    raw = np.array([[2.0, 4.0], [3.0, 100.0]], np.float32)
    crop = Crop(left=0, top=0, width=2, height=1)
    assert Depth().fit(raw, crop, (1, 2)).tolist() == [[0, 65535]]
    assert Depth().fit(np.full((4, 4), 7, np.float32), crop, (2, 2)).max() == 0


def test_depth_of_a_fixed_range_keeps_units_and_clips() -> None:
    raw = np.array([[-1.0, 0.0, 5.0, 10.0, 99.0]], np.float32)
    crop = Crop(left=0, top=0, width=5, height=1)
    assert Depth(range=(0.0, 10.0)).fit(raw, crop, (1, 5)).tolist() == [[0, 0, 32768, 65535, 65535]]


def test_depth_scores_are_relative_and_absolute() -> None:
    truth = np.array([[[32768, 0]]], np.uint16)
    outputs = np.array([[[16384, 0]]], np.uint16)
    figures = Depth().difference(outputs, truth)
    assert figures["abs_rel"] == pytest.approx(0.5)
    assert figures["rmse"] == pytest.approx(0.25 / 2 ** 0.5, rel=1e-4)


def test_a_label_outside_the_classes_is_named_with_the_remedy() -> None:
    payload = encode(np.array([[0, 4, 11, 12, 12]], np.uint8))
    with pytest.raises(LabelOutOfRange, match=r"class ids 11, 12 at 3 pixels.* takes 0 to 4; set"):
        Segmentation(num_classes=5).read(payload, "x.png")
    with pytest.raises(LabelOutOfRange, match="class ids 12 at 2 pixels.* and ignore_id=11"):
        Segmentation(num_classes=11, ignore_id=11).read(payload, "x.png")


@pytest.mark.parametrize(("num_classes", "ignore_id", "dtype"), [
    (256, None, np.uint8), (257, None, np.uint16), (11, 255, np.uint8), (11, 256, np.uint16)])
def test_label_pixels_take_the_smallest_type(num_classes: int, ignore_id: int | None,
                                             dtype: type) -> None:
    assert Segmentation(num_classes=num_classes, ignore_id=ignore_id).pixel_dtype == dtype


@pytest.mark.parametrize("ignore_id", [0, 3, 255])
@pytest.mark.parametrize("loss", ["cross_entropy", "bce"])
def test_ignored_pixels_count_nowhere(ignore_id: int, loss: str) -> None:
    modality = Segmentation(num_classes=3, ignore_id=ignore_id, loss=loss)
    pixels = torch.tensor([[[1, 2, ignore_id, ignore_id]]], dtype=torch.uint8)
    inputs = modality.to_inputs(pixels)
    assert inputs[0, :, 0].sum(0).tolist() == [1, 1, 0, 0]
    logits = torch.randn(1, 3, 1, 4, generator=torch.Generator().manual_seed(0))
    changed = logits.clone()
    changed[..., 2:] += 5
    first, second = (modality.reconstruction_loss(found, pixels) for found in (logits, changed))
    assert torch.equal(first, second)
    outputs = pixels.numpy().copy()
    outputs[..., 2:] = 1
    assert modality.difference(outputs, pixels.numpy())["miou"] == 1.0


def test_a_batch_without_any_class_has_loss_zero() -> None:
    modality = Segmentation(num_classes=3, ignore_id=9)
    pixels = torch.full((1, 2, 2), 9, dtype=torch.uint8)
    assert modality.reconstruction_loss(torch.randn(1, 3, 2, 2), pixels).item() == 0
    assert modality.difference(np.zeros((1, 2, 2), np.uint8), pixels.numpy())["miou"] == 0


def test_miou_is_the_mean_over_classes_that_occur() -> None:
    truth = np.array([[[0, 0, 1, 1]]], np.uint8)
    outputs = np.array([[[0, 1, 1, 1]]], np.uint8)
    figures = Segmentation(num_classes=10).difference(outputs, truth)
    assert figures["miou"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert figures["pixel_accuracy"] == 0.75


def test_labels_are_resampled_without_mixing() -> None:
    labels = decode_labels(encode(np.array([[0, 4]] * 8, np.uint8).repeat(4, 1)))
    pixels = Segmentation(num_classes=5).fit(labels, centre_crop(8, 8, (3, 3)), (3, 3))
    assert set(np.unique(pixels)) == {0, 4}
