"""``img2tokens import-prior``: a prior published elsewhere becomes one of ours."""
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from cli.options import by_name, reports_errors
from cli.values import TOKENIZER_FOLDER

if TYPE_CHECKING:
    from tokenizer.schema import CodeSpec


@click.command("import-prior")
@click.argument("file")
@click.argument("out")
@click.option("--config", help="YAML or JSON config of the model, where FILE is not its folder.")
@click.option("--tokenizer", "tokenizers", type=TOKENIZER_FOLDER, multiple=True,
              help="Folder of the tokenizer of the images, imported before, and of that of a map.")
@click.option("--class-names", metavar="TEXT-FILE",
              help="Names of the classes, one a line, in their order; else they are numbers.")
@click.option("--overwrite", is_flag=True, help="Replace a prior in OUT.")
@reports_errors
def import_prior(file: str, out: str, config: str | None, tokenizers: tuple[tuple[str, str], ...],
                 class_names: str | None, overwrite: bool) -> None:
    """Turn the published prior FILE, or the folder that holds it, into a prior in OUT.

    Scores equal those of the program that FILE is of. Nothing in it is executed. Import its
    tokenizers first and give them: they say what its codes mean. A report says what was found and
    what was left out; docs/importing.md lists what can be imported.

    \b
    Examples:
      img2tokens import-tokenizer prior.ckpt tok --config project.yaml
      img2tokens import-prior prior.ckpt prior --config project.yaml --tokenizer tok
      img2tokens import-prior prior.ckpt prior --config project.yaml --tokenizer tok \\
          --tokenizer tok-depth
      img2tokens import-prior c2i_B_256.pt prior --tokenizer tok --class-names imagenet.txt
      img2tokens sample prior samples --tokenizer tok --label 207 --num 16 --top-k 100
    """
    from prior.importers.base import PriorGivens
    from prior.importers.importing import import_prior as import_files
    givens = PriorGivens(specs=read_specs(tokenizers),
                         classes=read_names(class_names) if class_names else ())
    report = import_files(file, out, config=config, overwrite=overwrite, givens=givens)
    click.echo(report.text())
    click.echo(f"prior in {out}")


def read_specs(pairs: Iterable[tuple[str, str]]) -> "dict[str, CodeSpec]":
    """What the codes of tokenizers mean, by modality.

    Args:
        pairs: of `TOKENIZER_FOLDER` options.
    Raises:
        OSError, ValueError: a folder holds no tokenizer.
        click.UsageError: one is of another modality than said, or a modality is given twice.
    """
    from tokenizer.codec import Codec
    specs = []
    for name, folder in pairs:
        spec = Codec.load(folder).spec
        if name not in ("", spec.modality):
            raise click.UsageError(f"--tokenizer {name}={folder} is a tokenizer of {spec.modality}")
        specs.append((spec.modality, spec))
    return by_name("--tokenizer", specs)


def read_names(url: str) -> tuple[str, ...]:
    """Names of classes, one a line of a text file.

    Raises:
        OSError, ValueError: the file is not there, is no text, or a name comes twice.
    """
    from tokenizer import storage
    names = tuple(line.strip() for line in storage.read_bytes(url).decode().splitlines()
                  if line.strip())
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{url} holds {min(twice)!r} twice; names of classes must differ: "
                         "tell them apart, or leave the names out and give numbers")
    return names
