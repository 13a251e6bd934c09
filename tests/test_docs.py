"""What the README and the help pages tell people to type can be typed."""
import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from cli.main import COMMANDS, main

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def lines_of(text: str) -> list[list[str]]:
    """Command lines ``img2tokens COMMAND ...`` in a text, split into words."""
    joined = re.sub(r"\\\n\s*", " ", text)
    names = "|".join(COMMANDS)
    rest = r"""(?:[^\n#|"']|"[^"\n]*"|'[^'\n]*')*"""  # up to a comment or a pipe, not one in quotes
    found = re.findall(rf"^\s*(img2tokens (?:{names})\b{rest})", joined, re.MULTILINE)
    return [shlex.split(line)[1:] for line in found if "..." not in line]


def documented() -> list[list[str]]:
    """All command lines of the pages, of the main help and of each command's help."""
    texts = [page.read_text() for page in PAGES]
    for words in [[], *([name] for name in COMMANDS)]:
        context = click.Context(main, info_name="img2tokens")
        command: click.Command | None = main
        for word in words:
            command = main.get_command(context, word)
        assert command is not None and command.help
        texts.append(command.help)
    return [line for text in texts for line in lines_of(text)]


@pytest.mark.parametrize("words", documented(), ids=" ".join)
def test_a_documented_command_is_one(words: list[str]) -> None:
    command = main.get_command(click.Context(main), words[0])
    assert command is not None
    with command.make_context(words[0], list(words[1:])) as context:
        if words[0].startswith("train-"):
            assert context.params["steps"] or context.params["minutes"]


def test_every_command_is_documented_with_an_example() -> None:
    assert {words[0] for words in documented()} == set(COMMANDS)


def test_wrong_usage_exits_with_2() -> None:
    assert CliRunner().invoke(main, ["encode", "photos"]).exit_code == 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_project_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


def test_the_readme_leads_to_every_page() -> None:
    linked = set(re.findall(r"\]\((docs/[^)#]+\.md)\)", PAGES[0].read_text()))
    assert linked == {f"docs/{page.name}" for page in PAGES[1:]}
