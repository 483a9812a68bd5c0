"""How long rows are: the 2-norm of a value's elements along one axis, and what Cauchy-Schwarz says of products of such rows.

Rows divided by their own norm (or by no less) have length 1 up to rounding, so a product of two matrices of such rows lies between
-1 and 1: element by element, intervals only see as many as there are elements in a row.
"""

from dataclasses import dataclass
from math import hypot, inf, sqrt

from whynan.analysis.relations import Relations, summed_in
from whynan.analysis.view import Axes, Vertex
from whynan.domain.interval import Bounds, make
from whynan.ir.dtype import nearest
from whynan.ir.graph import Node

DEPTH = 8
SPARE = 4  # roundings beside those of the additions, in spacings: of the squares, a root, a number added, with as many again
MOST_TERMS_LOST = 0.1  # of a row's length that rounding may cost before nothing is said
_KEEPS = frozenset({"roll", "flip", "slice"})  # the same elements, or some of them, at other places
_SHRINKS = frozenset({"neg", "abs", "relu"})


@dataclass(frozen=True, slots=True)
class _Row:
    """One axis along which a row runs: its name among a vertex's axes, and how many elements it has."""

    name: int
    length: int


def length_bound(facts: Relations, node: Node) -> Bounds | None:
    """Bounds of a matrix product, of a sum of products, or of a norm along one axis, from the lengths of the rows; None for others."""
    found = _factors(facts, node)
    if found is None:
        return None
    (x, y), row, more = found
    most = _length(facts, x, row, DEPTH)
    limit = most if node.op == "norm" else most * (most if y == x else _length(facts, y, row, DEPTH))
    formats = [node.format, *(facts.view.node(v).format for v in (x, y, *more))]
    eps, tiny, largest = max(f.eps for f in formats), max(f.tiny for f in formats), min(f.max for f in formats)
    rounding = (row.length + SPARE) * eps  # twice what additions in any order lose
    lost = 4 * row.length * (sqrt(tiny) if node.op == "norm" else tiny)
    end = limit * (1 + rounding) + lost
    if not end < largest or rounding > MOST_TERMS_LOST or (node.op == "norm" and not most * max(most, 1.0) < largest / 4):
        return None  # a square, a product or a sum on the way may overflow
    # no product and no sum of some of them is larger than the limit: with finite factors none of them overflows
    overflows = node.op == "norm" or max(facts.size(x), facts.size(y)) == inf
    return make(*nearest(node.format, [-end, end]), nan=overflows)


def _factors(facts: Relations, node: Node) -> tuple[tuple[Vertex, Vertex], _Row, tuple[Vertex, ...]] | None:
    """The two values of which products are summed, the axis along which they are, and the products, if they are a value of their own."""
    view = facts.view
    if node.op == "matmul":
        a, b = (view.nodes[i] for i in node.inputs)
        if len(a.shape) < 2 or len(b.shape) < 2 or a.shape[-1] < 2:
            return None
        row = _Row(0, a.shape[-1])
        left, right = (_named(n.shape, d) for n, d in ((a, len(a.shape) - 1), (b, len(b.shape) - 2)))
        return (view.resolve(a.id, left), view.resolve(b.id, right)), row, ()
    if node.op not in ("sum", "norm") or not node.format.is_float:
        return None
    found = view.reduced(view.root(node.id), -2)
    if found is None or len(found[1]) != 1:
        return None
    inner, (name,) = found
    row = _Row(name, view.terms(view.root(node.id)))
    if node.op == "norm":
        return ((inner, inner), row, ()) if node.attrs["ord"] == 2 else None
    if view.op(inner) not in ("mul", "square") or "ulps" in view.node(inner).attrs:
        return None
    x, *rest = view.inputs(inner)
    return (x, rest[0] if rest else x), row, (inner,)


def _named(shape: tuple[int, ...], d: int) -> Axes:
    """Axes with the name 0 for one dimension, and names of their own for the others."""
    return tuple(0 if k == d else -2 - k if n > 1 else -1 for k, n in enumerate(shape))


def _length(facts: Relations, v: Vertex, row: _Row, depth: int) -> float:
    """An upper bound of the 2-norm along the row; inf if none is known."""
    size = max(abs(facts.low(v)), abs(facts.high(v)))
    plain = size * sqrt(row.length) * (1 + 1e-9)
    if depth == 0 or v[1].count(row.name) != 1 or "ulps" in facts.view.node(v).attrs:
        return plain
    found = _structural(facts, v, row, depth - 1)
    return min(plain, found) if found < facts.view.node(v).format.max / 2 else plain  # nothing that long was rounded to infinity


