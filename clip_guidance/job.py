"""The guiding job: a prompt in, a token corpus of guided images out.

    OUT/data, manifest.json, _SUCCESS ...   a token corpus like any other, see docs/token_corpus.md
    OUT/guiding.json                        what was asked for
    OUT/images/<key>.png                    the images, with their settings in the metadata
    OUT/curves/<key>.jsonl, <key>.png       loss and similarity by step
    OUT/frames/<key>/00050.png, <key>.gif   if asked for: the image every N steps
    OUT/_guiding/<key>.pt                   where unfinished images stand, while there are any

A row's key is ``guided-00000`` and so on, its caption the prompt, of a story the last one, and its
source CLIP, seed, start and story; loss and similarity are columns. Images are made one after the
other, each from the seed and its own number alone; the same call goes on where the last one
stopped.

Letters: M codes to start from, D codes a cell, h and w rows and columns of the code grid.
"""
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from clip_guidance.clip import Clip
from clip_guidance.curves import draw_curves, json_lines
from clip_guidance.likelihood import GuidingPrior
from clip_guidance.memory import Arrangement, arrange, used_bytes
from clip_guidance.optimise import Guided, OptimiseConfig, Record, guide, noise_codes
from clip_guidance.prompts import THEN, Prompt, chapters_of, check_course
from clip_guidance.starts import SampledStart, Start
from prior.likelihood import COLUMN as LIKELIHOOD
from tokenizer import audit, checkpoints, configs, storage, tokens
from tokenizer.claims import Claim
from tokenizer.codec import Codec
from tokenizer.memory import return_freed_memory
from tokenizer.pictures import png_bytes, save_png
from tokenizer.schema import CodeSpec, Manifest, TokenSpec, rows_table
from tokenizer.tokens import TokenCorpus
from tokenizer.vqgan.model import KIND, VQGAN, VQGANConfig
from tokenizer.weights import DAMAGED

REQUEST, STATES = "guiding.json", "_guiding"
IMAGES, CURVES, FRAMES = "images", "curves", "frames"
LOSS, SIMILARITY = "clip_loss", "clip_similarity"
"""Columns: of the finished image, over its last cutouts; similarity is to the first prompt."""
FRAME_MILLISECONDS = 120
"""How long each frame of the animation is shown."""

Made = tuple[np.ndarray, Record]
"""Of one image: codes ``(1[, D], h, w)``, and how it stood at the end."""

CLAIM = Claim(name=REQUEST, keys=frozenset({"clip", "prompts", "optimisation"}),
              noun="guided images", participle="guided",
              parts=(tokens.SUCCESS, tokens.MANIFEST, tokens.CARD, tokens.RECEIPTS, tokens.DATA,
                     STATES, IMAGES, CURVES, FRAMES))


@dataclass(frozen=True, kw_only=True)
class GuideConfig:
    """What is made.

    Attributes:
        prompts: at least one at every step.
        num: images.
        seed: of the run; image i depends on the seed, on i and on its start alone.
        optimisation: of each image.
        frames: steps between two frames; 0 writes none.
        cutout_batch: cutouts that pass through CLIP at once, all if ``None``; less takes less
            memory, and changes losses by rounding alone.
        memory_limit: bytes that may be taken, in place of ``cutout_batch``: of a GPU by torch, else
            of the machine by this process.
        save_every: steps between two saved states.
    """
    prompts: tuple[Prompt, ...]
    num: int = 1
    seed: int = 0
    optimisation: OptimiseConfig = field(default_factory=OptimiseConfig)
    frames: int = 0
    cutout_batch: int | None = None
    memory_limit: int | None = None
    save_every: int = 50

    def __post_init__(self) -> None:
        check_course(self.prompts, self.optimisation.num_steps)
        for name, lowest in (("num", 1), ("seed", 0), ("frames", 0), ("save_every", 1)):
            if getattr(self, name) < lowest:
                raise ValueError(f"{name} must be at least {lowest}, got {getattr(self, name)}")
        if self.cutout_batch is not None and self.cutout_batch < 1:
            raise ValueError(f"cutout_batch must be at least 1, got {self.cutout_batch}")
        if self.cutout_batch and self.memory_limit:
            raise ValueError("a memory limit decides how many cutouts there are at once: give it "
                             f"or cutout_batch, got {self.memory_limit} and {self.cutout_batch}")

    @property
    def text(self) -> str:
        """All prompts in one line, those of a story as they follow one another."""
        return THEN.join(chapters_of(self.prompts).values())

    @property
    def caption(self) -> str:
        """The prompts that act at the end."""
        return list(chapters_of(self.prompts).values())[-1]

    @property
    def is_story(self) -> bool:
        """Whether prompts change over time."""
        return len(chapters_of(self.prompts)) > 1


