"""A prior's training: its settings, and all that changes while it runs."""
import copy
import math
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from prior import compiling
from prior.dataset import Batch
from prior.evaluation import sequence_loss
from prior.loading.config import LoaderConfig
from prior.model import PriorConfig
from prior.sharding import optimizer_like, share, tensors_like, whole
from prior.transformer import Transformer
from tokenizer import configs
from tokenizer.training.divergence import require_finite
from tokenizer.training.optim import (
    ExponentialAverage,
    build_adamw,
    learning_rate,
    set_learning_rate,
)
from tokenizer.training.settings import TrainingSettings

KEEP_RULES = ("best", "last")
HOUSEKEEPING = ("steps", "minutes", "checkpoint_minutes", "log_every", "num_pictures",
                "shard_weights", "compile", "activation_checkpointing")
"""Settings that may change when a training is resumed."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(TrainingSettings):
    """How a prior is trained.

    Attributes:
        keep: ``best`` saves the weights that predicted the held-out rows best so far, ``last`` the
            last ones. Without held-out rows it is always the last.
        evaluate_rows: most held-out rows measured, spread evenly over all of them.
        loader: in which order training goes through its rows.
        shard_weights: whether several processes share one copy of the weights; see
            `prior.sharding`.
        compile: whether `torch.compile` makes kernels for the transformer's training steps, in one
            process; measuring and sampling go on without.
        activation_checkpointing: compute what lies within a block again for its gradients rather
            than keep it: the same weights in less memory and more time.
    """
    batch_size: int = 32
    keep: str = "best"
    evaluate_rows: int = 512
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    shard_weights: bool = field(default=False, metadata=configs.LATER)
    compile: bool = field(default=False, metadata=configs.LATER)
    activation_checkpointing: bool = field(default=False, metadata=configs.LATER)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.evaluate_rows < 1:
            raise ValueError(f"training.evaluate_rows must be at least 1, got {self.evaluate_rows}")
        if self.keep not in KEEP_RULES:
            raise ValueError(f"training.keep is one of {', '.join(KEEP_RULES)}, got {self.keep!r}")
        if self.shard_weights and self.mixed_precision == "fp16":
            raise ValueError("training.shard_weights does not go with mixed_precision=fp16, whose "
                             "scaled gradients each process would judge by its part: use bf16")


class TrainingState:
    """The model, its optimiser and all that resuming exactly needs.

    Random numbers are drawn anew for each step from seed and step, so no generator is saved.

    Attributes:
        step: optimiser steps done.
        seconds: time spent training.
        best: lowest bits per held-out code so far.
        model: the transformer itself; ``wrapped`` is the same as several processes call it.
        is_shared: whether each process holds a part of the weights alone.
        average: averaged weights, the ones saved for use.
    """

    def __init__(self, config: PriorConfig, training: TrainingConfig,
                 accelerator: Accelerator) -> None:
        torch.manual_seed(training.seed)
        self.training, self.accelerator = training, accelerator
        self.step, self.seconds, self.best = 0, 0.0, float("inf")
        self.model = Transformer(config.transformer, config.layout).train()
        self._copy = copy.deepcopy(self.model).eval().to(accelerator.device)
        self.model.recomputes = training.activation_checkpointing
        self.wrapped: nn.Module = self.model
        if training.compile:
            _compile(self.model, accelerator)
        self.is_shared = training.shard_weights and accelerator.num_processes > 1
        if self.is_shared:
            share(self.model.to(accelerator.device), accelerator.num_processes)
        optimizer = build_adamw(self.model.parameters(), training.optimizer)
        if self.is_shared:
            self.optimizer = accelerator.prepare(optimizer)
        else:
            self.wrapped, self.optimizer = accelerator.prepare(self.model, optimizer)
        self.average = ExponentialAverage(self.model, training.ema_decay)
        self._sums = torch.zeros(3, dtype=torch.float64, device=accelerator.device)

    def train_step(self, batch: Batch, progress: float) -> None:
        """Train on one batch; ``step`` is one more afterwards.

        Args:
            batch: this process's share, on its device.
            progress: share of the budget spent, in [0, 1].
        Raises:
            DivergedError: the loss is not finite; no weight was changed by it.
        """
        training = self.training
        words = (training.seed, self.step, self.accelerator.process_index)
        torch.manual_seed(int(np.random.SeedSequence(words).generate_state(1)[0]))
        set_learning_rate(self.optimizer, learning_rate(training.optimizer, self.step, progress))
        parts = batch.split(training.accumulation)
        total = torch.zeros((), device=self.accelerator.device)
        for part in parts[:-1]:
            with self.accelerator.no_sync(self.wrapped):
                total += self._backward(part, len(parts))
        total += self._backward(parts[-1], len(parts))
        self.accelerator.unscale_gradients(self.optimizer)
        clip = training.optimizer.clip_norm
        norm = whole(torch.nn.utils.clip_grad_norm_(self.model.parameters(),
                                                    float("inf") if clip is None else clip)
                     ).to(total.device)
        figures = {"loss": total}
        if self.accelerator.scaler is None:  # which skips such a step, and scales less
            figures["gradient_norm"] = norm  # of all processes together, so they decide alike
        require_finite(figures, self.step, training)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update(self.model)
        self._sums += torch.stack([total / math.log(2), norm, torch.ones_like(norm)])
        self.step += 1

    def take_figures(self) -> dict[str, float]:
        """Means over the steps since the last call, and over all processes: ``bits`` per code, and
        the norm of the gradients before clipping."""
        bits, norm, count = self.accelerator.reduce(self._sums, "mean").tolist()
        self._sums.zero_()
        return {"bits": bits / count, "gradient_norm": norm / count}

    def _backward(self, part: Batch, num_parts: int) -> Tensor:
        """Add the gradients of one part; its share of the loss, without graph."""
        # What `accelerate` prepares computes in the chosen precision by itself.
        with self.accelerator.autocast() if self.is_shared else nullcontext():
            loss = sequence_loss(self.wrapped, self.model.layout, part) / num_parts
        self.accelerator.backward(loss)
        return loss.detach()

    def averaged_model(self) -> Transformer:
        """The transformer with averaged weights, in evaluation mode; valid until the next call.

        All processes call it.
        """
        self._copy.load_state_dict(whole(self.average.tensors))
        return self._copy

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and containers of these; `load_state_dict` continues from it.

        All processes call it.
        """
        state = {"step": self.step, "seconds": self.seconds, "best": self.best,
                 "sums": self._sums, "model": self.model.state_dict(),
                 "average": self.average.state_dict(), "optimizer": self.optimizer.state_dict()}
        if self.accelerator.scaler is not None:
            state["scaler"] = self.accelerator.scaler.state_dict()
        return whole(state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned for the same configs."""
        self.step, self.seconds, self.best = state["step"], state["seconds"], state["best"]
        self._sums.copy_(state["sums"])
        self.model.load_state_dict(tensors_like(state["model"], self.model.state_dict()))
        average = state["average"]
        self.average.load_state_dict({**average, "tensors": tensors_like(average["tensors"],
                                                                         self.average.tensors)})
        self.optimizer.load_state_dict(optimizer_like(state["optimizer"], self.optimizer))
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])


def _compile(model: Transformer, accelerator: Accelerator) -> None:
    """Compile a transformer in place, for calls of one shape; names of its weights stay.

    Raises:
        ValueError: there are several processes, or no compiler.
    """
    if accelerator.num_processes > 1:
        raise ValueError("training.compile trains in one process, got "
                         f"{accelerator.num_processes}: leave it out, or start one")
    compiling.require_compiler("training.compile", accelerator.device)
    model.compile(backend=compiling.BACKEND, dynamic=False)
