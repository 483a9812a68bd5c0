"""The program `whynan`: it runs a command and turns whatever happens into an exit code and at most one line on stderr."""

import os
import sys
import traceback
from collections.abc import Sequence

import click

from whynan.cli.commands import whynan_command
from whynan.errors import WhynanError
from whynan.frontends import quieten

USAGE, INTERRUPTED, BROKEN_PIPE = 2, 130, 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code. Errors are one line on stderr; with --traceback they show where they arose."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    quieten()  # before the target is loaded, which imports its framework
    try:
        # not `whynan_command.main`, which writes to stderr on Ctrl-C and ends the process on a closed pipe
        with whynan_command.make_context("whynan", arguments) as context:
            code = int(whynan_command.invoke(context) or 0)
        sys.stdout.flush()
        return code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        return _fail(f"{error.format_message()}{_usage(error)}")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has gone: nothing more can be said to it
        return BROKEN_PIPE
    except Exception as error:
        if "--traceback" in arguments:
            traceback.print_exc()
        if isinstance(error, WhynanError | OSError):
            return _fail(str(error))
        if isinstance(error, MemoryError):
            return _fail("the inputs do not fit into memory. Give domains of smaller shapes: a few elements show what many would.")
        return _fail(f"whynan itself failed with {type(error).__name__}: {error}. Run again with --traceback and report what it prints.")


def _fail(message: str) -> int:
    click.echo(f"whynan: {' '.join(message.split())}", err=True)
    return USAGE


def _usage(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f" Try '{context.command_path} --help'." if context else ""
