"""The demo of guidance: prompts that scenes have, commands that run as shown, and its page."""
import re
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner

from cli.demo import scenes, story
from cli.demo.clip import main as train_clip
from cli.demo.guide_story import PROMPTS, QUICK_GUIDE, GuideDemoSettings, list_guide_steps
from cli.main import main
from tokenizer.tokens import TokenCorpus


def captions(monkeypatch: pytest.MonkeyPatch, num: int) -> set[str]:
    """Captions of the corpus, without rendering it."""
    nothing = tuple(np.ones((1, 1)) for _ in range(3))
    monkeypatch.setattr(scenes, "render", lambda scene, size: nothing)
    return {scenes.draw(index).caption for index in range(num)}


def test_prompts_are_ten_captions_of_the_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(set(PROMPTS)) == 10
    assert set(PROMPTS) <= captions(monkeypatch, GuideDemoSettings().corpus.num_scenes)


@pytest.mark.parametrize("index", range(12))
def test_captions_name_what_the_maps_show(index: int) -> None:
    drawing = scenes.draw(index)
    shown = {scenes.LABELS[label] for label in np.unique(drawing.labels)}
    words = {"house": "house", "tent": "tent", "balloon": "balloon", "lake": "water",
             "tree": "tree", "fir": "tree", "cactus": "tree"}
    named = {label for word, label in words.items() if word in drawing.caption}
    assert named == shown - {"sky", "ground"}


def test_every_step_is_a_command_that_accepts_its_options() -> None:
    steps = list_guide_steps(Path("out"), GuideDemoSettings())
    assert [step.name for step in steps[:5]] == ["draw", "tokenizer-image", "clip", "judge",
                                                 "guide-00"]
    for step in steps[1:]:
        command = (train_clip if step.program.endswith("cli.demo.clip")
                   else main.get_command(click.Context(main), step.arguments[0]))
        assert command is not None
        arguments = list(step.arguments if command is train_clip else step.arguments[1:])
        command.make_context(step.arguments[0], arguments)


def test_a_rehearsal_ends_in_a_page_of_what_is_stored(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(story, "num_workers", lambda: 1)
    out = tmp_path / "guide"
    result = CliRunner().invoke(main, ["demo", str(out), "--guide", "--quick"])
    assert result.exit_code == 0, result.output
    html = (out / "index.html").read_text()
    assert "http" not in html and "<script" not in html
    assert html.count('class="own') == 2 * len(QUICK_GUIDE.prompts)
    assert re.search(r"[0-3] of 3</dt>\s*<dd>pictures closest", html)
    for number, prompt in enumerate(QUICK_GUIDE.prompts):
        table = next(iter(TokenCorpus.open(str(out / "guided" / f"{number:02d}")).tables()))
        assert table["caption"].to_pylist() == [prompt]
        assert f"{number + 1} · {prompt}" in html
    assert "python -m cli.demo.clip" in result.output
    again = CliRunner().invoke(main, ["demo", str(out), "--guide", "--quick"])
    assert again.exit_code == 0 and again.output.count("done before") == 7
