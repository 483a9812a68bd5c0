"""Cauchy and Schwarz: |sum(x y)| <= sqrt(sum(x^2) sum(y^2)), also of means, and for what is at least the right side."""

from typing import Protocol

import numpy as np

from whynan.analysis.slack import Slack
from whynan.analysis.view import Vertex, View, fresh


class Facts(Protocol):
    """What is known of single values."""

    view: View

    def low(self, v: Vertex) -> float:
        """A lower bound of all elements."""

    def size(self, v: Vertex) -> float:
        """The largest magnitude of all elements."""


def sum_of_products(facts: Facts, v: Vertex, b: Vertex) -> Slack | None:
    """The slack of |sum(x y)| <= b: the rounding of the three sums, and squares that underflow; None where b is not known to be that."""
    view = facts.view
    if view.op(v) not in ("sum", "mean"):
        return None
    base = fresh(v, b)
    found = view.reduced(v, base)
    if found is None or view.op(found[0]) not in ("mul", "square"):
        return None
    factors = view.inputs(found[0]) * (1 if view.op(found[0]) == "mul" else 2)
    way = _way_to_sizes(facts, b)
    squares = [_squared(view, size, view.op(v), base, found[1], view.spans(v)) for size in way[-2:]]
    if sorted(factor for square in squares if square for factor in square[:1]) != sorted(factors):
        return None
    if facts.size(v) == np.inf:
        return None  # where the sum overflows and the root does not, the exact values say nothing
    terms = view.terms(v)
    formats = [view.node(x).format for x in (v, b, found[0], *way, *(square[1] for square in squares if square))]
    eps, tiny = max(f.eps for f in formats), max(f.tiny for f in formats)
    largest = max(facts.size(x) for x in factors)
    lost = 4 * (terms * largest + 1) * float(np.sqrt(tiny))
    return Slack((4 * terms + 32) * eps, lost) if np.isfinite(largest) and terms * eps < 0.01 else None


def _way_to_sizes(facts: Facts, b: Vertex) -> list[Vertex]:
    """From b to two sums of squares: b is the root of their product, or the product of their roots (of norms), or more than that.

    The vertices on the way, the two sums (norms) last; nothing if b is none of these.
    """
    view = facts.view
    way = _parts_below(facts, b)
    if view.op(way[-1]) == "mul":
        roots = [_under_root(facts, _parts_below(facts, x)) for x in view.inputs(way[-1])]
    else:
        way = [] if view.op(way[-1]) == "norm" else _under_root(facts, way)
        factors = view.inputs(way[-1]) if way and view.op(way[-1]) == "mul" else ()
        roots = [_parts_below(facts, x) for x in factors]
        roots = [] if any(view.op(root[-1]) == "norm" for root in roots) else roots
    if len(roots) != 2 or not all(roots):
        return []
    return [*way, *(x for root in roots for x in root[:-1]), *(root[-1] for root in roots)]


def _under_root(facts: Facts, way: list[Vertex]) -> list[Vertex]:
    """On from a root to what it is the root of; a norm is a root itself."""
    if facts.view.op(way[-1]) == "norm":
        return way
    inner = _radicand(facts.view, way[-1])
    return [] if inner is None else [*way, *_parts_below(facts, inner)]


def _parts_below(facts: Facts, v: Vertex) -> list[Vertex]:
    """A value, and values that it is at least, each in the one before: what a number that is not negative was added to, or a clamp saw."""
    view, out = facts.view, [v]
    while True:
        op, inputs = view.op(v), view.inputs(v) if view.elementwise(v) else ()
        if op == "add":
            able = [x for x, y in (inputs, inputs[::-1]) if facts.low(y) >= 0 and view.op(x) != "const"]
        elif op == "maximum":
            able = [x for x in inputs if view.op(x) != "const"]
        else:
            able = list(inputs) if op == "clamp" and view.node(v).attrs.get("high") is None else []
        if not able:
            return out
        v = able[0]
        out.append(v)


def _radicand(view: View, v: Vertex) -> Vertex | None:
    """What v is the square root of; not a norm, which is a root itself."""
    inner = view.inputs(v)[0] if view.op(v) == "sqrt" else None
    return None if inner is None or view.op(inner) == "norm" else inner


def _squared(
    view: View, size: Vertex, reduction: str, base: int, names: tuple[int, ...], spans: tuple[int, ...]
) -> tuple[Vertex, Vertex] | None:
    """The value whose squares are summed (or whose norm is taken) along the named axes of those lengths, and its square (the norm)."""
    found = view.reduced(size, base)
    if found is None or found[1] != names or view.spans(size) != spans:
        return None
    if view.op(size) == "norm":
        return (found[0], size) if view.node(size).attrs["ord"] == 2 and reduction == "sum" else None
    if view.op(size) != reduction:
        return None
    inner = found[0]
    if view.op(inner) == "square":
        return view.inputs(inner)[0], inner
    x = view.inputs(inner)
    return (x[0], inner) if view.op(inner) == "mul" and x[0] == x[1] else None