def _structural(facts: Relations, v: Vertex, row: _Row, depth: int) -> float:
    view, node = facts.view, facts.view.node(v)
    fmt, op = node.format, node.op
    lost = sqrt(row.length) * fmt.tiny
    if op in _SHRINKS:
        return _length(facts, view.inputs(v)[0], row, depth)
    if op in ("add", "sub"):
        return sum(_length(facts, x, row, depth) for x in view.inputs(v)) * (1 + 2 * fmt.eps) + lost
    if op == "div":
        x, t = view.inputs(v)
        own = min(_unit(facts, x, t, row), _stretched(facts, x, t, row))
        if own < inf:
            return own * (1 + 2 * fmt.eps) + lost
        least = facts.low(t)
        return _length(facts, x, row, depth) / least * (1 + 2 * fmt.eps) + lost if least >= fmt.tiny else inf
    if op == "mul":
        x, y = view.inputs(v)
        return min(_scaled(facts, x, y, row, depth), _scaled(facts, y, x, row, depth)) * (1 + 2 * fmt.eps) + lost
    if op == "where":
        return hypot(*(_length(facts, x, row, depth) for x in view.inputs(v)[1:])) * (1 + 1e-9)
    if op == "softmax" and v[1][node.attrs["dim"]] == row.name:
        return 1 + 2 * (row.length + 256) * fmt.eps  # no longer than the sum of its elements
    if op in _KEEPS or op == "concat":
        return _elsewhere(facts, v, row, depth)
    return inf


def _scaled(facts: Relations, x: Vertex, factor: Vertex, row: _Row, depth: int) -> float:
    """The length of x times a factor: of a factor that is 1 over the norm, or of any other one by its size."""
    if facts.view.op(factor) in ("rsqrt", "reciprocal"):
        own = _unit(facts, x, facts.view.inputs(factor)[0], row, squared=facts.view.op(factor) == "rsqrt")
        if own < inf:
            node = facts.view.node(factor)
            return own * (1 + (16 + 2 * int(node.attrs.get("ulps", 0))) * node.format.eps)
    if facts.view.op(factor) == "div":  # as XLA divides by what is the same along a row
        c, t = facts.view.inputs(factor)
        own = _unit(facts, x, t, row) * facts.size(c) if facts.view.op(c) == "const" else inf
        if own < inf:
            return own * (1 + (2 + 2 * int(facts.view.node(factor).attrs.get("ulps", 0))) * facts.view.node(factor).format.eps)
    size = max(abs(facts.low(factor)), abs(facts.high(factor)))
    own = _length(facts, x, row, depth)
    return own * size if own < inf and size < inf else inf


def _stretched(facts: Relations, v: Vertex, t: Vertex, row: _Row) -> float:
    """The length of (x s) / t where t is at least the norm of x: that of x / t, times the largest s."""
    node, least = facts.view.node(v), facts.low(t)
    if node.op != "mul" or "ulps" in node.attrs or not least > 0:
        return inf
    x, y = facts.view.inputs(v)
    ways = [(_unit(facts, a, t, row), facts.size(s)) for a, s in ((x, y), (y, x))]
    own = min((unit * size for unit, size in ways if max(unit, size) < inf), default=inf)
    return own * (1 + 2 * node.format.eps) + 2 * sqrt(row.length) * node.format.tiny / least


def _elsewhere(facts: Relations, v: Vertex, row: _Row, depth: int) -> float:
    """The length of rows whose elements were moved, or that are parts of others: the longest of those that they come from."""
    view, node = facts.view, facts.view.node(v)
    at = v[1].index(row.name)
    along = {d % len(node.shape) for d in ([node.attrs["dim"]] if "dim" in node.attrs else node.attrs["dims"])}
    if node.op != "roll" and node.op != "flip" and at in along:
        return inf
    axes = _named(node.shape, at)
    shapes = [view.nodes[i].shape for i in node.inputs]
    if any(len(s) != len(node.shape) or s[at] != node.shape[at] for s in shapes):
        return inf
    return max(
        _length(facts, view.resolve(i, tuple(a if n > 1 else -1 for a, n in zip(_wide(axes), s, strict=True))), _Row(0, row.length), depth)
        for i, s in zip(node.inputs, shapes, strict=True)
    )


def _wide(axes: Axes) -> Axes:
    """The axes with a name also for dimensions of one element: the value that the elements come from may have more there."""
    return tuple(-2 - k if a == -1 else a for k, a in enumerate(axes))


def _unit(facts: Relations, x: Vertex, divisor: Vertex, row: _Row, squared: bool = False) -> float:
    """The length of x / t (of x / sqrt(t), `squared`) where t is at least the norm (its square) of x along the row; else inf.

    Squares that underflow are lost to the norm: they count by the least that t can be.
    """
    least, way = facts.low(divisor), _norm_below(facts, x, divisor, row, squared, DEPTH)
    if way is None or row.name in divisor[1]:
        return inf
    formats = [facts.view.node(v).format for v in (x, divisor, *way)]
    eps, tiny = max(f.eps for f in formats), max(f.tiny for f in formats)
    lost = summed_in(facts.view.node(way[-1]).format).tiny if facts.view.op(way[-1]) == "norm" else tiny  # of its squares
    if not least >= tiny:
        return inf  # where subnormals are flushed the divisor may be zero
    least = sqrt(least) if squared else least
    rounding = (row.length + 2 * len(way) + SPARE) * eps / 2  # of the sum of squares and of what is made of it, at half a spacing each
    if rounding > MOST_TERMS_LOST:
        return inf
    return sqrt((1 + 2 * rounding) * (1 + 4 * row.length * (sqrt(lost) / least) ** 2)) * (1 + 1e-9)


