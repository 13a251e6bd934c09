"""FID's InceptionV3 against a forward pass written out, and the published layout of its file."""
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tokenizer.evaluation.inception import (
    NUM_FEATURES,
    InceptionFeatures,
    load_head,
    load_inception,
)


def drawn() -> dict[str, Tensor]:
    """Random weights under the published names, scaled so that features neither fade nor grow."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, tensor in InceptionFeatures().state_dict().items():
        if name.endswith("conv.weight"):
            state[name] = torch.randn(tensor.shape, generator=generator) * (
                2 / tensor[0].numel()) ** 0.5
        elif name.endswith(("bn.weight", "running_var")):
            state[name] = 0.5 + torch.rand(tensor.shape, generator=generator)
        elif not name.endswith("num_batches_tracked"):
            state[name] = 0.1 * torch.randn(tensor.shape, generator=generator)
    return state


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return drawn()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, state: dict[str, Tensor]) -> Path:
    """The weights as published: with the classifier of 1008 classes."""
    path = tmp_path_factory.mktemp("inception") / "inception.pth"
    torch.save(state | {"fc.weight": torch.eye(1008, 2048), "fc.bias": torch.ones(1008)}, path)
    return path


def by_hand(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """Features ``(B, 2048)`` of images ``(B, 3, 299, 299)`` in [-1, 1]."""
    def conv(x: Tensor, name: str, stride: int = 1, pad: tuple[int, int] = (0, 0)) -> Tensor:
        x = F.conv2d(x, state[f"{name}.conv.weight"], None, stride, pad)
        mean, var = state[f"{name}.bn.running_mean"], state[f"{name}.bn.running_var"]
        weight, bias = state[f"{name}.bn.weight"], state[f"{name}.bn.bias"]
        scale = weight / (var + 0.001).sqrt()
        return (x * scale[:, None, None] + (bias - mean * scale)[:, None, None]).relu()

    def mean_pool(x: Tensor) -> Tensor:
        ones = torch.ones_like(x[:1, :1])
        return F.avg_pool2d(x, 3, 1, 1) / F.avg_pool2d(ones, 3, 1, 1)

    def chain(x: Tensor, block: str, *layers: tuple[str, tuple[int, int]]) -> Tensor:
        for name, pad in layers:
            x = conv(x, f"{block}.{name}", 1, pad)
        return x

    one, three, wide, tall = (0, 0), (1, 1), (0, 3), (3, 0)
    x = conv(x, "Conv2d_1a_3x3", 2)
    x = conv(conv(x, "Conv2d_2a_3x3"), "Conv2d_2b_3x3", 1, three)
    x = F.max_pool2d(x, 3, 2)
    x = F.max_pool2d(conv(conv(x, "Conv2d_3b_1x1"), "Conv2d_4a_3x3"), 3, 2)
    for b in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        x = torch.cat([
            chain(x, b, ("branch1x1", one)),
            chain(x, b, ("branch5x5_1", one), ("branch5x5_2", (2, 2))),
            chain(x, b, ("branch3x3dbl_1", one), ("branch3x3dbl_2", three),
                  ("branch3x3dbl_3", three)),
            chain(mean_pool(x), b, ("branch_pool", one))], 1)
    b = "Mixed_6a"
    double = chain(x, b, ("branch3x3dbl_1", one), ("branch3x3dbl_2", three))
    x = torch.cat([conv(x, f"{b}.branch3x3", 2), conv(double, f"{b}.branch3x3dbl_3", 2),
                   F.max_pool2d(x, 3, 2)], 1)
    for b in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        x = torch.cat([
            chain(x, b, ("branch1x1", one)),
            chain(x, b, ("branch7x7_1", one), ("branch7x7_2", wide), ("branch7x7_3", tall)),
            chain(x, b, ("branch7x7dbl_1", one), ("branch7x7dbl_2", tall),
                  ("branch7x7dbl_3", wide), ("branch7x7dbl_4", tall), ("branch7x7dbl_5", wide)),
            chain(mean_pool(x), b, ("branch_pool", one))], 1)
    b = "Mixed_7a"
    first = chain(x, b, ("branch3x3_1", one))
    second = chain(x, b, ("branch7x7x3_1", one), ("branch7x7x3_2", wide), ("branch7x7x3_3", tall))
    x = torch.cat([conv(first, f"{b}.branch3x3_2", 2), conv(second, f"{b}.branch7x7x3_4", 2),
                   F.max_pool2d(x, 3, 2)], 1)
    for b in ("Mixed_7b", "Mixed_7c"):
        first = chain(x, b, ("branch3x3_1", one))
        second = chain(x, b, ("branch3x3dbl_1", one), ("branch3x3dbl_2", three))
        pooled = mean_pool(x) if b == "Mixed_7b" else F.max_pool2d(x, 3, 1, 1)
        x = torch.cat([
            chain(x, b, ("branch1x1", one)),
            chain(first, b, ("branch3x3_2a", (0, 1))), chain(first, b, ("branch3x3_2b", (1, 0))),
            chain(second, b, ("branch3x3dbl_3a", (0, 1))),
            chain(second, b, ("branch3x3dbl_3b", (1, 0))),
            chain(pooled, b, ("branch_pool", one))], 1)
    return x.mean((2, 3))


def test_features_are_those_of_a_forward_pass_written_out(state: dict[str, Tensor],
                                                          file: Path) -> None:
    pixels = torch.randint(0, 256, (2, 3, 299, 299), generator=torch.Generator().manual_seed(1))
    found = load_inception(str(file))(pixels)
    expected = by_hand(state, pixels.float() / 127.5 - 1)
    assert found.shape == (2, NUM_FEATURES) and expected.std() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_other_sizes_are_resized_without_antialiasing(file: Path) -> None:
    network = load_inception(str(file))
    pixels = torch.randint(0, 256, (1, 3, 64, 80), generator=torch.Generator().manual_seed(1))
    resized = F.interpolate(pixels.float(), (299, 299), mode="bilinear", align_corners=False)
    torch.testing.assert_close(network(pixels), network(resized), rtol=1e-3, atol=1e-4)


def test_parameters_are_those_of_the_published_network_without_its_classifier() -> None:
    network = InceptionFeatures()
    assert sum(parameter.numel() for parameter in network.parameters()) == 21_785_568
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_another_file_is_refused_with_the_tensor_that_lacks(tmp_path: Path,
                                                            state: dict[str, Tensor]) -> None:
    rest = {name: tensor for name, tensor in state.items() if "Mixed_6c.branch7x7_2.bn" not in name}
    torch.save(rest, tmp_path / "half.pth")
    with pytest.raises(ValueError, match=r"should hold Mixed_6c\.branch7x7_2\.bn\.weight of shape "
                                         r"\(160,\), but holds nothing"):
        load_inception(str(tmp_path / "half.pth"))


def test_the_head_is_the_last_layer_of_the_same_file(file: Path, tmp_path: Path,
                                                     state: dict[str, Tensor]) -> None:
    assert torch.equal(load_head(str(file)), torch.eye(1008, 2048))
    torch.save(state, tmp_path / "headless.pth")
    with pytest.raises(ValueError, match=r"should hold fc\.weight of shape \(classes, 2048\), but "
                                         "holds nothing"):
        load_head(str(tmp_path / "headless.pth"))
