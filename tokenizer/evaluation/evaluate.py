"""Evaluation of a tokenizer on a corpus: encode, decode, measure, and report.

Images pass through the codec as in the encode and decode jobs: the same crop, codes and rounding.

Letters: N images, h and w sides of the crop in pixels, K codebook size.
"""
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from tokenizer import checkpoints, storage
from tokenizer.bars import progress_bar
from tokenizer.codec import PRECISIONS, Codec
from tokenizer.corpus.modalities import Modality, Segmentation
from tokenizer.corpus.sources import open_source
from tokenizer.evaluation.figures import SCORES, Figure, NotMeasured, ReferenceHash, finite
from tokenizer.evaluation.images import EvaluationImages
from tokenizer.evaluation.measures import Measure, PretrainedFiles, build_measures
from tokenizer.evaluation.report import Example, Report, save_report
from tokenizer.splits import Split
from tokenizer.training.metrics import Tally
from tokenizer.vqgan.model import KIND, VQGAN, VQGANConfig

NUM_EXAMPLES = 4
"""Images shown as the best, the median and the worst, each."""


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What is measured on what.

    Attributes:
        tokenizer: folder of the tokenizer, a path or fsspec URL.
        corpus: folder of images or maps.
        out: folder for the report; nothing means ``evaluation`` in the tokenizer's folder.
        precision: ``float32``, or ``bf16``, which also counts the codes that change.
        limit: measure this many images, spread evenly over the corpus.
        held_out: measure only what a training with this setting holds out; nothing means all.
        held_out_by: rule of that training, ``hash`` or ``name``.
        files: pretrained weights of LPIPS and rFID.
        batch_size: images that pass through the tokenizer at once.
        num_workers: batches that do so at the same time, on one core each.
        device: where torch computes.
    """
    tokenizer: str
    corpus: str
    out: str | None = None
    precision: str = "float32"
    limit: int | None = None
    held_out: int | float | None = None
    held_out_by: str = "hash"
    files: PretrainedFiles = field(default_factory=PretrainedFiles)
    batch_size: int = 8
    num_workers: int = 1
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision is {' or '.join(PRECISIONS)}, got {self.precision!r}")
        for name in ("limit", "num_workers"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.held_out and self.held_out is not None:
            raise ValueError("held_out must be more than 0; leave it out to measure all images")
        _ = self.split

    @property
    def split(self) -> Split | None:
        """Which images are measured; nothing means all."""
        return None if self.held_out is None else Split(held_out=self.held_out, by=self.held_out_by)


@dataclass(frozen=True)
class Reconstruction:
    """What a tokenizer makes of pixels.

    Attributes:
        codes: ``(N, ...)`` integers in ``[0, K)``.
        pixels: ``(N, h, w[, 3])``, decoded from them.
        num_changed: codes that differ from those in float32.
    """
    codes: np.ndarray
    pixels: np.ndarray
    num_changed: int = 0


class Autoencoder:
    """A tokenizer as the jobs run it. Several threads may call one.

    Attributes:
        codec: in float32.
        device: where it computes.
    """

    def __init__(self, config: EvaluationConfig) -> None:
        url, shape = config.tokenizer, checkpoints.load_config(config.tokenizer, KIND, VQGANConfig)
        weights, fingerprint = checkpoints.load_fingerprinted(url)
        model = VQGAN.from_weights(shape, weights)
        self.codec = Codec(model, fingerprint, config.batch_size, config.device)
        self.device = model.last_layer.device
        self._other = (None if config.precision == self.codec.spec.precision else
                       Codec(model, fingerprint, config.batch_size, config.device,
                             config.precision))

    def reconstruct(self, pixels: np.ndarray) -> Reconstruction:
        """Encode and decode pixels ``(N, h, w[, 3])`` in the precision that is asked for."""
        codes = self.codec.encode(pixels)
        if self._other is None:
            return Reconstruction(codes, self.codec.decode(codes))
        others = self._other.encode(pixels)
        return Reconstruction(others, self._other.decode(others), int((others != codes).sum()))


class Evaluator:
    """Everything that is counted over the images of one evaluation.

    Args:
        autoencoder: the tokenizer.
        config: what is asked for.
    """

    def __init__(self, autoencoder: Autoencoder, config: EvaluationConfig) -> None:
        self.autoencoder, self.config = autoencoder, config
        self.spec, self.modality = autoencoder.codec.spec, autoencoder.codec.modality
        self.measures, self.left_out = build_measures(
            self.modality, self.spec.image_size, config.files, autoencoder.device)
        self.tally = Tally(self.modality, self.spec.codebook_size, self.spec.depth)
        self.reference = ReferenceHash()
        self.scores: list[tuple[str, float]] = []
        self.num_changed = 0

    def add(self, keys: list[str], pixels: np.ndarray, reconstruction: Reconstruction) -> None:
        """Measure some more images ``(N, h, w[, 3])``."""
        found = reconstruction.pixels
        self.num_changed += reconstruction.num_changed
        self.tally.add(found, pixels, reconstruction.codes)
        self.reference.add(keys, pixels)
        with torch.inference_mode():
            for measure in self.measures:
                measure.add(found, pixels)
        for index, key in enumerate(keys):
            pair = found[index:index + 1], pixels[index:index + 1]
            self.scores.append((key, next(iter(self.modality.difference(*pair).values()))))

    def figures(self) -> dict[str, Figure]:
        """Every figure by name, each with all its conditions."""
        common = self._conditions()
        definition = {"definition": _definition(self.modality)}
        figures = {}
        for name, value in self.tally.scores().items():
            label, unit, better = SCORES.get(name, (name, "", ""))
            figures[name] = Figure(value=finite(value), label=label, unit=unit, better=better,
                                   conditions=common | definition)
        for measure in self.measures:
            self._add_measure(figures, measure, common)
        return figures | self._code_figures(common)

    def _add_measure(self, figures: dict[str, Figure], measure: Measure,
                     common: dict[str, Any]) -> None:
        """Add one measure's figure, or the reason why there is none to those left out."""
        try:
            own = measure.figure()
        except NotMeasured as reason:
            self.left_out[measure.name] = str(reason)
        else:
            figures[measure.name] = Figure(value=finite(own.value), label=own.label, unit=own.unit,
                                           better=own.better, conditions=common | own.conditions)

    def _code_figures(self, common: dict[str, Any]) -> dict[str, Figure]:
        usage, size, depth = self.tally.usage(), self.spec.codebook_size, self.spec.depth
        num_codes, least, most = int(self.tally.counts.sum()), "", ""
        conditions = common | {"num_codes": num_codes, "codebook_size": size}
        if depth > 1:
            least, most = f", least of {depth}", f", most of {depth}"
            conditions |= {"codebooks": f"{depth}, one for each code of a cell; usage is the worst "
                           "of theirs", "used_by_depth": list(usage.used_by_depth)}
        if num_codes // depth < size:
            conditions["caution"] = f"{num_codes // depth} codes cannot use all of {size} entries"
        values = {"codes_used": (usage.used / size, f"codebook used{least}", "", "higher"),
                  "perplexity": (usage.perplexity, f"perplexity{least}", "codes", "higher"),
                  "dead_codes": (float(size - usage.used), f"dead codes{most}", "codes", "lower")}
        if self.config.precision != "float32":
            values["codes_changed"] = (self.num_changed / num_codes,
                                       f"codes changed in {self.config.precision}", "", "lower")
        return {name: Figure(value=value, label=label, unit=unit, better=better,
                             conditions=conditions)
                for name, (value, label, unit, better) in values.items()}

    def _conditions(self) -> dict[str, Any]:
        """What all figures share, and another measurement must share to be compared."""
        arithmetic = {"float32": "float32", "bf16": "bf16 autocast of encoder and decoder; codes "
                      "chosen in float32"}
        return {"num_images": self.tally.num_images, "reference": str(self.reference),
                **_pixel_conditions(self.modality), "image_size": list(self.spec.image_size),
                "crop": "centre", "resize": self.modality.resampling,
                "tokenizer": self.spec.tokenizer,
                "precision": arithmetic[self.config.precision]}


