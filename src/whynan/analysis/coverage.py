"""What a proof does not cover: paths that the code did not take in the recorded run."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from whynan.analysis.finding import Open
from whynan.analysis.propagate import Proof
from whynan.ir.graph import FORWARD, Assumption, Graph, Node

PATH = "path"  # the op of an open site that is a look at a value


def uncovered(graph: Graph, proof: Proof) -> Assumption | None:
    """The first look at a value whose outcome is not the same on the whole domain, if there is one."""
    return next((a for a in graph.assumptions if not covered(a, proof)), None)


def covered(look: Assumption, proof: Proof) -> bool:
    """Whether a look's outcome is the same on the whole domain."""
    b = proof.bounds[look.node]
    return not (b.may_nan.any() or (b.lo < look.low).any() or (b.hi > look.high).any())


def varying(one: Graph, two: Graph) -> list[Open]:
    """A second recording on other inputs must give the same graph; otherwise the graph depends on values unseen."""
    if [_kind(a) for a in one.nodes] != [_kind(b) for b in two.nodes]:
        return [Open(PATH, None, FORWARD, "which operations are done changes with the input's values")]
    alive = live(one)
    reason = "a number here changes with the input's values but was computed outside the framework"
    for a, b in zip(one.nodes, two.nodes, strict=True):
        if alive[a.id] and not _same(a.attrs, b.attrs):
            return [Open(PATH, a.site, FORWARD, reason)]
    return []


def _kind(node: Node) -> object:
    return node.op, node.shape, node.format.name, node.inputs


def _same(one: Any, two: Any) -> bool:
    """Whether two nodes have the same attributes: the value of a constant, the limits of a clamp, the places of a slice."""
    if isinstance(one, Mapping):
        return one.keys() == two.keys() and all(_same(v, two[k]) for k, v in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(_same(v, w) for v, w in zip(one, two, strict=True))
    if isinstance(one, np.ndarray):
        return np.array_equal(one, two, equal_nan=one.dtype.kind not in "biu")
    return repr(one) == repr(two)


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
