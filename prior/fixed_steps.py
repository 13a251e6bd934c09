"""Steps that are the same calls at every position: for `torch.compile`, and for CUDA graphs.

`prior.stepping.Stepper` reads the cache up to its own position, so each position is another graph.
A step here reads the whole memory under a mask, from a position held in a tensor, and memory,
ids and scores keep their addresses: it is compiled once, recorded once on a GPU, and serves every
position of every batch of as many rows. It is for GPUs, where the start of some hundred kernels one
by one is most of what a step costs; a CPU gains nothing by it.

Letters: B rows, L positions of a whole sequence, N heads, D channels a head, K codebook size.
"""
import functools
import threading
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from prior import compiling
from prior.stepping import position_vectors
from prior.transformer import Block, Cache, Transformer

IN_USE = threading.Lock()
"""Held while a batch is drawn by `fixed_stepper`: batches of a process share its memory."""


class FixedCache:
    """Keys and values of B sequences, in memory that stays where it is.

    Attributes:
        pairs: keys and values of each layer, each ``(B, N, L, D)`` and a tensor of its own: of one
            tensor for all, a compiler copies the whole to change one position.
        length: positions read so far. What lies behind is masked, so it may be anything finite.
    """

    def __init__(self, model: Transformer, num_rows: int) -> None:
        config, device = model.config, model.head.weight.device
        shape = (num_rows, config.num_heads, model.layout.length, config.width // config.num_heads)
        self.pairs = [(torch.zeros(shape, device=device), torch.zeros(shape, device=device))
                      for _ in range(config.num_layers)]
        self.length = 0

    def hold(self, source: Cache) -> None:
        """Hold what ``source``, of as many rows, has read, and nothing else."""
        for layer, pair in enumerate(self.pairs):
            for memory, new in zip(pair, source.pairs[:, layer], strict=True):
                memory[:, :, :source.length] = new[:, :, :source.length]
        self.length = source.length

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add the keys and values ``(B, N, T, D)`` of a call; returns all so far."""
        end = self.length + keys.shape[2]
        for memory, new in zip(self.pairs[layer], (keys, values), strict=True):
            memory[:, :, self.length:end] = new
        all_keys, all_values = self.pairs[layer]
        return all_keys[:, :, :end], all_values[:, :, :end]


class _AtPlace:
    """A `FixedCache` as blocks see it in a step, at the position ``place``, ``(1,)`` int64."""
    length = 0

    def __init__(self, cache: FixedCache, place: Tensor) -> None:
        self._cache, self._place = cache, place

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Put keys and values ``(B, N, 1, D)`` in their place; returns the whole memory."""
        for memory, new in zip(self._cache.pairs[layer], (keys, values), strict=True):
            memory[:, :, self._place] = new
        return self._cache.pairs[layer]


class FixedStepper:
    """Reads one position after the other into memory of its own; see `prior.stepping.Stepper`.

    Args:
        model: in evaluation mode; its weights stay as they are while this is in use.
        num_rows: B.
        backend: of `torch.compile`; ``eager`` for the kernels that torch has.

    Attributes:
        cache: what is read; its ``length`` may be lowered to forget.
    """

    @torch.inference_mode(False)
    @torch.no_grad()
    def __init__(self, model: Transformer, num_rows: int, backend: str) -> None:
        device, depth = model.head.weight.device, model.layout.target.depth
        self._model = model
        self.cache = FixedCache(model, num_rows)
        self._ids = torch.zeros(num_rows, dtype=torch.int64, device=device)
        self._place = torch.zeros(1, dtype=torch.int64, device=device)
        self._positions = torch.arange(model.layout.length, device=device)
        self._vectors = position_vectors(model)
        self._heads = model.head.weight.detach().unflatten(0, (depth, -1))  # (depth, K, C)
        compiled = torch.compile(self._step, backend=backend, dynamic=False, fullgraph=True)
        self._run = recorded(compiled) if device.type == "cuda" else compiled

    def holding(self, source: Cache) -> "FixedStepper":
        """This, with what ``source`` has read in place of what it held."""
        self.cache.hold(source)
        return self

    @torch.inference_mode()
    def next_scores(self, ids: Tensor) -> Tensor:
        """Scores ``(B, K)`` of the code that the next position is about to predict.

        Args:
            ids: ``(B,)`` int64, of the next position of each row, one of the target.
        Returns:
            On a GPU memory that the next call overwrites.
        """
        self._ids.copy_(ids)
        self._place.fill_(self.cache.length)
        self.cache.length += 1
        return self._run()

    def _step(self) -> Tensor:
        """Scores ``(B, K)`` from the tensors of this object alone, by the same calls each time."""
        model, place = self._model, self._place
        hidden = (model.codes(self._ids) + self._vectors[place])[:, None]
        turn = model.turns[:, place][:, :, None] if model.config.rotary else None
        mask = (self._positions <= place)[None]
        cache = _AtPlace(self.cache, place)
        for layer, block in enumerate(model.blocks):
            hidden = cast(Block, block)(hidden, turn, mask, False, cache, layer)
        return functional.linear(model.norm(hidden[:, 0]), self._head(place))

    def _head(self, place: Tensor) -> Tensor:
        """Rows ``(K, C)`` of the output layer for the code after this position."""
        if len(self._heads) == 1:
            return self._heads[0]
        return self._heads[(place - self._model.layout.prefix_length) % len(self._heads)][0]


def recorded(step: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """A step on a GPU as one CUDA graph; each call replays it on the same memory."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):  # kernels are made, chosen and loaded before the recording
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        scores = step()

    def replay() -> Tensor:
        graph.replay()
        return scores
    return replay


@functools.lru_cache(maxsize=1)
def fixed_stepper(model: Transformer, num_rows: int) -> FixedStepper:
    """The compiled steps of a model for B rows, made once and kept; hold `IN_USE` to use them.

    Raises:
        ValueError: there is no compiler.
    """
    compiling.require_compiler("compiled sampling", model.head.weight.device)
    return FixedStepper(model, num_rows, compiling.BACKEND)
