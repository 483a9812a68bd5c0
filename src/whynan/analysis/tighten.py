"""The bounds of one node, from those of its inputs and from what is known about pairs of values."""

from collections.abc import Mapping

import numpy as np

from whynan.analysis.apart import NEAR, apart
from whynan.analysis.bins import binned
from whynan.analysis.buckets import read_again
from whynan.analysis.cancelled import cancelled
from whynan.analysis.conditions import chosen_by
from whynan.analysis.contracted import contracted
from whynan.analysis.entropy import entropy
from whynan.analysis.guarded import guarded
from whynan.analysis.masks import ALIKE
from whynan.analysis.monomials import product_bound
from whynan.analysis.rows import length_bound, projection_bound
from whynan.analysis.shares import sum_of_shares
from whynan.analysis.slack import Slack
from whynan.analysis.state import State
from whynan.analysis.view import Vertex, align
from whynan.domain.interval import NEG_ZERO, Bounds, entering, make, meet, of_array
from whynan.ir.dtype import Format, nearest
from whynan.ir.graph import Node
from whynan.ops._opdef import bound

_PAIRED = frozenset({"add", "sub", "mul", "div"})
NOTHING = 1e-3  # a sum's least value relative to its largest one, from which on it is not looked at more closely


def bounded(state: State, node: Node, domains: Mapping[int, Bounds]) -> Bounds:
    """The bounds of a node, given those of its inputs; `domains` has those of the graph's inputs."""
    if node.id in domains:
        return entering(domains[node.id], node.format)
    if node.op == "const":
        return entering(of_array(node.attrs["value"]), node.format)
    inputs = [state.bounds[i] for i in node.inputs]
    result = bound(state.view.calls[node.id], [b for b in inputs if b is not None])
    if node.op == "pow" and node.format.flush:
        result = _power_of_input(state, node, result, domains)
    state.bounds[node.id] = result
    return _tighten(state, node, result)


def _power_of_input(state: State, node: Node, result: Bounds, domains: Mapping[int, Bounds]) -> Bounds:
    """A power of an input that is not negative: where a zero may stand for a subnormal, that is none below zero.

    -0 itself gives what +0 gives, or its negative.
    """
    base, exponent = (state.bounds[i] for i in node.inputs)
    domain = domains.get(state.view.inputs(state.view.root(node.id))[0][0])
    if domain is None or base is None or exponent is None or domain.may_nan.any() or not bool((domain.lo >= 0).all()):
        return result
    plain = bound(state.view.calls[node.id], [Bounds(base.lo, base.hi, base.flags & ~NEG_ZERO), exponent])
    return meet(result, make(np.where(plain.may_inf, -np.inf, plain.lo), plain.hi, nan=plain.may_nan), node.format)


def choose(state: State, node: Node) -> None:
    """A `where` with a condition that is the same everywhere is its operand: `where(isfinite(m), m, 0)` hides no maximum."""
    if node.op != "where":
        return
    condition = state.bounds[node.inputs[0]]
    if condition is None or condition.may_nan.any():
        return
    for selected, end in ((node.inputs[1], 1.0), (node.inputs[2], 0.0)):
        if bool((condition.lo == end).all() and (condition.hi == end).all()) and state.view.nodes[selected].format.name == node.format.name:
            state.view.choose(node.id, selected)


def _tighten(state: State, node: Node, result: Bounds) -> Bounds:
    """Narrow a result by what is known about pairs of values."""
    result = _pair(state, node, result)
    rank = len(node.shape)
    if (product := entropy(state.view, node, lambda x: _along(state, x, rank))) is not None:
        result = meet(result, product, node.format)
    result = _contracted(state, node, result)
    if node.op in ("masked_select", "index") and (chosen := chosen_by(state.view, state.bounds, node)) is not None:
        result = meet(result, chosen, node.format)
    if (read := read_again(state.view, state.bounds, node)) is not None:
        result = meet(result, read, node.format)
    if node.op == "where" and (difference := guarded(state.view, state.bounds, node)) is not None:
        result = meet(result, difference, node.format)
    if node.op in ("matmul", "sum", "norm") and (product := length_bound(state.facts, node)) is not None:
        result = meet(result, product, node.format)
    if node.op in ("div", "mul") and (projection := projection_bound(state.facts, node)) is not None:
        result = meet(result, projection, node.format)
    if node.op == "sum":
        result = _row_sum(state, node, result)
        if _may_vanish(state, node, result) and (by_pieces := binned(state.view, state.bounds, node)) is not None:
            result = meet(result, by_pieces, node.format)
    result = _apart(state, node, result)
    attained = state.attained.learn(node, result)
    return result if attained is None else meet(result, attained, node.format)


