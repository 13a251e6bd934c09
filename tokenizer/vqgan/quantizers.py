"""Quantizers: encoder latents in, codebook indices out, and back.

Every quantizer turns latents ``(B, C, H, W)`` into codes ``(B, H, W)`` and codes into latents.
To add one, subclass `Quantizer` here (or `CodebookQuantizer`, where entries are learned vectors)
and list it in `QUANTIZERS`; training, checkpoints and the jobs find it there by name.

Letters: B images, C channels of a latent, H and W the latent grid, K codebook size, N = B * H * W.
"""
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

SEARCH_BYTES = 64 << 20
"""Most memory that the distances of one piece of a nearest-code search take."""


@dataclass(frozen=True, kw_only=True)
class QuantizerConfig:
    """How latents become codes.

    Attributes:
        kind: a name of `QUANTIZERS`.
        codebook_size: K, entries of the codebook.
        code_dim: C, channels of one entry.
        beta: weight of the commitment term, which draws latents to their codes.
        legacy_beta: put ``beta`` on the codebook term instead and 1 on the commitment term, as the
            published training did by mistake; only to compare with it.
        revive_after: training batches without use after which an entry moves to a current latent;
            0 leaves unused entries where they are.
    """
    kind: str = "cosine"
    codebook_size: int = 1024
    code_dim: int = 8
    beta: float = 0.25
    legacy_beta: bool = False
    revive_after: int = 100

    def __post_init__(self) -> None:
        if self.kind not in QUANTIZERS:
            raise ValueError(f"kind of quantizer must be one of {', '.join(QUANTIZERS)}, "
                             f"got {self.kind!r}")
        lowest = {"codebook_size": 2, "code_dim": 1, "beta": 0, "revive_after": 0}
        for name, least in lowest.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")


@dataclass(frozen=True)
class QuantizerOutput:
    """What a quantizer makes of latents ``(B, C, H, W)``.

    Attributes:
        latents: ``(B, C, H, W)`` float32, those of the codes; gradients pass to the encoder's.
        codes: ``(B, H, W)`` int64 in ``[0, K)``.
        losses: scalars by name, float32, already weighted: training adds them up.
    """
    latents: Tensor
    codes: Tensor
    losses: dict[str, Tensor]


USAGE_NOTES = "idle_steps"
"""Buffer of a quantizer that training needs to go on exactly, and that decides no code."""


class Quantizer(nn.Module, ABC):
    """Latents to codes and back.

    ``forward`` in training mode may note which codes are in use; in evaluation mode it changes
    nothing, so several threads may share one quantizer.
    """

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def forward(self, latents: Tensor) -> QuantizerOutput:
        """Quantize latents ``(B, C, H, W)`` of any float type; the arithmetic is float32."""

    @abstractmethod
    def encode(self, latents: Tensor) -> Tensor:
        """Codes ``(B, H, W)`` int64 of latents ``(B, C, H, W)``, without losses."""

    @abstractmethod
    def codes_to_latents(self, codes: Tensor) -> Tensor:
        """Latents ``(B, C, H, W)`` float32 of codes ``(B, H, W)``, as the decoder takes them."""

    def revive(self) -> Tensor:
        """Move entries that are out of use; the indices moved, int64 ``(n,)``."""
        return torch.empty(0, dtype=torch.int64)


