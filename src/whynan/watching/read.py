"""Reading incidents: nothing in a folder is executed, unpickled or followed out of it; only `incident.json` is opened, up to a size."""

import os
import stat
from dataclasses import replace
from pathlib import Path

from whynan.errors import IncidentError
from whynan.watching.json import loads
from whynan.watching.record import Incident

FILE = "incident.json"
_LARGEST = 16 * 2**20  # bytes


def read(path: Path) -> Incident:
    """The incident in a folder, or in an `incident.json`. Raises IncidentError if there is none or it is broken."""
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    if not path.exists():
        raise IncidentError(f"there is no incident {path}.", "List those that there are with `whynan incidents`.")
    if path.name != FILE and not path.is_dir():
        raise IncidentError(f"{path} is not an incident.", f"Give the folder that holds its {FILE}.")
    try:
        return replace(loads(_text(folder / FILE)), folder=folder)
    except IncidentError as error:
        raise IncidentError(f"{folder}: {error.message}", error.hint) from error


def _text(file: Path) -> str:
    """The text of an ordinary file of limited size; a link or a pipe in its place is refused."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        with os.fdopen(os.open(file, flags), "rb") as opened:
            if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                raise IncidentError(f"its {FILE} is no ordinary file.", "Copy the folder anew from where it was written.")
            data = opened.read(_LARGEST + 1)
    except OSError as error:
        raise IncidentError(f"its {FILE} cannot be read: {error.strerror or error}.", "Give the folder of an incident.") from error
    if len(data) > _LARGEST:
        raise IncidentError(f"its {FILE} is larger than {_LARGEST >> 20} MiB.", "whynan writes none as large: it is something else.")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise IncidentError(f"its {FILE} is not UTF-8.", "Copy the folder anew from where it was written.") from error
