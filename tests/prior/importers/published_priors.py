"""Published priors, independently: their tensors by documented names, and what they compute.

The forward passes are plain functions of torch over a dict of tensors, and share nothing with the
transformer of this project.
"""
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]

WIDTH, HEADS, LAYERS = 16, 2, 2
VOCABULARY, CODEBOOK, MAP_CODES, CLASSES = 14, 12, 10, 7
SIDE = 3
NUM_CODES = SIDE * SIDE


def draw(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> State:
    """Random numbers of these shapes; norms near 1."""
    generator = torch.Generator().manual_seed(seed)
    state = {name: torch.randn(shape, generator=generator) * 0.4 for name, shape in shapes.items()}
    norms = ("ln1.weight", "ln2.weight", "ln_f.weight", "norm.weight")
    return {name: 1 + tensor / 4 if name.endswith(norms) else tensor
            for name, tensor in state.items()}


def taming_state(block_size: int = 20) -> State:
    """A ``Net2NetTransformer``: transformer, masks, and some of its tokenizers."""
    shapes: dict[str, tuple[int, ...]] = {
        "transformer.tok_emb.weight": (VOCABULARY, WIDTH),
        "transformer.pos_emb": (1, block_size, WIDTH),
        "transformer.ln_f.weight": (WIDTH,), "transformer.ln_f.bias": (WIDTH,),
        "transformer.head.weight": (VOCABULARY, WIDTH)}
    for layer in range(LAYERS):
        block = f"transformer.blocks.{layer}."
        for norm in ("ln1", "ln2"):
            shapes |= {f"{block}{norm}.weight": (WIDTH,), f"{block}{norm}.bias": (WIDTH,)}
        for part in ("key", "query", "value", "proj"):
            shapes |= {f"{block}attn.{part}.weight": (WIDTH, WIDTH),
                       f"{block}attn.{part}.bias": (WIDTH,)}
        shapes |= {f"{block}mlp.0.weight": (4 * WIDTH, WIDTH), f"{block}mlp.0.bias": (4 * WIDTH,),
                   f"{block}mlp.2.weight": (WIDTH, 4 * WIDTH), f"{block}mlp.2.bias": (WIDTH,)}
    masks = {f"transformer.blocks.{layer}.attn.mask":
             torch.ones(1, 1, block_size, block_size).tril() for layer in range(LAYERS)}
    return {**draw(shapes), **masks, "first_stage_model.encoder.conv_in.bias": torch.zeros(4),
            "first_stage_model.quantize.embedding.weight": torch.zeros(CODEBOOK, 4),
            "cond_stage_model.encoder.conv_in.bias": torch.zeros(4)}


def taming_scores(state: State, ids: Tensor) -> Tensor:
    """Scores ``(B, T, V)`` of ids ``(B, T)``."""
    def tensor(name: str) -> Tensor:
        return state[f"transformer.{name}"]
    def norm(inputs: Tensor, name: str) -> Tensor:
        return F.layer_norm(inputs, (WIDTH,), tensor(f"{name}.weight"), tensor(f"{name}.bias"),
                            1e-5)
    def linear(inputs: Tensor, name: str) -> Tensor:
        return F.linear(inputs, tensor(f"{name}.weight"), tensor(f"{name}.bias"))
    length = ids.shape[1]
    hidden = tensor("tok_emb.weight")[ids] + tensor("pos_emb")[:, :length]
    for layer in range(LAYERS):
        block = f"blocks.{layer}"
        inputs = norm(hidden, f"{block}.ln1")
        query, key, value = (heads(linear(inputs, f"{block}.attn.{part}"))
                             for part in ("query", "key", "value"))
        hidden = hidden + linear(attend(query, key, value), f"{block}.attn.proj")
        inner = F.gelu(linear(norm(hidden, f"{block}.ln2"), f"{block}.mlp.0"))
        hidden = hidden + linear(inner, f"{block}.mlp.2")
    return norm(hidden, "ln_f") @ tensor("head.weight").T


def heads(inputs: Tensor) -> Tensor:
    """``(B, T, C)`` as ``(B, N, T, D)``."""
    return inputs.view(*inputs.shape[:2], HEADS, WIDTH // HEADS).transpose(1, 2)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Causal attention of ``(B, N, T, D)``, heads joined: ``(B, T, C)``."""
    weights = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    future = torch.ones(weights.shape[-2:]).triu(1).bool()
    mixed = weights.masked_fill(future, float("-inf")).softmax(-1) @ value
    return mixed.transpose(1, 2).flatten(2)


def tokenizer_node(codes: Any, target: str = "taming.models.vqgan.VQModel") -> dict[str, Any]:
    """A tokenizer of 3 x 3 codes, as a prior's config describes it."""
    return {"target": target, "params": {"embed_dim": 4, "n_embed": codes, "ddconfig": {
        "resolution": 2 * SIDE, "ch_mult": [1, 1], "ch": 32}}}


def coordinate_node(codes: int = MAP_CODES, **params: int) -> dict[str, Any]:
    """The stage that makes codes of coordinates, as a prior's config describes it."""
    return {"target": "taming.modules.misc.coord.CoordStage",
            "params": {"n_embed": codes, "down_factor": 2, **params}}


def taming_config(kind: str = "depth", **params: Any) -> dict[str, Any]:
    """The config of a prior given ``class``, ``none``, ``depth``, ``segmentation`` or
    ``coordinates``."""
    conditions: dict[str, Any] = {
        "class": {"cond_stage_key": "class_label", "cond_stage_config": {
            "target": "taming.modules.util.Labelator", "params": {"n_classes": CLASSES}}},
        "none": {"cond_stage_config": "__is_unconditional__", "sos_token": 3},
        "depth": {"cond_stage_key": "depth", "cond_stage_config": tokenizer_node(MAP_CODES)},
        "segmentation": {"cond_stage_key": "segmentation", "cond_stage_config": tokenizer_node(
            MAP_CODES, "taming.models.vqgan.VQSegmentationModel")},
        "coordinates": {"cond_stage_key": "coord", "cond_stage_config": coordinate_node()}}
    gpt = {"vocab_size": VOCABULARY, "block_size": 20, "n_layer": LAYERS, "n_head": HEADS,
           "n_embd": WIDTH}
    return {"model": {
        "base_learning_rate": 4.5e-6, "target": "taming.models.cond_transformer.Net2NetTransformer",
        "params": {"first_stage_key": "image", "transformer_config": {
            "target": "taming.modules.transformer.mingpt.GPT", "params": gpt},
            "first_stage_config": tokenizer_node(CODEBOOK), **conditions[kind], **params}}}


def llamagen_state() -> State:
    """A class-conditional GPT of LlamaGen."""
    hidden = 256
    shapes: dict[str, tuple[int, ...]] = {
        "cls_embedding.embedding_table.weight": (CLASSES + 1, WIDTH),
        "tok_embeddings.weight": (VOCABULARY, WIDTH), "norm.weight": (WIDTH,),
        "output.weight": (VOCABULARY, WIDTH)}
    for layer in range(LAYERS):
        block = f"layers.{layer}."
        shapes |= {f"{block}attention_norm.weight": (WIDTH,), f"{block}ffn_norm.weight": (WIDTH,),
                   f"{block}attention.wqkv.weight": (3 * WIDTH, WIDTH),
                   f"{block}attention.wo.weight": (WIDTH, WIDTH),
                   f"{block}feed_forward.w1.weight": (hidden, WIDTH),
                   f"{block}feed_forward.w3.weight": (hidden, WIDTH),
                   f"{block}feed_forward.w2.weight": (WIDTH, hidden)}
    return draw(shapes)


def llamagen_scores(state: State, labels: Tensor, codes: Tensor) -> Tensor:
    """Scores ``(B, 1 + k, V)`` of labels ``(B,)`` and codes ``(B, k)``."""
    def norm(inputs: Tensor, name: str) -> Tensor:
        scale = torch.rsqrt(inputs.square().mean(-1, keepdim=True) + 1e-5)
        return inputs * scale * state[f"{name}.weight"]
    given = state["cls_embedding.embedding_table.weight"][labels][:, None]
    hidden = torch.cat([given, state["tok_embeddings.weight"][codes]], 1)
    turns = llamagen_turns()[:hidden.shape[1]]
    for layer in range(LAYERS):
        block = f"layers.{layer}"
        packed = norm(hidden, f"{block}.attention_norm") @ state[
            f"{block}.attention.wqkv.weight"].T
        query, key, value = (heads(part.contiguous()) for part in packed.split(WIDTH, -1))
        mixed = attend(turned(query, turns), turned(key, turns), value)
        hidden = hidden + mixed @ state[f"{block}.attention.wo.weight"].T
        inputs = norm(hidden, f"{block}.ffn_norm")
        gate, up, down = (state[f"{block}.feed_forward.{name}.weight"].T
                          for name in ("w1", "w3", "w2"))
        hidden = hidden + (F.silu(inputs @ gate) * (inputs @ up)) @ down
    return norm(hidden, "norm") @ state["output.weight"].T


def llamagen_turns() -> Tensor:
    """Complex factors ``(1 + n, D / 2)``: zero for the label, then by row and by column."""
    quarter = WIDTH // HEADS // 4
    rates = 10000.0 ** -(torch.arange(quarter) * 2 / (2 * quarter))
    factors = [torch.zeros(1, 2 * quarter, dtype=torch.complex64)]
    for cell in range(NUM_CODES):
        angles = torch.cat([cell // SIDE * rates, cell % SIDE * rates])
        factors.append(torch.polar(torch.ones_like(angles), angles)[None])
    return torch.cat(factors)


def turned(inputs: Tensor, turns: Tensor) -> Tensor:
    """Neighbouring channels of ``(B, N, T, D)`` as complex numbers, times ``turns``."""
    pairs = torch.view_as_complex(inputs.reshape(*inputs.shape[:-1], -1, 2).contiguous())
    return torch.view_as_real(pairs * turns).flatten(-2)
