"""Priors of CompVis/taming-transformers: ``Net2NetTransformer``, a Lightning ``.ckpt`` with YAML.

The config says how many heads there are and what the prior is given, which tensors do not tell: so
it is needed. Scores are the published ones for the codes of the tokenizers; ids beyond them, and
positions beyond the sequence, are left out.

Letters: L positions of a sequence, C width, K codebook size of the images.
"""
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, ClassVar

from prior.importers.base import (
    ImportedPrior,
    PriorGivens,
    PriorImporter,
    count_layers,
    require,
    require_codes,
)
from prior.model import Condition, PriorConfig
from prior.sequence import COORDINATES, LABEL, SequenceLayout
from prior.transformer import TransformerConfig
from tokenizer.importers.source import (
    Source,
    Tensors,
    alike,
    below,
    check_settings,
    computed,
    first_rows,
    has,
    packed,
    params_of,
    renamed,
    target_of,
    without,
)
from tokenizer.schema import UNKNOWN, CodeSpec, TokenSpec

PRIOR = "taming.models.cond_transformer.Net2NetTransformer"
GPT = "taming.modules.transformer.mingpt.GPT"
LABELS = "taming.modules.util.Labelator"
IDENTITY = "taming.modules.transformer.permuter.Identity"
TOKENIZERS = ("taming.models.vqgan.VQModel", "taming.models.vqgan.VQNoDiscModel",
              "taming.models.vqgan.VQSegmentationModel", "taming.models.vqgan.GumbelVQ")
"""What configs call their parts; what they call otherwise is refused."""

COORDINATE_STAGE = "taming.modules.misc.coord.CoordStage"

MODALITIES = {"depth": "depth", "segmentation": "segmentation"}
"""What configs call their maps, and our modalities."""

NAMES = ((r"^blocks\.(\d+)\.ln1\.", r"blocks.\1.norm_attention."),
         (r"^blocks\.(\d+)\.ln2\.", r"blocks.\1.norm_feed_forward."),
         (r"^blocks\.(\d+)\.attn\.proj\.", r"blocks.\1.attention.out."),
         (r"^blocks\.(\d+)\.mlp\.0\.", r"blocks.\1.feed_forward.up."),
         (r"^blocks\.(\d+)\.mlp\.2\.", r"blocks.\1.feed_forward.down."),
         (r"^ln_f\.", "norm."))
"""Names in the published file, and ours."""

MASKS = (r"blocks\.\d+\.attn\.mask$",)
"""What the file keeps of each block that is no parameter: which positions see which."""

CODES, POSITIONS, HEAD = "tok_emb.weight", "pos_emb", "head.weight"
SHAPE = {f"transformer.{CODES}": 2, f"transformer.{POSITIONS}": 3, f"transformer.{HEAD}": 2}
"""Tensors from which the shape is read, and their dimensions."""


class TamingPriorImporter(PriorImporter):
    """Class-conditional, unconditional, and conditioned on depth, segmentation or coordinates."""
    name: ClassVar[str] = "taming"
    description: ClassVar[str] = "taming-transformers: Net2NetTransformer"

    def recognises(self, source: Source) -> bool:
        return has(source.tensors, r"transformer\.blocks\.0\.attn\.query\.")

    def convert(self, source: Source, givens: PriorGivens) -> ImportedPrior:
        params = _params(source)
        require(source, SHAPE)
        config = _config(source, params, givens)
        found, masks = without(below(source.tensors, "transformer"), MASKS)
        dropped = Counter(name.split(".")[0] for name in source.tensors
                          if not name.startswith("transformer."))
        if masks:
            dropped["masks"] = sum(masks.values())
        start = None if config.conditions else _start(params, found)
        return ImportedPrior(config=config, dropped=dict(sorted(dropped.items())),
                             tensors=_tensors(found, config.layout, start),
                             notes=_notes(found, config.layout, start))


