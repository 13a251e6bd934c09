"""``img2tokens encode``: an image corpus becomes a token corpus."""
from typing import TYPE_CHECKING

import click

from cli.options import (
    JOB,
    by_name,
    keeps_records,
    part_of,
    reports_errors,
    takes_engine,
    takes_part,
    tokenizers_of,
)
from cli.sections import Sections
from cli.values import (
    ASSIGNMENT,
    BUCKETS,
    CROPS,
    ERROR_LIMIT,
    PLACE,
    SIZE,
    TOKENIZER_FOLDER,
    at_least,
)

if TYPE_CHECKING:
    from pipelines.encode import EncodeConfig


SECTIONS = {
    "What to encode": ("--tokenizer", "--maps", "--labels", "--size", "--buckets", "--crops",
                       "--flips", "--crop-seed", "--max-pixels"),
    "What to store": ("--stats", "--precision", "--backend", "--batch-size", "--shard-size"),
    "The job": ("--dry-run", "--extend", "--max-errors", *JOB)}
"""Headings of the help."""


@click.command(cls=Sections, sections=SECTIONS)
@click.argument("corpus", type=PLACE)
@click.argument("tokens", type=PLACE)
@click.option("--tokenizer", "tokenizers", type=TOKENIZER_FOLDER, multiple=True, required=True,
              help="Folder of a trained tokenizer; once for each modality: image, depth, "
                   "segmentation, normals, and edges and low_res, computed from the images.")
@click.option("--maps", type=ASSIGNMENT, multiple=True,
              help="MODALITY=FOLDER (or other source) of maps that pair with the images by key; "
                   "MODALITY=column:NAME, and of tar files MODALITY=.SUFFIX, of maps within "
                   "CORPUS. Edges and low_res need none.")
@click.option("--labels", default="auto", show_default=True, metavar="HOW",
              help="Where classes come from: auto (.cls members, a column label, else the first "
                   "folder), folder, none, column:NAME, regex:PATTERN (a group of the key), or a "
                   "CSV or JSONL file with key, label, caption.")
@click.option("--size", type=SIZE, help="Height and width of the crops in pixels, multiples of "
                                          "those of one code; the tokenizer's own by default.")
@click.option("--buckets", type=BUCKETS, default=(),
              help="Several sizes in place of one, such as 256x384,256x256,384x256, or those of "
                   "one area: area:256x256, with step:64 of their sides and ratio:4 at most unless "
                   "told. Each image takes the nearest in shape, its row the grid of that.")
@click.option("--crops", type=CROPS, default="centre", show_default=True,
              help="Which boxes of each image become rows: centre; ten-crop (four corners and the "
                   "centre with their mirror images, of two sizes, 20 in all); random:N, "
                   "random:N:SIDE or random:N:LEAST-MOST (N boxes anywhere, of this share of the "
                   "largest possible side; 0.8-1 unless told).")
@click.option("--flips", is_flag=True, help="Mirror each crop, left to right, or not: by a draw "
                                     "with even odds.")
@click.option("--crop-seed", type=at_least(0), default=0, show_default=True,
              help="Of the draws of random:N and --flips, which depend on it, the image's key and "
                   "the crop's number alone.")
@click.option("--max-pixels", type=at_least(1), default=178_000_000, show_default=True,
              help="Larger images are dead letters, before they are decoded; a job keeps the limit "
                   "it began with.")
@click.option("--shard-size", type=at_least(1), default=512, show_default=True,
              help="Images in one Parquet file.")
@click.option("--batch-size", type=at_least(1), default=8, show_default=True,
              help="Images that pass through the tokenizer at once; a job keeps the one it began "
                   "with.")
@click.option("--precision", type=click.Choice(["float32", "bf16"]), default="float32",
              show_default=True, help="bf16 is faster where the processor has it, and gives other "
                                      "codes: evaluate-tokenizer counts them.")
@click.option("--backend", type=click.Choice(["torch", "openvino", "onnxruntime"]),
              default="torch", show_default=True,
              help="What computes the encoder; the others come with img2tokens[openvino] and "
                   "img2tokens[onnx].")
@click.option("--stats", is_flag=True,
              help="Also decode every crop, and store how good it came back and how sure its codes "
                   "are, in columns that inspect --stats and --filter read; the codes are the "
                   "same. It takes about the time of decode on top.")
@click.option("--num-workers", type=at_least(1), default=1, show_default=True,
              help="Processes that encode at the same time, on one core each.")
@click.option("--max-errors", type=ERROR_LIMIT, metavar="N|SHARE",
              help="End in failure when more images fail: a number such as 5, or a share such as "
                   "1% or 0.01; finished shards are kept. 100% also gives up a shard of which "
                   "nothing can be reached, where the job would wait for it.  [default: when all "
                   "fail, but for --extend]")
