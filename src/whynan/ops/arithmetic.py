"""Sums, products, quotients, signs."""

from functools import reduce

import numpy as np

from whynan.domain.interval import NEG_ZERO, POS_ZERO, ZERO, Bounds, Mask, join, make, normalised
from whynan.ir.dtype import Float64
from whynan.ir.graph import Call
from whynan.ops._inverses import ABSOLUTE, DIFFERENCE, NEGATIVE, PRODUCT, QUOTIENT, RECIPROCAL, SQUARE, SUM
from whynan.ops._opdef import Danger, define_op
from whynan.ops._parts import finite, in_range, overflow, signs

# ---------------------------------------------------------------- sums


def _sum_zeros(a: Bounds, b: Bounds) -> tuple[Mask, Mask]:
    """Signs of a zero sum under round-to-nearest: -0 only from (-0) + (-0); x + (-x) gives +0."""
    lo, hi = np.maximum(a.lo, -b.hi), np.minimum(a.hi, -b.lo)
    cancel = (lo <= hi) & ((lo != 0) | (hi != 0))
    return a.may_pos_zero & b.may_zero | a.may_zero & b.may_pos_zero | cancel, a.may_neg_zero & b.may_neg_zero


def _add(call: Call, a: Bounds, b: Bounds) -> Bounds:
    pos, neg = _sum_zeros(a, b)
    clash = (a.hi == np.inf) & (b.lo == -np.inf) | (a.lo == -np.inf) & (b.hi == np.inf)
    lo, hi = a.lo + b.lo, a.hi + b.hi
    # inf - inf is NaN; what else there is starts from the other operand's finite end
    lo = np.where(np.isnan(lo), -np.inf, lo)
    hi = np.where(np.isnan(hi), np.inf, hi)
    nan = clash & ~a.empty & ~b.empty
    return in_range(call, make(lo, hi, nan=nan, pos_zero=pos, neg_zero=neg, fraction=~(a.integral & b.integral), fmt=call.format))


_ALL_FLAGS = np.arange(16, dtype=np.uint8)
_ZEROS_SWAPPED = (_ALL_FLAGS & POS_ZERO != 0) * NEG_ZERO | (_ALL_FLAGS & NEG_ZERO != 0) * POS_ZERO
_FLAGS_OF_NEGATIVE = _ALL_FLAGS & ~ZERO | _ZEROS_SWAPPED


def negated(b: Bounds) -> Bounds:
    """Bounds of -x."""
    return normalised(-b.hi, -b.lo, _FLAGS_OF_NEGATIVE[b.flags])


def _negated(call: Call, a: Bounds) -> Bounds:
    return negated(a) if call.format.is_float else in_range(call, negated(a))


def _sub(call: Call, a: Bounds, b: Bounds) -> Bounds:
    return _add(call, a, negated(b))


# ---------------------------------------------------------------- products


def product(a: Bounds, b: Bounds) -> tuple[Float64, Float64]:
    """The ends of x*y, with 0*inf = 0: where that is NaN, it is a flag, and the numbers beside it reach zero."""
    corners = [x * y for x in (a.lo, a.hi) for y in (b.lo, b.hi)]
    if np.count_nonzero(np.isnan(reduce(np.add, corners))):
        corners = [np.where(np.isnan(p), 0.0, p) for p in corners]
    return reduce(np.minimum, corners) + 0.0, reduce(np.maximum, corners) + 0.0  # +0.0 for both zeros


def _product_signs(a: Bounds, b: Bounds) -> tuple[Mask, Mask]:
    """Whether a product or quotient can have a plus and a minus sign."""
    (a_pos, a_neg), (b_pos, b_neg) = signs(a), signs(b)
    return a_pos & b_pos | a_neg & b_neg, a_pos & b_neg | a_neg & b_pos


def times(a: Bounds, b: Bounds) -> Bounds:
    """Bounds of x*y before rounding."""
    lo, hi = product(a, b)
    nan = a.may_zero & b.may_inf | b.may_zero & a.may_inf
    zero = a.may_zero | b.may_zero | (lo == 0) | (hi == 0)  # an end may have underflowed in float64 already
    pos, neg = _product_signs(a, b)
    return make(lo, hi, nan=nan, pos_zero=zero & pos, neg_zero=zero & neg, fraction=~(a.integral & b.integral))


