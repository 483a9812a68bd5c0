"""Which values count, given the conditions that are the same on the whole domain: an operand that is never selected may be anything."""

from whynan.analysis.state import State
from whynan.domain.interval import Bounds, entering, of_array, top
from whynan.ir.graph import Node
from whynan.ops._opdef import bound


def used(state: State, node: Node) -> bool:
    """Whether a node can reach an output, or a look of Python's, through what conditions select as far as they are known."""
    view = state.view
    ends = {view.representative[i] for i in (*(o.node for o in view.graph.outputs), *(a.node for a in view.graph.assumptions))}
    start = view.representative[node.id]
    seen, stack = {start}, [start]
    while stack:
        i = stack.pop()
        if i in ends:
            return True
        for j in view.readers[i]:
            first = view.representative[j]
            if first not in seen and view.live[first] and not _ignores(state, view.nodes[j], i):
                seen.add(first)
                stack.append(first)
    return False


def _ignores(state: State, node: Node, i: int) -> bool:
    """Whether a `where` reads a node as the operand that it never selects."""
    if node.op != "where":
        return False
    condition, first, second = (state.view.representative[j] for j in node.inputs)
    if i == condition or (i == first) == (i == second):
        return False
    b, end = _ahead(state, condition), 0.0 if i == first else 1.0
    return not b.may_nan.any() and bool((b.lo == end).all() and (b.hi == end).all())


def _ahead(state: State, i: int) -> Bounds:
    """The bounds of a node, plain ones if its turn has not come yet."""
    view, needed, stack = state.view, set[int](), [i]
    while stack:
        j = stack.pop()
        if state.bounds[j] is None and j not in state.ahead and j not in needed:
            needed.add(j)
            stack += [view.representative[k] for k in view.nodes[j].inputs]
    for j in sorted(needed):
        state.ahead[j] = _plain(state, view.nodes[j])
    found = state.bounds[i]
    return state.ahead[i] if found is None else found


def _plain(state: State, node: Node) -> Bounds:
    if node.op == "const":
        return entering(of_array(node.attrs["value"]), node.format)
    if not node.inputs:
        return top(node.format, len(node.shape))
    first = [state.view.representative[k] for k in node.inputs]
    inputs = [state.ahead[k] if (b := state.bounds[k]) is None else b for k in first]
    return bound(state.view.calls[node.id], inputs)
