"""Facts that intervals cannot see: a <= b, |a| <= b, a^2 <= b between two values, element by element.

A relation is proven by structure: a maximum is at least each of its terms, a sum of non-negative numbers at least each of them,
a norm at least each entry, and monotone operations carry a relation along. Rounding is monotone as well, so most relations hold
exactly in floating point; where they do not, the `Slack` says by how much: a <= b * (1 + relative) + absolute.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from whynan.analysis.cauchy import sum_of_products
from whynan.analysis.chains import in_order
from whynan.analysis.monotone import pairwise
from whynan.analysis.slack import EXACT, Slack
from whynan.analysis.view import Vertex, View, fresh
from whynan.analysis.weighted import square_of_weighted, weighted_squared
from whynan.analysis.windows import mean_squared, square_of_mean
from whynan.domain.interval import Bounds
from whynan.ir.dtype import BFLOAT16, FLOAT32, Format
from whynan.ops._curves import FLUSHED_ULPS

DEPTH = 8
MOST_SHARED = 4096  # elements of a mean of which one is compared with it


class Term(NamedTuple):
    """The left side: a vertex as it is ("id"), its absolute value ("abs") or its square ("square")."""

    kind: str
    vertex: Vertex


class Relations:
    """Answers questions about pairs of vertices, remembering what it found. `bounds` are those of all nodes so far."""

    def __init__(self, view: View, bounds: list[Bounds | None]) -> None:
        self.view = view
        self.bounds = bounds
        self._known: dict[tuple[Term, Vertex], Slack] = {}
        self._failed: dict[tuple[Term, Vertex], int] = {}  # the depth to which a search has failed

    def at_most(self, a: Vertex, b: Vertex) -> Slack | None:
        """The slack with which a <= b holds, or None if that is not known."""
        return self._prove(Term("id", a), b, DEPTH)

    def magnitude_at_most(self, a: Vertex, b: Vertex) -> Slack | None:
        """The slack with which |a| <= b holds, or None if that is not known."""
        return self._prove(Term("abs", a), b, DEPTH)

    def times_root(self, a: Vertex, r: Vertex) -> float:
        """A limit of |a r| where r is 1 / sqrt(s), or 1 / s, for an s of which that is known: inf for others."""
        op, eps = self.view.op(r), self.view.node(r).format.eps
        s = self.view.inputs(r)[0] if op in ("rsqrt", "reciprocal") else None
        if s is None or not self.low(s) >= self.view.node(r).format.tiny or not np.isfinite(self.high(s)):
            return np.inf
        if op == "reciprocal":
            slack, least = self.magnitude_at_most(a, s), self.low(s)
        else:
            slack, least = _below_root(self, a, s, self.view.node(r).format, DEPTH), float(np.sqrt(self.low(s)))
        error = eps * (FLUSHED_ULPS + 1 + int(self.view.node(r).attrs.get("ulps", 0)))
        return np.inf if slack is None else (1 + slack.relative + slack.absolute / least) * (1 + error) * (1 + 1e-6)

    def _prove(self, a: Term, b: Vertex, depth: int) -> Slack | None:
        key = (a, b)
        if key in self._known:
            return self._known[key]
        if self._failed.get(key, 0) >= depth:
            return None
        self._failed[key] = depth  # also ends the search where it meets itself
        found = self._search(a, b, depth)
        if found is not None:
            self._known[key] = found
        return found

    def _search(self, a: Term, b: Vertex, depth: int) -> Slack | None:
        for rule in (_same, _larger_right, _smaller_left, _pairwise, _reduction, _smallest, _roots, _in_order, _cauchy_schwarz, _windowed):
            found = rule(self, a, b, depth)
            if found is not None:
                return found
        return None

    # ------------------------------------------------------------ what is known about a vertex alone

    def low(self, v: Vertex) -> float:
        """A lower bound of all elements; -inf if NaN is possible."""
        b = self.bounds[v[0]]
        return -np.inf if b is None or b.may_nan.any() else float(b.lo.min(initial=np.inf))

    def high(self, v: Vertex) -> float:
        """An upper bound of all elements; inf if NaN is possible."""
        b = self.bounds[v[0]]
        return np.inf if b is None or b.may_nan.any() else float(b.hi.max(initial=-np.inf))

    def size(self, v: Vertex) -> float:
        """The largest magnitude of all elements; inf if NaN is possible."""
        return max(abs(self.low(v)), abs(self.high(v)))


def _same(facts: Relations, a: Term, b: Vertex, depth: int) -> Slack | None:
    """x <= x; |x| <= x and |x| <= |x|; x^2 <= x*x."""
    kind, v = a
    op = facts.view.op(b)
    if v == b and (kind == "id" or (kind == "abs" and facts.low(v) >= 0)):
        return EXACT
    if kind != "square" and op == "abs" and facts.view.inputs(b)[0] == v:
        return EXACT
    if kind == "square" and op == "square" and _even(facts, facts.view.inputs(b)[0]) == _even(facts, v):
        return EXACT
    if kind == "square" and op == "mul" and set(facts.view.inputs(b)) == {v}:
        return EXACT
    if facts.low(b) >= 0 and kind == "id" and facts.high(v) <= 0:
        return EXACT
    return None


def _even(facts: Relations, v: Vertex) -> Vertex:
    """The value without a sign that squaring forgets."""
    while facts.view.op(v) in ("neg", "abs"):
        v = facts.view.inputs(v)[0]
    return v


def _larger_right(facts: Relations, a: Term, b: Vertex, depth: int) -> Slack | None:
    """b is at least b' (a clamp from below, b' + something non-negative, a maximum): a <= b' suffices."""
    view, node = facts.view, facts.view.node(b)
    if (node.op == "clamp" and node.attrs.get("high") is None) or node.op == "relu":
        return _of_smaller(facts._prove(a, view.inputs(b)[0], depth - 1))
    if node.op == "maximum":
        return _of_smaller(_first(facts._prove(a, side, depth - 1) for side in view.inputs(b)))
    if node.op in ("add", "sub"):
        x, y = view.inputs(b)
        if (facts.low(y) >= 0) if node.op == "add" else (facts.high(y) <= 0):
            found = facts._prove(a, x, depth - 1)
            if found is not None:
                return _of_smaller(found)
        if node.op == "add" and facts.low(x) >= 0:
            return _of_smaller(facts._prove(a, y, depth - 1))
    if node.op == "mul" and "ulps" not in node.attrs:
        x, y = view.inputs(b)
        for factor, rest in ((x, y), (y, x)):
            if facts.low(factor) >= 1 and facts.low(rest) >= 0:
                return _of_smaller(facts._prove(a, rest, depth - 1))
            if a.kind == "square" and view.op(factor) == "const" and facts.low(factor) > 0 and facts.low(rest) >= 0:
                return _of_part(facts._prove(a, rest, depth - 1), facts.low(factor), node.format)
    return None


