"""The table of published formats."""
from tokenizer.importers.base import TokenizerImporter
from tokenizer.importers.diffusers import DiffusersImporter
from tokenizer.importers.latent_diffusion import LatentDiffusionImporter
from tokenizer.importers.llamagen import LlamaGenImporter
from tokenizer.importers.maskgit import MaskGITImporter
from tokenizer.importers.source import Source
from tokenizer.importers.taming import TamingImporter

IMPORTERS: dict[str, TokenizerImporter] = {importer.name: importer for importer in (
    TamingImporter(), LatentDiffusionImporter(), LlamaGenImporter(), MaskGITImporter(),
    DiffusersImporter())}
"""Every importer by name."""


def choose_importer(source: Source, name: str | None = None) -> TokenizerImporter:
    """The importer called ``name``, or the one that recognises the files.

    Raises:
        ValueError: there is no such importer, or none or several recognise the files.
    """
    if name is not None:
        if name not in IMPORTERS:
            raise ValueError(f"unknown format {name!r}; known are {', '.join(IMPORTERS)}")
        return IMPORTERS[name]
    found = [importer for importer in IMPORTERS.values() if importer.recognises(source)]
    if len(found) != 1:
        what = ("; ".join(importer.description for importer in found)
                or f"none of {', '.join(IMPORTERS)}; it begins with "
                   f"{', '.join(sorted(source.tensors)[:3])}"
                   f"{_model_name(source)}")
        raise ValueError(f"{source.url} looks like {what}: say which format it is, if you know "
                         "(--format)")
    return found[0]


def _model_name(source: Source) -> str:
    model = source.settings.get("model")
    target = model.get("target") if isinstance(model, dict) else source.settings.get("_class_name")
    return f", and its config says {target}" if target else ""
