"""What the command line shows and writes of an audit: progress, the table in a terminal, the files of the output folder."""

import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from whynan.analysis.finding import SAFE, UNDECIDED, UNSAFE
from whynan.audits import table
from whynan.audits.run import Audit, Options
from whynan.audits.run import run as run_audit
from whynan.audits.store import EXCLUDED, Record
from whynan.errors import WhynanError

_STYLES = {SAFE: "green", UNSAFE: "bold red", UNDECIDED: "yellow"}


def run(module: str, folder: Path, overrides: Path | None, **options: Any) -> Audit:
    """Audit a module with a progress bar on stderr, and write the table's files. Raises WhynanError if the folder cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _progress(module) as tell:
            done = run_audit(module, Options(**options), folder, overrides, tell)
        write(done, folder)
    except OSError as error:
        raise WhynanError(f"{folder} cannot be written: {error}.", "Choose another folder with --output.") from error
    return done


def write(audit: Audit, folder: Path) -> None:
    """The table in three forms: index.html, README.md, audit.json."""
    (folder / "index.html").write_text(table.to_html(audit), encoding="utf-8")
    (folder / "README.md").write_text(table.to_markdown(audit), encoding="utf-8")
    (folder / "audit.json").write_text(_json(audit), encoding="utf-8")


def text(audit: Audit, form: str, folder: Path) -> str:
    """The table for stdout: "text", "markdown" or "json"."""
    if form == "json":
        return _json(audit)
    if form == "markdown":
        return table.to_markdown(audit, links="")
    return _terminal(audit, folder)


def failed(audit: Audit, strict: bool) -> bool:
    """Whether a loss has an error-level finding; with `strict`, also whether one is not decided."""
    rows = [table.row_of(record) for record in audit.records]
    return any(row.findings for row in rows) or (strict and any(row.verdict not in (SAFE, UNSAFE, EXCLUDED) for row in rows))


def _json(audit: Audit) -> str:
    return json.dumps(table.to_data(audit), indent=1, allow_nan=False) + "\n"


def _terminal(audit: Audit, folder: Path) -> str:
    stream = sys.stdout if sys.stdout.isatty() else None
    out = io.StringIO()
    console = Console(file=out, width=Console(file=stream).width if stream else 120, force_terminal=stream is not None)
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("loss", "verdict", "found"):
        shown.add_column(title, overflow="fold")
    for record in audit.records:
        row = table.row_of(record)
        shown.add_row(Text(row.name), Text(row.verdict, _STYLES.get(row.verdict, "")), Text("\n".join(row.causes) or row.reason))
    console.print(shown)
    console.print(Text(f"\n{table.headline(audit)}.\nThe table with all pages and programs: {folder / 'index.html'}"))
    return out.getvalue()


@contextmanager
def _progress(module: str) -> Iterator[Callable[[int, int, Record | None], None]]:
    """A bar on a terminal's stderr, elsewhere a line for each loss."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _told
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(f"auditing {module}", total=None)

        def tell(done: int, total: int, record: Record | None) -> None:
            last = f": {record.name} is {record.verdict}" if record is not None else ""
            bar.update(task, completed=done, total=total, description=f"auditing {module}{last}")

        yield tell


def _told(done: int, total: int, record: Record | None) -> None:
    if record is not None:
        print(f"{done}/{total} {record.verdict} {record.name}", file=sys.stderr, flush=True)
