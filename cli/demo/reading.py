"""Reading a map off a picture by its colours, and the mIoU of a map read against a map given.

The drawn scenes give each class colours of its own. A table of colours, counted once over drawn
pictures and their exact maps, says which class a colour belongs to; nothing is trained, and nothing
but the colour of the one pixel is looked at.

`segmentation` is such a reader of the drawn scenes, to be named as an estimator:

    img2tokens evaluate-prior ... --estimator segmentation=cli.demo.reading:segmentation

Letters: B pictures, C classes, H and W sides of a picture.
"""
import functools
from typing import Any

import numpy as np

from cli.demo.scenes import LABELS, draw

Array = np.ndarray[Any, np.dtype[Any]]

LEVELS = 12
"""Steps of each colour channel in the table."""

NUM_SCENES, SEED = 120, 1
"""Scenes that the table of `segmentation` is counted over, and their seed: not that of a demo."""


class ColourTable:
    """The class that each colour most often stands for.

    Attributes:
        labels: ``(LEVELS ** 3,)``, uint8 class ids; red changes slowest, blue fastest. A colour
            that was never seen has the class of the nearest one that was.
    """

    def __init__(self, images: Array, maps: Array, num_classes: int) -> None:
        """Count the colours of pictures ``(B, H, W, 3)`` by their class ids ``(B, H, W)``.

        Each picture is counted as it is and once more softened, since no decoder draws an edge as
        sharp as a ray tracer does.
        """
        both = np.stack([_bins(images), _bins(softened(images))])
        flat = both * num_classes + maps.astype(np.int64)
        counts = np.bincount(flat.ravel(), minlength=LEVELS ** 3 * num_classes)
        counts = counts.reshape(LEVELS ** 3, num_classes)
        # A class of few pixels, such as a balloon, may claim a colour from one of many, the sky.
        scores = counts / np.sqrt(counts.sum(0) + 1)
        colours = np.moveaxis(np.indices((LEVELS,) * 3), 0, -1).reshape(-1, 3)
        seen = np.flatnonzero(counts.any(1))
        distances = ((colours[:, None] - colours[seen]) ** 2).sum(-1)
        self.labels = scores[seen].argmax(1)[distances.argmin(1)].astype(np.uint8)

    def read(self, images: Array) -> Array:
        """Class ids ``(B, H, W)``, uint8, of pictures ``(B, H, W, 3)``, uint8."""
        return self.labels[_bins(images)]


def segmentation(images: Array) -> Array:
    """Class ids ``(B, H, W)``, uint8, of pictures ``(B, H, W, 3)``, uint8, of drawn scenes."""
    return scene_table().read(images)


@functools.cache
def scene_table() -> ColourTable:
    """The table of fresh scenes, drawn once a process."""
    drawings = [draw(index, SEED) for index in range(NUM_SCENES)]
    return ColourTable(np.stack([drawing.image for drawing in drawings]),
                       np.stack([drawing.labels for drawing in drawings]), len(LABELS))


def mean_iou(given: Array, read: Array, num_classes: int) -> float:
    """Mean over classes of intersection over union, counted over all pixels of all maps.

    A class in neither of the two is left out.
    """
    pairs = given.astype(np.int64) * num_classes + read
    confusion = np.bincount(pairs.ravel(), minlength=num_classes ** 2)
    confusion = confusion.reshape(num_classes, num_classes)
    union = confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    present = union > 0
    return float((confusion.diagonal()[present] / union[present]).mean())


def softened(images: Array) -> Array:
    """Pictures ``(B, H, W, 3)`` with each pixel mixed into its neighbours by weights 1, 2, 1."""
    soft = images.astype(np.uint16)
    for axis in (1, 2):
        edges = [(1, 1) if axis == other else (0, 0) for other in range(soft.ndim)]
        padded, size = np.pad(soft, edges, "edge"), soft.shape[axis]
        before, after = (padded.take(range(start, start + size), axis) for start in (0, 2))
        soft = before + 2 * soft + after
    return (soft // 16).astype(np.uint8)


def _bins(images: Array) -> Array:
    red, green, blue = np.moveaxis(images.astype(np.int64) * LEVELS // 256, -1, 0)
    return (red * LEVELS + green) * LEVELS + blue
