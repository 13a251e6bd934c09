"""``img2tokens train-prior``: train an autoregressive prior on a token corpus."""
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from cli.options import filters_rows, reports_errors
from cli.priors import load_decoders
from cli.threads import share_cores
from cli.values import CONDITION_NAME, IMAGE_COUNT, TOKENIZER_FOLDER, at_least

if TYPE_CHECKING:
    from prior.loading.config import Mixture
    from prior.model import PriorConfig
    from prior.state import TrainingConfig

RECIPES = ("tiny", "small", "medium", "gpt_25m", "gpt_111m", "gpt_343m", "gpt_775m", "gpt_1400m",
           "taming_305m", "taming_1400m")
"""Names in `prior.recipes.RECIPES`, written out so that help need not load torch."""


@click.command("train-prior")
@click.argument("tokens", nargs=-1, required=True, metavar="TOKENS[=WEIGHT]...")
@click.argument("out")
@click.option("--condition", "conditions", type=CONDITION_NAME, multiple=True,
              help="What samples can be given: label, coordinates (where in its image a crop "
                   "lies), or a modality of TOKENS; =DROPOUT says how often training leaves it "
                   "out. Repeatable.")
@click.option("--recipe", type=click.Choice(RECIPES), default="small", show_default=True,
              metavar="NAME", help="Named settings to start from: " + ", ".join(RECIPES) + ".")
@click.option("--steps", type=at_least(1), help="Optimiser steps to train.")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True),
              help="Minutes to train, over all runs; with --steps, whichever ends first.")
@click.option("--tokenizer", "tokenizers", type=TOKENIZER_FOLDER, multiple=True,
              help="Tokenizer of the images, to show samples while training; NAME=FOLDER for that "
                   "of a map.")
@click.option("--target", default="image", show_default=True, help="Modality to predict.")
@click.option("--drop-all", type=click.FloatRange(0, 1, max_open=True), default=0.1,
              show_default=True, help="How often all conditions are left out together.")
@click.option("--held-out", type=IMAGE_COUNT, default=0.05, show_default=True,
              help="Images kept out of training and measured: a count, or a share below 1.")
@click.option("--held-out-by", type=click.Choice(["hash", "name"]), default="hash",
              show_default=True,
              help="Choose them by hash of the key, or take the last by name (frames of a film).")
@click.option("--seed", type=at_least(0), help="Of weights and order.")
@click.option("--cache", metavar="FOLDER",
              help="Where the codes that are mapped into memory lie, which several trainings may "
                   "share; else below OUT.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE",
              help="Replace one setting: transformer.NAME or training.NAME. Repeatable.")
@filters_rows
@reports_errors
def train_prior(tokens: tuple[str, ...], out: str, tokenizers: tuple[tuple[str, str], ...],
                cache: str | None, **options: Any) -> None:
    """Train a prior on the codes of TOKENS, and write it to OUT.

    Of several TOKENS rows are taken as often as their weights say, 1 each unless given.

    Stopped with Ctrl-C or killed, the same command goes on from its last checkpoint.
    `tensorboard --logdir OUT` shows losses, bits per held-out code and samples.

    \b
    Examples:
      img2tokens train-prior tokens prior --minutes 3 --tokenizer tok
      img2tokens train-prior tokens prior --condition label --condition segmentation \\
          --minutes 15 --tokenizer tok --tokenizer tok-seg
      img2tokens train-prior tokens prior --recipe gpt_111m --condition label=0.1 \\
          --steps 100000 --set training.accumulation=4
      img2tokens train-prior photos=3 drawings=1 prior --minutes 60 --cache /scratch/codes
      img2tokens train-prior tokens prior --minutes 15 --filter 'class_name != "unknown"' \\
          --set training.loader.crops=one
      img2tokens train-prior tokens prior --minutes 15 --filter 'bucket == "192x320"'
    """
    if options["steps"] is None and options["minutes"] is None:
        raise click.UsageError("say how long to train: --steps N or --minutes M")
    share_cores()
    from prior.gallery import show
    from prior.training import train_prior as train
    mixture = open_mixture(tokens).of_one_grid(options["row_filter"])
    config, training = build_configs(mixture, options)
    pictures = {name: lambda codes, decoder=decoder: show(decoder, codes)
                for name, decoder in load_decoders(tokenizers, config, "cpu").items()}
    trained = train(mixture, out, config, training, pictures, cache=cache)
    click.echo(f"{trained.summary()}; prior in {out}")


def open_mixture(tokens: Sequence[str]) -> "Mixture":
    """The corpora at ``URL`` or ``URL=WEIGHT``; an existing folder is taken by its whole name.

    Raises:
        OSError, ValueError: there is no completed corpus, or a weight is none.
    """
    from prior.loading.config import Mixture
    from tokenizer.storage import exists
    from tokenizer.tokens import TokenCorpus
    urls, weights = [], []
    for text in tokens:
        url, separator, weight = text.rpartition("=")
        if not separator or exists(text):
            url, weight = text, "1"
        try:
            weights.append(float(weight))
        except ValueError:
            raise ValueError(f"{text} is no folder, and {weight} no weight: write "
                             f"{url}=0.5, or the folder alone") from None
        urls.append(url)
    return Mixture(tuple(map(TokenCorpus.open, urls)), tuple(weights))


def build_configs(mixture: "Mixture",
                  options: Mapping[str, Any]) -> "tuple[PriorConfig, TrainingConfig]":
    """The configs that a command's options describe for a corpus.

    Raises:
        ValueError: a name is unknown, or a value does not fit.
    """
    from prior.model import Condition, PriorConfig
    from prior.recipes import build_recipe
    from tokenizer.configs import override
    from tokenizer.splits import Split
    named = [f"training.{name}={options[name]}" for name in ("steps", "minutes", "seed")
             if options[name] is not None]
    recipe = override(build_recipe(options["recipe"]), [*options["settings"], *named])
    conditions = [Condition(name=name) if dropout is None else Condition(name=name, dropout=dropout)
                  for name, dropout in options["conditions"]]
    config = PriorConfig.of(
        mixture, conditions=conditions, drop_all=options["drop_all"], target=options["target"],
        split=Split(held_out=options["held_out"], by=options["held_out_by"]),
        row_filter=options["row_filter"], transformer=recipe.transformer, sequence=recipe.sequence)
    return config, recipe.training
