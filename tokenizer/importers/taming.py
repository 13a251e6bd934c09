"""Checkpoints of CompVis/taming-transformers: ``.ckpt`` with a YAML config, and those like them.

Our parameters have their names, so tensors come over as they are. A checkpoint of a prior holds its
tokenizers too, under ``first_stage_model`` and ``cond_stage_model``.

With ``remap``, the published quantizer renumbers the codes that occurred and draws a random number
for others. Here the codebook keeps the entries that occurred, in that order: codes are the same
where the published ones are certain, and the nearest of these entries instead of a random one
elsewhere. For Gumbel quantizers, which choose among these entries alone, all codes are the same.
"""
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from tokenizer.importers import shapes
from tokenizer.importers.base import (
    ImportedTokenizer,
    ImportOptions,
    TokenizerImporter,
    modality_settings,
    require_no_stage,
)
from tokenizer.importers.pickles import Stored
from tokenizer.importers.source import (
    Source,
    Tensors,
    below,
    check_settings,
    computed,
    count_in,
    has,
    number_in,
    params_of,
    settings_in,
    target_of,
    without,
)
from tokenizer.vqgan.model import VQGANConfig

if TYPE_CHECKING:
    from torch import Tensor

TRAINING = (r"loss\.", r"colorize$", r"model_ema\.", r"quantize\.temperature$")
"""What tensors for training alone are called."""

STAGES = {"first": ("first_stage_model", "first_stage_config"),
          "condition": ("cond_stage_model", "cond_stage_config")}
"""Per stage of a prior its room in the checkpoint, and its part of the config."""

UNSUPPORTED = {"double_z": False, "tanh_out": False, "give_pre_end": False,
               "resamp_with_conv": True, "use_linear_attn": False, "use_3d_conv": False}
"""Settings of the autoencoder that this program has only with these values."""

TOKENIZERS = {"taming.models.vqgan.VQModel": "classic",
              "taming.models.vqgan.VQNoDiscModel": "classic",
              "taming.models.vqgan.VQSegmentationModel": "classic",
              "taming.models.vqgan.GumbelVQ": "gumbel"}
"""What configs call their tokenizers, and our kind of quantizer."""

PRIORS = ("taming.models.cond_transformer.Net2NetTransformer",)
"""What configs call the priors whose checkpoints hold tokenizers."""


class TamingImporter(TokenizerImporter):
    """The published VQGAN.

    Attributes:
        tokenizers: names of models in configs, and the kind of quantizer that each is.
        priors: names of models whose checkpoints hold a tokenizer.
    """
    name: ClassVar[str] = "taming"
    description: ClassVar[str] = "taming-transformers: VQModel, GumbelVQ, VQSegmentationModel"
    tokenizers: ClassVar[Mapping[str, str]] = TOKENIZERS
    priors: ClassVar[tuple[str, ...]] = PRIORS

    def recognises(self, source: Source) -> bool:
        return (has(source.tensors, r"((first|cond)_stage_model\.)?encoder\.down\.0\.block\.0\.")
                and has(source.tensors, r".*encoder\.conv_in\.bias$")
                and target_of(source.settings) in {None, *self.tokenizers, *self.priors})

    def convert(self, source: Source, options: ImportOptions) -> ImportedTokenizer:
        target, params, room = self._tokenizer(source, options)
        tensors, dropped = _of_tokenizer(source, room)
        kind = "gumbel" if has(tensors, r"quantize\.embed\.weight") else "classic"
        if target is not None and self.tokenizers[target] != kind:
            raise ValueError(f"the config says {target}, but the quantizer of {source.url} is of "
                             f"kind {kind}: give the config that belongs to this file")
        said = settings_in(params, "ddconfig")
        _check_supported(said)
        tensors, notes = _remapped(tensors)
        side = options.image_size or count_in(said, "resolution", 256)
        config = VQGANConfig(
            modality=_modality(shapes.channels(tensors)[0], params, options),
            image_size=(side, side), quantizer=shapes.read_quantizer(tensors, kind),
            autoencoder=shapes.read_autoencoder(tensors, dropout=number_in(said, "dropout", 0.0)))
        _check_config(source.url, config, tensors, params, remapped=bool(notes))
        return ImportedTokenizer(config=config, tensors=tensors, dropped=dropped,
                                 notes=(*notes, *_notes(source, kind)))

    def _tokenizer(self, source: Source,
                   options: ImportOptions) -> tuple[str | None, Mapping[str, Any], str]:
        """Name of the model in the config, its settings, and its room in the checkpoint."""
        room, part = STAGES[options.stage]
        target, params = target_of(source.settings), params_of(source.settings)
        if target in self.priors:
            node = params.get(part)
            if not isinstance(node, Mapping):
                raise ValueError(f"the prior's config has no tokenizer as {part}, but {node!r}")
            target, params = target_of({"model": node}), params_of({"model": node})
        elif target is not None or has(source.tensors, r"encoder\.conv_in\."):
            require_no_stage(source, options)
            room = ""
        if target is not None and target not in self.tokenizers:
            raise ValueError(f"a model {target} is not known as a {self.name} tokenizer; known are "
                             f"{', '.join(self.tokenizers)}")
        return target, params, room


