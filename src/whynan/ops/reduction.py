"""Reductions: sum, product, mean, variance, extremes, counts. Reduced axes stay with size 1."""

from typing import Any

import numpy as np

from whynan.domain.interval import Bounds, join, join_axes, make
from whynan.ir.dtype import FORMATS, Array, Float64, Format, nearest
from whynan.ir.graph import Call
from whynan.ops._groups import aligned, blank, copies, magnitudes, span, uniform
from whynan.ops._opdef import Danger, define_op
from whynan.ops._sums import UNIT64, Fold, along, fitted, summed, unit, unrounded, wide

Axes = tuple[int, ...]

# ---------------------------------------------------------------- what all reductions share


def dims(call: Call) -> Axes:
    """The reduced axes."""
    return tuple(call.attrs["dims"])


def fold_of(call: Call, b: Bounds, axes: Axes) -> Fold:
    """The sum over axes of a value with these bounds."""
    shape = call.shapes[0]
    return along(axes, copies(b, shape, axes), span(shape, axes))


def constant(call: Call, b: Bounds, axes: Axes, value: float, *, nan: bool = False) -> Bounds:
    """Bounds of a reduction over no elements: one number, or only NaN."""
    shape = tuple(1 if i - b.lo.ndim in axes else n for i, n in enumerate(b.shape))
    if nan:
        return make(np.full(shape, np.inf), np.full(shape, -np.inf), nan=True)
    return make(np.full(shape, value), np.full(shape, value), neg_zero=False, fraction=False)


# ---------------------------------------------------------------- sums


def _sum(call: Call, b: Bounds) -> Bounds:
    axes, b = dims(call), aligned(b, len(call.shapes[0]))
    if span(call.shapes[0], axes) == 0:
        return constant(call, b, axes, 0.0)
    contracted = bool(call.attrs.get("contracted"))  # the terms are products that may be added before they are rounded
    b = unrounded(call.format, b) if contracted else b
    return fitted(call.format, summed(call.format, b, fold_of(call, b, axes), rounded=contracted))


def _run_sum(call: Call, x: Array) -> Array:
    return np.asarray(np.sum(x, axis=dims(call), keepdims=True) + (0.0 if x.dtype.kind == "f" else 0)).astype(_total_type(x), copy=False)


def _total_type(x: Array) -> Any:
    return x.dtype if x.dtype.kind == "f" else np.int64


def divided(fmt: Format, total: Bounds, n: float) -> Bounds:
    """Bounds of a sum divided by a positive number, or multiplied by its rounded reciprocal, in the format or in a wider one."""
    lows, highs = [], []
    for form in (fmt, wide(fmt)):
        for lo, hi in ((total.lo / n, total.hi / n), (total.lo * nearest(form, 1 / n), total.hi * nearest(form, 1 / n))):
            lows.append(nearest(fmt, nearest(form, lo)))
            highs.append(nearest(fmt, nearest(form, hi)))
    lo, hi = np.minimum.reduce(lows), np.maximum.reduce(highs)
    lo, hi = blank(lo, hi, total.empty)
    # a sum other than zero may round to a zero of its own sign when it is divided
    reach = n * (fmt.tiny if fmt.flush else fmt.smallest)
    pos = total.may_pos_zero | (total.hi > 0) & (total.lo < reach)
    neg = total.may_neg_zero | (total.lo < 0) & (total.hi > -reach)
    return make(lo, hi, nan=total.may_nan, pos_zero=pos, neg_zero=neg, fmt=fmt)


def _accumulator(call: Call) -> Format:
    return call.format if call.attrs.get("accumulate") == "format" else wide(call.format)


def _mean(call: Call, b: Bounds) -> Bounds:
    axes, b = dims(call), aligned(b, len(call.shapes[0]))
    n = span(call.shapes[0], axes)
    if n == 0:
        return constant(call, b, axes, 0.0, nan=True)
    return divided(call.format, summed(call.format, b, fold_of(call, b, axes), accumulator=_accumulator(call)), n)


def _run_mean(call: Call, x: Array) -> Array:
    n = span(call.shapes[0], dims(call))
    return np.asarray((np.sum(x, axis=dims(call), keepdims=True) + 0.0) / np.asarray(n, x.dtype))


