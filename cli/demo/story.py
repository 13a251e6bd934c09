"""The demo's steps: draw a corpus, then run the commands of img2tokens on it, one after the other.

Every step but the first is a command line, run as a user would run it and shown on the page as it
ran. A step that has finished is noted in ``OUT/demo.json`` and not run again; the commands go on by
themselves where they were stopped.

    OUT/scenes/                          the corpus; see `cli.demo.scenes`
    OUT/tokenizers/{image,depth,segmentation}/
    OUT/tokens/                          the token corpus
    OUT/priors/{classes,maps}/           the priors
    OUT/samples/{classes,maps,halves}/   what they were asked for
    OUT/decoded/                         the token corpus as pictures and maps again
    OUT/index.html                       the page
"""
import json
import os
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.demo.page import TEMPLATE, Stage, render
from cli.demo.scenes import CAPTIONS, KINDS, LABELS, damage, write_corpus
from tokenizer import configs, storage

PAGE, RECORD = "index.html", "demo.json"
MAPS = ("depth", "segmentation")
PRECISION = "training.mixed_precision=auto"


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """How large a demo is; the defaults take about ten minutes on 2 CPU cores.

    Attributes:
        num_scenes: scenes drawn.
        held_out: scenes that no training sees.
        tokenizer_minutes: training of the image, depth and segmentation tokenizers.
        prior_minutes: training of the prior by class and of the one by map.
        samples_each: samples for each class, and for each held-out map and half.
        recipes: of the tokenizers and of the priors.
        overrides: settings replaced in the recipes of the tokenizers, and of the priors.
    """
    num_scenes: int = 2000
    held_out: int = 72
    tokenizer_minutes: tuple[float, float, float] = (2.3, 0.7, 0.7)
    prior_minutes: tuple[float, float] = (2.5, 2.2)
    samples_each: tuple[int, int, int] = (8, 3, 3)
    recipes: tuple[str, str] = ("small_64", "small")
    overrides: tuple[tuple[str, ...], tuple[str, ...]] = (
        ("model.autoencoder.channel_multipliers=1", "model.autoencoder.width=64",
         "model.autoencoder.latent_channels=64", "model.quantizer.codebook_size=512",
         "training.crop_share=1", "training.colours=0"),
        ("training.batch_size=8",))


QUICK = DemoSettings(num_scenes=48, held_out=12, tokenizer_minutes=(0.05, 0.03, 0.03),
                     prior_minutes=(0.03, 0.03), samples_each=(2, 2, 2), recipes=("tiny", "tiny"),
                     overrides=((), ()))
"""A rehearsal of all steps, far too short to learn anything; for tests."""


@dataclass(frozen=True)
class Step:
    """A step of a demo.

    Attributes:
        name: in the record.
        title: for people.
        arguments: of the command line that does the same; none where there is no such command.
        work: what runs; the command of img2tokens, if nothing else.
        program: what the arguments are given to.
    """
    name: str
    title: str
    arguments: tuple[str, ...] = ()
    work: Callable[[], object] | None = None
    program: str = "img2tokens"

    @property
    def command(self) -> str:
        """The command line as typed, or nothing."""
        return f"{self.program} {shlex.join(self.arguments)}" if self.arguments else ""

    def run(self) -> None:
        """Do it.

        Raises:
            click.ClickException: it failed; the message says why.
        """
        if self.work is not None:
            self.work()
        else:
            run_command(self.arguments)


def tell(out: Path, settings: DemoSettings, say: Callable[[str], object]) -> Path:
    """Run what is left to run, and write the page.

    Args:
        out: folder of the demo; a demo that was stopped there goes on.
        say: told what happens, a line at a time.
    Returns:
        The page.
    Raises:
        ValueError: the folder holds something else, or a demo with other settings.
    """
    def gathered(stages: list[Stage]) -> object:
        from cli.demo.exhibits import gather
        return gather(out, settings.held_out, stages)
    return tell_steps(list_steps(out, settings), out, settings, say, gathered)


