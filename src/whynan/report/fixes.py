"""Fixes for the terminal: each with its evidence and its diff, the best first."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from whynan.analysis.finding import Report
from whynan.report import _text
from whynan.report.terminal import Page, new_page

_STYLES = {"verified": "bold green", "needs-review": "bold yellow", "advice": "bold cyan"}
_LINES = {"+": "green", "-": "red", "@": "cyan"}


def render_fixes(
    report: Report, fixes: Sequence[Any], console: Console | None = None, width: int | None = None, color: bool | None = None
) -> str:
    """The fixes as text, in colour if the console has it. Diffs are not wrapped, so that they can be applied as they stand."""
    page = new_page(console, width, color)
    page.line((f"whynan fix {page.clean(report.target)}", "bold"))
    if not fixes:
        page.prose(_none(report))
    for number, fix in enumerate(fixes, 1):
        _fix(page, number, fix)
    return page.text()


def _none(report: Report) -> str:
    errors = [f for f in report.findings if f.severity == "error"]
    if not errors:
        return "No input was found on which the loss or a gradient of it is not finite: there is nothing to fix."
    return f"No change was found that removes what the check found ({_text.count(len(errors), 'error')}): see whynan check."


def _fix(page: Page, number: int, fix: Any) -> None:
    page.line()
    page.prose(f"{fix.title}", "bold", 4, (f"[{number}] ", "bold"))
    page.line((f"    {fix.applicability}", _STYLES.get(fix.applicability, "")))
    for line in fix.evidence.lines():
        page.prose(line, "", 6, ("    - ", ""))
    if fix.patch:
        page.line()
        for line in fix.patch.rstrip("\n").split("\n"):
            page.line((page.clean(line), "bold" if line.startswith(("---", "+++")) else _LINES.get(line[:1], "")))
