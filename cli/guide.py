"""``img2tokens guide``: images that a text steers."""
from typing import TYPE_CHECKING, Any

import click

from cli.options import reports_errors, takes_device
from cli.sampling_inputs import encode_files, find_hole, is_picture
from cli.sections import Sections
from cli.values import BOX, BYTES, SIZE, at_least

if TYPE_CHECKING:
    from tqdm import tqdm

    from clip_guidance.job import GuideConfig
    from clip_guidance.likelihood import GuidingPrior
    from clip_guidance.optimise import Guided, OptimiseConfig
    from clip_guidance.starts import SampledStart, Start
    from tokenizer.codec import Codec


PRIOR = "prior"
"""Value of ``--start``: samples of ``--prior``."""

SECTIONS = {
    "What is asked for": ("--then", "--every", "--num", "--size", "--seed"),
    "What judges": ("--clip", "--prior", "--prior-weight", "--label", "--condition-from"),
    "Start, and what is kept": ("--start", "--hole", "--mask"),
    "Steps": ("--steps", "--cutouts", "--cutout-batch", "--memory-limit", "--set", "--frames",
              "--save-every")}
"""Headings of the help."""


@click.command(cls=Sections, sections=SECTIONS)
@click.argument("prompt")
@click.argument("out")
@click.option("--tokenizer", required=True, metavar="FOLDER", help="Tokenizer of images.")
@click.option("--clip", required=True, metavar="FOLDER|ID",
              help="CLIP as transformers saves it, or its id on the Hugging Face hub, such as "
                   "openai/clip-vit-base-patch32.")
@click.option("--then", "chapters", multiple=True, metavar="PROMPT",
              help="What takes the place of PROMPT after a part of the steps. Repeatable, for a "
                   "story.")
@click.option("--every", type=at_least(1),
              help="Of --then: steps of each prompt before the next; the last stays.  [default: "
                   "an equal part of all]")
@click.option("--num", type=at_least(1), default=1, show_default=True,
              help="Images to make, one after the other.")
@click.option("--size", type=SIZE, help="Height and width in pixels.  [default: the tokenizer's]")
@click.option("--start", metavar="FILE|TOKENS#KEY|prior",
              help="Image file, row of a token corpus, or samples of --prior to start from.  "
                   "[default: noise]")
@click.option("--hole", "holes", type=BOX, multiple=True, metavar="TOP,LEFT,HEIGHT,WIDTH",
              help="Of --start: the box that may change, in pixels of the image as it is cropped "
                   "and scaled; the rest keeps its codes. Repeatable.")
@click.option("--mask", metavar="FILE",
              help="Picture whose white part may change; it is cropped and scaled like --start.")
@click.option("--prior", "prior_url", metavar="FOLDER",
              help="A prior over the codes of the tokenizer, for --start prior or --prior-weight.")
@click.option("--prior-weight", type=click.FloatRange(min=0, min_open=True), metavar="W",
              help="Add W times the bits that --prior needs for a code to the loss.")
@click.option("--label", "labels", multiple=True, metavar="NAME|NUMBER",
              help="What --prior is given: a class. Repeatable: images take them in turn.")
@click.option("--condition-from", metavar="TOKENS[#KEY]",
              help="Token corpus whose rows give --prior its conditions, each in turn, or those of "
                   "one key.")
@click.option("--steps", type=at_least(1), help="Of the optimiser.  [default: 500]")
@click.option("--cutouts", type=at_least(1), help="Parts of the image that CLIP sees at "
                                                            "each step.  [default: 32]")
@click.option("--cutout-batch", type=at_least(1),
              help="Cutouts in memory at once; the result does not depend on it but for rounding.  "
                   "[default: all]")
@click.option("--memory-limit", type=BYTES, help="Choose --cutout-batch, and whether the decoder "
                                                 "computes its features twice, so that so much "
                                                 "memory suffices, such as 2GiB.")
@click.option("--set", "overrides", multiple=True, metavar="NAME=VALUE",
              help="Any other setting, such as learning_rate=0.2 or cutouts.noise=0; see "
                   "docs/guiding.md. Repeatable.")
@click.option("--frames", type=at_least(0), default=0,
              help="Keep the image every N steps, and an animation of them.")
@click.option("--save-every", type=at_least(1), default=50, show_default=True,
              help="Steps after which the same command can go on.")
@click.option("--seed", type=at_least(0), default=0, show_default=True)
@takes_device
@click.option("--overwrite", is_flag=True,
              help="Start over in OUT; guided images there are removed.")
