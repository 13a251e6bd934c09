"""From a published prior to a checkpoint of this program, with a report of what was found."""
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from prior.importers.base import ImportedPrior, PriorGivens, PriorImporter
from prior.importers.formats import choose_importer
from prior.model import KIND, PriorConfig
from prior.transformer import Transformer
from tokenizer import checkpoints, storage
from tokenizer.importers.files import open_source
from tokenizer.importers.folders import claim_folder
from tokenizer.importers.report import REPORT, ParityReport
from tokenizer.importers.source import Source, read_float32

CHECKPOINT = (checkpoints.CONFIG, checkpoints.WEIGHTS, REPORT, checkpoints.TRAINING)
"""What a folder may hold to be overwritten by an import; the config goes first and comes last."""


@dataclass(frozen=True, kw_only=True)
class PriorCheck:
    """What a prior makes of a drawn sequence: conditions and codes that mean nothing.

    Attributes:
        num_codes: codes of an image.
        bits: mean entropy of the next code.
        most: that of codes that are all equally likely.
        difference: largest difference of a score when the sequence is read in two parts.
    """
    num_codes: int
    bits: float
    most: float
    difference: float

    def text(self) -> str:
        """In one line."""
        return (f"{self.num_codes} codes scored, {self.bits:.2f} of {self.most:.2f} bits open; "
                f"with a cache scores differ by at most {self.difference:.1e}")


def import_prior(url: str, out: str, *, config: str | None = None,
                 givens: PriorGivens | None = None, overwrite: bool = False) -> ParityReport:
    """Write a published prior as a checkpoint of this program.

    Nothing is written unless every tensor of the network is found and none is left over.

    Args:
        url: file of its weights, or its folder.
        out: folder of the checkpoint.
        config: file of its config, where it is not in that folder.
        givens: tokenizers and names of classes.
        overwrite: replace a prior that ``out`` holds.
    Raises:
        FileNotFoundError: a file is not there.
        ValueError: a file is damaged, of no known format or not expressible here, or ``out`` holds
            something else.
    """
    claim_folder(out, CHECKPOINT, overwrite=overwrite, dry_run=True)
    source = open_source(url, config)
    importer = choose_importer(source)
    imported = _convert(importer, source, givens or PriorGivens())
    tensors, converted = read_float32(source.url, _shapes(imported.config), imported.tensors)
    model = _build(imported.config, tensors)
    report = ParityReport(
        format=importer.description, url=source.url, sha256=storage.sha256_of_file(source.url),
        part=source.part, network=describe(imported.config), parameters=_parameters(tensors),
        num_tensors=len(tensors), dropped=imported.dropped, ignored=source.ignored,
        converted=converted, notes=imported.notes, check=check_prior(model))
    claim_folder(out, CHECKPOINT, overwrite=overwrite)
    checkpoints.save_weights(out, tensors)
    report.save(out)
    checkpoints.save_config(out, KIND, imported.config)
    return report


def describe(config: PriorConfig) -> str:
    """A prior in one line."""
    shape, target = config.transformer, config.layout.target
    given = " and ".join(condition.name for condition in config.conditions) or "nothing"
    return (f"{target.grid[0]} x {target.grid[1]} {target.name} codes of {target.vocabulary} given "
            f"{given}; {shape.num_layers} layers of {shape.width} channels and {shape.num_heads} "
            f"heads ({shape.blocks} blocks)")


@torch.inference_mode()
def check_prior(model: Transformer) -> PriorCheck:
    """Score a drawn sequence, whole and in two parts."""
    layout, generator = model.layout, torch.Generator().manual_seed(0)
    given = {segment.name: torch.randint(segment.vocabulary, (1, segment.length),
                                         generator=generator) for segment in layout.conditions}
    codes = torch.randint(layout.target.vocabulary, (1, layout.target.length - 1),
                          generator=generator)
    ids = layout.inputs(given, codes)
    scores, cache = model(ids), model.new_cache(1)
    middle = (layout.length + layout.prefix_length) // 2 + 1
    parts = [model(part, cache) for part in ids.tensor_split([middle], 1) if part.shape[1]]
    logs = scores.log_softmax(-1)
    entropy = -(logs.exp() * logs).sum(-1).mean() / math.log(2)
    return PriorCheck(num_codes=layout.target.length, bits=round(float(entropy), 4),
                      most=round(math.log2(layout.target.vocabulary), 4),
                      difference=float((torch.cat(parts, 1) - scores).abs().max()))


def _convert(importer: PriorImporter, source: Source, givens: PriorGivens) -> ImportedPrior:
    imported = importer.convert(source, givens)
    modalities = imported.config.spec.modalities
    if unused := givens.specs.keys() - {*modalities}:
        raise ValueError(f"a tokenizer of {min(unused)} is given, but this prior has codes of "
                         f"{' and '.join(modalities)} alone: leave it out")
    return imported


def _shapes(config: PriorConfig) -> dict[str, tuple[int, ...]]:
    """The tensors of a prior by name."""
    with torch.device("meta"):
        model = Transformer(config.transformer, config.layout)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _build(config: PriorConfig, tensors: Mapping[str, Tensor]) -> Transformer:
    model = Transformer(config.transformer, config.layout)
    model.load_state_dict(dict(tensors))
    return model.eval()


def _parameters(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name, tensor in tensors.items():
        part = name.split(".")[0]
        counts[part] = counts.get(part, 0) + tensor.numel()
    return dict(sorted(counts.items()))
