"""What a proof does not cover: paths that the code did not take in the recorded run."""

import numpy as np

from whynan.analysis.finding import Open
from whynan.analysis.propagate import Proof
from whynan.ir.graph import FORWARD, Assumption, Graph

PATH = "path"  # the op of an open site that is a look at a value


def uncovered(graph: Graph, proof: Proof) -> Assumption | None:
    """The first look at a value whose outcome is not the same on the whole domain, if there is one."""
    for a in graph.assumptions:
        b = proof.bounds[a.node]
        if b.may_nan.any() or (b.lo < a.low).any() or (b.hi > a.high).any():
            return a
    return None


def varying(one: Graph, two: Graph) -> list[Open]:
    """A second recording on other inputs must give the same graph; otherwise the graph depends on values unseen."""
    if len(one.nodes) != len(two.nodes) or any(
        a.op != b.op or a.shape != b.shape or a.inputs != b.inputs for a, b in zip(one.nodes, two.nodes, strict=True)
    ):
        return [Open(PATH, None, FORWARD, "which operations are done changes with the input's values")]
    alive = live(one)
    for a, b in zip(one.nodes, two.nodes, strict=True):
        if a.op == "const" and alive[a.id] and not np.array_equal(a.attrs["value"], b.attrs["value"], equal_nan=a.format.is_float):
            reason = "a number here changes with the input's values but was computed outside the framework"
            return [Open(PATH, a.site, FORWARD, reason)]
    return []


def live(graph: Graph) -> list[bool]:
    """Whether each node reaches an output."""
    alive = [False] * len(graph.nodes)
    for o in graph.outputs:
        alive[o.node] = True
    for node in reversed(graph.nodes):
        if alive[node.id]:
            for i in node.inputs:
                alive[i] = True
    return alive
