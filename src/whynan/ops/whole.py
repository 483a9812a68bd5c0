"""Rounding to whole numbers, and division with a whole quotient."""

from collections.abc import Callable
from typing import Any

import numpy as np

from whynan.domain.interval import COUNTED, Bounds, make
from whynan.ir.dtype import nearest
from whynan.ir.graph import Call
from whynan.ops._curves import working_format
from whynan.ops._opdef import Danger, Transfer, define_op
from whynan.ops._parts import at, in_range, overflow, part, signs
from whynan.ops.arithmetic import absolute, quotient


def _rounding(f: Callable[[Any], Any]) -> Transfer:
    def transfer(call: Call, a: Bounds) -> Bounds:
        lo, hi = f(a.lo), f(a.hi)
        pos, neg = signs(a)
        return make(lo, hi, pos_zero=pos, neg_zero=neg, fraction=False)

    return transfer


def _frac(call: Call, a: Bounds) -> Bounds:
    whole = np.trunc(a.lo)
    same = np.isfinite(a.lo) & (whole == np.trunc(a.hi))
    edge = 1 - call.format.eps / 2  # the largest number below 1
    lo = np.where(same, a.lo - whole, np.where(a.lo < 0, -np.minimum(edge, -a.lo), 0.0))
    hi = np.where(same, a.hi - whole, np.where(a.hi > 0, np.minimum(edge, a.hi), 0.0))
    lo, hi = np.where(a.empty, np.inf, lo), np.where(a.empty, -np.inf, hi)
    return make(lo, hi, nan=a.may_inf, neg_zero=a.may_neg_zero | (a.lo < 0))


def _lost(call: Call, a: Bounds, b: Bounds) -> Any:
    """Where the remainder is NaN: an infinite dividend, a zero divisor, or (in PyTorch's kernels) a quotient that overflows."""
    least = np.where((b.lo <= 0) & (b.hi >= 0), call.format.smallest, np.minimum(np.abs(b.lo), np.abs(b.hi)))
    overflows = call.format.is_float & (a.magnitude / least > working_format(call.format).max / 2)
    return b.may_zero | a.may_inf | overflows


def _fmod(call: Call, a: Bounds, b: Bounds) -> Bounds:
    """The result has the sign of the dividend and is smaller than the divisor; a dividend that is smaller already stays."""
    size = np.where(b.empty, 0.0, b.magnitude)
    divisor = absolute(b)
    stays = (a.magnitude < divisor.lo) & ~b.empty
    lo = np.where(stays, a.lo, np.where(a.lo < 0, np.maximum(a.lo, -size), 0.0))
    hi = np.where(stays, a.hi, np.where(a.hi > 0, np.minimum(a.hi, size), 0.0))
    pos, neg = signs(a)
    nan = _lost(call, a, b)
    return in_range(call, make(lo, hi, nan=nan, pos_zero=pos, neg_zero=neg, fraction=~(a.integral & b.integral)))


def _remainder(call: Call, a: Bounds, b: Bounds) -> Bounds:
    """The result has the sign of the divisor and at most its size: -tiny + b rounds to b. Of whole numbers it is one less."""
    for_up, for_down = part(b, low=0.0), part(b, high=0.0)
    less = 0.0 if call.format.is_float else np.where(b.magnitude < COUNTED, 1.0, 0.0)
    lo = np.where(for_down.empty, 0.0, np.minimum(b.lo + less, 0.0))
    hi = np.where(for_up.empty, 0.0, np.maximum(b.hi - less, 0.0))
    stays = (a.lo >= 0) & (a.hi < b.lo) | (a.hi <= 0) & (a.lo > b.hi)
    lo, hi = np.where(stays, a.lo, lo), np.where(stays, a.hi, hi)
    nan = _lost(call, a, b)
    return in_range(call, make(lo, hi, nan=nan, fraction=~(a.integral & b.integral)))


