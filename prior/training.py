"""Training of a prior from a token corpus, from the first step or on from a checkpoint.

    OUT/config.json, model.safetensors   the prior, with averaged weights
    OUT/training/state.pt                what resuming needs; may be deleted when all is done
    OUT/training/codes-*/                the codes, mapped into memory; likewise
    OUT/metrics.jsonl, logs/             figures by step, and the same with pictures for TensorBoard
    OUT/samples.png                      held-out conditions and originals beside samples
    OUT/evaluation.json                  bits per code of the held-out rows

The same call goes on where the last one stopped. With a budget in steps, the weights of a stopped
and continued training equal those of an uninterrupted one bit for bit.
"""
import dataclasses
import json
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from prior.dataset import CodeRows
from prior.evaluation import HeldOutBits, Pictures, held_out_bits, sample_sheet
from prior.loading.batches import Batches, ReadAhead
from prior.loading.config import Mixture
from prior.loading.data import Selection, TrainingRows, open_rows
from prior.model import KIND, PriorConfig
from prior.sequence import LABEL
from prior.state import HOUSEKEEPING, TrainingConfig, TrainingState
from prior.transformer import Transformer
from prior.watch import Watch
from tokenizer import checkpoints, configs, storage
from tokenizer.bars import progress_bar, remark
from tokenizer.claims import require_apart
from tokenizer.memory import keep_freed_memory
from tokenizer.pictures import save_png
from tokenizer.tokens import TokenCorpus
from tokenizer.training.journal import Journal
from tokenizer.training.processes import agree, alone, build_accelerator, close
from tokenizer.training.resume import (
    lasting_settings,
    load_progress,
    prepare_folder,
    settle_precision,
)
from tokenizer.training.stopping import StopRequest, stop_request

SAMPLES, EVALUATION = "samples.png", "evaluation.json"
RUN_CONFIGS = {"prior": PriorConfig, "training": TrainingConfig}
"""Configs among what decides the weights."""

