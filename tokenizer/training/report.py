"""What a training leaves for people: figures with their conditions, and pictures.

Letters: N images, h and w sides of the crop in pixels.
"""
import json
from typing import Any

import numpy as np

from tokenizer import storage
from tokenizer.corpus.modalities import Modality, Segmentation
from tokenizer.pictures import tile
from tokenizer.training.config import TrainingConfig
from tokenizer.training.metrics import Evaluation
from tokenizer.vqgan.model import VQGANConfig

EVALUATION, PICTURES = "evaluation.json", "reconstructions.png"
COLUMNS = 8
"""Pictures side by side."""


def save_evaluation(out: str, evaluation: Evaluation, config: VQGANConfig,
                    training: TrainingConfig, step: int, seconds: float) -> None:
    """Write ``evaluation.json``: the figures on held-out images and how they were taken."""
    modality = config.build_modality()
    data = {
        "modality": modality.name,
        "num_images": evaluation.num_images,
        **{name: round(value, 6) for name, value in evaluation.scalars().items()},
        "num_codes_used": evaluation.usage.used,
        "codebook_size": config.quantizer.codebook_size,
        "grid": list(config.grid),
        "training": {"steps": step, "minutes": round(seconds / 60, 2)},
        "conditions": _conditions(config, modality, training),
    }
    if evaluation.usage.used_by_depth:
        data["num_codes_used_by_depth"] = list(evaluation.usage.used_by_depth)
    storage.write_bytes(storage.join(out, EVALUATION), (json.dumps(data, indent=1) + "\n").encode())


def _conditions(config: VQGANConfig, modality: Modality,
                training: TrainingConfig) -> dict[str, Any]:
    """All that another measurement must share to be compared with ours."""
    described = (type(modality).__doc__ or "").partition("\n\n    Attributes")[0]
    largest, depth = np.iinfo(modality.pixel_dtype).max, config.quantizer.depth
    return {
        "images": f"held out of training: {training.held_out} by {training.held_out_by}",
        "image_size": list(config.image_size),
        "pixels": f"{modality.pixel_dtype}, 0 to {largest}; outputs clipped and rounded to the "
                  "nearest integer",
        "preprocessing": modality.preprocessing(),
        "scores": " ".join(described.split()),
        "loss": modality.loss if isinstance(modality, Segmentation) else training.reconstruction,
        "codes_used": "share of the codebook that occurs in these images"
                      + (f"; of {depth} codebooks, the least" if depth > 1 else ""),
        "weights": f"exponential average, decay {training.ema_decay}; float32 without TF32",
    }


def reconstruction_sheet(modality: Modality, originals: np.ndarray,
                         reconstructions: np.ndarray) -> np.ndarray:
    """Rows of originals, each with the row of its reconstructions below.

    Args:
        originals: pixels ``(N, h, w[, 3])`` of the modality, N at least 1.
        reconstructions: likewise.
    Returns:
        ``(height, width, 3)`` uint8.
    """
    columns = min(COLUMNS, len(originals))
    blank = np.full((-len(originals) % columns, *originals.shape[1:3], 3), 255, np.uint8)
    rows = [np.concatenate([modality.show(pixels), blank]).reshape(-1, columns, *blank.shape[1:])
            for pixels in (originals, reconstructions)]
    return tile(np.stack(rows, 1).reshape(-1, *blank.shape[1:]), columns)
