"""An incident as JSON data, schema `whynan.incident/1` (described by `schema.json` beside this file), and back.

Strict JSON: numbers that JSON has no notation for are the strings "NaN", "Infinity" and "-Infinity". What comes back from data is safe to
show: it was checked against the schema, and no place in it makes a reader open anything but an ordinary Python file.
"""

import json
import os
import stat
import sys
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from whynan.analysis.finding import Finding
from whynan.errors import IncidentError
from whynan.ir.where import Site
from whynan.report.json import finding_dict, plain
from whynan.report.read import finding_of
from whynan.report.words import WORDS
from whynan.watching.record import Element, Incident, Moment, Stored, Suspects
from whynan.watching.valid import fault

SCHEMA = "whynan.incident/1"

_PLAIN = (
    "step when framework framework_version failed loss kind layer parameters reproduced how unexplained action advice notes rank world "
    "ranks seconds data_saved in_loop"
).split()
_LISTS = ("parameters", "advice", "notes", "ranks")
_LONGEST_SPAN = 1000  # lines
_LARGEST_SOURCE = 10 * 2**20  # bytes
_LONGEST_NUMBER = 1e15


def to_dict(incident: Incident) -> dict[str, Any]:
    """The incident as dicts, lists, strings, numbers, booleans and None; its tensors by name and shape alone."""
    finding = incident.finding
    return {
        "schema": SCHEMA,
        "whynan": sys.modules["whynan"].__version__,
        **{name: plain(getattr(incident, name)) for name in _PLAIN},
        "cause": incident.cause,
        "finding": None if finding is None else finding_dict(replace(finding, witness=None)),
        "suspects": plain(incident.suspects),
        "moments": [plain(moment._asdict()) for moment in incident.moments],
        "tensors": [_stored_dict(stored) for stored in incident.stored],
    }


def dumps(incident: Incident) -> str:
    """The incident as JSON text."""
    return json.dumps(to_dict(incident), indent=2, allow_nan=False) + "\n"


def loads(text: str) -> Incident:
    """The incident of a JSON text. Raises IncidentError if the text is no JSON or not of the schema."""
    try:
        data = json.loads(text, parse_constant=_refused)
        data = json.loads(json.dumps(data, ensure_ascii=False).encode(errors="replace"))  # half a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise IncidentError(f"an incident is broken: {error}.", _ANEW) from error
    return from_dict(data)


def from_dict(data: Any) -> Incident:
    """The incident that `to_dict` wrote; tensors and recipe are not in it. Raises IncidentError if the data are not of the schema."""
    if isinstance(data, Mapping) and data.get("schema") != SCHEMA:
        raise IncidentError(f"an incident is not of schema {SCHEMA}.", "Read it with the version of whynan that wrote it.")
    try:
        wrong = fault(data, "watching/schema.json")
        if not wrong:
            return _incident(data)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        wrong = f"{type(error).__name__} {error}"
    raise IncidentError(f"an incident is broken: {wrong}.", _ANEW)


_ANEW = "Copy the whole folder anew from where it was written."


def _refused(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


def _incident(data: Mapping[str, Any]) -> Incident:
    own: dict[str, Any] = {name: tuple(data[name]) if name in _LISTS else data[name] for name in _PLAIN}
    suspects = data["suspects"]
    return Incident(
        **{**own, "loss": float(data["loss"]), "seconds": float(data["seconds"])},
        finding=None if data["finding"] is None else _safe_finding(data["finding"]),
        suspects=Suspects(
            samples=tuple(suspects["samples"]),
            alone=tuple(suspects["alone"]),
            elements=tuple(_element(e) for e in suspects["elements"]),
            batch=suspects["batch"],
            call=suspects["call"],
        ),
        moments=tuple(_moment(m) for m in data["moments"]),
        stored=tuple(_stored(t) for t in data["tensors"]),
    )


def _element(e: Mapping[str, Any]) -> Element:
    return Element(e["name"], tuple(e["index"]), None if e["value"] is None else float(e["value"]))


def _moment(m: Mapping[str, Any]) -> Moment:
    numbers: dict[str, Any] = {name: float(m[name]) for name in ("loss", "parameter_norm", "update_ratio", "scale", "clipped_from")}
    lists: dict[str, Any] = {name: tuple(float(x) for x in m[name]) for name in ("gradient_norms", "learning_rates")}
    return Moment(step=m["step"], outcome=m["outcome"], optimizer=m.get("optimizer", 0), **numbers, **lists)


def _stored_dict(s: Stored) -> dict[str, Any]:
    told = {f.name: plain(getattr(s, f.name)) for f in fields(s)}
    return {("bytes" if name == "size" else name): value for name, value in told.items()}


def _stored(t: Mapping[str, Any]) -> Stored:
    samples = None if t["samples"] is None else tuple(t["samples"])
    return Stored(t["name"], t["dtype"], tuple(t["shape"]), t["bytes"], samples, t["left_out"])


# ---------------------------------------------------------------- places in sources


def _safe_finding(data: Mapping[str, Any]) -> Finding:
    if data["cause"] not in WORDS:
        raise ValueError(f"there is no cause {data['cause']!r}")
    known = ("title", "applicability", "patch", "evidence")
    found = finding_of({**data, "witness": None, "accuracy": None, "fixes": [{k: f[k] for k in known} for f in data["fixes"]]})
    chain = tuple(replace(step, site=_safe_site(step.site)) for step in found.chain)
    return replace(found, site=_safe_site(found.site), chain=chain)


def _safe_site(site: Site | None) -> Site | None:
    """A place that may be looked up: of a sensible length, in a file that is ordinary Python or is not there at all.

    What else a file's name may lead to (a device, a pipe, a text of another kind) is put in angle brackets, which nobody opens.
    """
    if site is None:
        return None
    end = site.end_line if 1 <= site.line <= site.end_line <= site.line + _LONGEST_SPAN else site.line
    if not 1 <= site.line <= _LONGEST_NUMBER or min(site.column, site.end_column) < 0:
        raise ValueError(f"there is no line {site.line}, columns {site.column} to {site.end_column}")
    return replace(site, end_line=end, file=site.file if _harmless(site.file) else f"<{site.file}>")


def _harmless(file: str) -> bool:
    if not file.endswith(".py") or not file.isprintable() or file.startswith(("//", "\\\\")):
        return False
    try:
        found = os.stat(file)
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size <= _LARGEST_SOURCE