def _mul(call: Call, a: Bounds, b: Bounds) -> Bounds:
    return in_range(call, times(a, b))


def _least(b: Bounds) -> Float64:
    """The least magnitude among the ends, 0 where the interval goes through zero."""
    return np.where((b.lo <= 0) & (b.hi >= 0), 0.0, np.minimum(np.abs(b.lo), np.abs(b.hi)))


def _square(call: Call, a: Bounds) -> Bounds:
    least = np.where((a.lo <= 0) & (a.hi >= 0) & ~a.may_zero, call.format.smallest, _least(a))
    lo, hi = least * least, a.magnitude * a.magnitude
    lo, hi = np.where(a.empty, np.inf, lo), np.where(a.empty, -np.inf, hi)
    return in_range(call, make(lo, hi, pos_zero=a.may_zero | (lo == 0), neg_zero=False, fraction=~a.integral))


# ---------------------------------------------------------------- quotients


def quotient(a: Bounds, b: Bounds, smallest: float) -> Bounds:
    """Bounds of x/y before rounding; `smallest` is the least positive value of the divisor's format.

    The divisor is taken apart: its positive numbers, its negative numbers, and its zeros, which make infinities.
    """
    unit = np.where(b.integral, 1.0, smallest)
    over_positive = _over_positive(a.lo, a.hi, np.maximum(b.lo, unit), b.hi)
    over_negative = _over_positive(-a.hi, -a.lo, np.maximum(-b.hi, unit), -b.lo)
    up = (a.hi > 0) & b.may_pos_zero | (a.lo < 0) & b.may_neg_zero
    down = (a.lo < 0) & b.may_pos_zero | (a.hi > 0) & b.may_neg_zero
    over_zero = np.where(down, -np.inf, np.inf), np.where(up, np.inf, -np.inf)  # none of both: the empty interval
    (lo_pos, hi_pos), (lo_neg, hi_neg), (lo_zero, hi_zero) = over_positive, over_negative, over_zero
    lo = np.minimum(np.minimum(lo_pos, lo_neg), lo_zero)
    hi = np.maximum(np.maximum(hi_pos, hi_neg), hi_zero)
    nan = a.may_zero & b.may_zero | a.may_inf & b.may_inf
    zero = a.may_zero | b.may_inf | (lo == 0) | (hi == 0)  # an end may have underflowed in float64 already
    pos, neg = _product_signs(a, b)
    return make(lo, hi, nan=nan, pos_zero=zero & pos, neg_zero=zero & neg)


def _over_positive(n_lo: Float64, n_hi: Float64, d_lo: Float64, d_hi: Float64) -> tuple[Float64, Float64]:
    """The ends of n/d for d between d_lo > 0 and d_hi; the empty interval if there is no such d. inf/inf counts as 0."""
    lo = n_lo / np.where(n_lo > 0, d_hi, d_lo)
    hi = n_hi / np.where(n_hi > 0, d_lo, d_hi)
    there = (d_lo <= d_hi) & (n_lo <= n_hi)
    lo, hi = np.where(np.isnan(lo), 0.0, lo), np.where(np.isnan(hi), 0.0, hi)
    return np.where(there, lo, np.inf), np.where(there, hi, -np.inf)


def _div(call: Call, a: Bounds, b: Bounds) -> Bounds:
    return quotient(a, b, call.formats[1].smallest)


def _reciprocal(call: Call, a: Bounds) -> Bounds:
    return quotient(make(1.0, 1.0, fraction=False), a, call.formats[0].smallest)


# ---------------------------------------------------------------- signs


def absolute(a: Bounds) -> Bounds:
    """Bounds of |x|."""
    inside = (a.lo <= 0) & (a.hi >= 0)
    lo = np.where(a.empty, np.inf, np.where(inside, 0.0, np.minimum(np.abs(a.lo), np.abs(a.hi))))
    hi = np.where(a.empty, -np.inf, a.magnitude)
    return make(lo, hi, nan=a.may_nan, pos_zero=a.may_zero, neg_zero=False, fraction=~a.integral)


def _abs(call: Call, a: Bounds) -> Bounds:
    magnitude = absolute(a)
    return in_range(call, make(magnitude.lo, magnitude.hi, pos_zero=a.may_zero, neg_zero=False, fraction=~a.integral, fmt=call.format))


