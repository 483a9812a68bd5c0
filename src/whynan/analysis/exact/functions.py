"""Elements of exp, log, softmax, roots and waves: exact values, and how far libraries are from them.

Each rule takes the elements, the vertex and its node, and gives the value, or None where the element cannot be followed.
"""

from math import expm1, inf, isfinite, log1p, sqrt

from whynan.analysis.exact.arithmetic import LIBRARY, add_up, multiply
from whynan.analysis.exact.atoms import TINY
from whynan.analysis.exact.elements import Elements, Value, lost, negated
from whynan.analysis.exact.poly import constant, minus, plus, rational, scaled, total
from whynan.analysis.view import Vertex
from whynan.ir.graph import Node

SHIFTED = 1.25  # units by which x - max - log(sum) is rounded, twice by a half


def of_exp(elements: Elements, vertex: Vertex, node: Node) -> Value | None:
    """exp(x)."""
    parts = elements.inputs(vertex)
    return None if parts is None else _exponential(elements, parts[0], LIBRARY * node.format.eps, lost(node.format))


def _exponential(elements: Elements, x: Value, relative: float, under: float) -> Value | None:
    found, error = elements.atoms.exp(x.poly), elements.error(x)
    if found is None or not error < 1:
        return None
    return Value(found.poly, (1 + expm1(error)) * (1 + relative) * (1 + found.relative) ** 2 - 1 + TINY, constant(under * (1 + 4 * error)))


def of_log(elements: Elements, vertex: Vertex, node: Node) -> Value | None:
    """log(x) or log(1 + x)."""
    parts = elements.inputs(vertex)
    if parts is None:
        return None
    inner = parts[0] if node.op == "log" else add_up(elements, [Value(constant(1)), parts[0]], 0.0, 0.0)
    return _logarithm(elements, inner, LIBRARY * node.format.eps * elements.size(vertex) + lost(node.format))


def _logarithm(elements: Elements, u: Value, error: float) -> Value | None:
    lo = elements.atoms.range(u.poly)[0]
    if lo <= 0 or not (off := u.relative + elements.absolute(u) / lo) < 0.5:
        return None
    found = elements.atoms.log(u.poly)
    return None if found is None else Value(found[0], 0.0, constant(-log1p(-off) * (1 + TINY) + found[1] + error))


def _log_sum(elements: Elements, parts: list[Value], error: float) -> Value | None:
    """log(sum(exp(x))) as libraries compute it, with the maximum taken out; `error` on top of that of the parts."""
    worst = max(elements.error(p) for p in parts)
    powers = [elements.atoms.exp(p.poly) for p in parts]
    if not all(powers) or not isfinite(worst):
        return None
    found = elements.atoms.log(total(p.poly for p in powers if p))
    off = 2 * max(p.relative for p in powers if p)
    return None if found is None else Value(found[0], 0.0, constant(worst + found[1] + off + 4 * TINY + error))


def _kernel(node: Node, terms: int) -> float:
    """The absolute error of log(sum(exp(x - max))) on top of the error of x.

    The rounding of a difference t makes exp(-t) err by at most t exp(-t) < 1 times it.
    """
    return (2 * terms + 6 * LIBRARY + 16) * node.format.eps + 2 * terms * lost(node.format)


def of_logsumexp(elements: Elements, vertex: Vertex, node: Node) -> Value | None:
    """The logarithm of a sum of exponentials, in all its forms: a row, two numbers, softplus, the logarithm of a sigmoid."""
    if node.op == "logsumexp":
        parts = elements.reduced(vertex, node)
    elif node.op == "logaddexp":
        parts = elements.inputs(vertex)
    else:
        inner = elements.inputs(vertex)
        if inner is None or node.attrs.get("beta", 1.0) != 1.0:
            return None
        sign = -1 if node.op == "logsigmoid" else 1
        parts = [Value(constant(0)), Value(scaled(inner[0].poly, sign), inner[0].relative, inner[0].absolute)]
    if not parts:
        return None
    # a softplus is the identity beyond a threshold, where the logarithm is below exp(-20)
    cut = 4e-9 if node.op == "softplus" else 0.0
    if cut and node.attrs.get("threshold", 20.0) < 20:
        return None
    value = _log_sum(elements, parts, _kernel(node, len(parts)) + cut)
    if value is None:
        return None
    value = Value(value.poly, 0.0, plus(value.absolute, elements.majorant(value.poly), rational(SHIFTED * node.format.eps)))
    if node.op != "logsigmoid":
        return value
    return negated(value)


