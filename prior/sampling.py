"""The sampling job: conditions in, a token corpus of generated codes out.

    OUT/data, manifest.json, _SUCCESS ...   a token corpus like any other, see docs/token_corpus.md
    OUT/sampling.json                       what was asked for

A row's key is ``sample-00000`` and so on; its source names the prior, the seed, and the row it was
conditioned on. Shards are committed one by one; the same call goes on where the last one stopped.

Letters: N images, M rows of conditions, h and w rows and columns of the code grid.
"""
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa

from prior.coordinates import RECORD
from prior.generate import Generation, generate
from prior.givens import Givens
from prior.guidance import Guidance
from prior.likelihood import COLUMN, log_likelihoods
from prior.masks import codes_hole
from prior.model import Prior, PriorConfig
from prior.sequence import LABEL, NOT_MAPS
from prior.windows import generate_windows, require_no_cache
from tokenizer import audit, configs, storage, tokens
from tokenizer.claims import Claim, require_apart
from tokenizer.receipts import Receipt
from tokenizer.schema import CodeSpec, Manifest, TokenSpec, rows_table

SAMPLING = "sampling.json"
GALLERY = ("images", "grid.png", "likelihood.png")
"""Pictures beside the corpus, as `prior.gallery` writes them."""
SOURCE = "prior:"
"""Begins the source of a sample; the fingerprint of its prior follows, and behind # the rest."""
FAILED = "_failed"
"""What engines leave of shards that could not be made, as long as some are missing."""
CLAIM = Claim(name=SAMPLING, keys=frozenset({"prior", "generation", "content"}), noun="samples",
              participle="sampled",
              parts=(tokens.SUCCESS, tokens.MANIFEST, tokens.CARD, tokens.RECEIPTS, tokens.DATA,
                     *GALLERY, FAILED))

