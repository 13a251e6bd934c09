"""Parts shared by the commands: option types, and errors as one line.

Exit codes: 2 for wrong usage (click's own), 1 for a failure, 130 after Ctrl-C, 143 after SIGTERM.
"""
import contextlib
import functools
import select
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click
from click.core import ParameterSource

from cli.values import PLACE, at_least

if TYPE_CHECKING:
    from pipelines.array import Part

Command = TypeVar("Command", bound=Callable[..., Any])
Value = TypeVar("Value")


DISK_ERRORS = ("database or disk is full", "disk I/O error", "unable to open database file")
"""What SQLite says where the disk is at fault, and not the program."""


class Terminated(KeyboardInterrupt):
    """A scheduler asks this process to end, by SIGTERM; told and recorded like Ctrl-C."""
    exit_code = 143


def reports_errors(command: Command) -> Command:
    """Turn expected errors of a command into one line on standard error and exit code 1.

    Expected are `OSError` and `ValueError`: the world or the input is not as it must be, and the
    message says what to mend; and that the disk of temporary databases is full. Where nobody reads
    the output any more, as behind ``| head``, click ends the command without a word. Anything else
    is a bug and shows its trace.
    """
    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt as stop:
            click.echo("stopped; run the same command again to continue", err=True)
            raise SystemExit(getattr(stop, "exit_code", 130)) from None
        except (OSError, ValueError) as error:
            if isinstance(error, BrokenPipeError) and not is_output_read():
                raise
            raise click.ClickException(one_line(error)) from error
        except sqlite3.OperationalError as error:
            if str(error) not in DISK_ERRORS:
                raise
            raise click.ClickException(f"temporary files cannot be written ({error}): free space "
                                       "on their disk, or set TMPDIR to another folder") from error
    return run  # type: ignore[return-value]


def is_output_read() -> bool:
    """Whether there is still a reader of standard output, as far as the system says."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), select.POLLERR)
        return not poll.poll(0)
    except (AttributeError, OSError, ValueError):  # no such call, or no file of the system
        return True


@contextlib.contextmanager
def ends_when_asked() -> Iterator[None]:
    """In the block, SIGTERM is `Terminated`, so that a command tidies up and records its end."""
    def end(*_: object) -> NoReturn:
        raise Terminated
    if (threading.current_thread() is not threading.main_thread()
            or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL):  # somebody else's to decide
        yield
        return
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def refuse_given(names: Iterable[str], why: str) -> None:
    """Refuse options on the command line that would have no effect.

    Args:
        names: of options of the command that runs, such as ``--seed``.
        why: they have none; begins the message.
    Raises:
        click.UsageError: one is given, if only with its default.
    """
    context, named = click.get_current_context(), set(names)
    for parameter in context.command.params:
        found = named.intersection(parameter.opts)
        if found and context.get_parameter_source(parameter.name or "") == (
                ParameterSource.COMMANDLINE):
            raise click.UsageError(f"{why} {min(found)} would change nothing: leave it out")


def one_line(error: Exception) -> str:
    """An error's message on one line; system errors with their file."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


JOB = ("--num-workers", "--overwrite", "--engine", "--array-index", "--array-size", "--log-json",
       "--prometheus")
"""Options of the jobs that say how they run, not what comes out."""


def takes_engine(command: Command) -> Command:
    """Give a command the option ``--engine``, and ``beam_flags`` behind ``--``."""
    engine = click.option(
        "--engine", default="local", show_default=True, metavar="ENGINE",
        help="What makes the shards: local, this machine; dask://HOST:PORT; portable://HOST:PORT, "
             "a job service of Beam's; or beam, with a --runner=... among flags of Beam's behind "
             "--. Workers elsewhere must reach every folder by the same path; see "
             "docs/engines.md.")
    flags = click.argument("beam_flags", nargs=-1, type=click.UNPROCESSED, callback=_only_flags,
                           metavar="[-- BEAM_FLAGS]")
    return engine(flags(command))


