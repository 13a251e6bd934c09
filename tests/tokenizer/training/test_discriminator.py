"""The patch discriminator: its published size, what it returns and what it refuses."""
import pytest
import torch

from tokenizer.training.discriminator import NORMS, BatchNorm, PatchDiscriminator, check_size


@pytest.mark.parametrize(("channels", "num_parameters"), [(3, 2_765_633), (1, 2_763_585)])
def test_parameter_count_is_the_published_one(channels: int, num_parameters: int) -> None:
    model = PatchDiscriminator(channels)
    assert sum(parameter.numel() for parameter in model.parameters()) == num_parameters


def test_three_layers_give_one_logit_for_every_eight_pixels_less_two() -> None:
    logits = PatchDiscriminator(3, width=4)(torch.zeros(2, 3, 64, 40))
    assert logits.shape == (2, 1, 6, 3)


def test_a_logit_sees_seventy_pixels() -> None:
    model = PatchDiscriminator(1, width=2, norm="spectral")  # sees nothing beyond its kernels
    image = torch.zeros(1, 1, 160, 160, requires_grad=True)
    model(image)[0, 0, 9, 9].backward()
    assert image.grad is not None
    rows = image.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    assert int(rows.max() - rows.min()) + 1 == 70


def test_channels_stop_growing_at_eight_times_the_width() -> None:
    model = PatchDiscriminator(3, width=2, num_layers=5)
    assert max(layer.out_channels for layer in model.layers
               if isinstance(layer, torch.nn.Conv2d)) == 16


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_the_smallest_size_leaves_one_logit(num_layers: int) -> None:
    side = 3 << num_layers
    check_size((side, side), num_layers)
    assert PatchDiscriminator(1, 2, num_layers)(torch.zeros(2, 1, side, side)).shape == (2, 1, 1, 1)


def test_images_too_small_are_refused_with_their_size_and_the_remedy() -> None:
    with pytest.raises(ValueError, match="16 x 24 pixels .* needs 24 x 24; lower .*num_layers"):
        check_size((16, 24), 3)


@pytest.mark.parametrize("norm", NORMS)
def test_every_normalisation_gives_logits_of_one_shape_and_gradients(norm: str) -> None:
    model = PatchDiscriminator(3, width=4, num_layers=2, norm=norm)
    logits = model(torch.rand(2, 3, 24, 24))
    logits.square().mean().backward()
    assert logits.shape == (2, 1, 4, 4)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(("norm", "depends"), [("batch", True), ("group", False),
                                               ("spectral", False)])
def test_only_batch_normalisation_looks_at_other_images(norm: str, depends: bool) -> None:
    torch.manual_seed(0)
    model = PatchDiscriminator(1, width=4, num_layers=2, norm=norm).requires_grad_(False)
    images, other = torch.rand(2, 1, 16, 16), torch.rand(1, 1, 16, 16)
    model.eval()  # spectral normalisation estimates lengths anew at each call in training
    together, changed = model(images)[0], model(torch.cat([images[:1], other]))[0]
    assert torch.allclose(together, changed, atol=1e-7) != depends


def test_batch_normalisation_is_that_of_torch_and_keeps_no_statistics() -> None:
    own, theirs = BatchNorm(3), torch.nn.BatchNorm2d(3).train()
    features = torch.randn(4, 3, 5, 5) * 3 + 1
    torch.testing.assert_close(own(features), theirs(features))
    assert set(own.state_dict()) == {"weight", "bias"}
    own.eval()
    torch.testing.assert_close(own(features), theirs(features))


def test_spectral_normalisation_brings_kernels_to_length_one() -> None:
    torch.manual_seed(0)
    model = PatchDiscriminator(1, width=4, num_layers=2, norm="spectral")
    for _ in range(50):
        model(torch.zeros(1, 1, 16, 16))
    kernels = [layer.weight.flatten(1) for layer in model.layers
               if isinstance(layer, torch.nn.Conv2d)]
    assert [torch.linalg.matrix_norm(kernel, 2).item() for kernel in kernels] == \
        pytest.approx([1.0] * 4, rel=1e-2)
