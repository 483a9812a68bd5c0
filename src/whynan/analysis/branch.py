"""Branch and prune on one element: split the numbers that meet in it into boxes until each box decides.

A *cone* is the part of the graph that is computed element by element from a set of leaves (inputs, reductions, matrix products…).
All elements of the root are treated alike, so a leaf is one interval however large its tensor is. Splitting a leaf's interval
makes conditions decide: in each box `where` takes one branch, and the other one's infinity is gone. It also brings back what
intervals forget when a value occurs twice (p and 1 - p). All boxes go through the cone in one NumPy pass.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from whynan.analysis.relations import Relations, Slack
from whynan.analysis.view import Vertex, View, align
from whynan.domain.interval import NAN, Bounds, entering, join_axes, make, normalised, without_nan
from whynan.ir.dtype import Format, from_ordinal, nearest, ordinal
from whynan.ops._opdef import bound

PARTS = 16  # into how many boxes one box is split at a time
MAX_VERTICES = 96
MAX_LEAVES = 12
MOST_NARROW = 3
MAX_ROUNDS = 40
COUNTED = 2.0**53  # beyond it a float64 bound does not name each whole number
MOST_POINTS = 64  # open boxes whose end points are looked at
MAX_TRIED = 4  # leaves that compete for the next split

Box = dict[Vertex, Bounds]


@dataclass(frozen=True, slots=True, eq=False)
class Cone:
    """The elementwise part of the graph above a root: leaves, and inner vertices in order of computation."""

    root: Vertex
    leaves: tuple[Vertex, ...]
    inner: tuple[Vertex, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Pruned:
    """What splitting found: bounds of the root over all boxes, whether they are `good`, and the leaves' ranges left open."""

    bounds: Bounds
    decided: bool
    boxes: int
    left: tuple[dict[Vertex, tuple[float, float]], ...]


def cones_of(view: View, root: Vertex) -> list[Cone]:
    """Cones above a root, the most promising first: those with the fewest leaves that vary, then the largest within limits.

    Where all that is dangerous depends on one difference d = a - b, splitting d decides and splitting a and b does not; where the
    leaves' own relations matter, the larger cone sees them. Of several cones with the fewest leaves the largest few are tried:
    |d + c| <= norm(d + c) is a relation of d + c, not of d.
    """
    inner: set[Vertex] = set()
    frontier, leaves = {root}, set[Vertex]()
    narrow: list[Cone] = []  # those with the fewest leaves
    fewest = MAX_LEAVES + 1
    while frontier:
        v = max(frontier)
        frontier.discard(v)
        if not view.elementwise(v) or len(inner) >= MAX_VERTICES or (v != root and len(leaves) + len(frontier) >= MAX_LEAVES):
            leaves.add(v)
            continue
        inner.add(v)
        frontier |= {u for u in view.inputs(v) if u not in inner and u not in leaves}
        varying = sum(view.op(u) != "const" for u in leaves | frontier)
        if varying <= fewest:
            narrow = [*(narrow if varying == fewest else ()), _cone(root, leaves | frontier, inner)]
            fewest = varying
    whole = _cone(root, leaves, inner)
    kept = {_varying(view, whole): whole}
    for cone in reversed(narrow if fewest > 1 else narrow[-1:]):
        kept.setdefault(_varying(view, cone), cone)
    whole, *others = kept.values()
    return [*others[:MOST_NARROW], whole]


def _varying(view: View, cone: Cone) -> tuple[Vertex, ...]:
    """The leaves that vary."""
    return tuple(v for v in cone.leaves if view.op(v) != "const")


def _cone(root: Vertex, leaves: set[Vertex], inner: set[Vertex]) -> Cone:
    return Cone(root, tuple(sorted(leaves)), tuple(sorted(inner)))


def prune(
    view: View,
    facts: Relations,
    cone: Cone,
    undecided: Callable[[Bounds], np.ndarray],
    budget: int = 4096,
) -> Pruned:
    """Split the leaves until no box is undecided or `budget` boxes were evaluated.

    `undecided(bounds)` says, over the root's bounds with boxes along the first axis, which elements are not good enough.
    """
    search = _Search(view, facts, cone, undecided)
    return search.run(budget)