def evaluate_tokenizer(config: EvaluationConfig) -> Report:
    """Measure a tokenizer and write its report.

    Raises:
        FileNotFoundError: the tokenizer, the corpus or a file of weights does not exist.
        ValueError: a file is damaged, a setting is wrong, or no image can be read.
        OSError: a file cannot be reached.
    """
    autoencoder = Autoencoder(config)
    modality, size = autoencoder.codec.modality, autoencoder.codec.spec.image_size
    source = open_source(config.corpus, labels="none", modality=modality.name)
    images = EvaluationImages(source, modality, size, config.split, config.limit)
    evaluator = Evaluator(autoencoder, config)
    with progress_bar(total=len(images.entries), desc="images", unit="image", disable=None) as bar:
        for keys, pixels, reconstruction in _reconstructions(autoencoder, images, config):
            evaluator.add(keys, pixels, reconstruction)
            bar.update(len(keys))
    if not evaluator.tally.num_images:
        place, reason = next(iter(images.unreadable.items()), (config.corpus, "no image is left"))
        raise ValueError(f"not one of {len(images.entries)} images can be read; {place}: {reason}")
    examples = _examples(evaluator.scores, _is_lower_better(evaluator))
    report = Report(
        tokenizer=config.tokenizer, corpus=config.corpus, spec=autoencoder.codec.spec,
        selection=_selection(config), num_found=images.num_found,
        unreadable=dict(sorted(images.unreadable.items())), figures=evaluator.figures(),
        left_out=evaluator.left_out, examples=examples)
    originals = images.pixels([example.key for example in examples])
    found = autoencoder.reconstruct(originals)
    save_report(destination(config), report, modality, originals, found.pixels)
    return report