def _apart(state: State, node: Node, result: Bounds) -> Bounds:
    """What is known not to be zero is no smaller than the least that it can be."""
    above, below = (result.lo > 0) & (result.lo < NEAR), (result.hi < 0) & (result.hi > -NEAR)
    if not (node.format.is_float and (above.any() or below.any())):
        return result
    size = apart(state.view, state.bounds, node.id, state.apart)
    return meet(result, make(np.where(above, size, -np.inf), np.where(below, -size, np.inf), nan=True), node.format) if size else result


def _along(state: State, x: Vertex, rank: int) -> Bounds | None:
    """The bounds of a vertex along the axes of its root."""
    b = state.bounds[x[0]]
    return None if b is None else align(b, x[1], rank)


def _may_vanish(state: State, node: Node, total: Bounds) -> bool:
    """Whether a sum of numbers that are not negative may be next to nothing as far as is known."""
    terms = state.bounds[node.inputs[0]]
    if terms is None or terms.nonfinite.any() or not bool((terms.lo >= 0).all()):
        return False
    return float(total.lo.min(initial=np.inf)) <= NOTHING * float(total.hi.max(initial=0.0))


def _row_sum(state: State, node: Node, result: Bounds) -> Bounds:
    """The sum along the rows of a simplex, or of shares: 1, up to the rounding of the row's own elements and of the additions."""
    if (shares := sum_of_shares(state.view, state.bounds, node)) is not None:
        result = meet(result, shares, node.format)
    found = state.view.reduced(state.view.root(node.id), -2) if state.simplexes else None
    if found is None or found[0][0] not in state.simplexes:
        return result
    (source, axes), names = found
    if len(names) != 1 or axes.count(names[0]) != 1 or axes[-1] != names[0]:
        return result
    fmt = node.format if node.format.eps > state.view.nodes[source].format.eps else state.view.nodes[source].format
    slack = (4 + state.view.nodes[source].shape[-1]) * fmt.eps
    return meet(result, make(np.full(result.shape, 1 - slack), np.full(result.shape, 1 + slack), fraction=True))


def _contracted(state: State, node: Node, result: Bounds) -> Bounds:
    """A sum that a compiler may contract: without the rounding of a product it differs from the plain sum by no more than that."""
    found = contracted(state.view, state.bounds, node)
    if found is None:
        return result
    plain, room = state.bounds[found[0]], found[1]
    assert plain is not None
    return meet(result, make(plain.lo - room, plain.hi + room), node.format)


def _pair(state: State, node: Node, result: Bounds) -> Bounds:
    if node.op not in _PAIRED and node.op not in ALIKE:
        return result
    a, b = state.view.inputs(state.view.root(node.id))
    left, right = state.bounds[a[0]], state.bounds[b[0]]
    if node.op in ALIKE:
        return meet(result, ALIKE[node.op]) if a == b and left is not None and not left.may_nan.any() else result
    if left is None or right is None or not node.format.is_float or (node.op == "div" and "ulps" in node.attrs):
        return result
    if a == b:
        return _same_operand(node, result, left)
    if node.op in ("add", "sub"):
        result = _regrouped(state, node, result, a, b)
    if node.op == "sub":
        result = _less_a_part(state, node, result, a, b)
        return _difference(state, node, result, state.facts.at_most(a, b), state.facts.at_most(b, a))
    if node.op == "mul" and "ulps" not in node.attrs:
        most = min(state.facts.times_root(a, b), state.facts.times_root(b, a)) * (1 + node.format.eps)
        result = meet(result, make(-most, most, nan=True), node.format) if most < node.format.max else result
    if (limits := product_bound(state.view, state.bounds, node)) is not None:
        result = meet(result, limits, node.format)
    if node.op == "div" and (factor := cancelled(state.view, state.bounds, node)) is not None:
        result = meet(result, factor, node.format)
    if node.op == "div" and bool((right.lo >= 0).all()):
        return _quotient(state, node, result, a, b, right)
    return result


