"""From a step that failed to its incident: it is run again under a recorder, then parts of its batch are. Knows no framework.

What a framework gives is an `Again`: the step's data and a way to record the step on all or some of its samples.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from whynan.errors import WhynanError
from whynan.ir.dtype import Array
from whynan.ir.frontend import Trace
from whynan.ir.graph import Node
from whynan.watching.examine import Examined, examined
from whynan.watching.record import UNEXPLAINED, Incident, Moment, Recipe, Suspects
from whynan.watching.smallest import smallest

_NOT_AGAIN = "the failure did not come again: it may stem from random numbers or from the order of sums in the compiled program"
MOST_PARTS = 12  # runs that look for a small part of the batch that fails alone


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """A recorded step; `layer` tells the path of the layer that a node of its graph stands in, empty if none's."""

    trace: Trace
    layer: Callable[[Node], str]


@dataclass(frozen=True, slots=True, eq=False)
class Again:
    """A failed step that can be run again, from the state before it and as often as one likes.

    `record` runs it in one of `modes` (the first that fails again is believed) on all samples or on those of the given rows, and records
    it; it raises WhynanError where that is not possible. `given` are the step's data by argument name, as NumPy arrays; `batch` is how
    many samples they hold, 0 if no axis counts samples. `bundled` gives what a bundle keeps of the step.
    """

    framework: str
    version: str
    modes: Sequence[str]
    given: Mapping[str, Array]
    batch: int
    record: Callable[[str, Sequence[int] | None], Recorded]
    notes: Sequence[str] = ()
    bundled: Callable[[], tuple[Recipe | None, Mapping[str, Any]]] | None = None


def explained(again: Again, moment: Moment, failed: str, seconds: float) -> Incident:
    """The incident of a step that failed so ("loss", "gradient", ...). Looking for a small part of the batch ends after so many seconds."""
    start = time.monotonic()
    notes, found, recorded, how, why = list(again.notes), None, None, "", ""
    for how in again.modes:
        try:
            recorded = again.record(how, None)
            found = examined(recorded.trace, how, again.given, again.batch)
        except WhynanError as error:
            notes.append(f"the step could not be recorded in mode {how}: {error}")
            why = why or str(error)
            continue
        if found is not None:
            notes += found.notes
            break
        notes.append(f"run again in mode {how} from the same state, the step is finite")
    recipe, tensors = _bundled(again, notes)
    plain = Incident(
        step=moment.step,
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        framework=again.framework,
        framework_version=again.version,
        failed=failed,
        loss=moment.loss,
        finding=None,
        kind=UNEXPLAINED,
        suspects=Suspects(batch=again.batch),
        unexplained=f"the step could not be run again: {why}" if why and recorded is None else _NOT_AGAIN,
        notes=tuple(notes),
        recipe=recipe,
        tensors=tensors,
        seconds=time.monotonic() - start,
    )
    if found is None or recorded is None:
        return plain
    layer = recorded.layer(found.trace.graph.nodes[found.why.node])
    late = start + seconds

    def fails(rows: Sequence[int]) -> bool:
        return time.monotonic() < late and _fails_so(again, how, rows, found)

    alone = smallest(again.batch, fails, found.samples, MOST_PARTS) if again.batch > 1 else ()
    parameters = {n: v for n, i in found.trace.graph.inputs.items() if n not in again.given and (v := found.trace.values[i]) is not None}
    return replace(
        plain,
        tensors={**plain.tensors, **{f"parameters/{name}": a for name, a in parameters.items()}},
        finding=found.finding,
        kind=found.kind,
        layer=layer,
        parameters=tuple(_failing(found.trace, layer)),
        suspects=Suspects(found.samples, alone, found.elements, again.batch),
        reproduced=True,
        how=how,
        unexplained="",
        seconds=time.monotonic() - start,
    )


def _bundled(again: Again, notes: list[str]) -> tuple[Recipe | None, Mapping[str, Any]]:
    """What a bundle keeps of the step; of one that cannot be written down, the data."""
    if again.bundled is not None:
        try:
            return again.bundled()
        except Exception as error:  # a model like no other; the explanation does not depend on it
            notes.append(f"how the step is run again could not be written down: {type(error).__name__}: {error}")
    return None, {f"batch/{n}": a for n, a in again.given.items()}


def _fails_so(again: Again, how: str, rows: Sequence[int], whole: Examined) -> bool:
    """Whether these samples fail without the rest, at the same expression and for the same reason."""
    try:
        part = examined(again.record(how, rows).trace, how, taken(again.given, rows, again.batch), len(rows))
    except WhynanError:
        return False
    return part is not None and (part.finding.site, part.finding.cause) == (whole.finding.site, whole.finding.cause)


def _failing(trace: Trace, layer: str) -> Iterator[str]:
    """The parameters whose gradient is not finite, those of the failing layer first."""
    bad = []
    for output in trace.graph.outputs:
        value = trace.values[output.node]
        if output.kind == "gradient" and value is not None and not np.isfinite(value.astype(np.float64)).all():
            bad.append(output.name)
    yield from sorted(bad, key=lambda name: not (layer and f"/{layer}/" in f"/{name}"))


def taken(given: Mapping[str, Array], rows: Sequence[int], batch: int) -> dict[str, Array]:
    """The rows of those arrays that hold one for each sample."""
    return {name: a[list(rows)] if a.ndim and len(a) == batch else a for name, a in given.items()}


def batch_of(given: Mapping[str, Array]) -> int:
    """How many samples the data hold: the length of the first array's first axis."""
    return next((len(a) for a in given.values() if a.ndim), 0)


def renamed(trace: Trace, real: Mapping[str, str]) -> Trace:
    """The trace with other names for inputs and outputs."""
    graph = trace.graph
    inputs = {real.get(name, name): node for name, node in graph.inputs.items()}
    outputs = tuple(replace(o, name=real.get(o.name, o.name)) for o in graph.outputs)
    nodes = tuple(replace(n, attrs={**n.attrs, "name": real.get(n.attrs["name"], "")}) if n.op == "input" else n for n in graph.nodes)
    return replace(trace, graph=replace(graph, nodes=nodes, inputs=inputs, outputs=outputs))
