"""Arrays of a few bits that Python code reads whole, such as masks that go through SciPy: which ones are possible.

A look at an array is the comparison of what was read with a constant, the array of the recording. Each other array is another path.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from math import prod

import numpy as np

from whynan.analysis.discrete import CHOOSING
from whynan.domain.interval import Bounds, spread
from whynan.errors import OpError
from whynan.ir.dtype import BOOL, Array
from whynan.ir.graph import Assumption, Graph, call_of
from whynan.ops._opdef import run_quietly

MOST_ARRAYS = 64


def is_read(graph: Graph, look: Assumption) -> bool:
    """Whether a look is at a whole array: it is compared with the one of the recording, or all of its elements were one number."""
    return prod(graph.nodes[source_of(graph, look)].shape) > 1 and look.low == look.high


def source_of(graph: Graph, look: Assumption) -> int:
    """The node that was looked at."""
    node = graph.nodes[look.node]
    compared = node.op == "eq" and prod(node.shape) > 1 and look.low == 1 and graph.nodes[node.inputs[1]].op == "const"
    return node.inputs[0] if compared else look.node


def value_of(graph: Graph, look: Assumption) -> Array:
    """The array that was read in the recording."""
    source = graph.nodes[source_of(graph, look)]
    if source.id == look.node:
        return np.full(source.shape, look.low, source.format.numpy)
    return np.asarray(np.broadcast_to(graph.nodes[graph.nodes[look.node].inputs[1]].attrs["value"], source.shape))


def asking(graph: Graph, look: Assumption, value: Array) -> tuple[Graph, Assumption]:
    """The look that has another array for its outcome, and the graph with the comparison that it needs."""
    source, n = graph.nodes[source_of(graph, look)], len(graph.nodes)
    constant = replace(source, id=n, op="const", inputs=(), attrs={"value": value})
    same = replace(source, id=n + 1, op="eq", inputs=(source.id, n), attrs={}, format=BOOL)
    wider = replace(graph, nodes=(*graph.nodes, constant, same))
    return wider, replace(look, node=same.id, low=1.0, high=1.0)


def possible(graph: Graph, bounds: Sequence[Bounds], before: Sequence[Assumption], look: Assumption) -> list[Array] | None:
    """The arrays of whole numbers that may be read, given how the looks before went; None if they are too many.

    What was read before may decide the array; else looks before that follow from the array alone leave some out.
    """
    source = graph.nodes[source_of(graph, look)]
    known = {source_of(graph, a): value_of(graph, a) for a in before if is_read(graph, a)}
    decided = _told(graph, source.id, dict(known))
    if decided is not None:
        return [decided]
    b = bounds[source.id]
    if not bool(b.integral.all()) or b.nonfinite.any():
        return None
    b = spread(b, source.shape)
    ranges = [range(int(lo), int(hi) + 1) for lo, hi in zip(b.lo.reshape(-1), b.hi.reshape(-1), strict=True)]
    if prod(map(len, ranges)) > MOST_ARRAYS:
        return None
    every = (np.asarray(v).reshape(source.shape).astype(source.format.numpy) for v in product(*ranges))
    return [v for v in every if all(_allows(graph, a, {**known, source.id: v}) for a in before)]


def _allows(graph: Graph, look: Assumption, known: Mapping[int, Array]) -> bool:
    """Whether a look can have gone as it did, as far as what is known tells."""
    found = _told(graph, look.node, dict(known))
    return found is None or bool(((found >= look.low) & (found <= look.high)).all())


def _told(graph: Graph, i: int, known: dict[int, Array]) -> Array | None:
    """The value of a node, if it follows from known ones by operations that only choose."""
    if i in known:
        return known[i]
    node = graph.nodes[i]
    if node.op == "const":
        return np.asarray(np.broadcast_to(node.attrs["value"], node.shape))
    if not node.inputs or not (node.op in CHOOSING or (node.op in ("cast", "bitwise_not") and node.format.kind == "bool")):
        return None
    inputs = [_told(graph, j, known) for j in node.inputs]
    ready = [x for x in inputs if x is not None]
    if len(ready) < len(inputs):
        return None
    try:
        with np.errstate(all="ignore"):
            known[i] = run_quietly(call_of(graph, node), ready, False)
    except OpError:
        return None
    return known[i]
