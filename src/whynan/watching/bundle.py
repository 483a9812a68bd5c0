"""An incident on disk: a folder that another machine can read and run again."""

from pathlib import Path

from whynan.watching.policy import Options
from whynan.watching.record import Incident


def save(incident: Incident, options: Options) -> Path:
    """Write the incident's folder below `options.folder` and return it. Raises OSError if that is not possible."""
    assert options.folder is not None, "the caller has seen to it"
    folder = options.folder / f"step-{incident.step}-rank-{incident.rank}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.txt").write_text(f"{incident}\n", encoding="utf-8")
    return folder
