"""The command table: every command has help with an example, errors are one line."""
import errno
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from random_tokenizers import save_tokenizer

from cli.main import COMMANDS, main, version
from cli.options import keeps_records, one_line, reports_errors, tokenizers_of
from cli.sections import OTHERS, Sections
from cli.values import ASSIGNMENT, tokenizer_folder
from tokenizer.devices import AUTO


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert f"img2tokens {name}" in result.output


def test_commands_are_listed_in_the_order_of_the_work() -> None:
    output = CliRunner().invoke(main, ["--help"]).output
    commands = output[output.index("\nCommands:"):]
    places = [commands.index(f"\n  {name} ") for name in COMMANDS]
    assert places == sorted(places)


def test_version_is_that_of_the_distribution() -> None:
    assert version() in CliRunner().invoke(main, ["--version"]).output


def test_python_m_cli_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "cli", "--version"],
                          capture_output=True, text=True, check=True)
    assert done.stdout.startswith("img2tokens, version")


def test_an_unknown_command_is_wrong_usage() -> None:
    result = CliRunner().invoke(main, ["tokenise"])
    assert result.exit_code == 2
    assert "tokenise" in result.output
    result = CliRunner().invoke(main, ["inspct", "tokens"])
    assert result.exit_code == 2
    assert "No such command 'inspct'; did you mean inspect?" in result.output


def test_every_command_that_computes_where_it_is_told_takes_the_same_device_by_default() -> None:
    options = [option for name in COMMANDS
               for option in main.get_command(click.Context(main), name).params
               if option.name == "device"]
    assert len(options) >= 3
    assert {(option.default, option.type.name, option.help) for option in options} == {
        (AUTO, "text", options[0].help)}


def test_sections_hold_every_option_once() -> None:
    for name in ("encode", "decode", "sample", "evaluate-prior"):
        words = CliRunner().invoke(main, [name, "--help"], terminal_width=100).output.split()
        command = main.get_command(click.Context(main), name)
        assert isinstance(command, Sections)
        heads = [line.strip() for line in command.get_help(click.Context(command)).splitlines()
                 if line.endswith(":") and not line.startswith("  ")]
        assert heads[-len(command.sections) - 1:] == [f"{head}:" for head in
                                                      (*command.sections, OTHERS)]
        options = [option.opts[-1] for option in command.params if isinstance(option, click.Option)]
        assert set(options) <= set(words)
        listed = [name for names in command.sections.values() for name in names]
        assert len(set(listed)) == len(listed) and set(listed) <= set(options)


@pytest.mark.parametrize(("error", "code", "words"), [
    (ValueError("grid is 3,\n  expected 4"), 1, "Error: grid is 3, expected 4"),
    (FileNotFoundError(2, "No such file or directory", "a/b"), 1,
     "Error: a/b: No such file or directory"),
    (KeyboardInterrupt(), 130, "stopped; run the same command again to continue")])
def test_expected_errors_are_one_line_with_an_exit_code(
        error: BaseException, code: int, words: str) -> None:
    @click.command()
    @reports_errors
    def failing() -> None:
        raise error
    result = CliRunner().invoke(failing)
    assert (result.exit_code, result.output.strip()) == (code, words)


def test_a_job_that_is_asked_to_end_is_recorded_as_stopped(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)

    @click.command()
    @reports_errors
    @keeps_records
    def working() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    result = CliRunner().invoke(working, ["--log-json", str(tmp_path / "log")])
    assert result.exit_code == 143
    assert result.output.strip() == "stopped; run the same command again to continue"
    assert json.loads((tmp_path / "log").read_text().splitlines()[-1])["outcome"] == "stopped"
    assert signal.getsignal(signal.SIGTERM) is before


def test_output_that_nobody_reads_ends_the_command_without_a_word(tokenized: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as closed:
        done = subprocess.run([sys.executable, "-m", "cli", "inspect", tokenized / "tokens"],
                              stdout=closed, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_connection_that_breaks_is_told() -> None:
    @click.command()
    @reports_errors
    def failing() -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")
    result = CliRunner().invoke(failing)
    assert (result.exit_code, result.output.strip()) == (1, "Error: [Errno 32] Broken pipe")


def test_forms_of_values_are_shown_as_they_are_typed() -> None:
    output = CliRunner().invoke(main, ["encode", "--help"]).output
    assert "--size HEIGHTxWIDTH " in output and "--tokenizer [MODALITY=]FOLDER " in output


def test_a_bug_keeps_its_trace() -> None:
    @click.command()
    @reports_errors
    def broken() -> None:
        raise KeyError("bug")
    assert isinstance(CliRunner().invoke(broken).exception, KeyError)


@pytest.mark.parametrize(("statement", "words"), [
    ("INSERT INTO rows VALUES (zeroblob(100000))",
     "Error: temporary files cannot be written (database or disk is full): free space on their "
     "disk, or set TMPDIR to another folder"),
    ("INSERT INTO columns VALUES (1)", None)])
def test_a_full_disk_of_temporary_files_is_one_line_and_a_wrong_statement_a_bug(
        statement: str, words: str | None) -> None:
    @click.command()
    @reports_errors
    def failing() -> None:
        with closing(sqlite3.connect("")) as rows:
            rows.execute("PRAGMA max_page_count = 2")
            rows.execute("CREATE TABLE rows (content BLOB)")
            rows.execute(statement)
    result = CliRunner().invoke(failing)
    if words is None:
        assert isinstance(result.exception, sqlite3.OperationalError)
    else:
        assert (result.exit_code, result.output.strip()) == (1, words)


def test_an_error_without_words_shows_its_class() -> None:
    assert one_line(ValueError()) == "ValueError"


def test_assignments_are_pairs() -> None:
    assert ASSIGNMENT.convert("image=a=b", None, None) == ("image", "a=b")
    with pytest.raises(click.BadParameter, match="'image' is not of the form NAME=VALUE"):
        ASSIGNMENT.convert("image", None, None)


def test_a_tokenizer_says_itself_what_it_is_of(tmp_path: Path) -> None:
    image = save_tokenizer(tmp_path / "a=b")
    maps = save_tokenizer(tmp_path / "maps", modality="segmentation", num_classes=2)
    given = [tokenizer_folder(text) for text in (image, f"segmentation={maps}")]
    assert tokenizers_of(given) == {"image": image, "segmentation": maps}
    with pytest.raises(click.UsageError, match="image= is given twice"):
        tokenizers_of([*given, ("image", "other")])
    with pytest.raises(FileNotFoundError, match="holds no tokenizer"):
        tokenizers_of([("", str(tmp_path))])
