"""Weights that add up to little: (sum w x)^2 <= (sum w) (sum w x^2), why a variance with softmax weights is not negative."""

from math import inf

from whynan.analysis.shares import mass
from whynan.analysis.view import Vertex, View, fresh
from whynan.analysis.windows import Below, squared_value
from whynan.domain.interval import Bounds
from whynan.ir.dtype import Format

MOST_ERROR = 0.01  # relative, of one sum


def square_of_weighted(view: View, bounds: list[Bounds | None], square: Vertex, q: Vertex) -> Below | None:
    """How far the computed `square` (m * m) of m = sum(w x) may exceed q = sum(w x^2) with the same weights w >= 0; None if unknown."""
    m = squared_value(view, bounds, square)
    return None if m is None else weighted_squared(view, bounds, m, q, view.node(square).format)


def weighted_squared(view: View, bounds: list[Bounds | None], m: Vertex, q: Vertex, fmt: Format) -> Below | None:
    """How far the square of m = sum(w x), rounded in that format, may exceed q = sum(w x^2).

    With S = sum w: |m| is at most sqrt(S q) but for the roundings of the products and the sum, relative to sum w |x| <= sqrt(S q).
    """
    if view.op(m) != "sum" or view.op(q) != "sum" or view.spans(m) != view.spans(q):
        return None
    base = fresh(m, q)
    one, two = view.reduced(m, base), view.reduced(q, base)
    if one is None or two is None or one[1] != two[1]:
        return None
    w = _weight(view, one[0], two[0])
    vertices = [m, q, one[0], two[0], *view.inputs(one[0]), *view.inputs(two[0])]
    known = [bounds[v[0]] for v in vertices]
    if w is None or any(b is None or b.nonfinite.any() for b in known) or any("ulps" in view.node(v).attrs for v in vertices if v != w):
        return None
    weights, lengths = bounds[w[0]], dict(zip(one[1], view.spans(m), strict=True))
    total, n = mass(view, bounds, w, lengths), view.terms(m)
    formats = [view.node(v).format for v in vertices if view.node(v).format.is_float]
    eps, tiny = max(f.eps for f in formats), max(f.tiny for f in formats)
    error = (n + 8) * eps
    if weights is None or bool((weights.lo < 0).any()) or not total < inf or error > MOST_ERROR:
        return None
    # a product that underflows loses up to tiny, of x^2 times a weight also that of x^2
    lost = 4 * (n + 1) * tiny * (1 + total)
    size = max(float(b.magnitude.max(initial=0.0)) for b in known if b is not None)
    return Below(total * (1 + error) ** 2 / (1 - error), (total + 2 * size + 1) * lost * 2 + lost**2).rounded(fmt)


def _weight(view: View, first: Vertex, second: Vertex) -> Vertex | None:
    """The w of which the two are w x and w x^2; None if they are not."""
    if view.op(first) != "mul" or view.op(second) != "mul":
        return None
    x, y = view.inputs(first)
    for w, v in ((x, y), (y, x)):
        for a, b in (view.inputs(second), view.inputs(second)[::-1]):
            squared = view.op(b) in ("square", "mul") and set(view.inputs(b)) == {v}
            if (a == w and squared) or (a == v and view.op(b) == "mul" and sorted(view.inputs(b)) == sorted((w, v))):
                return w
    return None
