"""The test pattern of an import, and what is said of what became of it."""
from typing import Any

import numpy as np
import pytest
import torch

from tokenizer.codec import Codec
from tokenizer.corpus.modalities import modality_from_dict
from tokenizer.importers.self_check import SelfCheck, check_codec, draw_pattern
from tokenizer.recipes import tiny
from tokenizer.vqgan.model import VQGAN

MODALITIES: list[dict[str, Any]] = [{"name": "image"}, {"name": "depth"},
                                    {"name": "segmentation", "num_classes": 300}]


def codec(modality: dict[str, Any]) -> Codec:
    torch.manual_seed(0)
    return Codec(VQGAN(tiny(modality).model), fingerprint="sha256:none", batch_size=1)


@pytest.mark.parametrize("settings", MODALITIES)
def test_patterns_are_pixels_of_their_modality(settings: dict[str, Any]) -> None:
    modality = modality_from_dict(settings)
    pixels = draw_pattern(modality, (24, 40))
    modality.check_pixels(pixels)
    assert pixels.shape[:3] == (1, 24, 40)
    assert len(np.unique(pixels)) > 100
    assert np.array_equal(pixels, draw_pattern(modality, (24, 40)))


@pytest.mark.parametrize("settings", MODALITIES)
def test_a_pattern_goes_through_and_back(settings: dict[str, Any]) -> None:
    check = check_codec(codec(settings))
    assert check.num_codes == 16 and 1 <= check.num_distinct <= 16
    assert check.num_unstable == 0 and 0 <= check.num_changed <= 16
    assert all(np.isfinite(value) for value in check.figures.values())


def test_codes_all_alike_are_pointed_at() -> None:
    same = SelfCheck(num_codes=16, num_distinct=1, num_unstable=0, num_changed=0,
                     figures={"psnr": 7.25})
    assert "psnr 7.25; all cells alike: is --input-range right?" in same.text()
    assert "alike" not in SelfCheck(num_codes=16, num_distinct=2, num_unstable=0, num_changed=0,
                                    figures={}).text()
