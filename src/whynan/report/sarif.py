"""Findings as SARIF 2.1.0, which code hosts and editors show at the line. Rules are causes; lines and columns count from 1."""

import contextlib
import hashlib
import os
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from whynan.analysis.finding import Finding, Open, Report, Step
from whynan.ir.where import Site
from whynan.report import _text
from whynan.report._source import columns
from whynan.report.words import words

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def to_sarif(report: Report) -> dict[str, Any]:
    """A report as a SARIF log with one run; undecided sites are notifications of that run."""
    return findings_sarif(report.findings, report.undecided)


def findings_sarif(findings: Iterable[Finding], undecided: Iterable[Open] = ()) -> dict[str, Any]:
    """Findings (of any number of reports, or of `lint`) as a SARIF log with one run."""
    findings = list(findings)
    causes = sorted({f.cause for f in findings})
    run = {
        "tool": {"driver": _driver(causes)},
        "columnKind": "unicodeCodePoints",
        "invocations": [{"executionSuccessful": True, "toolExecutionNotifications": [_notification(o) for o in undecided]}],
        "results": [_result(f, causes) for f in findings],
    }
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}


def _driver(causes: list[str]) -> dict[str, Any]:
    driver: dict[str, Any] = {"name": "whynan", "rules": [_rule(c) for c in causes]}
    with contextlib.suppress(PackageNotFoundError):  # in a source tree that is not installed; the version is optional
        driver["version"] = version("whynan")
    return driver


def _rule(cause: str) -> dict[str, Any]:
    text = words(cause)
    return {
        "id": cause,
        "name": "".join(part.capitalize() for part in cause.split("-")),
        "shortDescription": {"text": text.title},
        "fullDescription": {"text": text.why},
        "help": {"text": f"{text.why} {text.hint}"},
    }


def _result(finding: Finding, causes: list[str]) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": finding.cause,
        "ruleIndex": causes.index(finding.cause),
        "level": finding.severity,
        "message": {"text": _text.visible(_message(finding))},
        "locations": _locations(finding.site),
        "partialFingerprints": {"whynan/v1": _fingerprint(finding)},
        "properties": {
            "kind": finding.kind,
            "phase": finding.phase,
            "op": finding.op,
            "modes": list(finding.modes),
            "related": list(finding.related),
        },
    }
    flow = [{"location": _step_location(s)} for s in finding.chain if s.site is not None]
    if flow:
        result["codeFlows"] = [{"threadFlows": [{"locations": flow}]}]
    return result


def _message(finding: Finding) -> str:
    if finding.witness is None:
        return finding.message
    inputs = ", ".join(f"{name} = {_text.array_text(value)}" for name, value in finding.witness.inputs.items())
    return f"{finding.message} Failing input: {inputs}."


def _fingerprint(finding: Finding) -> str:
    """Stays the same when lines move: cause, kind, phase, function and the expression, not its position."""
    site = finding.site
    parts = (finding.kind, finding.cause, finding.phase, site.function if site else "", _text.one_line(site.text) if site else finding.op)
    return hashlib.sha256("\0".join(parts).encode(errors="backslashreplace")).hexdigest()[:32]


def _locations(site: Site | None) -> list[dict[str, Any]]:
    return [] if site is None else [_location(site)]


def _location(site: Site) -> dict[str, Any]:
    start, end = columns(site)
    region = {
        "startLine": site.line,
        "startColumn": start + 1,
        "endLine": site.end_line,
        "endColumn": end + 1,
        "snippet": {"text": _text.visible(site.text)},
    }
    location: dict[str, Any] = {"physicalLocation": {"artifactLocation": {"uri": _uri(site.file)}, "region": region}}
    if site.function:
        location["logicalLocations"] = [{"name": _text.visible(site.function), "kind": "function"}]
    return location


def _step_location(step: Step) -> dict[str, Any]:
    assert step.site is not None
    return {**_location(step.site), "message": {"text": _text.visible(_text.step_text(step))}}


def _notification(site: Open) -> dict[str, Any]:
    return {
        "level": "note",
        "message": {"text": _text.visible(f"Undecided: {site.op} ({site.phase}): {site.reason}")},
        "locations": _locations(site.site),
    }


def _uri(file: str) -> str:
    """A relative URI for a file below the working directory, a file URI otherwise."""
    path = Path(os.path.abspath(file))
    try:
        return quote(path.relative_to(os.getcwd()).as_posix())
    except ValueError:
        return path.as_uri()
