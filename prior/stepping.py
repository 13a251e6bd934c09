"""Steps of one position: what a transformer says once one more code of each row is there.

A step reads every weight and computes little with it, so it waits for memory, and then for the
number of calls. It says what `Transformer.next_scores` says, to rounding, with less than half of
the calls: its tensors are taken once, their parts are found once, and sums are taken into products.

Letters: B rows, L positions of a whole sequence, C width, N heads, D = C / N, H hidden channels, K
codebook size.
"""
import math
from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from prior.transformer import Block, Cache, FeedForward, RMSNorm, Transformer, TransformerConfig

SPARE = 16
"""Columns beside the hidden state: one is needed, and so many keep its rows aligned."""


class Stepper:
    """Reads one position after the other into a cache.

    Args:
        model: in evaluation mode; its weights stay as they are while this is in use.
        cache: of B rows; each step extends it. It stays at hand, to be shortened or read into.
    """

    @torch.inference_mode()
    def __init__(self, model: Transformer, cache: Cache) -> None:
        self._model, self.cache = model, cache
        self._first = model.layout.prefix_length
        self._state = state = _State(model.config, cache.pairs.shape[2], cache.pairs.device)
        self._layers = [_Layer(block, state) for block in cast(Iterable[Block], model.blocks)]
        self._turns = _Turns(model)
        self._norm = _Norm(model.norm, state)
        self._vectors = position_vectors(model)
        self._heads = [part.t() for part in model.head.weight.chunk(model.layout.target.depth)]

    @torch.inference_mode()
    def next_scores(self, ids: Tensor) -> Tensor:
        """Scores ``(B, K)`` of the code that the next position is about to predict.

        Args:
            ids: ``(B,)`` int64, of the next position of each row, one of the target.
        """
        cache, place = self.cache, self.cache.length
        torch.add(self._model.codes(ids), self._vectors[place], out=self._state.hidden)
        new = cache.pairs[..., place, :].unbind(1)
        keys, values = (part[..., :place + 1, :].unbind(0) for part in (cache.keys, cache.values))
        for layer, *given in zip(self._layers, self._turns.at(place), new, keys, values,
                                 strict=True):
            layer.step(*given)
        cache.length = place + 1
        return torch.mm(self._norm(), self._heads[(place - self._first) % len(self._heads)])


def position_vectors(model: Transformer) -> Tensor:
    """What each position adds to the vector of its id, ``(L, C)``."""
    vectors = model.codes.weight.new_zeros(model.layout.length, model.config.width)
    for table, ids in ((model.positions, model.position_ids), (model.segments, model.segment_ids),
                       (model.depths, model.depth_ids)):
        if table is not None:
            vectors += table(ids)
    return vectors


