"""``img2tokens sample``: draw images from a prior."""
from typing import TYPE_CHECKING, Any

import click

from cli.options import reports_errors
from cli.priors import TokenizerFolder, load_decoders

if TYPE_CHECKING:
    from prior.givens import Givens
    from prior.model import Prior
    from prior.samplers import Sampler


@click.command()
@click.argument("prior")
@click.argument("out")
@click.option("--tokenizer", "tokenizers", type=TokenizerFolder(), multiple=True,
              help="Tokenizer of the images, to decode them; NAME=FOLDER for that of a map, to "
                   "show it beside its samples. Without any, only tokens are written.")
@click.option("--num", type=click.IntRange(min=1),
              help="Images to draw.  [default: --samples-each for each row of conditions]")
@click.option("--samples-each", type=click.IntRange(min=1), default=1, show_default=True,
              help="Images in a row that share their conditions.")
@click.option("--label", "labels", multiple=True, metavar="NAME|NUMBER",
              help="Class of the images. Repeatable: images take them in turn.")
@click.option("--condition-from", metavar="TOKENS",
              help="Token corpus whose rows give the conditions, each in turn.")
@click.option("--complete-from", metavar="TOKENS",
              help="Token corpus whose images are completed, with their conditions.")
@click.option("--keep", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.5,
              show_default=True, help="Share of an image kept for completion, from the top.")
@click.option("--held-out", is_flag=True,
              help="Only rows of TOKENS that the prior was not trained on.")
@click.option("--sampler", default="random", show_default=True, help="random, or greedy.")
@click.option("--temperature", type=click.FloatRange(min=0, min_open=True),
              help="Below 1 sharpens the distribution.  [default: 1]")
@click.option("--top-k", type=click.IntRange(min=1), help="Only the K most likely codes.")
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True),
              help="Only the fewest codes with this probability together.")
@click.option("--guidance", type=click.FloatRange(min=0), default=1.0, show_default=True,
              help="Above 1 follows the conditions more closely, at twice the work.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True,
              help="Images drawn at once.")
@click.option("--shard-size", type=click.IntRange(min=1), default=512, show_default=True,
              help="Images in one Parquet file.")
@click.option("--device", help="Where torch computes.  [default: cuda if there is one, else cpu]")
@click.option("--overwrite", is_flag=True, help="Start over in OUT; samples there are removed.")
@reports_errors
def sample(prior: str, out: str, tokenizers: tuple[tuple[str, str], ...], device: str | None,
           **options: Any) -> None:
    """Draw images from PRIOR into OUT: a token corpus, the images, and one grid of them.

    OUT can be inspected and decoded like any token corpus; each row's source says what it was
    conditioned on. The same command continues a job that was stopped.

    \b
    Examples:
      img2tokens sample prior samples --tokenizer tok --num 64
      img2tokens sample prior cats --tokenizer tok --label cat --num 16 --guidance 2
      img2tokens sample prior streets --tokenizer tok --tokenizer segmentation=tok-seg \\
          --condition-from tokens --held-out --samples-each 4 --num 64
      img2tokens sample prior halves --tokenizer tok --complete-from tokens --keep 0.5 --num 16
    """
    import torch

    from prior.model import Prior
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    loaded = Prior.load(prior, device)
    decoders = load_decoders(tokenizers, loaded.config, device)
    if decoders and loaded.config.target not in decoders:
        raise click.UsageError(f"give the tokenizer of the {loaded.config.target} codes too: "
                               "--tokenizer FOLDER")
    num_images = draw(loaded, out, decoders, options)
    where = f"; see {out}/grid.png" if decoders else ""
    click.echo(f"{num_images} images in {out}{where}")


def draw(prior: "Prior", out: str, decoders: dict[str, Any], options: dict[str, Any]) -> int:
    """Sample, and decode when there are decoders; the number of images."""
    from tqdm import tqdm

    from prior.gallery import write_gallery
    from prior.generate import Generation
    from prior.sampling import SamplingConfig, sample_corpus
    from tokenizer.tokens import TokenCorpus
    generation = Generation(sampler=build_sampler(options), guidance=options["guidance"],
                            batch_size=options["batch_size"])
    config = SamplingConfig(num=options["num"], samples_each=options["samples_each"],
                            seed=options["seed"], generation=generation,
                            shard_size=options["shard_size"])
    givens = find_givens(prior, options)
    for name in decoders:
        if name not in (prior.config.target, *givens.conditions):
            raise click.UsageError(f"--tokenizer {name}= shows the {name} that samples are given, "
                                   "and none is given here: leave it out, or give --condition-from")
    with tqdm(total=config.num_images(len(givens)), unit=" images") as bar:
        manifest = sample_corpus(prior, givens, out, config, bar.update, options["overwrite"])
    if decoders:
        write_gallery(TokenCorpus(out, manifest), out, decoders,
                      samples_each=config.samples_each, originals=givens.originals)
    return manifest.num_rows


def find_givens(prior: "Prior", options: dict[str, Any]) -> "Givens":
    """The rows of conditions that the options ask for."""
    from prior.givens import from_corpus, from_labels
    from tokenizer.tokens import TokenCorpus
    conditions, completions = options["condition_from"], options["complete_from"]
    if conditions and completions:
        raise click.UsageError("give --condition-from or --complete-from: images to complete bring "
                               "their own conditions")
    if not (conditions or completions):
        if options["held_out"]:
            raise click.UsageError("--held-out chooses rows of --condition-from or --complete-from")
        return from_labels(prior.config, options["labels"])
    return from_corpus(prior.config, TokenCorpus.open(conditions or completions),
                       labels=options["labels"], held_out=options["held_out"],
                       keep=options["keep"] if completions else None)


def build_sampler(options: dict[str, Any]) -> "Sampler":
    """The sampler that the options name, with its settings."""
    import dataclasses

    from prior.samplers import SAMPLERS
    name = options["sampler"]
    if name not in SAMPLERS:
        raise click.UsageError(f"no sampler is named {name!r}; known are {', '.join(SAMPLERS)}")
    settings = {setting: options[setting] for setting in ("temperature", "top_k", "top_p")
                if options[setting] is not None}
    known = {field.name for field in dataclasses.fields(SAMPLERS[name])}
    for setting in settings:
        if setting not in known:
            raise click.UsageError(f"the {name} sampler has no --{setting.replace('_', '-')}")
    return SAMPLERS[name](**settings)
