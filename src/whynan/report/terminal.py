"""A report for the terminal: what a person at 2 a.m. needs, first things first.

All furniture is ASCII; text from the user's files is shown with control characters escaped, never read as markup.
Escape codes for colour appear only where the console has colour.
"""

import io
import os
from collections.abc import Iterable

from rich.cells import cell_len, chop_cells
from rich.console import Console
from rich.text import Text

from whynan.analysis.finding import ERROR, SAFE, UNDECIDED, UNSAFE, Finding, Open, Report
from whynan.ir.graph import BACKWARD
from whynan.ir.where import Site
from whynan.report import _text
from whynan.report._ranges import envelope_text
from whynan.report._source import Line, excerpt
from whynan.report.words import words

Part = tuple[str, str]  # text and its style

_DEFAULT_WIDTH = 100
_WIDEST = 120
_NARROW = 60  # below this, a label stands on a line of its own
_NARROWEST = 30
_LABEL = 11  # columns of a label and its gap
_VERDICT_STYLES = {SAFE: "bold green", UNSAFE: "bold red", UNDECIDED: "bold yellow"}
_SEVERITY_STYLES = {ERROR: "bold red"}
_WARNING_STYLE = "bold yellow"
_OPEN_SHOWN = 10
_LINKS_SHOWN, _LATER_LINKS_SHOWN = 10, 3  # of a chain: of the first finding's, and of any other's


def render(report: Report, console: Console | None = None, width: int | None = None, color: bool | None = None) -> str:
    """The report as text of at most `width` columns (the console's, or 100 where there is none), in colour if the console has it."""
    page = new_page(console, width, color)
    _headline(page, report)
    told: set[str] = set()
    for finding in _text.ordered(report):
        _finding(page, finding, told, report.modes)
    _open_sites(page, report.undecided)
    _proof(page, report)
    return page.text()


def render_findings(
    findings: Iterable[Finding], console: Console | None = None, width: int | None = None, color: bool | None = None
) -> str:
    """Findings alone, as `lint` has them, with a count at the end."""
    page = new_page(console, width, color)
    findings = list(findings)
    told: set[str] = set()
    for finding in findings:
        _finding(page, finding, told)
    page.line()
    bad = sum(f.severity == ERROR for f in findings)
    page.line((f"{_text.count(bad, 'error')}, {_text.count(len(findings) - bad, 'warning')}" if findings else "Nothing found.", ""))
    return page.text().lstrip("\n")


# ---------------------------------------------------------------- the page


class Page:
    """Lines under construction: a width, an encoding, and the console that turns styles into escape codes."""

    def __init__(self, width: int, color: bool, encoding: str) -> None:
        self.width = max(width, _NARROWEST)
        self.encoding = encoding
        self._file = io.StringIO()
        self._console = Console(
            file=self._file,
            width=100_000,  # lines are wrapped here, not by rich
            height=25,  # with both given, rich does not ask the terminal
            force_terminal=color,
            no_color=not color,
            color_system="standard" if color else None,
            highlight=False,
            markup=False,
            emoji=False,
            soft_wrap=True,
            legacy_windows=False,
        )

    def text(self) -> str:
        """Everything written so far."""
        return self._file.getvalue()

    def clean(self, text: str) -> str:
        """Text from outside, safe to show here."""
        return _text.visible(text, self.encoding)

    def line(self, *parts: Part) -> None:
        """One line as it stands."""
        self._console.print(Text.assemble(*parts))

    def prose(self, text: str, style: str = "", indent: int = 0, first: Part | None = None) -> None:
        """Text wrapped to the width and indented; `first` stands before the first line in place of the indent."""
        head = first if first is not None else (" " * indent, "")
        room = max(self.width - indent, 10)
        lines = [part for paragraph in self.clean(text).split("\n") for part in _wrapped(paragraph, room)]
        for i, part in enumerate(lines):
            self.line(head if i == 0 else (" " * indent, ""), (part, style))

    def field(self, label: str, texts: Iterable[str], style: str = "") -> None:
        """A label with its lines beside it, or below it where the page is narrow."""
        texts = list(texts)
        if not texts:
            return
        if self.width < _NARROW:
            self.line((f"  {label}:", "bold"))
            for text in texts:
                self.prose(text, style, indent=4)
            return
        for i, text in enumerate(texts):
            head = ("  " + (label if i == 0 else "").ljust(_LABEL), "bold")
            self.prose(text, style, indent=_LABEL + 2, first=head)


def new_page(console: Console | None, width: int | None, color: bool | None) -> Page:
    """An empty page of a console's width and colours, or of those given."""
    screen = console or Console(legacy_windows=False)
    if color is None:
        color = screen.is_terminal and screen.color_system is not None and not screen.no_color
    if width is None:
        known = console is not None or screen.is_terminal or os.environ.get("COLUMNS", "").isdigit()
        width = min(screen.width, _WIDEST) if known else _DEFAULT_WIDTH
    return Page(width, color, screen.encoding)


def _wrapped(text: str, room: int) -> list[str]:
    """The words of a text on lines of at most `room` columns; a longer word is broken."""
    lines = [""]
    for word in (piece for long in text.split() for piece in chop_cells(long, room)):
        if lines[-1] and cell_len(lines[-1]) + 1 + cell_len(word) > room:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
    return lines


# ---------------------------------------------------------------- the parts of a report


def _headline(page: Page, report: Report) -> None:
    word = report.verdict.upper()
    style = _VERDICT_STYLES.get(report.verdict, "bold")
    page.prose(_text.headline(report), "bold", indent=len(word) + 2, first=(word + "  ", style))
    page.prose(_text.context_text(report), "dim", indent=len(word) + 2 if page.width >= _NARROW else 2)