@reports_errors
def guide(prompt: str, out: str, tokenizer: str, clip: str, device: str,
          size: tuple[int, int] | None, overwrite: bool, **options: Any) -> None:
    """Make images of PROMPT into OUT: a token corpus, the images, and the course of each.

    PROMPT reads text[:weight[:stop]], or @FILE[:weight[:stop]] of an image file; several are
    separated by |, and a negative weight leads away. CLIP compares cutouts of the decoded image
    with it, and the latents follow; the same command continues a job that was stopped.

    \b
    Examples:
      img2tokens guide "a red house" houses --tokenizer tok --clip openai/clip-vit-base-patch32
      img2tokens guide "a lake:1" lakes --tokenizer tok --clip clip --num 4 --cutout-batch 8
      img2tokens guide "a wide street" street --tokenizer tok --clip clip --size 256x512 --frames 20
      img2tokens guide "a lake in spring" year --tokenizer tok --clip clip \\
          --then "a lake in autumn" --then "a lake in winter:1 | green:-0.5" --every 150
      img2tokens guide "@painting.jpg:0.5 | a red house" styled --tokenizer tok --clip clip
      img2tokens guide "a boat" boat --tokenizer tok --clip clip --start photo.jpg \\
          --hole 64,64,96,128
      img2tokens guide "a cat" cat --tokenizer tok --clip clip --prior prior --label cat \\
          --start prior --prior-weight 0.05
    """
    from clip_guidance.clip import Clip
    from clip_guidance.job import GuideConfig, Tokenizer, guide_corpus
    from clip_guidance.prompts import tell_story
    from pipelines.report import count
    if options["every"] and not options["chapters"]:
        raise click.UsageError("--every says when the prompts of --then follow; give one")
    optimisation = build_optimisation(options)
    prompts = tell_story((prompt, *options["chapters"]), optimisation.num_steps, options["every"])
    config = GuideConfig(prompts=prompts, optimisation=optimisation,
                         **{name: options[name] for name in
                            ("num", "seed", "frames", "cutout_batch", "memory_limit",
                             "save_every")})
    loaded = Tokenizer.load(tokenizer, device, size)
    guiding = find_prior(device, options)
    start = find_start(loaded.codec, guiding, options)
    judge = Clip.load(clip, device)
    with _Bar(config) as bar:
        manifest = guide_corpus(loaded, judge, out, config, start, bar.show, overwrite,
                                guiding)
    click.echo(f"{count(manifest.num_rows, 'image')} in {out}; see {out}/images")


def build_optimisation(options: dict[str, Any]) -> "OptimiseConfig":
    """How the options ask for images to be made."""
    from clip_guidance.optimise import OptimiseConfig
    from tokenizer.configs import override
    named = {"num_steps": options["steps"], "cutouts.num": options["cutouts"]}
    return override(OptimiseConfig(), [
        *(f"{name}={value}" for name, value in named.items() if value is not None),
        *options["overrides"]])


def find_prior(device: str, options: dict[str, Any]) -> "GuidingPrior | None":
    """The prior that the options name, with what it is given.

    Raises:
        click.UsageError: options that do not go together.
    """
    from clip_guidance.likelihood import GuidingPrior
    from prior.givens import from_corpus, from_labels
    from prior.model import Prior
    from tokenizer.tokens import TokenCorpus
    url, weight, rows = (options[name] for name in ("prior_url", "prior_weight", "condition_from"))
    if url is None:
        if weight or rows or options["labels"] or options["start"] == PRIOR:
            raise click.UsageError("--start prior, --prior-weight, --label and --condition-from "
                                   "are about a prior; give --prior")
        return None
    if weight is None and options["start"] != PRIOR:
        raise click.UsageError("--prior acts by --start prior or --prior-weight; give one or both")
    loaded = Prior.load(url, device)
    if rows is None:
        givens = from_labels(loaded.config, options["labels"])
    else:
        folder, _, key = rows.partition("#")
        givens = from_corpus(loaded.config, TokenCorpus.open(folder), labels=options["labels"],
                             key=key or None)
    return GuidingPrior(prior=loaded, givens=givens, weight=weight or 0.0)


def find_start(codec: "Codec", guiding: "GuidingPrior | None",
               options: dict[str, Any]) -> "Start | SampledStart | None":
    """What the options ask to start from.

    Raises:
        click.UsageError: options that do not go together.
    """
    from clip_guidance.starts import SampledStart, Start, stored_codes
    from tokenizer.tokens import TokenCorpus
    source = options["start"]
    if source in (None, PRIOR):
        if options["holes"] or options["mask"]:
            raise click.UsageError("--hole and --mask lie in the image of --start; give a file or "
                                   "a row")
        return None if guiding is None or source is None else SampledStart(prior=guiding)
    url, separator, key = source.partition("#")
    if is_picture(source):
        codes = encode_files(codec, [source])
    elif separator:
        codes = stored_codes(TokenCorpus.open(url), key, codec.spec)
    else:
        raise click.UsageError(f"--start takes an image file, TOKENS#KEY or {PRIOR}, got {source}")
    return Start(name=source, codes=codes, free=find_hole(codec.spec, options))


class _Bar:
    """A progress bar over the steps of all images, with the similarity to the first prompt."""

    def __init__(self, config: "GuideConfig") -> None:
        self._num_images, self._num_steps = config.num, config.optimisation.num_steps
        self._bar: tqdm[Any] | None = None  # begins with the first step: errors come before

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, index: int, guided: "Guided") -> None:
        """Show how an image stands."""
        from tokenizer.bars import progress_bar
        if self._bar is None:
            self._bar = progress_bar(total=self._num_images * self._num_steps, unit=" steps")
        taken = min(len(guided.records), self._num_steps)
        self._bar.update(index * self._num_steps + taken - self._bar.n)
        if guided.records:
            self._bar.set_postfix(image=index + 1,
                                  similarity=f"{guided.records[-1].similarity:.3f}")
