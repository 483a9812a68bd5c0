"""A proof for a loss on its domain, and by cases: for the inputs on which one truth holds, and for those on which it does not."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from whynan.analysis.conditions import contradictory, implied
from whynan.analysis.propagate import Proof, propagate
from whynan.analysis.view import View
from whynan.domain.abstract import bounds_of
from whynan.domain.interval import Bounds
from whynan.domain.spec import Domain
from whynan.ir.dtype import Array
from whynan.ir.frontend import Trace
from whynan.ir.graph import Assumption, Graph

Inputs = Mapping[str, Array]

MOST_SWITCHES = 2  # conditions of which both cases are proven


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """What is explored: how the loss is recorded and proven, and on which inputs.

    `lead` records it while its looks at values are told these outcomes, in order; None where that cannot be done.
    """

    capture: Callable[[Inputs], Trace]
    domains: Mapping[str, Domain]
    boxes: int
    seed: int
    lead: Callable[[Inputs, Sequence[float]], Trace] | None = None

    def prove(self, graph: Graph, given: Mapping[int, Bounds] | None = None) -> Proof:
        """The abstract run of a graph of the loss."""
        bounds = {name: bounds_of(self.domains[name]) for name in graph.inputs}
        simplexes = [name for name in graph.inputs if self.domains[name].kind in ("simplex", "onehot")]
        return propagate(graph, bounds, self.boxes, simplexes=simplexes, given=given)


def by_cases(problem: Problem, graph: Graph, proof: Proof) -> Proof:
    """The proof, or a finite one from both cases of a single truth that a `where` depends on: compiled branches hold both sides.

    Each case is proven with what it implies; every input falls under one of them.
    """
    if proof.finite:
        return proof
    view = View(graph)
    for condition in _switches(graph, proof)[:MOST_SWITCHES]:
        cases = (_case(problem, view, proof, condition, truth) for truth in (1.0, 0.0))  # the second only if the first is proven
        if all(case is None or case.finite for case in cases):
            return replace(proof, outputs=(True,) * len(proof.outputs), open={}, hints=())
    return proof


def _switches(graph: Graph, proof: Proof) -> list[int]:
    """The single truths, not the same on the whole domain, that a `where` depends on."""
    found: dict[int, None] = {}
    for node in graph.nodes:
        i = node.inputs[0] if node.op == "where" else -1
        while i >= 0 and graph.nodes[i].op in ("reshape", "expand"):
            i = graph.nodes[i].inputs[0]
        if i >= 0 and int(np.prod(graph.nodes[i].shape)) == 1 and graph.nodes[i].format.kind == "bool":
            b = proof.bounds[i]
            if (b.lo < b.hi).any() and graph.nodes[i].inputs:
                found[i] = None
    return list(found)


def _case(problem: Problem, view: View, proof: Proof, condition: int, truth: float) -> Proof | None:
    """The proof for the inputs on which a condition is true, or false; None if there are none."""
    outcome = Assumption(condition, truth, truth, "a case")
    given = implied(view, proof.bounds, [*view.graph.assumptions, outcome])
    case = problem.prove(view.graph, given)
    return None if contradictory(view.graph, case.bounds, given) else case
