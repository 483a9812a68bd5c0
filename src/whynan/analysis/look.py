"""Where branch and prune looks closer, and with how many boxes."""

from collections.abc import Callable

import numpy as np

from whynan.analysis.branch import prune
from whynan.analysis.cones import cones_of
from whynan.analysis.left import what_is_left
from whynan.analysis.selected import used
from whynan.analysis.state import BOXES, State, bounds_at, may_be_nonfinite
from whynan.domain.interval import Bounds, meet
from whynan.ir.dtype import BOOL
from whynan.ir.graph import FORWARD, Node
from whynan.ops._opdef import known

# ops whose result can be finite although an input is not
SELECTIVE = frozenset({"where", "minimum", "maximum", "clamp", "nan_to_num", "relu", "index", "gather", "pow", "xlogy"})

PASS = 64  # boxes that a pass through a cone counts for, beside those that it evaluates: a long program has many places to look at
MOST_A_LOOK, LEAST_A_LOOK = 4096, 256  # boxes for one look: most decide within a hundred boxes or never
PIECES = 256  # boxes for a function that is given piece by piece, in each round
ROUNDS = 4
LARGE = 64.0  # magnitude from which on it is worth to know such a function better
FINE = 64  # a piece may be so many times narrower than all that the function may be
PATIENCE = 3 * MOST_A_LOOK  # boxes without a decision after which looks become short


def worth_a_look(state: State, node: Node, is_output: bool) -> bool:
    """Whether splitting may show finite what the plain run could not: a danger that starts here, or a choice between inputs."""
    b = state.bounds[node.id]
    if b is None or not node.inputs or not b.nonfinite.any() or state.charged >= state.budget or not known(node.op):
        return False
    if not state.view.elementwise(state.view.root(node.id)) or not used(state, node):
        return False
    fresh = all(not may_be_nonfinite(state, i) for i in node.inputs)
    return fresh or is_output or node.op in SELECTIVE or _vanishes(state, node)


def worth_deciding(state: State, node: Node) -> bool:
    """Whether splitting may show that a condition that Python code looks at has one outcome only."""
    b = bounds_at(state, node.id)
    return bool((b.lo < b.hi).any()) and state.charged < state.budget and state.view.elementwise(state.view.root(node.id))


def _vanishes(state: State, node: Node) -> bool:
    """A product with something that may be zero, a quotient by something that may be infinite: a mask at work."""
    if node.op not in ("mul", "div"):
        return False
    return any(bool(b.may_zero.any() or b.may_inf.any()) for b in (state.bounds[i] for i in node.inputs) if b is not None)


def look_closer(state: State, node: Node, undecided: Callable[[Bounds], np.ndarray]) -> None:
    """Narrow the node's bounds by branch and prune until no element is `undecided`, or keep the ranges that stay open."""
    nonfinite = node.format.is_float
    root = state.view.root(node.id)
    inputs = set(state.view.graph.inputs.values())
    for cone in cones_of(state.view, root):
        found = prune(state.view, state.facts, cone, undecided, _allowance(state))
        state.boxes += found.boxes
        cost = found.work + PASS * found.passes
        state.charged += cost
        before = state.bounds[node.id]
        assert before is not None
        state.bounds[node.id] = meet(before, found.bounds, node.format)
        if found.decided:
            state.left.pop(node.id, None)
            return
        state.wasted += cost
        if not nonfinite:  # no input fails because a condition has two outcomes
            continue
        state.left[node.id] = what_is_left(state.view, found)
        hints = [{v[0]: r for v, r in box.items() if v[0] in inputs} for box in found.left]
        state.hints += [h for h in hints if h]


def in_pieces(state: State, node: Node) -> None:
    """Narrow a function of one value in pieces, or a product of two: `where(x < 1, p(x), q(x))` reads p only where x < 1.

    As long as nothing overflows no danger asks for it; but a spline whose pieces are large outside their own parts makes all that follows
    too large, and so does (1.4 - x) (x - 0.6), which is large where both factors seem to be.
    """
    b = bounds_at(state, node.id)
    if node.op not in ("where", "mul") or not node.format.is_float or not b.finite or float(b.magnitude.max(initial=0.0)) < LARGE:
        return
    if node.op == "mul" and not _both_vary(state, node):
        return
    if state.charged >= state.budget or not used(state, node):
        return
    for cone in cones_of(state.view, state.view.root(node.id)):
        if sum(state.view.op(v) != "const" for v in cone.leaves) != 1:
            continue
        if node.op == "where" and not any(state.view.node(v).format is BOOL for v in cone.inner):
            continue
        for _ in range(ROUNDS):  # each knows better how narrow a piece must be
            before = bounds_at(state, node.id)
            wide = float((before.hi - before.lo).max(initial=0.0))
            found = prune(state.view, state.facts, cone, _wider(wide / FINE), PIECES)
            state.boxes += found.boxes
            state.charged += found.work + PASS * found.passes
            now = state.bounds[node.id] = meet(before, found.bounds, node.format)
            if float((now.hi - now.lo).max(initial=0.0)) > wide / 2:
                break
        return


def _both_vary(state: State, node: Node) -> bool:
    """Whether a product in the loss itself is of two numbers that are computed, and not the same one."""
    a, b = state.view.inputs(state.view.root(node.id))
    return node.phase == FORWARD and a != b and all(state.view.elementwise(v) for v in (a, b))


def _wider(most: float) -> Callable[[Bounds], np.ndarray]:
    """Which elements' intervals are wider; a single infinity is not wide."""

    def wider(b: Bounds) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return np.asarray(b.hi - b.lo > most)

    return wider


def _allowance(state: State) -> int:
    """The boxes for one look: a larger budget buys longer ones; they become short where many have decided nothing."""
    share = state.budget / BOXES
    patient = min(MOST_A_LOOK * share, PATIENCE * share - state.wasted)
    return int(min(max(patient, LEAST_A_LOOK), state.budget - state.charged))