def _sign(call: Call, a: Bounds) -> Bounds:
    # the sign of NaN is 0 in PyTorch and NaN elsewhere
    exists = ~a.empty
    lo = np.where(exists, np.where(a.lo < 0, -1.0, np.where(a.may_zero, 0.0, 1.0)), np.inf)
    hi = np.where(exists, np.where(a.hi > 0, 1.0, np.where(a.may_zero, 0.0, -1.0)), -np.inf)
    of_nan = make(np.where(a.may_nan, 0.0, np.inf), np.where(a.may_nan, 0.0, -np.inf), nan=a.may_nan, fraction=False)
    number = make(lo, hi, pos_zero=a.may_zero, neg_zero=a.may_neg_zero, fraction=False)
    return join(number, of_nan)


# ---------------------------------------------------------------- the records

define_op(
    "add",
    "the sum of two numbers",
    lambda call, a, b: a + b,
    _add,
    dangers=(
        Danger("inf-minus-inf", lambda call, a, b: np.isinf(a) & np.isinf(b) & (a != b), "+inf and -inf have no sum."),
        overflow("sum-overflow", "the sum is larger than the largest number of the format."),
    ),
    elementwise=True,
    rounding="nearest",
    monotone=(1, 1),
    inverse=SUM,
)

define_op(
    "sub",
    "the difference of two numbers",
    lambda call, a, b: a - b,
    _sub,
    dangers=(
        Danger("inf-minus-inf", lambda call, a, b: np.isinf(a) & (a == b), "inf - inf has no value."),
        overflow("sum-overflow", "the difference is larger than the largest number of the format."),
    ),
    elementwise=True,
    rounding="nearest",
    monotone=(1, -1),
    inverse=DIFFERENCE,
)

define_op(
    "mul",
    "the product of two numbers",
    lambda call, a, b: a * b,
    _mul,
    dangers=(
        Danger("zero-times-inf", lambda call, a, b: (a == 0) & np.isinf(b) | np.isinf(a) & (b == 0), "0 * inf has no value."),
        overflow("product-overflow", "the product is larger than the largest number of the format."),
    ),
    elementwise=True,
    rounding="nearest",
    inverse=PRODUCT,
)

define_op(
    "square",
    "a number times itself",
    lambda call, a: a * a,
    _square,
    dangers=(overflow("square-overflow", "the square is larger than the largest number of the format."),),
    elementwise=True,
    rounding="nearest",
    inverse=SQUARE,
)

define_op(
    "div",
    "the quotient of two numbers",
    lambda call, a, b: a / b,
    _div,
    dangers=(
        Danger("zero-over-zero", lambda call, a, b: (a == 0) & (b == 0), "0 / 0 has no value."),
        Danger("div-by-zero", lambda call, a, b: np.isfinite(a) & (a != 0) & (b == 0), "a number other than 0 divided by 0 is infinite."),
        Danger("inf-over-inf", lambda call, a, b: np.isinf(a) & np.isinf(b), "inf / inf has no value."),
        Danger(
            "underflow-then-divide",
            lambda call, a, b: np.isfinite(a) & (b != 0) & (np.abs(b) < call.formats[1].tiny),
            "the divisor is so small that the quotient exceeds the largest number of the format.",
        ),
        overflow("product-overflow", "the quotient is larger than the largest number of the format."),
    ),
    elementwise=True,
    rounding="nearest",
    inverse=QUOTIENT,
)

define_op(
    "reciprocal",
    "one divided by a number",
    lambda call, a: 1 / a,
    _reciprocal,
    dangers=(
        Danger("div-by-zero", lambda call, a: a == 0, "1 divided by 0 is infinite."),
        Danger(
            "underflow-then-divide",
            lambda call, a: (a != 0) & finite(a),
            "the divisor is so small that the quotient exceeds the largest number of the format.",
        ),
    ),
    elementwise=True,
    rounding="nearest",
    inverse=RECIPROCAL,
)

define_op("neg", "a number with its sign changed", lambda call, a: -a, _negated, elementwise=True, monotone=(-1,), inverse=NEGATIVE)

define_op("abs", "the absolute value", lambda call, a: np.abs(a), _abs, elementwise=True, low=0.0, inverse=ABSOLUTE)

define_op(
    "sign",
    "the sign of a number: -1, 0 or 1",
    lambda call, a: np.sign(a),
    _sign,
    elementwise=True,
    strict=False,
    monotone=(1,),
    low=-1.0,
    high=1.0,
)
