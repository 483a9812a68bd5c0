"""Roots and powers."""

from typing import Any

import numpy as np

from whynan.domain.interval import Bounds, Mask, join, make
from whynan.ir.dtype import Array, Format
from whynan.ir.graph import Call
from whynan.ops._curves import curve, outward, unflushed
from whynan.ops._inverses import INVERSE_ROOT, POWER, SQUARE_ROOT
from whynan.ops._opdef import Danger, define_op
from whynan.ops._parts import at, finite, in_range, overflow, part
from whynan.ops.arithmetic import absolute, negated

# ---------------------------------------------------------------- roots


def _perfect_square(x: Any) -> Any:
    """Where the root is a number of few digits: every library finds it."""
    root = np.asarray(np.sqrt(x), np.float32).astype(np.float64)
    return root * root == x


# MKL, which PyTorch calls for long arrays, errs by a little more than half an ulp
_SQRT = curve(np.sqrt, ulps=1, domain=(0.0, np.inf), exact=_perfect_square)


def _sqrt(call: Call, a: Bounds) -> Bounds:
    b = _SQRT(call, a)
    return make(b.lo, b.hi, nan=b.may_nan, pos_zero=a.may_pos_zero, neg_zero=a.may_neg_zero, fmt=call.format)


def _rsqrt(call: Call, a: Bounds) -> Bounds:
    positive = part(a, low=call.format.smallest)
    numbers = outward(
        call.format,
        1 / np.sqrt(np.maximum(positive.hi, 0.0)),
        np.where(positive.empty, -np.inf, 1 / np.sqrt(np.maximum(positive.lo, 0.0))),
        ulps=2,  # two roundings on a CPU, 2 ulps on a GPU
        keep_lo=np.isin(positive.hi, (1.0, np.inf)),
        keep_hi=positive.lo == 1,
        half_ulps=1,
    )
    infinite = make(np.where(a.may_neg_zero, -np.inf, np.inf), np.where(a.may_pos_zero, np.inf, -np.inf), nan=a.lo < 0)
    return join(numbers, infinite)


def _hypot(call: Call, a: Bounds, b: Bounds) -> Bounds:
    x, y = absolute(a), absolute(b)
    exact_lo, exact_hi = (x.lo == 0) | (y.lo == 0), (x.hi == 0) | (y.hi == 0)
    lo, hi = np.hypot(x.lo, y.lo), np.where(x.empty | y.empty, -np.inf, np.hypot(x.hi, y.hi))
    nan = a.may_nan | b.may_nan
    numbers = outward(call.format, lo, hi, keep_lo=exact_lo, keep_hi=exact_hi, nan=nan, pos_zero=a.may_zero & b.may_zero)
    infinite = a.may_nan & b.may_inf | b.may_nan & a.may_inf
    return join(numbers, make(np.inf, np.where(infinite, np.inf, -np.inf)))


# ---------------------------------------------------------------- powers


def _pow(call: Call, x: Bounds, y: Bounds) -> Bounds:
    """Positive, negative and zero bases apart; see C's pow for what infinities and NaN do."""
    if call.format.flush:
        x, y = unflushed(call, x), unflushed(call, y)
    result = join(_positive_base(call, x, y), _negative_base(call, x, y), _zero_base(x, y), _nan_operand(x, y))
    return in_range(call, result)


_CBRT = curve(np.cbrt, exact=(-1.0, 1.0), odd=True)


def _cbrt(call: Call, a: Bounds) -> Bounds:
    """XLA's root of a subnormal is -5.6e-16."""
    stray = call.format.flush & a.may_zero
    return join(_CBRT(call, a), make(np.where(stray, -6e-16, np.inf), np.where(stray, 0.0, -np.inf)))


def _smallest(fmt: Format) -> float:
    return fmt.smallest if fmt.is_float else 1.0


def _positive_base(call: Call, x: Bounds, y: Bounds) -> Bounds:
    base = part(x, low=_smallest(call.formats[0]))
    return _magnitude(call.format, base, y)


def _magnitude(fmt: Format, base: Bounds, y: Bounds) -> Bounds:
    """Bounds of base**y for a positive base: its logarithm is a product of two intervals, with its extremes at the corners."""
    there = ~base.empty & ~y.empty
    every: list[tuple[Any, Any]] = []
    for b in (base.lo, base.hi):
        for e in (y.lo, y.hi):
            power = np.power(np.where(there, b, 1.0), np.where(there, e, 1.0))
            sure = (b == 1) | (e == 0) | (e == 1) | np.isinf(b) | np.isinf(e)
            every.append((power, sure))
    lo = np.minimum.reduce([p for p, _ in every])
    hi = np.maximum.reduce([p for p, _ in every])
    keep_lo = np.logical_and.reduce([sure | (p > lo) for p, sure in every])
    keep_hi = np.logical_and.reduce([sure | (p < hi) for p, sure in every])
    lo, hi = np.where(there, lo, np.inf), np.where(there, hi, -np.inf)
    if not fmt.is_float:
        return make(np.floor(lo), np.floor(hi), neg_zero=False, fraction=False)
    # a square is one product, or a power function's result for an exponent that is an array; half precision rounds x*x*x twice
    squares = bool(np.all((y.lo == 2) & (y.hi == 2)))
    return outward(fmt, lo, hi, ulps=1 if squares else 4, keep_lo=keep_lo, keep_hi=keep_hi, half_ulps=0 if squares else 2)


def _one_point(b: Bounds) -> Mask:
    return np.asarray(b.lo == b.hi)


