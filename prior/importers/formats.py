"""The table of published formats of priors."""
from prior.importers.base import PriorImporter
from prior.importers.llamagen import LlamaGenPriorImporter
from prior.importers.taming import TamingPriorImporter
from tokenizer.importers.source import Source

IMPORTERS: dict[str, PriorImporter] = {importer.name: importer for importer in (
    TamingPriorImporter(), LlamaGenPriorImporter())}
"""Every importer by name."""


def choose_importer(source: Source) -> PriorImporter:
    """The importer that recognises the files.

    Raises:
        ValueError: none does.
    """
    for importer in IMPORTERS.values():
        if importer.recognises(source):
            return importer
    known = "; ".join(importer.description for importer in IMPORTERS.values())
    raise ValueError(f"{source.url} holds none of the priors that can be imported ({known}); it "
                     f"begins with {', '.join(sorted(source.tensors)[:3])}")