class Tokenizer:
    """A tokenizer of images to guide.

    Attributes:
        model: without gradients of its own.
        codec: the same at the size of the images.
    """

    def __init__(self, model: VQGAN, codec: Codec) -> None:
        self.model, self.codec = model, codec

    @classmethod
    def load(cls, url: str, device: str = "cpu",
             size: tuple[int, int] | None = None) -> "Tokenizer":
        """The tokenizer in a folder, for images of ``size``: height and width in pixels.

        Raises:
            FileNotFoundError: no checkpoint is there.
            ValueError: it is one of maps, or damaged; or a side is no multiple of a code's pixels.
        """
        config = checkpoints.load_config(url, KIND, VQGANConfig)
        if config.modality["name"] != "image":
            raise ValueError(f"{url} is a tokenizer of {config.modality['name']}; CLIP judges "
                             "pictures: give one of images")
        weights, fingerprint = checkpoints.load_fingerprinted(url)
        model = VQGAN.from_weights(config, weights).requires_grad_(False)
        codec = Codec(model, fingerprint, device=device)
        return cls(model, codec.at_size(size) if size else codec)


def guide_corpus(tokenizer: Tokenizer, clip: Clip, out: str, config: GuideConfig,
                 start: Start | SampledStart | None = None,
                 each: Callable[[int, Guided], object] | None = None, overwrite: bool = False,
                 prior: GuidingPrior | None = None) -> Manifest:
    """Make images that a prompt steers, into the token corpus ``out``.

    Args:
        start: codes to start from, and the cells that may change; noise, and all, without.
        each: called with the number of an image and the image, before its first step and after each
            step.
        overwrite: remove the guided images in ``out`` first.
        prior: whose likelihood, where it has a weight, is part of the loss and a column.
    Raises:
        SpecMismatch: the prior is of another tokenizer, or of images of another size.
        ValueError: ``out`` holds anything else, or other guided images that are not to be
            overwritten; a saved state is damaged; or a prompt is too long.
        OSError: the store refuses.
    """
    job = _Job(tokenizer, clip, out, config, start, prior)
    if config.memory_limit is not None:
        job.fit_into(config.memory_limit)
    CLAIM.claim(out, job.request, overwrite)
    if not storage.exists(storage.join(out, tokens.SUCCESS)):
        made = [job.make(index, each or (lambda index, guided: None))
                for index in range(config.num)]
        fingerprint = f"sha256:{storage.sha256(configs.canonical_json(job.request).encode())}"
        receipt = tokens.commit_shard(out, 0, 1, fingerprint, job.table(made))
        keys = [key_of(index) for index in range(config.num)]
        audit.complete(out, job.spec, fingerprint, [receipt], (), config.num, lambda shard: keys)
    storage.remove(storage.join(out, STATES))
    return TokenCorpus.open(out).manifest


def key_of(index: int) -> str:
    """Key of an image."""
    return f"guided-{index:05d}"


