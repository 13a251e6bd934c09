"""Quantizers whose codes are the nearest of K learned entries, taught by gradients.

Letters: B images, C channels of a latent, H and W the latent grid, K codebook size, N = B * H * W.
"""
from abc import abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenizer.vqgan.quantizers.base import (
    MovedRows,
    Quantizer,
    QuantizerConfig,
    QuantizerOutput,
    in_float32,
    rotate_to,
    straight_through,
)
from tokenizer.vqgan.quantizers.kmeans import kmeans
from tokenizer.vqgan.quantizers.ranks import from_first, least_of_all, rows_of_all
from tokenizer.vqgan.quantizers.search import nearest_codes, two_distances


class CodebookQuantizer(Quantizer):
    """A quantizer with K learned entries; the code of a latent is the nearest one's index.

    Attributes:
        embedding: its ``weight`` is the codebook ``(K, C)``.
        idle_steps: ``(K,)`` int64, training batches since an entry was last used.
        placed: bool, whether entries have been placed by k-means, or need not be.
    """
    training_notes: ClassVar[tuple[str, ...]] = ("idle_steps", "placed")
    idle_steps: Tensor
    placed: Tensor

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.codebook_size, config.code_dim)
        # Idle from the start: the first revival moves every unused entry to where latents are.
        self.register_buffer("idle_steps", torch.full((config.codebook_size,), config.revive_after))
        self.register_buffer("placed", torch.tensor(not config.kmeans))
        # Neither is a buffer: each process notes its own, and `revive` joins them.
        self._latest: Tensor | None = None
        self._used: list[Tensor] = []

    @abstractmethod
    def place(self, points: Tensor) -> Tensor:
        """Points ``(..., C)`` in the space where distances are taken."""

    @in_float32
    def forward(self, latents: Tensor) -> QuantizerOutput:
        points = self.place(latents.permute(0, 2, 3, 1))
        entries, codes = self.look_up(points)
        carry = rotate_to if self.config.rotation else straight_through
        return QuantizerOutput(latents=carry(points, entries).permute(0, 3, 1, 2), codes=codes,
                               losses=self.losses(points, entries))

    def look_up(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest entry of each point, with graph, and its code; noted when training.

        Args:
            points: ``(B, H, W, C)`` as `place` returns them.
        Returns:
            Entries ``(B, H, W, C)`` float32 and codes ``(B, H, W)`` int64.
        """
        if self.training:
            self._place_entries(points.detach())
        codebook = self.place(self.embedding.weight)
        codes = self._nearest(points, codebook)
        if self.training:
            self.note(points.detach(), codes)
        return F.embedding(codes, codebook), codes

    @in_float32
    def encode(self, latents: Tensor) -> Tensor:
        points = self.place(latents.permute(0, 2, 3, 1))
        return self._nearest(points, self.place(self.embedding.weight))

    @in_float32
    def encode_with_distances(self, latents: Tensor) -> tuple[Tensor, Tensor | None]:
        points = self.place(latents.permute(0, 2, 3, 1))
        codebook = self.place(self.embedding.weight)
        codes = self._nearest(points, codebook)
        distances = two_distances(points.flatten(0, 2), codebook, codes.flatten())
        return codes, distances.view(*codes.shape, 2).permute(0, 3, 1, 2)

    def codes_to_latents(self, codes: Tensor) -> Tensor:
        return self.entries(codes).permute(0, 3, 1, 2)

    def entries(self, codes: Tensor) -> Tensor:
        """The entries ``(..., C)`` float32 of codes ``(...)``."""
        return self.place(self.embedding(codes))

    def losses(self, points: Tensor, entries: Tensor) -> dict[str, Tensor]:
        """Terms 2 and 3 of van den Oord et al. 2017, arXiv:1711.00937, equation 3, as means."""
        beta, legacy = self.config.beta, self.config.legacy_beta
        codebook = F.mse_loss(entries, points.detach())
        commitment = F.mse_loss(points, entries.detach())
        return {"codebook": codebook * (beta if legacy else 1.0),
                "commitment": commitment * (1.0 if legacy else beta)}

    def note(self, points: Tensor, codes: Tensor) -> None:
        """Remember one part of a batch, for `revive`.

        Args:
            points: ``(B, H, W, C)``, as `place` returns them, without graph.
            codes: ``(B, H, W)``, theirs.
        """
        if self.config.revive_after:
            self._used.append(codes.unique())
            self._latest = points.flatten(0, 2)

    @torch.no_grad()
    def revive(self) -> MovedRows:
        """Move entries idle for ``revive_after`` batches to latents of the latest training batch.

        Which latents are taken is drawn from torch's default random numbers; among several
        processes those of the first are used everywhere.
        """
        latest, used = self._latest, self._used
        self.discard()
        if latest is None or not self.config.revive_after:
            return {}
        self.idle_steps += 1
        self.idle_steps[torch.cat(used)] = 0
        least_of_all(self.idle_steps)
        dead = (self.idle_steps >= self.config.revive_after).nonzero().flatten()
        if not len(dead):
            return {}
        latest = rows_of_all(latest)
        dead = dead[:len(latest)]
        chosen = torch.randperm(len(latest))[:len(dead)].to(latest.device)
        self.move(dead, from_first(latest[chosen]))
        self.idle_steps[dead] = 0
        return {"embedding.weight": dead}

    def move(self, codes: Tensor, points: Tensor) -> None:
        """Give the entries of ``codes`` ``(n,)`` the values of ``points`` ``(n, C)``."""
        self.embedding.weight[codes] = points.to(self.embedding.weight.dtype)

    def assume_trained(self) -> None:
        self.idle_steps.zero_()
        self.placed.fill_(True)

    def discard(self) -> None:
        self._latest, self._used = None, []

    @torch.no_grad()
    def _place_entries(self, points: Tensor) -> None:
        """Once, where asked for: entries become the k-means of the points of all processes.

        Points that are not finite belong to a step that will be skipped; the next one is waited
        for.
        """
        if not self.config.kmeans or self.placed:
            return
        points = rows_of_all(points.flatten(0, 2))
        if not points.isfinite().all():
            return
        centres = self.place(kmeans(points, self.config.codebook_size))
        self.move(torch.arange(len(centres), device=centres.device), from_first(centres))
        self.placed.fill_(True)

    def _nearest(self, points: Tensor, codebook: Tensor) -> Tensor:
        return nearest_codes(points.flatten(0, 2), codebook).view(points.shape[:3])


class ClassicQuantizer(CodebookQuantizer, kind="classic"):
    """Nearest entry by Euclidean distance.

    Source: van den Oord et al. 2017, arXiv:1711.00937, equations 1 to 3.
    """

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__(config)
        nn.init.uniform_(self.embedding.weight, -1 / config.codebook_size, 1 / config.codebook_size)

    def place(self, points: Tensor) -> Tensor:
        return points


class CosineQuantizer(CodebookQuantizer, kind="cosine"):
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
