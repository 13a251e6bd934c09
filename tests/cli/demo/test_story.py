"""The demo's steps: in order, never twice, each a command that runs as it is shown."""
import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from cli.demo.scenes import DAMAGED, KINDS
from cli.demo.story import QUICK, DemoSettings, list_steps, num_workers, run_command, tell
from cli.main import main


def test_steps_go_from_drawing_to_decoding() -> None:
    names = [step.name for step in list_steps(Path("out"), DemoSettings())]
    assert names == ["draw", "tokenizer-image", "tokenizer-depth", "tokenizer-segmentation",
                     "encode", "inspect", "prior-classes", "prior-maps",
                     "samples-classes", "samples-maps", "samples-halves", "decode"]


def test_commands_are_shown_as_a_shell_takes_them() -> None:
    steps = list_steps(Path("my demo"), DemoSettings())
    assert steps[1].command.startswith("img2tokens train-tokenizer 'my demo/scenes/images' ")


def test_every_step_is_a_command_that_accepts_its_options() -> None:
    for step in list_steps(Path("out"), DemoSettings())[1:]:
        command = main.get_command(click.Context(main), step.arguments[0])
        assert command is not None
        command.make_context(step.arguments[0], list(step.arguments[1:]))


def test_some_process_draws_and_encodes() -> None:
    assert 1 <= num_workers() <= 4


def test_a_failing_command_says_why(tmp_path: Path) -> None:
    with pytest.raises(click.ClickException, match="no completed token corpus"):
        run_command(("inspect", str(tmp_path)))


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("dear")
    with pytest.raises(ValueError, match="holds other files"):
        tell(tmp_path, QUICK, lambda line: None)


def test_a_demo_with_other_settings_is_refused(tmp_path: Path) -> None:
    record = {"settings": {"num_scenes": 7}, "seconds": {}}
    (tmp_path / "demo.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="other settings"):
        tell(tmp_path, QUICK, lambda line: None)


@pytest.mark.slow
def test_quick_demo_makes_a_page_and_does_nothing_twice(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    first = CliRunner().invoke(main, ["demo", str(out), "--quick"])
    assert first.exit_code == 0, first.output
    assert first.stdout.splitlines()[-1].startswith("Done. Open file://")
    html = (out / "index.html").read_text()
    assert "http" not in html and "<script" not in html
    for text in (*KINDS, *DAMAGED, "MissingMap", "SizeMismatch", "UnreadableImage"):
        assert text in html
    again = CliRunner().invoke(main, ["demo", str(out), "--quick"])
    assert again.exit_code == 0, again.output
    assert again.output.count("done before") == 12
