"""What a command gives back: the report, fixes, scripts, an exit code, and a sign of life meanwhile."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import click

from whynan.errors import WhynanError

FOUND = 1  # the exit code of an error-level finding


def exit_code(report: Any, *, strict: bool = False) -> int:
    """1 if the report has an error-level finding (with `strict`, also if the verdict is undecided), else 0."""
    found = any(finding.severity == "error" for finding in report.findings)
    return FOUND if found or (strict and report.verdict == "undecided") else 0


def refuse_unwritable(options: Mapping[str, Any]) -> None:
    """Refuse files that cannot be written before the work is done rather than after it."""
    for file in (options["output"], options.get("script")):
        if file is None:
            continue
        if not file.parent.is_dir():
            raise WhynanError(f"{file} cannot be written: there is no folder {file.parent}.", "Make it, or choose another.")
        if not os.access(file if file.exists() else file.parent, os.W_OK):
            raise WhynanError(f"{file} cannot be written: permission denied.", "Choose another place.")


def deliver(report: Any, form: str, output: Path | None, script: Path | None, **_: Any) -> None:
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


def deliver_fixes(report: Any, fixes: Sequence[Any], form: str, output: Path | None) -> None:
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


def _write_script(report: Any, file: Path) -> None:
    text = next((text for f in report.findings if f.witness is not None and (text := f.witness.script())), "")
    if text:
        file.write_text(text, encoding="utf-8")
    else:
        click.echo(f"whynan: {file} is not written: no failure was found that a program could repeat.", err=True)
