"""What is wrong with a loss although it stays finite: gradients that explode, die under a clamp, go missing, or are wrong.

Each warning rests on runs of the real function; the graph only says where to look.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from whynan.analysis.evaluate import fill
from whynan.analysis.finding import WARNING, Finding, Witness
from whynan.analysis.propagate import Proof
from whynan.analysis.search import Inputs, Searched, Seen, search
from whynan.config import Settings
from whynan.domain import sample
from whynan.domain.spec import Domain
from whynan.ir.dtype import Array
from whynan.ir.frontend import Run, Trace
from whynan.ir.graph import BACKWARD, FORWARD, Graph, Node
from whynan.ops._opdef import OPS, run
from whynan.ir.graph import call_of
from whynan.ir.where import Site

CLAMPS = frozenset({"clamp", "minimum", "maximum"})
SHARE_SAMPLES = 64


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
    return search(patient.execute, patient.domains, seed=patient.settings.seed, evaluations=120, seconds=0.1)


# ---------------------------------------------------------------- exploding


def _exploding(patient: Patient, steepest: Seen | None) -> Iterator[Finding]:
    limit = patient.settings.gradient_limit
    if steepest is None or steepest.size <= limit:
        return
    node = _growth(patient.capture(steepest.inputs), limit)
    largest = max(steepest.run.gradients, key=lambda n: float(np.abs(steepest.run.gradients[n].astype(np.float64)).max(initial=0.0)))
    yield _finding(
        patient,
        kind="exploding-gradient",
        cause="steep-gradient",
        op=node.op if node else "",
        phase=BACKWARD,
        site=node.site if node else None,
        message=f"the gradient by {largest} is finite but reaches {steepest.size:.3g}, above the limit of {limit:.3g}: "
        "one such step ends a training run.",
        witness=patient.witness(steepest.inputs, steepest.run),
    )


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
    b = proof.bounds[operand]
    leaves = bool((b.lo < low).any() or (b.hi > high).any())
    return (operand, low, high) if leaves else None


def _evidence(patient: Patient, trace: Trace, node: Node, operand: int, low: float, high: float) -> Finding | None:
    """A run in which the clamp cuts an element, every gradient through it is exactly 0, and without the clamp the loss would change."""
    rng = np.random.default_rng(patient.settings.seed)
    cut_share, tried, witness = 0.0, 0, None
    candidates = [*({n: c[k % len(c)] for n, c in _corners(patient.domains).items()} for k in range(6))]
    candidates += [{n: _uniform(d, rng) for n, d in patient.domains.items()} for _ in range(SHARE_SAMPLES)]
    for k, inputs in enumerate(candidates):
        values = _forward(trace.graph, node, inputs)
        if values is None:
            return None
        x = values.astype(np.float64)
        outside = (x < low) | (x > high)
        if k >= 6:
            tried += 1
            cut_share += float(outside.mean()) if outside.size else 0.0
        if witness is None and outside.size and outside.all():
            witness = _killed(patient, trace, node, operand, inputs)
    if witness is None:
        return None
    share = cut_share / max(tried, 1)
    inputs, result = witness
    b = f"below {low:g}" if high == np.inf else f"above {high:g}" if low == -np.inf else f"outside [{low:g}, {high:g}]"
    how_much = f"{share:.0%} of evenly drawn elements are" if share >= 0.005 else "only values at the edge of the domain are"
    return _finding(
        patient,
        kind="dead-gradient",
        cause="clamp-kills-gradient",
        op=node.op,
        phase=BACKWARD,
        site=node.site,
        message=f"where the value is {b}, the {node.op} passes no gradient although the loss without it would still fall: {how_much} cut off there.",
        witness=patient.witness(inputs, result),
    )


def _corners(domains: Mapping[str, Domain]) -> dict[str, list[Array]]:
    return {name: sample.corners(d) for name, d in domains.items()}


def _uniform(d: Domain, rng: np.random.Generator) -> Array:
    """Evenly drawn within the whole domain."""
    if d.value is not None or d.kind in ("simplex", "unit", "onehot"):
        return sample.draw(d, rng)
    return sample.project(d, 2 * rng.uniform(d.low / 2, d.high / 2, d.shape))


def _forward(graph: Graph, node: Node, inputs: Inputs, skip: int = -1) -> Array | None:
    """The first operand of a clamp on given inputs (`skip` is not used for it)."""
    operand = next((i for i in node.inputs if graph.nodes[i].op != "const"), node.inputs[0])
    values = _partial(graph, inputs, operand)
    return values.get(operand)


def _partial(graph: Graph, inputs: Inputs, last: int, bypass: tuple[int, int] | None = None, wide: bool = False) -> dict[int, Array]:
    """Values of the forward nodes up to `last`; with `bypass` (clamp, operand) the clamp passes its operand on as it is."""
    named = {i: np.asarray(inputs[name]) for name, i in graph.inputs.items() if name in inputs}
    out: dict[int, Array] = {}
    for node in graph.nodes[: last + 1]:
        if node.phase == BACKWARD:
            continue
        if node.id in named:
            out[node.id] = named[node.id].astype(np.float64) if wide and node.format.is_float else named[node.id]
        elif node.op == "const":
            out[node.id] = np.broadcast_to(node.attrs["value"], node.shape)
        elif bypass is not None and node.id == bypass[0] and bypass[1] in out:
            out[node.id] = out[bypass[1]]
        elif node.op in OPS and node.op not in ("input", "random") and all(i in out for i in node.inputs):
            out[node.id] = run(call_of(graph, node), [out[i] for i in node.inputs], wide=wide)
    return out


def _killed(patient: Patient, trace: Trace, node: Node, operand: int, inputs: Inputs) -> tuple[Inputs, Run] | None:
    """The run, if some input's gradient is exactly zero there although the loss without the clamp depends on that input."""
    result = patient.execute(inputs)
    if result.error:
        return None
    for name, gradient in result.gradients.items():
        if gradient.size and not gradient.astype(np.float64).any() and _depends(trace.graph, node, operand, inputs, name):
            return inputs, result
    return None


