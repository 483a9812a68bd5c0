"""Findings as text: for the terminal, JSON, HTML, SARIF, and as a program that repeats the failure."""

from whynan.report.html import to_fragment, to_html
from whynan.report.json import dumps, finding_dict, to_dict
from whynan.report.sarif import findings_sarif, to_sarif
from whynan.report.script import witness_script
from whynan.report.terminal import render, render_findings

__all__ = [
    "dumps",
    "finding_dict",
    "findings_sarif",
    "render",
    "render_findings",
    "to_dict",
    "to_fragment",
    "to_html",
    "to_sarif",
    "witness_script",
]
