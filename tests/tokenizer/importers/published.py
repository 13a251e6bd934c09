"""Published tokenizers, independently: their tensors by documented names, and what they compute.

A layout is a dict of shapes by the names that a published program uses; `draw` fills it with random
numbers. `encode` and `decode` are the published forward passes in plain functions of torch over
such a dict, and share nothing with the network of this project.
"""
import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tokenizer.importers.pickles import Stored

Shapes = dict[str, tuple[int, ...]]
State = dict[str, Tensor]


@dataclass(frozen=True)
class Network:
    """Sizes of a published network; the defaults are small."""
    width: int = 32
    multipliers: tuple[int, ...] = (1, 2)
    blocks: int = 2
    attention: tuple[int, ...] = (1,)
    middle_attention: bool = True
    z: int = 6
    code_dim: int = 4
    codes: int = 24
    channels: int = 3

    @property
    def levels(self) -> int:
        return len(self.multipliers)

    @property
    def widths(self) -> list[int]:
        return [self.width * multiplier for multiplier in self.multipliers]


@dataclass(frozen=True)
class Naming:
    """How a program names levels (of side, level and their number), blocks and the middle."""
    level: Callable[[str, int, int], str]
    block: str
    middle: tuple[str, str, str]


TAMING = Naming(
    level=lambda side, level, _: f"{side}.{'down' if side == 'encoder' else 'up'}.{level}",
    block="block", middle=("mid.block_1", "mid.attn_1", "mid.block_2"))
LLAMAGEN = Naming(
    level=lambda side, level, count: (f"{side}.conv_blocks."
                                      f"{level if side == 'encoder' else count - 1 - level}"),
    block="res", middle=("mid.0", "mid.1", "mid.2"))

F16 = Network(128, (1, 1, 2, 2, 4), attention=(4,), z=256, code_dim=256, codes=1024)


def _layer(name: str, out: int, inner: int, side: int = 3, bias: bool = True) -> Shapes:
    shapes: Shapes = {f"{name}.weight": (out, inner, side, side)}
    return shapes | ({f"{name}.bias": (out,)} if bias else {})


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _residual(name: str, inner: int, out: int) -> Shapes:
    shortcut = _layer(f"{name}.nin_shortcut", out, inner, 1) if inner != out else {}
    return {**_norm(f"{name}.norm1", inner), **_layer(f"{name}.conv1", out, inner),
            **_norm(f"{name}.norm2", out), **_layer(f"{name}.conv2", out, out), **shortcut}


def _attention(name: str, width: int) -> Shapes:
    shapes = _norm(f"{name}.norm", width)
    for part in ("q", "k", "v", "proj_out"):
        shapes |= _layer(f"{name}.{part}", width, width, 1)
    return shapes


def _middle(naming: Naming, side: str, net: Network) -> Shapes:
    top = net.widths[-1]
    first, attention, second = (f"{side}.{name}" for name in naming.middle)
    between = _attention(attention, top) if net.middle_attention else {}
    return {**_residual(first, top, top), **between, **_residual(second, top, top)}


def _side(naming: Naming, side: str, net: Network) -> Shapes:
    """Levels in the order in which they run."""
    encodes, shapes = side == "encoder", {}
    order = range(net.levels) if encodes else reversed(range(net.levels))
    inner = net.width if encodes else net.widths[-1]
    for level in order:
        name, out = naming.level(side, level, net.levels), net.widths[level]
        for block in range(net.blocks + (not encodes)):
            shapes |= _residual(f"{name}.{naming.block}.{block}", inner, out)
            inner = out
            if level in net.attention:
                shapes |= _attention(f"{name}.attn.{block}", out)
        if encodes and level < net.levels - 1:
            shapes |= _layer(f"{name}.downsample.conv", out, out)
        if not encodes and level:
            shapes |= _layer(f"{name}.upsample.conv", out, out)
    return shapes


