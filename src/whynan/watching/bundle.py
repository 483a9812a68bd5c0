"""An incident on disk: a folder that another machine can read and run again.

`incident.json` (schema `whynan.incident/1`), `tensors.safetensors`, `replay.py`, and the report as `report.txt` and `report.html`. The
folder appears whole or not at all, and never in place of another.
"""

import os
import re
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from whynan.report.html import to_html
from whynan.report.words import words
from whynan.watching.explained import explained
from whynan.watching.json import dumps
from whynan.watching.policy import Options
from whynan.watching.record import Incident, Stored
from whynan.watching.script import replay_script
from whynan.watching.tensors import Flat, NotStored, flat, leaves, measured, write
from whynan.watching.words import told

INCIDENT, TENSORS, REPLAY, REPORT, PAGE = "incident.json", "tensors.safetensors", "replay.py", "report.txt", "report.html"

_PARAMETERS, _BUFFERS, _RNG = ("parameters", "optimizer"), ("buffers",), ("rng", "seeds")
_WITHHELD = "save_batch=False: the run's data are not saved"
_ENTRY = 300  # bytes that a tensor's name, dtype and shape take in the texts, generously


def save(incident: Incident, options: Options) -> Path:
    """Write the incident's folder below `options.folder` and return it. Raises OSError if that is not possible."""
    assert options.folder is not None, "the caller has seen to it"
    options.folder.mkdir(parents=True, exist_ok=True)
    temporary = options.folder / f".writing-{os.getpid()}-{secrets.token_hex(4)}"
    temporary.mkdir()
    try:
        _fill(temporary, incident if options.save_batch else without_data(incident), options)
        return _placed(temporary, options.folder / _name(incident))
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _fill(folder: Path, incident: Incident, options: Options) -> None:
    texts = _texts(replace(incident, tensors={}))
    named = _named(incident.tensors)
    room = options.limit - sum(len(text.encode()) for text in texts.values()) - sum(_ENTRY + 6 * len(name) for name in named)
    plan = planned(_specified(named, options.save_batch), room, incident)
    chosen: dict[str, Flat] = {}
    plan = tuple(_taken(stored, named[stored.name], chosen) for stored in plan)
    if chosen:
        write(folder / TENSORS, chosen)
    for name, text in _texts(replace(incident, tensors={}, stored=plan)).items():
        (folder / name).write_text(text, encoding="utf-8", errors="backslashreplace")


def _texts(incident: Incident) -> dict[str, str]:
    return {
        INCIDENT: dumps(incident),
        REPORT: told(incident) + "\n",
        PAGE: to_html(explained(incident)),
        REPLAY: replay_script(incident),
    }


# ---------------------------------------------------------------- its name and place


def _name(incident: Incident) -> str:
    """Date, step and rank, sortable and free of anything that a file system or shell could take amiss."""
    when = re.sub(r"[^0-9A-Za-z]+", "-", incident.when[:19]).strip("-") or datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S")
    return f"{when}-step-{incident.step}-rank-{incident.rank}"


def _placed(temporary: Path, wanted: Path) -> Path:
    """Rename the finished folder to its name, or that with a number where the name is taken."""
    for n in range(1, 1000):
        place = wanted if n == 1 else wanted.with_name(f"{wanted.name}-{n}")
        if os.path.lexists(place):
            continue
        try:
            temporary.rename(place)
        except FileExistsError:
            continue
        except OSError:
            if os.path.lexists(place):  # another process was quicker
                continue
            raise
        return place
    raise FileExistsError(f"{wanted} and 998 more of that name exist")


# ---------------------------------------------------------------- what fits


