"""From a published tokenizer to a checkpoint of this program, with a report of what was found."""
from typing import TYPE_CHECKING

from tokenizer import checkpoints, storage
from tokenizer.codec import Codec
from tokenizer.importers.base import ImportedTokenizer, ImportOptions
from tokenizer.importers.files import open_source
from tokenizer.importers.folders import claim_folder
from tokenizer.importers.formats import choose_importer
from tokenizer.importers.report import REPORT, ParityReport
from tokenizer.importers.self_check import check_codec
from tokenizer.importers.source import Source, read_float32
from tokenizer.vqgan.model import KIND, VQGAN, VQGANConfig

if TYPE_CHECKING:
    from torch import Tensor

PARTS = ("encoder", "decoder", "quantize", "quant_conv", "post_quant_conv")

CHECKPOINT = (checkpoints.CONFIG, checkpoints.WEIGHTS, REPORT, "training", "evaluation")
"""What a folder may hold to be overwritten by an import; the config, without which the others are
no tokenizer, is removed first and written last. Figures of the former tokenizer go with it."""


def import_tokenizer(url: str, out: str, *, config: str | None = None,
                     format_name: str | None = None, options: ImportOptions | None = None,
                     overwrite: bool = False) -> ParityReport:
    """Write a published tokenizer as a checkpoint of this program.

    Nothing is written unless every tensor of the network is found, none is left over, and the
    tokenizer encodes and decodes.

    Args:
        url: file of its weights, or its folder.
        out: folder of the checkpoint.
        config: file of its config, where it is not in that folder.
        format_name: a name of `tokenizer.importers.formats.IMPORTERS`; found out where not given.
        overwrite: replace a tokenizer that ``out`` holds.
    Raises:
        FileNotFoundError: a file is not there.
        ValueError: a file is damaged, of no known format or not expressible here, or ``out`` holds
            something else.
    """
    claim_folder(out, CHECKPOINT, overwrite=overwrite, dry_run=True)
    source = open_source(url, config)
    importer = choose_importer(source, format_name)
    imported = importer.convert(source, options or ImportOptions())
    tensors, converted = read_tensors(source, imported)
    model = VQGAN.from_weights(imported.config, tensors)
    report = ParityReport(
        format=importer.description, url=source.url, sha256=storage.sha256_of_file(source.url),
        part=source.part, network=describe(imported.config), parameters=_parameters(model),
        num_tensors=len(tensors), dropped=imported.dropped, ignored=source.ignored,
        converted=converted, notes=imported.notes, check=check_codec(Codec(
            model, fingerprint="not saved yet", batch_size=1)))
    claim_folder(out, CHECKPOINT, overwrite=overwrite)
    checkpoints.save_weights(out, model.codec_weights())
    report.save(out)
    checkpoints.save_config(out, KIND, imported.config)
    return report


def read_tensors(source: Source, imported: ImportedTokenizer) -> "tuple[dict[str, Tensor], int]":
    """The tensors of a tokenizer in float32, and how many were of another type.

    Raises:
        ValueError: some are missing, surplus, of another shape, or not finite.
    """
    import torch
    with torch.device("meta"):
        expected = {name: tuple(tensor.shape)
                    for name, tensor in VQGAN(imported.config).codec_weights().items()}
    return read_float32(source.url, expected, imported.tensors)


def describe(config: VQGANConfig) -> str:
    """A tokenizer in one line."""
    height, width = config.image_size
    rows, columns = config.grid
    quantizer = config.quantizer
    return (f"{config.modality['name']} {height} x {width} px to {rows} x {columns} codes of "
            f"{quantizer.codebook_size} in {quantizer.code_dim} channels ({quantizer.kind})")


def _parameters(model: VQGAN) -> dict[str, int]:
    counts = dict.fromkeys(PARTS, 0)
    for name, parameter in model.named_parameters():
        counts[name.split(".")[0]] += parameter.numel()
    return counts