def of_softmax(elements: Elements, vertex: Vertex, node: Node) -> Value | None:
    """x - logsumexp(x), or its exponential."""
    parts = elements.row(vertex, node)
    own = elements.of((node.inputs[0], vertex[1]))
    if not parts or own is None:
        return None
    worst = max(elements.error(p) for p in parts)
    powers = [elements.atoms.exp(p.poly) for p in parts]
    found = elements.atoms.log(total(p.poly for p in powers if p)) if all(powers) else None
    if found is None or not worst < 0.5:
        return None
    logarithm = minus(own.poly, found[0])
    error = constant(2 * worst + found[1] + 2 * max(p.relative for p in powers if p) + 4 * TINY)
    if node.op == "log_softmax":
        kernel = plus(constant(_kernel(node, len(parts))), elements.majorant(logarithm), rational(SHIFTED * node.format.eps))
        return Value(logarithm, 0.0, plus(error, kernel))
    # the difference to the maximum is rounded, and exp is zero long before it reaches 800
    reach = min(elements.atoms.magnitude(logarithm), 800.0 if node.format.numpy.itemsize > 4 else 110.0)
    unit = 2 * _kernel(node, len(parts)) + 2 * reach * node.format.eps
    return _exponential(elements, Value(logarithm, 0.0, error), unit, 4 * lost(node.format))


def of_sigmoid(elements: Elements, vertex: Vertex, node: Node) -> Value | None:
    """exp(x - log(1 + exp(x)))."""
    parts = elements.inputs(vertex)
    soft = None if parts is None else _log_sum(elements, [Value(constant(0)), parts[0]], 0.0)
    if soft is None or parts is None:
        return None
    error = constant(2 * elements.error(parts[0]) + elements.absolute(soft))
    exponent = Value(minus(parts[0].poly, soft.poly), 0.0, error)
    return _exponential(elements, exponent, 2 * LIBRARY * node.format.eps, 4 * lost(node.format))


def of_sqrt(elements: Elements, vertex: Vertex, node: Node) -> Value | None:
    """The square root."""
    parts = elements.inputs(vertex)
    return None if parts is None else _root(elements, parts[0], 4 * node.format.eps, node)


def _root(elements: Elements, u: Value, relative: float, node: Node) -> Value | None:
    found = elements.atoms.sqrt(u.poly)
    if found is None or not u.relative < 0.5:
        return None
    lo = elements.atoms.range(u.poly)[0] * (1 - u.relative)
    off = elements.absolute(u)
    moved = min(sqrt(off), off / (2 * sqrt(lo)) * 1.5 if lo > 2 * off else inf)
    return Value(found, u.relative + 2 * relative, constant(moved * (1 + relative) + lost(node.format)))


def of_norm(elements: Elements, vertex: Vertex, node: Node) -> Value | None:
    """The root of a sum of squares."""
    parts = elements.reduced(vertex, node) if node.attrs["ord"] == 2 else None
    if parts is None:
        return None
    squares = [multiply(elements, p, p, node.format.eps, lost(node.format)) for p in parts]
    if not all(squares):
        return None
    unit = (len(parts) + 2) * node.format.eps
    return _root(elements, add_up(elements, [s for s in squares if s], unit, 0.0), 8 * node.format.eps, node)


def of_wave(elements: Elements, vertex: Vertex, node: Node) -> Value | None:
    """Sine or cosine."""
    parts = elements.inputs(vertex)
    ends = elements.ends(vertex)
    if parts is None or ends is None:
        return None
    error = elements.error(parts[0]) + 2 * LIBRARY * node.format.eps
    found = elements.atoms.function(node.op, parts[0].poly, max(ends[0] - error, -1.0), min(ends[1] + error, 1.0))
    return Value(found, 0.0, constant(error))