def _regrouped(state: State, node: Node, result: Bounds, a: Vertex, b: Vertex) -> Bounds:
    """(x - y) + c for y <= x, which a compiler may have made x + (c - y) or x - (y - c): at least c, but for the roundings of both."""
    view, facts = state.view, state.facts
    for x, t in ((a, b), (b, a)) if node.op == "add" else ((a, b),):
        if view.op(t) != "sub" or "ulps" in node.attrs or "ulps" in view.node(t).attrs:
            continue
        c, y = view.inputs(t) if node.op == "add" else view.inputs(t)[::-1]
        below = facts.at_most(y, x)
        if below is None or facts.low(c) == -np.inf or not np.isfinite(facts.size(x) + facts.size(t)):
            continue
        eps = max(view.node(v).format.eps for v in (view.root(node.id), t))
        room = below.relative * facts.size(x) + below.absolute + eps * (facts.size(t) * 2 + facts.size(x)) + 4 * node.format.tiny
        least = facts.low(c) - room * (1 + 1e-6)
        result = meet(result, make(nearest(node.format, least), np.inf, nan=True), node.format)
    return result


def _less_a_part(state: State, node: Node, result: Bounds, a: Vertex, b: Vertex) -> Bounds:
    """a - c s for s <= a and a number c of at most 1, as in E[x^2] - 0.85 E[x]^2: at least (1 - c) a, but for the product's rounding."""
    view, facts, eps = state.view, state.facts, node.format.eps
    if view.op(b) != "mul" or "ulps" in view.node(b).attrs or view.node(b).format is not node.format or not facts.low(a) >= 0:
        return result
    for c, s in (view.inputs(b), view.inputs(b)[::-1]):
        below = facts.at_most(s, a) if view.op(c) == "const" and 0 <= facts.low(c) <= facts.high(c) <= 1 else None
        if below is not None and np.isfinite(facts.high(a)):
            share = 1 - facts.high(c) * (1 + below.relative) * (1 + 2 * eps)
            least = share * (facts.low(a) if share > 0 else facts.high(a)) - below.absolute * (1 + 2 * eps) - 2 * node.format.tiny
            return meet(result, make(nearest(node.format, least * (1 - 4 * eps) if least > 0 else least * (1 + 4 * eps)), np.inf, nan=True))
    return result


def _same_operand(node: Node, result: Bounds, operand: Bounds) -> Bounds:
    """x - x = 0 and x / x = 1 for finite (nonzero) x; x * x >= 0."""
    if node.op == "mul":
        return meet(result, make(0.0, np.inf, nan=True, neg_zero=False))
    if node.op == "sub" and not operand.nonfinite.any():
        return make(np.zeros(result.shape), np.zeros(result.shape), neg_zero=False, fraction=False)
    if node.op == "div" and not operand.nonfinite.any() and not operand.may_zero.any():
        return make(np.ones(result.shape), np.ones(result.shape), fraction=False)
    return result


def _difference(state: State, node: Node, result: Bounds, below: Slack | None, above: Slack | None) -> Bounds:
    """a - b <= slack where a <= b (exactly 0 without slack), and the mirror image."""
    b = state.bounds[node.inputs[1]]
    a = state.bounds[node.inputs[0]]
    assert a is not None and b is not None
    hi = np.asarray(np.inf) if below is None else _room(below, float(b.magnitude.max(initial=0.0)), node.format)
    lo = np.asarray(-np.inf) if above is None else -_room(above, float(a.magnitude.max(initial=0.0)), node.format)
    return result if below is None and above is None else meet(result, make(lo, hi, nan=True), node.format)


def _room(slack: Slack, magnitude: float, fmt: Format) -> np.ndarray:
    if slack.relative == 0 and slack.absolute == 0:
        return np.asarray(0.0)
    return nearest(fmt, (slack.relative * magnitude + slack.absolute) * (1 + 1e-6))


def _quotient(state: State, node: Node, result: Bounds, a: Vertex, b: Vertex, divisor: Bounds) -> Bounds:
    """a / b <= 1 where a <= b and b >= 0 (a slack adds to it); |a| / b likewise."""
    least = float(divisor.lo.min(initial=np.inf))
    magnitude = state.facts.magnitude_at_most(a, b)
    plain = state.facts.at_most(a, b) if magnitude is None else magnitude
    if plain is None:
        return result
    slack_at_least = plain.absolute / least if plain.absolute and least > 0 else (np.inf if plain.absolute else 0.0)
    most = 1.0 + (plain.relative + slack_at_least) * (1 + 1e-6) if plain.relative or plain.absolute else 1.0
    most = float(nearest(node.format, np.nextafter(most, np.inf))) if most > 1 else most
    limit = make(-most if magnitude is not None else -np.inf, np.inf if divisor.may_zero.any() else most, nan=True)
    if magnitude is not None and divisor.may_zero.any():
        limit = make(-np.inf, np.inf, nan=True)
    return meet(result, limit, node.format)

