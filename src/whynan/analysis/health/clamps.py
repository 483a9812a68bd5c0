"""Clamps that saturate on part of the domain and stop a gradient that would be there without them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from whynan.analysis.evaluate import ancestors, evaluate_many, finite
from whynan.analysis.finding import Finding
from whynan.analysis.health.lines import Spot, lab_of, quiet, slope, zero_interval
from whynan.analysis.health.patient import Patient, even, values_of, warning
from whynan.analysis.propagate import Proof
from whynan.analysis.search import Inputs, corner_products
from whynan.domain import sample
from whynan.domain.spec import ROWS
from whynan.errors import OpError
from whynan.ir.dtype import Array
from whynan.ir.frontend import Run, Trace
from whynan.ir.graph import FORWARD, Graph, Node
from whynan.ir.where import Site

CLAMPS = frozenset({"clamp", "minimum", "maximum"})
CORNERS = 36  # extreme inputs looked at
SHARE_SAMPLES = 64  # evenly drawn inputs by which the share that a clamp cuts is estimated
MOST_KILLED = 4
MOST_SHRUNK, FACTORS = 12, (0.15, 0.3, 0.5, 0.2, 0.1)


@dataclass(frozen=True, slots=True, eq=False)
class _Killed:
    """A run in which the clamp cuts all elements and an input has no gradient; whether the loss would fall if the clamp let it."""

    inputs: Inputs
    run: Run
    name: str
    falls: bool


def cut_off(patient: Patient, trace: Trace, proof: Proof) -> Iterator[Finding]:
    """Clamps that saturate on part of the domain and stop a gradient that would be there without them."""
    graph = trace.graph
    reported: set[Site | None] = set()
    for node in graph.nodes:
        if node.op not in CLAMPS or node.phase != FORWARD or node.site in reported or not node.format.is_float:
            continue
        cut = _cut_off(graph, node, proof)
        if cut is None:
            continue
        found = _evidence(patient, trace, node, *cut)
        if found is not None:
            reported.add(node.site)
            yield found


def _cut_off(graph: Graph, node: Node, proof: Proof) -> tuple[int, float, float] | None:
    """The operand that a clamp cuts and the interval that it lets pass, if the operand can leave it."""
    low, high, operand = -np.inf, np.inf, node.inputs[0]
    if node.op == "clamp":
        low = -np.inf if node.attrs.get("low") is None else float(node.attrs["low"])
        high = np.inf if node.attrs.get("high") is None else float(node.attrs["high"])
    else:
        constants = [i for i in node.inputs if graph.nodes[i].op == "const" and graph.nodes[i].attrs["value"].size == 1]
        if len(constants) != 1:
            return None
        operand = next(i for i in node.inputs if i != constants[0])
        edge = float(graph.nodes[constants[0]].attrs["value"].reshape(-1)[0])
        low, high = (edge, np.inf) if node.op == "maximum" else (-np.inf, edge)
    if node.op == "maximum" and low == 0:
        return None  # a hinge: that it stops the gradient below zero is what it is for
    b = proof.bounds[operand]
    leaves = bool((b.lo < low).any() or (b.hi > high).any())
    return (operand, low, high) if leaves else None


def _evidence(patient: Patient, trace: Trace, node: Node, operand: int, low: float, high: float) -> Finding | None:
    """A run in which the clamp cuts all elements, an input's gradient is exactly 0, and without the clamp the loss would change."""
    rng = np.random.default_rng(patient.settings.seed)
    candidates: list[Inputs] = list(corner_products(patient.domains, CORNERS))
    extreme = len(candidates)
    candidates += [_smaller(patient, c, factor) for factor in FACTORS for c in candidates[:MOST_SHRUNK]]
    evenly = len(candidates)
    candidates += [{n: even(d, rng) for n, d in patient.domains.items()} for _ in range(SHARE_SAMPLES)]
    cut = _cut_elements(trace.graph, operand, candidates, low, high)
    if cut is None or not cut.size:
        return None
    every = np.flatnonzero(cut.all(axis=1))
    everywhere = [candidates[k] for k in [*every[every < extreme][:MOST_KILLED], *every[every >= extreme][: 2 * MOST_KILLED]]]
    killed = [w for w in (_killed(patient, trace, node, operand, inputs) for inputs in everywhere) if w is not None]
    if not killed:
        return None
    found = next((w for w in killed if w.falls), killed[0])  # an input that the loss wants elsewhere says more
    share = float(cut[evenly:].mean())
    place = f"below {low:g}" if high == np.inf else f"above {high:g}" if low == -np.inf else f"outside [{low:g}, {high:g}]"
    how_much = f"{share:.0%} of evenly drawn elements are" if share >= 0.005 else "only values at the edge of the domain are"
    return warning(
        patient,
        kind="dead-gradient",
        cause="clamp-kills-gradient",
        op=node.op,
        site=node.site,
        message=f"where the value is {place}, the {node.op} passes no gradient although the loss depends on it: {how_much} cut off there.",
        witness=patient.witness(found.inputs, found.run),
        details={"share": share, **({"regions": regions} if (regions := _regions(patient, trace.graph, found)) else {})},
    )