def _reconstructions(autoencoder: Autoencoder, images: EvaluationImages, config: EvaluationConfig
                     ) -> Iterator[tuple[list[str], np.ndarray, Reconstruction]]:
    """Keys, pixels and reconstructions of each batch, in order, several batches at a time."""
    waiting: deque[tuple[list[str], np.ndarray, Future[Reconstruction]]] = deque()
    with ThreadPoolExecutor(config.num_workers) as pool:
        for keys, pixels in images.batches(config.batch_size):
            waiting.append((keys, pixels, pool.submit(autoencoder.reconstruct, pixels)))
            if len(waiting) > config.num_workers:
                keys, pixels, future = waiting.popleft()
                yield keys, pixels, future.result()
        for keys, pixels, future in waiting:
            yield keys, pixels, future.result()


def destination(config: EvaluationConfig) -> str:
    """The folder that the report is written to."""
    return storage.join(config.tokenizer, "evaluation") if config.out is None else config.out


def _is_lower_better(evaluator: Evaluator) -> bool:
    """Whether the first of the modality's scores, which examples are ranked by, is an error."""
    first = next(iter(evaluator.tally.scores()))
    return SCORES.get(first, ("", "", ""))[2] == "lower"


def _examples(scores: list[tuple[str, float]], lower_is_better: bool) -> list[Example]:
    """The best, median and worst images by their first score; of few images fewer of each."""
    sign = 1 if lower_is_better else -1
    ordered = sorted(scores, key=lambda item: (np.isnan(item[1]), sign * item[1], item[0]))
    count = min(NUM_EXAMPLES, max(1, len(ordered) // 3))
    middle = (len(ordered) - count) // 2
    ranks = {"best": ordered[:count], "median": ordered[middle:middle + count],
             "worst": ordered[len(ordered) - count:]}
    return [Example(rank=rank, key=key, score=score)
            for rank, items in ranks.items() for key, score in items]


def _selection(config: EvaluationConfig) -> str:
    """Which images of the corpus were measured, in words."""
    parts: Iterable[str] = (
        "all images" if config.held_out is None
        else f"held out of training: {config.held_out} by {config.held_out_by}",
        "" if config.limit is None else f"of these {config.limit}, spread evenly")
    return "; ".join(part for part in parts if part)


def _pixel_conditions(modality: Modality) -> dict[str, str]:
    """What the pixels are that are compared, and how outputs become such."""
    if isinstance(modality, Segmentation):
        ignored = "" if modality.ignore_id is None else f", without pixels of {modality.ignore_id}"
        return {"range": f"class ids 0 to {modality.num_classes - 1}{ignored}",
                "rounding": "the class of the greatest logit"}
    dtype = modality.pixel_dtype
    return {"range": f"{dtype}, 0 to {np.iinfo(dtype).max}",
            "rounding": "outputs clipped and rounded to the nearest integer"}


def _definition(modality: Modality) -> str:
    """What the modality says of its scores."""
    text = " ".join((type(modality).__doc__ or "").partition("Attributes:")[0].split())
    start = text.find("Score")
    return text[start:] if start >= 0 else text
