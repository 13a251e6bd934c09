"""Commands of many options: their help lists them under headings.

    @click.command(cls=Sections, sections={"What": ("--corpus", "--labels")})
"""
from collections.abc import Mapping, Sequence
from typing import Any

import click

OTHERS = "Other options"
"""Heading of what stands under no other one."""


class Sections(click.Command):
    """A command whose help groups its options.

    Args:
        sections: long names of options by heading, both in the order of the help.
    """

    def __init__(self, *args: Any, sections: Mapping[str, Sequence[str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sections = sections

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections, then what is in none; an unknown name is a `KeyError`."""
        records = {param.opts[-1]: record for param in self.get_params(ctx)
                   if isinstance(param, click.Option) and (record := param.get_help_record(ctx))}
        for heading, names in self.sections.items():
            with formatter.section(heading):
                formatter.write_dl([records.pop(name) for name in names])
        with formatter.section(OTHERS):
            formatter.write_dl(list(records.values()))
