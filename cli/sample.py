"""``img2tokens sample``: draw images from a prior."""
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from cli.drawing import build_guidance, build_sampler, draws_codes
from cli.options import (
    filters_rows,
    part_of,
    reports_errors,
    takes_device,
    takes_engine,
    takes_part,
)
from cli.priors import load_decoders
from cli.sampling_inputs import find_givens, unseen_scale
from cli.sections import Sections
from cli.values import ASSIGNMENT, BOX, SIZE, TOKENIZER_FOLDER, at_least

if TYPE_CHECKING:
    from cli.sampling_engines import SamplingEngine
    from prior.generate import Generation
    from prior.givens import Givens
    from prior.model import Prior
    from prior.sampling import SampleJob, SamplingConfig
    from tokenizer.codec import Codec
    from tokenizer.schema import Manifest


SECTIONS = {
    "What samples are given": ("--label", "--condition-from", "--condition", "--held-out",
                               "--filter", "--complete-from", "--keep", "--hole", "--mask"),
    "How codes are drawn": ("--seed", "--sampler", "--temperature", "--top-k", "--top-p", "--min-p",
                            "--guidance", "--guidance-schedule", "--guidance-power", "--passes",
                            "--schedule"),
    "What is kept": ("--tokenizer", "--num", "--samples-each", "--size", "--best-of",
                     "--likelihood"),
    "The job": ("--device", "--compile", "--num-workers", "--overwrite", "--engine",
                "--array-index", "--array-size")}
"""Headings of the help."""


@click.command(cls=Sections, sections=SECTIONS)
@click.argument("prior")
@click.argument("out")
@click.option("--tokenizer", "tokenizers", type=TOKENIZER_FOLDER, multiple=True,
              help="Folder of the tokenizer of the images, to decode them, and of that of a map, "
                   "to show it beside its samples. Without any, only tokens are written.")
@click.option("--num", type=at_least(1),
              help="Images to draw.  [default: --samples-each for each row of conditions]")
@click.option("--samples-each", type=at_least(1), default=1, show_default=True,
              help="Images in a row that share their conditions.")
@click.option("--label", "labels", multiple=True, metavar="NAME|NUMBER",
              help="Class of the images. Repeatable: images take them in turn.")
@click.option("--condition-from", metavar="TOKENS[#KEY]",
              help="Token corpus whose rows give the conditions, each in turn, or those of one "
                   "key.")
@click.option("--condition", "files", type=ASSIGNMENT, multiple=True, metavar="NAME=FILE",
              help="A map as a file, such as depth=street.png, encoded by its --tokenizer. "
                   "Repeatable: images take those of one name in turn.")
@click.option("--complete-from", metavar="TOKENS[#KEY]|FILE",
              help="Token corpus whose images are completed, with their conditions; or an image "
                   "file.")
@click.option("--hole", "holes", type=BOX, multiple=True, metavar="TOP,LEFT,HEIGHT,WIDTH",
              help="Of --complete-from: the box that is drawn anew, in place of what --keep "
                   "leaves, in pixels of the image as cropped and scaled for the prior. "
                   "Repeatable.")
@click.option("--mask", metavar="FILE",
              help="Picture whose white part is drawn anew; it is cropped and scaled like a file.")
@click.option("--passes", type=at_least(0), default=0, show_default=True,
              help="Passes over a hole that let the cells behind it act too.")
@click.option("--keep", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.5,
              show_default=True, help="Share of an image kept for completion, from the top.")
@click.option("--held-out", is_flag=True,
              help="Only rows of TOKENS that training held out; of these, unless --filter is "
                   "given, those that its own filter takes.")
@filters_rows
@draws_codes
@click.option("--size", type=SIZE, help="Height and width in pixels, larger than the prior's own:"
                                          " drawn through a window that slides.")
@click.option("--schedule", type=click.Choice(["raster", "wavefront"]), default="wavefront",
              show_default=True, help="Of --size: one cell at a time, or all whose windows are "
                                      "complete; the codes are the same.")
@click.option("--best-of", type=at_least(1), metavar="M",
              help="Draw M images for each row of conditions and keep the --samples-each most "
                   "likely ones.")
@click.option("--likelihood", is_flag=True,
              help="Store the log-likelihood of each image, and with --tokenizer pictures of the "
                   "cells that were unexpected.")
@click.option("--seed", type=at_least(0), default=0, show_default=True,
              help="Image number i depends on it, on i and on what it is given alone.")
@click.option("--batch-size", type=at_least(1), default=32, show_default=True,
              help="Images drawn at once.")
@click.option("--shard-size", type=at_least(1), default=512, show_default=True,
              help="Images in one Parquet file.")
@takes_device
@click.option("--compile", is_flag=True,
              help="Have torch.compile make kernels for the steps, and on a GPU replay each as "
                   "one CUDA graph; the first batch waits for both. A CPU gains nothing by it.")
@click.option("--num-workers", type=at_least(1), default=1, show_default=True,
              help="Processes that draw at the same time, on one core each; one alone takes all "
                   "cores. Where codes are near a tie, images may differ between the two.")
