"""A codebook of moving averages."""
import torch
from small_quantizers import latents_of, small
from torch import Tensor

from tokenizer.vqgan.quantizers.ema import EMAQuantizer


def ema(**changes: object) -> EMAQuantizer:
    quantizer = small("ema", **changes).train()
    assert isinstance(quantizer, EMAQuantizer)
    return quantizer


def train_on(quantizer: EMAQuantizer, points: Tensor) -> Tensor:
    """One step; the codes of the points before it."""
    codes = quantizer(latents_of(points)).codes.flatten()
    quantizer.revive()
    return codes


def test_an_entry_becomes_the_average_of_the_latents_that_chose_it() -> None:
    quantizer = ema(revive_after=0, decay=0.5, codebook_size=2, code_dim=1)
    quantizer.move(torch.tensor([0, 1]), torch.tensor([[-1.0], [1.0]]))
    codes = train_on(quantizer, torch.tensor([[2.0], [3.0], [-4.0]]))
    assert codes.tolist() == [1, 1, 0]
    # Sizes 0.5 * 1 + 0.5 * (1, 2), sums 0.5 * (-1, 1) + 0.5 * (-4, 5).
    torch.testing.assert_close(quantizer.cluster_size, torch.tensor([1.0, 1.5]))
    torch.testing.assert_close(quantizer.embedding.weight, torch.tensor([[-2.5], [3.0 / 1.5]]),
                               atol=1e-4, rtol=0)


def test_entries_settle_where_latents_are() -> None:
    quantizer = ema(revive_after=0, decay=0.8, codebook_size=2, code_dim=2)
    centres = torch.tensor([[3.0, 1.0], [-2.0, 5.0]])
    quantizer.move(torch.tensor([0, 1]), torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    for _ in range(60):
        train_on(quantizer, centres.repeat(10, 1))
    torch.testing.assert_close(quantizer.embedding.weight, centres, atol=1e-3, rtol=0)


def test_an_entry_nobody_chooses_keeps_its_place() -> None:
    quantizer = ema(revive_after=0, decay=0.9)
    far = quantizer.embedding.weight[3].detach().clone()
    for _ in range(200):
        train_on(quantizer, quantizer.embedding.weight[:3].detach().clone())
    torch.testing.assert_close(quantizer.embedding.weight[3].detach(), far)


def test_parts_of_a_batch_are_averaged_together() -> None:
    points = torch.randn(12, 4)
    whole, parts = ema(revive_after=0), ema(revive_after=0)
    whole(latents_of(points))
    for part in points.split(4):
        parts(latents_of(part))
    for quantizer in (whole, parts):
        quantizer.revive()
    torch.testing.assert_close(whole.cluster_size, parts.cluster_size)
    torch.testing.assert_close(whole.cluster_sum, parts.cluster_sum)


def test_a_revived_entry_starts_anew_in_its_averages() -> None:
    quantizer = ema(revive_after=1)
    quantizer(latents_of(torch.randn(8, 4) + 5))
    moved = quantizer.revive()["embedding.weight"]
    assert len(moved)
    assert (quantizer.cluster_size[moved] == 1).all()
    assert torch.equal(quantizer.cluster_sum[moved], quantizer.embedding.weight[moved].detach())


def test_no_gradient_reaches_the_entries() -> None:
    quantizer = ema()
    latents = torch.randn(1, 4, 2, 2, requires_grad=True)
    found = quantizer(latents)
    sum(found.losses.values()).backward()
    assert list(found.losses) == ["commitment"]
    assert quantizer.embedding.weight.grad is None