BAR = "{percentage:3.0f}%|{bar:20}| {elapsed}<{remaining} {desc}"


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a training came to.

    Attributes:
        bits: of the held-out rows by the weights saved last; nothing when none were held out.
        step: optimiser steps done, in all runs together.
        seconds: time spent training, in all runs together.
    """
    bits: HeldOutBits | None
    step: int
    seconds: float

    def summary(self) -> str:
        """The figures and the length of the training, in one line."""
        length = f"{self.step} steps in {self.seconds / 60:.1f} minutes"
        return f"{self.bits.describe() if self.bits else 'no row held out'}; {length}"


def train_prior(corpus: TokenCorpus | Mixture, out: str, config: PriorConfig,
                training: TrainingConfig, pictures: Mapping[str, Pictures] | None = None, *,
                cache: str | None = None) -> Trained:
    """Train a prior on the codes of ``corpus`` into the folder ``out``.

    Args:
        corpus: a completed token corpus, or several with weights.
        out: local folder; a training that was stopped there goes on.
        config: of `PriorConfig.of` for this corpus.
        training: settings; ``steps`` or ``minutes`` must be set.
        pictures: turns codes into pictures, by modality; with the target's, samples are shown.
        cache: local folder for the codes that are mapped into memory, which several trainings may
            share; ``OUT/training`` when there is none.
    Raises:
        OSError, ValueError: the corpus, a setting, the folder or the loss is not as it must be.
        KeyboardInterrupt: stopped by Ctrl-C or SIGTERM, after a checkpoint.
    """
    training.budget  # refuses settings without an end before any work  # noqa: B018
    mixture = corpus if isinstance(corpus, Mixture) else Mixture((corpus,), (1.0,))
    require_apart(out, [each.url for each in mixture.corpora], "the prior")
    training = settle_precision(training, out)
    accelerator = build_accelerator(training)
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    run = _run(config, training)
    saved = load_progress(out, run, RUN_CONFIGS)
    selection = _selection(config, training, cache or storage.join(out, checkpoints.TRAINING))
    rows: TrainingRows | None = None
    with alone(accelerator):
        if accelerator.is_main_process:
            rows = open_rows(mixture, selection)  # makes the cache, which the others then find
            prepare_folder(out, KIND, config)
    rows = rows or open_rows(mixture, selection)
    state, batches = TrainingState(config, training, accelerator), _batches(rows, config, training)
    watch = Watch(config, training)
    if saved is not None:
        _require_place(saved, batches.position(saved["step"]), out)
        state.load_state_dict(saved)
        watch.load_state_dict(saved.get("watch", watch.state_dict()))
    with stop_request() as stop, _Loop(state, batches, rows.held_out, pictures or {}, out, run,
                                       watch) as loop:
        loop.train(stop)
        bits = loop.finish()
    close(accelerator)
    return Trained(bits=bits, step=state.step, seconds=state.seconds)


def _run(config: PriorConfig, training: TrainingConfig) -> dict[str, Any]:
    """All that decides the weights; the filter by itself, as in checkpoints of early versions."""
    unfiltered = dataclasses.replace(config, row_filter=None)
    return {"prior": configs.to_dict(unfiltered),
            "training": lasting_settings(training, HOUSEKEEPING),
            **({"filter": config.row_filter} if config.row_filter is not None else {})}


def _selection(config: PriorConfig, training: TrainingConfig, cache: str) -> Selection:
    return Selection(
        modalities=config.columns, split=config.split, row_filter=config.row_filter,
        num_held_out=training.evaluate_rows, loader=training.loader, seed=training.seed,
        cache=cache)


def _batches(rows: TrainingRows, config: PriorConfig, training: TrainingConfig) -> Batches:
    dropout = {condition.name: condition.dropout for condition in config.conditions}
    return Batches(rows.stream, config.layout, training.batch_size, training.seed, dropout,
                   config.drop_all)


def _require_place(saved: Mapping[str, Any], place: Mapping[str, Any], out: str) -> None:
    """Refuse to go on at another place of the global order than that of the checkpoint.

    One from before places were saved was trained in exact order, from the same seed.
    """
    before = saved.get("place", {**place, "order": "exact"})
    if before != place:
        name = next(name for name in place if before.get(name) != place[name])
        raise ValueError(f"{out} was stopped at {name} {before.get(name)} of the order of its "
                         f"rows, which is {name} {place[name]} of this one: the rows or their "
                         "order are others; train into another folder")


class _Loop:
    """Steps, checkpoints, figures and their timing; only the first process writes."""

    def __init__(self, state: TrainingState, batches: Batches, held_out: CodeRows,
                 pictures: Mapping[str, Pictures], out: str, run: Mapping[str, Any],
                 watch: Watch) -> None:
        self.state, self.batches, self.held_out = state, batches, held_out
        self.pictures, self.out, self.run, self.watch = pictures, out, run, watch
        self.budget = state.training.budget
        self.first_step = state.step
        self.bits: HeldOutBits | None = None
        self._clock = (time.monotonic(), state.step)
        self._open = ExitStack()

    def __enter__(self) -> "_Loop":
        if self.state.accelerator.is_main_process:
            state = self.state
            self._shown = self.held_out if len(self.held_out) else self._first_rows()
            self._journal = self._open.enter_context(Journal(self.out, state.step))
            self._bar = self._open.enter_context(progress_bar(
                total=1.0, initial=self.budget.progress(state.step, state.seconds), bar_format=BAR,
                mininterval=0.5 if sys.stderr.isatty() else 30.0))
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def train(self, stop: StopRequest) -> None:
        """Steps until the budget is spent, or until a stop is asked for and a checkpoint made."""
        state, training, accelerator = self.state, self.state.training, self.state.accelerator
        if not state.step:
            self._save_state()  # the folder is now known as one of an unfinished training
        started, saved = time.monotonic() - state.seconds, state.seconds
        ahead = self._open.enter_context(ReadAhead(self.batches, accelerator.process_index,
                                                   accelerator.num_processes))
        while not self.budget.is_spent(state.step, state.seconds):
            batch = ahead.batch(state.step)
            state.train_step(batch.to(accelerator.device),
                             self.budget.progress(state.step, state.seconds))
            state.seconds = agree(accelerator, time.monotonic() - started)
            is_last = self.budget.is_spent(state.step, state.seconds)
            if is_last or state.step % training.log_every == 0:
                self._log()
            if is_last or state.step % training.evaluate_every == 0:
                with alone(accelerator, self._save):
                    self._evaluate()
            is_stopped = bool(agree(accelerator, float(stop.is_made)))
            if is_stopped or state.seconds - saved > 60 * training.checkpoint_minutes:
                saved = state.seconds
                self._save()
            if is_stopped:
                raise KeyboardInterrupt

    def finish(self) -> HeldOutBits | None:
        """The last checkpoint, and the figures of the prior as it lies there."""
        if self.state.step > self.first_step:
            self._save()
        return self._saved_bits()

    def _log(self) -> None:
        """One line of metrics: means since the last one, rate and speed."""
        state = self.state
        figures = state.take_figures()
        if not state.accelerator.is_main_process:
            return
        now = time.monotonic()
        elapsed, num_steps = now - self._clock[0], state.step - self._clock[1]
        self._clock = (now, state.step)
        figures |= {"learning_rate": state.optimizer.param_groups[0]["lr"],
                    "rows_per_second": num_steps * state.training.batch_size / elapsed,
                    "seconds": state.seconds}
        self._journal.scalars(state.step, {f"train/{name}": value
                                           for name, value in figures.items()})
        self._remark(figures)
        score = f", held-out {self.bits.matched:.3f}" if self.bits else ""
        self._bar.set_description_str(
            f"step {state.step}, {figures['bits']:.3f} bits per code{score}", refresh=False)
        self._bar.update(self.budget.progress(state.step, state.seconds) - self._bar.n)

    def _evaluate(self) -> None:
        """Measure the averaged weights, keep them when they are to be kept, and show samples."""
        state, training = self.state, self.state.training
        model = state.averaged_model()
        if not state.accelerator.is_main_process:
            return
        if len(self.held_out):
            self.bits = held_out_bits(model, self.held_out, training.batch_size,
                                      training.evaluate_rows)
            figures = self.bits.scalars()
            self._journal.scalars(state.step, {f"held_out/{name}": value
                                               for name, value in figures.items()})
            self._remark(figures)
            if training.keep == "last" or self.bits.matched < state.best:
                state.best = self.bits.matched
                self._save_weights(model, self.bits)
        if self.batches.layout.target.name in self.pictures:
            sheet = sample_sheet(model, self._shown, training.num_pictures, self.pictures,
                                 training.seed)
            save_png(storage.join(self.out, SAMPLES), sheet)
            self._journal.image(state.step, "samples", sheet)
        self._clock = (time.monotonic(), state.step)

    def _remark(self, figures: Mapping[str, float]) -> None:
        """Say what the watch makes of some figures."""
        for trouble in self.watch.look(figures):
            self._journal.remark(self.state.step, trouble)
            remark(f"step {self.state.step}: {trouble}")

    def _first_rows(self) -> CodeRows:
        """Rows that training begins with."""
        columns = self.batches.stream.take(np.arange(self.state.training.num_pictures))
        return CodeRows.of([""] * len(columns[LABEL]), columns, ())

    def _save_weights(self, model: Transformer, bits: HeldOutBits | None) -> None:
        checkpoints.save_weights(self.out, model.state_dict())
        if bits is not None:
            data = {"step": self.state.step, "minutes": round(self.state.seconds / 60, 2),
                    "modality": self.batches.layout.target.name,
                    "bits_per_image": bits.bits_per_image, **configs.to_dict(bits)}
            storage.write_bytes(storage.join(self.out, EVALUATION),
                                (json.dumps(data, indent=1) + "\n").encode())

    def _save(self) -> None:
        """A checkpoint; the weights too, unless those kept are better than the last."""
        state = self.state
        is_kept = state.best < float("inf") and state.training.keep == "best"
        model = state.averaged_model()
        if state.accelerator.is_main_process and not is_kept:
            self._save_weights(model, None)
        self._save_state()

    def _save_state(self) -> None:
        state = self.state
        saved = state.state_dict()
        if state.accelerator.is_main_process:
            checkpoints.save_state(self.out, {
                "run": dict(self.run), "place": self.batches.position(state.step),
                "watch": self.watch.state_dict(), **saved})
        state.accelerator.wait_for_everyone()

    def _saved_bits(self) -> HeldOutBits | None:
        name = storage.join(self.out, EVALUATION)
        if not len(self.held_out) or not storage.exists(name):
            return None
        data = json.loads(storage.read_bytes(name))
        known = {field.name for field in dataclasses.fields(HeldOutBits)}
        return configs.from_dict(HeldOutBits, {field: value for field, value in data.items()
                                               if field in known})
