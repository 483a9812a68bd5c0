"""Walking a graph backward: where a value comes from."""

import numpy as np

from whynan.analysis.view import View
from whynan.ir.graph import Node

SAME = frozenset({"reshape", "permute", "expand", "cast", "either"})  # the same elements, elsewhere or computed in one of several ways
PARTS = SAME | {"slice", "flip", "roll", "gather", "take_flat", "index"}  # some of the same elements
LOGS = frozenset({"log", "log2", "log10"})
LOGARITHMIC = LOGS | {"log1p", "logsigmoid", "log_softmax", "softplus", "logaddexp"}
CUTS = frozenset({"eq", "ne", "lt", "le", "gt", "ge", "argmax", "argmin", "sort_indices", "topk_indices", "count_nonzero", "isfinite"})
STEPS = frozenset({"floor", "ceil", "round", "trunc", "sign", "heaviside"})
SMALL = 0.05  # an epsilon is not larger


def origin(view: View, i: int, through: frozenset[str] = SAME) -> int:
    """The value that a node shows rearranged, converted, or with other `through` operations, part of."""
    while True:
        node = view.nodes[i]
        if through is PARTS and (chosen := _guarded(view, node)) is not None:
            i = chosen
        elif node.op not in through or not node.inputs or (node.op == "cast" and _truncates(view, node)):
            return view.representative[i]
        else:
            i = _plain(view, node)


def _plain(view: View, node: Node) -> int:
    """What a rearranging node shows; of several ways to compute something, the one without contracted operations."""
    if node.op != "either":
        return node.inputs[0]
    return next((i for i in node.inputs if view.nodes[i].op != "fma"), node.inputs[0])


def _guarded(view: View, node: Node) -> int | None:
    """x where the node is x but for elements that a library sets apart: NaN for an index out of range, or a NaN that is passed on."""
    if node.op != "where":
        return None
    if view.nodes[node.inputs[2]].op == "const" and np.isnan(scalar(view, node.inputs[2]) or 0.0):
        return node.inputs[1]
    test = view.nodes[node.inputs[0]]
    return node.inputs[2] if test.op == "ne" and test.inputs[0] == test.inputs[1] else None


def _truncates(view: View, node: Node) -> bool:
    return view.nodes[node.inputs[0]].format.is_float and not node.format.is_float


def scalar(view: View, i: int) -> float | None:
    """The number that a node is everywhere, if it is a constant of one value."""
    node = view.nodes[origin(view, i)]
    if node.op != "const" or node.attrs["value"].size != 1:
        return None
    return float(node.attrs["value"].reshape(-1)[0])


def limits(view: View, node: Node) -> tuple[int, float, float] | None:
    """The operand of a clamp, a minimum, a maximum or a relu and the interval it is held in; None for any other node."""
    if node.op == "clamp":
        low, high = node.attrs.get("low"), node.attrs.get("high")
        return node.inputs[0], -np.inf if low is None else float(low), np.inf if high is None else float(high)
    if node.op == "relu":
        return node.inputs[0], 0.0, np.inf
    if node.op in ("minimum", "maximum"):
        for operand, other in (node.inputs, node.inputs[::-1]):
            edge = scalar(view, other)
            if edge is not None:
                return (operand, edge, np.inf) if node.op == "maximum" else (operand, -np.inf, edge)
    return None


def negated(view: View, i: int) -> int | None:
    """x where the node is -x, however that is written."""
    node = view.nodes[origin(view, i)]
    if node.op == "neg":
        return node.inputs[0]
    if node.op == "sub" and scalar(view, node.inputs[0]) == 0:
        return node.inputs[1]
    if node.op == "mul":
        return next((a for a, b in (node.inputs, node.inputs[::-1]) if scalar(view, b) == -1), None)
    return None


def complement(view: View, i: int) -> int | None:
    """x where the node is 1 - x, or x - 1."""
    node = view.nodes[origin(view, i)]
    if node.op == "sub":
        return next((a for a, b in (node.inputs, node.inputs[::-1]) if about_one(view, b)), None)
    if node.op == "add":
        found = [negated(view, a) for a, b in (node.inputs, node.inputs[::-1]) if about_one(view, b)]
        found += [a for a, b in (node.inputs, node.inputs[::-1]) if scalar(view, b) == -1]
        return next((x for x in found if x is not None), None)
    return None


def about_one(view: View, i: int) -> bool:
    """Whether a value is a constant next to 1."""
    one = scalar(view, i)
    return one is not None and abs(one - 1) <= SMALL


def depends(view: View, i: int) -> frozenset[str]:
    """The names of the inputs that a node is computed from."""
    names = {node: name for name, node in view.graph.inputs.items()}
    seen, stack = {i}, [i]
    while stack:
        for j in view.nodes[stack.pop()].inputs:
            if j not in seen:
                seen.add(j)
                stack.append(j)
    return frozenset(names[j] for j in seen if j in names)