def _var(call: Call, b: Bounds) -> Bounds:
    axes, b = dims(call), aligned(b, len(call.shapes[0]))
    n = span(call.shapes[0], axes)
    freedom = n - call.attrs.get("correction", 1)
    hull = join_axes(b, axes)
    nan = hull.may_nan | hull.may_inf
    if n == 0:
        return constant(call, b, axes, 0.0, nan=True)
    if freedom <= 0:
        return make(np.full(hull.shape, np.inf), np.inf, nan=True)
    acc, centre = _accumulator(call), _centre(call)
    summed_in = acc if centre is call.format else centre
    half_range = np.where(hull.empty, 0.0, hull.hi / 2 - hull.lo / 2)
    drift = (n + 4) * (unit(centre) + UNIT64) * hull.magnitude
    growth = 1 + (n + 8) * (unit(centre) + UNIT64)
    # Welford's running mean errs by `drift` in both factors of each term
    total = n * (half_range**2 + 4 * half_range * drift + drift**2) * growth + n * acc.smallest
    over = (nearest(acc, total) == np.inf) | (nearest(summed_in, n * hull.magnitude * growth) == np.inf)
    hi = np.where(over, np.inf, total / freedom * growth + call.format.smallest)
    # equal elements have variance 0; where they differ surely, rounding may still lose it
    hi = np.where((n == 1) & ~over, 0.0, hi)
    surely = b.empty.any(axis=axes, keepdims=True) if axes else b.empty
    lo, hi = blank(np.where(over, -np.inf, 0.0), nearest(call.format, hi), surely)
    return make(lo, hi, nan=nan | over, neg_zero=False)


def _centre(call: Call) -> Format:
    """The format of the mean that a variance is taken about: that of the attribute `mean`, or the result's."""
    return FORMATS[call.attrs["mean"]] if "mean" in call.attrs else call.format


def _run_var(call: Call, x: Array) -> Array:
    n = span(call.shapes[0], dims(call))
    narrow = _centre(call).numpy if "mean" in call.attrs else x.dtype
    deviation = x - np.mean(x.astype(narrow), axis=dims(call), keepdims=True).astype(x.dtype) if n else x
    total = np.sum(deviation * deviation, axis=dims(call), keepdims=True)
    return np.asarray(total / np.asarray(max(n - call.attrs.get("correction", 1), 0), x.dtype))


# ---------------------------------------------------------------- product


def _prod(call: Call, b: Bounds) -> Bounds:
    axes, b = dims(call), aligned(b, len(call.shapes[0]))
    if span(call.shapes[0], axes) == 0:
        return constant(call, b, axes, 1.0)
    return fitted(call.format, product(call.format, b, fold_of(call, b, axes)))


def product(fmt: Format, b: Bounds, fold: Fold) -> Bounds:
    """Real-valued bounds of the product of the terms `b` in any order."""
    size = magnitudes(b, fmt)
    small, large = np.where(b.empty, 1.0, size.lo), np.where(b.empty, 1.0, size.hi)
    slack = 1 + np.expm1(fold.terms * 2 * (unit(fmt) + UNIT64))
    exact = fold.all((np.frexp(large)[0] == 0.5) | (large == 0)) | (fold.terms == 1)
    below, above = fold.all(large <= 1), fold.all(small >= 1)

    def times(x: Float64) -> Float64:
        value = np.asarray(fold.over(np.multiply, x**fold.copies))
        return np.where(np.isnan(value), np.inf, value)

    high = times(large) * np.where(exact, 1.0, slack)
    low = times(small) * np.where(fold.terms == 1, 1.0, 1 / slack)
    low = np.where(above & fmt.is_float, np.maximum(low, 1.0), low)
    zero = fold.any(b.may_zero)
    over = np.zeros(np.shape(high), bool)
    under = over
    if fmt.is_float:
        over = nearest(fmt, times(np.maximum(large, 1.0)) * slack) == np.inf
        under = times(np.minimum(small, 1.0)) / slack < fmt.tiny
        over, under = over & (fold.terms > 1), under & (fold.terms > 1)
    nan = fold.any(b.may_nan) | fold.any(b.may_inf) & (zero | under) | over & (zero | under)
    # a partial product that rounds up among the subnormals may be multiplied by all the large factors
    high = np.where(under, high + fmt.smallest * times(np.maximum(large, 1.0)) * slack, high)
    high = np.where(below & fmt.is_float, np.minimum(high, 1.0), high)
    # a product that overflows on the way may come to anything in the end
    high, low = np.where(over, np.inf, high), np.where(zero | under | np.isinf(low), 0.0, low)
    positive = fold.all(b.lo >= 0) & ~fold.any(b.may_neg_zero)
    fixed = fold.all((b.lo > 0) | (b.hi < 0))
    odd = fold.over(np.logical_xor, (b.hi < 0) & (fold.copies % 2 == 1))
    lo = np.where(fixed, np.where(odd, -high, low), np.where(fold.all(b.lo >= 0), low, -high))
    hi = np.where(fixed & odd, -low, high)
    lo, hi = blank(lo, hi, fold.any(b.empty))
    whole = ~fold.any(~b.integral)
    vanishes = zero | under
    return make(lo, hi, nan=nan, pos_zero=vanishes & ~(fixed & odd), neg_zero=vanishes & ~positive & ~(fixed & ~odd), fraction=~whole)


