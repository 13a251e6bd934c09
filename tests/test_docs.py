"""What README and help tell people to type can be typed, and what pages name is there."""
import dataclasses
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from cli.guide import build_optimisation
from cli.main import COMMANDS, main
from cli.train_tokenizer import build_config

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
ROOMS = "tokenizer|pipelines|prior|clip_guidance|cli|benchmarks|tests|docs"
OTHERS_OPTIONS = {"--code-path", "--logdir", "--cpu-time", "--corpus", "--runner"}
"""Options in prose that are of LlamaGen, TensorBoard, our benchmarks and Beam."""


def lines_of(text: str) -> list[list[str]]:
    """Command lines ``img2tokens COMMAND ...`` in a text, split into words."""
    joined = re.sub(r"\\\n\s*", " ", text)
    names = "|".join(COMMANDS)
    rest = r"""(?:[^\n#|"']|"[^"\n]*"|'[^'\n]*')*"""  # up to a comment or a pipe, not one in quotes
    found = re.findall(rf"^\s*(img2tokens (?:{names})\b{rest})", joined, re.MULTILINE)
    return [shlex.split(line)[1:] for line in found if "..." not in line]


def command_of(name: str) -> click.Command:
    """The command of this name, with its options."""
    command = main.get_command(click.Context(main), name)
    assert command is not None and command.help
    return command


def texts() -> Iterator[str]:
    """The pages, the main help and each command's help."""
    yield from (page.read_text() for page in PAGES)
    yield main.help or ""
    yield from (command_of(name).help or "" for name in COMMANDS)


def documented() -> list[list[str]]:
    """All command lines of these."""
    return [line for text in texts() for line in lines_of(text)]


def code_of(page: Path) -> list[str]:
    """What stands between single backticks, and each fenced block."""
    text = page.read_text()
    return [*re.findall(r"`([^`]+)`", FENCE.sub("", text)), *FENCE.findall(text)]


def anchors_of(page: Path) -> set[str]:
    """What links call the headings of a page, by GitHub's rule."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")
            for heading in headings}


def names_of(value: Any, prefix: str) -> Iterator[str]:
    """Dotted names of all settings of a config, and of the configs in it."""
    yield prefix
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from names_of(inner, f"{prefix}.{name}")


def known_settings() -> set[str]:
    """Names that ``--set`` takes for a tokenizer, a prior and guidance."""
    from clip_guidance.optimise import OptimiseConfig
    from prior.recipes import build_recipe
    from tokenizer.corpus.modalities import MODALITIES
    recipes = [dataclasses.asdict(build_config("tiny", "image", [])),
               dataclasses.asdict(build_recipe("tiny")), dataclasses.asdict(OptimiseConfig())]
    found = {name for recipe in recipes for key, value in recipe.items()
             for name in names_of(value, key)}
    fields = {field.name for kind in MODALITIES.values() for field in dataclasses.fields(kind)}
    return found | {f"modality.{name}" for name in fields}


@pytest.mark.parametrize("words", documented(), ids=" ".join)
def test_a_documented_command_is_one(words: list[str]) -> None:
    with command_of(words[0]).make_context(words[0], list(words[1:])) as context:
        if words[0].startswith("train-"):
            assert context.params["steps"] or context.params["minutes"]


@pytest.mark.parametrize("words", [words for words in documented() if "--set" in words],
                         ids=" ".join)
def test_settings_of_a_documented_command_are_taken(words: list[str]) -> None:
    from prior.recipes import build_recipe
    from tokenizer.configs import override
    with command_of(words[0]).make_context(words[0], list(words[1:])) as context:
        options = context.params
    if words[0] == "train-tokenizer":
        build_config(options["recipe"], options["modality"], list(options["settings"]))
    elif words[0] == "train-prior":
        override(build_recipe(options["recipe"]), options["settings"])
    else:
        build_optimisation(options)


def test_settings_that_pages_speak_of_exist() -> None:
    pattern = r"(?:training|model|transformer|modality|cutouts)(?:\.[a-z]\w*)+"
    named = {name for page in PAGES for code in code_of(page)
             for name in re.findall(rf"(?<![\w./-]){pattern}(?![\w/])", code)
             if not name.endswith((".py", ".safetensors", ".yaml"))}
    assert {"training.flip", "modality.route"} <= named
    assert named - known_settings() == set()


def test_options_that_pages_speak_of_exist() -> None:
    known = {option for name in COMMANDS for parameter in command_of(name).params
             for option in parameter.opts} | {"--help"}
    named = {option for page in PAGES for code in code_of(page) if not code.startswith("```")
             for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", code)}
    assert "--held-out-by" in named
    assert named - known == OTHERS_OPTIONS


def test_files_of_the_project_that_pages_name_exist() -> None:
    named = {path for text in texts()
             for path in re.findall(rf"(?<![\w/])((?:{ROOMS})/[\w/.-]+\.(?:py|md|html))\b", text)}
    assert "prior/stepping.py" in named
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_the_architecture_names_only_modules_that_exist() -> None:
    named = set(re.findall(r"\b(\w+\.py)\b", (ROOT / "docs/architecture.md").read_text()))
    rooms = [ROOT / room for room in ROOMS.split("|")]
    assert named - {path.name for room in rooms for path in room.rglob("*.py")} == set()


def test_targets_of_make_that_pages_name_exist() -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {target for page in PAGES for code in code_of(page)
             for target in re.findall(r"^\s*make ([a-z][\w-]*)", code, re.MULTILINE)}
    assert {"demo", "test"} <= named <= targets


def test_every_command_is_documented_with_an_example() -> None:
    assert {words[0] for words in documented()} == set(COMMANDS)


def test_wrong_usage_exits_with_2() -> None:
    assert CliRunner().invoke(main, ["encode", "photos"]).exit_code == 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_project_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_parts_of_pages_name_headings(page: Path) -> None:
    links = re.findall(r"\]\(([\w./-]*\.md)?#([^)\s]+)\)", page.read_text())
    lost = [(name, part) for name, part in links
            if part not in anchors_of(page.parent / name if name else page)]
    assert lost == []


def test_the_index_leads_to_every_page_and_the_readme_to_the_index() -> None:
    index = ROOT / "docs/README.md"
    assert "(docs/README.md)" in PAGES[0].read_text()
    linked = re.findall(r"\]\((\w+\.md)\)", index.read_text())
    assert sorted(linked) == sorted(page.name for page in PAGES[1:] if page != index)
