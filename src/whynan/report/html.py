"""A report as one HTML page: no scripts, nothing loaded from elsewhere, light or dark as the reader's system is, printable.

All text from the user's files is escaped.
"""

import html
from collections.abc import Iterable

from whynan.analysis.finding import Finding, Report, Witness
from whynan.ir.graph import BACKWARD
from whynan.ir.where import Site
from whynan.report import _text
from whynan.report._ranges import envelope_text
from whynan.report._source import Line, excerpt
from whynan.report.words import words

_STYLE = """
.whynan { --ink: #1d232b; --faint: #5d6876; --paper: #ffffff; --panel: #f4f6f8; --edge: #d8dee5; --bad: #b3261e; --warn: #8a5a00;
  --good: #1b6e3c; --mark: #ffd9d4; color: var(--ink); background: var(--paper); color-scheme: light dark;
  font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1.5rem; overflow-wrap: anywhere; }
@media (prefers-color-scheme: dark) { .whynan { --ink: #e4e8ed; --faint: #9aa6b4; --paper: #14181d; --panel: #1d232b; --edge: #343d48;
  --bad: #ff8a80; --warn: #f2c14e; --good: #7ddc9f; --mark: #6d2620; } }
.whynan h1 { font-size: 1.35rem; line-height: 1.3; margin: 0; }
.whynan h2 { font-size: 1.05rem; margin: 0 0 .5rem; }
.whynan .context, .whynan .note { color: var(--faint); margin: .25rem 0 0; }
.whynan section { border-top: 1px solid var(--edge); margin-top: 1.25rem; padding-top: 1rem; }
.whynan .unsafe, .whynan .error { color: var(--bad); }
.whynan .undecided, .whynan .warning, .whynan .note-level { color: var(--warn); }
.whynan .safe { color: var(--good); }
.whynan pre, .whynan code { font: 13px/1.5 ui-monospace, "DejaVu Sans Mono", monospace; }
.whynan pre { background: var(--panel); border: 1px solid var(--edge); border-radius: 4px; padding: .6rem .8rem; margin: .5rem 0;
  overflow-x: auto; }
.whynan pre .n { color: var(--faint); user-select: none; }
.whynan mark { background: var(--mark); color: inherit; text-decoration: underline; text-decoration-color: var(--bad);
  text-decoration-thickness: 2px; }
.whynan dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1rem; margin: .5rem 0 0; }
.whynan dt { color: var(--faint); }
.whynan dd { margin: 0; }
.whynan ul, .whynan ol { margin: 0; padding-left: 1.2rem; }
.whynan dd > ul { list-style: none; padding: 0; }
.whynan summary { cursor: pointer; color: var(--faint); margin-top: .5rem; }
@media (max-width: 34rem) { .whynan dl { grid-template-columns: 1fr; gap: 0; } .whynan dd { margin-bottom: .5rem; } }
@media print { .whynan { --ink: #000; --paper: #fff; --panel: #fff; --faint: #444; --edge: #999; --bad: #900; --warn: #640; --good: #040;
  --mark: #eee; max-width: none; padding: 0; } .whynan pre { white-space: pre-wrap; } .whynan pre, .whynan h2 { break-inside: avoid; }
  .whynan details::details-content { content-visibility: visible; block-size: auto; } }
"""


def to_html(report: Report) -> str:
    """A whole page."""
    title = _escape(f"{report.verdict.upper()} {_text.target_name(report)} - whynan")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n"
        "<style>html { color-scheme: light dark; background: Canvas; } body { margin: 0; }</style>\n"
        f"</head>\n<body>\n{to_fragment(report)}</body>\n</html>\n"
    )


def to_fragment(report: Report) -> str:
    """The report without a page around it, for notebooks; its style touches nothing else."""
    parts = [
        f'<div class="whynan">\n<style>{_STYLE}</style>\n',
        f'<h1><span class="{_escape(report.verdict)}">{_escape(report.verdict.upper())}</span> {_escape(_text.headline(report))}</h1>\n',
        f'<p class="context">{_escape(_text.context_text(report))}</p>\n',
        *(_finding(f) for f in _text.ordered(report)),
        _open_sites(report),
        _proof(report),
        "</div>\n",
    ]
    return "".join(parts)


def _escape(text: str) -> str:
    return html.escape(_text.visible(text))