# ---------------------------------------------------------------- extremes


def largest(b: Bounds, fold: Fold, fmt: Format) -> Bounds:
    """Bounds of the maximum of the terms; NaN if one is NaN."""
    lo = fold.over(np.maximum, np.where(b.empty, -np.inf, b.lo))
    hi = fold.over(np.maximum, np.where(b.empty, -np.inf, b.hi))
    lo, hi = blank(lo, hi, fold.any(b.empty))
    pos, neg = fold.any(b.may_pos_zero), fold.any(b.may_neg_zero)
    return make(lo, hi, nan=fold.any(b.may_nan), pos_zero=pos, neg_zero=neg, fraction=fold.any(~b.integral), fmt=fmt)


def smallest(b: Bounds, fold: Fold, fmt: Format) -> Bounds:
    """Bounds of the minimum of the terms; NaN if one is NaN."""
    lo = fold.over(np.minimum, np.where(b.empty, np.inf, b.lo))
    hi = fold.over(np.minimum, np.where(b.empty, np.inf, b.hi))
    lo, hi = blank(lo, hi, fold.any(b.empty))
    pos, neg = fold.any(b.may_pos_zero), fold.any(b.may_neg_zero)
    return make(lo, hi, nan=fold.any(b.may_nan), pos_zero=pos, neg_zero=neg, fraction=fold.any(~b.integral), fmt=fmt)


def _amax(call: Call, b: Bounds) -> Bounds:
    axes, b = dims(call), aligned(b, len(call.shapes[0]))
    if span(call.shapes[0], axes) == 0:
        return constant(call, b, axes, 0.0, nan=call.format.is_float)
    return largest(_numbers_only(call, b, -np.inf), fold_of(call, b, axes), call.format)


def _amin(call: Call, b: Bounds) -> Bounds:
    axes, b = dims(call), aligned(b, len(call.shapes[0]))
    if span(call.shapes[0], axes) == 0:
        return constant(call, b, axes, 0.0, nan=call.format.is_float)
    return smallest(_numbers_only(call, b, np.inf), fold_of(call, b, axes), call.format)


def _numbers_only(call: Call, b: Bounds, neutral: float) -> Bounds:
    """The elements as an extreme sees them that may drop NaN: what may be NaN may count as the neutral element as well."""
    if call.attrs.get("nan") != "ignored":
        return b
    return join(b, make(np.where(b.may_nan, neutral, np.inf), np.where(b.may_nan, neutral, -np.inf)))


def _run_extreme(ufunc: Any, neutral: float) -> Any:
    """The reduction by a ufunc; with the attribute `nan` "ignored" NaN elements are left out."""

    def evaluate(call: Call, x: Array) -> Array:
        if call.attrs.get("nan") == "ignored":
            x = np.where(np.isnan(x), np.asarray(neutral, x.dtype), x)
        return np.asarray(ufunc.reduce(x, axis=dims(call), keepdims=True))

    return evaluate


def _positions(call: Call, b: Bounds, sign: float) -> Bounds:
    """Where the largest (sign 1) or smallest (-1) element can stand: NaN counts as more extreme than any number, or is left out."""
    (axis,) = dims(call)
    b = aligned(b, len(call.shapes[0]))
    n = call.shapes[0][axis]
    if uniform(b, (axis,)):
        shape = join_axes(b, (axis,)).shape
        return make(np.zeros(shape), np.full(shape, float(max(n - 1, 0))), neg_zero=False, fraction=False)
    lo, hi = (b.lo, b.hi) if sign > 0 else (-b.hi, -b.lo)
    never = b.empty & ~b.may_nan
    least = np.max(np.where(b.empty | b.may_nan, -np.inf, lo), axis=axis, keepdims=True)
    candidate = ((hi >= least) & ~b.empty | b.may_nan) & ~never
    index = np.arange(n, dtype=np.float64).reshape((n,) + (1,) * (-axis - 1))
    low = np.min(np.where(candidate, index, np.inf), axis=axis, keepdims=True)
    high = np.max(np.where(candidate, index, -np.inf), axis=axis, keepdims=True)
    return make(low, high, neg_zero=False, fraction=False)


def _run_position(find: Any) -> Any:
    return lambda call, x: np.expand_dims(find(x, axis=dims(call)[0]), dims(call)[0])


# ---------------------------------------------------------------- truth


def _truth(b: Bounds) -> tuple[Any, Any]:
    """Where an element is surely true (not zero; NaN is true) and where it may be true."""
    return ~b.may_zero, (b.lo < 0) | (b.hi > 0) | b.may_nan


def _any(call: Call, b: Bounds) -> Bounds:
    axes, b = dims(call), aligned(b, len(call.shapes[0]))
    if span(call.shapes[0], axes) == 0:
        return constant(call, b, axes, 0.0)
    sure, may = (np.any(a, axis=axes, keepdims=True) for a in _truth(b))
    return make(sure * 1.0, may * 1.0, neg_zero=False, fraction=False)


