"""Branch and prune on one element: split the numbers that meet in it into boxes until each box decides.

All elements of a cone's root are treated alike, so a leaf is one interval however large its tensor is. Splitting a leaf's interval
makes conditions decide: in each box `where` takes one branch, and the other one's infinity is gone. A condition between computed
values is split itself, into the inputs for which it holds and the others; what it says goes back to what it compares (`revise`).
Splitting also brings back what intervals forget when a value occurs twice (p and 1 - p). All boxes go through the cone in one NumPy pass.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from whynan.analysis.boxes import Box, count, cut, joined, mapped, narrow, point, split, take
from whynan.analysis.cones import Cone, critical
from whynan.analysis.relations import Relations
from whynan.analysis.revise import Revised, Revision
from whynan.analysis.slack import Slack
from whynan.analysis.view import Vertex, View, align
from whynan.domain.interval import COUNTED, Bounds, join_axes, make
from whynan.ir.dtype import BOOL, INT64, ordinal

PARTS = 16  # into how many boxes one box is split at a time
MAX_ROUNDS = 40
MOST_POINTS = 64  # open boxes whose end points are looked at
MOST_STEPS = 3  # between the whole numbers that a value may be rounded to
MAX_TRIED = 4  # leaves that compete for the next split
FEW = 256  # elements of a box that cost no more than one: beyond that a box counts for more


@dataclass(frozen=True, slots=True)
class OpenRange:
    """Where a leaf's value lies in the boxes left open: between `low` and `high`, on that share of its own range."""

    low: float
    high: float
    share: float


