"""What is wrong with a loss although it stays finite: gradients that explode, die under a clamp, go missing, or are wrong.

Each warning rests on runs of the real function; the graph only says where to look.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from whynan.analysis.evaluate import ancestors, evaluate_many, fill, finite
from whynan.analysis.finding import WARNING, Finding, Witness
from whynan.analysis.forecast import forecaster
from whynan.analysis.propagate import Proof
from whynan.analysis.search import Inputs, Searched, Seen, corner_products, search
from whynan.analysis.shrink import shrink
from whynan.config import Settings
from whynan.domain import sample
from whynan.domain.spec import Domain
from whynan.errors import OpError
from whynan.ir.dtype import Array
from whynan.ir.frontend import Run, Trace
from whynan.ir.graph import BACKWARD, FORWARD, Graph, Node, call_of
from whynan.ir.where import Site
from whynan.ops._opdef import known, run

CLAMPS = frozenset({"clamp", "minimum", "maximum"})
CORNERS = 36  # extreme inputs looked at
SHARE_SAMPLES = 64  # evenly drawn inputs by which the share that a clamp cuts is estimated
MOST_KILLED = 4


@dataclass(frozen=True, slots=True, eq=False)
class Patient:
    """The loss as the checks of this module need it: how to run and record it, its domains, its options."""

    execute: Callable[[Inputs], Run]
    capture: Callable[[Inputs], Trace]
    witness: Callable[[Inputs, Run], Witness]
    domains: Mapping[str, Domain]
    settings: Settings
    mode: str


def warnings(patient: Patient, trace: Trace, proof: Proof, searched: Searched) -> Iterator[Finding]:
    """All warnings for one mode."""
    searched = _looked(patient, trace, proof, searched)
    yield from _exploding(patient, searched.steepest)
    yield from _dead(patient, trace, proof)
    yield from _detached(patient, searched.detached)
    yield from _wrong(patient, trace)


def _looked(patient: Patient, trace: Trace, proof: Proof, searched: Searched) -> Searched:
    """The search's runs; a short look if nothing was searched because all was proven, but the bounds allow steep gradients."""
    limit = patient.settings.gradient_limit
    steep = any(o.kind == "gradient" and bool((proof.bounds[o.node].magnitude > limit).any()) for o in trace.graph.outputs)
    if searched.evaluations or not steep:
        return searched
    seconds, seed = patient.settings.budget / 4, patient.settings.seed
    return search(patient.execute, patient.domains, seed=seed, evaluations=120, seconds=seconds, forecast=forecaster(trace.graph))


# ---------------------------------------------------------------- exploding


def _exploding(patient: Patient, steepest: Seen | None) -> Iterator[Finding]:
    limit = patient.settings.gradient_limit
    if steepest is None or steepest.size <= limit:
        return
    inputs = shrink(steepest.inputs, patient.domains, lambda i: _explodes(patient.execute(i), limit))
    result = patient.execute(inputs)
    node = _growth(patient.capture(inputs), limit)
    largest = max(result.gradients, key=lambda n: _size(result.gradients[n]))
    yield _finding(
        patient,
        kind="exploding-gradient",
        cause="steep-gradient",
        op=node.op if node else "",
        phase=BACKWARD,
        site=node.site if node else None,
        message=f"the gradient by {largest} is finite but reaches {_size(result.gradients[largest]):.3g} on this input, above the limit "
        f"of {limit:.3g}; the largest that was seen is {steepest.size:.3g}.",
        witness=patient.witness(inputs, result),
    )


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


# ---------------------------------------------------------------- dead