Drawn = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Of N images: numbers of their draws ``(N,)``, codes ``(N[, D], h, w)``, log-likelihoods."""


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How many images, and how they are drawn.

    Attributes:
        num: N; ``None`` draws ``samples_each`` for each row of conditions.
        samples_each: images in a row that share one row of conditions; then comes the next row,
            after the last the first again.
        seed: of the run; image i depends on the seed, on i and on its conditions alone.
        generation: sampler, guidance and batch size.
        shard_size: images a shard.
        best_of: images drawn for each ``samples_each`` that are kept, the most likely ones first;
            0 keeps all.
        likelihood: whether rows have the column `prior.likelihood.COLUMN`.
    """
    num: int | None = None
    samples_each: int = 1
    seed: int = 0
    generation: Generation = field(default_factory=Generation)
    shard_size: int = 512
    best_of: int = field(default=0, metadata=configs.LATER)
    likelihood: bool = field(default=False, metadata=configs.LATER)

    def __post_init__(self) -> None:
        if self.num is not None and self.num < 1:
            raise ValueError(f"num must be at least 1, got {self.num}")
        for name, lowest in (("samples_each", 1), ("seed", 0), ("shard_size", 1)):
            if getattr(self, name) < lowest:
                raise ValueError(f"{name} must be at least {lowest}, got {getattr(self, name)}")
        if self.best_of and self.best_of < self.samples_each:
            raise ValueError(f"best_of is how many images are drawn to keep {self.samples_each}, "
                             f"got {self.best_of}")

    @property
    def rows_a_shard(self) -> int:
        """Images a shard: ``shard_size``, up to whole groups where images are ranked in groups."""
        if not self.best_of:
            return self.shard_size
        return -(-self.shard_size // self.samples_each) * self.samples_each

    def num_images(self, num_rows: int) -> int:
        """N, for this number of rows of conditions."""
        return num_rows * self.samples_each if self.num is None else self.num


def sample_corpus(prior: Prior, givens: Givens, out: str, config: SamplingConfig,
                  done: Callable[[int], object] = lambda count: None,
                  overwrite: bool = False, part: tuple[int, int] | None = None,
                  carry: "Callable[[SampleJob], object] | None" = None) -> Manifest | None:
    """Generate images into the token corpus ``out``.

    Args:
        givens: rows of conditions, of `prior.givens`.
        done: called with the number of images finished, after each batch.
        overwrite: remove the samples in ``out`` first.
        part: ``(index, size)`` for every size-th shard from index alone; whoever finds that all
            are there completes the corpus.
        carry: has all shards that have no receipt made, elsewhere; this process otherwise.
    Returns:
        The manifest, or nothing where shards are left to other parts.
    Raises:
        ValueError: ``out`` holds anything else, or other samples that are not to be overwritten, or
            lies in the corpus of the conditions; guidance is asked of a prior that cannot, or
            what pictures of this size cannot have; or what was written before is damaged.
        OSError: the store refuses.
    """
    _check_guidance(prior.config, config.generation.guidance, givens.conditions)
    job = SampleJob(prior, givens, config, out)
    if job.is_large:
        require_no_cache(config.generation)
    if overwrite and part:
        raise ValueError("the tasks of an array cannot overwrite: each would remove what the "
                         f"others have made; remove {out} before they start")
    _claim(out, job.describe(), givens, overwrite)
    if carry is not None:
        carry(job)
    receipts = _make_shards(job, part or (0, 1), done)
    if len(receipts) < job.num_shards:
        return None
    storage.remove(storage.join(out, FAILED))
    try:
        return audit.complete(out, job.spec, job.fingerprint, receipts.values(), job.classes,
                              job.num, lambda shard: [key_of(row) for row in job.rows(shard)])
    except tokens.AuditFailure as error:
        for shard in error.shards:
            storage.remove(storage.join(out, tokens.receipt_name(shard)))
        raise


def _make_shards(job: "SampleJob", part: tuple[int, int],
                 done: Callable[[int], object]) -> dict[int, Receipt]:
    """Make the shards of a part that have no receipt; the receipts of all that are there now."""
    receipts = tokens.read_receipts(job.out, job.fingerprint)
    for shard in range(part[0], job.num_shards, part[1]):
        if shard in receipts:
            done(len(job.rows(shard)))
        else:
            receipts[shard] = job.make(shard, done)
    return receipts | tokens.read_receipts(job.out, job.fingerprint, receipts)


def describe_generation(generation: Generation) -> dict[str, Any]:
    """How codes are drawn, as JSON values; a single scale of guidance is a number."""
    sampler, guidance = generation.sampler, generation.guidance
    plain = guidance == Guidance(scale=guidance.scale)
    return {**configs.to_dict(generation),
            "sampler": {"name": sampler.name, **configs.to_dict(sampler)},
            "guidance": guidance.scale if plain else configs.to_dict(guidance)}


def key_of(index: int) -> str:
    """Key of an image."""
    return f"sample-{index:05d}"


def drawing_prior(source: str) -> str | None:
    """Fingerprint of the prior that drew an image with this source; nothing for other images."""
    name, _, _ = source.partition("#")
    return name.removeprefix(SOURCE) if name.startswith(SOURCE) else None


class SampleJob:
    """One run: which image gets which conditions, and its rows in the corpus.

    Attributes:
        prior, givens, config, out: as `sample_corpus` takes them.
        num: N images, in ``num_shards`` shards.
        fingerprint: hash over all that decides the codes.
    """

    def __init__(self, prior: Prior, givens: Givens, config: SamplingConfig, out: str) -> None:
        self.prior, self.givens, self.config, self.out = prior, givens, config, out
        self.num = config.num_images(len(givens))
        self.num_shards = -(-self.num // config.rows_a_shard)
        self.maps = [name for name in givens.conditions if name not in NOT_MAPS]
        self.layout = prior.config.layout
        self.is_large = self.layout.target.grid != prior.model.layout.target.grid
        self.hole = (None if givens.hole is None
                     else codes_hole(givens.hole, self.layout.target.depth))
        self.spec = TokenSpec(
            codes=tuple(prior.config.spec[name] for name in (prior.config.target, *self.maps)),
            quality=(COLUMN,) if config.likelihood or config.best_of else ())
        has_label = LABEL in [condition.name for condition in prior.config.conditions]
        self.classes = prior.config.classes if has_label else ()
        request = configs.canonical_json(self.describe())
        self.fingerprint = f"sha256:{storage.sha256(request.encode())}"

    def describe(self) -> dict[str, Any]:
        """All that decides the codes, as JSON values."""
        givens, generation = self.givens, self.config.generation
        parts = [givens.rows, givens.start, *(givens.conditions[name] for name in
                                              sorted(givens.conditions))]
        content = b"".join(np.ascontiguousarray(part, np.int64).tobytes() for part in parts)
        return {"prior": self.prior.fingerprint, **configs.to_dict(self.config), "num": self.num,
                "generation": describe_generation(generation), "corpus": givens.corpus,
                "num_rows": len(givens), "num_kept": givens.start.shape[1],
                "conditions": sorted(givens.conditions),
                "content": f"sha256:{storage.sha256(content)}",
                **({"grid": list(self.layout.target.grid)} if self.is_large else {}),
                **({"hole": np.flatnonzero(givens.hole).tolist()} if givens.hole is not None
                   else {})}

    def rows(self, shard: int) -> range:
        """Indices of the images in a shard."""
        first = shard * self.config.rows_a_shard
        return range(first, min(first + self.config.rows_a_shard, self.num))

    def make(self, shard: int, done: Callable[[int], object] = lambda count: None) -> Receipt:
        """Generate the images of a shard and commit it; to do it twice does no harm."""
        return tokens.commit_shard(self.out, shard, self.num_shards, self.fingerprint,
                                   self.table(self.rows(shard), done))

    def table(self, rows: range, done: Callable[[int], object]) -> pa.Table:
        """Generate the images of a shard."""
        if self.config.best_of:
            numbers, codes, logs = self._best(rows)
            done(len(rows))
        else:
            numbers, codes, logs = self._all(rows, done)
        given = {name: values[self._places(rows)] for name, values in
                 self.givens.conditions.items()}
        maps = {name: self.layout[name].to_stored(given[name]) for name in self.maps}
        columns = self._columns(rows, numbers, given)
        if self.spec.quality:
            columns[COLUMN] = logs.tolist()
        return rows_table(self.spec, {self.prior.config.target: codes, **maps}, columns)

    def _all(self, rows: range, done: Callable[[int], object]) -> Drawn:
        """Every image of a shard is a draw of its own."""
        places = self._places(rows)
        codes = self._generate(places, rows, done)
        logs = (self._log_likelihoods(places, codes) if self.spec.quality
                else np.zeros(len(rows), np.float32))
        return np.array(rows), codes, logs

    def _best(self, rows: range) -> Drawn:
        """The most likely of those drawn for each group of images."""
        each, drawn = self.config.samples_each, self.config.best_of
        groups = np.arange(rows.start // each, -(-rows.stop // each))
        places = groups.repeat(drawn) % len(self.givens)
        numbers = np.arange(groups[0] * drawn, (groups[-1] + 1) * drawn)
        codes = self._generate(places, numbers.tolist(), lambda count: None)
        logs = self._log_likelihoods(places, codes)
        kept = best(logs, drawn, each)[:len(rows)]
        return numbers[kept], codes[kept], logs[kept]

    def _generate(self, places: np.ndarray, numbers: Sequence[int],
                  done: Callable[[int], object]) -> np.ndarray:
        """Codes ``(N[, D], h, w)`` of draws with these numbers and the conditions at ``places``."""
        seeds = [(self.config.seed, number) for number in numbers]
        given = {name: codes[places] for name, codes in self.givens.conditions.items()}
        start = self.givens.start[places]
        model, generation = self.prior.model, self.config.generation
        if self.is_large:
            return generate_windows(model, self.layout, given, seeds, generation, start, self.hole,
                                    done)
        return generate(model, given, seeds, generation, start, self.hole, done)

    def _log_likelihoods(self, places: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Log-likelihood of each image, float32 ``(N,)`` in nats."""
        given = {name: values[places] for name, values in self.givens.conditions.items()}
        return log_likelihoods(self.prior.model, self.layout, given,
                               self.layout.target.to_sequence(codes),
                               self.config.generation.batch_size).sum(1)

    def _places(self, rows: range) -> np.ndarray:
        """The row of conditions of each image."""
        return np.array(rows) // self.config.samples_each % len(self.givens)

    def _columns(self, rows: range, numbers: np.ndarray,
                 given: Mapping[str, np.ndarray]) -> dict[str, list[Any]]:
        target = self.spec[self.prior.config.target]
        columns: dict[str, list[Any]] = {
            "key": [key_of(row) for row in rows],
            "source": [self._source(number, place) for number, place in
                       zip(numbers, self._places(rows), strict=True)],
            **{name: [value] * len(rows) for name, value in _whole_image(target).items()}}
        if self.givens.crops is not None:
            records = self.givens.crops[self._places(rows)]
            columns |= dict(zip(RECORD, records.T.tolist(), strict=True))
            columns["flipped"] = records[:, RECORD.index("flipped")].astype(bool).tolist()
        if LABEL in given:
            labels = [int(label) if label < len(self.classes) else None
                      for label in given[LABEL][:, 0]]
            columns["label"] = labels
            columns["class_name"] = [None if label is None else self.classes[label]
                                     for label in labels]
        return columns

    def _source(self, number: int, place: int) -> str:
        """Where an image comes from, so that it can be drawn again."""
        source = (f"{SOURCE}{self.prior.fingerprint}#seed={self.config.seed}"
                  f"&index={number}")
        if self.givens.corpus is not None:
            source += (f"&condition={quote(self.givens.keys[place])}"
                       f"&row={self.givens.rows[place]}")
        elif self.givens.keys[place]:
            source += f"&files={quote(self.givens.keys[place])}"
        kept = self.givens.start.shape[1] if self.hole is None else int((~self.hole).sum())
        if kept:
            source += f"&kept={kept}"
        return source


def best(scores: np.ndarray, num_drawn: int, num_kept: int) -> np.ndarray:
    """Indices of the highest of each group of scores, the highest first.

    Args:
        scores: ``(N,)``, in groups of ``num_drawn``.
    """
    groups = scores.reshape(-1, num_drawn)
    order = np.argsort(-groups, axis=1, kind="stable")[:, :num_kept]
    return (order + np.arange(len(groups))[:, None] * num_drawn).reshape(-1)


def _whole_image(spec: CodeSpec) -> dict[str, Any]:
    """Geometry columns of an image that was never cropped."""
    height, width = spec.image_size
    return {"height": height, "width": width, "crop_index": 0, "left": 0, "top": 0,
            "crop_width": width, "crop_height": height, "flipped": False}


def _claim(out: str, request: Mapping[str, Any], givens: Givens, overwrite: bool) -> None:
    """Write what is asked for, or check that the folder holds the same; see `Claim`.

    Raises:
        ValueError: the folder holds other samples or something else, or it is not for samples.
    """
    require_apart(out, [givens.url], "the samples")
    CLAIM.claim(out, request, overwrite)


def _check_guidance(config: PriorConfig, guidance: Guidance, given: Collection[str]) -> None:
    """Refuse guidance that compares with what the prior was never asked in training."""
    names = [condition.name for condition in config.conditions]
    if guidance.is_plain:
        return
    if not names:
        raise ValueError(f"guidance {guidance.scale:g} needs conditions; the prior has none")
    for name in guidance.scales:
        if name not in given:
            raise ValueError(f"guidance of {name} needs {name} among what is given "
                             f"({', '.join(given) or 'nothing'})")
    if not given:
        raise ValueError(f"guidance {guidance.scale:g} follows what samples are given, and nothing "
                         "is: give --label, --condition or --condition-from, or leave it out")
    for stage in guidance.chain([name for name in names if name in given]).stages:
        if needed := config.indispensable([name for name in names if name not in stage]):
            raise ValueError("this guidance needs a prior that was trained without its conditions "
                             f"at times; this one always had {', '.join(needed)}")