def _of_tokenizer(source: Source, room: str) -> tuple[Tensors, dict[str, int]]:
    """The tensors of the tokenizer in a room of the checkpoint, and how many others there are."""
    found = below(source.tensors, room) if room else source.tensors
    if not found:
        raise ValueError(f"{source.url} holds no tensors under {room}: the stage is not a "
                         "tokenizer, or the config is another model's")
    tensors, dropped = without(found, TRAINING)
    if rest := len(source.tensors) - len(found):
        dropped[f"not of {room}"] = rest
    return tensors, dropped


def _check_config(url: str, config: VQGANConfig, tensors: Tensors, params: Mapping[str, Any],
                  remapped: bool) -> None:
    """Refuse a config that is another model's."""
    shape, quantizer = config.autoencoder, config.quantizer
    in_channels, out_channels = shapes.channels(tensors)
    check_settings(settings_in(params, "ddconfig"), {
        "ch": shape.width, "ch_mult": shape.channel_multipliers, "in_channels": in_channels,
        "out_ch": out_channels, "z_channels": shape.latent_channels,
        "num_res_blocks": shape.num_res_blocks}, url)
    size = {} if remapped else {"n_embed": quantizer.codebook_size}
    check_settings(params, {"embed_dim": quantizer.code_dim, **size}, url)


def _check_supported(settings: Mapping[str, Any]) -> None:
    for name, only in UNSUPPORTED.items():
        if settings.get(name, only) != only:
            raise ValueError(f"the config says {name} {settings[name]}; this program has {only} "
                             "alone, so that its codes would differ")
    if settings.get("attn_type", "vanilla") not in ("vanilla", "none"):
        raise ValueError(f"the config says attn_type {settings['attn_type']}; this program has "
                         "vanilla and none")


def _modality(channels: int, params: Mapping[str, Any], options: ImportOptions) -> dict[str, Any]:
    """Settings of the modality: what 3 channels, 1, or one for each class hold."""
    is_map = params.get("n_labels") is not None or params.get("image_key") == "segmentation"
    if is_map or (channels > 4 and not params):
        return {**modality_settings("segmentation", options), "num_classes": channels,
                "loss": "bce"}
    if channels in (1, 3):
        return modality_settings("image" if channels == 3 else "depth", options)
    raise ValueError(f"inputs have {channels} channels, and the config names neither n_labels nor "
                     "image_key segmentation: this program reads images, depth and class maps")


def _remapped(tensors: Tensors) -> tuple[Tensors, tuple[str, ...]]:
    """The codebook cut down to the entries that ``quantize.used`` lists, in its order."""
    if "quantize.used" not in tensors:
        return tensors, ()
    used = tensors["quantize.used"]
    rows = [name for name in tensors if name in (
        "quantize.embedding.weight", "quantize.embed.weight", "quantize.proj.weight",
        "quantize.proj.bias")]
    result = {name: tensor for name, tensor in tensors.items() if name != "quantize.used"}
    for name in rows:
        result[name] = _rows(tensors[name], used)
    size = tensors[rows[0]].shape[0] if rows else 0
    return result, (f"codes are renumbered: the {used.shape[0]} of {size} entries that occurred "
                    "keep the numbers of the remapped model",)


def _rows(tensor: Stored, used: Stored) -> Stored:
    """The rows of ``tensor`` that ``used`` numbers, read when they are."""
    def choose(rows: "Tensor") -> "Tensor":
        numbers = used.read().long()
        if not ((numbers >= 0) & (numbers < len(rows))).all():
            raise ValueError(f"quantize.used numbers entries from {numbers.min()} to "
                             f"{numbers.max()}, of {len(rows)} that there are: the file is damaged")
        return rows[numbers]
    return computed(tensor, (*used.shape, *tensor.shape[1:]), choose)


def _notes(source: Source, kind: str) -> tuple[str, ...]:
    notes = []
    if not source.settings:
        notes.append("no config was given: shapes are those of the tensors, the image size is 256 "
                     "unless said")
    if kind == "gumbel":
        notes.append("codes are those of the greatest logit; the published model adds noise "
                     "whenever it encodes")
    return tuple(notes)