def _of_part(slack: Slack | None, share: float, fmt: Format) -> Slack | None:
    """The slack of a <= b as one of a <= s b, as computed, for a share s of b >= 0: by a factor 1 / s more."""
    if slack is None or share < 1 / MOST_SHARED:
        return None
    lost = (slack.absolute + 4 * fmt.tiny) / share  # s b may underflow
    return Slack(((1 + slack.relative) / share - 1) * (1 + 1e-9) + 4 * fmt.eps / share, lost)


def _of_smaller(slack: Slack | None) -> Slack | None:
    """The slack of a <= b' as one of a <= b for a larger b: that b is not 0 says nothing of b'."""
    return None if slack is None else Slack(slack.relative, slack.absolute)


def _smaller_left(facts: Relations, a: Term, b: Vertex, depth: int) -> Slack | None:
    """a is at most a' (a minimum, a product with a factor in [0, 1], a' minus something non-negative): a' <= b suffices."""
    view, (kind, v) = facts.view, a
    if not view.elementwise(v) or "ulps" in view.node(v).attrs:  # a kernel that is not correctly rounded
        return None
    op = view.op(v)
    if kind in ("abs", "square"):
        if op in ("neg", "abs"):
            return facts._prove(Term(kind, view.inputs(v)[0]), b, depth - 1)
        if op == "mul":
            x, y = view.inputs(v)
            return _first(
                facts._prove(Term(kind, rest), b, depth - 1)
                for factor, rest in ((x, y), (y, x))
                # squares are compared as rounded in one format: `_roots` takes its slack from the outer one
                if facts.low(factor) >= -1 and facts.high(factor) <= 1 and (kind == "abs" or view.node(rest).format is view.node(v).format)
            )
        return None
    if op == "minimum":
        return _first(facts._prove(Term("id", side), b, depth - 1) for side in view.inputs(v))
    if op == "clamp" and view.node(v).attrs.get("low") is None:
        return facts._prove(Term("id", view.inputs(v)[0]), b, depth - 1)
    if op == "sub" and facts.low(view.inputs(v)[1]) >= 0:
        return facts._prove(Term("id", view.inputs(v)[0]), b, depth - 1)
    if op == "add":
        x, y = view.inputs(v)
        return _first(facts._prove(Term("id", rest), b, depth - 1) for other, rest in ((x, y), (y, x)) if facts.high(other) <= 0)
    if op == "mul":
        x, y = view.inputs(v)
        return _first(
            facts._prove(Term("id", rest), b, depth - 1)
            for factor, rest in ((x, y), (y, x))
            if facts.low(factor) >= 0 and facts.high(factor) <= 1 and facts.low(rest) >= 0
        )
    return None