def layout(naming: Naming, net: Network, gumbel: bool = False) -> Shapes:
    """Shapes of a VQGAN by the names of a program."""
    top, bottom = net.widths[-1], net.widths[0]
    quantizer: Shapes = {"quantize.embedding.weight": (net.codes, net.code_dim)}
    if gumbel:
        quantizer = {**_layer("quantize.proj", net.codes, net.z, 1),
                     "quantize.embed.weight": (net.codes, net.code_dim)}
    return {**_layer("encoder.conv_in", net.width, net.channels), **_side(naming, "encoder", net),
            **_middle(naming, "encoder", net), **_norm("encoder.norm_out", top),
            **_layer("encoder.conv_out", net.z, top),
            **_layer("decoder.conv_in", top, net.z), **_middle(naming, "decoder", net),
            **_side(naming, "decoder", net), **_norm("decoder.norm_out", bottom),
            **_layer("decoder.conv_out", net.channels, bottom), **quantizer,
            **_layer("quant_conv", net.code_dim, net.z, 1),
            **_layer("post_quant_conv", net.z, net.code_dim, 1)}


def maskgit_layout(net: Network) -> Shapes:
    """Shapes of open-muse's ``MaskGitVQGAN``."""
    def block(name: str, inner: int, out: int) -> Shapes:
        shortcut = _layer(f"{name}.nin_shortcut", out, out, 1, False) if inner != out else {}
        return {**_norm(f"{name}.norm1", inner), **_layer(f"{name}.conv1", out, inner, 3, False),
                **_norm(f"{name}.norm2", out), **_layer(f"{name}.conv2", out, out, 3, False),
                **shortcut}
    top, bottom = net.widths[-1], net.widths[0]
    shapes = {**_layer("encoder.conv_in", net.width, 3, 3, False),
              **_norm("encoder.norm_out", top), **_layer("encoder.conv_out", net.z, top, 1),
              **_layer("decoder.conv_in", top, net.z), **_norm("decoder.norm_out", bottom),
              **_layer("decoder.conv_out", 3, bottom),
              "quantize.embedding.weight": (net.codes, net.code_dim)}
    for index in range(net.blocks):
        shapes |= block(f"encoder.mid.{index}", top, top) | block(f"decoder.mid.{index}", top, top)
        for level, out in enumerate(net.widths):
            below, above = [net.width, *net.widths][level], [*net.widths, top][level + 1]
            shapes |= block(f"encoder.down.{level}.block.{index}", out if index else below, out)
            shapes |= block(f"decoder.up.{level}.block.{index}", out if index else above, out)
            if level:
                shapes |= _layer(f"decoder.up.{level}.upsample_conv", out, out)
    return shapes


def draw(shapes: Shapes, seed: int = 0) -> State:
    """Random tensors whose activations stay of size 1 and whose codes are many."""
    generator, state = torch.Generator().manual_seed(seed), {}
    for name, shape in shapes.items():
        numbers = torch.randn(shape, generator=generator)
        if "norm" in name:
            state[name] = 0.2 * numbers + (1 if name.endswith("weight") else 0)
        elif name.endswith("bias"):
            state[name] = 0.1 * numbers
        else:
            fan = 1 if name.startswith("quantize.emb") else numbers[0].numel()
            state[name] = numbers * fan ** -0.5
    state["decoder.conv_out.weight"] *= 0.4  # most pixels inside the range
    return state


def undrawn(shapes: Shapes) -> dict[str, Stored]:
    """Tensors of a file that nobody may read: for what shapes alone decide."""
    def read() -> Tensor:
        raise AssertionError("a tensor was read")
    return {name: Stored(shape, read) for name, shape in shapes.items()}


def conv(state: State, name: str, x: Tensor, stride: int = 1) -> Tensor:
    weight = state[f"{name}.weight"]
    padding = weight.shape[-1] // 2 if stride == 1 else 0
    return F.conv2d(x, weight, state.get(f"{name}.bias"), stride, padding)


def normed(state: State, name: str, x: Tensor) -> Tensor:
    return F.group_norm(x, 32, state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)


def swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def residual(state: State, name: str, x: Tensor, maskgit: bool = False) -> Tensor:
    hidden = conv(state, f"{name}.conv1", swish(normed(state, f"{name}.norm1", x)))
    hidden = conv(state, f"{name}.conv2", swish(normed(state, f"{name}.norm2", hidden)))
    if f"{name}.nin_shortcut.weight" in state:
        x = conv(state, f"{name}.nin_shortcut", hidden if maskgit else x)
    return x + hidden


