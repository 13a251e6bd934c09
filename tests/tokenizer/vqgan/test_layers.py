"""Layers: groups of the norm, sides, attention written out."""
import pytest
import torch

from tokenizer.vqgan.layers import (
    AttentionBlock,
    AverageDownsample,
    Downsample,
    ResidualBlock,
    UnbiasedResidualBlock,
    Upsample,
    add_to,
    norm,
    norm_swish,
    num_norm_groups,
)


@pytest.mark.parametrize(("channels", "groups"), [(512, 32), (128, 32), (96, 32), (64, 32)])
def test_norms_have_32_groups_where_published_widths_allow(channels: int, groups: int) -> None:
    assert num_norm_groups(channels) == groups


@pytest.mark.parametrize(("channels", "groups"), [(48, 12), (32, 8), (16, 4), (8, 2), (5, 1)])
def test_norms_of_few_channels_have_at_least_4_a_group(channels: int, groups: int) -> None:
    assert num_norm_groups(channels) == groups


def test_groups_divide_every_number_of_channels() -> None:
    assert not [channels for channels in range(1, 600) if channels % num_norm_groups(channels)]


def test_residual_blocks_have_a_shortcut_only_where_channels_change() -> None:
    assert "nin_shortcut.weight" in ResidualBlock(8, 16).state_dict()
    assert "nin_shortcut.weight" not in ResidualBlock(8, 8).state_dict()
    assert ResidualBlock(8, 16)(torch.zeros(1, 8, 4, 4)).shape == (1, 16, 4, 4)


def test_downsampling_pads_right_and_below_only() -> None:
    layer = Downsample(1)
    torch.nn.init.ones_(layer.conv.weight)
    torch.nn.init.zeros_(layer.conv.bias)
    assert layer(torch.ones(1, 1, 4, 4))[0, 0].tolist() == [[9, 6], [6, 4]]


def test_upsampling_repeats_pixels_then_convolves() -> None:
    layer = Upsample(1)
    torch.nn.init.dirac_(layer.conv.weight)
    torch.nn.init.zeros_(layer.conv.bias)
    result = layer(torch.tensor([[[[1.0, 2.0]]]]))
    assert result[0, 0].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2]]


def test_attention_is_softmax_of_scaled_products_over_all_positions() -> None:
    torch.manual_seed(0)
    block, x = AttentionBlock(8), torch.randn(2, 8, 3, 5)
    hidden = block.norm(x)
    query, key, value = (layer(hidden).flatten(2) for layer in (block.q, block.k, block.v))
    weights = (torch.einsum("bci,bcj->bij", query, key) * 8 ** -0.5).softmax(-1)
    attended = torch.einsum("bij,bcj->bci", weights, value).reshape(x.shape)
    torch.testing.assert_close(block(x), x + block.proj_out(attended))


def test_unbiased_blocks_take_the_shortcut_of_their_output() -> None:
    torch.manual_seed(0)
    block, x = UnbiasedResidualBlock(64, 128), torch.randn(1, 64, 4, 4)
    assert set(block.state_dict()) == {"norm1.weight", "norm1.bias", "conv1.weight", "norm2.weight",
                                       "norm2.bias", "conv2.weight", "nin_shortcut.weight"}
    torch.nn.init.dirac_(block.nin_shortcut.weight)  # a shortcut that changes nothing
    doubled = block(x)
    torch.nn.init.zeros_(block.nin_shortcut.weight)
    torch.testing.assert_close(doubled, 2 * block(x))


def test_unbiased_blocks_of_equal_widths_add_their_input() -> None:
    block, x = UnbiasedResidualBlock(8, 8), torch.randn(1, 8, 4, 4)
    torch.nn.init.zeros_(block.conv2.weight)
    assert torch.equal(block(x), x)


def test_average_downsampling_takes_means_of_squares() -> None:
    pixels = torch.tensor([[1.0, 3, 0, 0], [5, 7, 0, 4]])[None, None]
    assert AverageDownsample()(pixels)[0, 0].tolist() == [[4, 1]]


def test_groups_of_a_norm_may_be_given() -> None:
    assert norm(48).num_groups == 12
    assert norm(48, 16).num_groups == 16


@pytest.mark.parametrize("block", [ResidualBlock(8, 8), ResidualBlock(8, 16),
                                   UnbiasedResidualBlock(8, 8), UnbiasedResidualBlock(8, 16)])
def test_blocks_without_gradients_reuse_memory_but_not_their_input(block: ResidualBlock) -> None:
    x = torch.randn(2, 8, 6, 6)
    before, expected = x.clone(), block(x).detach()
    with torch.no_grad():
        assert torch.equal(block(x), expected)
    assert torch.equal(x, before)


def test_swish_overwrites_the_norm_only_without_gradients() -> None:
    x, normed = torch.randn(1, 8, 4, 4), torch.randn(1, 8, 4, 4, requires_grad=True)
    layer = torch.nn.Identity()
    expected = normed.sigmoid() * normed
    torch.testing.assert_close(norm_swish(layer, normed), expected)
    with torch.no_grad():
        assert norm_swish(layer, x) is x


def test_sums_overwrite_only_without_gradients() -> None:
    hidden, x = torch.ones(3), torch.full((3,), 2.0)
    assert add_to(hidden, x).tolist() == [3, 3, 3]
    assert hidden.tolist() == [1, 1, 1]
    with torch.no_grad():
        assert add_to(hidden, x) is hidden
    assert hidden.tolist() == [3, 3, 3]
    assert x.tolist() == [2, 2, 2]
