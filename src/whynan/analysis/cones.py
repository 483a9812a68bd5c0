"""Cones: the part of the graph that is computed element by element above a root, from a set of leaves."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from whynan.analysis.view import Vertex, View
from whynan.ir.dtype import nearest

MAX_VERTICES = 96
MAX_LEAVES = 12
MOST_NARROW = 3
_COMPARISONS = frozenset({"lt", "le", "gt", "ge"})


@dataclass(frozen=True, slots=True, eq=False)
class Cone:
    """The elementwise part of the graph above a root: leaves, and inner vertices in order of computation."""

    root: Vertex
    leaves: tuple[Vertex, ...]
    inner: tuple[Vertex, ...]


def cones_of(view: View, root: Vertex) -> list[Cone]:
    """Cones above a root, the most promising first: those with the fewest leaves that vary, then the largest within limits.

    Where all that is dangerous depends on one difference d = a - b, splitting d decides and splitting a and b does not; where the
    leaves' own relations matter, the larger cone sees them. Of several cones with the fewest leaves the largest few are tried:
    |d + c| <= norm(d + c) is a relation of d + c, not of d. A quotient may be in danger by its divisor alone, whatever is divided, and
    a guard may be about a value in the middle.
    """
    *narrow, whole = _grown(view, root, frozenset())
    kept = {_varying(view, cone): cone for cone in (whole, *narrow)}
    closed = _guarded(view, whole) | _divided(view, root)
    if closed:
        about = _grown(view, root, closed)[-1]
        kept.setdefault(_varying(view, about), about)
    whole, *others = kept.values()
    return [*others, whole]


def _guarded(view: View, cone: Cone) -> frozenset[Vertex]:
    """What conditions in a cone compare with numbers: the value that a guard is about."""
    found = set()
    for v in cone.inner:
        for u in view.inputs(v) if view.op(v) in _COMPARISONS else ():
            while view.op(u) in ("abs", "neg"):
                u = view.inputs(u)[0]
            found |= {u} if view.op(u) != "const" else set()
    return frozenset(found)


def _divided(view: View, root: Vertex) -> frozenset[Vertex]:
    """What a quotient divides: its danger is the divisor."""
    return frozenset(view.inputs(root)[:1]) - frozenset(view.inputs(root)[1:]) if view.op(root) == "div" else frozenset()


def _grown(view: View, root: Vertex, closed: frozenset[Vertex]) -> list[Cone]:
    """The cones with the fewest leaves that vary, the largest first, and last the largest of all; what is `closed` stays a leaf."""
    inner: set[Vertex] = set()
    frontier, leaves = {root}, set[Vertex]()
    narrow: list[Cone] = []
    fewest = MAX_LEAVES + 1
    while frontier:
        able = {v for v in frontier if v not in closed and view.elementwise(v)} if len(inner) < MAX_VERTICES else set()
        leaves |= frontier - able
        next_ones = able
        if inner and _count(view, leaves | frontier) >= MAX_LEAVES:  # only on to what makes them no more; others wait
            next_ones = {v for v in able if _count(view, set(view.inputs(v)) - inner - leaves - frontier) <= 1}
        if not next_ones:
            leaves |= able
            break
        frontier = able
        v = max(next_ones)
        inner.add(v)
        frontier = (able - {v}) | {u for u in view.inputs(v) if u not in inner and u not in leaves}
        varying = _count(view, leaves | frontier)
        if varying <= fewest:
            narrow = [*(narrow if varying == fewest else ()), _cone(root, leaves | frontier, inner)]
            fewest = varying
    few: dict[tuple[Vertex, ...], Cone] = {}
    for cone in reversed(narrow if fewest > 1 else narrow[-1:]):
        few.setdefault(_varying(view, cone), cone)
    return [*list(few.values())[:MOST_NARROW], _cone(root, leaves, inner)]


def _count(view: View, vertices: Iterable[Vertex]) -> int:
    """How many of them vary."""
    return sum(view.op(u) != "const" for u in vertices)


def _varying(view: View, cone: Cone) -> tuple[Vertex, ...]:
    """The leaves that vary."""
    return tuple(v for v in cone.leaves if view.op(v) != "const")


def _cone(root: Vertex, leaves: set[Vertex], inner: set[Vertex]) -> Cone:
    return Cone(root, tuple(sorted(leaves)), tuple(sorted(inner)))


def critical(view: View, cone: Cone, leaf: Vertex) -> list[float]:
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
    own = set(nearest(fmt, sorted(points)).tolist()) if fmt.is_float else {p for p in points if p == np.floor(p)}
    return sorted(p for p in own if np.isfinite(p))
