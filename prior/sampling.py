"""The sampling job: conditions in, a token corpus of generated codes out.

    OUT/data, manifest.json, _SUCCESS ...   a token corpus like any other, see docs/token_corpus.md
    OUT/sampling.json                       what was asked for

A row's key is ``sample-00000`` and so on; its source names the prior, the seed, and the row it was
conditioned on. Shards are committed one by one; the same call goes on where the last one stopped.

Letters: N images, M rows of conditions, h and w rows and columns of the code grid.
"""
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa

from prior.generate import Generation, generate
from prior.givens import Givens
from prior.model import Prior
from prior.sequence import LABEL
from tokenizer import audit, configs, storage, tokens
from tokenizer.schema import CodeSpec, Manifest, TokenSpec, flatten, rows_table

SAMPLING = "sampling.json"
GALLERY = ("images", "grid.png")
"""Pictures beside the corpus, as `prior.gallery` writes them."""
PARTS = (tokens.SUCCESS, tokens.MANIFEST, tokens.CARD, tokens.RECEIPTS, tokens.DATA, *GALLERY)
"""What is written after `SAMPLING`, in the order in which it is removed."""


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
    """
    num: int | None = None
    samples_each: int = 1
    seed: int = 0
    generation: Generation = field(default_factory=Generation)
    shard_size: int = 512

    def __post_init__(self) -> None:
        if self.num is not None and self.num < 1:
            raise ValueError(f"num must be at least 1, got {self.num}")
        for name, lowest in (("samples_each", 1), ("seed", 0), ("shard_size", 1)):
            if getattr(self, name) < lowest:
                raise ValueError(f"{name} must be at least {lowest}, got {getattr(self, name)}")

    def num_images(self, num_rows: int) -> int:
        """N, for this number of rows of conditions."""
        return num_rows * self.samples_each if self.num is None else self.num


def sample_corpus(prior: Prior, givens: Givens, out: str, config: SamplingConfig,
                  done: Callable[[int], object] = lambda count: None,
                  overwrite: bool = False) -> Manifest:
    """Generate images into the token corpus ``out``.

    Args:
        givens: rows of conditions, of `prior.givens`.
        done: called with the number of images finished, after each batch.
        overwrite: remove the samples in ``out`` first.
    Raises:
        ValueError: ``out`` holds anything else, or other samples that are not to be overwritten, or
            lies in the corpus of the conditions; guidance is asked of a prior that cannot; or what
            was written before is damaged.
        OSError: the store refuses.
    """
    _check_guidance(prior, config.generation)
    job = _Job(prior, givens, config)
    request = job.describe()
    fingerprint = f"sha256:{storage.sha256(configs.canonical_json(request).encode())}"
    _claim(out, request, givens, overwrite)
    receipts = tokens.read_receipts(out, fingerprint)
    for shard in range(job.num_shards):
        rows = job.rows(shard)
        if shard in receipts:
            done(len(rows))
        else:
            receipts[shard] = tokens.commit_shard(out, shard, job.num_shards, fingerprint,
                                                  job.table(rows, done))
    try:
        return audit.complete(out, job.spec, fingerprint, receipts.values(), job.classes, job.num,
                              lambda shard: [key_of(row) for row in job.rows(shard)])
    except tokens.AuditFailure as error:
        for shard in error.shards:
            storage.remove(storage.join(out, tokens.receipt_name(shard)))
        raise


def key_of(index: int) -> str:
    """Key of an image."""
    return f"sample-{index:05d}"


class _Job:
    """One run: which image gets which conditions, and its rows in the corpus."""

    def __init__(self, prior: Prior, givens: Givens, config: SamplingConfig) -> None:
        self.prior, self.givens, self.config = prior, givens, config
        self.num = config.num_images(len(givens))
        self.num_shards = -(-self.num // config.shard_size)
        self.maps = [name for name in givens.conditions if name != LABEL]
        self.spec = TokenSpec(codes=tuple(prior.config.spec[name]
                                          for name in (prior.config.target, *self.maps)))
        has_label = LABEL in [condition.name for condition in prior.config.conditions]
        self.classes = prior.config.classes if has_label else ()

    def describe(self) -> dict[str, Any]:
        """All that decides the codes, as JSON values."""
        givens, sampler = self.givens, self.config.generation.sampler
        parts = [givens.rows, givens.start, *(givens.conditions[name] for name in
                                              sorted(givens.conditions))]
        content = b"".join(np.ascontiguousarray(part, np.int64).tobytes() for part in parts)
        generation = {**configs.to_dict(self.config.generation),
                      "sampler": {"name": sampler.name, **configs.to_dict(sampler)}}
        return {"prior": self.prior.fingerprint, **configs.to_dict(self.config), "num": self.num,
                "generation": generation, "corpus": givens.corpus, "num_rows": len(givens),
                "num_kept": givens.start.shape[1], "conditions": sorted(givens.conditions),
                "content": f"sha256:{storage.sha256(content)}"}

    def rows(self, shard: int) -> range:
        """Indices of the images in a shard."""
        first = shard * self.config.shard_size
        return range(first, min(first + self.config.shard_size, self.num))

    def table(self, rows: range, done: Callable[[int], object]) -> pa.Table:
        """Generate the images of a shard."""
        places = self._places(rows)
        given = {name: codes[places] for name, codes in self.givens.conditions.items()}
        seeds = [(self.config.seed, row) for row in rows]
        codes = generate(self.prior.model, given, seeds, self.config.generation,
                         self.givens.start[places], done)
        layout = self.prior.config.layout
        maps = {name: layout[name].to_stored(given[name]) for name in self.maps}
        return rows_table(self.spec, {self.prior.config.target: codes, **maps},
                          self._columns(rows, given))

    def _places(self, rows: range) -> np.ndarray:
        """The row of conditions of each image."""
        return np.array(rows) // self.config.samples_each % len(self.givens)

    def _columns(self, rows: range, given: Mapping[str, np.ndarray]) -> dict[str, list[Any]]:
        target = self.spec[self.prior.config.target]
        columns: dict[str, list[Any]] = {
            "key": [key_of(row) for row in rows],
            "source": [self._source(row, place) for row, place in
                       zip(rows, self._places(rows), strict=True)],
            **{name: [value] * len(rows) for name, value in _whole_image(target).items()}}
        if LABEL in given:
            labels = [int(label) if label < len(self.classes) else None
                      for label in given[LABEL][:, 0]]
            columns["label"] = labels
            columns["class_name"] = [None if label is None else self.classes[label]
                                     for label in labels]
        return columns

    def _source(self, row: int, place: int) -> str:
        """Where an image comes from, so that it can be drawn again."""
        source = f"prior:{self.prior.fingerprint}#seed={self.config.seed}&index={row}"
        if self.givens.corpus is not None:
            source += (f"&condition={quote(self.givens.keys[place])}"
                       f"&row={self.givens.rows[place]}")
        if kept := self.givens.start.shape[1]:
            source += f"&kept={kept}"
        return source


def _whole_image(spec: CodeSpec) -> dict[str, Any]:
    """Geometry columns of an image that was never cropped."""
    height, width = spec.image_size
    return {"height": height, "width": width, "crop_index": 0, "left": 0, "top": 0,
            "crop_width": width, "crop_height": height, "flipped": False}


def _claim(out: str, request: Mapping[str, Any], givens: Givens, overwrite: bool) -> None:
    """Write what is asked for, or check that the folder holds the same; remove what is overwritten.

    Raises:
        ValueError: the folder holds other samples or something else, or it is not for samples.
    """
    if givens.url is not None and storage.is_within(out, givens.url):
        raise ValueError(f"the output folder {out} lies in the token corpus {givens.url}; choose "
                         "another folder for the samples")
    before = _asked_before(out)
    if before is None:
        _require_empty(out)
    elif overwrite:
        for part in PARTS:
            storage.remove(storage.join(out, part))
    else:
        _require_same(out, before, request)
        return
    storage.write_bytes(storage.join(out, SAMPLING),
                        (json.dumps(request, indent=1) + "\n").encode())


def _asked_before(out: str) -> dict[str, Any] | None:
    """What was asked for of the samples in a folder; ``None`` where no sampling job wrote."""
    request = storage.read_json_object(storage.join(out, SAMPLING))
    return request if request.keys() >= {"prior", "generation", "content"} else None


def _require_empty(out: str) -> None:
    names = [name for name in storage.list_names(out) if not name.startswith(".")]
    if names:
        what = ("a token corpus that was not sampled" if tokens.MANIFEST in names
                else f"other files, such as {names[0]}")
        raise ValueError(f"{out} holds {what}: choose another folder")


def _require_same(out: str, before: Mapping[str, Any], request: Mapping[str, Any]) -> None:
    was, now = flatten(dict(before)), flatten(dict(request))
    changed = [f"{field} was {was.get(field)}, now {now.get(field)}"
               for field in sorted(was.keys() | now.keys()) if was.get(field) != now.get(field)]
    if changed:
        raise ValueError(f"{out} holds other samples ({'; '.join(changed[:4])}): give another "
                         "folder, or start over with --overwrite")


def _check_guidance(prior: Prior, generation: Generation) -> None:
    names = [condition.name for condition in prior.config.conditions]
    if generation.guidance != 1 and not names:
        raise ValueError(f"guidance {generation.guidance} needs conditions; the prior has none")
    if generation.guidance != 1 and (needed := prior.config.indispensable(names)):
        raise ValueError(f"guidance {generation.guidance} needs a prior that was trained without "
                         f"its conditions at times; this one always had {', '.join(needed)}")