def _finding(page: Page, finding: Finding, told: set[str], modes: tuple[str, ...] = ()) -> None:
    """One finding. `told` are the causes explained so far: what was said of one is not said again, and later chains are cut short.

    `modes` are the report's: where there is only one, the headline has named it.
    """
    text, known, first = words(finding.cause), finding.cause in told, not told
    told.add(finding.cause)
    page.line()
    heading = f"{finding.severity}[{finding.cause}]"
    style = _SEVERITY_STYLES.get(finding.severity, _WARNING_STYLE)
    page.prose(f"{heading} {text.title}", style, indent=0)
    if finding.site is not None:
        source(page, finding, finding.site)
    page.field("what", [finding.message])
    page.field("why", [text.why] if not known and text.why not in finding.message else [])
    page.field("related", [", ".join(finding.related)] if finding.related else [])
    if finding.witness is not None:
        page.field("input", _text.inputs(finding.witness))
        page.field("gives", _text.gives(finding.witness))
        page.field("exact", _text.exact(finding.witness))
    page.field("how", _text.shortened(chain(finding), _LINKS_SHOWN if first else _LATER_LINKS_SHOWN))
    page.field("modes", [", ".join(finding.modes)] if finding.modes and len(modes) != 1 else [])
    page.field("to do", ["as above"] if known else [text.hint])
    page.field("fix", [_text.fix_text(fix) for fix in finding.fixes])


def chain(finding: Finding) -> list[str]:
    """The way of the first non-finite value, a line for each step."""
    places = [_text.place(step.site, finding.site) for step in finding.chain]
    backward = ["gradient: " if step.phase == BACKWARD else "" for step in finding.chain]
    return [f"{place}: {b}{_text.step_text(step)}" for place, b, step in zip(places, backward, finding.chain, strict=True)]


def _open_sites(page: Page, sites: tuple[Open, ...]) -> None:
    if not sites:
        return
    page.line()
    page.prose(f"Undecided: {_text.count(len(sites), 'place')}", "bold yellow")
    for site in sites[:_OPEN_SHOWN]:
        page.prose(_text.open_text(site), indent=4, first=("  - ", ""))
        page.prose(site.reason, indent=4)
    if len(sites) > _OPEN_SHOWN:
        page.prose(f"... and {len(sites) - _OPEN_SHOWN} more, in the JSON report", indent=2)
    page.field("to try", _text.to_try(sites))


def _proof(page: Page, report: Report) -> None:
    page.line()
    page.prose(_text.proof_title(report), "bold")
    page.field("sites", [_text.counts_text(report)] if report.sites.get("total") else [])
    page.field("for all", _text.domains(report, assumed=False))
    assumed = _text.domains(report, assumed=True)
    page.field("assumed", [*assumed, _text.ASSUMED] if assumed else [])
    page.field("fixed", _text.constants(report))
    page.field("scope", [_text.scope_text(report)])
    page.field("gradients", _text.differentiated(report))
    page.field("finite", envelope_text(report))
    page.field("search", [text] if (text := _text.search_text(report)) else [])
    page.field("notes", list(report.notes))


# ---------------------------------------------------------------- source lines


def source(page: Page, finding: Finding, site: Site) -> None:
    """Place and source lines of a finding, with carets under the expression."""
    lines = excerpt(site)
    digits = max(len(str(line.number or "")) for line in lines)
    side = " " * digits + " |"
    page.prose(_text.location(finding, site), indent=digits + 4, first=(" " * digits + "--> ", "dim"))
    if site.detail:
        page.prose(f"inside {site.detail}", "dim", indent=digits + 4)
    parts = [_parts(page, line) for line in lines]
    room = page.width - digits - 3
    if any(cell_len("".join(p)) > room for p in parts):
        parts = _dedented(parts)
    page.line((side, "dim"))
    for line, part in zip(lines, parts, strict=True):
        _source_line(page, line, _window(part, room), side)
    page.line((side, "dim"))


def _parts(page: Page, line: Line) -> tuple[str, str, str]:
    """The text before the marked part, the marked part, and the text after it, safe to show."""
    before, marked, after = line.text[: line.start], line.text[line.start : line.end], line.text[line.end :]
    return page.clean(before), page.clean(marked), page.clean(after)


def _dedented(parts: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    margin = min((len(b) - len(b.lstrip(" ")) for b, m, a in parts if (b + m + a).strip()), default=0)
    return [(b[margin:], m, a) for b, m, a in parts]


def _window(parts: tuple[str, str, str], room: int) -> tuple[str, str, str]:
    """The three parts cut to `room` columns with the marked one in view; "..." stands for what was cut."""
    before, marked, after = parts
    if cell_len(before + marked + after) <= room:
        return parts
    marked = _head(marked, room - 6)
    left = room - cell_len(marked)
    before = _tail(before, max(left - cell_len(after), left // 2))
    return before, marked, _head(after, left - cell_len(before))


def _head(text: str, room: int) -> str:
    if cell_len(text) <= room:
        return text
    return (chop_cells(text, room - 3)[0] if room > 3 else "") + "..."[:room]


def _tail(text: str, room: int) -> str:
    return _head(text[::-1], room)[::-1]


def _source_line(page: Page, line: Line, parts: tuple[str, str, str], side: str) -> None:
    before, marked, after = parts
    if line.number is None:
        page.line((f"{side} {before}{marked}{after}", "dim"))
        return
    page.line((f"{line.number:>{len(side) - 2}} | ", "dim"), (before, ""), (marked, "bold"), (after, ""))
    if marked:
        page.line((f"{side} ", "dim"), (" " * cell_len(before) + "^" * cell_len(marked), "bold red"))
