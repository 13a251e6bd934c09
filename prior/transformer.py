"""The transformer over a `SequenceLayout`, and its shape.

Blocks are those of Touvron et al. 2023 (arXiv:2302.13971): RMS norm before each part, one packed
matrix for queries, keys and values, SwiGLU. The output layer starts at zero, so training starts
from the uniform distribution. Blocks of published priors are options, so that these can be
imported: those of minGPT (layer norm, GELU, biases), and LlamaGen's roundings of our own.

Where a cell has several codes, each of them has embeddings of its own, a vector that says which
one comes next, and its own rows of the output layer: each has its own codebook.

Letters: B rows, T positions of one call, L of a whole sequence, C width, N heads, D = C / N,
K codebook size.
"""
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from prior.operations import product, rms_norm, rotate, swiglu
from prior.sequence import SequenceLayout
from tokenizer import configs

EPSILON = 1e-6
"""Added to the mean square in norms, but in those of published blocks."""

PUBLISHED_EPSILON = 1e-5

BLOCKS = ("swiglu", "mingpt", "llamagen")
"""Kinds of blocks: this program's own, those of minGPT, and LlamaGen's, which differ from our own
in `EPSILON` and in the number of hidden channels."""


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Shape of the transformer.

    Attributes:
        num_layers: blocks.
        width: C, channels.
        num_heads: heads of each attention; divides the width.
        dropout: share of values dropped in training, after the embedding and after each part.
        qk_norm: normalise queries and keys, which keeps large models stable (Dehghani et al. 2023,
            arXiv:2302.05442).
        rotary: turn queries and keys by their cell's row and column (Su et al. 2021,
            arXiv:2104.09864), beside the learned positions.
        both_ways: conditions see each other in both directions.
        blocks: a name of `BLOCKS`.
    """
    num_layers: int = 4
    width: int = 192
    num_heads: int = 4
    dropout: float = 0.0
    qk_norm: bool = True
    rotary: bool = True
    both_ways: bool = True
    blocks: str = field(default="swiglu", metadata=configs.LATER)

    def __post_init__(self) -> None:
        if min(self.num_layers, self.width, self.num_heads) < 1:
            raise ValueError("num_layers, width and num_heads must be at least 1, got "
                             f"{self.num_layers}, {self.width} and {self.num_heads}")
        if self.width % (4 * self.num_heads):
            raise ValueError(f"width must be a multiple of 4 * num_heads ({4 * self.num_heads}), "
                             f"got {self.width}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")
        if self.blocks not in BLOCKS:
            raise ValueError(f"no blocks are named {self.blocks!r}; known are {', '.join(BLOCKS)}")

    @property
    def is_mingpt(self) -> bool:
        """Whether norms are layer norms, activations GELU, and all but the head has biases."""
        return self.blocks == "mingpt"

    @property
    def hidden(self) -> int:
        """Channels inside the feed-forward part.

        Of SwiGLU 8/3 of the width, rounded up to 32 (LlamaGen: rounded down, then up to 256).
        """
        if self.is_mingpt:
            return 4 * self.width
        if self.blocks == "llamagen":
            return -(-(self.width * 8 // 3) // 256) * 256
        return -(-self.width * 8 // 3 // 32) * 32


class Memory(Protocol):
    """What attention puts keys and values into, and gets all so far from.

    Attributes:
        length: positions read so far.
    """
    length: int

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add the keys and values ``(B, N, T, D)`` of a call to a layer; returns all so far."""


