"""Quotients that undo a product: (x y) / y is x again, but for rounding."""

from math import inf

import numpy as np

from whynan.analysis.view import Vertex, View, align
from whynan.domain.interval import Bounds, make
from whynan.ir.graph import Node

ROUNDINGS = 4  # relative errors of a product and a quotient, with room for terms of second order and for ones that are rounded twice


def cancelled(view: View, bounds: list[Bounds | None], node: Node) -> Bounds | None:
    """What x lies between, as computed, where the node is (x y) / y or (x y) / -y; None where it is not, or where the product may overflow.

    The product is x y (1 + d) + e with an e that underflow leaves; so the quotient is x (1 + d) + e / y, rounded once more.
    """
    product, divisor = view.inputs(view.root(node.id))
    (product, left), (divisor, right) = view.unsigned(product), view.unsigned(divisor)
    y, whole = bounds[divisor[0]], bounds[product[0]]
    if view.op(product) != "mul" or y is None or whole is None or whole.nonfinite.any() or y.nonfinite.any():
        return None
    least = max(float(y.lo.min(initial=inf)), -float(y.hi.max(initial=-inf)))
    factors = [view.unsigned(v) for v in view.inputs(product)]
    others = [(v, s * t) for (u, t), (v, s) in (factors, factors[::-1]) if u == divisor]
    if not others or least < node.format.tiny:
        return None
    x, sign = others[0]
    return _rounded(view, bounds, node, view.node(product), x, sign * left * right, least)


def _rounded(view: View, bounds: list[Bounds | None], node: Node, product: Node, x: Vertex, sign: int, least: float) -> Bounds | None:
    b, formats = bounds[x[0]], (node.format, product.format)
    if b is None or b.nonfinite.any():
        return None
    relative = sum(f.eps * (ROUNDINGS + int(n.attrs.get("ulps", 0))) for f, n in zip(formats, (node, product), strict=True))
    lost = max(f.tiny for f in formats) * 4
    with np.errstate(over="ignore"):  # near the largest number of float64 an end is infinite
        room = b.magnitude * relative + lost / least + lost
        lo, hi = (b.lo - room, b.hi + room) if sign > 0 else (-b.hi - room, room - b.lo)
    return align(make(lo, hi, nan=True), x[1], len(node.shape))
