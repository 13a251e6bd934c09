"""Features of pictures by FID's InceptionV3, and the conditions that figures over them carry.

Letters: B pictures, h and w sides in pixels, D features.
"""
from typing import Any

import numpy as np
import torch

from tokenizer import storage, weights
from tokenizer.devices import full_float32
from tokenizer.evaluation import inception

ADVICE = "give --inception (pt_inception-2015-12-05-6726825d.pth) as path, URL or hub id"


class PictureFeatures:
    """InceptionV3 with published weights, pictures in and features out.

    Args:
        place: of the file, see `tokenizer.evaluation.inception.load_inception`.
        device: where torch computes.
    """

    def __init__(self, place: str, device: torch.device) -> None:
        self._network = inception.load_inception(place).to(device)
        self._device, self._hash = device, hash_of(place)

    def of(self, pixels: np.ndarray) -> np.ndarray:
        """Features ``(B, D)`` float32 of pictures ``(B, h, w, 3)`` uint8."""
        planes = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2)
        with full_float32(), torch.inference_mode():
            found: np.ndarray = self._network(planes.float().to(self._device)).cpu().numpy()
        return found

    @property
    def conditions(self) -> dict[str, Any]:
        """Of every figure over these features."""
        return {"network": "InceptionV3 of 2015-12-05, last average pool, 2048 features",
                "resize": "bilinear to 299 x 299 without antialiasing",
                "arithmetic": arithmetic(self._device), "weights": self._hash}


def arithmetic(device: torch.device) -> str:
    """How the networks of figures compute, in words."""
    return f"float32 without TF32, on {device.type}"


def hash_of(place: str) -> str:
    """``sha256:...`` of a file of weights."""
    return f"sha256:{storage.sha256_of_file(weights.fetch(place))}"


def singular_caution(count: int) -> dict[str, str]:
    """A ``caution`` where that many images leave covariances of all features singular."""
    if count > inception.NUM_FEATURES:
        return {}
    return {"caution": f"{count} images leave covariances of {inception.NUM_FEATURES} features "
                       "singular; compare with the same images only"}
