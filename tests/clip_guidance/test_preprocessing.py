"""Pictures are prepared as transformers prepares them, by configs of old and new versions."""
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_clip import DEVIATION, MEAN, SIDE

from clip_guidance.preprocessing import read_preprocessing

COLOURS = {"image_mean": MEAN, "image_std": DEVIATION}
NEW = {"size": {"shortest_edge": 40}, "crop_size": {"height": SIDE, "width": SIDE}}


def write(folder: Path, **settings: Any) -> str:
    (folder / "preprocessor_config.json").write_text(json.dumps(COLOURS | settings))
    return str(folder)


@pytest.mark.parametrize("settings", [
    {**NEW, "resample": 3}, {**NEW, "resample": 2}, {"size": 40, "crop_size": SIDE},
    {"size": SIDE, "crop_size": SIDE, "resample": 3},
    {"size": {"height": SIDE, "width": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}])
@pytest.mark.parametrize("shape", [(50, 77), (91, 33), (32, 32), (8, 20)])
def test_pictures_become_what_transformers_makes_of_them(tmp_path: Path, settings: dict[str, Any],
                                                         shape: tuple[int, int]) -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    found = read_preprocessing(write(tmp_path, **settings), SIDE).apply(pixels)
    theirs = CLIPImageProcessorPil(**settings, do_normalize=False, do_rescale=False)
    expected = theirs(pixels, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
    assert found.shape == (SIDE, SIDE, 3)
    np.testing.assert_array_equal(found, expected)


def test_a_config_of_colours_alone_takes_the_size_of_the_model(tmp_path: Path) -> None:
    found = read_preprocessing(write(tmp_path), SIDE)
    assert (found.size, found.crop, found.resample) == (SIDE, (SIDE, SIDE), 3)
    assert (found.mean, found.deviation) == (tuple(MEAN), tuple(DEVIATION))


@pytest.mark.parametrize(("settings", "message"), [
    ({"crop_size": 336}, "crop_size .* must be 32, which its model takes, got 336"),
    ({"crop_size": {"height": 32, "width": 48}}, "crop_size .* must be 32"),
    ({"size": 16}, "a size of at least 32 and a resample of 0 to 5, got 16"),
    ({"size": {"longest_edge": 64}}, "a size of at least 32"), ({"resample": 9}, "None and 9"),
    ({"size": "big"}, "a size of at least 32"),
    ({"image_mean": [0.5, float("nan"), 0.5]}, "image_mean and image_std as three numbers"),
    ({"image_mean": None, "image_processor": "clip"}, "image_mean and image_std as three num")])
def test_a_config_of_another_clip_is_refused(tmp_path: Path, settings: dict[str, Any],
                                             message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_preprocessing(write(tmp_path, **settings), SIDE)