def tell_steps(steps: Sequence[Step], out: Path, settings: Any, say: Callable[[str], object],
               gather: Callable[[list[Stage]], object], template: str = TEMPLATE) -> Path:
    """Run what is left of a row of steps, and write the page of it.

    Args:
        settings: as `carry_out` takes them.
        gather: what the template shows, from the steps and their seconds.
        template: of the page.
    Returns:
        The page.
    """
    num_all = len(steps) + 1
    seconds = carry_out(steps, out, settings, say, num_all)
    say(f"\n[{num_all}/{num_all}] Put the page together")
    page = gather([Stage(step.title, seconds[step.name], step.command) for step in steps])
    storage.write_bytes(str(out / PAGE), render(page, template).encode())
    return out / PAGE


def make_tokens(out: Path, settings: DemoSettings, say: Callable[[str], object]) -> Path:
    """Run the steps up to the token corpus alone; `tell` goes on from there.

    Args:
        out, settings, say: as `tell` takes them.
    Returns:
        The folder of the token corpus.
    """
    steps = list_steps(out, settings)
    last = [step.name for step in steps].index("encode")
    carry_out(steps[:last + 1], out, settings, say, num_all=last + 1)
    return out / "tokens"


def carry_out(steps: Sequence[Step], out: Path, settings: Any,
              say: Callable[[str], object], num_all: int) -> dict[str, float]:
    """Run what is left of some steps; the seconds that each took, by name.

    Args:
        settings: dataclass of all that the steps depend on, kept in the record.
        num_all: steps there are with those that follow.
    """
    # Torch reads this when it loads. By default its threads wait for each other in busy loops, and
    # on a machine that does anything else beside it, training is then many times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    record = _Record(out, settings)
    for number, step in enumerate(steps, start=1):
        say(f"\n[{number}/{num_all}] {step.title}")
        if step.name in record.seconds:
            say("  done before")
            continue
        started = time.monotonic()
        if step.command:
            say(f"  {step.command}")
        step.run()
        record.finish(step.name, time.monotonic() - started)
    return record.seconds


def list_steps(out: Path, settings: DemoSettings) -> list[Step]:
    """All steps in order."""
    paths = {name: str(out / name) for name in ("tokens", "decoded")}
    tokenizers = {name: str(out / "tokenizers" / name) for name in ("image", *MAPS)}
    named = [part for name, path in tokenizers.items()
             for part in ("--tokenizer", f"{name}={path}")]
    maps = [part for name in MAPS for part in ("--maps", f"{name}={out / 'scenes' / name}")]
    workers = ("--num-workers", str(num_workers()))
    encode = ("encode", str(out / "scenes" / "images"), paths["tokens"], *named, *maps,
              "--labels", str(out / "scenes" / CAPTIONS), "--shard-size", "256", *workers)
    return [
        draw_step(out, settings),
        *(train_tokenizer(out, settings, name, minutes) for name, minutes
          in zip(tokenizers, settings.tokenizer_minutes, strict=True)),
        Step("encode", "Encode pictures and maps into one token corpus", encode),
        Step("inspect", "Check every shard", ("inspect", paths["tokens"], "--verify")),
        *(_train_prior(out, settings, *terms) for terms in (
            ("classes", "label", settings.prior_minutes[0]),
            ("maps", "segmentation", settings.prior_minutes[1]))),
        *_samples(out, settings),
        Step("decode", "Decode the token corpus", (
            "decode", paths["tokens"], paths["decoded"], *named, *workers)),
    ]


def draw_step(out: Path, settings: DemoSettings) -> Step:
    """Draw the corpus."""
    return Step("draw", "Draw the corpus",
                work=lambda: draw_corpus(out / "scenes", settings.num_scenes))


