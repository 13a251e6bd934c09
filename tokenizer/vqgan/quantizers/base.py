"""What every quantizer has in common: its config, its contract and the table of kinds.

Letters: B images, C channels of a latent, D codes a cell (1 for all but residual quantizers), H and
W the latent grid, K codebook size, N = B * H * W.
"""
import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from tokenizer.configs import require_above, require_least

QUANTIZERS: "dict[str, type[Quantizer]]" = {}
"""Every quantizer by the name of its kind; modules of this package fill it."""

Result = TypeVar("Result")

MovedRows = Mapping[str, Tensor]
"""Names of a quantizer's parameters, each with the indices ``(n,)`` of rows given new values."""


@dataclass(frozen=True, kw_only=True)
class QuantizerConfig:
    """How latents become codes.

    Attributes:
        kind: a name of `QUANTIZERS`.
        codebook_size: K, number of codes; for ``fsq`` the product of the levels, for ``lfq`` a
            power of two.
        code_dim: C, channels of a latent; for ``fsq`` the number of levels, for ``lfq`` log2 K.
        beta: weight of the commitment term, which draws latents to their codes; for ``ibq`` of
            the term that draws codes to latents.
        legacy_beta: put ``beta`` on the codebook term instead and 1 on the commitment term, as the
            published training did by mistake; only to compare with it. ``classic``, ``cosine`` and
            ``residual``.
        revive_after: training batches without use after which an entry moves to a current latent;
            0 leaves unused entries where they are. ``classic``, ``ema``, ``cosine`` and
            ``residual``.
        kmeans: start from the k-means of the first latents that training sees: those of one batch,
            or of its first part where batches are worked off in parts. Where ``revive_after`` is.
        rotation: carry gradients from codes to latents by the rotation between them, instead of
            unchanged (Fifty et al. 2024, arXiv:2410.06424). Where ``revive_after`` is.
        decay: of the averages that ``ema`` takes its entries from, in (0, 1).
        entropy_weight: weight of the entropy term of ``lfq`` and ``ibq``.
        entropy_temperature: of the softmax behind that term; where it is much below 1, a small lead
            of one code counts, which is what keeps the others in use.
        kl_weight: weight of the divergence of ``gumbel`` from equal use of all codes.
        temperatures: of the softmax of ``gumbel`` at the start and at the end of training.
        levels: values of each channel of ``fsq``.
        depth: D, codes a cell of ``residual``.
    """
    kind: str = "cosine"
    codebook_size: int = 1024
    code_dim: int = 8
    beta: float = 0.25
    legacy_beta: bool = False
    revive_after: int = 100
    kmeans: bool = False
    rotation: bool = False
    decay: float = 0.99
    entropy_weight: float = 0.1
    entropy_temperature: float = 0.01
    kl_weight: float = 5e-4
    temperatures: tuple[float, float] = (1.0, 0.1)
    levels: tuple[int, ...] = ()
    depth: int = 1

    def __post_init__(self) -> None:
        if self.kind not in QUANTIZERS:
            raise ValueError(f"kind of quantizer must be one of {', '.join(sorted(QUANTIZERS))}, "
                             f"got {self.kind!r}")
        lowest = {"codebook_size": 2, "code_dim": 1, "beta": 0, "revive_after": 0, "depth": 1,
                  "entropy_weight": 0, "kl_weight": 0}
        for name, least in lowest.items():
            require_least(name, getattr(self, name), least)
        if not 0 < self.decay < 1:
            raise ValueError(f"decay must lie in (0, 1), got {self.decay}")
        require_above("entropy_temperature", self.entropy_temperature)
        if not all(0 < temperature < math.inf for temperature in self.temperatures):
            raise ValueError(f"temperatures must be more than 0, got {self.temperatures}")
        if self.depth > 1 and self.kind != "residual":
            raise ValueError(f"depth is {self.depth}, but {self.kind} has one code a cell: "
                             "take kind residual")
        QUANTIZERS[self.kind].check(self)


@dataclass(frozen=True)
class QuantizerOutput:
    """What a quantizer makes of latents ``(B, C, H, W)``.

    Attributes:
        latents: ``(B, C, H, W)`` float32, those of the codes; gradients pass to the encoder's.
        codes: ``(B[, D], H, W)`` int64 in ``[0, K)``.
        losses: scalars by name, float32, already weighted: training adds them up.
    """
    latents: Tensor
    codes: Tensor
    losses: dict[str, Tensor]