def _norm_below(facts: Relations, x: Vertex, t: Vertex, row: _Row, squared: bool, depth: int) -> tuple[Vertex, ...] | None:
    """The vertices between t and the norm of x (the sum of its squares) where t is at least that; None if it is not known to be."""
    view, op = facts.view, facts.view.op(t)
    if depth == 0 or "ulps" in view.node(t).attrs:
        return None
    inner: list[tuple[Vertex, bool]] = []
    if op == "clamp" and view.node(t).attrs.get("high") is None:
        inner = [(view.inputs(t)[0], squared)]
    elif op == "maximum":
        inner = [(y, squared) for y in view.inputs(t)]
    elif op == "add":
        a, b = view.inputs(t)
        inner = [(y, squared) for y, other in ((a, b), (b, a)) if facts.low(other) >= 0]
    elif op == "sqrt" and not squared:
        inner = [(view.inputs(t)[0], True)]
    elif op in ("norm", "sum"):
        return _sum_of_squares(facts, x, t, row, squared)
    for y, s in inner:
        found = _norm_below(facts, x, y, row, s, depth - 1)
        if found is not None:
            return (t, *found)
    return None


def _sum_of_squares(facts: Relations, x: Vertex, t: Vertex, row: _Row, squared: bool) -> tuple[Vertex, ...] | None:
    """Whether t is the norm of x along the row, or (`squared`) the sum of its squares."""
    view = facts.view
    found = view.reduced(t, min([-1, *x[1], *t[1]]) - 1)
    if found is None or len(found[1]) != 1:
        return None
    if view.terms(t) != row.length:
        return None  # a number that is repeated looks the same along rows of any length
    (node, axes), (name,) = found
    inner = node, tuple(row.name if a == name else a for a in axes)
    if view.op(t) == "norm":
        return (t,) if view.node(t).attrs["ord"] == 2 and not squared and inner == x else None
    if not squared or not (view.op(inner) == "square" or (view.op(inner) == "mul" and len(set(view.inputs(inner))) == 1)):
        return None
    return (t, inner) if view.inputs(inner)[0] == x and "ulps" not in view.node(inner).attrs else None


def projection_bound(facts: Relations, node: Node) -> Bounds | None:
    """Bounds of (x . y) / t for a t of at least y . y, and of that times y: with u = y / sqrt(t), (x . u) / sqrt(t) and (x . u) u."""
    view = facts.view
    parts = view.inputs(view.root(node.id)) if view.elementwise(view.root(node.id)) else ()
    quotients: list[tuple[Vertex, Vertex | None]] = [(view.root(node.id), None)] if node.op == "div" else []
    if node.op == "mul":
        quotients += zip(parts, parts[::-1], strict=True)
    for q, again in quotients:
        if view.op(q) != "div" or "ulps" in view.node(q).attrs or "ulps" in node.attrs or not node.format.is_float:
            continue
        n, t = view.inputs(q)
        found = _factors(facts, view.node(n)) if n[1] == view.root(n[0])[1] and view.op(n) == "sum" else None
        if found is None:
            continue
        factors, row, more = found
        for x, y in (factors, factors[::-1]):
            if again is None or (again[0] == y[0] and _along_row(again, y, row, n)):
                end = _projected(facts, x, y, t, row, [node, *(view.node(v) for v in (n, q, *more))], again is not None)
                if end is not None:
                    return make(*nearest(node.format, [-end, end]), nan=True)
    return None


def _along_row(v: Vertex, y: Vertex, row: _Row, n: Vertex) -> bool:
    """Whether a vertex is y itself, at one place of the row that a sum n of its elements does not tell apart."""
    pairs = list(zip(v[1], y[1], strict=True))
    return all(a == b or (b == row.name and a >= 0 and a not in n[1]) for a, b in pairs) and sum(b == row.name for _, b in pairs) == 1


def _projected(facts: Relations, x: Vertex, y: Vertex, t: Vertex, row: _Row, nodes: list[Node], again: bool) -> float | None:
    """At most |x| |u| / sqrt(t), or |x| |u|^2, with all roundings and what underflows on the way; None if y's length is not below t's."""
    unit, length, least = _unit(facts, y, t, row, squared=True), _length(facts, x, row, DEPTH), facts.low(t)
    eps, tiny, largest = max(n.format.eps for n in nodes), max(n.format.tiny for n in nodes), min(n.format.max for n in nodes)
    rounding = (row.length + SPARE) * eps
    if not (unit < inf and least >= tiny and rounding < MOST_TERMS_LOST and max(facts.size(x), facts.size(y)) < inf):
        return None
    if not length * _length(facts, y, row, DEPTH) < largest / 4:
        return None  # a product or a sum on the way may overflow
    lost = 4 * row.length * tiny / least + tiny  # of the quotient
    end = length * unit * (1 + 2 * rounding)
    end = end * unit + lost * facts.size(y) + tiny if again else end / sqrt(least) + lost
    return end if end < largest / 4 else None
