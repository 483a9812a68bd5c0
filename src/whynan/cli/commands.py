"""The commands, one for each verb."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

import whynan
from whynan.cli.inputs import constants, domains_given, load_quietly, modes_of, passed_on, silent
from whynan.cli.options import DTYPES, NUMBER, audit_options, options_of, shared_options
from whynan.cli.output import FOUND, deliver, deliver_fixes, exit_code, refuse_unwritable
from whynan.errors import WhynanError
from whynan.waiting import telling


@click.group("whynan", context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(whynan.__version__, prog_name="whynan", message="%(prog)s %(version)s")
def whynan_command() -> None:
    """Prove that a loss function stays finite, or see the input and the expression that make it NaN."""


@whynan_command.command()
@shared_options
@click.option("--model", metavar="TARGET", help="Check the loss of this model's outputs: -d x=… is its input, -d y=… the target.")
@click.option("--budget", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="Time for the search, per mode.")
@click.option("--envelope", is_flag=True, help="Also how large each unbounded input may be while all is proven finite.")
@click.option("--envelope-dtype", "dtypes", multiple=True, type=click.Choice((*DTYPES, "all")), help="The same in this dtype. Repeatable.")
@click.option("--accuracy", is_flag=True, help="Count the correct digits of the loss and its gradients, too.")
@click.option("--strict", is_flag=True, help="Exit 1 for an undecided verdict too.")
def check(
    target: str,
    strict: bool,
    accuracy: bool,
    budget: float | None,
    model: str | None,
    envelope: bool,
    dtypes: tuple[str, ...],
    **options: Any,
) -> int:
    """Can the loss TARGET, or a gradient of it, become NaN or Inf on these inputs?

    TARGET is FILE.py:EXPR or package.module:EXPR, as in losses.py:focal_loss or losses.py:FocalLoss(gamma=0.5).
    """
    refuse_unwritable(options)
    loaded = load_quietly(target)
    with telling(f"checking {target}"), silent():
        given = domains_given(loaded, options, composed=model is not None)
        passed = passed_on(loaded, options) | ({"model": model} if model is not None else {})
        wanted = {"budget": budget, "envelope": dtypes or envelope, "accuracy": accuracy}
        report = _api().check(loaded.callable, domains=given, **wanted, **passed)
    deliver(report, **options)
    return exit_code(report, strict=strict)


@whynan_command.command()
@options_of("script")
@click.option("--budget", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="Time for the search, per mode.")
@click.option("--model", metavar="TARGET", help="Fix the loss of this model's outputs: -d x=… is its input, -d y=… the target.")
@click.option("--apply", is_flag=False, flag_value=0, type=NUMBER, metavar="[N]", help="Write the best verified fix, or fix N.")
def fix(target: str, apply: int | None, budget: float | None, model: str | None, **options: Any) -> int:
    """Which change of the source keeps the loss TARGET and its gradients finite, and what is proven about it?

    Shows unified diffs, best first, each with its evidence. Exit code 0 if there is nothing to fix or a fix was applied, else 1.
    """
    refuse_unwritable(options)
    loaded = load_quietly(target)
    with telling(f"looking for fixes of {target}"), silent():
        given = domains_given(loaded, options, composed=model is not None)
        report, fixes = _api().fixed(loaded.callable, given, budget=budget, model=model, **passed_on(loaded, options))
    deliver_fixes(report, fixes, options["form"], options["output"])
    if apply is None:
        return exit_code(report)
    if not exit_code(report):
        return 0
    chosen_fix = _chosen(fixes, apply)
    chosen_fix.apply()
    number = next(n for n, f in enumerate(fixes, 1) if f is chosen_fix)
    click.echo(f"whynan: fix {number} is written.", err=True)
    return 0


@whynan_command.command()
@shared_options
def explain(target: str, **options: Any) -> int:
    """What happens, step by step, on one concrete input of the loss TARGET?

    The input comes from --samples or from constants: -d "p=[1.0, 0.5]". TARGET may also be a recorded incident (a file or folder).
    """
    refuse_unwritable(options)
    if Path(target).exists() and not target.endswith(".py"):
        with telling(f"reading {target}"):
            report = _api().explain(Path(target))
    else:
        loaded = load_quietly(target)
        values = constants(domains_given(loaded, options, stated=False))
        with telling(f"running {target}"), silent():
            report = _api().explain(loaded.callable, tensors=values, **passed_on(loaded, options))
    deliver(report, **options)
    return exit_code(report)


@whynan_command.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path("whynan-incidents"))
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--traceback", is_flag=True, help="Show the whole traceback of an error.")
def incidents(folder: Path, form: str, traceback: bool) -> int:
    """Which incidents have watched training runs recorded in FOLDER (whynan-incidents)? Newest first, one line each.

    `whynan explain` tells one of them. Nothing in the folder is executed.
    """
    from whynan.watching import listing

    entries = listing.listed(folder)
    told = json.dumps(listing.as_data(entries), indent=2) + "\n" if form == "json" else listing.as_text(entries, folder, sys.stdout)
    sys.stdout.write(told)
    sys.stdout.flush()
    return 0


@whynan_command.command()
@audit_options
def audit(module: str, output: Path | None, overrides: Path | None, resume: bool, form: str, strict: bool, **options: Any) -> int:
    """Check every loss that MODULE exports, as in `whynan audit torch.nn.functional`.

    Losses are found by name and signature, each is checked in a process that may hang or die, and DIR gets a table (index.html,
    README.md, audit.json), a page for each loss and a program for each failure. An audit that was interrupted goes on where it stopped.
    """
    from whynan.audits import command

    options.pop("traceback")
    folder = output or Path("whynan-audit") / module
    modes = modes_of(options.pop("modes"))
    done = command.run(module, folder, overrides, modes=modes, fresh=not resume, **options)
    sys.stdout.write(command.text(done, form, folder))
    sys.stdout.flush()
    return FOUND if command.failed(done, strict) else 0


def _chosen(fixes: Sequence[Any], number: int) -> Any:
    """The fix to apply: by number from 1, or the best verified one for 0."""
    if number > len(fixes):
        raise WhynanError(f"there is no fix {number}: {len(fixes)} found.", "Choose one of those shown.")
    if number:
        return fixes[number - 1]
    verified = [f for f in fixes if f.applicability == "verified" and f.patch]
    if not verified:
        raise WhynanError("no verified fix was found, and nothing was written.", "Read the others and choose one with --apply N.")
    return verified[0]


def _api() -> Any:
    from whynan import api  # imported late: `--help` and usage errors need none of it

    return api