@click.option("--overwrite", is_flag=True, help="Start over in OUT; samples there are removed.")
@takes_part
@takes_engine
@reports_errors
def sample(prior: str, out: str, tokenizers: tuple[tuple[str, str], ...], device: str,
           **options: Any) -> None:
    """Draw images from PRIOR into OUT: a token corpus, the images, and one grid of them.

    OUT can be inspected and decoded like any token corpus; each row's source says what it was
    conditioned on. The same command continues a job that was stopped.

    \b
    Examples:
      img2tokens sample prior samples --tokenizer tok --num 64
      img2tokens sample prior cats --tokenizer tok --label cat --num 16 --guidance 2
      img2tokens sample prior streets --tokenizer tok --tokenizer tok-seg \\
          --condition-from tokens --held-out --samples-each 4 --num 64
      img2tokens sample prior skies --tokenizer tok --tokenizer tok-seg \\
          --condition-from tokens --filter 'class_name == "sky" and image_psnr > 20' --num 16
      img2tokens sample prior street --tokenizer tok --tokenizer tok-seg \\
          --condition segmentation=street.png --guidance segmentation=1.5 --num 8
      img2tokens sample prior halves --tokenizer tok --complete-from tokens --keep 0.5 --num 16
      img2tokens sample prior filled --tokenizer tok --complete-from photo.jpg \\
          --hole 64,64,96,128 --passes 8 --num 8
      img2tokens sample prior others --tokenizer tok --complete-from tokens#cat/0001 \\
          --mask mask.png --num 8
      img2tokens sample prior wide --tokenizer tok --size 256x1024 --num 2
      img2tokens sample prior ranked --tokenizer tok --label cat --samples-each 4 --best-of 32
      img2tokens sample prior many --num 50000 --num-workers 8
      img2tokens sample prior many --num 50000 --array-index 3 --array-size 16
      img2tokens sample prior many --num 50000 --device cuda --compile --batch-size 256
      img2tokens sample /shared/prior /shared/many --num 50000 --engine dask://10.0.0.5:8786
    """
    from cli.sampling_engines import SamplingEngine, carrier
    from pipelines.report import count
    from prior.windows import load_at_size
    settings = SamplingEngine(engine=options["engine"], num_workers=options["num_workers"],
                              beam_flags=options["beam_flags"])
    part = find_part(settings, options)
    carry = carrier(settings, prior, device, options["size"], out)
    loaded = load_at_size(prior, device, options["size"])
    decoders = load_decoders(tokenizers, loaded.config, device)
    num_images = draw(loaded, out, decoders, options, part, carry)
    where = f"; see {out}/grid.png" if decoders else ""
    click.echo(f"{count(num_images, 'image')} in {out}{where}" if num_images else
               f"{out}: this task of the array is done; shards are left to the others")


def find_part(settings: "SamplingEngine", options: dict[str, Any]) -> tuple[int, int] | None:
    """The part of the shards that the options of an array ask for, or nothing for all.

    Raises:
        click.UsageError: there is no such part.
        ValueError: an engine is asked for besides.
    """
    from pipelines.array import require_own_machine
    part = part_of(options["array_index"], options["array_size"])
    if part is None:
        return None
    require_own_machine(settings)
    if settings.num_workers > 1:
        raise click.UsageError("a task of an array draws in one process: leave out --num-workers")
    return part.index, part.size


def draw(prior: "Prior", out: str, codecs: "dict[str, Codec]", options: dict[str, Any],
         part: tuple[int, int] | None, carry: "Callable[[SampleJob], object] | None") -> int:
    """Sample, and decode when there are codecs; the number of images, 0 while some are missing.

    Args:
        part, carry: as `sample_corpus` takes them.
    """
    from prior.sampling import SamplingConfig, sample_corpus
    from tokenizer.bars import progress_bar
    config = SamplingConfig(num=options["num"], samples_each=options["samples_each"],
                            seed=options["seed"], generation=build_generation(options),
                            shard_size=options["shard_size"], best_of=options["best_of"] or 0,
                            likelihood=options["likelihood"])
    givens = find_givens(prior.config, codecs, options)
    if note := unseen_scale(prior, givens):
        click.echo(note, err=True)
    for name in codecs:
        if name not in (prior.config.target, *givens.conditions):
            raise click.UsageError(f"--tokenizer {name}= shows the {name} that samples are given, "
                                   "and none is given here: leave it out, or give --condition-from")
    with progress_bar(total=config.num_images(len(givens)), unit=" images", delay=0.5,
                      disable=carry is not None) as bar:  # the job on an engine has its own
        manifest = sample_corpus(prior, givens, out, config, bar.update, options["overwrite"],
                                 part, carry)
    if manifest is None:
        return 0
    if codecs:
        show(prior, givens, manifest, out, codecs, config)
    return manifest.num_rows


def show(prior: "Prior", givens: "Givens", manifest: "Manifest", out: str,
         codecs: "dict[str, Codec]", config: "SamplingConfig") -> None:
    """Write the pictures of a finished corpus of samples."""
    from prior.gallery import NUM_COLUMNS, write_gallery, write_surprise
    from tokenizer.tokens import TokenCorpus
    corpus = TokenCorpus(out, manifest)
    alike = min(manifest.num_rows, NUM_COLUMNS) if len(givens) == 1 else config.samples_each
    write_gallery(corpus, out, codecs, samples_each=alike,
                  originals=givens.originals, hole=givens.hole)
    if config.likelihood:
        write_surprise(prior, corpus, out, codecs[prior.config.target],
                       config.generation.batch_size)


def build_generation(options: dict[str, Any]) -> "Generation":
    """How the options ask for codes to be drawn."""
    from prior.generate import Generation
    return Generation(sampler=build_sampler(options), guidance=build_guidance(options),
                      batch_size=options["batch_size"], passes=options["passes"],
                      schedule=options["schedule"], compile=options["compile"])