class CodebookQuantizer(Quantizer):
    """A quantizer with K learned entries; the code of a latent is the nearest one's index.

    Attributes:
        embedding: its ``weight`` is the codebook ``(K, C)``.
        idle_steps: ``(K,)`` int64, training batches since an entry was last used.
    """
    idle_steps: Tensor

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.codebook_size, config.code_dim)
        # Idle from the start: the first revival moves every unused entry to where latents are.
        self.register_buffer("idle_steps", torch.full((config.codebook_size,), config.revive_after))
        # Neither is a buffer: each process notes its own, and `revive` joins them.
        self._latest: Tensor | None = None
        self._used: list[Tensor] = []

    @abstractmethod
    def place(self, points: Tensor) -> Tensor:
        """Points ``(..., C)`` in the space where distances are taken."""

    def forward(self, latents: Tensor) -> QuantizerOutput:
        points = self.place(latents.float().permute(0, 2, 3, 1))
        codebook = self.place(self.embedding.weight.float())
        codes = _nearest(points.detach(), codebook.detach())
        entries = F.embedding(codes, codebook)
        if self.training:
            self._note_use(points.detach(), codes)
        straight_through = points + (entries - points).detach()
        return QuantizerOutput(latents=straight_through.permute(0, 3, 1, 2), codes=codes,
                               losses=self._losses(points, entries))

    def encode(self, latents: Tensor) -> Tensor:
        points = self.place(latents.float().permute(0, 2, 3, 1))
        return _nearest(points, self.place(self.embedding.weight.float()))

    def codes_to_latents(self, codes: Tensor) -> Tensor:
        return self.place(self.embedding(codes).float()).permute(0, 3, 1, 2)

    @torch.no_grad()
    def revive(self) -> Tensor:
        """Move entries idle for ``revive_after`` batches to latents of the latest training batch.

        Call it after an optimiser step. Which latents are taken is drawn from torch's default
        random numbers; among several processes those of the first are used everywhere.

        Returns:
            Indices of the entries moved, int64 ``(n,)``, empty for most steps. An optimiser's
            moments and an average of the weights should forget what they hold of these rows.
        """
        latest, self._latest = self._latest, None
        if latest is None or not self.config.revive_after:
            return super().revive()
        self.idle_steps += 1
        self.idle_steps[torch.cat(self._used)] = 0
        self._used = []
        if _is_distributed():
            dist.all_reduce(self.idle_steps, dist.ReduceOp.MIN)
        dead = (self.idle_steps >= self.config.revive_after).nonzero().flatten()[:len(latest)]
        if len(dead):
            chosen = torch.randperm(len(latest))[:len(dead)].to(latest.device)
            rows = latest[chosen].to(self.embedding.weight.dtype)
            if _is_distributed():
                dist.broadcast(rows, src=0)
            self.embedding.weight[dead] = rows
            self.idle_steps[dead] = 0
        return dead

    def _note_use(self, points: Tensor, codes: Tensor) -> None:
        """Remember the codes of one part of a batch; `revive` counts the step."""
        if self.config.revive_after:
            self._used.append(codes.unique())
            self._latest = points.flatten(0, 2)

    def _losses(self, points: Tensor, entries: Tensor) -> dict[str, Tensor]:
        """Terms 2 and 3 of van den Oord et al. 2017, arXiv:1711.00937, equation 3, as means."""
        beta, legacy = self.config.beta, self.config.legacy_beta
        codebook = F.mse_loss(entries, points.detach())
        commitment = F.mse_loss(points, entries.detach())
        return {"codebook": codebook * (beta if legacy else 1.0),
                "commitment": commitment * (1.0 if legacy else beta)}


class ClassicQuantizer(CodebookQuantizer):
    """Nearest entry by Euclidean distance.

    Source: van den Oord et al. 2017, arXiv:1711.00937, equations 1 to 3.
    """

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__(config)
        nn.init.uniform_(self.embedding.weight, -1 / config.codebook_size, 1 / config.codebook_size)

    def place(self, points: Tensor) -> Tensor:
        return points


class CosineQuantizer(CodebookQuantizer):
    """Nearest entry by angle: latents and entries are scaled to length 1; few channels suffice.

    Source: Yu et al. 2022, arXiv:2110.04627, section 3.2.
    """

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__(config)
        nn.init.normal_(self.embedding.weight)
        with torch.no_grad():
            self.embedding.weight.copy_(self.place(self.embedding.weight))

    def place(self, points: Tensor) -> Tensor:
        return F.normalize(points, dim=-1)


QUANTIZERS: dict[str, type[Quantizer]] = {"classic": ClassicQuantizer, "cosine": CosineQuantizer}


def build_quantizer(config: QuantizerConfig) -> Quantizer:
    """The quantizer that ``config`` describes, freshly initialised."""
    return QUANTIZERS[config.kind](config)


def nearest_codes(points: Tensor, codebook: Tensor) -> Tensor:
    """Index of the codebook entry nearest to each point, by Euclidean distance.

    Args:
        points: ``(N, C)`` float32.
        codebook: ``(K, C)`` float32, on the device of ``points``.
    Returns:
        Codes ``(N,)`` int64 in ``[0, K)``; ties go to the lower index. At most `SEARCH_BYTES` are
        taken for distances at once.
    Raises:
        ValueError: points and codebook have different numbers of channels.

    Source: van den Oord et al. 2017, arXiv:1711.00937, equation 1.
    """
    if points.shape[1] != codebook.shape[1]:
        raise ValueError(f"latents have {points.shape[1]} channels, "
                         f"codebook entries have {codebook.shape[1]}")
    rows = max(1, SEARCH_BYTES // (4 * len(codebook)))
    with torch.autocast(points.device.type, enabled=False):
        # |z - e|^2 without its |z|^2 term, which is the same for every entry.
        squares = codebook.square().sum(1)
        return torch.cat([torch.addmm(squares, piece, codebook.T, alpha=-2).argmin(1)
                          for piece in points.split(rows)])


def _nearest(points: Tensor, codebook: Tensor) -> Tensor:
    """Codes ``(B, H, W)`` of points ``(B, H, W, C)``."""
    return nearest_codes(points.flatten(0, 2), codebook).view(points.shape[:3])


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()
