"""The command line: arguments in, a report and an exit code out.

0: no error-level finding · 1: at least one (with --strict, an undecided verdict too) · 2: usage, or the target could not be
loaded or run: one line on stderr · 130: interrupted.
"""

import json
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

import click

import whynan
from whynan.domain.parse import parse_assignments
from whynan.errors import DomainError, WhynanError
from whynan.frontends import quieten
from whynan.target import FRAMEWORKS, Target, arguments_of, load_target

FOUND, USAGE, INTERRUPTED, BROKEN_PIPE = 1, 2, 130, 141

_DTYPES = ("float32", "float64", "float16", "bfloat16")
Command = Callable[..., Any]


# ---------------------------------------------------------------- entry


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


@click.group("whynan", context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(whynan.__version__, prog_name="whynan", message="%(prog)s %(version)s")
def whynan_command() -> None:
    """Prove that a loss function stays finite, or see the input and the expression that make it NaN."""


# ---------------------------------------------------------------- options


def _options(command: Command) -> Command:
    """The options that `check` and `explain` share."""
    return _options_of()(command)


def _options_of(*without: str) -> Callable[[Command], Command]:
    """The shared options, less those that a verb has no use for."""

    def decorate(command: Command) -> Command:
        for name, option in reversed(_SHARED.items()):
            command = command if name in without else option(command)
        return command

    return decorate


_NUMBER: click.ParamType[Any] = click.IntRange(0)
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
    "dtype": click.option("--dtype", type=click.Choice(_DTYPES), help="Treat the floats of all domains as this dtype."),
    "seed": click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Same seed, same report."),
    "format": click.option("--format", "form", type=_FORMAT, default="text", show_default=True, help="Of the report."),
    "output": click.option("--output", type=_FILE, metavar="FILE", help="Write the report there, not to stdout."),
    "script": click.option("--script", type=_FILE, metavar="FILE", help="Write a program that repeats the first failure."),
    "traceback": click.option("--traceback", is_flag=True, help="Show the whole traceback of an error."),
}


@whynan_command.command()
@_options
@click.option("--model", metavar="TARGET", help="Check the loss of this model's outputs: -d x=… is its input, -d y=… the target.")
@click.option("--budget", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="Time for the search, per mode.")
@click.option("--envelope", is_flag=True, help="Also how large each unbounded input may be while all is proven finite.")
@click.option("--envelope-dtype", "dtypes", multiple=True, type=click.Choice((*_DTYPES, "all")), help="The same in this dtype. Repeatable.")
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
    _writable(options)
    loaded = _loaded(target)
    with _progress(f"checking {target}"), _silent():
        given = _domains(loaded, options, composed=model is not None)
        passed = _passed(loaded, options) | ({"model": model} if model is not None else {})
        wanted = {"budget": budget, "envelope": dtypes or envelope, "accuracy": accuracy}
        report = _api().check(loaded.callable, domains=given, **wanted, **passed)
    _deliver(report, **options)
    return exit_code(report, strict=strict)