def _may_be_odd(y: Bounds) -> Mask:
    return np.asarray(~_one_point(y) | (np.abs(np.fmod(y.lo, 2)) == 1))


def _may_be_broken(y: Bounds) -> Mask:
    """Whether the exponent may have a fractional part."""
    return np.asarray(~y.integral & (np.floor(y.lo) != y.hi) & ~y.empty)


def _negative_base(call: Call, x: Bounds, y: Bounds) -> Bounds:
    base = negated(part(x, high=-_smallest(call.formats[0])))
    there = ~base.empty
    whole = make(np.ceil(y.lo), np.floor(y.hi), fraction=False)
    size = _magnitude(call.format, base, whole)
    never_odd, never_even = ~_may_be_odd(y), _one_point(y) & _may_be_odd(y)
    even, odd = part(size, where=~never_even), negated(part(size, where=~never_odd))
    # a fractional power of -inf is that of +inf
    infinite = part(base, low=np.inf)
    edge = part(_magnitude(call.format, infinite, y), where=_may_be_broken(y))
    nothing = make(np.inf, -np.inf, nan=there & _may_be_broken(y))
    return join(even, odd, edge, nothing)


def _zero_base(x: Bounds, y: Bounds) -> Bounds:
    """0**y: 0, 1 or an infinity. -0 keeps its sign under odd powers, and in PyTorch under the powers ±1/2, computed as roots."""
    signed = x.may_neg_zero & (_may_be_odd(y) | (y.lo <= 0.5) & (y.hi >= 0.5) | (y.lo <= -0.5) & (y.hi >= -0.5))
    up, down, level = x.may_zero & (y.hi > 0), x.may_zero & (y.lo < 0), x.may_zero & y.may_zero
    zero = make(np.where(up, 0.0, np.inf), np.where(up, 0.0, -np.inf), neg_zero=signed, fraction=False)
    one = make(np.where(level, 1.0, np.inf), np.where(level, 1.0, -np.inf), fraction=False)
    infinite = make(np.where(down & signed, -np.inf, np.inf), np.where(down, np.inf, -np.inf), fraction=False)
    return join(zero, one, infinite)


def _nan_operand(x: Bounds, y: Bounds) -> Bounds:
    """NaN in, NaN out, but for NaN**0 and 1**NaN, which are 1."""
    one = x.may_nan & y.may_zero | y.may_nan & (x.lo <= 1) & (x.hi >= 1)
    nan = x.may_nan & ((y.lo < 0) | (y.hi > 0) | y.may_nan) | y.may_nan & ((x.lo < 1) | (x.hi > 1) | x.may_nan)
    return make(np.where(one, 1.0, np.inf), np.where(one, 1.0, -np.inf), nan=nan, fraction=False)


def _power(call: Call, a: Array, b: Array) -> Any:
    if a.dtype.kind in "iu" and b.dtype.kind in "iu":
        # as PyTorch has it: the reciprocal, rounded towards zero
        inverse = np.where(a == 1, 1, np.where(a == -1, 1 - 2 * (b % 2), 0)).astype(a.dtype)
        return np.where(b < 0, inverse, np.power(a, np.maximum(b, np.zeros((), b.dtype))))
    return np.power(a, b)


def _power_overflows(call: Call, a: Array, b: Array) -> Any:
    return finite(a, b) & (a != 0)


# ---------------------------------------------------------------- the records

define_op(
    "sqrt",
    "the square root",
    lambda call, a: np.sqrt(a),
    _sqrt,
    dangers=(Danger("sqrt-of-negative", lambda call, a: a < 0, "the square root of a negative number is not real."),),
    elementwise=True,
    monotone=(1,),
    steep="sqrt-grad-at-zero",
    inverse=SQUARE_ROOT,
)

define_op(
    "rsqrt",
    "one divided by the square root",
    lambda call, a: 1 / np.sqrt(a),
    _rsqrt,
    dangers=(
        at("div-by-zero", "1 divided by the square root of 0 is infinite.", 0.0),
        Danger("sqrt-of-negative", lambda call, a: a < 0, "the square root of a negative number is not real."),
    ),
    elementwise=True,
    steep="sqrt-grad-at-zero",
    inverse=INVERSE_ROOT,
)

define_op(
    "cbrt",
    "the cube root",
    lambda call, a: np.cbrt(a),
    _cbrt,
    elementwise=True,
    monotone=(1,),
    steep="pow-grad-at-zero",
)

define_op(
    "hypot",
    "the length of the hypotenuse, sqrt(x*x + y*y)",
    lambda call, a, b: np.hypot(a, b),
    _hypot,
    dangers=(overflow("square-overflow", "the root of the sum of squares is larger than the largest number of the format."),),
    elementwise=True,
    strict=False,  # hypot(inf, nan) is inf
    steep="norm-grad-at-zero",
    low=0.0,
)

define_op(
    "pow",
    "a number raised to a power",
    _power,
    _pow,
    dangers=(
        Danger(
            "pow-domain",
            lambda call, a, b: (a < 0) & (b != np.floor(b)),
            "a negative number has no real power with a fractional exponent.",
        ),
        Danger("div-by-zero", lambda call, a, b: (a == 0) & (b < 0), "0 to a negative power is infinite."),
        Danger("product-overflow", _power_overflows, "the power is larger than the largest number of the format."),
    ),
    elementwise=True,
    strict=False,  # x**0 and 1**y are 1 even for NaN
    steep="pow-grad-at-zero",
    inverse=POWER,
)