class _Search:
    """One branch-and-prune run: the open boxes, what is settled, and how much was spent."""

    def __init__(self, view: View, facts: Relations, cone: Cone, undecided: Callable[[Bounds], np.ndarray]) -> None:
        self.view, self.cone, self.undecided = view, cone, undecided
        self.rank = len(view.nodes[cone.root[0]].shape)
        self.formats = {v: view.nodes[v[0]].format for v in cone.leaves}
        self.order = _constraints(facts, cone.leaves)
        self.start = {v: self._leaf(facts, v) for v in cone.leaves}
        self.points = {v: _critical(view, cone, v) for v in cone.leaves}
        self.variables = [v for v in cone.leaves if view.op(v) != "const" and self._splits(v)]
        self.spent = 0
        self.done: list[Bounds] = []
        self.last: Bounds | None = None

    def _leaf(self, facts: Relations, v: Vertex) -> Bounds:
        known = facts.bounds[v[0]]
        assert known is not None  # leaves stand before the root
        laid = align(known, v[1], self.rank)
        return Bounds(laid.lo[None], laid.hi[None], laid.flags[None])

    def _splits(self, v: Vertex) -> bool:
        """Whether a leaf's interval can be split: it is wider than a point, and whole numbers in it are counted exactly."""
        b = self.start[v]
        return bool((b.lo < b.hi).any()) and (self.formats[v].is_float or bool((b.magnitude < COUNTED).all()))

    def run(self, budget: int) -> Pruned:
        """Cut at the critical values first, then bisect the variable that helps most."""
        open_box = self._keep(*self._evaluate(self.start))
        for v in self.variables:
            if open_box is None or self.spent > budget or self._hopeless(open_box):
                return self._finish(open_box)
            open_box = self._keep(*self._evaluate(_cut(open_box, v, self.points[v], self.formats[v])))
        for _ in range(MAX_ROUNDS):
            if open_box is None or self.spent > budget or self._hopeless(open_box):
                break
            candidates = [v for v in self.variables if bool((open_box[v].lo < open_box[v].hi).any())]
            if not candidates:
                break
            tried = [self._evaluate(_split(open_box, v, self.formats[v], self._parts(open_box))) for v in self._best(open_box, candidates)]
            box, result = min(tried, key=lambda t: int(self._open(t[1]).sum()))
            open_box = self._keep(box, result)
        return self._finish(open_box)

    def _hopeless(self, box: Box) -> bool:
        """Whether single points of the open boxes are undecided themselves: then no splitting of the leaves decides."""
        for end in ("lo", "hi"):
            points = {v: _map(b, lambda a: a[:MOST_POINTS]) for v, b in box.items()}
            points = {v: _point(b, getattr(b, end), self.formats[v]) for v, b in points.items()}
            narrowed, result = self._evaluate(points)
            possible = np.ones(_count(narrowed), bool)
            for b in narrowed.values():
                possible = possible & ~(b.empty & ~b.may_nan).reshape(b.lo.shape[0], -1).any(axis=1)
            if bool((self._open(result) & possible).any()):
                return True
        return False

    def _parts(self, box: Box) -> int:
        return PARTS if _count(box) <= 64 else 4

    def _best(self, box: Box, candidates: list[Vertex]) -> list[Vertex]:
        """The widest few, measured in representable values."""

        def width(v: Vertex) -> float:
            lo, hi = (ordinal(self.formats[v], np.where(box[v].empty, 0.0, end)) for end in (box[v].lo, box[v].hi))
            return float(np.max(hi.astype(np.float64) - lo))

        return sorted(candidates, key=lambda v: (-width(v), v))[:MAX_TRIED]

    def _evaluate(self, box: Box) -> tuple[Box, Bounds]:
        box = self._constrain(box)
        self.spent += _count(box)
        values: Box = {v: entering(b, self.formats[v]) for v, b in box.items()}
        for v in self.cone.inner:
            inputs = [values[u] for u in self.view.inputs(v)]
            values[v] = bound(self.view.calls[v[0]], inputs)
        return box, values[self.cone.root]

    def _constrain(self, box: Box) -> Box:
        """Use a <= b and |a| <= b between leaves to narrow both; where one is NaN nothing follows for the other."""
        if not self.order:
            return box
        box = dict(box)
        for a, b, slack, absolute in self.order:
            ceiling = np.where(box[b].may_nan, np.inf, _ceiling(box[b], slack))
            least = np.where(box[a].may_nan, -np.inf, _least(box[a], slack, absolute))
            low = np.maximum(box[a].lo, -ceiling) if absolute else box[a].lo
            box[a], box[b] = (
                _narrow(box[a], low, np.minimum(box[a].hi, ceiling), self.formats[a]),
                _narrow(box[b], np.maximum(box[b].lo, least), box[b].hi, self.formats[b]),
            )
        return box

    def _open(self, result: Bounds) -> np.ndarray:
        bad = self.undecided(result)
        return np.asarray(bad.reshape(bad.shape[0], -1).any(axis=1))

    def _keep(self, box: Box, result: Bounds) -> Box | None:
        """Set the decided boxes aside; what is left stays open."""
        count = _count(box)
        result = _map(result, lambda a: np.broadcast_to(a, (count, *a.shape[1:])))
        impossible = np.zeros(count, bool)
        for b in box.values():
            dead = (b.empty & ~b.may_nan).reshape(b.lo.shape[0], -1).all(axis=1)
            impossible = impossible | dead
        still = self._open(result) & ~impossible
        settled = ~still & ~impossible
        if settled.any():
            self.done.append(join_axes(_take(result, settled), (0,)))
        if not still.any():
            self.last = None
            return None
        self.last = join_axes(_take(result, still), (0,))
        return {v: _take(b, still) if b.lo.shape[0] > 1 else b for v, b in box.items()}

    def _finish(self, open_box: Box | None) -> Pruned:
        parts = list(self.done)
        left: tuple[dict[Vertex, tuple[float, float]], ...] = ()
        if open_box is not None and self.last is not None:
            parts.append(self.last)
            left = _ranges(open_box, self.variables)
        shape = np.broadcast_shapes(*(p.lo.shape for p in parts)) if parts else (1,) * (self.rank + 1)
        if parts:
            lo = np.min([np.broadcast_to(p.lo, shape) for p in parts], axis=0)
            hi = np.max([np.broadcast_to(p.hi, shape) for p in parts], axis=0)
            flags = np.bitwise_or.reduce([np.broadcast_to(p.flags, shape) for p in parts], axis=0)
            hull = Bounds(lo[0], hi[0], flags[0])
        else:  # no box is possible: the root is never computed
            hull = make(np.full(shape[1:], np.inf), np.full(shape[1:], -np.inf))
        return Pruned(hull, open_box is None, self.spent, left)


