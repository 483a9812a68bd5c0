"""Arithmetic, functions, comparisons, choices and conversions: one element in, one element out."""

from collections.abc import Callable
from typing import Any

import numpy as np

from whynan.frontends.hlo.lower._table import NotLowered, Op, known, lowers
from whynan.frontends.hlo.lower.contraction import sum_of
from whynan.frontends.kit import Value, apply, constant, product, where
from whynan.ir.dtype import BFLOAT16, BOOL, FLOAT16, FLOAT64, Array

# ---------------------------------------------------------------- constants are computed at once


def folded(op: Op, function: Callable[..., Any], *operands: Value) -> Value | None:
    """The result as a constant if the operands are integer or boolean constants: loop counters, positions, random bits."""
    values = [known(v) for v in operands]
    if op.format.is_float or any(v is None or v.dtype.kind not in "iub" for v in values):
        return None
    with np.errstate(all="ignore"):
        result = np.broadcast_to(np.asarray(function(*values)), op.shape)
    return constant(op.builder, result.astype(op.format.numpy), op.format)


def elementwise(name: str, *operands: Value) -> Value:
    """An elementwise op; a number that HLO repeats to the others' shape stands as the one number again."""
    return apply(name, *lean(*operands))


def lean(*operands: Value) -> tuple[Value, ...]:
    """The operands with repeated numbers as single ones, as long as one operand keeps the shape."""
    numbers = [_single(v) for v in operands]
    if all(n is not None for n in numbers):
        return operands
    return tuple(v if n is None else n for v, n in zip(operands, numbers, strict=True))


def _single(x: Value) -> Value | None:
    """The 0-d constant that a value repeats."""
    node = x.builder.nodes[x.id]
    while node.op in ("expand", "reshape") and x.builder.nodes[node.inputs[0]].op in ("const", "expand", "reshape"):
        node = x.builder.nodes[node.inputs[0]]
    return Value(x.builder, node.id) if node.op == "const" and node.shape == () else None


# ---------------------------------------------------------------- one operand

_UNARY = {
    "abs": "abs",
    "negate": "neg",
    "exponential": "exp",
    "exponential-minus-one": "expm1",
    "log": "log",
    "log-plus-one": "log1p",
    "sqrt": "sqrt",
    "rsqrt": "rsqrt",
    "cbrt": "cbrt",
    "tanh": "tanh",
    "logistic": "sigmoid",
    "sine": "sin",
    "cosine": "cos",
    "tan": "tan",
    "sinh": "sinh",
    "cosh": "cosh",
    "asin": "asin",
    "acos": "acos",
    "atan": "atan",
    "asinh": "asinh",
    "acosh": "acosh",
    "atanh": "atanh",
    "erf": "erf",
    "floor": "floor",
    "ceil": "ceil",
    "round-nearest-even": "round",
    "sign": "sign",
    "is-finite": "isfinite",
}


# by how many units XLA's expansions err beyond what the graph's ops allow for
_COARSE = {("log-plus-one", "float64"): 130, ("exponential-minus-one", "float16"): 2}


@lowers(*_UNARY)
def _unary(op: Op) -> Value:
    x = op[0]
    if op.opcode == "negate" and (done := folded(op, np.negative, x)):
        return done
    ulps = _COARSE.get((op.opcode, x.format.name))
    return apply(_UNARY[op.opcode], x, **({} if ulps is None else {"ulps": ulps}))


@lowers("round-nearest-afz")
def _round_half_away(op: Op) -> Value:
    x = op[0]
    half = np.nextafter(np.asarray(0.5, x.format.numpy), np.asarray(0, x.format.numpy))
    return apply("trunc", x + apply("copysign", x.const(half), x))


@lowers("not")
def _not(op: Op) -> Value:
    x = op[0]
    return folded(op, np.logical_not if x.format is BOOL else np.invert, x) or apply(
        "logical_not" if x.format is BOOL else "bitwise_not", x
    )


