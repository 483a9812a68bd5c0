"""Sums of a function of one number and a list of fixed ones, piece by piece: the weights of soft bins, kernels about fixed centres.

However far x is from each single centre, it is near one of them: the sum of exp(-(x - c)^2 / w) over the centres is never small. Element by
element no interval shows that; on a narrow piece of the range of x it does.
"""

from collections.abc import Sequence
from math import prod

import numpy as np

from whynan.analysis.view import Vertex, View
from whynan.domain.interval import Bounds, apply, collapse, join, make, of_array
from whynan.ir.dtype import Format, nearest
from whynan.ir.graph import Node
from whynan.ops._opdef import bound

MOST_INNER = 24  # operations between x and the sum
MOST_POINTS = 512  # elements of one sum
PIECES = (4, 256)  # for each fixed number, and at most


def binned(view: View, bounds: Sequence[Bounds | None], node: Node) -> Bounds | None:
    """The bounds of such a sum over the whole range of x; None for other nodes."""
    if node.op != "sum" or not node.format.is_float:
        return None
    shape = view.nodes[node.inputs[0]].shape
    dims = {d % len(shape) for d in node.attrs["dims"]}
    points = prod(shape[d] for d in dims)
    found = view.reduced(view.root(node.id), -2) if 1 < points <= MOST_POINTS else None
    cone = None if found is None else _cone(view, found[0], found[1])
    if found is None or cone is None:
        return None
    x, inner = cone
    whole = bounds[x[0]]
    if whole is None or whole.nonfinite.any() or not view.node(x).format.is_float:
        return None
    pieces = _pieces(collapse(whole, 0), view.node(x).format, min(PIECES[0] * points, PIECES[1]))
    axes = (*range(len(node.shape)), *found[1])
    values = _evaluated(view, inner, x, pieces, axes)
    named = [axes.index(-2 - d) if d in dims and n > 1 else d for d, n in enumerate(shape)]
    parts = (apply(values, lambda a, k=k: _row(a, k, named, len(axes))) for k in range(pieces.lo.size))
    results = [bound(view.calls[node.id], [part]) for part in parts]
    return join(*results)


def _cone(view: View, top: Vertex, names: Sequence[int]) -> tuple[Vertex, list[Vertex]] | None:
    """The one value that varies above a summed element, the same for all elements of the sum, and the operations below it, in order."""
    inner: set[Vertex] = set()
    leaves: set[Vertex] = set()
    stack = [top]
    while stack:
        v = stack.pop()
        if any(v[1].count(a) > 1 for a in v[1] if a != -1):
            return None
        if not view.elementwise(v):
            leaves.add(v)
        elif v not in inner:
            inner.add(v)
            stack += view.inputs(v)
        if len(inner) > MOST_INNER:
            return None
    varying = [v for v in leaves if view.op(v) != "const"]
    fixed = [v for v in leaves if view.op(v) == "const"]
    if len(varying) != 1 or set(varying[0][1]) & set(names) or not any(set(v[1]) & set(names) for v in fixed):
        return None
    return varying[0], sorted(inner)


def _pieces(x: Bounds, fmt: Format, count: int) -> Bounds:
    """The range of x, cut into boxes. Neighbours share an end, so that no number lies between them."""
    lo, hi = float(x.lo), float(x.hi)
    edges = np.unique([lo, *np.clip(nearest(fmt, np.linspace(lo, hi, count + 1)), lo, hi), hi])
    return make(edges[:-1], edges[1:]) if len(edges) > 1 else make(edges, edges)


def _evaluated(view: View, inner: Sequence[Vertex], x: Vertex, pieces: Bounds, axes: Sequence[int]) -> Bounds:
    """The summed elements on each piece: boxes in front, then the axes in order."""
    values: dict[Vertex, Bounds] = {x: apply(pieces, lambda a: a.reshape(-1, *(1,) * len(axes)))}
    for v in inner:
        operands = [values[u] if u in values else _laid(of_array(view.node(u).attrs["value"]), u, axes) for u in view.inputs(v)]
        values[v] = bound(view.calls[v[0]], operands)
    return values[inner[-1]]


def _laid(b: Bounds, v: Vertex, axes: Sequence[int]) -> Bounds:
    """A constant's elements along the axes, without boxes."""
    places = {axes.index(a): d for d, a in enumerate(v[1]) if a != -1}
    order = [*(places[k] for k in sorted(places)), *(d for d, a in enumerate(v[1]) if a == -1)]
    shape = [b.shape[places[k]] if k in places else 1 for k in range(len(axes))]
    return apply(b, lambda a: a.transpose(order).reshape(shape))


def _row(a: np.ndarray, k: int, named: Sequence[int], rank: int) -> np.ndarray:
    """The elements on one piece, in the order of the summed value's own axes."""
    one = a[k] if a.shape[0] > 1 else a[0]
    order = [*named, *(d for d in range(rank) if d not in named)]
    return np.asarray(one.transpose(order).reshape([one.shape[d] for d in named]))
