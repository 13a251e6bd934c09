"""Optimiser, learning rate and averaged weights, for tokenizers and priors alike."""
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tokenizer.configs import require_above, require_least


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW and its learning rate.

    Attributes:
        learning_rate: peak rate.
        betas: decay of the first and second moment.
        weight_decay: decay per unit of learning rate, on matrices and kernels alone.
        warmup_steps: steps of linear rise from 0 to the peak.
        final_share: the cosine ends at this share of the peak.
        clip_norm: largest norm of all gradients together; ``None`` clips nothing.
    """
    learning_rate: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.05
    warmup_steps: int = 100
    final_share: float = 0.02
    clip_norm: float | None = 1.0

    def __post_init__(self) -> None:
        require_above("learning_rate", self.learning_rate)
        require_least("weight_decay", self.weight_decay, 0)
        require_least("warmup_steps", self.warmup_steps, 0)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must lie in [0, 1), got {self.betas}")
        if not 0 <= self.final_share <= 1:
            raise ValueError(f"final_share must lie in [0, 1], got {self.final_share}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm must be more than 0 or none, got {self.clip_norm}")


def build_adamw(parameters: Iterable[Tensor], config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over the parameters that need gradients; vectors and scalars are not decayed."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)


def learning_rate(config: OptimizerConfig, step: int, progress: float) -> float:
    """The rate of one step: linear warm-up over steps, then a cosine over progress.

    Args:
        step: index of the step, from 0.
        progress: share of the budget spent, in [0, 1].
    Source: Loshchilov and Hutter 2017, arXiv:1608.03983, equation 5, without restarts.
    """
    warmup = min(1.0, (step + 1) / max(1, config.warmup_steps))
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return config.learning_rate * warmup * (config.final_share + (1 - config.final_share) * cosine)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


class ExponentialAverage:
    """An exponential moving average of a model's parameters, with buffers copied as they are.

    The first updates weigh more, ``(1 + n) / (10 + n)``, so that the start is soon forgotten.

    Attributes:
        decay: weight of the past in one update, in [0, 1).
        num_updates: updates so far.
        tensors: averaged tensors by name, as in the model's ``state_dict``.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay of the average must lie in [0, 1), got {decay}")
        self.decay = decay
        self.num_updates = 0
        self.tensors = {name: tensor.detach().clone()
                        for name, tensor in model.state_dict().items()}
        self._averaged = [name for name, _ in model.named_parameters()]

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the model's parameters; copy its buffers."""
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        current = model.state_dict()
        averages, values = ([_own_part(tensors[name]) for name in self._averaged]
                            for tensors in (self.tensors, current))
        torch._foreach_lerp_(averages, values, 1 - decay)
        for name in current.keys() - set(self._averaged):
            self.tensors[name].copy_(current[name])
        self.num_updates += 1

    def copy_to(self, model: nn.Module) -> None:
        """Give ``model`` the averaged parameters and the copied buffers."""
        model.load_state_dict(self.tensors)

    def state_dict(self) -> dict[str, object]:
        """What resuming needs."""
        return {"num_updates": self.num_updates, "tensors": self.tensors}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Continue from what `state_dict` returned; buffers it did not have stay as they are."""
        num_updates, tensors = state["num_updates"], state["tensors"]
        if not isinstance(num_updates, int) or not isinstance(tensors, dict):
            raise ValueError(f"not the state of an average: {type(num_updates)}, {type(tensors)}")
        self.num_updates = num_updates
        for name in tensors.keys() | set(self._averaged):
            self.tensors[name].copy_(tensors[name])


def _own_part(tensor: Tensor) -> Tensor:
    """A tensor, or of one that several processes share in parts the part of this process."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor
