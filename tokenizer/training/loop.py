"""Training of a tokenizer from a corpus, from the first step or on from a checkpoint.

    OUT/config.json, model.safetensors   the tokenizer, with averaged weights
    OUT/training/state.pt                what resuming needs; may be deleted when all is done
    OUT/metrics.jsonl, logs/             figures by step, and the same with pictures for TensorBoard
    OUT/reconstructions.png              held-out originals above their reconstructions
    OUT/evaluation.json                  figures on the held-out images, with their conditions

The same call goes on where the last one stopped. With a budget in steps, weights and metrics of a
stopped and continued training equal those of an uninterrupted one bit for bit (times apart): on
CPUs, and on GPUs as far as torch repeats its own gradients there.
"""
import hashlib
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tokenizer import checkpoints, configs
from tokenizer.corpus.dataset import CorpusDataset
from tokenizer.corpus.modalities import Segmentation
from tokenizer.corpus.sources import open_source
from tokenizer.training.budget import Budget
from tokenizer.training.config import HOUSEKEEPING, TrainingConfig
from tokenizer.training.discriminator import check_size
from tokenizer.training.initial import check_initial
from tokenizer.training.metrics import Evaluation, describe_scores
from tokenizer.training.observer import Observer
from tokenizer.training.perceptual import LEAST_SIDE, PerceptualDistance, load_perceptual
from tokenizer.training.processes import agree, alone, build_accelerator, close
from tokenizer.training.resume import (
    lasting_settings,
    load_progress,
    prepare_folder,
    settle_precision,
)
from tokenizer.training.state import TrainingState
from tokenizer.training.steps import train_step
from tokenizer.training.stopping import StopRequest, stop_request
from tokenizer.vqgan.model import KIND, VQGANConfig

GIB = 1 << 30

GPU_READERS = 8
"""Threads that read images for one GPU; what a step sees does not depend on them."""

RUN_CONFIGS = {"model": VQGANConfig, "training": TrainingConfig}
"""Configs among what decides the weights."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a training came to.

    Attributes:
        evaluation: figures on the held-out images; nothing when none were held out.
        step: optimiser steps done, in all runs together.
        seconds: time spent training, in all runs together.
        unreadable: images left out, by where they lie, with what is wrong.
        is_first_process: whether this is the process that measures and speaks for all.
    """
    evaluation: Evaluation | None
    step: int
    seconds: float
    unreadable: dict[str, str]
    is_first_process: bool

    def summary(self) -> str:
        """The figures and the length of the training, in one line."""
        length = f"{self.step} steps in {self.seconds / 60:.1f} minutes"
        if self.evaluation is None:
            return f"no image held out, {length}"
        found = self.evaluation
        most = f" (at most {found.most_share:.1%} by so few)" if found.most_share < 1 else ""
        return (f"held-out images ({found.num_images}): {describe_scores(found.scores)}, "
                f"{found.used_share:.1%} of the codebook used{most}; {length}")


def train_tokenizer(corpus: str, out: str, config: VQGANConfig, training: TrainingConfig,
                    init_from: str | None = None) -> Trained:
    """Train a tokenizer on the images or maps of ``corpus`` into the folder ``out``.

    Args:
        corpus: a folder, or whatever else a source reads.
        out: local folder; a training that was stopped there goes on.
        config: architecture and modality.
        training: settings; ``steps`` or ``minutes`` must be set.
        init_from: folder of a tokenizer with an equal network, whose weights are the first ones.
    Raises:
        OSError, ValueError: the corpus, a setting, the folder or a loss is not as it must be.
        KeyboardInterrupt: stopped by Ctrl-C or SIGTERM, after a checkpoint.
    """
    budget = training.budget
    _check_terms(config, training)
    training = settle_precision(training, out)
    accelerator = build_accelerator(training)
    perceptual = None
    if training.perceptual.weight:
        perceptual = load_perceptual(training.perceptual).to(accelerator.device)
    dataset = open_dataset(corpus, config, training)
    run: dict[str, Any] = {
        "model": configs.to_dict(config), "corpus": _describe_corpus(dataset),
        "training": lasting_settings(training, HOUSEKEEPING)}
    if init_from is not None:
        run["init_from"] = check_initial(init_from, config)
    state = TrainingState(config, training, accelerator)
    with alone(accelerator):
        if accelerator.is_main_process:
            prepare_folder(out, KIND, config)
    if (saved := load_progress(out, run, RUN_CONFIGS)) is not None:
        state.load_state_dict(saved)
    elif init_from is not None:
        state.start_from(checkpoints.load_weights(init_from))
    with stop_request() as stop, Observer(state, dataset, out) as observer:
        loop = _Loop(state, budget, dataset, observer, perceptual, out, run)
        loop.train(stop)
        evaluation = loop.finish()
    close(accelerator)
    return Trained(evaluation=evaluation, step=state.step, seconds=state.seconds,
                   unreadable=dict(dataset.unreadable),
                   is_first_process=accelerator.is_main_process)


