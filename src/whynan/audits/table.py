"""An audit as a table: rows of plain data, and from them Markdown, HTML and text."""

import html
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from whynan.analysis.finding import ERROR, SAFE, UNDECIDED, UNSAFE, Finding
from whynan.audits.run import Audit
from whynan.audits.store import EXCLUDED, Record, report_of
from whynan.report import _text

_SHORT = 90
_NOT_CHECKED = "refused failed hung crashed".split()


@dataclass(frozen=True, slots=True)
class Row:
    """One loss in short: what was found (a line each), why it is open if it is, on which inputs it was checked.

    `confirmed` says whether all its programs failed in fresh processes; None if it has none.
    """

    name: str
    aliases: tuple[str, ...]
    target: str
    verdict: str
    causes: tuple[str, ...]
    findings: tuple[str, ...]
    warnings: tuple[str, ...]
    reason: str
    domains: tuple[str, ...]
    confirmed: bool | None
    seconds: float


def row_of(record: Record) -> Row:
    """The row of a loss."""
    report = report_of(record)
    errors = [f for f in report.findings if f.severity == ERROR]
    return Row(
        record.name,
        record.aliases,
        record.target,
        record.verdict,
        tuple(dict.fromkeys(f.cause for f in errors)),
        tuple(_finding(f) for f in errors),
        tuple(dict.fromkeys(f.cause for f in report.findings if f.severity != ERROR)),
        _reason(record, [f"{site.op}: {site.reason}" for site in report.undecided]),
        tuple(f"{name} = {text}" for name, text in record.domains.items()),
        all(record.confirmed) if record.confirmed else None,
        record.seconds,
    )


def counts(verdicts: Sequence[str]) -> dict[str, Any]:
    """How many losses have which of these verdicts, and the share of those that are decided among all that are not excluded."""
    kinds = (SAFE, UNSAFE, UNDECIDED, *_NOT_CHECKED, EXCLUDED)
    number = {kind: verdicts.count(kind) for kind in kinds}
    asked = len(verdicts) - number[EXCLUDED]
    decided = number[SAFE] + number[UNSAFE]
    return {"losses": len(verdicts), **number, "decided": round(decided / asked, 4) if asked else 1.0}


def to_data(audit: Audit) -> dict[str, Any]:
    """The audit as JSON data: a row for each loss."""
    rows = [asdict(row_of(record)) for record in audit.records]
    head = {"schema": "whynan.audit-table/1", "module": audit.module, "versions": dict(audit.versions)}
    return {**head, "counts": counts([record.verdict for record in audit.records]), "others": list(audit.others), "losses": rows}


def headline(audit: Audit) -> str:
    """How it went, in one sentence."""
    n = counts([record.verdict for record in audit.records])
    parts = [f"{n[kind]} {kind}" for kind in (SAFE, UNSAFE, UNDECIDED, *_NOT_CHECKED, EXCLUDED) if n[kind] or kind in (SAFE, UNSAFE)]
    return f"{audit.module}: {len(audit.records)} losses: {', '.join(parts)}; {n['decided']:.0%} decided"


# ---------------------------------------------------------------- Markdown


def to_markdown(audit: Audit, links: str = "losses/") -> str:
    """The table in Markdown; `links` leads from it to the losses' pages (empty: no links)."""
    lines = [f"# {audit.module}", "", f"{headline(audit)}. {_versions(audit)}.", "", "| loss | verdict | found | s |", "|---|---|---|---|"]
    for record in audit.records:
        row = row_of(record)
        stem = audit.files.get(record.name, record.name)
        name = f"[{row.name}]({links}{stem}.html)" if links and record.report is not None else row.name
        also = f" (also {', '.join(row.aliases)})" if row.aliases else ""
        script = f" ([script]({links}{stem}.py))" if links and row.confirmed is not None else ""
        said = "; ".join(_cell(text) for text in _said(row)) + script
        lines.append(f"| {name}{also} | {row.verdict} | {said} | {row.seconds:.1f} |")
    if audit.others:
        lines += ["", f"Not taken for losses: {', '.join(audit.others)}."]
    return "\n".join(lines) + "\n"


