"""Scores of the next code, read once: a model with what it was given, its guidance and its cache.

The conditions are read before anything else, each different row of them once: samples of one
condition, and the stage of guidance that is given nothing, share what was read. They are read in
calls of one fixed shape, so a row's scores do not depend on the rows beside it.

Letters: B rows, S stages of guidance, P positions of the conditions, n codes of an image, K
codebook size.
"""
from collections.abc import Mapping

import torch
from torch import Tensor

from prior.fixed_steps import FixedStepper, fixed_stepper
from prior.guidance import Guidance
from prior.sequence import SequenceLayout
from prior.stepping import Stepper
from prior.transformer import Cache, Memory, Transformer

POSITIONS_AT_ONCE = 256
"""About how many positions of conditions are read in one call."""


class Scores:
    """What a model says of the codes of B images, as they are drawn.

    Args:
        model: in evaluation mode.
        conditions: per condition that is given, ``(B, n)`` int64 on the model's device.
        num_rows: B.
        cached: keep keys and values; without, each call reads the whole sequence again.
        compiled: in kept memory and by compiled steps, of `prior.fixed_steps`, whose ``IN_USE`` the
            caller holds.
    """

    def __init__(self, model: Transformer, conditions: Mapping[str, Tensor], num_rows: int,
                 guidance: Guidance, cached: bool = True, compiled: bool = False) -> None:
        self._model, self._layout = model, model.layout
        self._chain = guidance.chain(given_names(model.layout, conditions))
        self._first = stage_inputs(model.layout, conditions, self._chain.stages, num_rows,
                                   model.head.weight.device)
        self._cache: Memory | None = None
        self._stepper: Stepper | FixedStepper | None = None
        if cached:
            cache = read_conditions(model, self._first[:, :model.layout.prefix_length])
            self._stepper = (fixed_stepper(model, len(self._first)).holding(cache) if compiled
                             else Stepper(model, cache))
            self._cache = self._stepper.cache

    @torch.inference_mode()
    def next(self, codes: Tensor, count: int) -> Tensor:
        """Scores ``(B, K)`` float32 of code ``count``, guided.

        Args:
            codes: ``(B, n)`` int64; the first ``count`` are read, but those read before.
        """
        inputs = self._inputs(codes, count)
        if self._stepper is not None and inputs.shape[1] == 1:
            scores = self._stepper.next_scores(inputs[:, 0])
        else:
            scores = self._model.next_scores(inputs, self._cache)
        return self._guided(scores.float(), count)

    @torch.inference_mode()
    def log_likelihoods(self, codes: Tensor, first: int) -> Tensor:
        """Guided log-likelihoods ``(B, n - first)`` of the codes from ``first`` on, in nats.

        Args:
            codes: ``(B, n)`` int64; all are read, but those read before.
        """
        last = codes.shape[1] - 1
        scores = self._model(self._inputs(codes, last), self._cache)[:, first - last - 1:]
        parts = []
        for place in range(first, last + 1):
            guided = self._guided(scores[:, place - first].float(), place)
            chosen = guided.gather(-1, codes[:, place:place + 1])[:, 0]
            parts.append(chosen - guided.logsumexp(-1))
        return torch.stack(parts, 1)

    def forget(self, count: int) -> None:
        """Forget what was read after the code before ``count``, which can then be scored again."""
        if self._cache is not None:
            self._cache.length = min(self._cache.length, self._layout.prefix_length + count)

    def _inputs(self, codes: Tensor, last: int) -> Tensor:
        """Ids of all stages ``(S * B, T)`` that are not read yet, up to that about to predict."""
        num_read = self._cache.length if self._cache is not None else 0
        first = num_read - self._layout.prefix_length
        inputs = self._layout.target_inputs(codes, max(first, 1), last)
        if len(self._chain.stages) > 1:
            inputs = inputs.repeat(len(self._chain.stages), 1)
        return inputs if first > 0 else torch.cat([self._first[:, num_read:], inputs], 1)

    def _guided(self, scores: Tensor, count: int) -> Tensor:
        strength = self._chain.guidance.strength(count / self._layout.target.length)
        return self._chain.combine(scores.unflatten(0, (len(self._chain.stages), -1)), strength)


def given_names(layout: SequenceLayout, conditions: Mapping[str, Tensor]) -> list[str]:
    """Names of the conditions that are given, in the order of the sequence."""
    return [segment.name for segment in layout.conditions if segment.name in conditions]


def stage_inputs(layout: SequenceLayout, conditions: Mapping[str, Tensor],
                 stages: tuple[tuple[str, ...], ...], num_rows: int,
                 device: torch.device) -> Tensor:
    """Ids ``(S * B, P + 1)`` of the conditions, and of what predicts the first code, by stage."""
    return torch.cat([layout.first_inputs({name: conditions[name] for name in stage}, num_rows,
                                          device) for stage in stages])


@torch.inference_mode()
def read_conditions(model: Transformer, prefix: Tensor) -> Cache:
    """A cache that has read the ids ``(B, P)`` of conditions, equal rows once."""
    cache = model.new_cache(len(prefix))
    if not prefix.shape[1]:
        return cache
    different, places = prefix.unique(dim=0, return_inverse=True)
    at_once = max(1, min(len(prefix), POSITIONS_AT_ONCE // prefix.shape[1]))
    for first in range(0, len(different), at_once):
        part = different[first:first + at_once]
        padding = part[-1:].expand(at_once - len(part), -1)
        source = model.new_cache(at_once, prefix.shape[1])
        model.read(torch.cat([part, padding]), source)
        rows = ((places >= first) & (places < first + at_once)).nonzero()[:, 0]
        cache.copy_rows(rows, places[rows] - first, source)
    return cache
