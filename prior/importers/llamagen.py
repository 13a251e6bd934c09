"""Class-conditional priors of FoundationVision/LlamaGen: ``.pt`` files, GPT-B to GPT-XXL.

The file does not say how many codes an image has: the tokenizer does. Heads follow from the width,
as in the published sizes; a config with ``n_head`` says it for others.

Queries and keys are stored so that neighbouring channels turn together, `(d, d + 1)`; here
`(d, d + D/2)` do, so rows change places, which changes no score.

Letters: C width, N heads, D = C / N.
"""
import re
from typing import ClassVar

import torch
from torch import Tensor

from prior.importers.base import (
    ImportedPrior,
    PriorGivens,
    PriorImporter,
    count_layers,
    require,
    require_codes,
)
from prior.model import Condition, PriorConfig
from prior.sequence import LABEL, SequenceLayout
from prior.transformer import TransformerConfig
from tokenizer.importers.source import (
    Source,
    Tensors,
    alike,
    computed,
    first_rows,
    has,
    packed,
    renamed,
)
from tokenizer.schema import UNKNOWN, TokenSpec

HEADS = {768: 12, 1024: 16, 1280: 20, 1536: 24, 2560: 40, 2048: 32, 3200: 32, 4096: 32}
"""Width of each published size, and its heads."""

DROPOUT = 0.1
"""How often the published training left the label out."""

NAMES = ((r"^layers\.(\d+)\.attention_norm\.", r"blocks.\1.norm_attention."),
         (r"^layers\.(\d+)\.ffn_norm\.", r"blocks.\1.norm_feed_forward."),
         (r"^layers\.(\d+)\.attention\.wqkv\.", r"blocks.\1.attention.qkv."),
         (r"^layers\.(\d+)\.attention\.wo\.", r"blocks.\1.attention.out."),
         (r"^layers\.(\d+)\.feed_forward\.w2\.", r"blocks.\1.feed_forward.down."))
"""Names in the published file, and ours."""

LABELS, CODES, OUTPUT = ("cls_embedding.embedding_table.weight", "tok_embeddings.weight",
                         "output.weight")


class LlamaGenPriorImporter(PriorImporter):
    """Priors of ImageNet's classes."""
    name: ClassVar[str] = "llamagen"
    description: ClassVar[str] = "LlamaGen: class-conditional GPT"

    def recognises(self, source: Source) -> bool:
        return has(source.tensors, r"layers\.0\.attention\.wqkv\.")

    def convert(self, source: Source, givens: PriorGivens) -> ImportedPrior:
        if has(source.tensors, r"cls_embedding\.(cap_proj|uncond_embedding)"):
            raise ValueError(f"{source.url} is conditioned on text; known are priors conditioned "
                             "on the class")
        if "image" not in givens.specs:
            raise ValueError(f"{source.url} does not say how many codes an image has: give the "
                             "tokenizer that it was trained on (--tokenizer)")
        require(source, dict.fromkeys((LABELS, CODES, OUTPUT), 2))
        if source.tensors[LABELS].shape[1] != source.tensors[CODES].shape[1]:
            raise ValueError(f"{source.url} holds {LABELS} of another width than {CODES}: the file "
                             "is not whole, or of another kind of prior")
        num_classes = source.tensors[LABELS].shape[0] - 1
        config = PriorConfig(
            spec=TokenSpec(codes=(givens.specs["image"],)), corpus=UNKNOWN, sequence="llamagen",
            classes=givens.class_names(num_classes), drop_all=0.0,
            conditions=(Condition(name=LABEL, dropout=DROPOUT),), transformer=_shape(source))
        require_codes(source, config.layout.target, source.tensors[CODES].shape[0])
        return ImportedPrior(config=config, dropped={}, notes=(
            f"{num_classes} classes, and one row that stands for none",),
            tensors=_tensors(source.tensors, config.layout, config.transformer.num_heads))


def _shape(source: Source) -> TransformerConfig:
    width = source.tensors[CODES].shape[1]
    num_layers = count_layers(source, r"layers\.(\d+)\.")
    num_heads = source.settings.get("n_head", HEADS.get(width))
    if not isinstance(num_heads, int):
        raise ValueError(f"{source.url} is {width} wide, which none of the published sizes is: say "
                         "its number of heads in a config, n_head: N (--config)")
    return TransformerConfig(num_layers=num_layers, width=width, num_heads=num_heads, qk_norm=False,
                             both_ways=False, blocks="llamagen")


def _tensors(found: Tensors, layout: SequenceLayout, num_heads: int) -> Tensors:
    """The tensors by our names."""
    tensors = renamed(found, NAMES)
    for name in list(tensors):
        if name.endswith("attention.qkv.weight"):
            stored = tensors[name]
            tensors[name] = computed(stored, stored.shape, lambda rows: paired(rows, num_heads))
        gate = re.fullmatch(r"layers\.(\d+)\.feed_forward\.w1\.weight", name)
        if gate and alike(tensors, (name, up := name.replace("w1", "w3"))):
            tensors[f"blocks.{gate[1]}.feed_forward.gate_and_up.weight"] = packed(
                [tensors.pop(name), tensors.pop(up)])
    labels, codes, head = (tensors.pop(name) for name in (LABELS, CODES, OUTPUT))
    tensors["codes.weight"] = packed([labels, first_rows(codes, layout.target.vocabulary)])
    tensors["head.weight"] = first_rows(head, layout.target.vocabulary)
    return tensors


def paired(rows: Tensor, num_heads: int) -> Tensor:
    """Rows ``(3 C, C)`` of queries, keys and values, the first two in our order of channels."""
    width = rows.shape[1]
    turned = rows[:2 * width].view(2 * num_heads, -1, 2, width).transpose(1, 2)
    return torch.cat([turned.reshape(2 * width, width), rows[2 * width:]])
