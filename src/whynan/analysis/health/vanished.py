"""Gradients that rounding has made exactly zero although the true ones are not: saturated sigmoids and softmaxes, underflow.

A zero gradient alone is no fault: at a minimum, below a hinge or where a loss ends flat it is right. Here the loss falls by much if the
element alone is moved, the gradient comes back on the way there with the sign that says so, and at the edge of the dead interval the
gradient in float64 has the same sign and about the same size. So it was lost to rounding, not to the loss's own shape.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from whynan.analysis.evaluate import evaluate, finite
from whynan.analysis.finding import Finding
from whynan.analysis.health.lines import Lab, Line, Spot, boundary, evaluated, glance, lab_of, lines, quiet, slope
from whynan.analysis.health.patient import Patient, even, values_of, warning
from whynan.analysis.meaning import normalisers
from whynan.analysis.scene import written
from whynan.analysis.search import Inputs
from whynan.analysis.shrink import shrink
from whynan.analysis.view import View
from whynan.domain import sample
from whynan.domain.spec import CONTINUOUS, ROWS, Domain
from whynan.ir.frontend import Run, Trace
from whynan.ir.graph import BACKWARD, FORWARD, Graph, Node

DRAWN = 32  # inputs drawn evenly, and as many with elements of all sizes
LOOKED_AT = 12  # elements with a zero gradient that are looked at
SHARE_LINES = 160  # evenly drawn elements by which the share is estimated
LEAST_SHARE = 0.01  # of a smaller part of the domain nothing is said
FALL = 0.1  # a loss that falls by this part of its range along the line has not been at its minimum
CONTINUOUS_WITHIN = 32.0  # factor by which the gradients on the two sides of the edge may differ
SUSPECTS = 24
WAY, HALVINGS = 6, 12  # real runs on the way to where the gradient is back, and to find the edge between
SIMPLER = 16  # runs spent on a simpler witness
ACTIVATIONS = frozenset(
    {"sigmoid", "tanh", "softmax", "log_softmax", "logsigmoid", "erf", "erfc", "atan", "softplus", "gelu", "silu", "mish", "elu"}
)


@dataclass(frozen=True, slots=True, eq=False)
class _Dead:
    """A spot with a lost gradient, and the same spot at the edge of the interval, where float64 still has one."""

    spot: Spot
    edge: Spot
    back: float  # where on the way to the smaller loss the gradient is back
    goal: float  # the value with the smallest loss


def vanished(patient: Patient, trace: Trace) -> Iterator[Finding]:
    """One warning per expression at which gradients are lost to rounding on a part of the domain."""
    lab = lab_of(trace.graph)
    if lab is None:
        return
    reported = set()
    for name in lab.gradients:
        domain = patient.domains.get(name)
        if (
            domain is None
            or domain.value is not None
            or domain.kind not in CONTINUOUS
            or domain.kind in ROWS
            or name not in lab.graph.inputs
        ):
            continue
        with quiet():
            found = _looked_for(patient, lab, name, domain)
            if found is not None and found.site not in reported:
                reported.add(found.site)
                yield found


def _looked_for(patient: Patient, lab: Lab, name: str, domain: Domain) -> Finding | None:
    rng = np.random.default_rng(patient.settings.seed)
    count = max(min(DRAWN, 2_000_000 // max(lab.numbers, 1)), 4)
    evenly: list[Inputs] = [{n: even(d, rng) for n, d in patient.domains.items()} for _ in range(count)]
    all_sizes: list[Inputs] = [{**inputs, name: _smaller(domain, inputs, name, rng)} for inputs in evenly]
    for spot in _zeros(lab, name, [*evenly, *all_sizes], rng):
        dead = _dead(lab, spot, domain)
        measured = None if dead is None else _measured(patient, dead, domain)
        if dead is not None and measured is not None:
            share = _share(lab, name, domain, evenly, rng)
            return None if share < LEAST_SHARE else _told(patient, lab, dead, measured[0], domain, share)
    return None


def _smaller(domain: Domain, inputs: Inputs, name: str, rng: np.random.Generator) -> np.ndarray:
    """The input with each element smaller by some power of ten."""
    return sample.project(domain, inputs[name].astype(np.float64) * 10 ** rng.uniform(-3, 0, domain.shape))


def _zeros(lab: Lab, name: str, drawn: Sequence[Inputs], rng: np.random.Generator) -> list[Spot]:
    """Elements whose gradient is exactly zero and in float64 is not, from the drawn inputs."""
    _, real, wide = evaluated(lab, {n: np.stack([d[n] for d in drawn]) for n in lab.graph.inputs}, name)
    places = np.argwhere((real == 0) & (wide != 0) & np.isfinite(wide))
    chosen = places[rng.permutation(len(places))[:LOOKED_AT]]
    return [Spot(drawn[int(k)], name, tuple(int(i) for i in index)) for k, *index in chosen]


# ---------------------------------------------------------------- one element


def _dead(lab: Lab, spot: Spot, domain: Domain) -> _Dead | None:
    """The evidence for one element, if its gradient was lost to rounding."""
    (line,) = lines(lab, [spot], [glance(domain, spot.value)], domain)
    if not _improvable(line, spot):
        return None
    goal = float(line.at[int(np.argmin(np.where(np.isfinite(line.loss), line.loss, np.inf)))])
    found = boundary(lab, spot, domain, goal)
    if found is None:
        return None
    closely, place = found
    last, first = closely.wide[place], closely.real[place + 1]
    downhill = first * (goal - spot.value) < 0
    alike = last * first > 0 and 1 / CONTINUOUS_WITHIN <= abs(last / first) <= CONTINUOUS_WITHIN
    if not (downhill and alike):
        return None
    return _Dead(spot, spot.moved(domain, float(closely.at[place])), float(closely.at[place + 1]), goal)


def _improvable(line: Line, spot: Spot) -> bool:
    """Whether the gradient is zero at the spot and the loss falls by much if the element is moved."""
    loss = np.where(np.isfinite(line.loss), line.loss, np.nan)
    here = int(np.argmin(np.abs(line.at - spot.value)))
    if line.real[here] != 0 or not np.isfinite(loss[here]):
        return False
    least, most = float(np.nanmin(loss)), float(np.nanmax(loss))
    return most - least > 1e-6 * max(abs(most), abs(least)) and loss[here] - least > FALL * (most - least)


def _measured(patient: Patient, dead: _Dead, domain: Domain) -> tuple[Run, float, float] | None:
    """By real runs: the one at the spot, the last value with a zero gradient on the way to the smaller loss, and the first without.

    None if the gradient is not exactly zero at the spot, or nowhere back on the way.
    """
    spot = dead.spot
    run = patient.execute(spot.inputs)
    if not _is_zero(run, spot):
        return None
    for alive in np.linspace(dead.back, dead.goal, WAY):
        if slope(patient.execute, spot.moved(domain, float(alive))) * (dead.goal - spot.value) < 0:
            return run, *_edge(patient, spot, domain, float(alive))
    return None


def _edge(patient: Patient, spot: Spot, domain: Domain, alive: float) -> tuple[float, float]:
    """The last value with a zero gradient between the spot and a value where it is not zero, and the next that was looked at."""
    zero = spot.value
    for _ in range(HALVINGS):
        middle = spot.moved(domain, zero / 2 + alive / 2)
        zero, alive = (middle.value, alive) if slope(patient.execute, middle) == 0 else (zero, middle.value)
    return zero, alive


def _is_zero(run: Run, spot: Spot) -> bool:
    gradient = run.gradients.get(spot.name)
    return not run.error and gradient is not None and bool(gradient[spot.index] == 0) and finite(run.loss)


def _share(lab: Lab, name: str, domain: Domain, evenly: Sequence[Inputs], rng: np.random.Generator) -> float:
    """The share of evenly drawn elements whose gradient is zero although the loss would fall by much."""
    lots = max(min(SHARE_LINES, 40_000_000 // (20 * max(lab.numbers, 1))), 8)
    picks = [
        (evenly[int(rng.integers(len(evenly)))], np.unravel_index(int(rng.integers(evenly[0][name].size)), domain.shape))
        for _ in range(lots)
    ]
    spots = [Spot(inputs, name, tuple(int(i) for i in index)) for inputs, index in picks]
    found = lines(lab, spots, [glance(domain, s.value) for s in spots], domain)
    return float(np.mean([_improvable(line, spot) for line, spot in zip(found, spots, strict=True)]))


# ---------------------------------------------------------------- what is said


def _told(patient: Patient, lab: Lab, dead: _Dead, run: Run, domain: Domain, share: float) -> Finding | None:
    small = _where_small(lab, dead.edge, _culprit(lab, dead.edge))
    culprit = _forward(lab.graph, small)
    op = written(culprit)
    shape = op if op in ACTIVATIONS else _spelt_out(lab.graph, culprit)
    simple, run = _simpler(patient, lab, dead, run, domain)
    measured = _measured(patient, simple, domain)
    if measured is None:
        return None
    _, zero, alive = measured
    far = domain.low if alive > zero else domain.high
    far = far if slope(patient.execute, simple.spot.moved(domain, far)) == 0 else simple.spot.value
    low, high = min(zero, far), max(zero, far)
    called, better = simple.spot.text, "larger" if alive > zero else "smaller"
    where = f"the derivative of {op}" if small.phase == BACKWARD else op
    lost = f"the {shape} is saturated there, and" if shape else f"{where} rounds to 0 there, and"
    message = (
        f"the gradient by {called} is exactly 0 for {called} in [{low:.4g}, {high:.4g}] (all else as in this input), although a {better} "
        f"{called} would make the loss smaller: {lost} the true slope is lost to rounding. So it is with {share:.0%} of evenly drawn "
        f"elements of {simple.spot.name}."
    )
    return warning(
        patient,
        kind="dead-gradient",
        cause="saturated-activation" if shape else "vanished-gradient",
        op=op,
        site=culprit.site,
        message=message,
        witness=patient.witness(simple.spot.inputs, run),
        details={"regions": {called: [[low, high]]}, "share": share},
    )


def _culprit(lab: Lab, edge: Spot) -> Node:
    """The first node whose zeros, put into the run in float64, make that gradient zero; the gradient itself if there is no one such."""
    graph, target = lab.graph, lab.gradients[edge.name]
    needed = set(lab.order)
    real = evaluate(graph, edge.inputs)
    wide = values_of(graph, needed, edge.inputs)
    suspects = [i for i in lab.order if _rounded_away(graph.nodes[i], real[i], wide.get(i))]
    for i in suspects[:SUSPECTS]:
        value = real[i]
        assert value is not None
        forced = values_of(graph, needed, edge.inputs, {i: np.where(value.astype(np.float64) == 0, 0.0, wide[i])}).get(target)
        if forced is not None and forced[edge.index] == 0:
            return graph.nodes[i]
    return graph.nodes[target]


def _where_small(lab: Lab, edge: Spot, node: Node) -> Node:
    """Where the number became so small that the operation loses: the operation itself unless it was given one that hardly exists.

    A softplus with slope 1/2 is not saturated; what reaches it from a mixture's weight of 1e-44 is gone all the same, and the weight is
    to blame.
    """
    wide = values_of(lab.graph, set(lab.order), edge.inputs)
    lost = _lost(lab.graph, edge, node, wide)
    while lost is not None and lost.any():
        small = [(size, n) for n, size in _given(lab.graph, node, wide, lost) if 0 < size < n.format.tiny / n.format.eps]
        if not small:
            break
        node = min(small, key=lambda pair: pair[0])[1]
    return node


def _lost(graph: Graph, edge: Spot, node: Node, wide: Mapping[int, np.ndarray]) -> np.ndarray | None:
    """The elements of a backward operation's result that rounding made zero."""
    real = evaluate(graph, edge.inputs)[node.id] if node.phase == BACKWARD else None
    return None if real is None else (real.astype(np.float64) == 0) & (wide[node.id] != 0)