class _Job:
    """One run: its request, its images and their rows."""

    def __init__(self, tokenizer: Tokenizer, clip: Clip, out: str, config: GuideConfig,
                 start: Start | SampledStart | None, prior: GuidingPrior | None) -> None:
        self.tokenizer, self.clip, self.out, self.config = tokenizer, clip, out, config
        self.start, self.prior = start, prior if prior and prior.weight else None
        self.codes: CodeSpec = tokenizer.codec.spec
        likelihood = (LIKELIHOOD,) if self.prior else ()
        self.spec = TokenSpec(codes=(self.codes,), quality=(LOSS, SIMILARITY, *likelihood))
        for used in (prior, start.prior if isinstance(start, SampledStart) else None):
            if used is not None:
                used.require(self.codes)
        self.targets = clip.embed_prompts(config.prompts)
        self.request = self._request()
        self.arrangement: Arrangement | None = None

    def make(self, index: int, each: Callable[[int, Guided], object]) -> Made:
        """An image with all its files, continued from its saved state where there is one."""
        guided, key = self._guided(index), key_of(index)
        state = storage.join(self.out, STATES, f"{key}.pt")
        if storage.exists(state):
            _load(guided, state)
        every = self.config.save_every

        def after(guided: Guided) -> None:
            num_done = len(guided.records)
            if num_done and (guided.is_done or num_done % every == 0):
                _save(guided, state)
            self._keep_frame(key, guided)
            each(index, guided)

        codes = guide(guided, after).cpu().numpy()
        self._write_pictures(index, guided)
        return codes, guided.records[-1]

    def fit_into(self, limit: int) -> None:
        """Choose how steps are made by the memory there is.

        Raises:
            ValueError: not even one cutout at a time fits.
        """
        return_freed_memory()
        guided = self._guided(0)
        self.arrangement = arrange(guided.measure(), self.config.optimisation.cutouts.num,
                                   used_bytes(guided.targets.device), limit)

    def table(self, made: Sequence[Made]) -> pa.Table:
        """The rows of all images."""
        height, width = self.codes.image_size
        whole = {"height": height, "width": width, "crop_index": 0, "left": 0, "top": 0,
                 "crop_width": width, "crop_height": height, "flipped": False}
        codes = np.concatenate([codes for codes, _ in made])
        return rows_table(self.spec, {self.codes.modality: codes}, {
            "key": [key_of(index) for index in range(len(made))],
            "source": [self._source(index) for index in range(len(made))],
            "caption": [self.config.caption] * len(made),
            **{name: [value] * len(made) for name, value in whole.items()},
            LOSS: [record.loss for _, record in made],
            SIMILARITY: [record.similarity for _, record in made],
            LIKELIHOOD: [self._nats(record.bits) for _, record in made]})

    def _nats(self, bits: float | None) -> float:
        """Log-likelihood of an image in nats, of the bits for a code."""
        return math.nan if bits is None else -bits * math.log(2) * self.codes.num_codes

    def _guided(self, index: int) -> Guided:
        seed, start, free = (self.config.seed, index), self.start, None
        if start is None:
            codes = noise_codes(self.tokenizer.model, self.codes.grid, seed)
        else:
            codes = start.codes_of(*seed)
            free = None if start.free is None else torch.from_numpy(start.free)
        device = self.targets.device
        guided = Guided(self.tokenizer.model, self.clip, self.config.prompts, self.targets,
                        torch.from_numpy(codes).to(device), self.config.optimisation, seed,
                        free=None if free is None else free.to(device),
                        cutout_batch=self.config.cutout_batch, prior=self.prior)
        guided.arrangement = self.arrangement or guided.arrangement
        return guided

    def _keep_frame(self, key: str, guided: Guided) -> None:
        """Write the image as it stands, if a frame is due."""
        step, every = len(guided.records), self.config.frames
        if every and step <= self.config.optimisation.num_steps and step % every == 0:
            save_png(storage.join(self.out, FRAMES, key, f"{step:05d}.png"), self._picture(guided))

    def _picture(self, guided: Guided) -> np.ndarray:
        """``(H, W, 3)`` uint8, as the decode job makes it of the codes."""
        picture: np.ndarray = self.tokenizer.codec.decode(guided.codes.cpu().numpy())[0]
        return picture

    def _write_pictures(self, index: int, guided: Guided) -> None:
        key, last = key_of(index), guided.records[-1]
        settings = {**self.request, "index": index, "loss": last.loss,
                    "similarity": last.similarity}
        texts = {"Description": self.config.text, "img2tokens": json.dumps(settings)}
        storage.write_bytes(storage.join(self.out, IMAGES, f"{key}.png"),
                            png_bytes(self._picture(guided), texts))
        curve = storage.join(self.out, CURVES, key)
        storage.write_bytes(f"{curve}.jsonl", json_lines(guided.records))
        save_png(f"{curve}.png", draw_curves(guided.records, self.config.prompts))
        if self.config.frames:
            _animate(storage.join(self.out, FRAMES, key))

    def _source(self, index: int) -> str:
        """Where an image comes from, so that it can be made again."""
        source = f"clip:{self.clip.fingerprint}#seed={self.config.seed}&index={index}"
        story = f"&story={quote(self.config.text)}" if self.config.is_story else ""
        prior = f"&prior={self.prior.prior.fingerprint}" if self.prior else ""
        start = f"&start={quote(self.start.name)}" if self.start else ""
        return source + start + prior + story

    def _request(self) -> dict[str, Any]:
        """All that decides the codes, as JSON values."""
        start, prompts = self.start, self.config.prompts
        request: dict[str, Any] = {
            "clip": self.clip.fingerprint, "tokenizer": self.codes.tokenizer,
            "prompts": [prompt.describe() for prompt in prompts],
            "image_size": list(self.codes.image_size), "num": self.config.num,
            "seed": self.config.seed, "optimisation": configs.to_dict(self.config.optimisation)}
        if self.config.is_story:
            request["begins"] = [prompt.begin for prompt in prompts]
            request["ends"] = [prompt.end for prompt in prompts]
        if files := [prompt.file for prompt in prompts if prompt.file is not None]:
            request["pictures"] = {file: f"sha256:{storage.sha256(storage.read_bytes(file))}"
                                   for file in files}
        if self.prior is not None:
            request["prior"] = self.prior.describe()
        if start is not None:
            request["start"] = start.describe()
        return request


def _save(guided: Guided, url: str) -> None:
    buffer = io.BytesIO()
    torch.save(guided.state_dict(), buffer)
    storage.write_bytes(url, buffer.getvalue())


def _load(guided: Guided, url: str) -> None:
    content = io.BytesIO(storage.read_bytes(url))
    try:
        guided.load_state_dict(torch.load(content, map_location=guided.targets.device,
                                          weights_only=True))
    except DAMAGED as error:
        raise ValueError(f"{url} is damaged: remove it, and its image is made anew") from error


def _animate(folder: str) -> None:
    """Write the frames of a folder beside it as one animated GIF."""
    frames = [Image.open(io.BytesIO(storage.read_bytes(storage.join(folder, name))))
              for name in storage.list_names(folder)]
    if not frames:  # they were asked for when the image was done already
        return
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], loop=0,
                   duration=FRAME_MILLISECONDS)
    storage.write_bytes(f"{folder}.gif", buffer.getvalue())
