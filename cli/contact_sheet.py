"""``img2tokens contact-sheet``: sources beside what their codes decode to."""
import click

from cli.options import filters_rows, reports_errors, tokenizers_of
from cli.values import PLACE, PNG, TOKENIZER_FOLDER, at_least


@click.command()
@click.argument("tokens", type=PLACE)
@click.argument("output", type=PNG, metavar="PNG")
@click.option("--tokenizer", "tokenizers", type=TOKENIZER_FOLDER, multiple=True, required=True,
              help="Folder of the tokenizer that made the codes; once for each modality.")
@click.option("--num", type=at_least(1), default=32, show_default=True,
              help="Rows, spread evenly over the corpus.")
@click.option("--columns", type=at_least(1), default=4, show_default=True,
              help="Rows side by side.")
@click.option("--keys", type=PLACE, metavar="FILE",
              help="Choose among these: a text with one key a line, or Parquet with a column key.")
@filters_rows
@reports_errors
def contact_sheet(tokens: str, output: str, tokenizers: tuple[tuple[str, str], ...], num: int,
                  columns: int, keys: str | None, row_filter: str | None) -> None:
    """Show sources of TOKENS beside their reconstructions, with PSNR or the like, in one picture.

    Sources are read from where TOKENS says that they lie; those that cannot be are grey.

    \b
    Examples:
      img2tokens contact-sheet tokens sheet.png --tokenizer tok
      img2tokens contact-sheet tokens sky.png --tokenizer tok --filter 'class_name == "sky"'
    """
    from pipelines.contact_sheet import SheetConfig
    from pipelines.contact_sheet import contact_sheet as make
    config = SheetConfig(tokens=tokens, output=output, num=num, columns=columns, keys=keys,
                         tokenizers=tokenizers_of(tokenizers), filter=row_filter)
    click.echo(f"{output}: {make(config)}")
