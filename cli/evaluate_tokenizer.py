"""``img2tokens evaluate-tokenizer``: figures with their conditions, and pictures."""
from collections.abc import Mapping
from typing import Any

import click

from cli.options import reports_errors, takes_device
from cli.values import IMAGE_COUNT, at_least

MAX_LISTED = 10
"""Unreadable images named on standard error; all are in the JSON."""


@click.command("evaluate-tokenizer")
@click.argument("tokenizer")
@click.argument("corpus")
@click.option("--out", metavar="DIR",
              help="Folder for evaluation.json and examples.png.  [default: TOKENIZER/evaluation]")
@click.option("--precision", type=click.Choice(["float32", "bf16"]), default="float32",
              show_default=True,
              help="Arithmetic of the networks; bf16 also counts the codes that change.")
@click.option("--limit", type=at_least(1), metavar="N",
              help="Measure N images, spread evenly over the corpus.")
@click.option("--held-out", type=IMAGE_COUNT,
              help="Measure only what a training with this setting keeps out: a count, or a share "
                   "below 1.  [default: all images]")
@click.option("--held-out-by", type=click.Choice(["hash", "name"]), default="hash",
              show_default=True, help="How that training chooses them.")
@click.option("--lpips-vgg16", metavar="FILE",
              help="VGG16 of torchvision, vgg16-397923af.pth: path, URL or hub id.")
@click.option("--lpips-linear", metavar="FILE", help="Linear layers of LPIPS 0.1, vgg.pth.")
@click.option("--inception", metavar="FILE",
              help="Inception of FID, pt_inception-2015-12-05-6726825d.pth, for rFID.")
@click.option("--batch-size", type=at_least(1), default=8, show_default=True,
              help="Images that pass through the tokenizer at once.")
@click.option("--num-workers", type=at_least(1), default=1, show_default=True,
              help="Batches that do so at the same time, on one core each.")
@takes_device
@reports_errors
def evaluate_tokenizer(tokenizer: str, corpus: str, lpips_vgg16: str | None,
                       lpips_linear: str | None, inception: str | None, **options: Any) -> None:
    """Measure how well TOKENIZER reproduces the images or maps in the folder CORPUS.

    Prints a table and writes evaluation.json, where each figure stands with its conditions, and
    examples.png with the best, median and worst images above their reconstructions. Images that
    cannot be read are listed and left out. docs/evaluation.md says what each figure means.

    \b
    Examples:
      img2tokens evaluate-tokenizer tok photos
      img2tokens evaluate-tokenizer tok photos --held-out 0.05 --out report
      img2tokens evaluate-tokenizer tok photos --limit 500 --precision bf16
      img2tokens evaluate-tokenizer tok photos --device cuda --batch-size 64 \\
          --lpips-vgg16 vgg16-397923af.pth --lpips-linear vgg.pth \\
          --inception pt_inception-2015-12-05-6726825d.pth
    """
    from tokenizer.evaluation.evaluate import EvaluationConfig, destination
    from tokenizer.evaluation.evaluate import evaluate_tokenizer as evaluate
    from tokenizer.evaluation.measures import PretrainedFiles
    files = PretrainedFiles(lpips_vgg16=lpips_vgg16, lpips_linear=lpips_linear,
                            inception=inception)
    config = EvaluationConfig(tokenizer=tokenizer, corpus=corpus, files=files, **options)
    report = evaluate(config)
    tell_unreadable(report.unreadable)
    click.echo(f"{report.table()}\nreport in {destination(config)}")


def tell_unreadable(problems: Mapping[str, str]) -> None:
    """Name images that were left out, the first `MAX_LISTED`, and count the others."""
    for url, problem in list(problems.items())[:MAX_LISTED]:
        click.echo(f"left out {url}: {problem}", err=True)
    if len(problems) > MAX_LISTED:
        click.echo(f"left out {len(problems) - MAX_LISTED} more", err=True)
