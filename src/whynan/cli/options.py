"""The options of the commands."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from whynan.target import FRAMEWORKS

DTYPES = ("float32", "float64", "float16", "bfloat16")
Command = Callable[..., Any]

NUMBER: click.ParamType[Any] = click.IntRange(0)
_FORMAT: click.ParamType[Any] = click.Choice(["text", "json", "html", "sarif"])
_FILE: click.ParamType[Any] = click.Path(dir_okay=False, path_type=Path)
_DOMAIN_HELP = 'What an input may be: -d "p=prob(8, 1)". Repeatable.'
_MODE_HELP = "eager, compile, function, xla, jit, or all. Repeatable, or with commas."
_SHARED = {
    "target": click.argument("target"),
    "domain": click.option("-d", "--domain", "domains", multiple=True, metavar="NAME=DOMAIN", help=_DOMAIN_HELP),
    "samples": click.option("--samples", type=click.Path(path_type=Path), metavar="FILE", help="Named arrays: .npz, .safetensors or .pt."),
    "framework": click.option("--framework", type=click.Choice(FRAMEWORKS), help="Where it cannot be found from the target."),
    "mode": click.option("--mode", "modes", multiple=True, metavar="MODE", help=_MODE_HELP),
    "dtype": click.option("--dtype", type=click.Choice(DTYPES), help="Treat the floats of all domains as this dtype."),
    "seed": click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Same seed, same report."),
    "format": click.option("--format", "form", type=_FORMAT, default="text", show_default=True, help="Of the report."),
    "output": click.option("--output", type=_FILE, metavar="FILE", help="Write the report there, not to stdout."),
    "script": click.option("--script", type=_FILE, metavar="FILE", help="Write a program that repeats the first failure."),
    "traceback": click.option("--traceback", is_flag=True, help="Show the whole traceback of an error."),
}
_AUDIT = (
    click.argument("module"),
    click.option("--only", multiple=True, metavar="WORD", help="Only losses whose names contain WORD. Repeatable."),
    click.option("--overrides", type=_FILE, metavar="FILE", help="A TOML file that says what inference cannot know."),
    click.option("--jobs", type=click.IntRange(min=0), default=0, help="How many losses at a time; by default half the processors."),
    click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=120.0, show_default=True, help="Seconds for a loss."),
    click.option("--resume/--fresh", default=True, show_default=True, help="Keep the answers that the output folder has, or not."),
    click.option("--output", type=click.Path(file_okay=False, path_type=Path), metavar="DIR", help="Default: whynan-audit/MODULE."),
    click.option("--framework", type=click.Choice(FRAMEWORKS), help="Where it cannot be found from the losses."),
    click.option("--mode", "modes", multiple=True, metavar="MODE", help=_MODE_HELP),
    click.option("--dtype", type=click.Choice(DTYPES), help="Treat the floats of all domains as this dtype."),
    click.option("--budget", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="Time for the search, per mode."),
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Same seed, same answers."),
    click.option("--format", "form", type=click.Choice(["text", "markdown", "json"]), default="text", show_default=True),
    click.option("--strict", is_flag=True, help="Exit 1 for losses that are not decided, too."),
    click.option("--traceback", is_flag=True, help="Show the whole traceback of an error."),
)


def shared_options(command: Command) -> Command:
    """The options that `check` and `explain` share."""
    return options_of()(command)


def options_of(*without: str) -> Callable[[Command], Command]:
    """The shared options, less those that a verb has no use for."""

    def decorate(command: Command) -> Command:
        for name, option in reversed(_SHARED.items()):
            command = command if name in without else option(command)
        return command

    return decorate


def audit_options(command: Command) -> Command:
    """The options of `audit`."""
    for option in reversed(_AUDIT):
        command = option(command)
    return command