def _pairwise(facts: Relations, a: Term, b: Vertex, depth: int) -> Slack | None:
    """The same monotone operation on both sides."""
    if a.kind != "id":
        return None
    return pairwise(facts.view, facts.size, lambda x, y: facts._prove(Term("id", x), y, depth - 1), a.vertex, b)


def _reduction(facts: Relations, a: Term, b: Vertex, depth: int) -> Slack | None:
    """b reduces something at least a: a maximum, a sum of non-negative terms, log-sum-exp, a norm."""
    view, node = facts.view, facts.view.node(b)
    if node.op == "sum" and a.kind == "id" and view.op(a.vertex) == "sum":
        found = _sums(facts, a.vertex, b, depth)
        if found is not None:
            return found
    inner = _element(view, a.vertex, b)
    if inner is None:
        return None
    if (node.op == "amax" and a.kind != "square") or (node.op == "sum" and facts.low(inner) >= 0):
        return facts._prove(a, inner, depth - 1)
    if node.op == "mean" and a.kind == "square" and facts.low(inner) >= 0:
        n = view.terms(b)
        below = facts._prove(a, inner, depth - 1)
        rounding = (n + 2) * node.format.eps
        share = (1 - rounding) / n if n else 0.0
        return _of_part(below, share, node.format) if rounding < 0.1 else None
    if node.op == "logsumexp" and a.kind == "id":
        # computed as log(sum(exp(x - max))) + max with a sum of at least 1: rounding keeps it at or above max
        return facts._prove(a, inner, depth - 1)
    if node.op == "norm" and a.kind != "square" and node.attrs["ord"] >= 1:
        below = EXACT if _even(facts, a.vertex) == _even(facts, inner) else facts._prove(Term("abs", a.vertex), inner, depth - 1)
        if below is None:
            return None
        slack = _norm_slack(node.format, summed_in(node.format), node.attrs["ord"])
        return slack if below == EXACT else below + slack
    return None


def _smallest(facts: Relations, a: Term, b: Vertex, depth: int) -> Slack | None:
    """a is the minimum of something at most b, or of something at most what b is the maximum of along the same axes."""
    view, (kind, v) = facts.view, a
    if kind != "id" or view.op(v) != "amin":
        return None
    if view.op(b) == "amax":
        base = fresh(v, b)
        left, right = view.reduced(v, base), view.reduced(b, base)
        if left is not None and right is not None and left[1] == right[1]:
            found = facts._prove(Term("id", left[0]), right[0], depth - 1)
            if found is not None:
                return _of_smaller(found)
    inner = _element(view, b, v)
    return None if inner is None else facts._prove(Term("id", inner), b, depth - 1)


def _element(view: View, a: Vertex, b: Vertex) -> Vertex | None:
    """What b reduces, at the place along the reduced axes at which a stands; None if a does not run along them."""
    found = view.reduced(b, base=fresh(a, b))
    if found is None:
        return None
    (node, axes), names = found
    free = [x for x in a[1] if x != -1 and x not in axes]
    if len(free) != len(names):
        return None
    place = dict(zip(names, free, strict=True))
    if any(view.length((node, axes), name) != view.length(a, axis) for name, axis in place.items()):
        return None
    return node, tuple(place.get(x, x) for x in axes)


