"""Bounds of rounded sums, whatever the order of summation and whether it runs in the format or in a wider one.

The computed sum of n terms differs from the exact one by at most (n - 1) u sum|x|, u half the format's eps, in any order and without
a condition on n (Jeannerod and Rump, 2013). And it is monotone in every term, for rounding is, so the terms' ends bound it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from whynan.domain.interval import FRACTION, Bounds, make
from whynan.ir.dtype import FLOAT32, Array, Float64, Format, nearest, next_down, next_up
from whynan.ops._groups import blank

UNIT64 = 2.0**-53  # relative error of one operation on the bounds themselves


@dataclass(frozen=True, slots=True)
class Fold:
    """How terms come together: `over(ufunc, a)` folds the array with a ufunc, `copies` elements stand behind each group.

    `terms` is the number of terms in each result (a number or an array), with all copies.
    """

    over: Callable[[Any, Array], Array]
    copies: int
    terms: Any

    def add(self, a: Array) -> Float64:
        """The exact sum, up to float64 rounding."""
        return np.asarray(self.over(np.add, a) * self.copies, np.float64)

    def any(self, a: Array) -> Array:
        """Whether any term has the property."""
        return self.over(np.logical_or, a)

    def all(self, a: Array) -> Array:
        """Whether all terms have the property."""
        return self.over(np.logical_and, a)


def along(axes: tuple[int, ...], copies: int, terms: Any) -> Fold:
    """A fold over axes, which stay with size 1."""
    return Fold(lambda ufunc, a: np.asarray(ufunc.reduce(a, axis=axes, keepdims=True)) if axes else np.asarray(a), copies, terms)


def wide(fmt: Format) -> Format:
    """The format in which PyTorch accumulates on a CPU: float32 for the half formats."""
    return FLOAT32 if fmt.is_float and fmt.numpy.itemsize < 4 else fmt


def unit(fmt: Format) -> float:
    """The largest relative error of one rounded operation."""
    return fmt.eps / 2 if fmt.is_float else 0.0


def summed(fmt: Format, b: Bounds, fold: Fold, *, accumulator: Format | None = None, rounded: bool = False) -> Bounds:
    """Real-valued bounds of the computed sum of terms `b`; what overflows `accumulator` (the format itself by default) is infinite.

    `rounded` says that each term is a product with a rounding, and possibly an underflow, of its own.
    """
    acc = accumulator or fmt
    never = fold.any(b.empty)
    lo, hi = np.where(b.empty, 0.0, b.lo), np.where(b.empty, 0.0, b.hi)
    slack = (np.asarray(fold.terms) + rounded) * unit(fmt) + (np.asarray(fold.terms) + 4) * UNIT64
    slack = np.where((np.asarray(fold.terms) == 1) & (not rounded), 0.0, slack)
    absolute = fold.terms * np.where((np.asarray(fold.terms) == 1) & (not rounded), 0.0, _lost(fmt, rounded)) if fmt.is_float else 0.0
    size = np.maximum(np.abs(lo), np.abs(hi))
    ends = _Ends(fmt, size, fold, rounded, slack, absolute)
    low, high = ends.least(lo), ends.most(hi)
    up, down = ends.most(np.maximum(hi, 0.0)), ends.least(np.minimum(lo, 0.0))
    over, under = np.zeros(np.shape(up), bool), np.zeros(np.shape(down), bool)
    if fmt.is_float:
        over, under = nearest(acc, up) == np.inf, nearest(acc, down) == -np.inf
    positive, negative = fold.all(lo >= 0), fold.all(hi <= 0)
    low = np.where(positive, np.maximum(low, fold.over(np.maximum, lo)), low)
    high = np.where(negative, np.minimum(high, fold.over(np.minimum, hi)), high)
    infinite = _infinities(b, fold)
    single = np.asarray(fold.terms) == 1
    nan = fold.any(b.may_nan) | (over & under & ~single) | infinite
    zeros = fold.all(b.may_zero)
    mixed = ~positive & ~negative & ~single
    low, high = np.where(under, -np.inf, low), np.where(over, np.inf, high)
    low, high = blank(low, high, never | (fold.any(b.lo == np.inf) & fold.any(b.hi == -np.inf)))
    # a fused multiply-add may round a tiny negative remainder to -0
    neg_zero = mixed | fold.any(b.may_neg_zero) & zeros if rounded else fold.all(b.may_neg_zero)
    pos_zero = mixed | zeros
    return make(low, high, nan=nan, pos_zero=pos_zero, neg_zero=neg_zero, fraction=fold.any(~b.integral))


def _lost(fmt: Format, rounded: bool) -> float:
    """How much of one term underflow can lose: of a product as it is rounded, and of any partial sum where subnormals become zero."""
    if fmt.flush:
        return 2 * fmt.tiny if rounded else fmt.tiny
    return fmt.smallest if rounded else 0.0


@dataclass(frozen=True, slots=True)
class _Ends:
    """How far rounding can move the ends of a sum: terms of magnitude `size`, relative error `slack`, absolute error `absolute`."""

    fmt: Format
    size: Float64
    fold: Fold
    rounded: bool
    slack: Any
    absolute: Any

    def most(self, x: Float64) -> Float64:
        """The largest computed sum of terms up to x."""
        return -self.least(-x)

    def least(self, x: Float64) -> Float64:
        """The least computed sum of terms from x on; the exact one where no order of summation rounds."""
        total, size = self.fold.add(x), self.fold.add(np.abs(x))
        # in float64 the sum itself may overflow on the way, whatever it comes to in the end
        lost = np.isnan(total) | np.isinf(size) & ~self.fold.any(np.isinf(x))
        total = np.where(lost, -np.inf, total)
        # t - s|t| grows with t only while s <= 1; beyond that every term counts with the error of its largest magnitude
        error = self.slack * np.where(self.slack <= 1, size, self.fold.add(self.size)) + self.absolute
        widened = np.where(np.isfinite(size), total - error, total)
        return np.asarray(np.where(self._exact(x, size), total, widened))

    def _exact(self, x: Float64, size: Float64) -> Any:
        if not self.rounded:
            return _exact(self.fmt, x, self.fold, size)
        if self.fmt.eps < 2.0**-50:
            return False  # the products were rounded to float64 already
        return self.fold.all(nearest(self.fmt, x) == x) & _exact(self.fmt, x, self.fold, size)


def _exact(fmt: Format, x: Float64, fold: Fold, size: Float64) -> Array:
    """Whether every partial sum, in any order, is representable: all terms are multiples of a grain, and 2^p grains hold their sum."""
    fraction, exponent = np.frexp(np.where(np.isfinite(x), x, 0.0))
    whole = (fraction * 2.0**53).astype(np.int64)
    grain = np.where(whole == 0, np.inf, np.ldexp((whole & -whole).astype(np.float64), exponent - 53))
    limit = 2 / fmt.eps if fmt.is_float else 2.0**53
    least = fold.over(np.minimum, grain)
    return np.asarray(size <= least * limit) & np.isfinite(size) & ((not fmt.flush) | (least >= fmt.tiny))


def _infinities(b: Bounds, fold: Fold) -> Array:
    """Whether one term may be +inf while another is -inf."""
    plus, minus = fold.any(b.hi == np.inf), fold.any(b.lo == -np.inf)
    either = fold.add(((b.hi == np.inf) | (b.lo == -np.inf)).astype(np.float64))
    return plus & minus & (either > 1)


def unrounded(fmt: Format, b: Bounds) -> Bounds:
    """Bounds of exact products from those of their roundings: half a unit further out. Whole numbers need no rounding.

    A zero may be what is left of a product that underflows; where subnormals are flushed, a sum that begins with it is flushed too.
    """
    below, above = next_down(fmt, b.lo), next_up(fmt, b.hi)
    lo = np.where(b.integral | (b.lo == 0) | np.isinf(below), b.lo, b.lo / 2 + below / 2)
    hi = np.where(b.integral | (b.hi == 0) | np.isinf(above), b.hi, b.hi / 2 + above / 2)
    if fmt.flush or not fmt.is_float:
        return Bounds(lo, hi, b.flags)
    under, over = (b.lo == 0) & b.may_neg_zero, (b.hi == 0) & b.may_pos_zero
    lo, hi = np.where(under, -fmt.smallest, lo), np.where(over, fmt.smallest, hi)
    return Bounds(lo, hi, b.flags | (under | over) * FRACTION)


def fitted(fmt: Format, b: Bounds) -> Bounds:
    """Bounds of a representable result from real-valued ones: ends move to the format, wrapped integers become anything."""
    if fmt.is_float:
        lo, hi = nearest(fmt, b.lo), nearest(fmt, b.hi)
    else:
        least = 0.0 if fmt.kind == "bool" or fmt.name.startswith("u") else -fmt.max - 1
        wraps = (b.lo < least) | (b.hi > fmt.max)
        lo, hi = np.where(wraps & ~b.empty, least, b.lo), np.where(wraps & ~b.empty, fmt.max, b.hi)
    return make(lo, hi, nan=b.may_nan, pos_zero=b.may_pos_zero, neg_zero=b.may_neg_zero, fraction=~b.integral, fmt=fmt)
