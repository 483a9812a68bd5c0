"""The abstract run: bounds of every value on every input of the domain, and from them what is proven.

Nodes are bounded in order from their inputs' bounds, tightened by relations between values; where a result could be
non-finite although what goes in does not force it, branch and prune looks closer.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from whynan.analysis.attained import Attained
from whynan.analysis.both import of_both_worlds
from whynan.analysis.conditions import deciding
from whynan.analysis.exact.limits import Exact
from whynan.analysis.look import in_pieces, look_closer, worth_a_look, worth_deciding
from whynan.analysis.relations import Relations
from whynan.analysis.selected import used
from whynan.analysis.sharpen import in_danger, sharpen
from whynan.analysis.state import BOXES, Ranges, State, bounds_at
from whynan.analysis.tighten import bounded, choose
from whynan.analysis.view import View
from whynan.domain.interval import Bounds, collapse, meet, top
from whynan.ir.graph import Graph, Node
from whynan.ops._opdef import known


@dataclass(frozen=True, slots=True, eq=False)
class Proof:
    """What the abstract run found.

    `bounds` per node; `outputs` says per output (in the graph's order) whether it is proven finite; `open` are the nodes where a
    non-finite value may arise and reach an output that is not proven, with the reason; `hints` are ranges of input
    elements in which it may happen (for the search); `boxes` counts the boxes that branch and prune evaluated.
    """

    bounds: tuple[Bounds, ...]
    outputs: tuple[bool, ...]
    open: Mapping[int, str]
    hints: tuple[Ranges, ...]
    boxes: int

    @property
    def finite(self) -> bool:
        """True if every output is proven finite."""
        return all(self.outputs)


@np.errstate(all="ignore")  # near the largest number of float64 a limit is infinite, which is sound
def propagate(
    graph: Graph,
    domains: Mapping[str, Bounds],
    budget: int = BOXES,
    refine: bool = True,
    simplexes: Collection[str] = (),
    given: Mapping[int, Bounds] | None = None,
) -> Proof:
    """Bound every value of the graph for all inputs in the domains (bounds by input name).

    `simplexes` are the inputs of non-negative numbers whose rows along the last axis sum to 1. `budget` limits the boxes that branch and
    prune may evaluate in all; without `refine` it is not used. `given` are bounds of some nodes that are known beforehand (of the first
    node of those that compute the same): the result is then about the inputs that comply. Where outputs stay
    open, conditions below reductions are split (`worlds`), and what holds in both cases enters a second pass.
    """
    by_node = {i: domains[name] for name, i in graph.inputs.items()}
    known = dict(given or {})
    rows = frozenset(graph.inputs[n] for n in simplexes)
    state = _passed(View(graph), by_node, rows, budget if refine else 0, known, sharp=refine)
    if refine and not all(bounds_at(state, o.node).finite for o in graph.outputs):
        more = of_both_worlds(state)
        if more:
            first, left = state, max(state.budget - state.charged, state.budget // 4)
            state = _passed(View(graph), by_node, rows, left, {**known, **more}, sharp=True)
            state.boxes += first.boxes
    done = tuple(b for b in state.bounds if b is not None)
    proven = tuple(done[o.node].finite for o in graph.outputs)
    return Proof(done, proven, _open(state.view, done, state.left), tuple(state.hints), state.boxes)


def _passed(
    view: View, domains: Mapping[int, Bounds], simplexes: frozenset[int], budget: int, more: Mapping[int, Bounds], sharp: bool
) -> State:
    """All nodes bounded in order; `more` is known of some of them beforehand. `sharp` asks exact arithmetic, too."""
    bounds: list[Bounds | None] = [None] * len(view.nodes)
    state = State(view, bounds, Relations(view, bounds), Attained(view, bounds), Exact(view, bounds), budget, simplexes)
    outputs = {o.node for o in view.graph.outputs}
    conditions = deciding(view.graph)
    for node in view.nodes:
        if not view.live[node.id]:
            bounds[node.id] = top(node.format, len(node.shape))
            continue
        first = view.representative[node.id]
        if first != node.id:
            bounds[node.id] = bounds[first]
            continue
        result = bounded(state, node, domains)
        bounds[node.id] = meet(result, more[node.id], node.format) if node.id in more else result
        choose(state, node)
        if worth_a_look(state, node, node.id in outputs):
            look_closer(state, node, lambda b: b.nonfinite)
        elif node.id in conditions and worth_deciding(state, node):
            look_closer(state, node, lambda b: b.lo < b.hi)
        elif sharp:
            in_pieces(state, node)
        if sharp and in_danger(state, node) and used(state, node):
            sharpen(state, node, domains)
    return state


def _open(view: View, bounds: tuple[Bounds, ...], left: Mapping[int, str]) -> dict[int, str]:
    """Nodes where a non-finite value may arise from finite ones and flow to an output."""
    flows = [False] * len(bounds)
    for o in view.graph.outputs:
        flows[o.node] = bool(bounds[o.node].nonfinite.any())
    out: dict[int, str] = {}
    for node in reversed(view.nodes):
        if not flows[node.id]:
            continue
        guilty = [i for i in node.inputs if bounds[i].nonfinite.any() and view.nodes[i].op != "const"]
        for i in guilty:
            flows[i] = True
        if not guilty or not known(node.op):
            out[node.id] = _reason(view, node, bounds) + left.get(view.representative[node.id], "")
    return out


def _reason(view: View, node: Node, bounds: tuple[Bounds, ...]) -> str:
    if node.op == "input":
        return "the domain itself holds NaN or Inf"
    if not known(node.op):
        return f"whynan has no bounds for the operation {node.spelling or node.op}"
    if not node.inputs:
        return "a number that is computed here is not finite"
    parts = ", ".join(_range_text(collapse(bounds[i], 0)) for i in node.inputs)
    return f"{node.op} of {parts} could not be shown to stay finite"


def _range_text(b: Bounds) -> str:
    return "NaN" if bool(b.empty) else f"[{float(b.lo):.4g}, {float(b.hi):.4g}]"
