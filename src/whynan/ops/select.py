"""Choosing between values: branches, minimum and maximum, clamps, replacement of special values."""

from typing import Any

import numpy as np

from whynan.domain.interval import Bounds, join, make
from whynan.ir.dtype import Array
from whynan.ir.graph import Call
from whynan.ops._inverses import CLAMP, MAXIMUM, MINIMUM, RELU, WHERE
from whynan.ops._opdef import define_op
from whynan.ops._parts import part, signs, yes_or_no
from whynan.ops.arithmetic import absolute, negated


def _where(call: Call, condition: Bounds, a: Bounds, b: Bounds) -> Bounds:
    return join(part(a, where=condition.hi > 0), part(b, where=condition.lo <= 0))


def _maximum(call: Call, a: Bounds, b: Bounds) -> Bounds:
    return make(
        np.maximum(a.lo, b.lo),
        np.maximum(a.hi, b.hi),
        pos_zero=a.may_pos_zero | b.may_pos_zero,
        neg_zero=a.may_neg_zero | b.may_neg_zero,
        fraction=~(a.integral & b.integral),
    )


def _minimum(call: Call, a: Bounds, b: Bounds) -> Bounds:
    return negated(_maximum(call, negated(a), negated(b)))


def _number(value: Any) -> Bounds:
    """Bounds of one Python number."""
    minus = bool(np.signbit(value))
    return make(value, value, pos_zero=not minus, neg_zero=minus, fraction=bool(np.isfinite(value)) and not float(value).is_integer())


def _clamp(call: Call, a: Bounds) -> Bounds:
    low, high = call.attrs.get("low"), call.attrs.get("high")
    if any(limit is not None and np.isnan(limit) for limit in (low, high)):
        return make(np.full(a.shape, np.inf), -np.inf, nan=True)
    if low is not None:
        a = _maximum(call, a, _number(low))
    return a if high is None else _minimum(call, a, _number(high))


def clamped(call: Call, a: Array) -> Any:
    """The array between the attributes `low` and `high` (None: no limit); `high` wins where they contradict."""
    low, high = call.attrs.get("low"), call.attrs.get("high")
    if low is not None:
        a = np.maximum(a, np.asarray(low, a.dtype))
    return a if high is None else np.minimum(a, np.asarray(high, a.dtype))


def _relu(call: Call, a: Bounds) -> Bounds:
    return _maximum(call, a, _number(0.0))


def _replacements(call: Call) -> tuple[float, float, float]:
    """What NaN, +inf and -inf become: the attribute, or 0 and the format's extremes."""
    chosen = [call.attrs.get(name) for name in ("nan", "posinf", "neginf")]
    usual = (0.0, call.format.max, -call.format.max)
    nan, up, down = (u if c is None else float(c) for c, u in zip(chosen, usual, strict=True))
    return nan, up, down


def _nan_to_num(call: Call, a: Bounds) -> Bounds:
    if not call.format.is_float:
        return a
    nan, up, down = _replacements(call)
    result = part(a, -call.format.max, call.format.max)
    result = make(result.lo, result.hi, pos_zero=a.may_pos_zero, neg_zero=a.may_neg_zero, fraction=~a.integral)
    for value, there in ((nan, a.may_nan), (up, a.hi == np.inf), (down, a.lo == -np.inf)):
        replaced = part(_number(value), where=there) if not np.isnan(value) else make(np.inf, -np.inf, nan=there)
        result = join(result, replaced)
    return result


def _replaced(call: Call, a: Array) -> Any:
    nan, up, down = (np.asarray(v, a.dtype) for v in _replacements(call))
    return np.where(np.isnan(a), nan, np.where(a == np.inf, up, np.where(a == -np.inf, down, a)))


def _signbit(call: Call, a: Bounds) -> Bounds:
    plus, minus = signs(a)
    return yes_or_no(minus & ~plus & ~a.may_nan, minus | a.may_nan)


def _heaviside(call: Call, a: Bounds, b: Bounds) -> Bounds:
    step = make(
        np.where(a.lo < 0, 0.0, np.where(a.hi > 0, 1.0, np.inf)),
        np.where(a.hi > 0, 1.0, np.where(a.lo < 0, 0.0, -np.inf)),
        nan=a.may_nan,
        neg_zero=False,
        fraction=False,
    )
    # the step at NaN is 0 in PyTorch, NaN elsewhere
    of_nan = make(np.where(a.may_nan, 0.0, np.inf), np.where(a.may_nan, 0.0, -np.inf), fraction=False)
    return join(step, of_nan, part(b, where=a.may_zero))


def _copysign(call: Call, a: Bounds, b: Bounds) -> Bounds:
    plus, minus = signs(b)
    size = absolute(a)
    return join(part(size, where=plus | b.may_nan), negated(part(size, where=minus | b.may_nan)))


# ---------------------------------------------------------------- the records

define_op(
    "where",
    "one of two values, as a condition says",
    lambda call, c, a, b: np.where(c, a, b),
    _where,
    elementwise=True,
    strict=False,
    inverse=WHERE,
)

define_op(
    "maximum",
    "the larger of two numbers; NaN if one of them is NaN",
    lambda call, a, b: np.maximum(a, b),
    _maximum,
    elementwise=True,
    monotone=(1, 1),
    inverse=MAXIMUM,
)

define_op(
    "minimum",
    "the smaller of two numbers; NaN if one of them is NaN",
    lambda call, a, b: np.minimum(a, b),
    _minimum,
    elementwise=True,
    monotone=(1, 1),
    inverse=MINIMUM,
)

define_op("clamp", "a number moved into a range", clamped, _clamp, elementwise=True, monotone=(1,), inverse=CLAMP)

define_op(
    "relu",
    "the number if it is positive, else 0",
    lambda call, a: np.maximum(a, np.asarray(0, a.dtype)),
    _relu,
    elementwise=True,
    monotone=(1,),
    low=0.0,
    inverse=RELU,
)

define_op(
    "nan_to_num",
    "the number, with NaN and the infinities replaced",
    _replaced,
    _nan_to_num,
    elementwise=True,
    strict=False,
)

define_op(
    "signbit",
    "whether the number has a minus sign; -0 has one",
    lambda call, a: np.signbit(a) if a.dtype.kind == "f" else a < 0,
    _signbit,
    elementwise=True,
    strict=False,
    low=0.0,
    high=1.0,
)

define_op(
    "heaviside",
    "0 below zero, 1 above, the second value at zero",
    lambda call, a, b: np.where(np.isnan(a), a, np.where(a == 0, b, np.where(a < 0, 0, 1).astype(a.dtype))),
    _heaviside,
    elementwise=True,
    strict=False,
)

define_op(
    "copysign",
    "the size of the first number with the sign of the second",
    lambda call, a, b: np.copysign(a, b),
    _copysign,
    elementwise=True,
    strict=False,
)