class _State:
    """Tensors that all layers share.

    Attributes:
        hidden: ``(B, C)``, the first columns of ``extended``.
        packed: queries, keys and values, ``(B, 3 C)``; ``turned`` are its queries and keys, ``(B,
            2, N, D)``, ``queries`` and ``added`` what attention reads and what the cache takes up.
        inner: inside the feed-forward part, ``(B, H)`` or ``(B, 2 H)``.
    """

    def __init__(self, config: TransformerConfig, num_rows: int, device: torch.device) -> None:
        def empty(*shape: int) -> Tensor:
            return torch.empty((num_rows, *shape), device=device)

        width, heads = config.width, config.num_heads
        self.extended = torch.zeros(num_rows, width + SPARE, device=device)
        self.hidden = self.extended[:, :width]
        self.length, self.normed, self.packed = empty(1), empty(width), empty(3 * width)
        parts = self.packed.view(num_rows, 3, heads, width // heads)
        self.queries, self.added = parts[:, 0, :, None], parts[:, 1:].transpose(0, 1)
        self.turned = parts[:, :2]
        self.turned_halves = self.turned.chunk(2, -1)
        self.lengths, self.normed_turned = empty(2, heads, 1), empty(2, heads, width // heads)
        self.normed_halves = self.normed_turned.chunk(2, -1)
        self.inner = empty((1 if config.is_mingpt else 2) * config.hidden)


def store_by_columns(model: nn.Module) -> None:
    """Store the matrices of a model column by column in memory.

    A product with few rows on a CPU is up to a quarter faster so. Shapes and values stay.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight.data = module.weight.data.t().contiguous().t()


class _Norm:
    """A norm of the hidden state."""

    def __init__(self, norm: nn.Module, state: _State) -> None:
        self._norm, self._state = norm, state
        if isinstance(norm, RMSNorm):
            # A row is sqrt(C) times as long with this beside it as what RMS norm divides by.
            width = state.hidden.shape[1]
            state.extended[:, width] = math.sqrt(width * norm.epsilon)
            self._weight = norm.weight * math.sqrt(width)

    def __call__(self) -> Tensor:
        """Of the hidden state, ``(B, C)``; valid until the next call of any."""
        state = self._state
        if not isinstance(self._norm, RMSNorm):
            return self._norm(state.hidden)
        torch.linalg.vector_norm(state.extended, dim=-1, keepdim=True, out=state.length)
        return torch.div(state.hidden, state.length, out=state.normed).mul_(self._weight)


class _Product:
    """A linear layer."""

    def __init__(self, linear: nn.Linear) -> None:
        self.weight, self.bias = linear.weight.t(), linear.bias

    def into(self, outputs: Tensor, inputs: Tensor) -> Tensor:
        """Of ``inputs``, in place of what ``outputs`` holds."""
        if self.bias is None:
            return torch.mm(inputs, self.weight, out=outputs)
        return torch.addmm(self.bias, inputs, self.weight, out=outputs)

    def add_to(self, outputs: Tensor, inputs: Tensor) -> None:
        """Of ``inputs``, added to what ``outputs`` holds."""
        outputs.addmm_(inputs, self.weight)
        if self.bias is not None:
            outputs.add_(self.bias)


class _Turns:
    """What queries and keys of each layer are multiplied by: weights of their norms, and turns.

    With the halves a and b of a head, weights v and w, and cosine and sine c and s of the position,
    the halves become ``a v c - b w s`` and ``b w c + a v s``.
    """

    def __init__(self, model: Transformer) -> None:
        self._num_layers, size = len(model.blocks), model.config.width // model.config.num_heads
        self._is_needed = model.config.rotary or model.config.qk_norm
        self._turns = model.turns if model.config.rotary else None
        ones = torch.ones(size, device=model.head.weight.device)
        norms = [(block.attention.norm_queries, block.attention.norm_keys)
                 for block in cast(Iterable[Block], model.blocks)]
        self._weights = torch.stack([torch.stack([getattr(norm, "weight", ones) for norm in pair])
                                     for pair in norms])[:, :, None]  # (layers, 2, 1, D)

    def at(self, place: int) -> Sequence[tuple[Tensor, ...]]:
        """Factors of each layer for the position ``place``.

        Returns:
            Nothing to multiply by; or of all channels, ``(2, 1, D)``; or of these, of b for the
            first half, and of a for the second, ``(2, 1, D / 2)``.
        """
        if not self._is_needed:
            return [()] * self._num_layers
        if self._turns is None:
            return [(weights,) for weights in self._weights]
        cosines, sines = self._turns[:, place]
        first, second = self._weights.chunk(2, -1)
        factors = (self._weights * cosines.repeat(2), second * -sines, first * sines)
        return list(zip(*(factor.unbind(0) for factor in factors), strict=True))


class _Layer:
    """A block."""

    def __init__(self, block: Block, state: _State) -> None:
        attention, feed_forward = block.attention, block.feed_forward
        self._state = state
        self._norm_attention = _Norm(block.norm_attention, state)
        self._norm_feed_forward = _Norm(block.norm_feed_forward, state)
        self._qkv, self._out = _Product(attention.qkv), _Product(attention.out)
        norm = attention.norm_queries
        self._epsilon = (norm.weight.new_tensor(norm.epsilon) if isinstance(norm, RMSNorm)
                         else None)
        self._is_gated = isinstance(feed_forward, FeedForward)
        self._up = _Product(cast(nn.Linear, feed_forward.gate_and_up if self._is_gated
                                 else feed_forward.up))
        self._down = _Product(feed_forward.down)

    def step(self, turn: tuple[Tensor, ...], new: Tensor, keys: Tensor, values: Tensor) -> None:
        """Bring the hidden state through this block.

        Args:
            turn: of `_Turns.at`.
            new: ``(2, B, N, D)``, where the key and value of this position go.
            keys, values: ``(B, N, T, D)`` of all positions up to this one; they hold ``new``.
        """
        state = self._state
        self._qkv.into(state.packed, self._norm_attention())
        if turn:
            self._turn(*turn)
        new.copy_(state.added)
        mixed = functional.scaled_dot_product_attention(state.queries, keys, values)
        self._out.add_to(state.hidden, mixed.reshape(state.hidden.shape))
        inner = self._up.into(state.inner, self._norm_feed_forward())
        if self._is_gated:
            gate, up = inner.chunk(2, -1)
            inner = functional.silu(gate, inplace=True).mul_(up)
        else:
            inner = functional.gelu(inner)
        self._down.add_to(state.hidden, inner)

    def _turn(self, straight: Tensor, of_second: Tensor | None = None,
              of_first: Tensor | None = None) -> None:
        """Normalise and turn queries and keys in their places; factors of `_Turns.at`."""
        state, inputs = self._state, self._state.turned
        if self._epsilon is None:
            state.normed_turned.copy_(inputs)
        else:
            lengths = torch.linalg.vector_norm(inputs, dim=-1, keepdim=True, out=state.lengths)
            torch.addcmul(self._epsilon, lengths, lengths, value=1 / inputs.shape[-1], out=lengths)
            torch.div(inputs, lengths.sqrt_(), out=state.normed_turned)
        torch.mul(state.normed_turned, straight, out=inputs)
        if of_second is not None and of_first is not None:
            (first, second), (ahead, behind) = state.normed_halves, state.turned_halves
            ahead.addcmul_(second, of_second)
            behind.addcmul_(first, of_first)
