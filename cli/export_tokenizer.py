"""``img2tokens export-tokenizer``: a tokenizer of ours as a folder that other programs read."""
import click

from cli.options import reports_errors

FORMATS = ("diffusers", "onnx")
"""Names in `tokenizer.importers.exporting.EXPORTERS`, written out so that help need not load torch.
"""


@click.command("export-tokenizer")
@click.argument("tokenizer")
@click.argument("out")
@click.option("--format", "format_name", type=click.Choice(FORMATS), default="diffusers",
              show_default=True, help="Which program is to read it.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier export in OUT.")
@reports_errors
def export_tokenizer(tokenizer: str, out: str, format_name: str, overwrite: bool) -> None:
    """Write the tokenizer in the folder TOKENIZER for another program, into the folder OUT.

    Its codes are the same there. What the other program cannot express is refused: diffusers has
    nothing like the stem of the small recipes and fast_f16. ONNX refuses none of this.

    \b
    Examples:
      img2tokens export-tokenizer tok vqmodel
      img2tokens export-tokenizer tok vqmodel --format diffusers --overwrite
      img2tokens export-tokenizer tok models --format onnx
    """
    from tokenizer.importers.exporting import export_tokenizer as export
    click.echo(f"{out}: {export(tokenizer, out, format_name, overwrite)}")