class Cache:
    """Keys and values of the positions read so far, in memory taken once.

    Args:
        config: of the transformer.
        num_rows: B.
        length: L, most positions it will hold.

    Attributes:
        pairs: keys, then values: ``(2, layers, B, N, L, D)``.
        length: positions read so far.
    """

    def __init__(self, config: TransformerConfig, num_rows: int, length: int,
                 device: torch.device) -> None:
        shape = (config.num_layers, num_rows, config.num_heads, length,
                 config.width // config.num_heads)
        self.pairs = torch.empty((2, *shape), device=device)
        self.keys, self.values = self.pairs
        self.length = 0

    def copy_rows(self, rows: Tensor, places: Tensor, source: "Cache") -> None:
        """Take over what ``source`` has read: for each of ``rows`` its row in ``places``.

        Args:
            rows: int64 indices into this cache.
            places: as many int64 indices into ``source``.
        """
        self.keys[:, rows, :, :source.length] = source.keys[:, places, :, :source.length]
        self.values[:, rows, :, :source.length] = source.values[:, places, :, :source.length]
        self.length = source.length

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add the keys and values ``(B, N, T, D)`` of a call; returns all so far."""
        end = self.length + keys.shape[2]
        self.keys[layer, :, :, self.length:end] = keys
        self.values[layer, :, :, self.length:end] = values
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]


class RMSNorm(nn.RMSNorm):
    """RMS norm computed in float32."""

    def __init__(self, size: int, epsilon: float = EPSILON) -> None:
        super().__init__(size, eps=epsilon)
        self.epsilon = epsilon

    def forward(self, inputs: Tensor) -> Tensor:
        return rms_norm(inputs, self.weight, self.epsilon)


def build_norm(config: TransformerConfig) -> nn.Module:
    """The norm before each part, and before the output layer."""
    if config.is_mingpt:
        return nn.LayerNorm(config.width, eps=PUBLISHED_EPSILON)
    published = config.blocks == "llamagen"
    return RMSNorm(config.width, PUBLISHED_EPSILON if published else EPSILON)


class Attention(nn.Module):
    """Multi-head attention with one packed matrix for queries, keys and values."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=config.is_mingpt)
        self.out = nn.Linear(config.width, config.width, bias=config.is_mingpt)
        size = config.width // config.num_heads
        self.norm_queries = RMSNorm(size) if config.qk_norm else nn.Identity()
        self.norm_keys = RMSNorm(size) if config.qk_norm else nn.Identity()

    def forward(self, inputs: Tensor, turn: Tensor | None, mask: Tensor | None, causal: bool,
                cache: Memory | None, layer: int) -> Tensor:
        """Inputs ``(B, T, C)`` to outputs of the same shape.

        Args:
            turn: ``(2, T, 1, D / 2)``, as `rotate` takes it.
        """
        rows, length, width = inputs.shape
        packed = self.qkv(inputs).view(rows, length, 3, self.num_heads, width // self.num_heads)
        queries, keys, values = packed.unbind(2)
        queries, keys = self.norm_queries(queries), self.norm_keys(keys)
        if turn is not None:
            queries, keys = rotate(queries, turn), rotate(keys, turn)
        # From here on each is (B, N, T, D).
        queries, keys, values = (part.transpose(1, 2) for part in (queries, keys, values))
        if cache is not None:
            keys, values = cache.extend(layer, keys, values)
        mixed = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask,
                                                        is_causal=causal)
        return self.out(mixed.transpose(1, 2).reshape(rows, length, width))


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.gate_and_up = nn.Linear(config.width, 2 * config.hidden, bias=False)
        self.down = nn.Linear(config.hidden, config.width, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        return product(swiglu(product(inputs, self.gate_and_up.weight)), self.down.weight)


class GELUFeedForward(nn.Module):
    """Two matrices with biases and GELU between them, as in minGPT."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.width, config.hidden)
        self.down = nn.Linear(config.hidden, config.width)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.down(functional.gelu(self.up(inputs)))


class Block(nn.Module):
    """Attention, then feed-forward, each on normalised inputs and added to them."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.norm_attention = build_norm(config)
        self.attention = Attention(config)
        self.norm_feed_forward = build_norm(config)
        self.feed_forward = (GELUFeedForward if config.is_mingpt else FeedForward)(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, inputs: Tensor, turn: Tensor | None, mask: Tensor | None, causal: bool,
                cache: Memory | None, layer: int) -> Tensor:
        mixed = self.attention(self.norm_attention(inputs), turn, mask, causal, cache, layer)
        inputs = inputs + self.dropout(mixed)
        return inputs + self.dropout(self.feed_forward(self.norm_feed_forward(inputs)))


class Transformer(nn.Module):
    """Scores of the target's codes from the ids of a sequence.

    Attributes:
        recomputes: whether training keeps the inputs of blocks alone, and computes what lies within
            again for the gradients (Chen et al. 2016, arXiv:1604.06174): the same to the last bit.
    """

    def __init__(self, config: TransformerConfig, layout: SequenceLayout) -> None:
        super().__init__()
        self.config, self.layout, self.recomputes = config, layout, False
        self.codes = nn.Embedding(layout.num_ids, config.width)
        self.positions = (nn.Embedding(layout.num_positions, config.width)
                          if layout.has_positions else None)
        self.segments = (nn.Embedding(len(layout.segments), config.width)
                         if layout.has_segments else None)
        self.depths = nn.Embedding(layout.depth, config.width) if layout.depth > 1 else None
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = build_norm(config)
        self.head = nn.Linear(config.width, layout.target.depth * layout.target.vocabulary,
                              bias=False)
        self._tables()
        self._start()

    position_ids: Tensor
    segment_ids: Tensor
    depth_ids: Tensor
    mask: Tensor
    turns: Tensor

    def forward(self, ids: Tensor, cache: Memory | None = None) -> Tensor:
        """Scores of the code that each position of the target is about to predict.

        Args:
            ids: ``(B, T)`` int64, the start of a sequence; with a cache, the part after what the
                cache holds, which this call adds to it.
        Returns:
            ``(B, T', K)``: one for each position of the target among the T.
        Raises:
            ValueError: conditions that see each other both ways are cut in two.
        """
        start = cache.length if cache is not None else 0
        hidden = self.read(ids, cache)
        skipped = max(0, self.layout.prefix_length - start)
        return self._scores(self.norm(hidden[:, skipped:]), start + skipped)

    def next_scores(self, ids: Tensor, cache: Memory | None = None) -> Tensor:
        """Scores ``(B, K)`` of the code that the last of the ids is about to predict.

        Args:
            ids, cache: as `forward` takes them; the last id is one of the target.
        """
        last = (cache.length if cache is not None else 0) + ids.shape[1] - 1
        hidden = self.norm(self.read(ids, cache)[:, -1])
        depth = (last - self.layout.prefix_length) % self.layout.target.depth
        return functional.linear(hidden, self.head.weight.chunk(self.layout.target.depth)[depth])

    def read(self, ids: Tensor, cache: Memory | None = None) -> Tensor:
        """Ids ``(B, T)``, as `forward` takes them, as the blocks' output ``(B, T, C)``."""
        start = cache.length if cache is not None else 0
        end = start + ids.shape[1]
        if self.config.both_ways and start < self.layout.prefix_length > end:
            raise ValueError(f"the first call takes all {self.layout.prefix_length} positions of "
                             f"the conditions, got {end}")
        hidden = self._embed(ids, start, end)
        turn = self.turns[:, start:end, None] if self.config.rotary else None
        mask, causal = self._mask(start, end)
        for layer, block in enumerate(self.blocks):
            if self.recomputes and self.training:
                hidden = checkpoint(block, hidden, turn, mask, causal, cache, layer,
                                    use_reentrant=False)
            else:
                hidden = block(hidden, turn, mask, causal, cache, layer)
        if cache is not None:
            cache.length = end
        return hidden

    def new_cache(self, num_rows: int, length: int | None = None) -> Cache:
        """An empty cache for ``num_rows`` sequences, or for their first ``length`` positions."""
        return Cache(self.config, num_rows, length or self.layout.length, self.head.weight.device)

    def _embed(self, ids: Tensor, start: int, end: int) -> Tensor:
        """Ids ``(B, T)`` of the positions from ``start`` to ``end`` as ``(B, T, C)``."""
        hidden = self.codes(ids)
        if self.positions is not None:
            hidden = hidden + self.positions(self.position_ids[start:end])
        if self.segments is not None:
            hidden = hidden + self.segments(self.segment_ids[start:end])
        if self.depths is not None:
            hidden = hidden + self.depths(self.depth_ids[start:end])
        return self.dropout(hidden)

    def _scores(self, hidden: Tensor, start: int) -> Tensor:
        """Scores ``(B, T, K)`` of ``(B, T, C)``, whose first position is ``start``."""
        depth = self.layout.target.depth
        if depth == 1:
            return self.head(hidden)
        first = (self.layout.prefix_length - start) % depth
        places = torch.arange(hidden.shape[1], device=hidden.device)
        starts = [(first + index) % depth for index in range(depth)]
        parts = [functional.linear(hidden[:, begin::depth], weight)
                 for begin, weight in zip(starts, self.head.weight.chunk(depth), strict=True)]
        order = torch.cat([places[begin::depth] for begin in starts]).argsort()
        return torch.cat(parts, 1)[:, order]

    def _mask(self, start: int, end: int) -> tuple[Tensor | None, bool]:
        """The mask for positions ``start`` to ``end``, and whether attention is plainly causal."""
        if end - start == 1:
            return None, False
        if start == 0 and (not self.config.both_ways or self.layout.prefix_length < 2):
            return None, True
        return self.mask[start:end, :end], False

    def _tables(self) -> None:
        layout, size = self.layout, self.config.width // self.config.num_heads
        turns = rotations(torch.from_numpy(layout.coordinates), size, layout.rotary_base)
        tables = {"position_ids": torch.from_numpy(layout.positions),
                  "segment_ids": torch.from_numpy(layout.segment_ids),
                  "depth_ids": torch.from_numpy(layout.depth_ids),
                  "mask": torch.from_numpy(layout.visible(self.config.both_ways)),
                  "turns": turns * torch.from_numpy(layout.turned)[:, None]}
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)

    def _start(self) -> None:
        if self.config.is_mingpt:
            self._start_as_published()
            return
        depth_scale = (2 * self.config.num_layers) ** -0.5
        for name, parameter in self.named_parameters():
            if name == "head.weight":
                nn.init.zeros_(parameter)
            elif name.endswith(("attention.out.weight", "down.weight")):
                nn.init.normal_(parameter, std=0.02 * depth_scale)
            elif parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)

    def _start_as_published(self) -> None:
        """As minGPT: N(0, 0.02) but for biases and positions, which start at zero."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias") or name == "positions.weight":
                nn.init.zeros_(parameter)
            elif parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)


def rotations(coordinates: Tensor, size: int, base: float = 100.0) -> Tensor:
    """Cosines and sines that turn the pairs of a head by row and column.

    Args:
        coordinates: ``(L, 2)`` float, row and column in cells.
        size: D; half of its pairs turn with the row, half with the column.
        base: the ratio between the highest rate, of 1, and the one after the lowest.
    Returns:
        ``(2, L, D / 2)`` float32.
    """
    num_rates = size // 4
    rates = base ** -(torch.arange(num_rates, device=coordinates.device) / num_rates)
    angles = (coordinates[:, :, None] * rates).flatten(1)
    return torch.stack([angles.cos(), angles.sin()])
