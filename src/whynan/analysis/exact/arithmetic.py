"""Elements of sums, products, quotients, maxima and reductions: exact values, and what each rounding adds to the error.

Each rule takes the elements, the vertex and its node, and gives the value, or None where the element cannot be followed.
"""

from fractions import Fraction
from math import isfinite, prod

import numpy as np

from whynan.analysis.exact.atoms import TINY
from whynan.analysis.exact.elements import FIRST, MOST_SUMMED, Elements, Value, lost, negated
from whynan.analysis.exact.poly import ONE, Poly, constant, plus, rational, rest, scaled, times, total
from whynan.analysis.view import Vertex
from whynan.ir.dtype import Format
from whynan.ir.graph import Node

MOST_MULTIPLIED = 8  # elements of one product
MOST_CARRIED = 64  # terms of an error that is multiplied out
LIBRARY = 9  # units in the last place by which functions may err, with the final rounding


def unit_of(node: Node) -> float:
    """The relative error of one rounded operation of the node, with a kernel's own error."""
    half = 0.51 if node.format.numpy.itemsize == 2 else 0.5  # half precision is rounded to float32 first
    return node.format.eps * (half + int(node.attrs.get("ulps", 0))) + TINY if node.format.is_float else 0.0


def add_up(elements: Elements, parts: list[Value], unit: float, under: float) -> Value:
    """A sum whose rounding adds up to `unit` times the sum of magnitudes."""
    poly = total(p.poly for p in parts)
    if all(elements.atoms.range(p.poly)[0] >= 0 for p in parts):
        worst = max(p.relative for p in parts)
        spread = scaled(total(p.absolute for p in parts), 1 + unit)
        return Value(poly, worst + unit * (1 + worst), plus(spread, constant(under)))
    sizes, errors = total(elements.majorant(p.poly) for p in parts), total(elements.whole_error(p) for p in parts)
    rounding = plus(constant(unit * sum(elements.error(p) for p in parts) + under), sizes, rational(unit))
    return Value(poly, 0.0, plus(errors, rounding))


def multiply(elements: Elements, x: Value, y: Value, unit: float, under: float) -> Value | None:
    """A product, rounded by `unit` (relative) and `under` (absolute)."""
    poly = elements.product(x.poly, y.poly)
    if poly is None:
        return None
    relative = (1 + x.relative) * (1 + y.relative) * (1 + unit) - 1 + TINY
    absolute = constant(under + 2 * elements.absolute(x) * elements.absolute(y))
    for one, other in ((x, y), (y, x)):
        if one.absolute:
            part = _carried(elements, one.absolute, other.poly)
            absolute = plus(absolute, part, rational((1 + other.relative) * (1 + unit)))
    return Value(poly, relative, absolute)


def _carried(elements: Elements, error: Poly, factor: Poly) -> Poly:
    """At least an error times |factor|."""
    size = elements.majorant(factor)
    return times(error, size) if len(error) * len(size) <= MOST_CARRIED else scaled(error, elements.atoms.magnitude(factor))


def of_add(elements: Elements, vertex: Vertex, node: Node) -> Value | None:
    """A sum or a difference."""
    parts = elements.inputs(vertex)
    if parts is None:
        return None
    if node.op == "sub":
        parts[1] = negated(parts[1])
    if all(elements.atoms.range(p.poly)[0] >= 0 for p in parts) and any(p.relative for p in parts):
        return add_up(elements, parts, unit_of(node), flushed_sum(node))
    # one rounding, of the result itself
    poly, errors = total(p.poly for p in parts), total(elements.whole_error(p) for p in parts)
    size, unit = elements.size(vertex), unit_of(node)
    sizes = [elements.majorant(poly), total(elements.majorant(p.poly) for p in parts)]
    small = [s for s in sizes if s.get(ONE, 0) <= size / 4 and len(s) <= MOST_CARRIED]
    if not small:
        return Value(poly, 0.0, plus(errors, constant(unit * size + flushed_sum(node))))
    more = constant(unit * sum(elements.error(p) for p in parts) + flushed_sum(node))
    return Value(poly, 0.0, total([errors, more, scaled(small[0], unit)]))


def flushed_sum(node: Node) -> float:
    """Sums do not underflow unless subnormals are flushed."""
    return 2 * node.format.tiny if node.format.flush else 0.0


def of_neg(elements: Elements, vertex: Vertex, node: Node) -> Value | None:
    """The negative: exact."""
    parts = elements.inputs(vertex)
    return None if parts is None else negated(parts[0])