def attend(state: State, name: str, x: Tensor) -> Tensor:
    hidden = normed(state, f"{name}.norm", x)
    q, k, v = (conv(state, f"{name}.{part}", hidden).flatten(2) for part in "qkv")
    weights = torch.softmax(torch.bmm(q.transpose(1, 2), k) * q.shape[1] ** -0.5, dim=2)
    attended = torch.bmm(v, weights.transpose(1, 2)).reshape(x.shape)
    return x + conv(state, f"{name}.proj_out", attended)


def _run_level(state: State, name: str, block: str, x: Tensor, maskgit: bool) -> Tensor:
    index = 0
    while f"{name}.{block}.{index}.conv1.weight" in state:
        x = residual(state, f"{name}.{block}.{index}", x, maskgit)
        if f"{name}.attn.{index}.q.weight" in state:
            x = attend(state, f"{name}.attn.{index}", x)
        index += 1
    if f"{name}.downsample.conv.weight" in state:
        x = conv(state, f"{name}.downsample.conv", F.pad(x, (0, 1, 0, 1)), stride=2)
    for upsample in (f"{name}.upsample.conv", f"{name}.upsample_conv"):
        if f"{upsample}.weight" in state:
            x = conv(state, upsample, F.interpolate(x, scale_factor=2.0, mode="nearest"))
    return x


def _run_middle(state: State, names: list[str], x: Tensor, maskgit: bool) -> Tensor:
    for name in names:
        if f"{name}.conv1.weight" in state:
            x = residual(state, name, x, maskgit)
        elif f"{name}.q.weight" in state:
            x = attend(state, name, x)
    return x


def _finish(state: State, side: str, x: Tensor) -> Tensor:
    return conv(state, f"{side}.conv_out", swish(normed(state, f"{side}.norm_out", x)))


def latents_of(state: State, naming: Naming, net: Network, x: Tensor,
               maskgit: bool = False) -> Tensor:
    """Latents ``(B, C, h, w)`` of inputs, as the published encoder has them."""
    x = conv(state, "encoder.conv_in", x)
    for level in range(net.levels):
        x = _run_level(state, naming.level("encoder", level, net.levels), naming.block, x, maskgit)
        if maskgit and level < net.levels - 1:
            x = F.avg_pool2d(x, kernel_size=2, stride=2)
    x = _run_middle(state, [f"encoder.{name}" for name in naming.middle], x, maskgit)
    x = _finish(state, "encoder", x)
    return x if maskgit else conv(state, "quant_conv", x)


def image_of(state: State, naming: Naming, net: Network, quantized: Tensor,
             maskgit: bool = False) -> Tensor:
    """Outputs of the published decoder for latents ``(B, C, h, w)`` of codes."""
    x = quantized if maskgit else conv(state, "post_quant_conv", quantized)
    x = conv(state, "decoder.conv_in", x)
    x = _run_middle(state, [f"decoder.{name}" for name in naming.middle], x, maskgit)
    for level in reversed(range(net.levels)):
        x = _run_level(state, naming.level("decoder", level, net.levels), naming.block, x, maskgit)
    return _finish(state, "decoder", x)


def nearest(latents: Tensor, codebook: Tensor) -> Tensor:
    """Codes ``(B, h, w)``: least squared distance by its expansion, as published."""
    flat = latents.permute(0, 2, 3, 1).reshape(-1, latents.shape[1])
    distances = (flat.square().sum(1, keepdim=True) + codebook.square().sum(1)
                 - 2 * flat @ codebook.T)
    return distances.argmin(1).reshape(latents.shape[0], *latents.shape[2:])


def entries_of(codebook: Tensor, codes: Tensor) -> Tensor:
    """Latents ``(B, C, h, w)`` of codes ``(B, h, w)``."""
    return codebook[codes].permute(0, 3, 1, 2)


def maskgit_naming() -> Naming:
    """open-muse's names: the middle is a list of blocks alone."""
    return Naming(level=TAMING.level, block="block", middle=("mid.0", "mid.1", "mid.2"))


def without_prefix(state: State, prefix: str) -> State:
    return {re.sub(rf"^{re.escape(prefix)}", "", name): tensor for name, tensor in state.items()}
