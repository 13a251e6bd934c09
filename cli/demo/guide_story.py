"""``img2tokens demo --guide``: ten captions steer ten pictures, and what comes of it is measured.

A row of steps as in `cli.demo.story`: those that have finished are not run again.

    OUT/scenes/                  the corpus; see `cli.demo.scenes`
    OUT/tokenizers/image/        the tokenizer of ``img2tokens demo``
    OUT/clip/, OUT/judge/        the CLIP that guides, and one that takes no part in it
    OUT/guided/00/ ...           a token corpus for each prompt, with its curves and frames
    OUT/index.html               the page
    OUT/guided.png, course.png   the pictures, and how some of them came to be
"""
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cli.demo.clip import CUTOUTS, main
from cli.demo.guide_page import GUIDE_TEMPLATE
from cli.demo.page import Stage
from cli.demo.story import QUICK, DemoSettings, Step, draw_step, sets, tell_steps
from cli.demo.story import train_tokenizer as train_demo_tokenizer

PROMPTS = (
    "a village at noon, with two houses",
    "a village at dusk, with two houses and a tree",
    "a wood in the morning, with four trees",
    "a wood at dusk, with three trees",
    "a camp in the desert at noon, with two tents",
    "a camp in the desert at dusk, with a tent and a cactus",
    "a lake at noon, with three firs",
    "a lake at dusk, with two firs and a house",
    "a snowy field in the morning, with three firs",
    "the sky over fields at noon, with a balloon",
)
"""Captions of scenes, of every kind: four pairs differ in the light and in what stands there."""

CORPUS = DemoSettings(num_scenes=1500, held_out=100)
"""Fewer scenes than the demo's; its tokenizer."""


@dataclass(frozen=True, kw_only=True)
class GuideDemoSettings:
    """How large a demo of guidance is; the defaults take less than ten minutes on 2 CPU cores.

    Attributes:
        corpus: scenes, and the training of the tokenizer.
        most: scenes that the CLIPs learn from.
        clip_steps: training of the CLIP that guides, and of the judge.
        steps, cutouts, learning_rate: of each picture; see `clip_guidance.optimise`.
        frames: steps between two pictures that are kept.
        prompts: of the pictures.
    """
    corpus: DemoSettings = CORPUS
    most: int = 1000
    clip_steps: tuple[int, int] = (600, 200)
    steps: int = 200
    cutouts: int = 16
    learning_rate: float = 0.1
    frames: int = 20
    prompts: tuple[str, ...] = PROMPTS


QUICK_GUIDE = GuideDemoSettings(
    corpus=dataclasses.replace(QUICK, num_scenes=18, held_out=6, tokenizer_minutes=(0.01, 0, 0)),
    most=12, clip_steps=(2, 1), steps=4, cutouts=2, frames=2, prompts=PROMPTS[:3])
"""A rehearsal of all steps; for tests."""


def tell_guided(out: Path, settings: GuideDemoSettings, say: Callable[[str], object]) -> Path:
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
        from cli.demo.guided import gather_guided
        return gather_guided(out, len(settings.prompts), stages)
    return tell_steps(list_guide_steps(out, settings), out, settings, say, gathered,
                      GUIDE_TEMPLATE)


def list_guide_steps(out: Path, settings: GuideDemoSettings) -> list[Step]:
    """All steps in order."""
    corpus = settings.corpus
    return [
        draw_step(out, corpus),
        train_demo_tokenizer(out, corpus, "image", corpus.tokenizer_minutes[0]),
        _train_clip(out, settings, 0, "Train a CLIP to guide"),
        _train_clip(out, settings, 1, "Train another one to judge"),
        *(_guide(out, settings, number) for number in range(len(settings.prompts)))]


def _train_clip(out: Path, settings: GuideDemoSettings, seed: int, title: str) -> Step:
    name = ("clip", "judge")[seed]
    arguments = (str(out / "scenes"), str(out / "tokenizers" / "image"), str(out / name),
                 "--held-out", str(settings.corpus.held_out), "--most", str(settings.most),
                 "--steps", str(settings.clip_steps[seed]), "--seed", str(seed))
    return Step(name, title, arguments, program="python -m cli.demo.clip",
                work=lambda: main(list(arguments), standalone_mode=False))


def _guide(out: Path, settings: GuideDemoSettings, number: int) -> Step:
    chosen = [f"learning_rate={settings.learning_rate}",
              *(f"cutouts.{name}={value}" for name, value in CUTOUTS.items())]
    return Step(f"guide-{number:02d}", f"Guide a picture to its prompt ({number + 1})", (
        "guide", settings.prompts[number], str(out / "guided" / f"{number:02d}"),
        "--tokenizer", str(out / "tokenizers" / "image"), "--clip", str(out / "clip"),
        "--steps", str(settings.steps), "--cutouts", str(settings.cutouts),
        "--frames", str(settings.frames), *sets(chosen)))
