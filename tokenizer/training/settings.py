"""Settings that the trainings of tokenizers and priors have in common."""
from dataclasses import dataclass, field

from tokenizer.configs import require_above, require_least
from tokenizer.training.budget import Budget
from tokenizer.training.optim import OptimizerConfig

PRECISIONS = ("no", "bf16", "fp16", "auto")


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """What any training needs.

    Attributes:
        steps: optimiser steps; ``None`` sets no limit.
        minutes: minutes of training, summed over resumed runs; ``None`` sets no limit. With both,
            whichever ends first.
        batch_size: items of one optimiser step, over all devices and parts.
        accumulation: parts a batch is worked off in, one after the other, to save memory.
        optimizer: AdamW and its learning rate.
        ema_decay: decay of the averaged weights, the ones saved for use; 0 saves the last ones.
        mixed_precision: ``no``, ``bf16``, ``fp16`` (GPU only), or ``auto``: bf16 where the hardware
            computes in it, decided when training starts. What decides stays float32.
        seed: of everything that is drawn at random.
        checkpoint_minutes: minutes between checkpoints.
        evaluate_every: steps between measurements on held-out items.
        log_every: steps between lines of training metrics.
        num_pictures: held-out items shown.
    """
    steps: int | None = None
    minutes: float | None = None
    batch_size: int = 16
    accumulation: int = 1
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    ema_decay: float = 0.999
    mixed_precision: str = "no"
    seed: int = 0
    checkpoint_minutes: float = 5.0
    evaluate_every: int = 500
    log_every: int = 20
    num_pictures: int = 8

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("accumulation", 1), ("evaluate_every", 1),
                            ("log_every", 1), ("num_pictures", 1), ("seed", 0)):
            require_least(f"training.{name}", getattr(self, name), least)
        if self.batch_size % self.accumulation:
            raise ValueError(f"training.accumulation must divide batch_size {self.batch_size}, "
                             f"got {self.accumulation}")
        if self.mixed_precision not in PRECISIONS:
            raise ValueError(f"training.mixed_precision is one of {', '.join(PRECISIONS)}, "
                             f"got {self.mixed_precision!r}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"training.ema_decay must lie in [0, 1), got {self.ema_decay}")
        require_above("training.checkpoint_minutes", self.checkpoint_minutes)

    @property
    def budget(self) -> Budget:
        """How long the training runs.

        Raises:
            ValueError: neither ``steps`` nor ``minutes`` is set.
        """
        return Budget(steps=self.steps, minutes=self.minutes)