class Quantizer(nn.Module, ABC):
    """Latents to codes and back.

    ``forward`` in training mode may note what it saw for `revive`; it changes no weight but for a
    first k-means. In evaluation mode it changes nothing, so several threads may share one.

    Attributes:
        training_notes: names of buffers that training needs to go on exactly, and that decide no
            code.
        progress: share of the training budget spent, in [0, 1]; training sets it at each step.
    """
    training_notes: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, kind: str | None = None) -> None:
        super().__init_subclass__()
        if kind is not None:
            QUANTIZERS[kind] = cls

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__()
        self.config = config
        self.progress = 0.0

    @classmethod
    def check(cls, config: QuantizerConfig) -> None:
        """Refuse settings that this kind cannot have.

        Raises:
            ValueError: the message names the setting, its value and the rule.
        """

    @abstractmethod
    def forward(self, latents: Tensor) -> QuantizerOutput:
        """Quantize latents ``(B, C, H, W)`` of any float type; the arithmetic is float32."""

    @abstractmethod
    def encode(self, latents: Tensor) -> Tensor:
        """Codes ``(B[, D], H, W)`` int64 of latents ``(B, C, H, W)``, without losses."""

    def encode_with_distances(self, latents: Tensor) -> tuple[Tensor, Tensor | None]:
        """Codes as `encode` gives them, and how far latents are from entries of the codebook.

        Returns:
            Codes ``(B[, D], H, W)`` int64; and Euclidean distances ``(B, 2[, D], H, W)`` float32,
            to the entry of the code and to the nearest of the others, or nothing where codes are
            not the nearest entries of a codebook.
        """
        return self.encode(latents), None

    @abstractmethod
    def codes_to_latents(self, codes: Tensor) -> Tensor:
        """Latents ``(B, C, H, W)`` float32 of codes ``(B[, D], H, W)``, as the decoder takes them.
        """

    def revive(self) -> MovedRows:
        """Take in what the batch of one optimiser step showed, after that step.

        Averages of entries are updated, and entries out of use move to current latents. All
        processes of a training come to the same values.

        Returns:
            What moved, by name of the parameter: an optimiser's moments and an average of the
            weights should forget what they hold of these rows.
        """
        return {}

    def assume_trained(self) -> None:
        """Note, before a first step, that the weights are those of a trained quantizer, without
        notes of their use: every entry counts as in use, and none is to be placed."""

    def discard(self) -> None:
        """Forget what was noted since the last `revive`, as after a step that was not taken."""


def build_quantizer(config: QuantizerConfig) -> Quantizer:
    """The quantizer that ``config`` describes, freshly initialised."""
    return QUANTIZERS[config.kind](config)


def in_float32(method: Callable[[Any, Tensor], Result]) -> Callable[[Any, Tensor], Result]:
    """Give a method of latents these as float32, and keep autocast from rounding within."""
    @functools.wraps(method)
    def run(quantizer: Any, latents: Tensor) -> Result:
        with torch.autocast(latents.device.type, enabled=False):
            return method(quantizer, latents.float())
    return run


def straight_through(points: Tensor, entries: Tensor) -> Tensor:
    """The values of ``entries`` with the gradient of ``points``, both of one shape.

    Source: Bengio et al. 2013, arXiv:1308.3432, section 2.3.
    """
    return points + (entries - points).detach()


def rotate_to(points: Tensor, entries: Tensor) -> Tensor:
    """The values of ``entries``; gradients turn and stretch as ``points`` do to become them.

    Args:
        points: ``(..., C)`` float32.
        entries: likewise.

    Source: Fifty et al. 2024, arXiv:2410.06424, section 4.2.
    """
    with torch.no_grad():
        lengths = points.norm(dim=-1, keepdim=True).clamp(min=1e-6)
        stretch = entries.norm(dim=-1, keepdim=True) / lengths
        start = points / lengths
        end = nn.functional.normalize(entries, dim=-1)
        middle = nn.functional.normalize(start + end, dim=-1)
    mirrored = points - 2 * middle * (middle * points).sum(-1, keepdim=True)
    turned = stretch * (mirrored + 2 * end * (start * points).sum(-1, keepdim=True))
    # Rounding must not move the decoder's input off the codebook.
    return turned + (entries - turned).detach()
