"""Settings of a tokenizer's training; the architecture has its own config.

Every setting can be given on the command line as ``--set training.NAME=VALUE``; recipes hold tried
combinations. What steers the weights is compared on resume, `HOUSEKEEPING` is not.
"""
from dataclasses import dataclass, field

from tokenizer.splits import Split
from tokenizer.training.optim import OptimizerConfig
from tokenizer.training.settings import TrainingSettings

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
class TrainingConfig(TrainingSettings):
    """How a tokenizer is trained.

    Attributes:
        adversarial: the discriminator.
        perceptual: the LPIPS term.
        held_out: images kept out of training and measured, as a count or as a share below 1.
        held_out_by: ``hash`` of the key, or ``name`` for the last ones in order of their keys,
            which keeps frames of one film together.
        crop_share: smallest side of a random training crop as a share of the largest possible
            side; 1 always takes the whole.
        flip: mirror training images left to right, every other one.
        cache_gib: memory for prepared training images, in GiB; what exceeds it is read again.
    """
    adversarial: AdversarialConfig = AdversarialConfig()
    perceptual: PerceptualConfig = PerceptualConfig()
    held_out: int | float = 0.05
    held_out_by: str = "hash"
    crop_share: float = 0.8
    flip: bool = True
    cache_gib: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.crop_share <= 1:
            raise ValueError(f"training.crop_share must lie in (0, 1], got {self.crop_share}")
        if self.cache_gib < 0:
            raise ValueError(f"training.cache_gib must be at least 0, got {self.cache_gib}")
        _ = self.split

    @property
    def split(self) -> Split:
        """Which images are held out."""
        return Split(held_out=self.held_out, by=self.held_out_by)