def _constraints(facts: Relations, leaves: Sequence[Vertex]) -> list[tuple[Vertex, Vertex, Slack, bool]]:
    """The proven relations between pairs of leaves: (a, b, slack, whether it is |a| that is at most b)."""
    out = []
    for a in leaves:
        for b in leaves:
            if a == b or facts.view.op(b) == "const":
                continue
            magnitude = facts.magnitude_at_most(a, b)
            plain = facts.at_most(a, b) if magnitude is None else None
            if magnitude is not None:
                out.append((a, b, magnitude, True))
            elif plain is not None:
                out.append((a, b, plain, False))
    return out


def _ceiling(b: Bounds, slack: Slack) -> np.ndarray:
    """The largest that a can be, given a <= b up to slack."""
    if slack.relative == 0 and slack.absolute == 0:
        return b.hi
    with np.errstate(all="ignore"):
        most = np.nextafter(b.hi + np.abs(b.hi) * slack.relative + slack.absolute, np.inf)
        if slack.positive < np.inf:
            most = np.where((b.lo > 0) & ~b.empty, np.minimum(most, np.nextafter(b.hi * (1 + slack.positive), np.inf)), most)
    return np.asarray(most)


def _point(b: Bounds, at: np.ndarray, fmt: Format) -> Bounds:
    """The bounds narrowed to one of their ends."""
    return _narrow(Bounds(b.lo, b.hi, b.flags & ~NAN), at, at, fmt)


def _least(a: Bounds, slack: Slack, absolute: bool) -> np.ndarray:
    """The least that b must be, given a <= b * (1 + relative) + absolute (or |a| for `absolute`)."""
    least = np.maximum(0.0, np.maximum(a.lo, -a.hi)) if absolute else a.lo
    if slack.relative == 0 and slack.absolute == 0:
        return np.where(a.empty, -np.inf, least)
    with np.errstate(all="ignore"):
        shrunk = np.nextafter((least - slack.absolute) / (1 + slack.relative), -np.inf)
    return np.where(a.empty | (least <= 0), -np.inf, shrunk)


def _narrow(b: Bounds, lo: np.ndarray, hi: np.ndarray, fmt: Format) -> Bounds:
    """The same with other ends; NaN and zero flags stay where they still apply. Ends of whole numbers are whole."""
    integral = b.integral
    if fmt.is_float and integral.any():
        lo, hi = np.where(integral, np.ceil(lo), lo), np.where(integral, np.floor(hi), hi)
    return normalised(lo, hi, b.flags, fmt)


def _count(box: Box) -> int:
    return max((b.lo.shape[0] for b in box.values()), default=1)


def _take(b: Bounds, where: np.ndarray) -> Bounds:
    if b.lo.shape[0] == 1 and where.shape[0] != 1:
        return b
    return Bounds(b.lo[where], b.hi[where], b.flags[where])


