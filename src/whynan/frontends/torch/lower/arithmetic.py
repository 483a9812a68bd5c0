"""Addition, multiplication, division, powers, roots, rounding, minimum and maximum."""

from typing import Any

import numpy as np

from whynan.frontends.kit import Number, Value, apply, contracted, is_half, narrow_or_wide, opmath, product, representable, where
from whynan.frontends.torch.lower._kernel import Kernel, kernel
from whynan.ir.dtype import BOOL, FLOAT32, FLOAT64

Operand = Value | Number


def rounded(k: Kernel, *operands: Operand) -> tuple[Value, ...]:
    """The operands in the result's format: most kernels round a Python number, or a tensor of another format, to it first."""
    return tuple(v.cast(k.format) if isinstance(v, Value) else k.const(v) for v in operands)


def factors(k: Kernel, a: Operand, b: Operand) -> tuple[Value, ...]:
    """The operands of a product or quotient.

    On half precision these kernels compute in float32, and a second operand that is a Python number or a 0-d tensor of another format
    is not rounded to half before.
    """
    wide = not representable(b, k.format) if not isinstance(b, Value) else b.ndim == 0 and b.format.name != k.format.name
    if not (is_half(k.format) and wide):
        return rounded(k, a, b)
    (first,) = rounded(k, a)
    return first.up(), b.cast(opmath(k.format)) if isinstance(b, Value) else k.const(b, opmath(k.format))


def _sum(k: Kernel, op: str, a: Operand, b: Operand, alpha: Number) -> Value:
    x, y = rounded(k, a, b)
    if k.format is BOOL:
        return apply("logical_or", x, y)
    return apply(op, x, y) if alpha == 1 else contracted(apply(op, x, y * alpha), y, alpha if op == "add" else -alpha, x)


@kernel("add.Tensor", "add.Scalar", "_add_relu.Tensor")
def _add(k: Kernel) -> Value:
    total = _sum(k, "add", k["self"], k["other"], k["alpha"])
    return apply("relu", total) if k.aten.name.startswith("_add_relu") else total


@kernel("sub.Tensor", "sub.Scalar")
def _sub(k: Kernel) -> Value:
    return _sum(k, "sub", k["self"], k["other"], k["alpha"])


@kernel("rsub.Tensor", "rsub.Scalar")
def _rsub(k: Kernel) -> Value:
    return _sum(k, "sub", k["other"], k["self"], k["alpha"])


@kernel("mul.Tensor", "mul.Scalar")
def _mul(k: Kernel) -> Value:
    a, b = factors(k, k["self"], k["other"])
    return apply("logical_and", a, b) if k.format is BOOL else product(a, b)


@kernel("div.Tensor", "div.Scalar", "true_divide.Tensor", "true_divide.Scalar")
def _div(k: Kernel) -> Value:
    return apply("div", *factors(k, k["self"], k["other"]))


@kernel("div.Tensor_mode", "div.Scalar_mode")
def _div_mode(k: Kernel) -> Value:
    a, b = factors(k, k["self"], k["other"])
    if k["rounding_mode"] == "floor":
        return apply("floor_divide", a, b)
    if k["rounding_mode"] is None:
        return apply("div", a, b)
    return apply("trunc", apply("div", a, b) if a.format.is_float else apply("div", a.cast(FLOAT64), b.cast(FLOAT64)))


@kernel("floor_divide", "floor_divide.Scalar")
def _floor_divide(k: Kernel) -> Value:
    return apply("floor_divide", *factors(k, k["self"], k["other"]))


def _rounding_first(op: str, *names: str) -> None:
    """Kernels that round a Python number to the tensor's format before they use it."""

    @kernel(*names)
    def lowering(k: Kernel) -> Value:
        return apply(op, *rounded(k, k["self"], k["other"]))


_rounding_first("remainder", "remainder.Tensor", "remainder.Scalar", "remainder.Scalar_Tensor")
_rounding_first("fmod", "fmod.Tensor", "fmod.Scalar")
_rounding_first("hypot", "hypot")
_rounding_first("maximum", "maximum", "max.other")
_rounding_first("minimum", "minimum", "min.other")


def _power(x: Value, exponent: float) -> Value:
    """x to a constant power, with the kernel's shortcuts."""
    if exponent == 0.5:
        root = apply("sqrt", x, written_as="pow")
        return root.add("either", apply("pow", x, exponent)) if is_half(x.format) else root  # the power of -0 is +0
    if exponent == 2:
        return apply("square", x)
    if exponent == 3:
        return apply("square", x) * x
    if exponent == -0.5:
        root = apply("rsqrt", x, written_as="pow")
        return root.add("either", apply("pow", x, exponent)) if is_half(x.format) else root
    if exponent == -1:
        return apply("reciprocal", x, written_as="pow")
    if exponent == -2:
        return apply("reciprocal", apply("square", x))
    return apply("pow", x, exponent)


@kernel("pow.Tensor_Scalar")
def _pow_scalar(k: Kernel) -> Value:
    x, exponent = k.tensor("self").cast(k.format), k["exponent"]
    if exponent == 0:
        return k.const(np.ones(k.shape))
    if exponent == 1:
        return x
    if exponent in (3, -0.5, -2):
        return narrow_or_wide(lambda x: _power(x, exponent), x)
    power = _power(x, exponent)
    if x.format is FLOAT32 and power.builder.nodes[power.id].op == "pow" and float(np.float32(exponent)) != exponent:
        # of what is not in a vector the power is taken in float64, and the exponent is not rounded
        return power.add("either", apply("pow", x.cast(FLOAT64), exponent).cast(FLOAT32))
    return power


