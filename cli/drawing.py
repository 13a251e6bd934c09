"""How codes are drawn: options that commands share, and the sampler and guidance they ask for."""
import dataclasses
from typing import TYPE_CHECKING, Any

import click

from cli.options import Command, by_name
from cli.values import GUIDANCE_SCALE, at_least

if TYPE_CHECKING:
    from prior.guidance import Guidance
    from prior.samplers import Sampler

OPTIONS = (
    click.option("--sampler", default="random", show_default=True, help="random, or greedy."),
    click.option("--temperature", type=click.FloatRange(min=0, min_open=True),
                 help="Below 1 sharpens the distribution.  [default: 1]"),
    click.option("--top-k", type=at_least(1), help="Only the K most likely codes."),
    click.option("--top-p", type=click.FloatRange(0, 1, min_open=True),
                 help="Only the fewest codes with this probability together."),
    click.option("--min-p", type=click.FloatRange(0, 1),
                 help="Only codes this many times as likely as the most likely one."),
    click.option("--guidance", "scales", type=GUIDANCE_SCALE, multiple=True,
                 metavar="[NAME=]SCALE",
                 help="Above 1 follows the conditions more closely, at twice the work; NAME=SCALE "
                      "for a scale of one condition's own. Repeatable.  [default: 1]"),
    click.option("--guidance-schedule", default="constant", show_default=True, metavar="NAME",
                 help="constant; cosine or power-cosine: little at the top of an image, all of it "
                      "at the bottom."),
    click.option("--guidance-power", type=click.FloatRange(min=0, min_open=True), default=2.0,
                 show_default=True, help="Of power-cosine: above 1 guidance comes later."))


def draws_codes(command: Command) -> Command:
    """Give a command the options of `build_sampler` and `build_guidance`."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def build_guidance(options: dict[str, Any]) -> "Guidance":
    """The guidance that the options ask for."""
    from prior.guidance import Guidance
    scales = by_name("--guidance", options["scales"])
    return Guidance(scale=scales.pop("", 1.0), scales=scales,
                    schedule=options["guidance_schedule"], power=options["guidance_power"])


def build_sampler(options: dict[str, Any]) -> "Sampler":
    """The sampler that the options name, with its settings."""
    from prior.samplers import SAMPLERS
    name = options["sampler"]
    if name not in SAMPLERS:
        raise click.UsageError(f"no sampler is named {name!r}; known are {', '.join(SAMPLERS)}")
    settings = {setting: options[setting] for setting in ("temperature", "top_k", "top_p", "min_p")
                if options[setting] is not None}
    known = {field.name for field in dataclasses.fields(SAMPLERS[name])}
    for setting in settings:
        if setting not in known:
            raise click.UsageError(f"the {name} sampler has no --{setting.replace('_', '-')}")
    return SAMPLERS[name](**settings)
