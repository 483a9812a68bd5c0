"""Operands of an operation in danger, bounded by what they would be in exact arithmetic."""

from collections.abc import Callable, Mapping

from whynan.analysis.look import look_closer, worth_a_look
from whynan.analysis.state import State, may_be_nonfinite
from whynan.analysis.tighten import bounded
from whynan.domain.interval import Bounds, make, meet
from whynan.ir.dtype import nearest
from whynan.ir.graph import Node
from whynan.ops._opdef import bound, known

# operations through which sharper operands make a sharper result
CARRIED = frozenset("mul div prod square neg reshape expand permute clamp maximum minimum sqrt add sub cast sum mean".split())
SHARPENED = 4  # how many operations back operands are sharpened


def in_danger(state: State, node: Node) -> bool:
    """Whether a non-finite value may begin here, from finite operands."""
    from_finite = not any(may_be_nonfinite(state, i) for i in node.inputs)
    return bool(node.inputs) and known(node.op) and from_finite and may_be_nonfinite(state, node.id)


def sharpen(state: State, node: Node, domains: Mapping[int, Bounds]) -> None:
    """Bound the operands by what they would be in exact arithmetic, and what follows from them once more."""
    for look, depth in ((state.exact.bounds, 0), (state.exact.shallow, 0), (state.exact.together, SHARPENED)):
        for i in node.inputs:
            _sharper(state, i, look, depth)
        before = state.bounds[node.id]
        assert before is not None
        state.bounds[node.id] = meet(before, bounded(state, node, domains), node.format)
        if not in_danger(state, node):
            return
        if worth_a_look(state, node, False):
            look_closer(state, node, lambda b: b.nonfinite)


def _sharper(state: State, i: int, look: Callable[[int], Bounds | None], depth: int) -> None:
    """Narrow the bounds of a value, and with some depth of what it is computed from."""
    node, before = state.view.nodes[i], state.bounds[i]
    if before is None or not node.inputs or not node.format.is_float:
        return
    if depth and node.op in CARRIED:
        for j in node.inputs:
            _sharper(state, j, look, depth - 1)
        again = bound(state.view.calls[i], [b for b in (state.bounds[j] for j in node.inputs) if b is not None])
        before = meet(before, again, node.format)
    name = state.view.representative[i], look.__name__
    if name not in state.sharpened:
        state.sharpened[name] = look(name[0])
    found = state.sharpened[name]
    if found is not None:
        before = meet(before, make(nearest(node.format, found.lo), nearest(node.format, found.hi), nan=True), node.format)
    state.bounds[i] = before
