"""Fused multiply-add, and what a compiler may do in either of two ways."""

import numpy as np

from whynan.domain.interval import Bounds, join, make
from whynan.ir.dtype import FLOAT32, Array, Float64, Format, nearest
from whynan.ir.graph import Call
from whynan.ops._opdef import OPS, Danger, define_op
from whynan.ops._parts import overflow
from whynan.ops.linalg import products


def _either(call: Call, *ways: Bounds) -> Bounds:
    return join(*ways)


def _fma(call: Call, a: Array, b: Array, c: Array) -> Array:
    """In float64 the product of two narrower numbers is exact."""
    wide = a.astype(np.float64) * b.astype(np.float64) + c.astype(np.float64)
    return np.asarray(wide).astype(a.dtype)


def _below(a: Float64, b: Float64) -> Float64:
    """A float64 not above a + b: where the sum was rounded up, the next smaller one."""
    total = a + b
    part = total - a
    error = (a - (total - part)) + (b - part)
    return np.where(error < 0, np.nextafter(total, -np.inf), total)


def _spread(fmt: Format, b: Bounds) -> Bounds:
    """Bounds of exact products from those computed in float64, where a product of two float64 is rounded already."""
    if fmt.eps > 2.0**-50:
        return b
    lo, hi = (np.where((x == 0) | np.isinf(x), x, np.nextafter(x, to)) for x, to in ((b.lo, -np.inf), (b.hi, np.inf)))
    return make(lo, hi, nan=b.may_nan, pos_zero=b.may_pos_zero, neg_zero=b.may_neg_zero)


def _fma_bounds(call: Call, a: Bounds, b: Bounds, c: Bounds) -> Bounds:
    product = _spread(call.format, products(call.format, a, b))
    total = OPS["add"].transfer(call, product, c)
    lo, hi = _below(product.lo, c.lo), -_below(-product.hi, -c.hi)
    lo, hi = np.where(np.isfinite(total.lo), lo, total.lo), np.where(np.isfinite(total.hi), hi, total.hi)
    if call.format.numpy.itemsize == 2:  # rounded to float32 on the way, or not
        lo, hi = np.minimum(lo, nearest(FLOAT32, lo)), np.maximum(hi, nearest(FLOAT32, hi))
    # a tiny remainder may round to a zero of its own sign
    pos, neg = total.may_pos_zero | (hi > 0), total.may_neg_zero | (lo < 0)
    return make(lo, hi, nan=total.may_nan | product.may_nan, pos_zero=pos, neg_zero=neg)


define_op(
    "either",
    "a value that the compiler may compute in one way or another",
    lambda call, first, *others: first,
    _either,
    elementwise=True,
    strict=False,
)

define_op(
    "fma",
    "a product plus a number, rounded once",
    _fma,
    _fma_bounds,
    dangers=(
        Danger("zero-times-inf", lambda call, a, b, c: (a == 0) & np.isinf(b) | np.isinf(a) & (b == 0), "0 * inf has no value."),
        Danger("inf-minus-inf", lambda call, a, b, c: np.isinf(c) & (np.isinf(a) | np.isinf(b)), "+inf and -inf have no sum."),
        overflow("sum-overflow", "the sum is larger than the largest number of the format."),
    ),
    elementwise=True,
    rounding="nearest",
)
