"""Cones: the part of the graph that is computed element by element above a root, from a set of leaves."""

from dataclasses import dataclass

import numpy as np

from whynan.analysis.view import Vertex, View
from whynan.ir.dtype import nearest

MAX_VERTICES = 96
MAX_LEAVES = 12
MOST_NARROW = 3


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