@lowers("real", "copy", "optimization-barrier", "opt-barrier", "copy-start", "copy-done", "domain")
def _identity(op: Op) -> Any:
    return op.operands[0]


# ---------------------------------------------------------------- two operands


@lowers("add", "subtract")
def _add(op: Op) -> Value:
    a, b = op[0], op[1]
    if a.format is BOOL:
        return elementwise("logical_or" if op.opcode == "add" else "logical_xor", a, b)
    plus = op.opcode == "add"
    done = folded(op, np.add if plus else np.subtract, a, b)
    return done or sum_of(op.kernel, lean(a, b), plus)


@lowers("multiply")
def _multiply(op: Op) -> Value:
    a, b = op[0], op[1]
    if a.format is BOOL:
        return elementwise("logical_and", a, b)
    return folded(op, np.multiply, a, b) or product(*lean(a, b))


@lowers("divide")
def _divide(op: Op) -> Value:
    a, b = op[0], op[1]
    if a.format.is_float:
        return elementwise("div", a, b)
    if done := folded(op, lambda x, y: np.where(y == 0, -1, np.trunc(x / np.where(y == 0, 1, y))), a, b):
        return done
    quotient = elementwise("trunc", elementwise("div", a.cast(FLOAT64), b.cast(FLOAT64))).cast(a.format)
    return where(apply("eq", b, 0), quotient.const(-1), quotient)


@lowers("remainder")
def _remainder(op: Op) -> Value:
    a, b = op[0], op[1]
    if done := folded(op, lambda x, y: np.where(y == 0, x, np.fmod(x, np.where(y == 0, 1, y))), a, b):
        return done
    return elementwise("fmod", a, b) if a.format.is_float else where(apply("eq", b, 0), a, elementwise("fmod", a, b))


@lowers("power")
def _power(op: Op) -> Value:
    return elementwise("pow", op[0], op[1])


@lowers("atan2")
def _atan2(op: Op) -> Value:
    return elementwise("atan2", op[0], op[1])


@lowers("maximum", "minimum")
def _extreme(op: Op) -> Value:
    a, b = op[0], op[1]
    largest = op.opcode == "maximum"
    if a.format is BOOL:
        return elementwise("logical_or" if largest else "logical_and", a, b)
    return folded(op, np.maximum if largest else np.minimum, a, b) or elementwise(op.opcode, a, b)


_BITS = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}


@lowers(*_BITS)
def _bits(op: Op) -> Value:
    a, b = op[0], op[1]
    kind = "logical" if a.format is BOOL else "bitwise"
    return folded(op, _BITS[op.opcode], a, b) or elementwise(f"{kind}_{op.opcode}", a, b)


@lowers("shift-left", "shift-right-logical", "shift-right-arithmetic")
def _shift(op: Op) -> Value:
    done = folded(op, lambda x, n: _shifted(op.opcode, x, n), op[0], op[1])
    if done is None:
        raise NotLowered("shifts of values that are not constant")
    return done


def _shifted(opcode: str, x: Array, n: Array) -> Array:
    """Shifts by at least the number of bits give zeros, or the sign."""
    size = 8 * x.dtype.itemsize
    unsigned = x.view(f"u{x.dtype.itemsize}")
    within = np.minimum(n.astype(np.int64) & 0xFFFF, size - 1).astype(unsigned.dtype)
    far = (n < 0) | (n >= size)
    if opcode == "shift-right-arithmetic":
        signed: Array = x.view(f"i{x.dtype.itemsize}")
        return np.asarray(signed >> np.where(far, size - 1, within).astype(signed.dtype), x.dtype)
    moved = unsigned << within if opcode == "shift-left" else unsigned >> within
    return np.asarray(np.where(far, unsigned.dtype.type(0), moved)).view(x.dtype)


# ---------------------------------------------------------------- comparisons and choices

_COMPARE = {"EQ": "eq", "NE": "ne", "LT": "lt", "LE": "le", "GT": "gt", "GE": "ge"}
_NUMPY = {"EQ": np.equal, "NE": np.not_equal, "LT": np.less, "LE": np.less_equal, "GT": np.greater, "GE": np.greater_equal}


