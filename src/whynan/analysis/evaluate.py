"""The concrete run: every value of a graph on given inputs, in the real formats or in float64 throughout."""

from collections.abc import Mapping, Sequence

import numpy as np

from whynan.ir.dtype import Array
from whynan.ir.graph import Graph, calls_of
from whynan.ops._opdef import known, run, run_quietly


def evaluate(graph: Graph, inputs: Mapping[str, Array], *, wide: bool = False) -> list[Array | None]:
    """Run all nodes on inputs by name; None where an op is unknown or reads something unknown.

    With `wide` every float is a float64: what the program would give with (almost) no rounding.
    """
    named = {i: np.asarray(inputs[name]) for name, i in graph.inputs.items()}
    return fill(graph, [named.get(node.id) for node in graph.nodes], wide=wide)


def fill(graph: Graph, values: Sequence[Array | None], *, wide: bool = False) -> list[Array | None]:
    """The values with the missing ones computed from the others where that is possible."""
    out, calls = list(values), calls_of(graph)
    for node in graph.nodes:
        if out[node.id] is not None:
            continue
        if node.op == "const":
            out[node.id] = np.broadcast_to(node.attrs["value"], node.shape)
            continue
        inputs = [v for i in node.inputs if (v := out[i]) is not None]
        if known(node.op) and node.op not in ("input", "random") and len(inputs) == len(node.inputs):
            out[node.id] = run(calls[node.id], inputs, wide=wide)
    return out


def finite(value: Array) -> bool:
    """Whether all elements are finite numbers."""
    return bool(np.isfinite(value if value.dtype.kind in "fiub" else value.astype(np.float64)).all())


def evaluate_many(
    graph: Graph, nodes: Sequence[int], inputs: Mapping[str, Array], *, wide: bool = False, before: Mapping[int, Array] | None = None
) -> dict[int, Array]:
    """The values of some nodes (in order, closed under inputs) on many inputs at once, stacked along a leading axis.

    With `wide` every float is a float64. `before` are values of other nodes, known already; they are part of the result. Raises OpError
    for an op without a record.
    """
    count = len(next(iter(inputs.values())))
    named = {i: inputs[name] for name, i in graph.inputs.items() if name in inputs}
    out, calls = dict(before or {}), calls_of(graph)
    with np.errstate(all="ignore"):
        for i in nodes:
            node = graph.nodes[i]
            if i in named:
                out[i] = named[i]
            elif node.op == "const":
                out[i] = np.broadcast_to(node.attrs["value"], (count, *node.shape))
            else:
                out[i] = run_quietly(calls[i], [out[j] for j in node.inputs], wide)
    return out


def ancestors(graph: Graph, node: int) -> set[int]:
    """A node and all nodes that it is computed from."""
    needed, stack = {node}, [node]
    while stack:
        for j in graph.nodes[stack.pop()].inputs:
            if j not in needed:
                needed.add(j)
                stack.append(j)
    return needed
