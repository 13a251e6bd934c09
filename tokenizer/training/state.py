"""All that changes while a tokenizer trains, as one object that is saved and loaded whole."""
import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from tokenizer.corpus.modalities import Modality
from tokenizer.training.config import TrainingConfig
from tokenizer.training.discriminator import PatchDiscriminator
from tokenizer.training.divergence import SkippedSteps
from tokenizer.training.metrics import RecentCodes
from tokenizer.training.moving import MovingMean
from tokenizer.training.optim import ExponentialAverage, build_adamw
from tokenizer.training.watch import Watch
from tokenizer.vqgan.model import VQGAN, VQGANConfig
from tokenizer.vqgan.quantizers import MovedRows

RUNNING_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""Buffers of discriminators before they went without; left out when a state is loaded."""


class TrainingState:
    """The networks, their optimisers and all that resuming exactly needs.

    Random numbers are drawn anew for each step from seed and step (`seed_step`), so that no
    generator has to be saved.

    Attributes:
        step: optimiser steps done.
        seconds: time spent training.
        model: the VQGAN itself; ``wrapped`` is the same as `accelerate` prepared it.
        discriminator: absent when the adversarial weight is 0.
        average: averaged weights, the ones saved for use.
        sums: figures since the last line of metrics by name: total and number of steps.
        moving: moving means by the name of their figure: of the adaptive weight as measured, and of
            real and fake logits.
        skipped: steps left out because values were not finite.
        watch: what the first process noticed so far.
    """

    def __init__(self, config: VQGANConfig, training: TrainingConfig,
                 accelerator: Accelerator) -> None:
        torch.manual_seed(training.seed)
        self.training = training
        self.accelerator = accelerator
        self.modality: Modality = config.build_modality()
        self.step, self.seconds = 0, 0.0
        self.model = VQGAN(config).train()
        self._copy = copy.deepcopy(self.model).eval().to(accelerator.device)
        self.wrapped: nn.Module
        self.wrapped, self.optimizer = accelerator.prepare(
            self.model, build_adamw(self.model.parameters(), training.optimizer))
        self.average = ExponentialAverage(self.model, training.ema_decay)
        self.recent = RecentCodes(config.quantizer.codebook_size, config.quantizer.depth)
        self.sums: dict[str, tuple[float, int]] = {}
        adversarial = training.adversarial
        self.moving = {"measured_weight": MovingMean(adversarial.adaptive_decay),
                       "logits_real": MovingMean(adversarial.lecam_decay),
                       "logits_fake": MovingMean(adversarial.lecam_decay)}
        self.skipped = SkippedSteps(training.max_skipped_steps)
        self.watch = Watch(config, training)
        self.discriminator: PatchDiscriminator | None = None
        if training.adversarial.weight:
            self._build_discriminator()

    def _build_discriminator(self) -> None:
        config = self.training.adversarial
        self.discriminator = PatchDiscriminator(self.modality.out_channels, config.width,
                                                config.num_layers, config.norm).train()
        self.wrapped_discriminator: nn.Module
        self.wrapped_discriminator, self.discriminator_optimizer = self.accelerator.prepare(
            self.discriminator, build_adamw(self.discriminator.parameters(), config.optimizer))

    def start_from(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Begin, before the first step, with the weights of a trained tokenizer.

        Args:
            weights: what `VQGAN.codec_weights` returned for a model of this shape.
        Raises:
            ValueError: tensors are missing, surplus or of another shape.
        """
        self.model.load_state_dict(VQGAN.from_weights(self.model.config, weights).state_dict())
        self.model.quantize.assume_trained()
        self.average = ExponentialAverage(self.model, self.training.ema_decay)

    def seed_step(self) -> None:
        """Seed torch's default generators for the coming step, differently in each process."""
        words = (self.training.seed, self.step, self.accelerator.process_index)
        torch.manual_seed(int(np.random.SeedSequence(words).generate_state(1)[0]))

    def averaged_model(self) -> VQGAN:
        """The VQGAN with averaged weights, in evaluation mode; valid until the next call."""
        self.average.copy_to(self._copy)
        return self._copy

    def add_figures(self, figures: dict[str, float]) -> None:
        """Add up the figures of one step for the next line of metrics."""
        for name, value in figures.items():
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = (total + value, count + 1)

    def take_figures(self) -> dict[str, float]:
        """Means of the figures added since the last call."""
        means = {name: total / count for name, (total, count) in self.sums.items()}
        self.sums = {}
        return means

    def forget_codes(self, moved: MovedRows) -> None:
        """Give revived codebook entries a fresh start in the optimiser and in the average."""
        for name, rows in moved.items():
            codebook = self.model.get_parameter(name)
            for moment in self.optimizer.state.get(codebook, {}).values():
                if moment.shape == codebook.shape:
                    moment[rows] = 0
            self.average.tensors[name][rows] = codebook.detach()[rows]

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and containers of these; `load_state_dict` continues from it."""
        state = {"step": self.step, "seconds": self.seconds, "sums": self.sums,
                 "recent": self.recent.state_dict(), "skipped": self.skipped.state_dict(),
                 "watch": self.watch.state_dict(),
                 "moving": {name: mean.state_dict() for name, mean in self.moving.items()},
                 "model": self.model.state_dict(), "average": self.average.state_dict(),
                 "optimizer": self.optimizer.state_dict()}
        if self.discriminator is not None:
            state["discriminator"] = self.discriminator.state_dict()
            state["discriminator_optimizer"] = self.discriminator_optimizer.state_dict()
        if self.accelerator.scaler is not None:
            state["scaler"] = self.accelerator.scaler.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned for the same configs.

        Notes that it did not have when the state was saved begin anew.
        """
        self.step, self.seconds = state["step"], state["seconds"]
        self.sums = dict(state["sums"])
        self.recent.load_state_dict(state["recent"])
        if "skipped" in state:
            self.skipped.load_state_dict(state["skipped"])
        if "watch" in state:
            self.watch.load_state_dict(state["watch"])
        for name, mean in state.get("moving", {}).items():
            self.moving[name].load_state_dict(mean)
        _load(self.model, state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.discriminator is not None:
            _load(self.discriminator, state["discriminator"])
            self.discriminator_optimizer.load_state_dict(state["discriminator_optimizer"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])


def _load(module: nn.Module, saved: Mapping[str, torch.Tensor]) -> None:
    """Load what `state_dict` of this module returned, now or before it had all of its buffers."""
    own = module.state_dict()
    buffers = {name: own[name] for name, _ in module.named_buffers()
               if name in own and name not in saved}
    module.load_state_dict(buffers | {name: tensor for name, tensor in saved.items()
                                      if not name.endswith(RUNNING_STATISTICS)})
