"""Flags of Beam's, of which none is passed over: Beam itself drops those that it does not know.

A flag is known to one of Beam's classes of options, of which a runner brings its own when it is
loaded, or to the job service that a job is sent to, which says what it knows when it is asked.
"""
import difflib
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from pipelines.graph import beam  # the first to load Beam: it silences it

options = beam.options.pipeline_options

AddFlags = Callable[[Any], None]
"""Adds the flags of a job service to a parser."""


class KnownFlags(options.PipelineOptions):  # type: ignore[name-defined]
    """Options of a pipeline, which refuse what the job service does not know either."""

    def get_all_options(self, *given: Any, **named: Any) -> dict[str, Any]:
        """All options by name; Beam asks with the flags of a job service when it sends a job to it.

        Raises:
            ValueError: a flag is not known, and would be dropped.
        """
        services_own = named.get("add_extra_args_fn")
        if services_own is not None and not named.get("retain_unknown_options"):
            require_known(self._flags, services_own)
        found: dict[str, Any] = super().get_all_options(*given, **named)
        return found


class FlagParser(options._BeamArgumentParser):  # type: ignore[name-defined]
    """Beam's parser with errors of one line: its own prints pages and ends the process."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"Beam refuses what stands behind --: {message}")

    def print_help(self, file: Any = None) -> NoReturn:
        self.error("a job gives no help; leave out --help")


def read_flags(flags: Sequence[str],
               services_own: AddFlags | None = None) -> tuple[list[str], list[str]]:
    """The flags that nobody would read, and the names of all that somebody knows.

    Args:
        services_own: of a job service.
    Raises:
        ValueError: a flag that is known lacks its value, or cannot have that which it has.
    """
    parser = FlagParser(allow_abbrev=False)
    for kind in {str(kind): kind for kind in options.PipelineOptions.__subclasses__()}.values():
        kind._add_argparse_args(parser)
    if services_own is not None:
        services_own(parser)
    _, unknown = parser.parse_known_args(list(flags))
    return unknown, [name for action in parser._actions for name in action.option_strings]


def require_known(flags: Sequence[str], services_own: AddFlags | None = None) -> None:
    """Refuse flags that nobody would read; arguments as of `read_flags`.

    Raises:
        ValueError: names them, and what is like the first; or see `read_flags`.
    """
    unknown, names = read_flags(flags, services_own)
    if not unknown:
        return
    like = difflib.get_close_matches(unknown[0].partition("=")[0], names, 1)
    remedy = f"did you mean {like[0]}?" if like else "leave it out"
    raise ValueError(f"behind -- stands {' '.join(unknown)}, which neither Beam nor what it runs "
                     f"on knows: {remedy}")


def asks_a_service(runner: Any) -> bool:
    """Whether a runner sends its jobs to a job service, which has flags of its own."""
    from apache_beam.runners.portability.portable_runner import PortableRunner
    return isinstance(runner, PortableRunner)