def _named(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors by names that are unique, printable as UTF-8 and none of the format's own."""
    named: dict[str, Any] = {}
    for name, value in leaves(tensors):
        clean = name.encode("utf-8", "backslashreplace").decode()
        clean = clean if clean != "__metadata__" else "batch/__metadata__"
        while clean in named:
            clean += "'"
        named[clean] = value
    return named


def _specified(named: Mapping[str, Any], save_batch: bool) -> list[Stored]:
    """What each tensor would take, or why it cannot be stored."""
    specified = []
    for name, value in named.items():
        try:
            dtype, shape, size = measured(value)
        except NotStored as error:
            specified.append(Stored(name, "", (), left_out=str(error)))
            continue
        withheld = _WITHHELD if not save_batch and _is_data(name) else ""
        specified.append(Stored(name, dtype, shape, 0 if withheld else size, left_out=withheld))
    return specified


def _is_data(name: str) -> bool:
    """Whether a tensor is of the batch: all is that is not known to be something else."""
    return name.partition("/")[0] not in (*_PARAMETERS, *_BUFFERS, *_RNG)


def planned(wanted: Sequence[Stored], room: int, incident: Incident) -> tuple[Stored, ...]:
    """The tensors with those left out, or cut to the suspects' samples, that do not fit into so many bytes.

    First to go are parameters and optimizer state (a checkpoint may have them), then the batch but for the samples under suspicion, then
    the batch but for the first of them, buffers, the batch, and the rest.
    """
    suspects = incident.suspects
    samples = tuple(sorted({*suspects.alone, *suspects.samples}))
    first = samples[:1] if incident.sample is None else (incident.sample,)
    plan = tuple(wanted)
    steps: tuple[Callable[[Stored], Stored], ...] = (
        lambda s: _dropped(s) if s.name.partition("/")[0] in _PARAMETERS else s,
        lambda s: _cut(s, samples, suspects.batch),
        lambda s: _cut(s, first, suspects.batch),
        lambda s: _dropped(s) if s.name.partition("/")[0] in _BUFFERS else s,
        lambda s: _dropped(s) if _is_data(s.name) else s,
        _dropped,
    )
    for step in steps:
        if sum(s.size for s in plan) <= room:
            break
        plan = tuple(step(s) for s in plan)
    return plan


def _dropped(s: Stored) -> Stored:
    return s if s.left_out else replace(s, size=0, samples=None, left_out="it does not fit into the bundle's limit")


def _cut(s: Stored, samples: tuple[int, ...], batch: int) -> Stored:
    """The tensor's rows of these samples alone, if its first axis is the batch. Its `shape` stays the whole tensor's."""
    if s.left_out or not _is_data(s.name) or not samples or not s.shape or s.shape[0] != batch or max(samples) >= batch:
        return s
    before = batch if s.samples is None else len(s.samples)
    return replace(s, size=s.size // before * len(samples), samples=samples)


def _taken(stored: Stored, value: Any, chosen: dict[str, Flat]) -> Stored:
    """Copy the tensor's elements into `chosen`, unless it is left out; the entry says what became of it."""
    if stored.left_out:
        return stored
    try:
        whole = flat(value)
    except NotStored as error:
        return replace(stored, size=0, samples=None, left_out=str(error))
    chosen[stored.name] = whole if stored.samples is None else whole.rows(stored.samples)
    return stored


# ---------------------------------------------------------------- without the data


def without_data(incident: Incident) -> Incident:
    """The incident without any number that belongs to single samples: elements, what went into operations, the message that quotes it.

    What is summed up over a batch (loss, norms) stays, and so do places in the source, names, indices, and parameters.
    """
    suspects = replace(incident.suspects, elements=tuple(replace(e, value=None) for e in incident.suspects.elements))
    finding = incident.finding
    if finding is not None:
        finding = replace(
            finding,
            message=words(finding.cause).why,
            chain=tuple(replace(s, inputs=(), output=_kind_alone(s.output)) for s in finding.chain),
            witness=None,
            details={},
            accuracy=None,
            fixes=tuple(_without_evidence(fix) for fix in finding.fixes),
        )
    return replace(incident, suspects=suspects, finding=finding, data_saved=False)


def _without_evidence(fix: Any) -> Any:
    """A fix as its change of the source; its evidence was found on the data."""
    return SimpleNamespace(title=fix.title, applicability=fix.applicability, patch=fix.patch, evidence=None)


def _kind_alone(output: str) -> str:
    """Of what came out of an operation only whether it was NaN or infinite."""
    kinds = [kind for kind in ("nan", "-inf", "inf") if re.search(rf"(?<![\w-]){kind}\b", output, re.IGNORECASE)]
    return " and ".join(kinds) or "not shown"
