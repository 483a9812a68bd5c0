"""An incident as a report: what `whynan.explain(FOLDER)` returns, so that an incident is shown, written and counted as any finding is."""

import math
from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rich.console import Console

from whynan.analysis.finding import ERROR, UNSAFE, Finding
from whynan.result import Report
from whynan.watching.json import to_dict
from whynan.watching.read import read
from whynan.watching.record import DIVERGENCE, Incident
from whynan.watching.words import UNTOUCHED, element, parameters_text, sample_text, stored_text, told, what_failed


@dataclass(frozen=True, slots=True, eq=False)
class IncidentReport(Report):
    """The report of a training step that went bad. `print` tells it whole; `incident` is the record itself."""

    incident: Incident | None = None

    def render(self, console: Console | None = None) -> str:
        """The incident as text, of a console's width and colours if one is given."""
        assert self.incident is not None
        return told(self.incident) if console is None else told(self.incident, console, color=None)

    def __str__(self) -> str:
        return self.render()

    def __repr__(self) -> str:
        return f"<IncidentReport step {self.incident.step if self.incident else '?'}: {', '.join(f.cause for f in self.findings)}>"

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON data, schema `whynan.report/1`, with the incident (`whynan.incident/1`) as `incident`."""
        assert self.incident is not None
        return {**Report.to_dict(self), "incident": to_dict(self.incident)}


def explain_incident(path: Path) -> IncidentReport:
    """The report of the incident in a folder. Executes nothing from it. Raises IncidentError if it holds none."""
    return explained(read(path))


def explained(incident: Incident) -> IncidentReport:
    """The incident as a report with one error finding."""
    record = Report(
        target=f"step {incident.step}",
        framework=incident.framework,
        framework_version=incident.framework_version,
        dtype=_dtype(incident),
        modes=(incident.how,),
        verdict=UNSAFE,
        seconds=incident.seconds,
        domain={},
        sites={"total": 0, "proven": 0, "refuted": 0, "undecided": 0},
        findings=(incident.finding or _without_operation(incident),),
        notes=tuple(_notes(incident)),
    )
    return IncidentReport(**{f.name: getattr(record, f.name) for f in fields(record)}, incident=incident)


def _without_operation(incident: Incident) -> Finding:
    """What is said of a step that no operation is blamed for."""
    cause = "divergence" if incident.kind == DIVERGENCE else "other-domain-error"
    message = f"{what_failed(incident)}. {incident.unexplained}".strip()
    return Finding("", "non-finite", ERROR, cause, message, "", "backward" if incident.failed == "gradient" else "forward", None)


def _dtype(incident: Incident) -> str:
    """The float dtype of most of the step's tensors; float32 where none is known."""
    names = Counter(s.dtype for s in incident.stored if s.dtype.startswith(("float", "bfloat")))
    return names.most_common(1)[0][0] if names else "float32"


def _notes(incident: Incident) -> list[str]:
    """What an incident knows beyond its finding, a line each, for the formats that show reports."""
    notes = [UNTOUCHED, f"class of the cause: {incident.kind}"]
    notes += [f"layer: {incident.layer}"] if incident.layer else []
    notes += [parameters_text(incident)] if incident.parameters else []
    notes += [f"sample {text}"] if (text := sample_text(incident.suspects)) else []
    notes += [element(e) for e in incident.suspects.elements]
    norms = [m.gradient_norm for m in incident.moments if math.isfinite(m.gradient_norm)]
    notes += [f"gradient norm of the last {len(norms)} steps: {min(norms):.4g} to {max(norms):.4g}"] if norms else []
    return [*notes, *incident.advice, *incident.notes, *(f"in the bundle, {line}" for line in stored_text(incident.stored))]