@whynan_command.command()
@_options_of("script")
@click.option("--budget", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="Time for the search, per mode.")
@click.option("--model", metavar="TARGET", help="Fix the loss of this model's outputs: -d x=… is its input, -d y=… the target.")
@click.option("--apply", is_flag=False, flag_value=0, type=_NUMBER, metavar="[N]", help="Write the best verified fix, or fix N.")
def fix(target: str, apply: int | None, budget: float | None, model: str | None, **options: Any) -> int:
    """Which change of the source keeps the loss TARGET and its gradients finite, and what is proven about it?

    Shows unified diffs, best first, each with its evidence. Exit code 0 if there is nothing to fix or a fix was applied, else 1.
    """
    _writable(options)
    loaded = _loaded(target)
    with _progress(f"looking for fixes of {target}"), _silent():
        passed = _passed(loaded, options)
        chosen = (passed["modes"], passed["dtype"], budget, passed["seed"])
        given = _domains(loaded, options, composed=model is not None)
        report, fixes = _api().fixed(loaded.callable, given, {}, chosen, passed["framework"], passed["name"], model)
    _deliver_fixes(report, fixes, options["form"], options["output"])
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
@_options
def explain(target: str, **options: Any) -> int:
    """What happens, step by step, on one concrete input of the loss TARGET?

    The input comes from --samples or from constants: -d "p=[1.0, 0.5]". TARGET may also be a recorded incident (a file or folder).
    """
    _writable(options)
    if Path(target).exists() and not target.endswith(".py"):
        with _progress(f"reading {target}"):
            report = _api().explain(Path(target))
    else:
        loaded = _loaded(target)
        values = _constants(_domains(loaded, options, stated=False))
        with _progress(f"running {target}"), _silent():
            report = _api().explain(loaded.callable, tensors=values, **_passed(loaded, options))
    _deliver(report, **options)
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
    click.option("--dtype", type=click.Choice(_DTYPES), help="Treat the floats of all domains as this dtype."),
    click.option("--budget", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="Time for the search, per mode."),
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Same seed, same answers."),
    click.option("--format", "form", type=click.Choice(["text", "markdown", "json"]), default="text", show_default=True),
    click.option("--strict", is_flag=True, help="Exit 1 for losses that are not decided, too."),
    click.option("--traceback", is_flag=True, help="Show the whole traceback of an error."),
)


def _audit_options(command: Command) -> Command:
    for option in reversed(_AUDIT):
        command = option(command)
    return command


@whynan_command.command()
@_audit_options
def audit(module: str, output: Path | None, overrides: Path | None, resume: bool, form: str, strict: bool, **options: Any) -> int:
    """Check every loss that MODULE exports, as in `whynan audit torch.nn.functional`.

    Losses are found by name and signature, each is checked in a process that may hang or die, and DIR gets a table (index.html,
    README.md, audit.json), a page for each loss and a program for each failure. An audit that was interrupted goes on where it stopped.
    """
    from whynan.audits import command

    options.pop("traceback")
    folder = output or Path("whynan-audit") / module
    modes = _modes(options.pop("modes"))
    done = command.run(module, folder, overrides, modes=modes, fresh=not resume, **options)
    sys.stdout.write(command.text(done, form, folder))
    sys.stdout.flush()
    return FOUND if command.failed(done, strict) else 0


def exit_code(report: Any, *, strict: bool = False) -> int:
    """1 if the report has an error-level finding (with `strict`, also if the verdict is undecided), else 0."""
    found = any(finding.severity == "error" for finding in report.findings)
    return FOUND if found or (strict and report.verdict == "undecided") else 0


# ---------------------------------------------------------------- inputs


def _loaded(target: str) -> Target:
    """The target. What its file prints when imported goes to stderr: stdout is the report's."""
    with redirect_stdout(sys.stderr):
        return load_target(target)


@contextmanager
def _silent() -> Iterator[None]:
    """What the loss prints is dropped: it is run hundreds of times."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        yield


def _api() -> Any:
    from whynan import api  # imported late: `--help` and usage errors need none of it

    return api


def _passed(target: Target, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the api's verbs."""
    return {
        "name": target.name,
        "framework": options["framework"] or target.framework,
        "modes": _modes(options["modes"]),
        "dtype": options["dtype"],
        "seed": options["seed"],
    }


def _modes(given: Sequence[str]) -> tuple[str, ...] | None:
    """The modes of repeated --mode options, which may have commas; None if there is none."""
    return tuple(mode.strip() for text in given for mode in text.split(",") if mode.strip()) or None


def _domains(target: Target, options: Mapping[str, Any], stated: bool = True, composed: bool = False) -> dict[str, Any]:
    """Domains by argument: what is stated in pyproject.toml and by the decorator, the sample file, -d; later ones win.

    A loss composed with a model has other arguments: the sample file's arrays are taken as they are, and the api knows what is stated.
    """
    named = {} if composed else arguments_of(target.callable)
    given = {**_samples(options["samples"], named), **parse_assignments(options["domains"])}
    if not stated or composed:
        return given
    return {**_api().stated_domains(target), **given}