def train_tokenizer(out: Path, settings: DemoSettings, modality: str, minutes: float) -> Step:
    """Train the tokenizer of one modality on the corpus."""
    folder = out / "scenes" / ("images" if modality == "image" else modality)
    own = (f"modality.num_classes={len(LABELS)}",) if modality == "segmentation" else ()
    return Step(f"tokenizer-{modality}", f"Train the {modality} tokenizer", (
        "train-tokenizer", str(folder), str(out / "tokenizers" / modality),
        "--modality", modality, "--recipe", settings.recipes[0], "--minutes", str(minutes),
        "--held-out", str(settings.held_out), *sets((*own, *settings.overrides[0], PRECISION))))


def _train_prior(out: Path, settings: DemoSettings, name: str, condition: str,
                 minutes: float) -> Step:
    return Step(f"prior-{name}", f"Train a prior on the stored codes, by {condition}", (
        "train-prior", str(out / "tokens"), str(out / "priors" / name), "--condition", condition,
        "--recipe", settings.recipes[1], "--minutes", str(minutes),
        "--held-out", str(settings.held_out), *sets((*settings.overrides[1], PRECISION))))


def _samples(out: Path, settings: DemoSettings) -> list[Step]:
    tokens = str(out / "tokens")
    tokenizer = ("--tokenizer", str(out / "tokenizers" / "image"))
    labels = [part for kind in KINDS for part in ("--label", kind)]
    by_class, by_map, by_half = settings.samples_each
    asked = {
        "classes": ("Sample by class", "classes", (
            *labels, "--samples-each", str(by_class), "--temperature", "0.9", "--guidance", "2.5")),
        "maps": ("Sample by segmentation map", "maps", (
            "--condition-from", tokens, "--held-out", "--samples-each", str(by_map),
            "--temperature", "0.85", "--guidance", "1.7")),
        "halves": ("Complete half pictures", "classes", (
            "--complete-from", tokens, "--held-out", "--samples-each", str(by_half),
            "--temperature", "0.9")),
    }
    return [Step(f"samples-{name}", title, (
        "sample", str(out / "priors" / prior), str(out / "samples" / name), *tokenizer, *arguments))
        for name, (title, prior, arguments) in asked.items()]


def sets(overrides: Sequence[str]) -> list[str]:
    """Settings of a recipe as options of a command line."""
    return [part for setting in overrides for part in ("--set", setting)]


def draw_corpus(folder: Path, num_scenes: int) -> None:
    """Draw the corpus with a progress bar, and damage a few extra files in it."""
    from tokenizer.bars import progress_bar
    for _ in progress_bar(write_corpus(folder, num_scenes, num_workers=num_workers()),
                          total=num_scenes, unit=" scenes"):
        pass
    damage(folder)


def run_command(arguments: tuple[str, ...]) -> None:
    """Run a command of img2tokens in this process.

    Raises:
        click.ClickException: it failed; the message says why.
    """
    from cli.main import main
    main(list(arguments), prog_name="img2tokens", standalone_mode=False)


def num_workers() -> int:
    """Processes that draw, encode and decode at the same time: one for each of up to 4 cores."""
    return min(4, os.cpu_count() or 1)


class _Record:
    """``demo.json``: the settings of a demo, and the steps that have finished, with their time."""

    def __init__(self, out: Path, settings: Any) -> None:
        self.path, self.settings = out / RECORD, configs.to_dict(settings)
        self.seconds: dict[str, float] = {}
        if self.path.exists():
            data = json.loads(self.path.read_text())
            if data["settings"] != self.settings:
                raise ValueError(f"{out} holds a demo with other settings; delete the folder to "
                                 "start over, or give another one")
            self.seconds = data["seconds"]
        elif out.exists() and any(out.iterdir()):
            raise ValueError(f"{out} holds other files; give a folder that is empty or new")
        else:
            self._write()

    def finish(self, name: str, seconds: float) -> None:
        """Note a step that has finished."""
        self.seconds[name] = round(seconds, 1)
        self._write()

    def _write(self) -> None:
        data = {"settings": self.settings, "seconds": self.seconds}
        storage.write_bytes(str(self.path), (json.dumps(data, indent=1) + "\n").encode())