def _finding(finding: Finding) -> str:
    text = words(finding.cause)
    witness = finding.witness
    rows = [
        ("what", _escape(finding.message)),
        ("why", _escape(text.why) if text.why not in finding.message else ""),
        ("related", _escape(", ".join(finding.related))),
        ("input", _list(_text.inputs(witness), code=True) if witness else ""),
        ("gives", _list(_text.gives(witness), code=True) if witness else ""),
        ("exact", _list(_text.exact(witness), code=True) if witness and witness.exact else ""),
        ("how", _chain(finding)),
        ("modes", _escape(", ".join(finding.modes))),
        ("to do", _escape(text.hint)),
        ("fix", _list(_text.fix_text(f) for f in finding.fixes)),
    ]
    level = finding.severity if finding.severity in ("error", "warning") else "note-level"
    return (
        f'<section>\n<h2><span class="{level}">{_escape(finding.severity)}</span> {_escape(text.title)} '
        f"<code>{_escape(finding.cause)}</code></h2>\n"
        f"{_source(finding, finding.site) if finding.site else ''}{_rows(rows)}{_script(witness)}</section>\n"
    )


def _script(witness: Witness | None) -> str:
    script = "" if witness is None else witness.script()
    if not script:
        return ""
    return f"<details><summary>program that repeats it</summary>\n<pre>{_escape(script)}</pre></details>\n"


def _rows(rows: Iterable[tuple[str, str]]) -> str:
    """Label and content (HTML) pairs; pairs without content are left out."""
    return "<dl>\n" + "".join(f"<dt>{_escape(label)}</dt><dd>{content}</dd>\n" for label, content in rows if content) + "</dl>\n"


def _list(texts: Iterable[str], code: bool = False) -> str:
    items = [f"<code>{_escape(t)}</code>" if code else _escape(t) for t in texts]
    return "<ul>" + "".join(f"<li>{item}</li>" for item in items) + "</ul>" if items else ""


def _chain(finding: Finding) -> str:
    items = [
        f"<li><code>{_escape(_text.step_text(s))}</code> "
        f'<span class="note">{_escape(_text.place(s.site, finding.site))}{", gradient" if s.phase == BACKWARD else ""}</span></li>'
        for s in finding.chain
    ]
    return f"<ol>{''.join(items)}</ol>" if items else ""


def _source(finding: Finding, site: Site) -> str:
    detail = f" (inside {site.detail})" if site.detail else ""
    where = f'<p class="note">{_escape(_text.location(finding, site) + detail)}</p>\n'
    lines = excerpt(site)
    digits = max(len(str(line.number or "")) for line in lines)
    return where + "<pre>" + "\n".join(_line(line, digits) for line in lines) + "</pre>\n"


def _line(line: Line, digits: int) -> str:
    before, marked, after = line.text[: line.start], line.text[line.start : line.end], line.text[line.end :]
    label = f"{line.number or '':>{digits}}"
    mark = f"<mark>{_escape(marked)}</mark>" if marked else ""
    return f'<span class="n">{label}</span>  {_escape(before)}{mark}{_escape(after)}'


def _open_sites(report: Report) -> str:
    if not report.undecided:
        return ""
    items = [f"<li><code>{_escape(_text.open_text(site))}</code>: {_escape(site.reason)}</li>" for site in report.undecided]
    return (
        f'<section>\n<h2 class="undecided">Undecided: {_text.count(len(items), "place")}</h2>\n'
        f'<ul>{"".join(items)}</ul>\n<p class="note">{_escape(" ".join(_text.to_try(report.undecided)))}</p>\n</section>\n'
    )


def _proof(report: Report) -> str:
    assumed = _text.domains(report, assumed=True)
    rows = [
        ("sites", _escape(_text.counts_text(report)) if report.sites.get("total") else ""),
        ("for all", _list(_text.domains(report, assumed=False), code=True)),
        ("assumed", _list(assumed, code=True) + f'<span class="note">{_escape(_text.ASSUMED)}</span>' if assumed else ""),
        ("fixed", _list(_text.constants(report), code=True)),
        ("scope", _escape(_text.scope_text(report))),
        ("gradients", _escape(" ".join(_text.differentiated(report)))),
        ("finite", _list(envelope_text(report))),
        ("search", _escape(_text.search_text(report))),
        ("notes", _list(report.notes)),
    ]
    return f"<section>\n<h2>{_text.proof_title(report)}</h2>\n{_rows(rows)}</section>\n"
