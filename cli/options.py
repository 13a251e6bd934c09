"""Parts shared by the commands: option types, and errors as one line.

Exit codes: 2 for wrong usage (click's own), 1 for a failure, 130 after Ctrl-C.
"""
import functools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def reports_errors(command: Command) -> Command:
    """Turn expected errors of a command into one line on standard error and exit code 1.

    Expected are `OSError` and `ValueError`: the world or the input is not as it must be, and the
    message says what to mend. Anything else is a bug and shows its trace.
    """
    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt:
            click.echo("stopped; run the same command again to continue", err=True)
            raise SystemExit(130) from None
        except (OSError, ValueError) as error:
            raise click.ClickException(one_line(error)) from error
    return run  # type: ignore[return-value]


def one_line(error: Exception) -> str:
    """An error's message on one line; system errors with their file."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


class Assignment(click.ParamType):
    """An option's value of the form ``NAME=VALUE``, as a pair."""
    name = "name=value"

    def convert(self, value: Any, param: click.Parameter | None,
                ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        name, separator, text = str(value).partition("=")
        if not (separator and name and text):
            self.fail(f"{value!r} is not of the form NAME=VALUE, for example image=my-tokenizer",
                      param, ctx)
        return name, text


def by_name(option: str, pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The values of a repeated `Assignment` option by name.

    Raises:
        click.UsageError: a name is given twice.
    """
    values: dict[str, str] = {}
    for name, value in pairs:
        if name in values:
            raise click.UsageError(f"{option} {name}= is given twice: {values[name]} and {value}")
        values[name] = value
    return values


class ImageCount(click.ParamType):
    """A number of images, or a share of them below 1."""
    name = "count|share"

    def convert(self, value: object, param: click.Parameter | None,
                ctx: click.Context | None) -> int | float:
        text = str(value)
        try:
            return int(text) if text.isdecimal() else float(text)
        except ValueError:
            self.fail(f"{text!r} is neither a count such as 40 nor a share such as 0.05", param,
                      ctx)
