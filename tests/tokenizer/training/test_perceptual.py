"""LPIPS against a computation by hand with drawn weights, and the words when files are missing."""
import dataclasses
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from tokenizer import storage
from tokenizer.training.config import PerceptualConfig
from tokenizer.training.perceptual import PerceptualDistance, load_perceptual

CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
CHANNELS = (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
"""Input channels of the first convolution, then output channels of each."""


def drawn_weights() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Random tensors under the published names, with one that must be ignored."""
    generator = torch.Generator().manual_seed(0)
    vgg16 = {"classifier.0.weight": torch.zeros(1)}
    for index, before, after in zip(CONVOLUTIONS, CHANNELS, CHANNELS[1:], strict=False):
        scale = (2 / (9 * before)) ** 0.5
        vgg16[f"features.{index}.weight"] = scale * torch.randn(after, before, 3, 3,
                                                                generator=generator)
        vgg16[f"features.{index}.bias"] = 0.1 * torch.randn(after, generator=generator)
    linear = {f"lin{index}.model.1.weight": torch.rand(1, channels, 1, 1, generator=generator)
              for index, channels in enumerate((64, 128, 256, 512, 512))}
    return vgg16, linear


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> PerceptualConfig:
    """A perceptual loss whose two files hold the drawn weights."""
    folder = tmp_path_factory.mktemp("weights")
    vgg16, linear = drawn_weights()
    safetensors.torch.save_file(vgg16, folder / "vgg16.safetensors")
    torch.save(linear, folder / "vgg.pth")
    return PerceptualConfig(weight=1.0, vgg16=str(folder / "vgg16.safetensors"),
                            linear=str(folder / "vgg.pth"))


def by_hand(first: Tensor, second: Tensor) -> Tensor:
    """LPIPS of one pair ``(1, 3, H, W)``, written out."""
    vgg16, linear = drawn_weights()
    shift = torch.tensor([-0.030, -0.088, -0.188])[:, None, None]
    scale = torch.tensor([0.458, 0.448, 0.450])[:, None, None]
    total = torch.zeros(())
    pair = [(first - shift) / scale, (second - shift) / scale]
    for index in CONVOLUTIONS:
        if index in (5, 10, 17, 24):
            pair = [F.max_pool2d(features, 2) for features in pair]
        weight, bias = vgg16[f"features.{index}.weight"], vgg16[f"features.{index}.bias"]
        pair = [F.conv2d(features, weight, bias, padding=1).relu() for features in pair]
        if index in (2, 7, 14, 21, 28):
            block = (2, 7, 14, 21, 28).index(index)
            units = [features / (features.norm(dim=1, keepdim=True) + 1e-10) for features in pair]
            difference = (units[0] - units[1]) ** 2 * linear[f"lin{block}.model.1.weight"]
            total = total + difference.sum(1).mean()
    return total


def test_distance_is_that_of_a_computation_by_hand(files: PerceptualConfig) -> None:
    distance = load_perceptual(files)
    generator = torch.Generator().manual_seed(1)
    first, second = torch.rand(2, 2, 3, 32, 48, generator=generator) * 2 - 1
    found = distance(first, second)
    assert found.shape == (2,)
    for index in range(2):
        expected = by_hand(first[index:index + 1], second[index:index + 1])
        torch.testing.assert_close(found[index], expected, rtol=1e-4, atol=1e-6)


def test_weights_are_had_from_urls_and_checked_by_hash(files: PerceptualConfig, tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMG2TOKENS_CACHE", str(tmp_path / "cache"))
    assert files.vgg16 and files.linear
    for path in (files.vgg16, files.linear):
        storage.write_bytes(f"memory://perceptual/{Path(path).name}", Path(path).read_bytes())
    digest = storage.sha256(Path(files.linear).read_bytes())
    remote = PerceptualConfig(weight=1.0, vgg16="memory://perceptual/vgg16.safetensors",
                              linear=f"memory://perceptual/vgg.pth#sha256={digest}")
    found = load_perceptual(remote).state_dict()
    for name, tensor in load_perceptual(files).state_dict().items():
        assert torch.equal(found[name], tensor)
    wrong = dataclasses.replace(remote, linear="memory://perceptual/vgg.pth#sha256=0000")
    with pytest.raises(ValueError, match=f"{digest}, which should begin with 0000.*weight=0"):
        load_perceptual(wrong)


@pytest.mark.parametrize("name", ["lin{}.model.1.weight", "lins.{}.model.1.weight",
                                  "lin{}.model.0.weight", "lin{}.weight"])
def test_linear_layers_load_under_each_name_in_use(files: PerceptualConfig, tmp_path: Path,
                                                   name: str) -> None:
    tensors = [drawn_weights()[1][f"lin{index}.model.1.weight"] for index in range(5)]
    torch.save({name.format(index): tensor for index, tensor in enumerate(tensors)},
               tmp_path / "vgg.pth")
    found = load_perceptual(dataclasses.replace(files, linear=str(tmp_path / "vgg.pth")))
    assert all(torch.equal(found.linear[index], tensor) for index, tensor in enumerate(tensors))


def test_the_state_of_a_whole_lpips_serves_for_both_files(files: PerceptualConfig,
                                                          tmp_path: Path) -> None:
    vgg16, linear = drawn_weights()
    slices = {0: 1, 2: 1, 5: 2, 7: 2, 10: 3, 12: 3, 14: 3, 17: 4, 19: 4, 21: 4, 24: 5, 26: 5, 28: 5}
    whole = {f"net.slice{slices[index]}.{index}.{kind}": vgg16[f"features.{index}.{kind}"]
             for index in CONVOLUTIONS for kind in ("weight", "bias")} | linear
    torch.save(whole, tmp_path / "lpips.pth")
    place = str(tmp_path / "lpips.pth")
    found = load_perceptual(PerceptualConfig(weight=1.0, vgg16=place, linear=place)).state_dict()
    for name, tensor in load_perceptual(files).state_dict().items():
        assert torch.equal(found[name], tensor)


def test_gradients_are_finite_where_no_feature_is_active(files: PerceptualConfig) -> None:
    distance = load_perceptual(files)
    for name, parameter in distance.features.named_parameters():
        if name.endswith("bias"):
            parameter.data.fill_(-1e3)
    image = torch.zeros(1, 3, 16, 16, requires_grad=True)
    total = distance(image, torch.ones(1, 3, 16, 16)).sum()
    total.backward()
    assert total.item() == 0 and image.grad is not None and image.grad.isfinite().all()


def test_distance_is_zero_for_equal_images_and_grows_with_noise(files: PerceptualConfig) -> None:
    distance = load_perceptual(files)
    generator = torch.Generator().manual_seed(1)
    image, noise = torch.randn(2, 1, 3, 32, 32, generator=generator)
    near, far = distance(image, image + 0.1 * noise), distance(image, image + 0.5 * noise)
    assert distance(image, image).item() == 0 and 0 < near.item() < far.item()


def test_grey_images_count_as_three_equal_channels(files: PerceptualConfig) -> None:
    distance = load_perceptual(files)
    grey, other = torch.rand(2, 1, 1, 16, 16, generator=torch.Generator().manual_seed(2))
    expected = distance(grey.repeat(1, 3, 1, 1), other.repeat(1, 3, 1, 1))
    torch.testing.assert_close(distance(grey, other), expected)


def test_gradients_reach_the_images_and_no_weight(files: PerceptualConfig) -> None:
    distance = load_perceptual(files)
    image = torch.zeros(1, 3, 16, 16, requires_grad=True)
    distance(image, torch.ones(1, 3, 16, 16)).sum().backward()
    assert image.grad is not None and image.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in distance.parameters())


def test_features_have_the_size_of_vgg16_without_its_classifier() -> None:
    features = PerceptualDistance().features
    assert sum(parameter.numel() for parameter in features.parameters()) == 14_714_688


def test_weights_not_given_are_asked_for_with_the_settings_to_give() -> None:
    with pytest.raises(FileNotFoundError, match=r"needs VGG16 weights.*perceptual\.vgg16=FILE.*"
                                                r"or switch the term off .*weight=0"):
        load_perceptual(PerceptualConfig(weight=1.0))


def test_a_file_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.pth does not exist; it should hold VGG16"):
        load_perceptual(PerceptualConfig(weight=1.0, vgg16=str(tmp_path / "gone.pth")))


@pytest.mark.parametrize("name", ["bad.pth", "bad.safetensors"])
@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 cut short"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} holds no VGG16 weights that can be read"):
        load_perceptual(PerceptualConfig(weight=1.0, vgg16=str(tmp_path / name)))


def test_a_file_with_other_tensors_is_refused_with_the_tensor_that_lacks(
        files: PerceptualConfig) -> None:
    swapped = PerceptualConfig(weight=1.0, vgg16=files.linear, linear=files.linear)
    with pytest.raises(ValueError, match=r"should hold features\.0\.weight of shape "
                                         r"\(64, 3, 3, 3\), but holds nothing"):
        load_perceptual(swapped)


def test_a_list_of_tensors_is_refused(tmp_path: Path) -> None:
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="holds a list, not VGG16 weights by name"):
        load_perceptual(PerceptualConfig(weight=1.0, vgg16=str(tmp_path / "list.pth")))
