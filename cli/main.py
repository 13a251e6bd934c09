"""The ``img2tokens`` command: a table of commands, each loaded only when it is used."""
import difflib
import importlib
from importlib import metadata

import click

COMMANDS = {
    "train-tokenizer": "Train a VQGAN tokenizer on a corpus of images or maps.",
    "evaluate-tokenizer": "Measure how well a tokenizer reproduces images; figures and pictures.",
    "import-tokenizer": "Turn a tokenizer that another program published into one of ours.",
    "import-prior": "Turn a prior that another program published into one of ours.",
    "export-tokenizer": "Write a tokenizer for another program, such as diffusers.",
    "encode": "Tokenise a corpus into Parquet code sequences.",
    "retry": "Encode the dead letters of a token corpus again.",
    "inspect": "Show what a token corpus holds; --verify checks every shard.",
    "decode": "Decode a token corpus back into image files.",
    "contact-sheet": "Show sources beside their reconstructions, with figures, in one picture.",
    "convert": "Turn tokens of other programs into a token corpus, and back.",
    "push": "Upload a finished token corpus to the Hugging Face Hub.",
    "train-prior": "Train an autoregressive prior on a token corpus.",
    "sample": "Sample images from a prior.",
    "evaluate-prior": "Measure a prior on held-out rows, and its samples; figures and pictures.",
    "guide": "Make images that a text steers, by CLIP, as codes of a tokenizer.",
    "demo": "Run the whole way once on drawn scenes, ending in a page of pictures.",
}
"""Command names and what they do, in the order of the work; ``cli/<name>.py`` holds each."""


class LazyCommands(click.Group):
    """A group that lists its commands without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            near = difflib.get_close_matches(cmd_name, COMMANDS, n=1)
            if near and not ctx.resilient_parsing:
                ctx.fail(f"No such command {cmd_name!r}; did you mean {near[0]}?")
            return None
        module = cmd_name.replace("-", "_")
        command: click.Command = getattr(importlib.import_module(f"cli.{module}"), module)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def version() -> str:
    """The version of the installed distribution."""
    try:
        return metadata.version("img2tokens")
    except metadata.PackageNotFoundError:
        return "not installed"


@click.group(cls=LazyCommands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version(), prog_name="img2tokens")
def main() -> None:
    """Turn images into tokens, and tokens into images.

    \b
    The whole way:
      img2tokens train-tokenizer photos tok --minutes 12
      img2tokens encode photos tokens --tokenizer tok
      img2tokens train-prior tokens prior --minutes 12 --tokenizer tok
      img2tokens sample prior samples --tokenizer tok --num 16
    """
