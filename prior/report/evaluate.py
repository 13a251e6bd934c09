"""Evaluation of a prior: bits of rows it has not seen, and what it draws.

    OUT/evaluation.json   every figure with its conditions
    OUT/evaluation.png    samples beside their maps and nearest rows of training, a histogram
    OUT/samples           the samples, a token corpus, where none were given

To add a figure, write a function that returns `Figure`s by name, and call it in `_Evaluation`.

Letters: N rows, n codes of a row.
"""
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from prior.dataset import CodeRows, spread
from prior.evaluation import held_out_bits, num_passes
from prior.gallery import Decoder, check_decoders, show
from prior.model import Prior
from prior.report.agreement import Estimator, MapDecoder, agreement, agreement_figures, parts
from prior.report.bits import bits_figures, bits_left_out
from prior.report.diversity import (
    HELD_OUT,
    SAMPLES,
    Neighbours,
    neighbour_figures,
    search,
    usage_figures,
)
from prior.report.picture import Column, draw_sheet, pictures_of
from prior.report.realism import Batches, features_of, realism_figures
from prior.report.report import PriorReport
from prior.report.rows import (
    MeasuredRows,
    Samples,
    TrainingCodes,
    measured_rows,
    read_samples,
    training_codes,
)
from prior.sampling import SamplingConfig, sample_corpus
from prior.sequence import NOT_MAPS
from tokenizer import storage
from tokenizer.bars import progress_bar
from tokenizer.claims import require_apart
from tokenizer.devices import full_float32
from tokenizer.evaluation.features import ADVICE, PictureFeatures, arithmetic
from tokenizer.evaluation.figures import Figure, ReferenceHash
from tokenizer.tokens import TokenCorpus

DRAWN = "samples"
"""Folder of the samples below that of the report."""
NUM_CLOSEST, NUM_SPREAD = 4, 4
"""Samples shown: those nearest to rows of training, and others spread over all."""
NUM_LISTED = 10
"""Samples nearest to rows of training that are named."""


