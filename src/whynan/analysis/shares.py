"""Shares: what x / sum(x) is for x >= 0. Each is at most 1 in all, so at most one share is above a half, and one is at most the mean."""

from collections.abc import Mapping
from math import inf, prod

from whynan.analysis.masks import Dims
from whynan.analysis.view import Vertex, View
from whynan.domain.interval import Bounds, make
from whynan.ir.graph import Node

DEPTH = 6  # operations between a sum and the shares in it
_FOLLOWED = frozenset({"softmax", "mul", "div", "neg"})


def whole_of(view: View, bounds: list[Bounds | None], node: Node) -> tuple[Dims, int] | None:
    """The axes of the rows of which a quotient's elements are the shares, and how many elements a row has; None for other nodes.

    The sum is of the very elements that are divided by it, each counted once, none below zero or beyond the format, and it is not 0. One
    that takes in products before they are rounded is of others: where they underflow, by any factor.
    """
    if node.op != "div":
        return None
    x, divisor = view.inputs(view.root(node.id))
    part, total = bounds[x[0]], bounds[divisor[0]]
    if view.op(divisor) != "sum" or view.node(divisor).attrs.get("contracted") or part is None or total is None:
        return None
    if part.nonfinite.any() or total.nonfinite.any():
        return None
    if bool((part.lo < 0).any()) or bool((total.lo <= 0).any()):
        return None
    dims = _summed(view, x, divisor)
    return None if dims is None else (frozenset(d - len(node.shape) for d in dims), prod(node.shape[d] for d in dims))


def _summed(view: View, x: Vertex, divisor: Vertex) -> list[int] | None:
    """Along which of the root's axes the divisor sums x; None if it sums something else."""
    found = view.reduced(divisor, base=min([-1, *x[1], *divisor[1]]) - 1)
    if found is None:
        return None
    (inner, axes), names = found
    if inner != x[0] or len(axes) != len(x[1]) or not names or any(axes.count(name) != 1 for name in names):
        return None
    if any(a != b for a, b in zip(axes, x[1], strict=True) if a not in names):
        return None
    along = [b for a, b in zip(axes, x[1], strict=True) if a in names]
    return along if min(along) >= 0 and len(set(along)) == len(along) else None


def slack(node: Node, n: int) -> float:
    """By how much, relatively, a share of n as computed may be above the exact one: the sum has n roundings, and the quotient one."""
    return 4 * (n + 4) * node.format.eps


def few_large(view: View, bounds: list[Bounds | None], node: Node, least: float) -> list[tuple[Dims, Bounds, int]]:
    """What so many elements of each row of shares are at most, and at least `least`: all but one a half, one the mean."""
    found = whole_of(view, bounds, node)
    if found is None or (room := slack(node, found[1])) >= 0.25:
        return []
    dims, n = found
    return [(dims, make(least, share * (1 + room)), count) for share, count in ((0.5, n - 1), (1 / n, 1)) if count]


def sum_of_shares(view: View, bounds: list[Bounds | None], node: Node) -> Bounds | None:
    """The sum of shares, each times something: at most the largest factor (Hoelder's inequality); of one whole row 1, or nearly so."""
    found = view.reduced(view.root(node.id), -2) if node.op == "sum" and node.format.is_float else None
    if found is None or not found[1] or view.op(found[0]) not in _FOLLOWED:
        return None
    vertex, names = found
    lengths = dict(zip(names, view.spans(view.root(node.id)), strict=True))
    most, room = mass(view, bounds, vertex, lengths), slack(node, prod(lengths.values()))
    if not most < node.format.max / 2 or room >= 0.25:
        return None
    row = _row(view, bounds, vertex[0])
    along = {vertex[1].index(name) - len(vertex[1]) for name in names if vertex[1].count(name) == 1}
    sure = row is not None and along == row[0] and len(along) == len(names)
    least = 1 - row[1] - room if row is not None and sure else -most * (1 + room)
    return make(least, most * (1 + room), nan=True)


def mass(view: View, bounds: list[Bounds | None], v: Vertex, lengths: Mapping[int, int], depth: int = DEPTH) -> float:
    """A limit of the sum of |v|, as computed, over running axes of these lengths (by name); inf if v may not be finite."""
    b, node = bounds[v[0]], view.node(v)
    if b is None or b.nonfinite.any():
        return inf
    # a product that the sum takes in before it is rounded may be larger than its own bounds by that rounding
    plain = prod(lengths.values()) * (_size(b) * (1 + 2 * node.format.eps) + node.format.tiny)
    if depth == 0 or node.op not in _FOLLOWED or "ulps" in node.attrs:
        return plain
    if node.op == "neg":
        return mass(view, bounds, view.inputs(v)[0], lengths, depth - 1)
    row = _row(view, bounds, v[0])
    if row is not None:
        others = [n for name, n in lengths.items() if name not in v[1] or v[1].index(name) - len(v[1]) not in row[0]]
        return min(plain, prod(others) * (1 + row[1])) if all(v[1].count(name) <= 1 for name in lengths) else plain
    if node.op not in ("mul", "div"):
        return plain
    x, y = view.inputs(v)
    ways = [(x, y)] if node.op == "div" else [(x, y), (y, x)]
    found = min(mass(view, bounds, part, lengths, depth - 1) * _factor(bounds[other[0]], node.op) for part, other in ways)
    return min(plain, found * (1 + 2 * node.format.eps) + prod(lengths.values()) * node.format.tiny)


def _factor(b: Bounds | None, op: str) -> float:
    """By what a product or a quotient makes the other number larger, at most."""
    if b is None or b.nonfinite.any():
        return inf
    least = max(float(b.lo.min(initial=inf)), -float(b.hi.max(initial=-inf)))
    return _size(b) if op == "mul" else 1 / least if least > 0 else inf


def _size(b: Bounds) -> float:
    return float(b.magnitude.max(initial=0.0))


def _row(view: View, bounds: list[Bounds | None], i: int) -> tuple[Dims, float] | None:
    """The axes along which a node's elements are shares, and by how much more than 1 they may come to."""
    node = view.nodes[i]
    if node.op == "softmax":
        d = node.attrs["dim"] % len(node.shape)
        dims, room = frozenset({d - len(node.shape)}), 2 * (node.shape[d] + 256) * node.format.eps
    elif (found := whole_of(view, bounds, node)) is not None:
        dims, room = found[0], 2 * slack(node, found[1])
    else:
        return None
    return (dims, room) if room < 0.25 else None