def of_cast(elements: Elements, vertex: Vertex, node: Node) -> Value | None:
    """The same number in another format, with one rounding."""
    source = elements.view.nodes[node.inputs[0]].format
    parts = elements.inputs(vertex)
    if parts is None or not (source.is_float and node.format.is_float):
        return None
    unit, x = unit_of(node), parts[0]
    return Value(x.poly, x.relative + unit * (1 + x.relative), plus(scaled(x.absolute, 1 + unit), constant(lost(node.format))))


def of_mul(elements: Elements, vertex: Vertex, node: Node) -> Value | None:
    """A product or a square."""
    parts = elements.inputs(vertex)
    return None if parts is None else multiply(elements, parts[0], parts[-1], unit_of(node), lost(node.format))


def of_fma(elements: Elements, vertex: Vertex, node: Node) -> Value | None:
    """a b + c, rounded once or twice."""
    parts = elements.inputs(vertex)
    if parts is None:
        return None
    product = multiply(elements, parts[0], parts[1], unit_of(node), lost(node.format))
    return None if product is None else add_up(elements, [product, parts[2]], unit_of(node), flushed_sum(node))


def of_either(elements: Elements, vertex: Vertex, node: Node) -> Value | None:
    """Ways that come to the same in exact arithmetic."""
    parts = elements.inputs(vertex)
    if parts is None or any(p.poly != parts[0].poly for p in parts):
        return None
    relative = max(p.relative for p in parts)
    if all(p.absolute == parts[0].absolute for p in parts):
        return Value(parts[0].poly, relative, parts[0].absolute)
    return Value(parts[0].poly, relative, constant(max(elements.absolute(p) for p in parts)))


def of_pow(elements: Elements, vertex: Vertex, node: Node) -> Value | None:
    """A square or a cube written as a power."""
    parts = elements.inputs(vertex)
    exponent = None if parts is None else parts[1].poly.get(ONE)
    if parts is None or exponent not in (2, 3) or rest(parts[1].poly)[0] or elements.error(parts[1]):
        return None
    unit = LIBRARY * node.format.eps
    square = multiply(elements, parts[0], parts[0], unit, lost(node.format))
    return square if exponent == 2 or square is None else multiply(elements, square, parts[0], 0.0, lost(node.format))


def of_div(elements: Elements, vertex: Vertex, node: Node) -> Value | None:
    """A quotient by something away from zero, or a reciprocal."""
    if node.op == "reciprocal":
        parts: list[Value] | None = [Value(constant(1)), *(elements.inputs(vertex) or [])]
    else:
        parts = elements.inputs(vertex)
    if parts is None or len(parts) != 2:
        return None
    x, y = parts
    lo, hi = elements.atoms.range(y.poly)
    least = min(abs(lo), abs(hi)) if lo > 0 or hi < 0 else 0.0
    inverse = elements.atoms.reciprocal(y.poly) if least else None
    if inverse is None or (off := y.relative + elements.absolute(y) / least) >= 0.5:
        return None
    part = Value(inverse.poly, off / (1 - off) + inverse.relative * 2)
    return multiply(elements, x, part, unit_of(node), lost(node.format))


def of_largest(elements: Elements, vertex: Vertex, node: Node) -> Value | None:
    """Maxima and minima of several elements, |x| and clamps: no rounding, and errors at most the largest of the operands'."""
    parts: list[Value] | None
    sign = -1 if node.op in ("amin", "minimum") else 1
    if node.op in ("amax", "amin"):
        parts = elements.reduced(vertex, node)
    else:
        parts = elements.inputs(vertex)
        if parts is not None and node.op in ("abs", "relu"):
            other = negated(parts[0]) if node.op == "abs" else Value(constant(0))
            parts = [parts[0], other]
    if not parts:
        return None
    found = elements.atoms.largest([scaled(p.poly, sign) for p in parts])
    return None if found is None else Value(scaled(found, sign), 0.0, constant(max(elements.error(p) for p in parts)))


