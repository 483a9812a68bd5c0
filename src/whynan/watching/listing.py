"""Which incidents a folder holds: as records, as text of one line each, as JSON data."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rich.cells import cell_len, chop_cells
from rich.console import Console

from whynan.errors import IncidentError
from whynan.report._source import shown_path
from whynan.report._text import count, one_line
from whynan.report.json import plain
from whynan.report.terminal import Page, new_page
from whynan.watching.read import FILE, read
from whynan.watching.record import Incident
from whynan.watching.words import moment_text, several, what_failed

_MOST = 10_000  # folders looked at


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A folder that holds an incident: either that, or why it cannot be read."""

    folder: Path
    incident: Incident | None
    fault: str = ""


def listed(folder: Path) -> tuple[Entry, ...]:
    """The incidents below a folder, newest first, those that cannot be read last; or the one that the folder is itself."""
    if not folder.is_dir():
        raise IncidentError(
            f"there is no folder {folder}.", "Give the folder that watched runs write to (option `folder` of whynan.watch)."
        )
    found = [_entry(folder)] if (folder / FILE).is_file() else [_entry(f) for f in _folders(folder)]
    return tuple(sorted(found, key=_order, reverse=True))


def _order(entry: Entry) -> tuple[Any, ...]:
    incident = entry.incident
    return (False, "", 0, entry.folder.name) if incident is None else (True, incident.when, incident.step, entry.folder.name)


def _folders(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        names = sorted((e.name for e in entries if e.is_dir(follow_symlinks=False) and not e.name.startswith(".")), reverse=True)
    for name in names[:_MOST]:
        if os.path.lexists(folder / name / FILE):
            yield folder / name


def _entry(folder: Path) -> Entry:
    try:
        return Entry(folder, read(folder))
    except IncidentError as error:
        return Entry(folder, None, error.message)


# ---------------------------------------------------------------- shown


def as_data(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """The incidents as JSON data: folder, and its main fields or the fault."""
    return [{"folder": str(e.folder), **(_fields(e.incident) if e.incident is not None else {"fault": e.fault})} for e in entries]


def _fields(incident: Incident) -> dict[str, Any]:
    names = ("step", "when", "framework", "failed", "loss", "kind", "cause", "layer", "parameter", "rank", "action")
    site = incident.finding.site if incident.finding is not None else None
    place = {"file": site.file, "line": site.line, "text": site.text} if site is not None else {}
    return {**{name: plain(getattr(incident, name)) for name in names}, "samples": list(incident.suspects.samples), **place}


def as_text(entries: Sequence[Entry], folder: Path, stream: TextIO) -> str:
    """A line for each incident: when, step, what failed, cause, place, samples, folder; cut to a terminal's width."""
    page = new_page(Console(file=stream) if stream.isatty() else None, None, None if stream.isatty() else False)
    if not entries:
        page.prose(f"No incidents in {folder}.")
        return page.text()
    rows = [_row(e) for e in entries]
    widths = [max(cell_len(page.clean(row[i])) for row in rows) for i in range(len(rows[0]) - 1)]
    for row in rows:
        _line(page, row, widths, None if not stream.isatty() else page.width)
    page.line()
    page.prose(f"{count(len(entries), 'incident')}; `whynan explain FOLDER` tells one.")
    return page.text()


def _row(entry: Entry) -> tuple[str, ...]:
    """The columns of a line, the folder last."""
    incident, name = entry.incident, shown_path(str(entry.folder.absolute()))
    if incident is None:
        return ("", "", "cannot be read", "", "", "", f"{name}: {entry.fault}")
    site = incident.finding.site if incident.finding is not None else None
    samples = incident.suspects.samples
    return (
        moment_text(incident.when),
        f"step {incident.step}" + (f" rank {incident.rank}" if incident.world > 1 else ""),
        what_failed(incident),
        incident.cause or incident.kind,
        f"{shown_path(site.file)}:{site.line}" if site is not None else incident.layer,
        f"sample{'s' if len(samples) > 1 else ''} {several(samples, 3)}" if samples else "",
        name,
    )


def _line(page: Page, row: tuple[str, ...], widths: Sequence[int], room: int | None) -> None:
    cells = [one_line(page.clean(text)) for text in row]
    padded = [text + " " * max(0, w - cell_len(text)) for text, w in zip(cells, widths, strict=False)]
    text = "  ".join([*(p for p, w in zip(padded, widths, strict=True) if w), cells[-1]])
    page.line((text if room is None else chop_cells(text, room)[0], ""))