def _critical(view: View, cone: Cone, leaf: Vertex) -> list[float]:
    """Values of the leaf's own format at which something may change: zero, and the constants that the cone compares with.

    They must be values of that format, since `_cut` goes on at the next one: a constant may be of a wider format, or lie between
    whole numbers.
    """
    fmt = view.nodes[leaf[0]].format
    points = {0.0}
    if fmt.is_float:
        points |= {fmt.tiny, -fmt.tiny}
    for v in cone.inner:
        if leaf not in view.inputs(v):
            continue
        attrs = view.node(v).attrs
        points |= {float(attrs[k]) for k in ("low", "high") if isinstance(attrs.get(k), int | float)}
        for u in view.inputs(v):
            if view.op(u) == "const" and view.node(u).attrs["value"].size == 1:
                points.add(float(view.node(u).attrs["value"].reshape(-1)[0]))
    own = {float(nearest(fmt, p)) for p in points} if fmt.is_float else {p for p in points if p == np.floor(p)}
    return sorted(p for p in own if np.isfinite(p))


def _cut(box: Box, v: Vertex, points: list[float], fmt: Format) -> Box:
    """Split a leaf at given values: the values themselves and the open ranges between them become boxes."""
    b = box[v]
    pieces = []
    below: float | None = None
    for p in [*points, None]:
        lo = b.lo if below is None else np.maximum(b.lo, _after(fmt, below, 1))
        hi = b.hi if p is None else np.minimum(b.hi, _after(fmt, p, -1))
        pieces.append(_narrow(b, lo, hi, fmt))
        if p is not None:
            pieces.append(_narrow(b, np.maximum(b.lo, p), np.minimum(b.hi, p), fmt))
            below = p
    pieces = [without_nan(p) for p in pieces if not p.empty.all()]
    if b.may_nan.any():  # NaN is a box of its own
        pieces.append(make(np.full(b.shape, np.inf), np.full(b.shape, -np.inf), nan=b.may_nan))
    return _stack(box, v, Bounds(*(np.stack([getattr(p, field) for p in pieces]) for field in ("lo", "hi", "flags"))))


def _after(fmt: Format, p: float, step: int) -> float:
    if not fmt.is_float:
        return p + step
    return float(from_ordinal(fmt, ordinal(fmt, p) + step))


def _split(box: Box, v: Vertex, fmt: Format, parts: int) -> Box:
    """Split a leaf into parts with equally many representable values."""
    b = box[v]
    empty = b.empty
    first = ordinal(fmt, np.where(empty, 0.0, b.lo))
    last = ordinal(fmt, np.where(empty, 0.0, b.hi))
    step = last // parts - first // parts + (last % parts - first % parts) // parts  # the whole width may exceed an int64
    k = np.arange(parts).reshape(parts, *(1,) * b.lo.ndim)
    start = first + k * (step + 1)  # where the product overflows, the sum wraps back
    end = np.minimum(start + step, last)
    end[-1] = last
    void = empty | (start > end)
    lo, hi = np.where(void, np.inf, from_ordinal(fmt, start)), np.where(void, -np.inf, from_ordinal(fmt, end))
    flags = np.broadcast_to(b.flags, lo.shape).copy()
    flags[1:] &= ~NAN  # NaN is a box of its own: only the first part keeps the flag
    cut = _narrow(Bounds(lo, hi, flags), lo, hi, fmt)
    kept = (~cut.empty | cut.may_nan).reshape(parts, -1).any(axis=1)
    return _stack(box, v, Bounds(cut.lo[kept], cut.hi[kept], cut.flags[kept]))


def _stack(box: Box, v: Vertex, pieces: Bounds) -> Box:
    """One box per piece and old box; `pieces` has the pieces along a new first axis."""
    count, parts = _count(box), pieces.lo.shape[0]
    out: Box = {}
    for u, b in box.items():
        if u == v:
            out[u] = _map(pieces, lambda a: np.broadcast_to(a, (parts, count, *a.shape[2:])).reshape(-1, *a.shape[2:]))
        elif b.lo.shape[0] == 1:
            out[u] = b
        else:
            out[u] = _map(b, lambda a: np.broadcast_to(a, (parts, *a.shape)).reshape(-1, *a.shape[1:]))
    return out


def _map(b: Bounds, move: Callable[[np.ndarray], np.ndarray]) -> Bounds:
    return Bounds(move(b.lo), move(b.hi), move(b.flags))


def _ranges(box: Box, variables: list[Vertex], most: int = 8) -> tuple[dict[Vertex, tuple[float, float]], ...]:
    """The leaves' ranges in a few open boxes, from the first to the last, as a hint to the search."""
    out = []
    for k in np.unique(np.linspace(0, _count(box) - 1, most).astype(int)):
        one = {}
        for v in variables:
            b = box[v]
            row = k if b.lo.shape[0] > 1 else 0
            one[v] = (float(b.lo[row].min()), float(b.hi[row].max()))
        out.append(one)
    return tuple(out)