def _samples(file: Path | None, named: Mapping[str, bool]) -> dict[str, Any]:
    """The arrays of a sample file that the loss has arguments for; it is an error if there are none."""
    if file is None:
        return {}
    from whynan.samples import load_samples

    arrays = load_samples(file)
    used = {name: array for name, array in arrays.items() if name in named or not named}
    if not used:
        raise DomainError(f"{file} holds {', '.join(arrays)}, but the loss takes {', '.join(named)}.", "Save the arrays by those names.")
    return used


def _constants(domains: Mapping[str, Any]) -> dict[str, Any]:
    """The concrete arrays that `explain` runs on; a domain that is no single value is an error."""
    values = {name: getattr(domain, "value", domain) for name, domain in domains.items()}
    vague = [name for name, value in values.items() if value is None]
    if vague or not values:
        which = f"{', '.join(vague)}: that is a domain, not a value." if vague else "there is no input to explain."
        raise DomainError(which, 'Give one with --samples FILE or -d "p=[1.0, 0.5]".')
    return values


# ---------------------------------------------------------------- output


def _writable(options: Mapping[str, Any]) -> None:
    """Refuse files that cannot be written before the work is done rather than after it."""
    for file in (options["output"], options.get("script")):
        if file is None:
            continue
        if not file.parent.is_dir():
            raise WhynanError(f"{file} cannot be written: there is no folder {file.parent}.", "Make it, or choose another.")
        if not os.access(file if file.exists() else file.parent, os.W_OK):
            raise WhynanError(f"{file} cannot be written: permission denied.", "Choose another place.")


def _deliver(report: Any, form: str, output: Path | None, script: Path | None, **_: Any) -> None:
    """Write the report, and the program that repeats the first failure if one is asked for."""
    if script is not None:
        _write_script(report, script)
    if output is not None:
        output.write_text(_text(report, form, None), encoding="utf-8")
    else:
        sys.stdout.write(_text(report, form, sys.stdout))
        sys.stdout.flush()


def _text(report: Any, form: str, stream: TextIO | None) -> str:
    """The report in a format; as text for a stream, in colour and of a terminal's width if it is one, or for a file if there is none."""
    incident = getattr(report, "incident", None) is not None
    if form == "json":
        from whynan.report.json import dumps

        return json.dumps(report.to_dict(), indent=2, allow_nan=False) + "\n" if incident else dumps(report).rstrip("\n") + "\n"
    if form == "html":
        from whynan.report.html import to_html

        return to_html(report)
    if form == "sarif":
        from whynan.report.sarif import to_sarif

        return json.dumps(to_sarif(report), indent=2) + "\n"
    from rich.console import Console

    from whynan.report.terminal import render

    console = None if stream is None or not stream.isatty() else Console(file=stream)
    if incident:
        return f"{report.render(console)}\n"
    shown = render(report, color=False) if console is None else render(report, console)
    return shown.rstrip("\n") + "\n"


def _deliver_fixes(report: Any, fixes: Sequence[Any], form: str, output: Path | None) -> None:
    """Write the fixes: as text, or in one of the report's formats, whose findings hold them."""
    if form != "text":
        text = _text(report, form, None)
    else:
        from rich.console import Console

        from whynan.report.fixes import render_fixes

        on_screen = output is None and sys.stdout.isatty()
        text = render_fixes(report, fixes, Console(file=sys.stdout)) if on_screen else render_fixes(report, fixes, color=False)
    if output is not None:
        output.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
        sys.stdout.flush()


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


def _write_script(report: Any, file: Path) -> None:
    text = next((text for f in report.findings if f.witness is not None and (text := f.witness.script())), "")
    if text:
        file.write_text(text, encoding="utf-8")
    else:
        click.echo(f"whynan: {file} is not written: no failure was found that a program could repeat.", err=True)


@contextmanager
def _progress(text: str, after: float = 2.0) -> Iterator[None]:
    """A moving line on a terminal's stderr while the work takes longer than `after` seconds; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    status = Console(stderr=True).status(f"{text} …")
    timer = threading.Timer(after, status.start)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        status.stop()
