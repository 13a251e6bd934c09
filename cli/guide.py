"""``img2tokens guide``: images that a text steers."""
from typing import TYPE_CHECKING, Any

import click

from cli.options import reports_errors, takes_device
from cli.sampling_inputs import encode_files, find_hole, is_picture
from cli.values import BOX, SIZE

if TYPE_CHECKING:
    from tqdm import tqdm

    from clip_guidance.job import GuideConfig
    from clip_guidance.optimise import Guided, OptimiseConfig
    from clip_guidance.starts import Start
    from tokenizer.codec import Codec


@click.command()
@click.argument("prompt")
@click.argument("out")
@click.option("--tokenizer", required=True, metavar="FOLDER", help="Tokenizer of images.")
@click.option("--clip", required=True, metavar="FOLDER|ID",
              help="CLIP as transformers saves it, or its id on the Hugging Face hub, such as "
                   "openai/clip-vit-base-patch32.")
@click.option("--num", type=click.IntRange(min=1), default=1, show_default=True,
              help="Images to make, one after the other.")
@click.option("--size", type=SIZE, help="Height and width in pixels.  [default: the tokenizer's]")
@click.option("--start", metavar="FILE|TOKENS#KEY",
              help="Image file, or row of a token corpus, to start from.  [default: noise]")
@click.option("--hole", "holes", type=BOX, multiple=True, metavar="TOP,LEFT,HEIGHT,WIDTH",
              help="Of --start: the box, in pixels, that may change; the rest keeps its codes. "
                   "Repeatable.")
@click.option("--mask", metavar="FILE", help="Picture whose white part may change, likewise.")
@click.option("--steps", type=click.IntRange(min=1), help="Of the optimiser.  [default: 500]")
@click.option("--cutouts", type=click.IntRange(min=1), help="Parts of the image that CLIP sees at "
                                                            "each step.  [default: 32]")
@click.option("--cutout-batch", type=click.IntRange(min=1), metavar="N",
              help="Cutouts in memory at once; the result does not depend on it but for rounding.  "
                   "[default: all]")
@click.option("--set", "overrides", multiple=True, metavar="NAME=VALUE",
              help="Any other setting, such as learning_rate=0.2 or cutouts.noise=0; see "
                   "docs/guiding.md. Repeatable.")
@click.option("--frames", type=click.IntRange(min=0), default=0, metavar="N",
              help="Keep the image every N steps, and an animation of them.")
@click.option("--save-every", type=click.IntRange(min=1), default=50, show_default=True,
              help="Steps after which the same command can go on.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@takes_device
@click.option("--overwrite", is_flag=True,
              help="Start over in OUT; guided images there are removed.")
@reports_errors
def guide(prompt: str, out: str, tokenizer: str, clip: str, device: str,
          size: tuple[int, int] | None, overwrite: bool, **options: Any) -> None:
    """Make images of PROMPT into OUT: a token corpus, the images, and the course of each.

    PROMPT reads text[:weight[:stop]]; several are separated by |, and a negative weight leads away
    from its text. CLIP compares cutouts of the decoded image with it, and the latents follow; the
    same command continues a job that was stopped.

    \b
    Examples:
      img2tokens guide "a red house" houses --tokenizer tok --clip openai/clip-vit-base-patch32
      img2tokens guide "a lake:1" lakes --tokenizer tok --clip clip --num 4 --cutout-batch 8
      img2tokens guide "a wide street" street --tokenizer tok --clip clip --size 256x512 --frames 20
      img2tokens guide "a boat" boat --tokenizer tok --clip clip --start photo.jpg \\
          --hole 64,64,96,128
    """
    from clip_guidance.clip import Clip
    from clip_guidance.job import GuideConfig, Tokenizer, guide_corpus
    from clip_guidance.prompts import parse_prompts
    config = GuideConfig(prompts=parse_prompts(prompt), optimisation=build_optimisation(options),
                         **{name: options[name] for name in
                            ("num", "seed", "frames", "cutout_batch", "save_every")})
    loaded = Tokenizer.load(tokenizer, device, size)
    start = find_start(loaded.codec, options)
    judge = Clip.load(clip, device)
    with _Bar(config) as bar:
        manifest = guide_corpus(loaded, judge, out, config, start, bar.show, overwrite)
    click.echo(f"{manifest.num_rows} images in {out}; see {out}/images")


def build_optimisation(options: dict[str, Any]) -> "OptimiseConfig":
    """How the options ask for images to be made."""
    from clip_guidance.optimise import OptimiseConfig
    from tokenizer.configs import override
    named = {"num_steps": options["steps"], "cutouts.num": options["cutouts"]}
    return override(OptimiseConfig(), [
        *(f"{name}={value}" for name, value in named.items() if value is not None),
        *options["overrides"]])


def find_start(codec: "Codec", options: dict[str, Any]) -> "Start | None":
    """What the options ask to start from.

    Raises:
        click.UsageError: options that do not go together.
    """
    from clip_guidance.starts import Start, stored_codes
    from tokenizer.tokens import TokenCorpus
    source = options["start"]
    if source is None:
        if options["holes"] or options["mask"]:
            raise click.UsageError("--hole and --mask lie in the image of --start; give one")
        return None
    url, separator, key = source.partition("#")
    if is_picture(source):
        codes = encode_files(codec, [source])
    elif separator:
        codes = stored_codes(TokenCorpus.open(url), key, codec.spec)
    else:
        raise click.UsageError(f"--start takes an image file or TOKENS#KEY, got {source}")
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