def _dead(patient: Patient, trace: Trace, proof: Proof) -> Iterator[Finding]:
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
    evenly = len(candidates)
    candidates += [{n: _even(d, rng) for n, d in patient.domains.items()} for _ in range(SHARE_SAMPLES)]
    cut = _cut_elements(trace.graph, operand, candidates, low, high)
    if cut is None or not cut.size:
        return None
    everywhere = [candidates[k] for k in np.flatnonzero(cut.all(axis=1))[:MOST_KILLED]]
    found = next((w for w in (_killed(patient, trace, node, operand, inputs) for inputs in everywhere) if w is not None), None)
    if found is None:
        return None
    share = float(cut[evenly:].mean())
    place = f"below {low:g}" if high == np.inf else f"above {high:g}" if low == -np.inf else f"outside [{low:g}, {high:g}]"
    how_much = f"{share:.0%} of evenly drawn elements are" if share >= 0.005 else "only values at the edge of the domain are"
    return _finding(
        patient,
        kind="dead-gradient",
        cause="clamp-kills-gradient",
        op=node.op,
        phase=BACKWARD,
        site=node.site,
        message=f"where the value is {place}, the {node.op} passes no gradient although the loss depends on it: {how_much} cut off there.",
        witness=patient.witness(*found),
    )


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


def _even(d: Domain, rng: np.random.Generator) -> Array:
    """Evenly drawn within the whole domain."""
    if d.value is not None or d.kind in ("simplex", "unit", "onehot"):
        return sample.draw(d, rng)
    return sample.project(d, 2 * rng.uniform(d.low / 2, d.high / 2, d.shape))


def _killed(patient: Patient, trace: Trace, node: Node, operand: int, inputs: Inputs) -> tuple[Inputs, Run] | None:
    """The run, if some input's gradient is exactly zero there although the clamp's operand depends on it and the loss on the clamp."""
    result = patient.execute(inputs)
    if result.error or not _matters(trace.graph, node, operand, inputs):
        return None
    for name, gradient in result.gradients.items():
        if gradient.size and not gradient.astype(np.float64).any() and _moves(trace.graph, operand, inputs, name):
            return inputs, result
    return None


def _matters(graph: Graph, node: Node, operand: int, inputs: Inputs) -> bool:
    """Whether the loss, computed in float64, changes when the clamp's result moves from its limit towards the inside.

    A clamp from below at 0 may be a hinge, which holds the value where the loss wants it: there the loss must fall.
    """
    loss = next((o.node for o in graph.outputs if o.kind == "loss"), -1)
    at_limit = _values(graph, ancestors(graph, node.id), inputs).get(node.id)
    if at_limit is None or loss not in (needed := ancestors(graph, loss)) or node.id not in needed:
        return False
    x = _values(graph, ancestors(graph, operand), inputs).get(operand)
    if x is None:
        return False
    uneven = 1 + 0.5 * np.sin(np.arange(at_limit.size)).reshape(at_limit.shape)  # a loss may see no common shift
    inward = at_limit + np.sign(at_limit - x) * 1e-3 * uneven * np.maximum(1e-3, np.abs(at_limit))
    before, after = (_values(graph, needed, inputs, {node.id: value}).get(loss) for value in (at_limit, inward))
    if before is None or after is None or not _differ([before, after]):
        return False
    hinge = node.op == "clamp" and node.attrs.get("low") == 0 and node.attrs.get("high") is None
    return not hinge or float(after.sum()) < float(before.sum())


def _moves(graph: Graph, operand: int, inputs: Inputs, name: str) -> bool:
    """Whether the clamp's operand, computed in float64, changes with the input."""
    needed = ancestors(graph, operand)
    if graph.inputs[name] not in needed:
        return False
    x = np.asarray(inputs[name], np.float64)
    step = 1e-4 * max(1.0, float(np.abs(x).max(initial=0.0)))
    return _differ([_values(graph, needed, {**inputs, name: x + k * step}).get(operand) for k in (-1, 0, 1)])


