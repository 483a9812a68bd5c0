"""Moving elements: broadcasts, reshapes, transpositions, slices, joins, padding; constants and counters."""

import re
from math import prod

import numpy as np

from whynan.frontends.hlo.lower._table import NotLowered, Op, Operand, known, lowers, negative
from whynan.frontends.hlo.parse import entries, literal
from whynan.frontends.kit import Value, concat, constant, cut, where
from whynan.ir.dtype import BOOL


@lowers("constant")
def _constant(op: Op) -> Value:
    value = op.instruction.value if op.instruction.value is not None else literal(op.instruction.literal, op.type)
    if value is None or value.shape != op.shape:
        raise NotLowered("a constant that the text leaves out")
    return constant(op.builder, value, op.format)


@lowers("iota")
def _iota(op: Op) -> Value:
    axis = op.dims("iota_dimension")[0]
    count = np.arange(op.shape[axis]).reshape([-1 if a == axis else 1 for a in range(len(op.shape))])
    return constant(op.builder, count, op.format).expand(op.shape)


@lowers("tuple")
def _tuple(op: Op) -> Operand:
    return op.operands


@lowers("get-tuple-element")
def _element(op: Op) -> Operand:
    whole = op.operands[0]
    if not isinstance(whole, tuple):
        raise NotLowered("an element of what is no tuple")
    element: Operand = whole[op.dims("index")[0]]
    return element


@lowers("broadcast")
def _broadcast(op: Op) -> Value:
    x, dims = op[0], op.dims()
    lined = [1] * len(op.shape)
    for d, n in zip(dims, x.shape, strict=True):
        lined[d] = n
    x = transposed(x, sorted(range(len(dims)), key=dims.__getitem__))
    return x.reshape(*lined).expand(op.shape)


@lowers("reshape")
def _reshape(op: Op) -> Value:
    return op[0].reshape(*op.shape)


def transposed(x: Value, dims: list[int] | tuple[int, ...]) -> Value:
    """The value with its dimensions in another order: dimension i of the result is dimension dims[i]."""
    if list(dims) == list(range(x.ndim)):
        return x
    return x.add("permute", shape=[x.shape[d] for d in dims], axes=negative(dims, x.ndim))


@lowers("transpose")
def _transpose(op: Op) -> Value:
    return transposed(op[0], op.dims())


@lowers("bitcast")
def _bitcast(op: Op) -> Value:
    """The same memory seen in another shape and layout."""
    x = op[0]
    before, after = op.types[0], op.type
    if isinstance(before, tuple) or before.element != after.element:
        raise NotLowered("a bitcast to another element type")
    laid = transposed(x, tuple(reversed(before.layout)))
    order = tuple(reversed(after.layout))
    seen = laid.reshape(*(after.dims[d] for d in order))
    return transposed(seen, [order.index(d) for d in range(len(order))])


@lowers("slice")
def _slice(op: Op) -> Value:
    x = op[0]
    for d, text in enumerate(entries(op.attr("slice"))):
        start, stop, step = ([int(n) for n in re.findall(r"\d+", text)] + [1])[:3]
        x = cut(x, d - x.ndim, start, max(-(-(stop - start) // step), 0), step)
    return x


@lowers("reverse")
def _reverse(op: Op) -> Value:
    dims = tuple(d for d in op.dims() if op.shape[d] > 1)
    return op[0].add("flip", dims=negative(dims, op[0].ndim)) if dims else op[0]


@lowers("concatenate")
def _concatenate(op: Op) -> Value:
    return concat(op.values(), op.dims()[0] - len(op.shape))


@lowers("pad")
def _pad(op: Op) -> Value:
    x, fill = op[0], op[1]
    widths = [([int(n) for n in text.split("_")] + [0])[:3] for text in op.attr("padding").split("x")] if x.ndim else []
    value = known(fill)
    if value is not None:
        return padded(x, widths, float(value.reshape(-1)[0]))
    inside = padded(constant(op.builder, np.ones(x.shape), BOOL), widths, 0.0)
    return where(inside, padded(x, widths, 0.0), fill.expand(op.shape))


def padded(x: Value, widths: list[list[int]], value: float) -> Value:
    """x with (low, high, interior) padding per dimension; negative widths cut."""
    for d, (_, _, inner) in enumerate(widths):
        if inner and x.shape[d] > 1:
            x = _spaced(x, d, inner, value)
    pads = tuple((low, high) for low, high, _ in widths)
    if not any(low or high for low, high in pads):
        return x
    shape = [n + low + high for n, (low, high) in zip(x.shape, pads, strict=True)]
    return x.add("pad", shape=shape, pads=pads, value=value)


def _spaced(x: Value, d: int, inner: int, value: float) -> Value:
    """`inner` copies of a value between the elements of a dimension."""
    n, before, after = x.shape[d], x.shape[:d], x.shape[d + 1 :]
    cells = x.reshape(*before, n, 1, *after)
    pads = tuple((0, inner if k == d + 1 else 0) for k in range(cells.ndim))
    wide = cells.add("pad", shape=(*before, n, 1 + inner, *after), pads=pads, value=value)
    return cut(wide.reshape(*before, n * (1 + inner), *after), d - x.ndim, 0, n + (n - 1) * inner)


def flat(x: Value) -> Value:
    """All elements along one axis."""
    return x.reshape(prod(x.shape))
