"""Settings of a tokenizer's training; the architecture has its own config.

Every setting can be given on the command line as ``--set training.NAME=VALUE``; recipes hold tried
combinations. What steers the weights is compared on resume, `HOUSEKEEPING` is not.
"""
from dataclasses import dataclass, field

from tokenizer.configs import require_above, require_least
from tokenizer.splits import Split
from tokenizer.training.discriminator import NORMS
from tokenizer.training.losses import ADVERSARIAL_LOSSES
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
        loss: a name of `ADVERSARIAL_LOSSES`.
        start: first step at which the autoencoder feels the discriminator.
        warmup_steps: steps before ``start`` in which the discriminator already learns alone.
        ramp_steps: steps from ``start`` over which the adversarial term rises to its weight.
        max_adaptive_weight: upper limit of the adaptive weight. Sound weights are 0.1 to 3; higher
            ones come from a discriminator whose gradient vanishes, and blow up its noise. Published
            training allows 1e4.
        adaptive_decay: decay of the adaptive weight's moving mean; 0 takes each step's own.
        lecam_weight: factor of the LeCAM term, which keeps logits near their moving means; 0
            switches it off.
        lecam_decay: decay of these means.
        r1_weight: factor of the R1 term, which flattens the discriminator around real images; 0
            switches it off. An image has a gradient of its own with ``norm`` group or spectral;
            with batch it holds what the image does to the logits of others, too.
        r1_every: steps between computations of R1, which then weighs as many times as much.
        width: channels after the first convolution.
        num_layers: convolutions of stride 2.
        norm: a name of `NORMS`.
        optimizer: of the discriminator; its rate follows the same budget.
    """
    weight: float = 0.0
    loss: str = "hinge"
    start: int = 10_000
    warmup_steps: int = 500
    ramp_steps: int = 1000
    max_adaptive_weight: float = 10.0
    adaptive_decay: float = 0.9
    lecam_weight: float = 0.0
    lecam_decay: float = 0.99
    r1_weight: float = 0.0
    r1_every: int = 16
    width: int = 64
    num_layers: int = 3
    norm: str = "batch"
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(
        learning_rate=1e-4, betas=(0.5, 0.9), weight_decay=0.0))

    def __post_init__(self) -> None:
        lowest = {"weight": 0, "start": 0, "warmup_steps": 0, "ramp_steps": 0, "lecam_weight": 0,
                  "r1_weight": 0, "r1_every": 1, "width": 1, "num_layers": 1}
        for name, limit in lowest.items():
            require_least(f"adversarial.{name}", getattr(self, name), limit)
        require_above("adversarial.max_adaptive_weight", self.max_adaptive_weight)
        for name in ("adaptive_decay", "lecam_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"adversarial.{name} must lie in [0, 1), "
                                 f"got {getattr(self, name)}")
        for name, known in (("loss", tuple(ADVERSARIAL_LOSSES)), ("norm", NORMS)):
            if getattr(self, name) not in known:
                raise ValueError(f"adversarial.{name} is one of {', '.join(known)}, "
                                 f"got {getattr(self, name)!r}")

    @property
    def first_step(self) -> int:
        """First step at which the discriminator learns."""
        return max(0, self.start - self.warmup_steps)

    def ramp(self, step: int) -> float:
        """Share of the adversarial term's weight at ``step``, in [0, 1]."""
        if step < self.start:
            return 0.0
        return min(1.0, (step - self.start + 1) / max(1, self.ramp_steps))

    def has_r1(self, step: int) -> bool:
        """Whether the discriminator's update at ``step`` has the R1 term."""
        return bool(self.r1_weight) and (step - self.first_step) % self.r1_every == 0


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
        require_least("perceptual.weight", self.weight, 0)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(TrainingSettings):
    """How a tokenizer is trained.

    Attributes:
        reconstruction: ``l1`` or ``l2``, difference of outputs and inputs; the first keeps edges
            better, the second gives the higher PSNR. Class maps have a loss of their own.
        adversarial: the discriminator.
        perceptual: the LPIPS term.
        held_out: images kept out of training and measured, as a count or as a share below 1.
        held_out_by: ``hash`` of the key, or ``name`` for the last ones in order of their keys,
            which keeps frames of one film together.
        crop_share: smallest side of a random training crop as a share of the largest possible
            side; 1 always takes the whole.
        flip: mirror training images left to right, every other one.
        colours: largest random change of contrast, and of the gain of each colour, as a share in
            [0, 1); only where colours may vary, as in photographs.
        cache_gib: memory for prepared training images, in GiB; what exceeds it is read again.
        max_skipped_steps: steps without finite values, one after the other, at which training gives
            up; more than the 16 halvings that bring fp16's first scale, 65536, to 1.
    """
    reconstruction: str = "l1"
    adversarial: AdversarialConfig = AdversarialConfig()
    perceptual: PerceptualConfig = PerceptualConfig()
    held_out: int | float = 0.05
    held_out_by: str = "hash"
    crop_share: float = 0.8
    flip: bool = True
    colours: float = 0.0
    cache_gib: float = 2.0
    max_skipped_steps: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reconstruction not in ("l1", "l2"):
            raise ValueError(f"training.reconstruction is l1 or l2, got {self.reconstruction!r}")
        if not 0 < self.crop_share <= 1:
            raise ValueError(f"training.crop_share must lie in (0, 1], got {self.crop_share}")
        if not 0 <= self.colours < 1:
            raise ValueError(f"training.colours must lie in [0, 1), got {self.colours}")
        require_least("training.cache_gib", self.cache_gib, 0)
        require_least("training.max_skipped_steps", self.max_skipped_steps, 1)
        _ = self.split

    @property
    def split(self) -> Split:
        """Which images are held out."""
        return Split(held_out=self.held_out, by=self.held_out_by)
