"""What is known of each loss of an audit: one JSON file per loss, so that an audit that was interrupted goes on where it stopped.

Beside `NAME.json` stand the loss's page, `NAME.html`, and, if it fails, the program that repeats it, `NAME.py`.
"""

import json
import os
import zlib
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from whynan.analysis.finding import UNDECIDED, Report
from whynan.errors import SampleError
from whynan.report.read import from_dict

SCHEMA = "whynan.audit/1"
CHECKED, REFUSED, FAILED, HUNG, CRASHED, EXCLUDED = "checked", "refused", "failed", "hung", "crashed", "excluded"


@dataclass(frozen=True, slots=True)
class Record:
    """One loss of an audit.

    `status` is "checked", or why it was not: "refused" (whynan says what keeps it from running the loss), "failed" (whynan itself
    failed), "hung", "crashed", "excluded" (by an override). `key` is what the answer depends on: target, versions, options.
    `seconds` is the time that the check took or, if it hung, was given. `domains` are those checked, in their notation. `confirmed` says
    for each failure whether its program failed in a fresh process.
    """

    name: str
    target: str
    status: str
    aliases: tuple[str, ...] = ()
    key: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    seconds: float = 0.0
    domains: Mapping[str, str] = field(default_factory=dict)
    confirmed: tuple[bool, ...] = ()
    report: Mapping[str, Any] | None = None

    @property
    def verdict(self) -> str:
        """The report's verdict; for a loss that was not checked, its status."""
        return str(self.report["verdict"]) if self.report is not None else self.status


def report_of(record: Record) -> Report:
    """The report of a loss; for one that was not checked, an undecided one that says why."""
    if record.report is not None:
        return from_dict(record.report)
    options = record.key.get("options", {})
    return Report(
        target=record.target,
        framework=str(options.get("framework") or ""),
        framework_version="",
        dtype=str(options.get("dtype") or "float32"),
        modes=tuple(options.get("modes") or ()),
        verdict=UNDECIDED,
        seconds=record.seconds,
        domain={},
        sites={},
        notes=(f"It was not checked ({record.status}): {record.reason}.",),
    )


# ---------------------------------------------------------------- files


def file_names(names: Collection[str]) -> dict[str, str]:
    """A file name for each loss; those that differ in case only are told apart by a number, for file systems that do not."""
    lower = [name.lower() for name in names]
    return {name: f"{name}-{zlib.crc32(name.encode()) & 0xFFFF:04x}" if lower.count(name.lower()) > 1 else name for name in names}


def save(folder: Path, stem: str, record: Record, page: str = "") -> None:
    """Write a loss's record, its page and, if it fails, its program; each file wholly or not at all."""
    for suffix, text in ((".html", page), (".py", _script(record))):
        if text:
            _write(folder / f"{stem}{suffix}", text)
        else:
            (folder / f"{stem}{suffix}").unlink(missing_ok=True)
    data = {"schema": SCHEMA, **asdict(record)}
    _write(folder / f"{stem}.json", json.dumps(data, indent=1, allow_nan=False) + "\n")


def load(folder: Path, stem: str) -> Record | None:
    """The record of a loss; None if there is none that can be read."""
    try:
        data = json.loads((folder / f"{stem}.json").read_text("utf-8"))
        if data.pop("schema", None) != SCHEMA:
            return None
        record = Record(**{**data, "aliases": tuple(data["aliases"]), "confirmed": tuple(data["confirmed"])})
        report_of(record)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, SampleError):
        return None
    return record


def load_all(folder: Path) -> list[Record]:
    """All records of an audit's output folder, by name."""
    found = (load(folder / "losses", file.stem) for file in sorted((folder / "losses").glob("*.json")))
    return sorted((record for record in found if record is not None), key=lambda r: r.name)


def _script(record: Record) -> str:
    findings = record.report["findings"] if record.report is not None else ()
    return next((f["witness"]["script"] for f in findings if f["severity"] == "error" and f["witness"] is not None), "")


def _write(file: Path, text: str) -> None:
    whole = file.with_name(file.name + ".part")
    whole.write_text(text, encoding="utf-8")
    os.replace(whole, file)