@dataclass(frozen=True, kw_only=True)
class PriorEvaluationConfig:
    """What is measured, and on how much.

    Attributes:
        limit: most held-out rows, spread evenly.
        row_filter: only rows for which this expression of `tokenizer.filters` holds; without, of a
            corpus that the prior was trained on, those that its training's filter takes.
        samples: token corpus of finished samples; nothing draws them.
        sampling: how they are drawn; held-out rows give the conditions, spread evenly.
        num_compared: most samples, and held-out rows, whose nearest row of training is looked for.
        batch_size: rows that are read at once for bits.
        overwrite: remove other samples in the output first.
    """
    limit: int = 1024
    row_filter: str | None = None
    samples: str | None = None
    sampling: SamplingConfig = field(default_factory=lambda: SamplingConfig(num=256))
    num_compared: int = 1024
    batch_size: int = 16
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name in ("limit", "num_compared", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What turns codes into pictures and looks at them; all that is not there is left out.

    Attributes:
        decoders: by modality; of the target, and of maps.
        estimators: by modality of a map.
        inception: place of FID's weights.
        reference: pictures for FID in place of decoded held-out rows, and where they are from.
    """
    decoders: Mapping[str, Decoder] = field(default_factory=dict)
    estimators: Mapping[str, Estimator] = field(default_factory=dict)
    inception: str | None = None
    reference: tuple[Batches, str] | None = None


def evaluate_prior(prior: Prior, place: str, corpus: TokenCorpus, out: str,
                   config: PriorEvaluationConfig, sight: Sight | None = None,
                   training: TokenCorpus | None = None) -> PriorReport:
    """Measure a prior and write its report.

    Args:
        place: where the prior lies, for the report.
        corpus: rows to measure: held-out ones, or all of a corpus that it was not trained on.
        out: folder for the report, and for samples where none are given.
        training: corpus that it was trained on, where ``corpus`` is another one.
    Raises:
        FileNotFoundError: a corpus or a file of weights does not exist.
        ValueError: codes are of other tokenizers, no row is left to measure, samples are of another
            prior, ``training`` is not what the prior was trained on, ``out`` lies in a corpus, or a
            file is damaged.
        OSError: a file cannot be reached.
    """
    sight = sight or Sight()
    require_apart(out, [corpus.url, config.samples, training.url if training else None],
                  "the report")
    check_decoders(prior.config.spec, sight.decoders)
    measured = measured_rows(prior.config, corpus, config.limit, config.row_filter)
    trained = measured.training if training is None else _trained_on(prior, training)
    work = _Evaluation(prior, measured, trained, config, sight)
    with full_float32():
        work.find_samples(out)  # first, as this is what may be refused
        work.add_bits()
    work.add_diversity()
    work.add_realism()
    work.add_agreement()
    report = work.report(place)
    report.save(out, work.picture())
    return report


def _trained_on(prior: Prior, corpus: TokenCorpus) -> TrainingCodes:
    """The rows of a corpus that a prior was trained on."""
    found = training_codes(prior.config, corpus)
    if found is None:
        raise ValueError(f"{corpus.url} ({corpus.manifest.fingerprint}) is not a corpus that the "
                         f"prior was trained on ({', '.join(prior.config.fingerprints)}): give "
                         "that one, or leave --training out")
    return found


class _Evaluation:
    """One evaluation as it grows."""

    def __init__(self, prior: Prior, measured: MeasuredRows, training: TrainingCodes | None,
                 config: PriorEvaluationConfig, sight: Sight) -> None:
        self.prior, self.measured, self.training = prior, measured, training
        self.config, self.sight = config, sight
        self.target = prior.config.spec[prior.config.target]
        self.figures: dict[str, Figure] = {}
        self.left_out: dict[str, str] = {}
        self.neighbours: Neighbours | None = None
        self.device = prior.model.head.weight.device
        self.common: dict[str, Any] = {
            "prior": prior.fingerprint, "rows": measured.selection, "corpus": measured.corpus,
            "reference": measured.reference(self.target.modality),
            "precision": arithmetic(self.device)}
        # Weights that cannot be had are told before anything is drawn.
        self.network = (PictureFeatures(sight.inception, self.device)
                        if sight.inception is not None and not self._missing() else None)

    def add_bits(self) -> None:
        """Bits per held-out code."""
        rows, layout = self.measured.rows, self.prior.model.layout
        total = num_passes(layout, drop_each=True) * len(rows)
        with _bar(total, "bits", "row") as bar:
            bits = held_out_bits(self.prior.model, rows, self.config.batch_size, len(rows),
                                 drop_each=True, done=bar.update)
        self.figures |= bits_figures(bits, self.prior.config,
                                     {"num_rows": len(rows), **self.common})
        self.left_out |= bits_left_out(bits, layout)

    def find_samples(self, out: str) -> None:
        """Draw samples below ``out``, or read those that are given."""
        url = self.config.samples
        if url is None:
            url, sampling = storage.join(out, DRAWN), self.config.sampling
            num = sampling.num_images(len(self.measured.rows))
            givens = self.measured.givens(self.prior.config, -(-num // sampling.samples_each))
            with _bar(num, "samples", "image") as bar:
                sample_corpus(self.prior, givens, url, sampling, bar.update, self.config.overwrite)
        self.samples: Samples = read_samples(self.prior, TokenCorpus.open(url))
        digest = ReferenceHash()
        digest.add(self.samples.rows.keys, self.samples.rows.codes[self.target.modality])
        self.of_samples: dict[str, Any] = {
            **self.common, "num_images": len(self.samples.rows), "samples_hash": str(digest),
            "drawing": self.samples.drawing}

    def add_diversity(self) -> None:
        """Usage of codes, copies, and nearest rows of training."""
        samples, held_out = self.samples.rows, self.measured.rows
        self.figures |= usage_figures(self.target, samples, held_out, self.of_samples)
        if self.training is None:
            self.left_out |= dict.fromkeys(
                ("nearest", "memorised"), "the rows of training are not known: give the corpus "
                "that the prior was trained on with --training")
            return
        codes = [rows.codes[self.target.modality].reshape(len(rows), -1)
                 for rows in (samples, held_out)]
        with _bar(len(self.training), "training", "row") as bar:
            self.neighbours = search(self.training, codes[0], codes[1], self.config.num_compared,
                                     bar.update)
        fingerprint = self.training.reader.corpus.manifest.fingerprint
        self.figures |= neighbour_figures(self.neighbours,
                                          {**self.of_samples, "training": fingerprint})

    def add_realism(self) -> None:
        """FID and others."""
        network, place = self.network, self.sight.inception
        if network is None or place is None:
            self.left_out |= dict.fromkeys(("fid", "inception_score", "precision", "recall"),
                                           self._missing() or f"no weights: {ADVICE}")
            return
        true, words = self.sight.reference or (self._pictures(self.measured.rows),
                                               "decoded codes of the held-out rows")
        with _bar(None, "features", "image") as bar:
            seen = [features_of(network, batches, bar.update)
                    for batches in (self._pictures(self.samples.rows), true)]
        figures, left_out = realism_figures(
            seen[0], seen[1], place, self.device,
            {**self.of_samples, **network.conditions, "reference_images": words})
        self.figures |= figures
        self.left_out |= left_out

    def add_agreement(self) -> None:
        """Maps read off samples and off held-out rows."""
        maps = [segment.name for segment in self.prior.config.layout.conditions
                if segment.name not in NOT_MAPS]
        for name in maps:
            if missing := self._missing():
                self.left_out[f"{name}_agreement"] = missing
            elif name not in self.sight.estimators or name not in self.sight.decoders:
                self.left_out[f"{name}_agreement"] = (
                    "nothing reads this map off a picture: give --estimator, and --tokenizer of "
                    "the map")
            elif name not in self.samples.rows.codes:
                self.left_out[f"{name}_agreement"] = "the samples do not tell what they were given"
            else:
                self._agree(name)

    def _missing(self) -> str | None:
        """Why there are no pictures to look at, if there are none."""
        name = self.target.modality
        if name != "image":
            return f"{name} maps are no colour images"
        if name not in self.sight.decoders:
            return "no tokenizer to decode the images: give --tokenizer"
        return None

    def _agree(self, name: str) -> None:
        target = self.target.modality
        sets = {"samples": self.samples.rows, "held_out": self.measured.rows}
        decoder, estimator = self.sight.decoders[name], self.sight.estimators[name]
        with _bar(sum(map(len, sets.values())), f"reading {name}", "image") as bar:
            found = {which: agreement(rows, name, (target, self.sight.decoders[target]),
                                      cast(MapDecoder, decoder), estimator,
                                      by_chance=which == "samples", done=bar.update)
                     for which, rows in sets.items()}
        words = {"given": "maps decoded from their codes", "estimator": estimator.words}
        scores = {"samples": found["samples"].own, "held_out": found["held_out"].own}
        conditions = {
            "samples": {**self.of_samples, **words},
            "held_out": {**self.common, "num_images": len(self.measured.rows), **words}}
        if found["samples"].others:
            scores["others"] = found["samples"].others
            conditions["others"] = {**conditions["samples"], "given": "maps of other samples"}
        else:
            self.left_out[f"{name}_others"] = f"all samples were given one {name} map"
        self.figures |= agreement_figures(name, scores, conditions)

    def _pictures(self, rows: CodeRows) -> Iterator[tuple[list[str], np.ndarray]]:
        """Keys and decoded pictures of rows, some at a time."""
        decoder, codes = self.sight.decoders[self.target.modality], rows.codes[self.target.modality]
        for part in parts(len(rows)):
            yield rows.keys[part], show(decoder, codes[part])

    def report(self, place: str) -> PriorReport:
        """All that was found."""
        rows, common = self.measured, self.common
        row_filter = self.prior.config.row_filter
        return PriorReport(
            prior={"path": place, "fingerprint": self.prior.fingerprint,
                   **({"filter": row_filter} if row_filter is not None else {})},
            corpus={"path": rows.url, "fingerprint": rows.corpus, "selection": rows.selection,
                    "num_rows": len(rows.rows), "reference": common["reference"]},
            samples={"path": self.samples.url, "num_images": len(self.samples.rows),
                     "samples_hash": self.of_samples["samples_hash"],
                     "drawing": self.samples.drawing},
            figures=self.figures, left_out=self.left_out, neighbours=self._summary())

    def _summary(self) -> dict[str, Any] | None:
        """Distributions of similarity, and the samples nearest to rows of training by name."""
        found = self.neighbours
        if found is None or self.training is None:
            return None
        order = np.argsort(-found.samples.shares, kind="stable")[:NUM_LISTED]
        near = self.training.read(found.samples.rows[order])
        closest = [{"sample": self.samples.rows.keys[found.samples.places[place]], "training": key,
                    "share": float(found.samples.shares[place])}
                   for place, key in zip(order, near.keys, strict=True)]
        return {"samples": found.samples.summary(), "held_out": found.held_out.summary(),
                "closest": closest}

    def picture(self) -> np.ndarray:
        """``(height, width, 3)`` uint8; see `prior.report.picture`."""
        rows, spec, decoders = self.samples.rows, self.target, self.sight.decoders
        found = self.neighbours.samples if self.neighbours is not None else None
        places = self._shown()
        chosen = places if found is None else found.places[places]
        sample = Column([rows.keys[row] for row in chosen], pictures_of(
            spec, decoders.get(spec.modality), rows.codes[spec.modality][chosen]))
        given = [Column([name] * len(chosen),
                        pictures_of(self.prior.config.spec[name], decoders.get(name),
                                    rows.codes[name][chosen]))
                 for name in rows.codes if name != spec.modality]
        if found is None or self.training is None or self.neighbours is None:
            return draw_sheet([sample, *given], {})
        near = self.training.read(found.rows[places])
        captions = [f"{key} {share:.2f}" for share, key in
                    zip(found.shares[places], near.keys, strict=True)]
        nearest = Column(captions, pictures_of(spec, decoders.get(spec.modality),
                                               near.codes[spec.modality]))
        return draw_sheet([sample, *given, nearest], {SAMPLES: found.shares,
                                                      HELD_OUT: self.neighbours.held_out.shares})

    def _shown(self) -> np.ndarray:
        """Which samples are shown: places among those compared, or among all where none were."""
        if self.neighbours is None:
            return spread(len(self.samples.rows), NUM_CLOSEST + NUM_SPREAD)
        shares = self.neighbours.samples.shares
        closest = np.argsort(-shares, kind="stable")[:NUM_CLOSEST]
        others = np.setdiff1d(np.arange(len(shares)), closest)
        return np.concatenate([closest, others[spread(len(others), NUM_SPREAD)]])


def _bar(total: int | None, words: str, unit: str) -> Any:
    return progress_bar(total=total, desc=words, unit=unit, disable=None)
