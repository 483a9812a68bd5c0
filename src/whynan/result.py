"""The report that users hold: the analysis' record together with the ways to show it."""

import os
from dataclasses import fields
from pathlib import Path
from typing import Any

from whynan.analysis import finding
from whynan.report._text import count
from whynan.report.html import to_fragment, to_html
from whynan.report.json import to_dict
from whynan.report.sarif import to_sarif
from whynan.report.terminal import render


class Report(finding.Report):
    """The answer of a check, as the public contract (section 5) describes it; `print` shows it, notebooks display it."""

    __slots__ = ()

    @classmethod
    def of(cls, record: finding.Report) -> "Report":
        """The same report with the ways to show it."""
        return cls(**{f.name: getattr(record, f.name) for f in fields(record)})

    def __str__(self) -> str:
        return render(self, color=False).rstrip("\n")

    def __repr__(self) -> str:
        return f"<Report {self.verdict}: {self.target}, {count(len(self.findings), 'finding')}>"

    def _repr_html_(self) -> str:
        return to_fragment(self)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON data, schema `whynan.report/1`."""
        return to_dict(self)

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Write the report as one self-contained page. Raises OSError if the file cannot be written."""
        Path(path).write_text(to_html(self), encoding="utf-8")

    def to_sarif(self) -> dict[str, Any]:
        """The report as a SARIF 2.1.0 log."""
        return to_sarif(self)
