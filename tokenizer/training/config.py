"""Settings of a tokenizer's training; the architecture has its own config.

Every setting can be given on the command line as ``--set training.NAME=VALUE``; recipes hold tried
combinations. What steers the weights is compared on resume, `HOUSEKEEPING` is not.
"""
from dataclasses import dataclass, field

from tokenizer.training.budget import Budget
from tokenizer.training.optim import OptimizerConfig

PRECISIONS = ("no", "bf16", "fp16")
HELD_OUT_RULES = ("hash", "name")
HOUSEKEEPING = ("steps", "minutes", "checkpoint_minutes", "evaluate_every", "log_every",
                "num_pictures", "cache_gib")
"""Settings that may change when a training is resumed."""


@dataclass(frozen=True, kw_only=True)
class AdversarialConfig:
    """The patch discriminator and its part in the loss.

    Attributes:
        weight: factor of the adversarial term beside the adaptive weight; 0 trains without a
            discriminator.
        start: first step at which the autoencoder feels the discriminator.
        warmup_steps: steps before ``start`` in which the discriminator already learns alone.
        max_adaptive_weight: upper limit of the adaptive weight.
        width: channels after the first convolution.
        num_layers: convolutions of stride 2.
        optimizer: of the discriminator; its rate follows the same budget.
    """
    weight: float = 0.0
    start: int = 10_000
    warmup_steps: int = 500
    max_adaptive_weight: float = 1e4
    width: int = 64
    num_layers: int = 3
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(
        learning_rate=1e-4, betas=(0.5, 0.9), weight_decay=0.0))

    def __post_init__(self) -> None:
        lowest = {"weight": 0, "start": 0, "warmup_steps": 0, "width": 1, "num_layers": 1}
        for name, limit in lowest.items():
            if getattr(self, name) < limit:
                raise ValueError(f"adversarial.{name} must be at least {limit}, "
                                 f"got {getattr(self, name)}")
        if not self.max_adaptive_weight > 0:
            raise ValueError("adversarial.max_adaptive_weight must be more than 0, "
                             f"got {self.max_adaptive_weight}")

    @property
    def first_step(self) -> int:
        """First step at which the discriminator learns."""
        return max(0, self.start - self.warmup_steps)


@dataclass(frozen=True, kw_only=True)
class PerceptualConfig:
    """The perceptual (LPIPS) part of the loss; off by default, as it needs pretrained weights.

    Attributes:
        weight: factor of the term; 0 switches it off.
        vgg16: path or URL of VGG16's ImageNet weights in torchvision's layout.
        linear: path or URL of the LPIPS 0.1 linear layers for VGG16.
    """
    weight: float = 0.0
    vgg16: str | None = None
    linear: str | None = None

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise ValueError(f"perceptual.weight must be at least 0, got {self.weight}")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a tokenizer is trained.

    Attributes:
        steps: optimiser steps; ``None`` sets no limit.
        minutes: minutes of training, summed over resumed runs; ``None`` sets no limit. With both,
            whichever ends first.
        batch_size: images of one optimiser step, over all devices and parts.
        accumulation: parts a batch is worked off in, one after the other, to save memory.
        optimizer: of the autoencoder and the codebook.
        adversarial: the discriminator.
        perceptual: the LPIPS term.
        ema_decay: decay of the averaged weights, the ones saved for use; 0 saves the last ones.
        mixed_precision: ``no``, ``bf16`` or ``fp16`` (GPU only); quantizer and losses stay float32.
        seed: of initial weights, order, crops and flips.
        held_out: images kept out of training and measured, as a count or as a share below 1.
        held_out_by: ``hash`` of the key, or ``name`` for the last ones in order of their keys,
            which keeps frames of one film together.
        crop_share: smallest side of a random training crop as a share of the largest possible
            side; 1 always takes the whole.
        flip: mirror training images left to right, every other one.
        checkpoint_minutes: minutes between checkpoints.
        evaluate_every: steps between measurements on held-out images.
        log_every: steps between lines of training metrics.
        num_pictures: held-out images shown with their reconstructions.
        cache_gib: memory for prepared training images, in GiB; what exceeds it is read again.
    """
    steps: int | None = None
    minutes: float | None = None
    batch_size: int = 16
    accumulation: int = 1
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    adversarial: AdversarialConfig = AdversarialConfig()
    perceptual: PerceptualConfig = PerceptualConfig()
    ema_decay: float = 0.999
    mixed_precision: str = "no"
    seed: int = 0
    held_out: int | float = 0.05
    held_out_by: str = "hash"
    crop_share: float = 0.8
    flip: bool = True
    checkpoint_minutes: float = 5.0
    evaluate_every: int = 500
    log_every: int = 20
    num_pictures: int = 8
    cache_gib: float = 2.0

    def __post_init__(self) -> None:
        for name in ("batch_size", "accumulation", "evaluate_every", "log_every", "num_pictures"):
            if getattr(self, name) < 1:
                raise ValueError(f"training.{name} must be at least 1, got {getattr(self, name)}")
        if self.batch_size % self.accumulation:
            raise ValueError(f"training.accumulation must divide batch_size {self.batch_size}, "
                             f"got {self.accumulation}")
        if self.mixed_precision not in PRECISIONS:
            raise ValueError(f"training.mixed_precision is one of {', '.join(PRECISIONS)}, "
                             f"got {self.mixed_precision!r}")
        if self.held_out_by not in HELD_OUT_RULES:
            raise ValueError(f"training.held_out_by is one of {', '.join(HELD_OUT_RULES)}, "
                             f"got {self.held_out_by!r}")
        if self.held_out < 0 or (isinstance(self.held_out, float) and self.held_out >= 1):
            raise ValueError("training.held_out is a count of images or a share in [0, 1), "
                             f"got {self.held_out}")
        if not 0 < self.crop_share <= 1:
            raise ValueError(f"training.crop_share must lie in (0, 1], got {self.crop_share}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"training.ema_decay must lie in [0, 1), got {self.ema_decay}")
        if not self.checkpoint_minutes > 0:
            raise ValueError("training.checkpoint_minutes must be more than 0, "
                             f"got {self.checkpoint_minutes}")

    @property
    def budget(self) -> Budget:
        """How long the training runs.

        Raises:
            ValueError: neither ``steps`` nor ``minutes`` is set.
        """
        return Budget(steps=self.steps, minutes=self.minutes)