@kernel("pow.Tensor_Tensor")
def _pow_tensor(k: Kernel) -> Value:
    return apply("pow", k.tensor("self").cast(k.format), k["exponent"].cast(k.format))


@kernel("pow.Scalar", "float_power.Scalar")
def _pow_of_scalar(k: Kernel) -> Value:
    if k["self"] == 1:
        return k.const(np.ones(k.shape))
    return apply("pow", k.const(k["self"]), k["exponent"].cast(k.format))


def _unary(op: str, *names: str) -> None:
    @kernel(*names)
    def lowering(k: Kernel) -> Value:
        return apply(op, k.tensor("self").cast(k.format))


for _name in ("neg", "abs", "sqrt", "rsqrt", "reciprocal", "square", "floor", "ceil", "trunc", "frac", "relu"):
    _unary(_name, _name)
_unary("trunc", "fix")


@kernel("sign", "sgn")
def _sign(k: Kernel) -> Value:
    x = k.tensor("self")
    sign = apply("sign", x)
    return where(apply("isnan", x), 0, sign) if x.format.is_float else sign


@kernel("round", "round.decimals")
def _round(k: Kernel) -> Value:
    x = k.tensor("self")
    decimals = k["decimals"] if k.aten.name.endswith("decimals") else 0
    if decimals == 0:
        return apply("round", x)
    scale = float(10.0 ** abs(decimals))
    return apply("round", x * scale) / scale if decimals > 0 else apply("round", x / scale) * scale


@kernel("fmax")
def _fmax(k: Kernel) -> Value:
    return _ignoring_nan(k, "maximum")


@kernel("fmin")
def _fmin(k: Kernel) -> Value:
    return _ignoring_nan(k, "minimum")


def _ignoring_nan(k: Kernel, op: str) -> Value:
    a, b = k.tensor("self").cast(k.format), k["other"].cast(k.format)
    return where(apply("isnan", a), b, where(apply("isnan", b), a, apply(op, a, b)))


def limited(x: Value, low: Any, high: Any) -> Value:
    """x clamped to limits, each a number (rounded to x's format), a Value or None."""
    if isinstance(low, Value) or isinstance(high, Value):
        x = x if low is None else apply("maximum", x, low)
        return x if high is None else apply("minimum", x, high)
    if low is None and high is None:
        return x
    if low is not None and high is not None and low > high:  # the kernel then gives the upper limit
        return _clamped(_clamped(x, low, None), None, high)
    return _clamped(x, low, high)


def _clamped(x: Value, low: Any, high: Any) -> Value:
    """A clamp to numbers; `low_written` and `high_written` keep what the source says where rounding changes it."""
    limits = {"low": _nearest(x, low), "high": _nearest(x, high)}
    written = {f"{name}_written": float(n) for name, n in (("low", low), ("high", high)) if n is not None and float(n) != limits[name]}
    return apply("clamp", x, **limits, **written)


def _nearest(x: Value, number: Any) -> float | None:
    with np.errstate(over="ignore"):
        return None if number is None else float(np.asarray(number).astype(x.format.numpy))


@kernel("clamp", "clamp.Tensor", "clip", "clip.Tensor")
def _clamp(k: Kernel) -> Value:
    low, high = (v.cast(k.format) if isinstance(v, Value) else v for v in (k["min"], k["max"]))
    return limited(k.tensor("self").cast(k.format), low, high)


@kernel("clamp_min", "clamp_min.Tensor")
def _clamp_min(k: Kernel) -> Value:
    low = k["min"]
    return limited(k.tensor("self").cast(k.format), low.cast(k.format) if isinstance(low, Value) else low, None)


@kernel("clamp_max", "clamp_max.Tensor")
def _clamp_max(k: Kernel) -> Value:
    high = k["max"]
    return limited(k.tensor("self").cast(k.format), None, high.cast(k.format) if isinstance(high, Value) else high)


@kernel("hardtanh")
def _hardtanh(k: Kernel) -> Value:
    return limited(k.tensor("self"), k["min_val"], k["max_val"])


@kernel("relu6")
def _relu6(k: Kernel) -> Value:
    return limited(k.tensor("self"), 0, 6)


@kernel("addcmul")
def _addcmul(k: Kernel) -> Value:
    x, a, b = (k.tensor(name).cast(k.format).up() for name in ("self", "tensor1", "tensor2"))
    a = a if k["value"] == 1 else a * k["value"]
    return contracted(x + product(a, b), a, b, x)


@kernel("addcdiv")
def _addcdiv(k: Kernel) -> Value:
    x, a, b = (k.tensor(name).cast(k.format).up() for name in ("self", "tensor1", "tensor2"))
    return x + (a if k["value"] == 1 else a * k["value"]) / b


@kernel("lerp.Scalar", "lerp.Tensor")
def _lerp(k: Kernel) -> Value:
    start, end, weight = k.tensor("self").up(), k.tensor("end").up(), k["weight"]
    if not isinstance(weight, Value):
        factor = np.asarray(weight, start.format.numpy)
        return _from(start, end - start, float(factor)) if abs(factor) < 0.5 else _from(end, start - end, float(1 - factor))
    weight = weight.up()
    return where(apply("abs", weight) < 0.5, _from(start, end - start, weight), _from(end, start - end, 1 - weight))


def _from(x: Value, step: Value, factor: Value | float) -> Value:
    """x + step * factor."""
    return contracted(x + step * factor, step, factor, x)


@kernel("deg2rad")
def _deg2rad(k: Kernel) -> Value:
    return k.tensor("self").cast(k.format).up() * (np.pi / 180)


@kernel("rad2deg")
def _rad2deg(k: Kernel) -> Value:
    return k.tensor("self").cast(k.format).up() * (180 / np.pi)