@click.option("--overwrite", is_flag=True,
              help="Start over in TOKENS; what lies there is removed, each time the command is "
                   "given: leave it out to go on.")
@click.option("--dry-run", is_flag=True,
              help="Only list the images and encode a few: print how many shards, rows, bytes and "
                   "how much time it would be, and what would be refused; write nothing.")
@click.option("--extend", is_flag=True,
              help="Add the images that CORPUS has beside those in TOKENS, as further shards; what "
                   "changed or is gone is refused by name.")
@takes_engine
@takes_part
@reports_errors
@keeps_records
def encode(corpus: str, tokens: str, tokenizers: tuple[tuple[str, str], ...],
           maps: tuple[tuple[str, str], ...], labels: str, size: tuple[int, int] | None,
           buckets: tuple[tuple[int, int], ...], crops: str, flips: bool, crop_seed: int,
           max_pixels: int, shard_size: int, batch_size: int, precision: str, backend: str,
           stats: bool, num_workers: int, max_errors: int | float | None, overwrite: bool,
           dry_run: bool, extend: bool, engine: str, beam_flags: tuple[str, ...],
           array_index: int | None, array_size: int | None) -> None:
    """Tokenise the images of CORPUS into Parquet shards under TOKENS.

    CORPUS is a folder of image files at any depth, tar files in WebDataset's layout, Parquet files
    with images, a list of paths or URLs (CSV, JSON lines, Parquet), or a data set of Hugging Face:
    a path or an fsspec URL; see docs/sources.md. An image that cannot be read becomes a dead letter
    with its reason; everything else goes on. The same command continues a job that was stopped,
    however it was stopped. See docs/encoding.md and docs/running.md.

    \b
    Examples:
      img2tokens encode photos tokens --tokenizer tok --dry-run
      img2tokens encode photos tokens --tokenizer tok --labels 'regex:^n[0-9]+_(.+)$' --stats
      img2tokens encode photos tokens --tokenizer tok --maps depth=depths --tokenizer depth-tok
      img2tokens encode photos tokens --tokenizer tok --tokenizer edge-tok --crops random:4 --flips
      img2tokens encode 'shards/{00..07}.tar' tokens --tokenizer tok \\
          --maps segmentation=.segmentation.png --tokenizer seg-tok
      img2tokens encode 'data/*.parquet' tokens --tokenizer tok --labels column:fine_label
      img2tokens encode list.csv tokens --tokenizer tok --max-errors 1%
      img2tokens encode datasets:USER/NAME@train tokens --tokenizer tok --size 256x384
      img2tokens encode photos tokens --tokenizer tok --buckets 192x320,256x256,320x192
      img2tokens encode photos tokens --tokenizer tok --buckets area:256x256,step:32,ratio:2
      img2tokens encode s3://images/a s3://tokens/a --tokenizer s3://models/tok --extend
      img2tokens encode photos tokens --tokenizer tok --array-index 3 --array-size 64
      img2tokens encode /data/photos /data/tokens --tokenizer /data/tok \\
          --engine beam -- --runner=FlinkRunner --flink_master=flink:8081
    """
    from pipelines.array import Unfinished
    from pipelines.encode import EncodeConfig, encode_corpus, encode_part
    from pipelines.report import outcome
    part = part_of(array_index, array_size)
    config = EncodeConfig(
        corpus=corpus, output=tokens, tokenizers=tokenizers_of(tokenizers),
        maps=by_name("--maps", maps), labels=labels, size=size, buckets=buckets, crops=crops,
        flips=flips, crop_seed=crop_seed, max_pixels=max_pixels, shard_size=shard_size,
        batch_size=batch_size, precision=precision, backend=backend, engine=engine,
        num_workers=num_workers, beam_flags=beam_flags, max_errors=max_errors, overwrite=overwrite,
        extend=extend, stats=stats)
    if dry_run:
        if part is not None:
            raise click.UsageError("--dry-run is of the whole job: leave out --array-index and "
                                   "--array-size")
        print_forecast(config)
        return
    done = encode_corpus(config) if part is None else encode_part(config, part)
    click.echo(f"{tokens}: {done}" if isinstance(done, Unfinished) else outcome(tokens, done))


def print_forecast(config: "EncodeConfig") -> None:
    """Print what encoding would do; exit code 1 says that it would be refused."""
    from pipelines.dry_run import foresee
    from pipelines.report import foreseen
    forecast = foresee(config)
    click.echo(foreseen(forecast, config.num_workers))
    if forecast.refusal:
        raise click.ClickException(f"it would be refused: {forecast.refusal}")