def _params(source: Source) -> Mapping[str, Any]:
    """The settings of the prior, all of whose parts this program knows.

    Raises:
        ValueError: there is no config, or it names what cannot be expressed here.
    """
    target, params = target_of(source.settings), params_of(source.settings)
    if target != PRIOR:
        raise ValueError(f"{source.url} needs the config of its {PRIOR}, which says how many heads "
                         f"it has and what it is given (--config); got {target or 'none'}")
    permuter = params.get("permuter_config") or {"target": IDENTITY}
    order = permuter.get("target") if isinstance(permuter, Mapping) else permuter
    if order != IDENTITY or has(source.tensors, r"permuter\."):
        raise ValueError(f"the order of the codes is {order}; this program draws them row by row")
    gpt = _node(params, "transformer_config")
    if gpt.get("target", GPT) != GPT:
        raise ValueError(f"the transformer is {gpt['target']}; known is {GPT}")
    if _params_of(gpt).get("n_unmasked", 0):
        raise ValueError(f"n_unmasked is {_params_of(gpt)['n_unmasked']}: priors whose first "
                         "positions see each other both ways cannot be imported")
    if params.get("downsample_cond_size", -1) != -1:
        raise ValueError(f"downsample_cond_size is {params['downsample_cond_size']}: conditions "
                         "that are made smaller before they are encoded cannot be imported")
    return params


def _config(source: Source, params: Mapping[str, Any], givens: PriorGivens) -> PriorConfig:
    """Our config of the prior, held against its tensors."""
    vocabulary, width = source.tensors[f"transformer.{CODES}"].shape
    rows, block, _ = source.tensors[f"transformer.{POSITIONS}"].shape
    if rows != 1:
        raise ValueError(f"{source.url} holds {rows} tables of positions, not one")
    num_layers = count_layers(source, r"transformer\.blocks\.(\d+)\.")
    said = _params_of(_node(params, "transformer_config"))
    check_settings(said, {"vocab_size": vocabulary, "n_embd": width, "n_layer": num_layers,
                          "block_size": block}, source.url)
    target = givens.specs.get("image") or _spec("image", _node(params, "first_stage_config"))
    conditions, classes, maps = _conditions(params, givens, target)
    config = PriorConfig(
        spec=TokenSpec(codes=(target, *maps)), corpus=UNKNOWN, classes=classes, sequence="taming",
        conditions=conditions, drop_all=0.0,
        transformer=TransformerConfig(num_layers=num_layers, width=width, blocks="mingpt",
                                      num_heads=_number(said, "n_head"), qk_norm=False,
                                      rotary=False, both_ways=False))
    for segment in config.layout.segments:
        require_codes(source, segment, vocabulary)
    if config.layout.length > block:
        raise ValueError(f"a sequence has {config.layout.length} positions, but {source.url} is "
                         f"for {block}: give the tokenizers that this prior was trained on")
    return config


def _conditions(params: Mapping[str, Any], givens: PriorGivens, target: CodeSpec,
                ) -> tuple[tuple[Condition, ...], tuple[str, ...], tuple[CodeSpec, ...]]:
    """What the prior is given: one condition or none, names of classes, and the codes of a map."""
    node, key = params.get("cond_stage_config"), str(params.get("cond_stage_key", "depth"))
    if params.get("unconditional") or node == "__is_unconditional__":
        return (), (), ()
    kind = node.get("target") if isinstance(node, Mapping) else node
    if isinstance(node, Mapping) and kind == LABELS:
        names = givens.class_names(_number(_params_of(node), "n_classes"))
        return (Condition(name=LABEL, dropout=0.0),), names, ()
    if isinstance(node, Mapping) and kind == COORDINATE_STAGE:
        return (_coordinates(_params_of(node), target),), (), ()
    if isinstance(node, Mapping) and kind in TOKENIZERS and key in MODALITIES:
        name = MODALITIES[key]
        codes = givens.specs.get(name) or _spec(name, node)
        return (Condition(name=name, dropout=0.0),), (), (codes,)
    raise ValueError(f"this prior is given {key} by {kind}; known are labels ({LABELS}), "
                     f"coordinates ({COORDINATE_STAGE}), none, and {' and '.join(MODALITIES)} by a "
                     "tokenizer")


