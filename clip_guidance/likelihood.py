"""A prior beside CLIP: where images start, and how likely their codes are.

The second term of the loss is the weight times the bits that the prior needs for a code,
-log2 p(codes) / n. Its gradient reaches the latents through the codes near them: a cell's share of
each entry falls with its distance, and an entry's gain is what the log-likelihood would be with it
(`prior.likelihood.code_gradients`, `clip_guidance.latents.LatentSpace.ascent`).

Letters: n codes of an image, D codes a cell, h and w rows and columns of its grid, K codebook size.
"""
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prior.dataset import require_codes
from prior.generate import Generation, generate
from prior.givens import Givens
from prior.likelihood import code_gradients
from prior.model import Prior
from tokenizer import storage
from tokenizer.buckets import size_name
from tokenizer.schema import CodeSpec, SpecMismatch, TokenSpec


@dataclass(frozen=True, kw_only=True)
class GuidingPrior:
    """A prior that guides, and what it is given.

    Attributes:
        prior: on the device of the tokenizer; its weights take no gradients from now on.
        givens: rows of conditions; images take them in turn.
        weight: of the bits for a code in the loss; 0 leaves the term out.
    """
    prior: Prior
    givens: Givens
    weight: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf:
            raise ValueError(f"the weight of a prior is at least 0, got {self.weight}")
        self.prior.model.requires_grad_(False)

    def require(self, spec: CodeSpec) -> None:
        """Refuse a prior of other codes than these.

        Raises:
            SpecMismatch, ValueError: it is of another tokenizer, or of images of another size.
        """
        own = self.prior.config.spec[self.prior.config.target]
        if own.tokenizer == spec.tokenizer and own.grid != spec.grid:
            raise SpecMismatch(f"the prior is of images of {size_name(own.image_size)} pixels, "
                               f"grid {size_name(own.grid)}, and these are of "
                               f"{size_name(spec.image_size)}: make them of its size (--size), or "
                               "leave the prior out")
        try:
            require_codes(TokenSpec(codes=(spec,)), TokenSpec(codes=(own,)), [spec.modality],
                          "the prior")
        except SpecMismatch as error:
            raise SpecMismatch(f"{error}: give a prior of codes of this tokenizer") from error

    def sample(self, seed: int, index: int) -> np.ndarray:
        """Codes ``(1[, D], h, w)`` int64: those of image ``index`` of ``img2tokens sample``."""
        return generate(self.prior.model, self._conditions(index), [(seed, index)],
                        Generation(batch_size=1))

    def judge(self, codes: Tensor, index: int) -> tuple[float, Tensor]:
        """What the prior says of the codes of an image.

        Args:
            codes: ``(1[, D], h, w)`` int64.
        Returns:
            Bits for a code; and the gains ``(1, D, h, w, K)`` float32 of all codes, in bits for a
            code: what the first number would fall by, but for a constant.
        """
        target = self.prior.config.layout.target
        in_order = codes.reshape(1, target.depth, -1).transpose(1, 2).reshape(1, -1)
        given = {name: torch.from_numpy(values).to(codes.device)
                 for name, values in self._conditions(index).items()}
        logs, gradients = code_gradients(self.prior.model, given, in_order)
        gains = gradients.view(1, *target.grid, target.depth, -1).permute(0, 3, 1, 2, 4)
        unit = math.log(2) * target.length
        return -float(logs.double().sum()) / unit, gains / unit

    def describe(self) -> dict[str, Any]:
        """All that decides what it says, as JSON values."""
        conditions = sorted(self.givens.conditions.items())
        content = b"".join(np.ascontiguousarray(values, np.int64).tobytes()
                           for _, values in conditions)
        return {"fingerprint": self.prior.fingerprint, "weight": self.weight,
                "conditions": [name for name, _ in conditions], "num_rows": len(self.givens),
                "content": f"sha256:{storage.sha256(content)}"}

    def _conditions(self, index: int) -> dict[str, np.ndarray]:
        """What an image is given, ``(1, n)`` int64 by condition."""
        row = index % len(self.givens)
        return {name: values[row:row + 1].astype(np.int64)
                for name, values in self.givens.conditions.items()}