def _values(graph: Graph, needed: set[int], inputs: Inputs, given: Mapping[int, Array] | None = None) -> dict[int, Array]:
    """Some nodes' values in float64, those in `given` as they are; what has no record is left out."""
    out: dict[int, Array] = dict(given or {})
    named = {i: name for name, i in graph.inputs.items()}
    for i in sorted(needed - out.keys()):
        node = graph.nodes[i]
        if i in named:
            value = np.asarray(inputs[named[i]])
            out[i] = value.astype(np.float64) if node.format.is_float else value
        elif node.op == "const":
            out[i] = np.broadcast_to(node.attrs["value"], node.shape)
        elif known(node.op) and node.op != "random" and all(j in out for j in node.inputs):
            with suppress(OpError):  # a mask that selects another number of elements than in the recorded run
                out[i] = run(call_of(graph, node), [out[j] for j in node.inputs], wide=True)
    return out


def _differ(values: Sequence[Array | None]) -> bool:
    """Whether at least two values are finite and they are not all alike."""
    seen = [float(v.astype(np.float64).sum()) for v in values if v is not None and finite(v)]
    return len(seen) >= 2 and max(seen) - min(seen) > 1e-9 * max(1.0, abs(seen[0]))


# ---------------------------------------------------------------- missing or wrong


def _detached(patient: Patient, detached: Seen | None) -> Iterator[Finding]:
    if detached is None:
        return
    given = ", ".join(detached.run.gradients) or "none"
    yield _finding(
        patient,
        kind="contract",
        cause="gradient-detached",
        op="",
        phase=BACKWARD,
        site=None,
        message="on this input the loss is finite but comes back cut off from its inputs: gradients that other inputs have are missing "
        f"(given: {given}). A value put in its place hides the failure and stops the training signal.",
        witness=patient.witness(detached.inputs, detached.run),
    )


def _wrong(patient: Patient, trace: Trace) -> Iterator[Finding]:
    """Compare a hand-written derivative with central differences in float64 at a few ordinary points."""
    if not trace.graph.handwritten:
        return
    rng = np.random.default_rng(patient.settings.seed)
    off = [d for d in (_disagreement(patient, rng) for _ in range(4)) if d is not None]
    if len(off) >= 3 and min(d[0] for d in off) > 1e-2:
        _, inputs, result, analytic, numeric = max(off, key=lambda d: d[0])
        yield _finding(
            patient,
            kind="contract",
            cause="custom-gradient-wrong",
            op="custom",
            phase=BACKWARD,
            site=trace.graph.handwritten[0],
            message=f"the hand-written backward gives a slope of {analytic:.6g} where central differences in float64 give {numeric:.6g}.",
            witness=patient.witness(inputs, result),
        )


def _disagreement(patient: Patient, rng: np.random.Generator) -> tuple[float, Inputs, Run, float, float] | None:
    """At one ordinary point along one direction: relative difference between the gradient and central differences, and both slopes."""
    inputs = {n: sample.ordinary(d, rng) for n, d in patient.domains.items()}
    wide = {n: v.astype(np.float64) if patient.domains[n].format.is_float else v for n, v in inputs.items()}
    names = [n for n, d in patient.domains.items() if d.grad]
    direction = {n: rng.normal(size=wide[n].shape) for n in names}
    here = patient.execute(wide)
    step = 1e-6
    up = patient.execute({**wide, **{n: wide[n] + step * direction[n] for n in names}})
    down = patient.execute({**wide, **{n: wide[n] - step * direction[n] for n in names}})
    if here.error or up.error or down.error:
        return None
    analytic = sum(float((g.astype(np.float64) * direction[n]).sum()) for n, g in here.gradients.items())
    numeric = float((up.loss.astype(np.float64).sum() - down.loss.astype(np.float64).sum()) / (2 * step))
    if not (np.isfinite(analytic) and np.isfinite(numeric)):
        return None
    scale = max(abs(analytic), abs(numeric), 1e-6)
    return abs(analytic - numeric) / scale, inputs, patient.execute(inputs), analytic, numeric


def _finding(patient: Patient, *, kind: str, cause: str, op: str, phase: str, site: Site | None, message: str, witness: Witness) -> Finding:
    return Finding("", kind, WARNING, cause, message, op, phase, site, (patient.mode,), (), (), witness)
