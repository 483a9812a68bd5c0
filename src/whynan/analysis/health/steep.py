"""Gradients that are finite and too large to train with."""

from collections.abc import Iterator

import numpy as np

from whynan.analysis.evaluate import fill, finite
from whynan.analysis.finding import Finding
from whynan.analysis.forecast import forecaster
from whynan.analysis.health.patient import Patient, warning
from whynan.analysis.propagate import Proof
from whynan.analysis.search import Searched, Seen, search
from whynan.analysis.shrink import shrink
from whynan.ir.dtype import Array
from whynan.ir.frontend import Run, Trace
from whynan.ir.graph import BACKWARD, Graph, Node


def looked(patient: Patient, trace: Trace, proof: Proof, searched: Searched) -> Searched:
    """The search's runs; a short look if nothing was searched because all was proven, but the bounds allow steep gradients."""
    limit = patient.settings.gradient_limit
    steep = any(o.kind == "gradient" and bool((proof.bounds[o.node].magnitude > limit).any()) for o in trace.graph.outputs)
    if searched.evaluations or not steep:
        return searched
    seconds, seed = patient.settings.budget / 4, patient.settings.seed
    return search(patient.execute, patient.domains, seed=seed, evaluations=120, seconds=seconds, forecast=forecaster(trace.graph))


def exploding(patient: Patient, steepest: Seen | None, graph: Graph, proof: Proof) -> Iterator[Finding]:
    """The steepest finite gradient that was seen, if it is above the limit, with the bound that is proven for all gradients."""
    limit = patient.settings.gradient_limit
    if steepest is None or steepest.size <= limit:
        return
    inputs = shrink(steepest.inputs, patient.domains, lambda i: _explodes(patient.execute(i), limit))
    result = patient.execute(inputs)
    node = _growth(patient.capture(inputs), limit)
    largest = max(result.gradients, key=lambda n: _size(result.gradients[n]))
    bound = _proven(graph, proof)
    proven = f"none on the domain exceeds {bound:.3g} (proven)" if bound is not None else "no bound is proven"
    yield warning(
        patient,
        kind="exploding-gradient",
        cause="steep-gradient",
        op=node.op if node else "",
        site=node.site if node else None,
        message=f"the gradient by {largest} is finite but reaches {_size(result.gradients[largest]):.3g} on this input, above the limit "
        f"of {limit:.3g}; the largest that was seen is {steepest.size:.3g}, and {proven}.",
        witness=patient.witness(inputs, result),
        details={"largest_found": steepest.size, "largest_proven": bound},
    )


def _proven(graph: Graph, proof: Proof) -> float | None:
    """The largest magnitude that an element of a gradient can have, if all of them are proven finite."""
    ends = [proof.bounds[o.node] for o in graph.outputs if o.kind == "gradient"]
    if not all(b.finite for b in ends):
        return None
    return max((float(b.magnitude.max(initial=0.0)) for b in ends), default=0.0)


def _explodes(result: Run, limit: float) -> bool:
    """Whether all is finite and a gradient is above the limit."""
    outputs = [result.loss, *result.gradients.values()]
    return not result.error and all(map(finite, outputs)) and max(map(_size, result.gradients.values()), default=0.0) > limit


def _growth(trace: Trace, limit: float) -> Node | None:
    """The backward operation whose result grew most over its largest backward input, among those past the limit."""
    values = fill(trace.graph, trace.values)
    best, most = None, 0.0
    for node in trace.graph.nodes:
        out = values[node.id]
        if node.phase != BACKWARD or out is None or not node.format.is_float or not out.size or node.op == "const":
            continue
        size = _size(out)
        before = [_size(v) for j in node.inputs if trace.graph.nodes[j].phase == BACKWARD and (v := values[j]) is not None and v.size]
        if size > limit and size / max([*before, 1.0]) > most:
            best, most = node, size / max([*before, 1.0])
    return best


def _size(v: Array) -> float:
    return float(np.abs(v.astype(np.float64)).max(initial=0.0))
