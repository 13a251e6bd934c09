"""``img2tokens convert``: token corpora from and to the formats of other programs."""
import click

from cli.options import reports_errors
from cli.values import PLACE, SIZE, at_least

FORMATS = ("llamagen", "rar", "4m", "webdataset")


@click.command()
@click.argument("source", type=PLACE)
@click.argument("output", type=PLACE, metavar="OUT")
@click.option("--from", "origin", type=click.Choice(FORMATS), help="SOURCE is of this format, OUT "
                                                                   "becomes a token corpus.")
@click.option("--to", "target", type=click.Choice(FORMATS), help="SOURCE is a token corpus, OUT "
                                                                 "becomes one of this format.")
@click.option("--tokenizer", type=PLACE, metavar="FOLDER",
              help="With --from: what made the codes, for example of import-tokenizer; it gives "
                   "the codebook, and the corpus can be decoded with it alone.")
@click.option("--codebook-size", type=at_least(1), metavar="K",
              help="With --from, without a tokenizer.")
@click.option("--grid", type=SIZE, help="With --from: rows and columns of the codes.  [default: "
                                          "square]")
@click.option("--image-size", type=SIZE, help="With --from, without a tokenizer: pixels that the "
                                                "encoder saw.  [default: 16 a code]")
@click.option("--modality", help="Of the codes; with --to, the one to write.  [default: with "
                                 "--from the tokenizer's, else image; with --to all]")
@click.option("--shard-size", type=at_least(1),
              help="With --from: images in one Parquet file.  [default: 4096]")
@click.option("--data", help="With --to llamagen: the data set's name, which is part of its paths. "
                             " [default: imagenet]")
@click.option("--num-workers", type=at_least(1), default=1, show_default=True,
              help="Processes that convert at the same time.")
@click.option("--overwrite", is_flag=True, help="With --from: start over in OUT.")
@reports_errors
def convert(source: str, output: str, origin: str | None, target: str | None,
            tokenizer: str | None, codebook_size: int | None, grid: tuple[int, int] | None,
            image_size: tuple[int, int] | None, modality: str | None,
            shard_size: int | None, data: str | None,
            num_workers: int, overwrite: bool) -> None:
    """Turn tokens of another program into a token corpus, or a token corpus into its format.

    The same command continues a conversion that was stopped. See docs/converting.md.

    \b
    Examples:
      img2tokens convert code_c2i tokens --from llamagen --tokenizer vq16
      img2tokens convert pretokenized.jsonl tokens --from rar --codebook-size 1024
      img2tokens convert 'rar/*.jsonl' tokens --from rar --codebook-size 1024
      img2tokens convert train/rgb_dvae_BUa_224 tokens --from 4m --codebook-size 16384
      img2tokens convert 'codes/*.tar' tokens --from webdataset --codebook-size 8192 --grid 16x24
      img2tokens convert tokens code_c2i --to llamagen
      img2tokens convert tokens lines --to rar --modality image
    """
    if (origin is None) == (target is None):
        raise click.UsageError("give either --from or --to: one side is a token corpus of this "
                               "program")
    if data is not None and target != "llamagen":
        raise click.UsageError("--data belongs to --to llamagen")
    if origin is not None:
        from pipelines.importing import ImportConfig, import_corpus
        from pipelines.report import outcome
        manifest = import_corpus(ImportConfig(
            source=source, output=output, format=origin, tokenizer=tokenizer, grid=grid,
            modality=modality, codebook_size=codebook_size, image_size=image_size,
            shard_size=shard_size or ImportConfig.shard_size, num_workers=num_workers,
            overwrite=overwrite))
        click.echo(outcome(output, manifest))
    else:
        _refuse(tokenizer=tokenizer, codebook_size=codebook_size, grid=grid, image_size=image_size,
                shard_size=shard_size, overwrite=overwrite)
        from pipelines.exporting import ExportConfig, export_corpus
        from pipelines.report import count, failures
        done = export_corpus(ExportConfig(tokens=source, output=output, format=str(target),
                                          modality=modality, num_workers=num_workers,
                                          data=ExportConfig.data if data is None else data))
        click.echo(f"{output}: {count(done.num_items, 'item')} written, "
                   f"{failures(done.dead_letters)}")


def _refuse(**options: object) -> None:
    """Refuse options that belong to the other way."""
    given = [name for name, value in options.items() if value]
    if given:
        raise click.UsageError(f"--{given[0].replace('_', '-')} belongs to --from")
