"""What a running training shows: a progress bar, lines of metrics, held-out figures and pictures.

Only the first process shows anything; figures of all processes have been joined before.
"""
import sys
import time
from types import TracebackType

import numpy as np

from tokenizer.bars import progress_bar, remark
from tokenizer.corpus.dataset import CorpusDataset
from tokenizer.pictures import save_png
from tokenizer.storage import join
from tokenizer.training.journal import Journal
from tokenizer.training.metrics import Evaluation, describe_scores, evaluate, reconstruct
from tokenizer.training.processes import alone
from tokenizer.training.report import PICTURES, reconstruction_sheet, save_evaluation
from tokenizer.training.state import TrainingState
from tokenizer.training.steps import StepResult

BAR = "{percentage:3.0f}%|{bar:20}| {elapsed}<{remaining} {desc}"


class Observer:
    """Follows one training.

    Args:
        state: of the training; its figures are taken from it.
        dataset: its held-out images are measured and shown; without any, training images are shown.
        out: folder of the journal, the pictures and the evaluation.
    """

    def __init__(self, state: TrainingState, dataset: CorpusDataset, out: str) -> None:
        self.state, self.dataset, self.out = state, dataset, out
        self.is_active = state.accelerator.is_main_process
        self._score, self._usage, self._loss = "", "", float("nan")
        self._clock = (time.monotonic(), state.step)

    def __enter__(self) -> "Observer":
        with alone(self.state.accelerator):
            if self.is_active:
                self._originals = self._choose_pictures()
        if self.is_active:
            state = self.state
            self._journal = Journal(self.out, state.step)
            progress = state.training.budget.progress(state.step, state.seconds)
            self._bar = progress_bar(total=1.0, initial=progress, bar_format=BAR, smoothing=0.05,
                                     mininterval=0.5 if sys.stderr.isatty() else 30.0)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self.is_active:
            self._bar.close()
            self._journal.close()

    def after_step(self, result: StepResult, is_last: bool) -> None:
        """Take in one step; write a line of metrics when it is time to."""
        state = self.state
        state.add_figures(result.figures)
        self._loss = result.figures.get("loss", self._loss)
        if is_last or state.step % state.training.log_every == 0:
            self._log(result)
        if self.is_active:
            progress = state.training.budget.progress(state.step, state.seconds)
            self._bar.set_description_str(
                f"step {state.step}, loss {self._loss:.4f}{self._score}{self._usage}",
                refresh=False)
            self._bar.update(progress - self._bar.n)

    def tell_unheard(self) -> None:
        """Say so when a training ends before its discriminator takes part."""
        config, step = self.state.training.adversarial, self.state.step
        if self.is_active and config.weight and step <= config.start:
            remark(f"the autoencoder never felt the discriminator: training ended after {step} "
                   f"steps, training.adversarial.start is {config.start}; lower it, or go on with "
                   "more steps or minutes")

    def evaluate(self, in_journal: bool = True) -> Evaluation | None:
        """Measure the averaged weights on the held-out images, and show some.

        Args:
            in_journal: write to the journal too, not only ``evaluation.json`` and the picture.
        Returns:
            The figures; nothing when no image is held out, or in other processes than the first.
        """
        if not self.is_active:
            return None
        state = self.state
        model = state.averaged_model()
        sheet = reconstruction_sheet(state.modality, self._originals,
                                     reconstruct(model, state.modality, self._originals))
        save_png(join(self.out, PICTURES), sheet)
        if in_journal:
            self._journal.image(state.step, "reconstructions", sheet)
        if not self.dataset.held_out:
            return None
        evaluation = evaluate(model, state.modality,
                              self.dataset.held_out_batches(state.training.batch_size),
                              state.training.reconstruction)
        save_evaluation(self.out, evaluation, model.config, state.training, state.step,
                        state.seconds)
        if in_journal:
            self._journal.scalars(state.step, {f"held_out/{name}": value for name, value
                                               in evaluation.scalars().items()})
        self._score = f", held-out {describe_scores(evaluation.scores)}"
        self._clock = (time.monotonic(), state.step)
        return evaluation

    def _log(self, result: StepResult) -> None:
        """One line of metrics: means since the last one, usage of recent codes, rate and speed.

        What the watch makes of it follows as remarks.
        """
        state = self.state
        figures = state.take_figures()
        if not self.is_active:
            return
        usage = state.recent.usage()
        scores = {} if result.skipped else state.modality.difference(
            state.modality.to_pixels(result.outputs).cpu().numpy(), result.pixels.cpu().numpy())
        now = time.monotonic()
        elapsed, num_steps = now - self._clock[0], state.step - self._clock[1]
        self._clock = (now, state.step)
        figures |= {**scores, "codes_used": usage.used / state.recent.codebook_size,
                    "perplexity": usage.perplexity,
                    "skipped_steps": state.skipped.total,
                    "learning_rate": state.optimizer.param_groups[0]["lr"],
                    "images_per_second": num_steps * state.training.batch_size / elapsed,
                    "seconds": state.seconds}
        self._journal.scalars(state.step,
                              {f"train/{name}": value for name, value in figures.items()})
        for trouble in state.watch.look(state.step, figures):
            self._journal.remark(state.step, trouble)
            remark(f"step {state.step}: {trouble}")
        if scores and "held-out" not in self._score:
            self._score = f", {describe_scores(scores)}"
        self._usage = f", {figures['codes_used']:.0%} of codes used"

    def _choose_pictures(self) -> np.ndarray:
        """Pixels of the images to show, held-out ones where there are any."""
        wanted = self.state.training.num_pictures
        batches = list(self.dataset.held_out_batches(wanted, limit=wanted))
        return batches[0] if batches else self.dataset.samples(0, wanted)