def _all(call: Call, b: Bounds) -> Bounds:
    axes, b = dims(call), aligned(b, len(call.shapes[0]))
    if span(call.shapes[0], axes) == 0:
        return constant(call, b, axes, 1.0)
    sure, may = (np.all(a, axis=axes, keepdims=True) for a in _truth(b))
    return make(sure * 1.0, may * 1.0, neg_zero=False, fraction=False)


def _count(call: Call, b: Bounds) -> Bounds:
    axes, b = dims(call), aligned(b, len(call.shapes[0]))
    m = copies(b, call.shapes[0], axes)
    sure, may = (np.sum(a, axis=axes, keepdims=True) * float(m) for a in _truth(b))
    return make(sure, may, neg_zero=False, fraction=False)


# ---------------------------------------------------------------- the records


def some(test: Any) -> Any:
    """A danger's condition from a test of the input's elements: true where any of the reduced ones passes."""
    return lambda call, x: np.any(test(x), axis=dims(call), keepdims=True)


def _both_infinities(call: Call, x: Array) -> Array:
    axes = dims(call)
    return np.asarray(np.any(x == np.inf, axis=axes, keepdims=True) & np.any(x == -np.inf, axis=axes, keepdims=True))


def _finite_sum_overflows(call: Call, x: Array) -> Array:
    axes = dims(call)
    finite = np.all(np.isfinite(x), axis=axes, keepdims=True)
    return np.asarray(finite & ~(np.sum(np.abs(x.astype(np.float64)), axis=axes, keepdims=True) <= call.format.max))


def _nothing(call: Call, *arrays: Array) -> Any:
    return np.full((1,) * len(call.shape), span(call.shapes[0], dims(call)) == 0)


def _no_freedom(call: Call, x: Array) -> Any:
    n = span(call.shapes[0], dims(call))
    return np.full((1,) * len(call.shape), 0 < n <= call.attrs.get("correction", 1))


INF_MINUS_INF = Danger("inf-minus-inf", _both_infinities, "+inf and -inf among the terms have no sum.")
SUM_OVERFLOW = Danger("sum-overflow", _finite_sum_overflows, "the running sum exceeds the largest number of the format.")
EMPTY = Danger("empty-reduction", _nothing, "there is no element to reduce: 0 / 0 has no value.")

define_op(
    "sum",
    "the sum of the elements",
    _run_sum,
    _sum,
    dangers=(INF_MINUS_INF, SUM_OVERFLOW),
    monotone=(1,),
)

define_op(
    "mean", "the sum of the elements divided by their number", _run_mean, _mean, dangers=(EMPTY, INF_MINUS_INF, SUM_OVERFLOW), monotone=(1,)
)

define_op(
    "var",
    "the mean squared distance from the mean",
    _run_var,
    _var,
    dangers=(
        EMPTY,
        Danger("zero-variance", _no_freedom, "the number of elements minus the correction is not positive: the variance divides by zero."),
        Danger("inf-minus-inf", some(np.isinf), "an infinite element has no distance from an infinite mean."),
        Danger(
            "square-overflow",
            some(lambda x: np.isfinite(x) & (np.abs(x) > 0)),
            "the squared distances from the mean exceed the largest number of the format.",
        ),
    ),
)

define_op(
    "prod",
    "the product of the elements",
    lambda call, x: np.prod(x, axis=dims(call), keepdims=True),
    _prod,
    dangers=(
        Danger(
            "zero-times-inf",
            lambda call, x: some(lambda a: a == 0)(call, x) & some(np.isinf)(call, x),
            "0 * inf among the factors has no value.",
        ),
        Danger(
            "product-overflow",
            lambda call, x: np.all(np.isfinite(x), axis=dims(call), keepdims=True),
            "the product exceeds the largest number of the format.",
        ),
    ),
)

define_op("amax", "the largest element", _run_extreme(np.maximum, -np.inf), _amax, monotone=(1,))
define_op("amin", "the smallest element", _run_extreme(np.minimum, np.inf), _amin, monotone=(1,))
define_op("argmax", "the position of the largest element", _run_position(np.argmax), lambda call, b: _positions(call, b, 1.0))
define_op("argmin", "the position of the smallest element", _run_position(np.argmin), lambda call, b: _positions(call, b, -1.0))
define_op("any", "whether an element is not zero", lambda call, x: np.any(x, axis=dims(call), keepdims=True), _any)
define_op("all", "whether every element is not zero", lambda call, x: np.all(x, axis=dims(call), keepdims=True), _all)
define_op(
    "count_nonzero", "the number of elements that are not zero", lambda call, x: np.sum(x != 0, axis=dims(call), keepdims=True), _count
)