def _given(graph: Graph, node: Node, wide: Mapping[int, np.ndarray], lost: np.ndarray) -> Iterator[tuple[Node, float]]:
    """The operands that the backward pass computed, each with its largest magnitude among the lost elements."""
    for j in node.inputs:
        operand = graph.nodes[j]
        if operand.phase == BACKWARD and operand.inputs and operand.format.is_float and operand.shape == lost.shape:
            yield operand, float(np.abs(wide[j][lost]).max(initial=0.0))


def _rounded_away(node: Node, real: np.ndarray | None, wide: np.ndarray | None) -> bool:
    """Whether some element is zero as computed and is not in float64."""
    if real is None or wide is None or not node.format.is_float or node.op in ("input", "const"):
        return False
    return bool(((real.astype(np.float64) == 0) & (wide != 0)).any())


def _forward(graph: Graph, node: Node) -> Node:
    """The forward node that a backward one derives, an activation if there is one among several."""
    if node.phase == FORWARD:
        return node
    derived = [n for n in graph.nodes if n.phase == FORWARD and (n.source == node.derives if node.derives >= 0 else n.site == node.site)]
    return next((n for n in derived if n.op in ACTIVATIONS), derived[-1] if derived else node)


def _spelt_out(graph: Graph, node: Node) -> str:
    """ "sigmoid" or "softmax" if the node belongs to one that is written out; empty if not."""
    return next((m.kind for m in normalisers(View(graph)) if node.site is not None and graph.nodes[m.node].site == node.site), "")


def _simpler(patient: Patient, lab: Lab, dead: _Dead, run: Run, domain: Domain) -> tuple[_Dead, Run]:
    """The same in a plainer input in which the element is as dead."""
    spot, best = dead.spot, dead

    def as_dead(inputs: Inputs) -> bool:
        nonlocal best
        there = Spot(inputs, spot.name, spot.index)
        found = _dead(lab, there, domain) if _is_zero(patient.execute(inputs), there) else None
        best = found or best
        return found is not None

    shrink(spot.inputs, patient.domains, as_dead, budget=SIMPLER, element=spot.index)
    return best, patient.execute(best.spot.inputs)
