"""``img2tokens train-tokenizer``: train a VQGAN on a folder of images or maps."""
import dataclasses
from typing import TYPE_CHECKING, Any

import click

from cli.options import reports_errors
from cli.threads import share_cores
from cli.values import IMAGE_COUNT, at_least

if TYPE_CHECKING:
    from tokenizer.recipes import TokenizerRecipe

RECIPES = ("tiny", "small_64", "small_128", "fast_f16", "f16_1024", "f16_16384",
           "f16_16384_cosine", "f8_16384", "f8_gumbel_8192", "f4_8192")
"""Names in `tokenizer.recipes.RECIPES`, written out so that help need not load torch."""


@click.command("train-tokenizer")
@click.argument("corpus")
@click.argument("out")
@click.option("--modality", show_default="image",
              help="What to learn: image, depth, segmentation or normals, which the files hold; "
                   "edges or low_res, computed from images.")
@click.option("--recipe", type=click.Choice(RECIPES), default="small_128", show_default=True,
              metavar="NAME", help="Named settings to start from: " + ", ".join(RECIPES) + ".")
@click.option("--init-from", metavar="TOKENIZER",
              help="Start from the weights of this tokenizer, trained or imported; modality and "
                   "model are its own, and --recipe gives the settings of training alone.")
@click.option("--steps", type=at_least(1), help="Optimiser steps to train.")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True),
              help="Minutes to train, over all runs; with --steps, whichever ends first.")
@click.option("--held-out", type=IMAGE_COUNT,
              help="Images kept out of training and measured: a count, or a share below 1.")
@click.option("--held-out-by", type=click.Choice(["hash", "name"]),
              help="Choose them by hash of the key, or take the last by name (frames of a film).")
@click.option("--seed", type=at_least(0), help="Of weights, order and crops.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE",
              help="Replace one setting: modality.NAME, model.NAME or training.NAME. Repeatable.")
@reports_errors
def train_tokenizer(corpus: str, out: str, modality: str | None, recipe: str,
                    init_from: str | None, settings: tuple[str, ...],
                    **options: int | float | str | None) -> None:
    """Train a tokenizer on the images or maps of CORPUS, and write it to OUT.

    CORPUS is a folder, or any other source that encode reads: see docs/sources.md.

    Stopped with Ctrl-C or killed, the same command goes on from its last checkpoint.
    `tensorboard --logdir OUT` shows losses, codebook usage and reconstructions.

    \b
    Examples:
      img2tokens train-tokenizer photos tok --recipe small_128 --minutes 15
      img2tokens train-tokenizer maps tok-seg --modality segmentation \\
          --set modality.num_classes=12 --set modality.ignore_id=11 --minutes 10
      img2tokens train-tokenizer depth tok-depth --modality depth --steps 2000 \\
          --set modality.range=0.5,80 --set modality.inverse=true
      img2tokens train-tokenizer 'shards/*.tar' tok --recipe small_128 --minutes 15
      img2tokens train-tokenizer photos tok-edges --modality edges --minutes 10
      img2tokens train-tokenizer photos tok --recipe f16_1024 --steps 100000 \\
          --set training.batch_size=32 --set training.mixed_precision=bf16
      img2tokens train-tokenizer photos tok-mine --init-from tok --minutes 30 \\
          --set training.optimizer.learning_rate=1e-5
    """
    if options["steps"] is None and options["minutes"] is None:
        raise click.UsageError("say how long to train: --steps N or --minutes M")
    share_cores()
    from tokenizer.training.loop import train_tokenizer as train
    named = [f"training.{name}={value}" for name, value in options.items() if value is not None]
    config = build_config(recipe, modality, [*settings, *named], init_from, out)
    trained = train(corpus, out, config.model, config.training, init_from)
    if not trained.is_first_process:
        return
    for url, problem in trained.unreadable.items():
        click.echo(f"left out {url}: {problem}", err=True)
    click.echo(f"{trained.summary()}; tokenizer in {out}")


def build_config(recipe: str, modality: str | None, settings: list[str],
                 init_from: str | None = None, out: str | None = None) -> "TokenizerRecipe":
    """A recipe with settings replaced.

    Args:
        recipe: its name.
        modality: name of the modality, or ``None`` for that of ``init_from``, or else ``image``.
        settings: ``modality.NAME=VALUE``, ``model.NAME=VALUE`` or ``training.NAME=VALUE``.
        init_from: folder of a tokenizer whose model takes the place of the recipe's.
        out: folder of the training; one of an early version goes on with its own modality.
    Raises:
        FileNotFoundError: ``init_from`` holds no tokenizer.
        ValueError: a name is unknown, a value wrong, or a setting of the modality missing.
    """
    from tokenizer import checkpoints
    from tokenizer.configs import override, parse_value
    from tokenizer.recipes import build_recipe
    from tokenizer.vqgan.model import KIND, VQGANConfig
    model = checkpoints.load_config(init_from, KIND, VQGANConfig) if init_from else VQGANConfig()
    modality = modality or model.modality["name"]
    pairs = [setting.partition("=") for setting in settings if setting.startswith("modality.")]
    is_given = init_from is not None and modality == model.modality["name"]
    own = {**(model.modality if is_given else _new_settings(modality, out)),
           **{name.partition(".")[2]: parse_value(text) for name, _, text in pairs}}
    _require_whole(own)
    chosen = build_recipe(recipe, own)
    if init_from:
        chosen = dataclasses.replace(chosen, model=dataclasses.replace(model, modality=own))
    others = [setting for setting in settings if not setting.startswith("modality.")]
    return override(chosen, others)


def _new_settings(modality: str, out: str | None) -> dict[str, Any]:
    """What a modality starts from: as new, or by the route of the training that goes on in ``out``,
    which may name none."""
    from tokenizer import checkpoints, storage
    from tokenizer.corpus.modalities import MODALITIES, new_settings
    from tokenizer.vqgan.model import KIND, VQGANConfig
    if modality not in MODALITIES:
        return {"name": modality}  # the recipe refuses it by name
    settings = new_settings(modality)
    if out is not None and storage.exists(storage.join(out, checkpoints.STATE)):
        begun = checkpoints.load_config(out, KIND, VQGANConfig).modality
        return {**{name: begun[name] for name in settings if name in begun}, "name": modality}
    return settings


def _require_whole(settings: dict[str, Any]) -> None:
    """Refuse settings of a modality that lack one without default, saying how to give it."""
    from tokenizer.corpus.modalities import MODALITIES
    modality = settings["name"]
    if modality in MODALITIES:
        for field in dataclasses.fields(MODALITIES[modality]):
            if field.default is dataclasses.MISSING and field.name not in settings:
                raise ValueError(f"{modality} has no default for {field.name}; give it as "
                                 f"--set modality.{field.name}=VALUE")
