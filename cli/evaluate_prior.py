"""``img2tokens evaluate-prior``: bits of held-out codes, and what samples are like."""
from typing import TYPE_CHECKING, Any

import click

from cli.drawing import build_guidance, build_sampler, draws_codes
from cli.evaluate_tokenizer import tell_unreadable
from cli.options import filters_rows, refuse_given, reports_errors, takes_device
from cli.priors import load_decoders
from cli.sections import Sections
from cli.values import ESTIMATOR, TOKENIZER_FOLDER, at_least

if TYPE_CHECKING:
    from prior.model import PriorConfig
    from prior.report.evaluate import Sight
    from prior.report.realism import Batches
    from prior.sampling import SamplingConfig
    from tokenizer.codec import Codec

SECTIONS = {
    "What is measured": ("--limit", "--filter", "--samples", "--training", "--num-compared"),
    "How samples are drawn": ("--num", "--seed", "--sampler", "--temperature", "--top-k", "--top-p",
                              "--min-p", "--guidance", "--guidance-schedule", "--guidance-power"),
    "What looks at them": ("--tokenizer", "--inception", "--reference", "--estimator")}
"""Headings of the help."""

DRAWING = (*SECTIONS["How samples are drawn"], "--overwrite")
"""Options that say nothing of samples that are finished."""

READ_AT_ONCE = 64


@click.command("evaluate-prior", cls=Sections, sections=SECTIONS)
@click.argument("prior")
@click.argument("tokens")
@click.argument("out", required=False)
@click.option("--limit", type=at_least(1), default=1024, show_default=True,
              help="Held-out rows to measure, spread evenly over all of them.")
@filters_rows
@click.option("--samples", metavar="TOKENS",
              help="Finished samples of this prior, in place of new ones.")
@click.option("--training", metavar="TOKENS",
              help="What the prior was trained on, where the rows to measure are of another "
                   "corpus.")
@click.option("--num-compared", type=at_least(1), default=1024, show_default=True,
              help="Samples, and held-out rows, whose nearest row of training is looked for.")
@click.option("--num", type=at_least(1), default=256, show_default=True,
              help="Samples to draw, with the conditions of held-out rows in turn.")
@draws_codes
@click.option("--seed", type=at_least(0), default=0, show_default=True, help="Of the samples.")
@click.option("--tokenizer", "tokenizers", type=TOKENIZER_FOLDER, multiple=True,
              help="Folder of the tokenizer of the images, to see them, and of that of each map.")
@click.option("--inception", metavar="FILE",
              help="Inception of FID, pt_inception-2015-12-05-6726825d.pth: path, URL or hub id.")
@click.option("--reference", metavar="FOLDER",
              help="Images that samples should resemble for FID.  [default: the decoded held-out "
                   "rows]")
@click.option("--estimator", "estimators", type=ESTIMATOR, multiple=True,
              help="Function that reads a map off pictures, such as "
                   "segmentation=mymodule:segment; its code is run. Repeatable.")
@click.option("--batch-size", type=at_least(1), default=32, show_default=True,
              help="Rows read, and images drawn, at once.")
@takes_device
@click.option("--overwrite", is_flag=True, help="Start over with the samples in OUT.")
@reports_errors
def evaluate_prior(prior: str, tokens: str, out: str | None, **options: Any) -> None:
    """Measure PRIOR on rows of TOKENS that it was not trained on, and measure its samples.

    Of TOKENS that it was trained on these are the held-out rows; of them, unless --filter is given,
    those that the training's own filter takes.

    Prints a table and writes evaluation.json, where each figure stands with its conditions,
    evaluation.png with samples beside their maps and the nearest rows of training, and the samples
    as a token corpus, into OUT or PRIOR/evaluation. docs/evaluation.md says what each figure means.

    \b
    Examples:
      img2tokens evaluate-prior prior tokens
      img2tokens evaluate-prior prior tokens report --tokenizer tok --num 1000 --top-k 100 \\
          --inception pt_inception-2015-12-05-6726825d.pth --reference photos
      img2tokens evaluate-prior prior tokens --samples many --tokenizer tok --device cuda
      img2tokens evaluate-prior prior tokens --guidance 2 --tokenizer tok --tokenizer tok-seg \\
          --estimator segmentation=mymodule:segment
    """
    from prior.model import Prior
    from prior.report.evaluate import PriorEvaluationConfig
    from prior.report.evaluate import evaluate_prior as evaluate
    from tokenizer import storage
    from tokenizer.tokens import TokenCorpus
    if options["samples"]:
        refuse_given(DRAWING, "--samples are finished, and")
    out = out or storage.join(prior, "evaluation")
    loaded = Prior.load(prior, options["device"])
    codecs = load_decoders(options["tokenizers"], loaded.config, options["device"])
    config = PriorEvaluationConfig(
        limit=options["limit"], row_filter=options["row_filter"], samples=options["samples"],
        sampling=build_sampling(options), num_compared=options["num_compared"],
        batch_size=options["batch_size"], overwrite=options["overwrite"])
    training = options["training"] and TokenCorpus.open(options["training"])
    report = evaluate(loaded, prior, TokenCorpus.open(tokens), out, config,
                      build_sight(loaded.config, codecs, options), training)
    click.echo(f"{report.table()}\nreport in {out}")


def build_sampling(options: dict[str, Any]) -> "SamplingConfig":
    """How the options ask for samples to be drawn."""
    from prior.generate import Generation
    from prior.sampling import SamplingConfig
    return SamplingConfig(num=options["num"], seed=options["seed"], generation=Generation(
        sampler=build_sampler(options), guidance=build_guidance(options),
        batch_size=options["batch_size"]))


def build_sight(config: "PriorConfig", codecs: "dict[str, Codec]",
                options: dict[str, Any]) -> "Sight":
    """What the options give to look at samples.

    Raises:
        click.UsageError: options that do not go together.
    """
    from cli.estimators import find_estimators
    from prior.report.evaluate import Sight
    from prior.sequence import NOT_MAPS
    maps = [condition.name for condition in config.conditions if condition.name not in NOT_MAPS]
    for name in ("inception", "reference", "estimators"):
        if options[name] and config.target not in codecs:
            raise click.UsageError(f"--{name.removesuffix('s')} looks at pictures: give the "
                                   "tokenizer of the images, --tokenizer FOLDER")
    folder = options["reference"]
    if folder and not options["inception"]:
        raise click.UsageError("--reference is for FID: give --inception too")
    reference = (None if folder is None else
                 (read_pictures(folder, codecs[config.target]), f"images of {folder}"))
    return Sight(decoders=codecs, inception=options["inception"], reference=reference,
                 estimators=find_estimators(options["estimators"], codecs, maps))


def read_pictures(folder: str, codec: "Codec") -> "Batches":
    """Keys and pictures of the images of a folder, at the codec's size, some at a time.

    Those that cannot be read are named on standard error and left out.
    """
    from tokenizer.corpus.sources import open_source
    from tokenizer.evaluation.images import EvaluationImages
    source = open_source(folder, labels="none", modality=codec.modality.name)
    images = EvaluationImages(source, codec.modality, codec.spec.image_size)

    def batches() -> "Batches":
        yield from images.batches(READ_AT_ONCE)
        tell_unreadable(dict(sorted(images.unreadable.items())))
    return batches()
