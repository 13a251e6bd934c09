"""FID, Inception Score, precision and recall of samples, over features of pictures.

Features of all pictures are held in memory, 8 kB each: precision and recall need every pair.

Letters: N pictures, H and W their sides in pixels, D features, C classes of the head.
"""
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tokenizer.devices import full_float32
from tokenizer.evaluation import inception
from tokenizer.evaluation.features import PictureFeatures, singular_caution
from tokenizer.evaluation.figures import Figure, NotMeasured, ReferenceHash
from tokenizer.evaluation.frechet import FeatureStatistics, frechet_distance
from tokenizer.evaluation.inception_score import NUM_SPLITS, inception_score
from tokenizer.evaluation.manifolds import NEIGHBOURS, precision_recall

LEAST_OF_A_SPLIT = 500
"""Images that a part of the Inception Score has at least; fewer images give fewer parts."""

Batches = Iterable[tuple[list[str], np.ndarray]]
"""Keys and pictures ``(N, H, W, 3)`` uint8, some at a time."""


@dataclass(frozen=True)
class Seen:
    """Features of pictures.

    Attributes:
        features: ``(N, D)`` float32.
        digest: a hash over keys and pictures.
    """
    features: np.ndarray
    digest: str


def features_of(network: PictureFeatures, batches: Batches,
                done: Callable[[int], object] = lambda count: None) -> Seen:
    """Features of all pictures, and a hash over these.

    Raises:
        ValueError: there is not one.
    """
    digest, parts = ReferenceHash(), []
    for keys, pixels in batches:
        digest.add(keys, pixels)
        parts.append(network.of(pixels))
        done(len(keys))
    if not parts:
        raise ValueError("there is no picture to compare with; give a folder of images")
    return Seen(np.concatenate(parts), str(digest))


def realism_figures(found: Seen, true: Seen, place: str, device: torch.device,
                    common: Mapping[str, Any]) -> tuple[dict[str, Figure], dict[str, str]]:
    """The figures that can be taken, and why others cannot, by name.

    Args:
        found: of samples; true: of the pictures that they should resemble.
        place: of the file of weights, whose head gives the logits.
        device: where distances and logits are computed.
        common: conditions, those of the network among them.
    """
    common = {**common, "pictures_hash": found.digest}
    conditions = {**common, "num_reference": len(true.features), "reference_hash": true.digest}
    figures: dict[str, Figure] = {}
    left_out: dict[str, str] = {}
    for names, measure in ((("fid",), lambda: _fid(found, true, conditions)),
                           (("inception_score",), lambda: _score(found, place, device, common)),
                           (("precision", "recall"), lambda: _manifold(found, true, device,
                                                                       conditions))):
        try:
            figures |= measure()
        except NotMeasured as reason:
            left_out |= dict.fromkeys(names, str(reason))
    return figures, left_out


def _fid(found: Seen, true: Seen, conditions: Mapping[str, Any]) -> dict[str, Figure]:
    least = min(len(found.features), len(true.features))
    if least < 2:
        raise NotMeasured(f"a covariance needs at least 2 images, got {least}")
    sets = []
    for seen in (found, true):
        statistics = FeatureStatistics(seen.features.shape[1])
        statistics.add(seen.features)
        sets.append(statistics)
    return {"fid": Figure(value=frechet_distance(*sets), label="FID", better="lower",
                          conditions={**conditions, "covariance": "over N - 1",
                                      **singular_caution(least)})}


def _score(found: Seen, place: str, device: torch.device,
           conditions: Mapping[str, Any]) -> dict[str, Figure]:
    try:
        head = inception.load_head(place)
    except ValueError as error:
        raise NotMeasured(str(error)) from error
    splits = min(NUM_SPLITS, max(1, len(found.features) // LEAST_OF_A_SPLIT))
    score, deviation = inception_score(_logits(found.features, head, device), splits)
    return {"inception_score": Figure(
        value=score, label="Inception Score", conditions={
            **conditions, "logits": "of the last layer without its bias", "splits": splits,
            "deviation_over_splits": deviation})}


def _logits(features: np.ndarray, head: Tensor, device: torch.device) -> np.ndarray:
    """Logits ``(N, C)`` float32 of features by a head ``(C, D)``."""
    with full_float32():
        logits: np.ndarray = (torch.from_numpy(features).to(device) @ head.to(device).T
                              ).cpu().numpy()
    return logits


def _manifold(found: Seen, true: Seen, device: torch.device,
              conditions: Mapping[str, Any]) -> dict[str, Figure]:
    least = min(len(found.features), len(true.features))
    if least <= NEIGHBOURS:
        raise NotMeasured(f"precision and recall need more than {NEIGHBOURS} images, got {least}")
    values = precision_recall(torch.from_numpy(found.features).to(device),
                              torch.from_numpy(true.features).to(device))
    own = {**conditions, "neighbours": NEIGHBOURS, "distance": "Euclidean, in float64",
           "features": "these, where the published figures are over VGG16's"}
    return {name: Figure(value=value, label=name, conditions=own)
            for name, value in zip(("precision", "recall"), values, strict=True)}
