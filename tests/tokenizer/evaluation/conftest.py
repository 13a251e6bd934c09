"""Pretrained weights with drawn values, and a small network in place of InceptionV3."""
import pytest
import torch
from published_weights import write_weights

from tokenizer.evaluation import inception
from tokenizer.evaluation.measures import PretrainedFiles


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> PretrainedFiles:
    return write_weights(tmp_path_factory.mktemp("weights"))


class Coarse(torch.nn.Module):
    """Twelve features of an image: its colours in 2 x 2 parts."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(pixels.float(), 2).flatten(1) / 255


@pytest.fixture
def small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """rFID of twelve features: those of InceptionV3 take seconds to decompose."""
    monkeypatch.setattr(inception, "load_inception", lambda place: Coarse())
    monkeypatch.setattr(inception, "NUM_FEATURES", 12)
