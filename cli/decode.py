"""``img2tokens decode``: a token corpus becomes image files."""
import click

from cli.options import (
    JOB,
    filters_rows,
    keeps_records,
    part_of,
    reports_errors,
    takes_engine,
    takes_part,
    tokenizers_of,
)
from cli.sections import Sections
from cli.values import PLACE, TOKENIZER_FOLDER, at_least

SECTIONS = {"What to decode": ("--tokenizer", "--keys", "--filter"),
            "What to write": ("--to", "--format", "--quality"),
            "The job": ("--batch-size", *JOB)}
"""Headings of the help."""


@click.command(cls=Sections, sections=SECTIONS)
@click.argument("tokens", type=PLACE)
@click.argument("output", type=PLACE, metavar="OUT")
@click.option("--tokenizer", "tokenizers", type=TOKENIZER_FOLDER, multiple=True, required=True,
              help="Folder of the tokenizer that made the codes; with several, each modality gets "
                   "a folder of its own below OUT.")
@click.option("--to", type=click.Choice(["folder", "tar", "parquet"]), default="folder",
              show_default=True, help="A file for each image; or, one for each shard, tar files in "
              "WebDataset's layout, or Parquet files that `datasets` shows.")
@click.option("--format", "picture", type=click.Choice(["png", "jpeg", "webp"]), default="png",
              show_default=True, help="Format of images; maps are always PNG.")
@click.option("--quality", type=click.IntRange(1, 100), default=95, show_default=True,
              help="Of JPEG and WebP.")
@click.option("--keys", type=PLACE, metavar="FILE",
              help="Decode only these: a text with one key a line, or Parquet with a column key.")
@click.option("--batch-size", type=at_least(1), default=8, show_default=True,
              help="Crops that pass through the tokenizer at once.")
@click.option("--num-workers", type=at_least(1), default=1, show_default=True,
              help="Processes that decode at the same time, on one core each.")
@click.option("--overwrite", is_flag=True,
              help="Start over in OUT; what was decoded there is removed.")
@filters_rows
@takes_engine
@takes_part
@reports_errors
@keeps_records
def decode(tokens: str, output: str, tokenizers: tuple[tuple[str, str], ...], to: str,
           picture: str, quality: int, keys: str | None, batch_size: int, num_workers: int,
           overwrite: bool, row_filter: str | None, engine: str, beam_flags: tuple[str, ...],
           array_index: int | None, array_size: int | None) -> None:
    """Decode the codes of TOKENS into image files under OUT, named by key.

    The same command continues a job that was stopped. See docs/decoding.md.

    \b
    Examples:
      img2tokens decode tokens images --tokenizer tok
      img2tokens decode tokens images --tokenizer tok --tokenizer depth-tok
      img2tokens decode tokens images --tokenizer tok --format webp --num-workers 4
      img2tokens decode tokens shards --tokenizer tok --to tar --format jpeg --quality 90
      img2tokens decode tokens images --tokenizer tok --keys keys.txt
      img2tokens decode tokens images --tokenizer tok --filter 'class_name == "sky"'
      img2tokens decode tokens images --tokenizer tok --array-index 3 --array-size 64
      img2tokens decode /data/tokens /data/images --tokenizer /data/tok \\
          --engine dask://scheduler:8786
    """
    from pipelines.array import Unfinished
    from pipelines.decode import DecodeConfig, decode_corpus, decode_part
    from pipelines.report import count, failures
    part = part_of(array_index, array_size)
    config = DecodeConfig(tokens=tokens, output=output,
                          tokenizers=tokenizers_of(tokenizers), to=to,
                          picture=picture, quality=quality, keys=keys, batch_size=batch_size,
                          engine=engine, num_workers=num_workers, beam_flags=beam_flags,
                          overwrite=overwrite,
                          filter=row_filter)
    done = decode_corpus(config) if part is None else decode_part(config, part)
    click.echo(f"{output}: {done}" if isinstance(done, Unfinished) else
               f"{output}: {count(done.num_crops, 'crop')} decoded, {failures(done.dead_letters)}")