def open_dataset(corpus: str, config: VQGANConfig, training: TrainingConfig) -> CorpusDataset:
    """The corpus as pixels for this model, divided as ``training`` says."""
    modality = config.build_modality()
    source = open_source(corpus, labels="none", modality=modality.name)
    return CorpusDataset(
        source, modality, config.image_size, split=training.split, seed=training.seed,
        crop_share=training.crop_share, flip=training.flip, colours=training.colours,
        cache_bytes=int(training.cache_gib * GIB))


def num_readers(device: torch.device) -> int:
    """Images that are read and prepared at once: beside a GPU several; on a CPU one, as its cores
    are busy with the step before."""
    return 1 if device.type == "cpu" else GPU_READERS


class _Loop:
    """Steps, checkpoints and their timing; figures and pictures are the observer's."""

    def __init__(self, state: TrainingState, budget: Budget, dataset: CorpusDataset,
                 observer: Observer, perceptual: PerceptualDistance | None, out: str,
                 run: dict[str, Any]) -> None:
        self.state, self.budget, self.dataset, self.observer = state, budget, dataset, observer
        self.perceptual, self.out, self.run = perceptual, out, run
        self.first_step = state.step
        self.evaluation: Evaluation | None = None

    def train(self, stop: StopRequest) -> None:
        """Steps until the budget is spent, or until a stop is asked for and a checkpoint made."""
        state, training = self.state, self.state.training
        if not state.step:
            self._save_state()  # the folder is now known as one of an unfinished training
        started, saved = time.monotonic() - state.seconds, state.seconds
        device = state.accelerator.device
        with ThreadPoolExecutor(num_readers(device)) as readers:
            coming = self._read(readers, state.step)
            while not self.budget.is_spent(state.step, state.seconds):
                pixels = torch.from_numpy(np.concatenate([image.result() for image in coming]))
                coming = self._read(readers, state.step + 1)
                result = train_step(state, pixels.to(device),
                                    self.budget.progress(state.step, state.seconds),
                                    self.perceptual)
                state.seconds = agree(state.accelerator, time.monotonic() - started)
                is_last = self.budget.is_spent(state.step, state.seconds)
                self.observer.after_step(result, is_last)
                if is_last or state.step % training.evaluate_every == 0:
                    self._evaluate()
                is_stopped = bool(agree(state.accelerator, float(stop.is_made)))
                if is_stopped or state.seconds - saved > 60 * training.checkpoint_minutes:
                    saved = state.seconds
                    self._save()
                if is_stopped:
                    raise KeyboardInterrupt

    def finish(self) -> Evaluation | None:
        """The last checkpoint and the figures of the finished tokenizer."""
        if self.state.step > self.first_step:
            self._save()
            self.observer.tell_unheard()
        else:
            with alone(self.state.accelerator):
                self.evaluation = self.observer.evaluate(in_journal=False)
        return self.evaluation

    def _evaluate(self) -> None:
        """Measure on the held-out images; what was trained is saved when this fails."""
        with alone(self.state.accelerator, self._save):
            self.evaluation = self.observer.evaluate()

    def _read(self, readers: ThreadPoolExecutor, step: int) -> list[Future[np.ndarray]]:
        """Begin to read this process's share of the pixels of one step, each ``(1, h, w[, 3])``."""
        accelerator, batch_size = self.state.accelerator, self.state.training.batch_size
        share = batch_size // accelerator.num_processes
        first = step * batch_size + accelerator.process_index * share
        return [readers.submit(self.dataset.samples, position, 1)
                for position in range(first, first + share)]

    def _save(self) -> None:
        if self.state.accelerator.is_main_process:
            weights = self.state.averaged_model().codec_weights()
            checkpoints.save_weights(self.out, weights)
        self._save_state()

    def _save_state(self) -> None:
        if self.state.accelerator.is_main_process:
            checkpoints.save_state(self.out, {"run": self.run, **self.state.state_dict()})
        self.state.accelerator.wait_for_everyone()


def _describe_corpus(dataset: CorpusDataset) -> dict[str, Any]:
    """How many images train and are held out, and which."""
    described: dict[str, Any] = {}
    for part, entries in (("train", dataset.train), ("held_out", dataset.held_out)):
        digest = hashlib.sha256()
        for entry in entries:
            digest.update(entry.key.encode() + b"\0")
        described |= {f"num_{part}": len(entries), f"{part}_keys": digest.hexdigest()[:16]}
    return described


def _check_terms(config: VQGANConfig, training: TrainingConfig) -> None:
    """Refuse terms of the loss that this modality or size cannot have."""
    if training.adversarial.weight:
        check_size(config.image_size, training.adversarial.num_layers)
    if training.perceptual.weight and min(config.image_size) < LEAST_SIDE:
        raise ValueError(f"training.perceptual.weight must be 0 for images of "
                         f"{config.image_size[0]} x {config.image_size[1]} pixels: VGG16 takes "
                         f"sides of at least {LEAST_SIDE}")
    has_colours = not isinstance(config.build_modality(), Segmentation)
    for name in ("adversarial", "perceptual"):
        if getattr(training, name).weight and not has_colours:
            raise ValueError(f"training.{name}.weight must be 0 for segmentation, whose outputs "
                             "are class logits, not colours")