def _floor_divide(call: Call, a: Bounds, b: Bounds) -> Bounds:
    smallest = call.formats[1].smallest if call.formats[1].is_float else 1.0
    q = quotient(a, b, smallest)
    # PyTorch divides, rounds down and corrects in the format itself, half precision included: it may take the neighbour
    eps = 2 * call.format.eps if call.format.is_float else 0.0
    lo, hi = np.floor(q.lo - eps * np.abs(q.lo)), np.floor(q.hi + eps * np.abs(q.hi))
    lo = np.where((q.lo == 0) & q.may_neg_zero, -1.0, lo)
    lo, hi = np.where(np.isinf(q.lo), q.lo, nearest(call.format, lo)), np.where(np.isinf(q.hi), q.hi, nearest(call.format, hi))
    return in_range(call, make(lo, hi, nan=q.may_nan | a.may_inf, fraction=False))


# ---------------------------------------------------------------- the records

define_op(
    "floor",
    "the largest whole number that is not larger",
    lambda call, a: np.floor(a),
    _rounding(np.floor),
    elementwise=True,
    monotone=(1,),
)

define_op(
    "ceil",
    "the smallest whole number that is not smaller",
    lambda call, a: np.ceil(a),
    _rounding(np.ceil),
    elementwise=True,
    monotone=(1,),
)

define_op(
    "round",
    "the nearest whole number, of two the even one",
    lambda call, a: np.rint(a),
    _rounding(np.rint),
    elementwise=True,
    monotone=(1,),
)

define_op(
    "trunc",
    "the whole part of a number",
    lambda call, a: np.trunc(a),
    _rounding(np.trunc),
    elementwise=True,
    monotone=(1,),
)

define_op(
    "frac",
    "the fractional part of a number, with its sign",
    lambda call, a: a - np.trunc(a),
    _frac,
    dangers=(at("inf-minus-inf", "an infinite number has no fractional part.", np.inf, -np.inf),),
    elementwise=True,
    rounding="nearest",  # exact, but for flushed subnormals
    low=-1.0,
    high=1.0,
)

_ZERO_DIVISOR = Danger("div-by-zero", lambda call, a, b: (b == 0) & np.isfinite(a), "there is no remainder of a division by 0.")
_INFINITE_DIVIDEND = Danger("other-domain-error", lambda call, a, b: np.isinf(a), "an infinite number leaves no remainder.")

define_op(
    "fmod",
    "the remainder of a division, with the sign of the dividend",
    lambda call, a, b: np.fmod(a, b),
    _fmod,
    dangers=(_ZERO_DIVISOR, _INFINITE_DIVIDEND),
    elementwise=True,
    rounding="nearest",  # exact, but for flushed subnormals
)


def _python_remainder(call: Call, a: Any, b: Any) -> Any:
    if a.dtype.kind != "f":
        return np.remainder(a, b)
    rest = np.fmod(a, b)
    return np.where((rest != 0) & ((rest < 0) != (b < 0)), rest + b, rest)


define_op(
    "remainder",
    "the remainder of a division, with the sign of the divisor",
    _python_remainder,
    _remainder,
    dangers=(
        _ZERO_DIVISOR,
        _INFINITE_DIVIDEND,
        Danger("nonfinite-input", lambda call, a, b: np.isinf(b), "the remainder of a negative number modulo +inf is +inf."),
    ),
    elementwise=True,
    rounding="nearest",
)

define_op(
    "floor_divide",
    "the quotient of two numbers, rounded down to a whole number",
    lambda call, a, b: np.floor_divide(a, b),
    _floor_divide,
    dangers=(
        Danger("zero-over-zero", lambda call, a, b: (a == 0) & (b == 0), "0 / 0 has no value."),
        Danger("div-by-zero", lambda call, a, b: np.isfinite(a) & (b == 0), "a number other than 0 divided by 0 is infinite."),
        Danger("inf-over-inf", lambda call, a, b: np.isinf(a), "an infinite number has no whole quotient."),
        overflow("product-overflow", "the quotient is larger than the largest number of the format."),
    ),
    elementwise=True,
)