@lowers("compare")
def _compare(op: Op) -> Value:
    a, b, direction = op[0], op[1], op.attr("direction")
    if done := folded(op, _NUMPY[direction], a, b):
        return done
    if a.id == b.id and direction == "NE" and a.format.is_float:
        return apply("isnan", a)  # how compiled code asks for it
    if op.attr("type") != "TOTALORDER" or not a.format.is_float:
        return elementwise(_COMPARE[direction], a, b)
    # the total order puts -0 below +0 and NaNs at the ends: there the answer is left open
    special = apply("isnan", a) | apply("isnan", b) | (apply("eq", a, 0) & apply("eq", b, 0))
    anything = Value(op.builder, op.builder.add("random", (), op.shape, BOOL, low=0.0, high=1.0))
    return where(special, anything, elementwise(_COMPARE[direction], a, b))


@lowers("select")
def _select(op: Op) -> Value:
    condition, a, b = op[0], op[1], op[2]
    chosen = known(condition)
    if chosen is not None and chosen.size and (chosen.all() or not chosen.any()):
        return a if chosen.all() else b
    if done := folded(op, np.where, condition, a, b):
        return done
    return where(*lean(condition, a, b)).expand(op.shape)


@lowers("clamp")
def _clamp(op: Op) -> Value:
    low, x, high = op[0], op[1], op[2]
    if done := folded(op, lambda a, v, b: np.minimum(np.maximum(v, a), b), low, x, high):
        return done
    limits = [_one(v) for v in (low, high)]
    if limits[0] is not None and limits[1] is not None and limits[0] <= limits[1]:
        return apply("clamp", x, low=limits[0], high=limits[1])
    return elementwise("minimum", elementwise("maximum", x, low), high).expand(op.shape)


def _one(value: Value) -> float | None:
    """The number that a constant repeats."""
    array = known(value)
    return float(array.reshape(-1)[0]) if array is not None and array.size and (array == array.reshape(-1)[0]).all() else None


# ---------------------------------------------------------------- conversions


@lowers("convert")
def _convert(op: Op) -> Value:
    x, fmt = op[0], op.format
    if x.format.name == fmt.name:
        return x
    value = known(x)
    if value is not None and value.dtype.kind in "iub":
        return constant(op.builder, value, fmt)
    return apply("ne", x, 0) if fmt is BOOL else x.cast(fmt)


@lowers("reduce-precision")
def _reduce_precision(op: Op) -> Value:
    bits = (op.dims("exponent_bits"), op.dims("mantissa_bits"))
    formats = {((8,), (7,)): BFLOAT16, ((5,), (10,)): FLOAT16}
    if bits == ((8,), (23,)) or bits == ((11,), (52,)):
        return op[0]
    if bits not in formats:
        raise NotLowered(f"a precision of {bits} bits")
    return op[0].cast(formats[bits]).cast(op.format)


@lowers("bitcast-convert")
def _bitcast_convert(op: Op) -> Value:
    value = known(op[0])
    if value is None or value.dtype.itemsize != op.format.numpy.itemsize:
        return _random_fraction(op)
    return constant(op.builder, np.ascontiguousarray(value).view(op.format.numpy), op.format)


_ONE = 0x3F800000  # the bits of float32's 1


def _random_fraction(op: Op) -> Value:
    """Random bits below those of 1.0: some number from 1 to 2."""
    node = op.builder.nodes[op[0].id]
    if op.format.name == "float32" and node.op == "bitwise_or":
        for i in node.inputs:
            bits = known(Value(op.builder, i))
            if bits is not None and bits.size and (bits == _ONE).all():
                op.note("random numbers may be any in their range")
                return Value(op.builder, op.builder.add("random", (), op.shape, op.format, low=1.0, high=2.0))
    raise NotLowered("the bits of a number that is not constant")