@dataclass(frozen=True, slots=True, eq=False)
class Pruned:
    """What splitting found: bounds of the root over all boxes, whether they are good, how many boxes in how many passes.

    `work` is the number of boxes with those of many elements counted for more.

    `left` are the ranges of the leaves in a few boxes that are left open, `open` each leaf's range over all of them.
    """

    bounds: Bounds
    decided: bool
    boxes: int
    work: int
    passes: int
    left: tuple[dict[Vertex, tuple[float, float]], ...]
    open: Mapping[Vertex, OpenRange]


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
        self.revision = Revision(view, cone, facts.bounds)
        self.start = {v: self._leaf(facts, v) for v in cone.leaves}
        self.revision.learn(self._constrain(self.start))
        self.points = {v: critical(view, cone, v) for v in cone.leaves}
        self.variables = [v for v in cone.leaves if view.op(v) != "const" and self._splits(v)]
        self.fixed = {v for v in cone.leaves if v not in self.variables and view.op(v) == "const" and _single(self.start[v])}
        elements = np.broadcast_shapes(*(b.lo.shape for b in self.start.values()))
        self.weight = max(1, prod(elements) // FEW)  # of one box
        self.spent = self.passes = 0
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
        """Split the leaves; where that ends, the whole numbers that a value may be rounded to."""
        return self._finish(self._at_steps(self._split(budget)))

    def _split(self, budget: int) -> Box | None:
        """Cut at conditions and critical values first, then bisect the variable that helps most; the boxes that are left open."""
        open_box = self._keep(self._evaluate(self.start))
        for v in (*self.revision.decisions, *self.variables):
            if open_box is None or self.spent > budget or self._hopeless(open_box):
                return open_box
            open_box = self._keep(self._evaluate(self._cut(open_box, v)))
        for _ in range(MAX_ROUNDS):
            if open_box is None or self.spent > budget or self._hopeless(open_box):
                break
            candidates = [v for v in self.variables if bool((open_box[v].lo < open_box[v].hi).any())]
            if not candidates:
                break
            tried = [self._evaluate(split(open_box, v, self.formats[v], self._parts(open_box))) for v in self._best(open_box, candidates)]
            open_box = self._keep(min(tried, key=lambda t: int(self._open(t.root).sum())))
        return open_box

    def _at_steps(self, box: Box | None) -> Box | None:
        """The boxes left open, cut where a value is rounded to one of a few whole numbers: that may be open even at a point."""
        for v in self.revision.steps:
            if box is None or count(box) > MOST_POINTS:
                break
            b = self._evaluate(box).values[v]
            lo, hi = float(b.lo.min()), float(b.hi.max())
            if 0 < hi - lo <= MOST_STEPS and abs(lo) < COUNTED and not b.may_nan.any():
                whole = make(np.full((1,) * (self.rank + 1), lo), np.full((1,) * (self.rank + 1), hi), fraction=False)
                box = self._keep(self._evaluate(cut({**box, v: whole}, v, [lo + k for k in range(int(hi - lo) + 1)], INT64)))
        return box

    def _cut(self, box: Box, v: Vertex) -> Box:
        """The boxes cut at a leaf's critical values, or into those where a condition holds and the others."""
        if v in self.points:
            return cut(box, v, self.points[v], self.formats[v])
        one = (1,) * (self.rank + 1)
        return cut({**box, v: make(np.zeros(one), np.ones(one), neg_zero=False, fraction=False)}, v, [0.0, 1.0], BOOL)

    def _hopeless(self, box: Box) -> bool:
        """Whether single points of the open boxes are undecided themselves: then no splitting of the leaves decides."""
        few = {v: mapped(b, lambda a: a[:MOST_POINTS]) if b.lo.shape[0] > MOST_POINTS else b for v, b in box.items()}
        n, fmt = count(few), self.formats
        moving = {v: b for v, b in few.items() if v not in self.fixed or b is not self.start[v]} or few
        ends = [{v: point(b, getattr(b, end), fmt[v]) if v in fmt else b for v, b in moving.items()} for end in ("lo", "hi")]
        both = {**few, **{v: joined([mapped(e[v], lambda a: np.broadcast_to(a, (n, *a.shape[1:]))) for e in ends]) for v in moving}}
        found = self._evaluate(both, back=False)
        bad = self._open(found.root)
        for v in self.revision.decisions:  # the inaccuracy of a library may leave a condition undecided even there
            b = found.values[v]
            bad = bad & (b.lo >= b.hi).reshape(b.lo.shape[0], -1).all(axis=1)
        return bool(bad.any())

    def _parts(self, box: Box) -> int:
        return PARTS if count(box) <= 64 else 4

    def _best(self, box: Box, candidates: list[Vertex]) -> list[Vertex]:
        """The widest few, measured in representable values."""

        def width(v: Vertex) -> float:
            lo, hi = (ordinal(self.formats[v], np.where(box[v].empty, 0.0, end)) for end in (box[v].lo, box[v].hi))
            return float(np.max(hi.astype(np.float64) - lo))

        return sorted(candidates, key=lambda v: (-width(v), v))[:MAX_TRIED]

    def _evaluate(self, box: Box, back: bool = True) -> Revised:
        self.spent += count(box) * self.weight
        self.passes += 1
        return self.revision.evaluate(self._constrain(box), back)

    def _constrain(self, box: Box) -> Box:
        """Use a <= b and |a| <= b between leaves to narrow both; where one is NaN nothing follows for the other."""
        if not self.order:
            return box
        box = dict(box)
        for a, b, slack, absolute in self.order:
            most = np.where(box[b].may_nan, np.inf, ceiling(box[b], slack))
            lowest = np.where(box[a].may_nan, -np.inf, least(box[a], slack, absolute))
            low = np.maximum(box[a].lo, -most) if absolute else box[a].lo
            box[a], box[b] = (
                self._narrowed(a, box[a], low, np.minimum(box[a].hi, most)),
                self._narrowed(b, box[b], np.maximum(box[b].lo, lowest), box[b].hi),
            )
        return box

    def _narrowed(self, v: Vertex, b: Bounds, lo: np.ndarray, hi: np.ndarray) -> Bounds:
        """The bounds with these ends; the same object if they are the same, so that nothing is computed anew."""
        same = lo.shape == hi.shape == b.lo.shape and bool((lo == b.lo).all()) and bool((hi == b.hi).all())
        return b if same else narrow(b, lo, hi, self.formats[v])

    def _open(self, result: Bounds) -> np.ndarray:
        bad = self.undecided(result)
        return np.asarray(bad.reshape(bad.shape[0], -1).any(axis=1))

    def _keep(self, found: Revised) -> Box | None:
        """Set the decided boxes aside, drop the impossible ones; what is left stays open."""
        n = max(count(found.box), found.root.lo.shape[0])
        result = mapped(found.root, lambda a: np.broadcast_to(a, (n, *a.shape[1:])))
        impossible = np.broadcast_to(found.dead.reshape(found.dead.shape[0], -1).all(axis=1), (n,))
        still = self._open(result) & ~impossible
        settled = ~still & ~impossible
        if settled.any():
            self.done.append(join_axes(take(result, settled), (0,)))
        if not still.any():
            self.last = None
            return None
        self.last = join_axes(take(result, still), (0,))
        return {v: take(b, still) if b.lo.shape[0] > 1 else b for v, b in found.box.items()}

    def _finish(self, open_box: Box | None) -> Pruned:
        parts = list(self.done)
        left: tuple[dict[Vertex, tuple[float, float]], ...] = ()
        ranges: dict[Vertex, OpenRange] = {}
        if open_box is not None and self.last is not None:
            parts.append(self.last)
            left = _ranges(open_box, self.variables)
            ranges = {v: _open_range(open_box[v], self.start[v]) for v in self.variables}
        shape = np.broadcast_shapes(*(p.lo.shape for p in parts)) if parts else (1,) * (self.rank + 1)
        if parts:
            lo = np.min([np.broadcast_to(p.lo, shape) for p in parts], axis=0)
            hi = np.max([np.broadcast_to(p.hi, shape) for p in parts], axis=0)
            flags = np.bitwise_or.reduce([np.broadcast_to(p.flags, shape) for p in parts], axis=0)
            hull = Bounds(lo[0], hi[0], flags[0])
        else:  # no box is possible: the root is never computed
            hull = make(np.full(shape[1:], np.inf), np.full(shape[1:], -np.inf))
        return Pruned(hull, open_box is None, self.spent // self.weight, self.spent, self.passes, left, ranges)


def _single(b: Bounds) -> bool:
    """Whether the bounds hold one number and nothing else, in each element."""
    return bool((b.lo == b.hi).all()) and not bool(b.may_nan.any())


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


def ceiling(b: Bounds, slack: Slack) -> np.ndarray:
    """The largest that a can be, given a <= b up to slack."""
    if slack.relative == 0 and slack.absolute == 0:
        return b.hi
    with np.errstate(all="ignore"):
        most = np.nextafter(b.hi + np.abs(b.hi) * slack.relative + slack.absolute, np.inf)
        if slack.positive < np.inf:
            most = np.where((b.lo > 0) & ~b.empty, np.minimum(most, np.nextafter(b.hi * (1 + slack.positive), np.inf)), most)
    return np.asarray(most)


def least(a: Bounds, slack: Slack, absolute: bool) -> np.ndarray:
    """The least that b must be, given a <= b * (1 + relative) + absolute (or |a| for `absolute`)."""
    lowest = np.maximum(0.0, np.maximum(a.lo, -a.hi)) if absolute else a.lo
    if slack.relative == 0 and slack.absolute == 0:
        return np.where(a.empty, -np.inf, lowest)
    with np.errstate(all="ignore"):
        shrunk = np.nextafter((lowest - slack.absolute) / (1 + slack.relative), -np.inf)
    return np.where(a.empty | (lowest <= 0), -np.inf, shrunk)


def _ranges(box: Box, variables: list[Vertex], most: int = 8) -> tuple[dict[Vertex, tuple[float, float]], ...]:
    """The leaves' ranges in a few open boxes, from the first to the last, as a hint to the search."""
    out = []
    for k in np.unique(np.linspace(0, count(box) - 1, most).astype(int)):
        one = {}
        for v in variables:
            b = box[v]
            row = k if b.lo.shape[0] > 1 else 0
            one[v] = (float(b.lo[row].min()), float(b.hi[row].max()))
        out.append(one)
    return tuple(out)


def _open_range(b: Bounds, whole: Bounds) -> OpenRange:
    """The range of a leaf in all open boxes, and the share of its whole range that they cover."""
    lo, hi = b.lo.min(axis=tuple(range(1, b.lo.ndim))), b.hi.max(axis=tuple(range(1, b.hi.ndim)))
    lo, hi = lo[lo <= hi], hi[lo <= hi]
    if not lo.size:
        return OpenRange(np.nan, np.nan, 0.0)
    order = np.argsort(lo)
    lo, hi = lo[order], np.maximum.accumulate(hi[order])
    before = np.concatenate([[-np.inf], hi[:-1]])
    ends = whole.lo.min(), whole.hi.max()
    with np.errstate(all="ignore"):
        width = ends[1] / 2 - ends[0] / 2  # the whole width may overflow
        covered = np.nansum(np.maximum(hi / 2 - np.maximum(lo, before) / 2, 0.0))
        share = covered / width if 0 < width < np.inf else float((lo[0], hi[-1]) == ends)
    return OpenRange(float(lo[0]), float(hi[-1]), min(float(share), 1.0))