def _smaller(patient: Patient, inputs: Inputs, factor: float) -> Inputs:
    """The differentiated inputs nearer to zero: at its extremes what goes into a clamp may have no slope of its own in any format."""
    return {n: sample.project(d, v.astype(np.float64) * factor) if (d := patient.domains[n]).grad else v for n, v in inputs.items()}


def _cut_elements(graph: Graph, operand: int, candidates: Sequence[Inputs], low: float, high: float) -> np.ndarray | None:
    """For each candidate (row) which elements of the clamp's operand lie outside; None if the operand cannot be computed."""
    needed = ancestors(graph, operand)
    names = [name for name, i in graph.inputs.items() if i in needed]
    stacked = {name: np.stack([c[name] for c in candidates]) for name in names}
    try:
        x = evaluate_many(graph, sorted(needed), stacked)[operand] if names else None
    except OpError:  # something on the way has no record
        return None
    if x is None:
        return None
    wide = x.astype(np.float64).reshape(len(candidates), -1)
    return np.asarray((wide < low) | (wide > high))


def _killed(patient: Patient, trace: Trace, node: Node, operand: int, inputs: Inputs) -> _Killed | None:
    """The run, if some input's gradient is exactly zero there although the clamp's operand depends on it and the loss on the clamp."""
    result = patient.execute(inputs)
    change = None if result.error else _change(trace.graph, node, operand, inputs)
    if change is None:
        return None
    for name, gradient in result.gradients.items():
        if gradient.size and not gradient.astype(np.float64).any() and _moves(trace.graph, operand, inputs, name):
            return _Killed(inputs, result, name, change < 0)
    return None


def _regions(patient: Patient, graph: Graph, found: _Killed) -> dict[str, list[list[float]]]:
    """The interval of one element of the input in which its gradient is zero, if real runs at both ends say so too."""
    domain, lab = patient.domains[found.name], lab_of(graph)
    spot = Spot(found.inputs, found.name, (0,) * len(domain.shape))
    if lab is None or domain.value is not None or domain.kind in ROWS:
        return {}
    with quiet():
        interval = zero_interval(lab, spot, domain)
        if interval is not None and all(slope(patient.execute, spot.moved(domain, end)) == 0 for end in interval):
            return {spot.text: [list(interval)]}
    return {}


def _change(graph: Graph, node: Node, operand: int, inputs: Inputs) -> float | None:
    """By how much the loss, computed in float64, changes when the clamp's result moves from its limit inwards; None if it does not.

    A clamp from below at 0 may be a hinge, which holds the value where the loss wants it: there the loss must fall.
    """
    loss = next((o.node for o in graph.outputs if o.kind == "loss"), -1)
    at_limit = values_of(graph, ancestors(graph, node.id), inputs).get(node.id)
    if at_limit is None or loss not in (needed := ancestors(graph, loss)) or node.id not in needed:
        return None
    x = values_of(graph, ancestors(graph, operand), inputs).get(operand)
    if x is None:
        return None
    uneven = 1 + 0.5 * np.sin(np.arange(at_limit.size)).reshape(at_limit.shape)  # a loss may see no common shift
    inward = at_limit + np.sign(at_limit - x) * 1e-3 * uneven * np.maximum(1e-3, np.abs(at_limit))
    before, after = (values_of(graph, needed, inputs, {node.id: value}).get(loss) for value in (at_limit, inward))
    if before is None or after is None or not _differ([before, after]):
        return None
    change = float(after.sum()) - float(before.sum())
    hinge = node.op == "clamp" and node.attrs.get("low") == 0 and node.attrs.get("high") is None
    return change if not hinge or change < 0 else None


def _moves(graph: Graph, operand: int, inputs: Inputs, name: str) -> bool:
    """Whether the clamp's operand, computed in float64, changes with the input."""
    needed = ancestors(graph, operand)
    if graph.inputs[name] not in needed:
        return False
    x = np.asarray(inputs[name], np.float64)
    step = 1e-4 * max(1.0, float(np.abs(x).max(initial=0.0)))
    return _differ([values_of(graph, needed, {**inputs, name: x + k * step}).get(operand) for k in (-1, 0, 1)])


def _differ(values: Sequence[Array | None]) -> bool:
    """Whether at least two values are finite and they are not all alike."""
    seen = [float(v.astype(np.float64).sum()) for v in values if v is not None and finite(v)]
    return len(seen) >= 2 and max(seen) - min(seen) > 1e-9 * max(1.0, abs(seen[0]))