def of_clamp(elements: Elements, vertex: Vertex, node: Node) -> Value | None:
    """A maximum and a minimum with numbers."""
    parts = elements.inputs(vertex)
    if parts is None or len(parts) != 1:
        return None
    poly: Poly | None = parts[0].poly
    for name, sign in (("low", 1), ("high", -1)):
        limit = node.attrs.get(name)
        if limit is not None and poly is not None:
            if not isinstance(limit, int | float) or not isfinite(limit):
                return None
            found = elements.atoms.largest([scaled(poly, sign), constant(sign * _as_read(limit, node.format))])
            poly = None if found is None else scaled(found, sign)
    return None if poly is None else Value(poly, 0.0, constant(elements.error(parts[0])))


def _as_read(limit: float, fmt: Format) -> float:
    """A limit in its format; zero where it is a subnormal that is flushed."""
    rounded = float(np.asarray(limit, fmt.numpy))
    return 0.0 if fmt.flush and abs(rounded) < fmt.tiny else rounded


def of_sum(elements: Elements, vertex: Vertex, node: Node) -> Value | None:
    """A sum or a mean over axes."""
    parts = elements.reduced(vertex, node)
    if parts is None or not node.format.is_float:
        return None
    n = len(parts)
    value = add_up(elements, parts, (n + 1) * unit_of(node), n * lost(node.format))  # products may be fused into the sum
    if node.op == "sum":
        return value
    unit = 2 * unit_of(node)
    relative = (1 + value.relative) * (1 + unit) - 1 if value.relative else 0.0
    size = 0.0 if value.relative else elements.atoms.magnitude(value.poly) + elements.absolute(value)
    absolute = plus(scaled(value.absolute, Fraction(1 + unit) / n), constant(unit * size / n + lost(node.format)))
    return Value(scaled(value.poly, Fraction(1, n)), relative, absolute)


def of_prod(elements: Elements, vertex: Vertex, node: Node) -> Value | None:
    """The product of a few elements."""
    parts = elements.reduced(vertex, node)
    return None if parts is None or len(parts) > MOST_MULTIPLIED else _multiplied(elements, parts, node)


def of_cumprod(elements: Elements, vertex: Vertex, node: Node) -> Value | None:
    """The product up to an index, of a few elements."""
    place = vertex[1][node.attrs["dim"]] - FIRST
    parts = elements.row(vertex, node) if 0 <= place < MOST_MULTIPLIED and set(node.attrs) == {"dim"} else None
    return None if parts is None else _multiplied(elements, parts[: place + 1], node)


def _multiplied(elements: Elements, parts: list[Value], node: Node) -> Value | None:
    """The product of elements in any order."""
    value: Value | None = parts[0]
    for p in parts[1:]:
        value = None if value is None else multiply(elements, value, p, unit_of(node), lost(node.format))
    if value is None:
        return None
    # in another order, what underflows is multiplied by other factors
    most = prod(max(1.0, elements.atoms.magnitude(p.poly) + elements.error(p)) for p in parts)
    return Value(value.poly, value.relative, plus(value.absolute, constant(2 * len(parts) * lost(node.format) * most)))


def of_cumsum(elements: Elements, vertex: Vertex, node: Node) -> Value | None:
    """The sum up to an index."""
    d = node.attrs["dim"] % len(node.shape)
    place = vertex[1][d]
    if place < FIRST or set(node.attrs) - {"dim"} or not node.format.is_float:
        return None
    parts = elements.row(vertex, node)
    if parts is None:
        return None
    return add_up(elements, parts[: place - FIRST + 1], (len(parts) + 1) * unit_of(node), len(parts) * lost(node.format))


def of_matmul(elements: Elements, vertex: Vertex, node: Node) -> Value | None:
    """An element of a matrix product."""
    one, two = (elements.view.nodes[i].shape for i in node.inputs[:2])
    if len(one) < 2 or len(two) < 2 or one[-1] != two[-2] or one[-1] > MOST_SUMMED or len(node.inputs) != 2 or len(one) != len(two):
        return None
    parts = []
    for k in range(one[-1]):
        at = FIRST + k if one[-1] > 1 else -1
        axes = (*vertex[1][:-1], at), (*vertex[1][:-2], at, vertex[1][-1])
        places = [tuple(a if n > 1 else -1 for a, n in zip(x, shape, strict=True)) for x, shape in zip(axes, (one, two), strict=True)]
        x, y = elements.of((node.inputs[0], places[0])), elements.of((node.inputs[1], places[1]))
        product = None if x is None or y is None else multiply(elements, x, y, unit_of(node), lost(node.format))
        if product is None:
            return None
        parts.append(product)
    return add_up(elements, parts, (len(parts) + 1) * unit_of(node), len(parts) * flushed_sum(node))