def _depends(graph: Graph, node: Node, operand: int, inputs: Inputs, name: str) -> bool:
    """Whether the loss, computed in float64 with the clamp taken out, changes with the input."""
    loss = next((o.node for o in graph.outputs if o.kind == "loss"), None)
    if loss is None:
        return False
    x = np.asarray(inputs[name], np.float64)
    step = 1e-4 * max(1.0, float(np.abs(x).max(initial=0.0)))
    seen = []
    for moved in (x, x - step, x + step):
        values = _partial(graph, {**inputs, name: moved}, loss, bypass=(node.id, operand), wide=True)
        if loss in values and np.isfinite(values[loss]).all():
            seen.append(float(values[loss].sum()))
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
    own = [n for n in trace.graph.nodes if n.phase == BACKWARD and n.attrs.get("custom") or n.spelling.startswith("custom")]
    site = next((n.site for n in own), None) or _custom_site(trace)
    if site is None:
        return
    rng = np.random.default_rng(patient.settings.seed)
    off = [d for d in (_disagreement(patient, rng) for _ in range(4)) if d is not None]
    if len(off) >= 3 and min(d[0] for d in off) > 1e-2:
        share, inputs, result, analytic, numeric = max(off, key=lambda d: d[0])
        yield _finding(
            patient,
            kind="contract",
            cause="custom-gradient-wrong",
            op="custom",
            phase=BACKWARD,
            site=site,
            message=f"the hand-written backward gives a slope of {analytic:.6g} where central differences in float64 give {numeric:.6g}.",
            witness=patient.witness(inputs, result),
        )


def _custom_site(trace: Trace) -> Site | None:
    """Where a custom backward stands, if the front end noted one."""
    return next((n.site for n in trace.graph.nodes if n.attrs.get("custom")), None)


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