def _coordinates(params: Mapping[str, Any], target: CodeSpec) -> Condition:
    """Coordinates, a code for each cell of the images."""
    cell, sides = _number(params, "down_factor"), zip(target.image_size, target.grid, strict=True)
    if any(pixels != cell * count for pixels, count in sides):
        raise ValueError(f"coordinates have a code for each {cell} pixels of a side (down_factor), "
                         f"but the images are {target.grid} codes of {target.image_size} pixels: "
                         "give the tokenizer that this prior was trained on")
    return Condition(name=COORDINATES, dropout=0.0, levels=_number(params, "n_embed"))


def _spec(modality: str, node: Mapping[str, Any]) -> CodeSpec:
    """The codes of a tokenizer that is not given, as the prior's config describes it."""
    params = _params_of(node)
    shape = params.get("ddconfig")
    if not isinstance(shape, Mapping) or not isinstance(shape.get("ch_mult"), list | tuple):
        raise ValueError(f"the config does not describe the tokenizer of {modality} (n_embed, and "
                         "resolution and ch_mult of its ddconfig): give it with --tokenizer")
    side = _number(shape, "resolution")
    cells = side >> (len(shape["ch_mult"]) - 1)
    return CodeSpec(modality=modality, grid=(cells, cells), image_size=(side, side),
                    codebook_size=_number(params, "n_embed"), tokenizer=UNKNOWN, precision=UNKNOWN)


def _start(params: Mapping[str, Any], found: Tensors) -> int:
    """The code that a prior without conditions starts with."""
    start = params.get("sos_token", 0)
    if not isinstance(start, int) or not 0 <= start < found[CODES].shape[0]:
        raise ValueError(f"sos_token is {start}, but there are {found[CODES].shape[0]} codes: give "
                         "the config that belongs to this file")
    return start


def _tensors(found: Tensors, layout: SequenceLayout, start: int | None) -> Tensors:
    """The transformer's tensors by our names.

    Args:
        start: number of the code that a prior without conditions starts with.
    """
    tensors = renamed(found, NAMES)
    for name in [name for name in tensors if re.search(r"\.attn\.query\.(weight|bias)$", name)]:
        names = [name.replace("query", part) for part in ("query", "key", "value")]
        if alike(tensors, names):
            joined = name.replace("attn.query", "attention.qkv")
            tensors[joined] = packed([tensors.pop(part) for part in names])
    codes, positions = tensors.pop(CODES), tensors.pop(POSITIONS)
    tensors["codes.weight"] = first_rows(codes, layout.num_ids)
    if start is not None:
        row = computed(codes, (1, codes.shape[1]), lambda rows: rows[start:start + 1])
        tensors["codes.weight"] = packed([first_rows(codes, layout.num_ids - 1), row])
    tensors["positions.weight"] = computed(positions, (layout.length, positions.shape[2]),
                                           lambda rows: rows[0, :layout.length])
    tensors["head.weight"] = first_rows(tensors.pop(HEAD), layout.target.vocabulary)
    return tensors


def _notes(found: Tensors, layout: SequenceLayout, start: int | None) -> tuple[str, ...]:
    notes = []
    vocabulary, block = found[CODES].shape[0], found[POSITIONS].shape[1]
    if start is not None:
        notes.append(f"the start token is code {start}, and has a row of its own")
    if vocabulary > layout.target.vocabulary:
        notes.append(f"of {vocabulary} scores those of the image's {layout.target.vocabulary} "
                     "codes are kept; the published program could draw the others too")
    if block > layout.length:
        notes.append(f"of {block} positions the {layout.length} of its sequences are kept")
    return tuple(notes)


def _node(params: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    node = params.get(name)
    if not isinstance(node, Mapping):
        raise ValueError(f"the config has no {name}, but {node!r}: give the prior's whole config")
    return node


def _params_of(node: Mapping[str, Any]) -> Mapping[str, Any]:
    return params_of({"model": node})


def _number(params: Mapping[str, Any], name: str) -> int:
    value = params.get(name)
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"the config says {name} {value!r}, not a number of at least 1: give the "
                         "prior's whole config")
    return value