def _sums(facts: Relations, a: Vertex, b: Vertex, depth: int) -> Slack | None:
    """sum(x) <= sum(y) over the same axes where x <= y: exact up to the order in which the terms are added."""
    base = fresh(a, b)
    left, right = facts.view.reduced(a, base), facts.view.reduced(b, base)
    if left is None or right is None or left[1] != right[1] or facts.low(left[0]) < 0 or facts.high(a) == np.inf:
        return None  # where only one of two sums overflows, the terms say nothing
    if facts.view.spans(a) != facts.view.spans(b):
        return None  # a number that is repeated looks the same however often
    below = facts._prove(Term("id", left[0]), right[0], depth - 1)
    terms = facts.view.terms(b)
    nodes = [facts.view.node(v) for v in (a, b)]
    error = terms * max(n.format.eps for n in nodes)
    # products that one of the two adds before they are rounded; alone each may round up to the smallest number
    lost = 2 * terms * max(n.format.tiny for n in nodes) if any(n.attrs.get("contracted") for n in nodes) else 0.0
    return None if below is None or error > 0.25 else below + Slack(2 * error, lost)


def summed_in(fmt: Format) -> Format:
    """The format in which a norm adds up powers: float32 for half precision."""
    return FLOAT32 if fmt.max < FLOAT32.max or fmt is BFLOAT16 else fmt


def _norm_slack(fmt: Format, inner: Format, order: float = 2.0) -> Slack:
    """Rounding in sum(|x|^p) and its root, and entries whose powers underflow in the format `inner` in which they are added.

    A square that underflows errs by at most half the smallest number s (by all of `tiny` if subnormals are flushed), while a
    norm that is not 0 is the root of at least s (`tiny`): then |x| <= norm * sqrt(2) even so. For other powers p the power
    function errs by a few ulps, of which the root leaves a factor below 5, and 1/p is itself rounded.
    """
    if order in (1.0, np.inf):
        return Slack(16 * fmt.eps)
    absolute = 4 * float(inner.tiny ** (1 / order))
    return Slack(16 * fmt.eps, absolute, 0.5) if order == 2 else Slack((16 + float(np.log(fmt.max))) * fmt.eps, absolute, 4.0)


def _roots(facts: Relations, a: Term, b: Vertex, depth: int) -> Slack | None:
    """|a| <= sqrt(s) where a^2 <= s."""
    if facts.view.op(b) != "sqrt" or a.kind == "square":
        return None
    return _below_root(facts, a.vertex, facts.view.inputs(b)[0], facts.view.node(b).format, depth)


def _below_root(facts: Relations, a: Vertex, s: Vertex, fmt: Format, depth: int) -> Slack | None:
    """|a| <= sqrt(s), for a root computed in that format."""
    below = facts._prove(Term("square", a), s, depth - 1)
    formats = (fmt, facts.view.node(a).format)  # the square is rounded in one that lies between the two
    slack = _norm_slack(max(formats, key=lambda f: f.eps), max(formats, key=lambda f: f.tiny))
    if below is None or below == EXACT:
        return None if below is None else slack
    relative = float(np.sqrt(1 + below.relative)) * (1 + 1e-12) - 1
    return Slack(relative, float(np.sqrt(below.absolute)) * (1 + 1e-12)) + slack  # sqrt(s + t) is up to sqrt(s) + sqrt(t)


def _in_order(facts: Relations, a: Term, b: Vertex, depth: int) -> Slack | None:
    """Two slices of one row that rises or falls."""
    return in_order(facts.view, facts.bounds, a.vertex, b, facts.size) if a.kind == "id" else None


def _cauchy_schwarz(facts: Relations, a: Term, b: Vertex, depth: int) -> Slack | None:
    """|sum(x y)| <= sqrt(sum(x^2) sum(y^2)), and the same of means."""
    return None if a.kind == "square" else sum_of_products(facts, a.vertex, b)


def _windowed(facts: Relations, a: Term, b: Vertex, depth: int) -> Slack | None:
    """E[x]^2 <= E[x^2] for weighted means: convolutions, pools, means, and sums with weights that are shares."""
    view, bounds, (kind, v) = facts.view, facts.bounds, a
    if kind == "id":
        found = square_of_mean(view, bounds, v, b) or square_of_weighted(view, bounds, v, b)
    else:
        fmt = view.node(v).format
        found = (mean_squared(view, bounds, v, b, fmt) or weighted_squared(view, bounds, v, b, fmt)) if kind == "square" else None
    return None if found is None or found.factor > 2 else Slack(max(found.factor - 1, 0.0), found.lost)


def _first(attempts: Iterable[Slack | None]) -> Slack | None:
    """The first proof of several attempts."""
    return next((slack for slack in attempts if slack is not None), None)