def _said(row: Row) -> Iterable[str]:
    if row.findings:
        return [*row.findings, *(["**not confirmed by its script**"] if row.confirmed is False else [])]
    if row.reason:
        return [row.reason]
    return [f"warnings: {', '.join(row.warnings)}"] if row.warnings else []


def _cell(text: str) -> str:
    return _text.one_line(_text.visible(text)).replace("|", "\\|").replace("<", "&lt;")


def _versions(audit: Audit) -> str:
    return ", ".join(f"{name} {version}" for name, version in audit.versions.items())


# ---------------------------------------------------------------- HTML


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; }
tr { border-top: 1px solid color-mix(in srgb, currentColor 20%, transparent); } code { overflow-wrap: anywhere; }
td:nth-child(2) { font-weight: 600; } .safe { color: #1a7f37; } .unsafe { color: #cf222e; } .note { opacity: .7; font-size: 90%; }
"""


def to_html(audit: Audit) -> str:
    """The table as one page, whose links lead to the losses' pages and programs in `losses/`."""
    rows = "".join(_html_row(audit, record) for record in audit.records)
    others = f'<p class="note">Not taken for losses: {_escape(", ".join(audit.others))}.</p>\n' if audit.others else ""
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{_escape(audit.module)} - whynan audit</title>\n'
        f"<style>html {{ color-scheme: light dark; background: Canvas; }}{_STYLE}</style>\n</head>\n<body>\n"
        f'<h1>{_escape(audit.module)}</h1>\n<p>{_escape(headline(audit))}.</p>\n<p class="note">{_escape(_versions(audit))}</p>\n'
        f"<table>\n<tr><th>loss</th><th>verdict</th><th>found</th><th>on</th><th>s</th></tr>\n{rows}</table>\n{others}</body>\n</html>\n"
    )


def _html_row(audit: Audit, record: Record) -> str:
    row = row_of(record)
    stem = _escape(audit.files.get(record.name, record.name))
    name = f'<a href="losses/{stem}.html">{_escape(row.name)}</a>' if record.report is not None else _escape(row.name)
    also = f'<br><span class="note">also {_escape(", ".join(row.aliases))}</span>' if row.aliases else ""
    script = f'<br><a href="losses/{stem}.py">script</a>' if row.confirmed is not None else ""
    found = "<br>".join(_escape(text) for text in _said(row)) + script
    domains = "<br>".join(f"<code>{_escape(text)}</code>" for text in row.domains)
    return (
        f'<tr><td>{name}{also}</td><td class="{_escape(row.verdict)}">{_escape(row.verdict)}</td><td>{found}</td>'
        f'<td class="note">{domains}</td><td>{row.seconds:.1f}</td></tr>\n'
    )


def _escape(text: str) -> str:
    return html.escape(_text.visible(text))


# ---------------------------------------------------------------- words


def _finding(finding: Finding) -> str:
    """Cause, expression and input of a failure on one line."""
    site = f" in `{_shortened(_text.one_line(finding.site.text))}`" if finding.site is not None else ""
    backward = ", gradient" if finding.phase == "backward" else ""
    given = _shortened("; ".join(_text.inputs(finding.witness)), 2 * _SHORT) if finding.witness is not None else ""
    return f"{finding.cause}{site}{backward}" + (f" on {given}" if given else "")


def _reason(record: Record, open_sites: Sequence[str]) -> str:
    if record.report is None:
        return _shortened(_text.one_line(record.reason), 3 * _SHORT)
    more = f" (and {len(open_sites) - 2} more)" if len(open_sites) > 2 else ""
    return _shortened("; ".join(_text.one_line(text) for text in open_sites[:2]), 3 * _SHORT) + more if open_sites else ""


def _shortened(text: str, length: int = _SHORT) -> str:
    return text if len(text) <= length else text[: length - 2] + " …"