def _only_flags(context: click.Context, parameter: click.Parameter,
                values: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse words too many, which click takes for flags of Beam's."""
    if values and not values[0].startswith("--"):
        raise click.UsageError(f"got unexpected extra argument ({values[0]}); flags of Beam's "
                               "begin with -- and follow behind --", context)
    return values


def keeps_records(command: Command) -> Command:
    """Give a command the options ``--log-json`` and ``--prometheus``, and keep these records, also
    of an end by SIGTERM."""
    @functools.wraps(command)
    def run(*args: Any, log_json: str | None, prometheus: str | None, **kwargs: Any) -> Any:
        from pipelines.records import Records
        with ends_when_asked(), Records(log_json, prometheus):
            return command(*args, **kwargs)
    log = click.option("--log-json", type=PLACE, metavar="FILE",
                       help="Append JSON lines about start, progress and end; see docs/running.md.")
    text = click.option("--prometheus", type=PLACE, metavar="FILE",
                        help="Keep progress in a text file for node_exporter's textfile collector.")
    return log(text(run))  # type: ignore[return-value]


def takes_part(command: Command) -> Command:
    """Give a command the options ``--array-index`` and ``--array-size``; see `part_of`."""
    index = click.option(
        "--array-index", type=at_least(0), metavar="I",
        help="Number of this task in a job array, from 0: it makes its own part of the shards, in "
             "this process, without Beam. The task that ends last completes the output.")
    size = click.option("--array-size", type=at_least(1), metavar="N",
                        help="Number of tasks in the job array, the same for all of them.")
    return index(size(command))


def part_of(index: int | None, size: int | None) -> "Part | None":
    """The part of a job that the options of an array ask for, or nothing for the whole job.

    Raises:
        click.UsageError: one of the two is missing, or there is no such part.
    """
    from pipelines.array import Part
    if index is None and size is None:
        return None
    if index is None or size is None:
        raise click.UsageError("--array-index and --array-size belong together: give both")
    try:
        return Part(index=index, size=size)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def takes_device(command: Command) -> Command:
    """Give a command the option ``--device``; see `tokenizer.devices.usable_device`."""
    return click.option(
        "--device", default="auto", show_default=True, metavar="DEVICE",
        help="Where torch computes: cpu, cuda, cuda:1, ...; auto is cuda if there is one, else "
             "cpu.")(command)


def filters_rows(command: Command) -> Command:
    """Give a command the option ``--filter``, as ``row_filter``; see `tokenizer.filters`."""
    return click.option(
        "--filter", "row_filter", metavar="EXPR", multiple=True, callback=_all_of,
        help="Take only rows for which this holds: columns, numbers and text in quotes with == != "
             "< <= > >= in (...), is null, and or not; see docs/token_corpus.md. Of several, all "
             "must hold.")(command)


def _all_of(context: click.Context, parameter: click.Parameter,
            expressions: tuple[str, ...]) -> str | None:
    """One filter that holds where all of these do."""
    if len(expressions) > 1:
        return " and ".join(f"({expression})" for expression in expressions)
    return next(iter(expressions), None)


def tokenizers_of(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Folders by modality: that of a folder alone is what its tokenizer was trained on.

    Args:
        pairs: of `TOKENIZER_FOLDER` options.
    Raises:
        OSError, ValueError: a folder alone holds no tokenizer.
        click.UsageError: a modality is given twice.
    """
    from tokenizer.codec import modality_of
    return by_name("--tokenizer", [(name or modality_of(folder), folder)
                                   for name, folder in pairs])


def by_name(option: str, pairs: Iterable[tuple[str, Value]]) -> dict[str, Value]:
    """The values of a repeated option by name, such as an `ASSIGNMENT`.

    Raises:
        click.UsageError: a name is given twice.
    """
    values: dict[str, Value] = {}
    for name, value in pairs:
        if name in values:
            said = f"{option} {name}=" if name else option
            raise click.UsageError(f"{said} is given twice: {values[name]} and {value}")
        values[name] = value
    return values
