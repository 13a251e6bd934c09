"""Codebook usage over recent batches, and held-out figures against a computation by hand."""
import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch

from tokenizer.training.metrics import (
    RECENT_BATCHES,
    RecentCodes,
    describe_scores,
    evaluate,
    reconstruct,
)
from tokenizer.vqgan.model import VQGAN, VQGANConfig
from tokenizer.vqgan.quantizers import QuantizerConfig

Model = Callable[..., VQGANConfig]


def test_usage_counts_every_entry_that_occurs() -> None:
    recent = RecentCodes(8)
    recent.add(torch.tensor([[[0, 1], [1, 0]]]))
    recent.add(torch.tensor([[[2, 3], [2, 3]]]))
    assert (recent.usage().used, recent.usage().perplexity) == (4, 4.0)


def test_batches_of_long_ago_are_forgotten() -> None:
    recent = RecentCodes(8)
    recent.add(torch.tensor([7]))
    for _ in range(RECENT_BATCHES):
        recent.add(torch.tensor([1]))
    assert recent.usage().used == 1


def test_a_collapsed_codebook_is_seen_beside_others_in_full_use() -> None:
    recent = RecentCodes(4, depth=2)
    recent.add(torch.tensor([[[[0, 1]], [[2, 2]]], [[[2, 3]], [[2, 2]]]]))
    assert recent.usage().used_by_depth == (4, 1)
    assert (recent.usage().used, recent.usage().perplexity) == (1, 1.0)
    again = RecentCodes(4, depth=2)
    again.load_state_dict(recent.state_dict())
    assert again.usage() == recent.usage()


def test_held_out_figures_count_each_codebook_of_a_residual_quantizer(
        model: Model, pixels: Callable[..., torch.Tensor]) -> None:
    shape = dataclasses.replace(model(), quantizer=QuantizerConfig(
        kind="residual", codebook_size=16, code_dim=4, depth=2))
    vqgan = VQGAN(shape).eval()
    with torch.no_grad():
        vqgan.quantize.steps[1].embedding.weight[1:] += 100
    evaluation = evaluate(vqgan, shape.build_modality(), [pixels(count=3).numpy()])
    assert evaluation.usage.used_by_depth[1] == evaluation.usage.used == 1
    assert evaluation.used_share == 1 / 16 and evaluation.usage.perplexity == 1


def test_recent_codes_go_on_from_their_state() -> None:
    first, second = RecentCodes(8), RecentCodes(8)
    first.add(torch.tensor([1, 2, 2]))
    second.load_state_dict(first.state_dict())
    second.add(torch.tensor([5]))
    assert second.usage().used == 3 and first.usage().used == 2


def test_scores_are_taken_on_rounded_pixels(model: Model, pixels: Callable[..., torch.Tensor],
                                            ) -> None:
    vqgan = VQGAN(model()).eval()
    modality, originals = vqgan.config.build_modality(), pixels(count=3)
    evaluation = evaluate(vqgan, modality, [originals.numpy()])
    with torch.no_grad():
        outputs, quantized = vqgan(originals.permute(0, 3, 1, 2) / 127.5 - 1)
    rounded = ((outputs + 1) * 127.5).clamp(0, 255).round()
    errors = (rounded - originals.permute(0, 3, 1, 2)).square().mean((1, 2, 3))
    assert evaluation.scores["psnr"] == pytest.approx(
        (10 * torch.log10(255 ** 2 / errors)).mean().item(), abs=1e-4)
    assert evaluation.usage.used == len(quantized.codes.unique())
    assert evaluation.used_share == evaluation.usage.used / 16
    assert evaluation.num_images == 3


@pytest.mark.parametrize("settings", [
    {"name": "image"}, {"name": "depth"}, {"name": "segmentation", "num_classes": 3}])
def test_figures_do_not_depend_on_how_images_are_batched(
        model: Model, settings: dict[str, object]) -> None:
    torch.manual_seed(0)
    vqgan = VQGAN(model(**settings)).eval()
    modality = vqgan.config.build_modality()
    generator = np.random.default_rng(0)
    shape = (5, 24, 24, 3) if modality.name == "image" else (5, 24, 24)
    originals = generator.integers(0, 3, shape).astype(modality.pixel_dtype)
    whole = evaluate(vqgan, modality, [originals])
    parts = evaluate(vqgan, modality, [originals[:2], originals[2:]])
    assert whole.usage == parts.usage and whole.num_images == parts.num_images == 5
    assert parts.scalars() == pytest.approx(whole.scalars(), rel=1e-5)


def test_the_loss_is_of_the_kind_that_training_has(model: Model,
                                                   pixels: Callable[..., torch.Tensor]) -> None:
    vqgan, originals = VQGAN(model()).eval(), pixels(count=3)
    with torch.no_grad():
        errors = vqgan(originals.permute(0, 3, 1, 2) / 127.5 - 1)[0] - (
            originals.permute(0, 3, 1, 2) / 127.5 - 1)
    expected = {"l1": errors.abs().mean().item(), "l2": errors.square().mean().item()}
    for kind, loss in expected.items():
        found = evaluate(vqgan, vqgan.config.build_modality(), [originals.numpy()], kind)
        assert found.loss == pytest.approx(loss, rel=1e-5)


def test_held_out_figures_and_pictures_are_of_full_float32(
        model: Model, pixels: Callable[..., torch.Tensor]) -> None:
    vqgan, originals = VQGAN(model()).eval(), pixels().numpy()
    seen: list[tuple[bool, str]] = []
    vqgan.register_forward_pre_hook(lambda *_: seen.append(
        (torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision())))
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=True):
        evaluate(vqgan, vqgan.config.build_modality(), [originals])
        reconstruct(vqgan, vqgan.config.build_modality(), originals)
    assert seen == [(False, "highest")] * 2


def test_without_a_readable_image_there_are_no_figures(model: Model) -> None:
    vqgan = VQGAN(model()).eval()
    with pytest.raises(ValueError, match="none of the held-out images can be read"):
        evaluate(vqgan, vqgan.config.build_modality(), [])


def test_scores_are_described_with_their_unit() -> None:
    assert describe_scores({"psnr": 23.456}) == "PSNR 23.46 dB"
    assert describe_scores({"miou": 0.5, "pixel_accuracy": 0.75}) == \
        "miou 0.500, pixel_accuracy 0.750"


def test_reconstructions_are_pixels_of_the_modality(model: Model,
                                                    pixels: Callable[..., torch.Tensor]) -> None:
    vqgan = VQGAN(model()).eval()
    found = reconstruct(vqgan, vqgan.config.build_modality(), pixels().numpy())
    assert found.dtype == np.uint8 and found.shape == (4, 24, 24, 3)
