"""Norms, softmax, log-softmax and log-sum-exp: reductions through exponentials, logarithms and roots."""

from typing import Any

import numpy as np

from whynan.domain.interval import Bounds, make
from whynan.ir.dtype import Array, Float64, Format, nearest
from whynan.ir.graph import Call
from whynan.ops._groups import aligned, blank, copies, magnitudes, span
from whynan.ops._opdef import Danger, define_op
from whynan.ops._sums import UNIT64, Fold, fitted, summed, unit, wide
from whynan.ops.reduction import constant, dims, fold_of, largest, smallest, some

# ---------------------------------------------------------------- norms


def _norm(call: Call, b: Bounds) -> Bounds:
    axes, b = dims(call), aligned(b, len(call.shapes[0]))
    if span(call.shapes[0], axes) == 0:
        return constant(call, b, axes, 0.0)
    size = magnitudes(b, call.format)
    fold = fold_of(call, b, axes)
    return norm_bounds(call.format, size, fold, float(call.attrs.get("ord", 2)))


def norm_bounds(fmt: Format, size: Bounds, fold: Fold, p: float) -> Bounds:
    """Bounds of the p-norm of elements whose magnitudes have the bounds `size`."""
    if p == np.inf:
        return largest(size, fold, fmt)
    if p == -np.inf:
        return smallest(size, fold, fmt)
    if p == 1:
        return fitted(fmt, summed(fmt, size, fold))
    if p == 0:
        sure, may = fold.add(~size.may_zero * 1.0), fold.add(((size.hi > 0) | size.may_nan) * 1.0)
        return make(nearest(fmt, sure), nearest(fmt, may), nan=fold.any(size.may_nan), neg_zero=False, fraction=False)
    if p < 0:
        most = np.where(size.empty, 0.0, size.hi)
        hi = fold.over(np.minimum, most) * (1 + 64 * max(1.0, -1 / p) * fmt.eps)
        # where all powers underflow the norm is the root of 0: infinite
        hi = np.where(fold.all(most**p < 4 * wide(fmt).tiny), np.inf, hi)
        return make(np.zeros_like(hi), nearest(fmt, hi + fmt.smallest), nan=fold.any(size.may_nan), neg_zero=False)
    return _power_norm(fmt, size, fold, p)


def _power_norm(fmt: Format, size: Bounds, fold: Fold, p: float) -> Bounds:
    """The norm for a finite p > 0: powers that underflow are lost, a sum of powers that overflows is infinite."""
    acc = wide(fmt)
    low, high = np.where(size.empty, 0.0, size.lo), np.where(size.empty, 0.0, size.hi)
    u = unit(fmt) + UNIT64
    power = 1 if p == 2 else 8  # ulps of one power
    slack = (fold.terms + power) * u
    sum_low, sum_high = fold.add(_power(low, p)), fold.add(_power(high, p))
    exact = (p == 2) & _whole_squares(fmt, high, fold, sum_high)
    grown = np.where(exact, sum_high, sum_high * (1 + slack) + fold.terms * acc.smallest)
    over = nearest(acc, grown) == np.inf
    hi = _root(grown, p) * np.where(exact, 1.0, 1 + _root_error(grown, p, u))
    lost = fold.terms * 2 * acc.tiny  # a power below `tiny` may be flushed or rounded away
    kept = np.maximum(sum_low * (1 - slack), fold.over(np.maximum, _power(low, p)) * (1 - power * u)) - lost
    lo = np.where(kept > 0, _root(np.maximum(kept, 0.0), p) * (1 - _root_error(kept, p, u)), 0.0)
    # float64 itself may overflow where a library scales, or takes the magnitude of a single element
    lo = np.where(np.isfinite(sum_low), np.maximum(lo, 0.0), fold.over(np.maximum, low) * (1 - 8 * u))
    lo, hi = np.where(np.isnan(lo), 0.0, lo), np.where(over, np.inf, np.maximum(hi, fold.over(np.maximum, high)))
    lo, hi = blank(nearest(fmt, lo), nearest(fmt, hi), fold.any(size.empty))
    return make(lo, hi, nan=fold.any(size.may_nan), neg_zero=False, fmt=fmt)


def _power(x: Float64, p: float) -> Float64:
    return np.asarray(x * x if p == 2 else x**p)


def _root(x: Any, p: float) -> Any:
    return np.sqrt(x) if p == 2 else np.power(x, 1 / p)


def _root_error(x: Any, p: float, u: float) -> Any:
    """Relative error of the root: of the function itself, and of the rounded exponent 1/p."""
    if p == 2:
        return 2 * u
    spread = np.abs(np.log(np.where((x > 0) & np.isfinite(x), x, 1.0)))
    return u * (8 + 2 * spread / p)


def _whole_squares(fmt: Format, x: Float64, fold: Fold, total: Float64) -> Array:
    """Whether the squares are whole numbers whose sum is exact, so that only the root rounds (correctly)."""
    return np.asarray(fold.all(x == np.floor(x)) & (total <= 1 / fmt.eps) & (total < 2.0**52))


def _run_norm(call: Call, x: Array) -> Array:
    p = float(call.attrs.get("ord", 2))
    axes = dims(call)
    size = np.abs(x)
    if p in (np.inf, -np.inf):
        return np.asarray((np.max if p > 0 else np.min)(size, axis=axes, keepdims=True))
    if p == 0:
        return np.asarray(np.sum(size != 0, axis=axes, keepdims=True)).astype(x.dtype)
    if p == 1:
        return np.asarray(np.sum(size, axis=axes, keepdims=True))
    if p == 2:
        return np.asarray(np.sqrt(np.sum(size * size, axis=axes, keepdims=True)))
    return np.asarray(np.sum(size ** x.dtype.type(p), axis=axes, keepdims=True) ** x.dtype.type(1 / p))


# ---------------------------------------------------------------- log-sum-exp of intervals


def _others(x: Float64, axis: int, n: int) -> Float64:
    """log(sum of exp) over the other elements of each row, where each group of size 1 stands for n elements."""
    if x.shape[axis] == 1:
        return np.asarray(x + (np.log(n - 1) if n > 1 else -np.inf))
    rows = np.moveaxis(x, axis, -1)
    none = np.full((*rows.shape[:-1], 1), -np.inf)
    before = np.concatenate([none, np.logaddexp.accumulate(rows, axis=-1)[..., :-1]], axis=-1)
    after = np.concatenate([np.logaddexp.accumulate(rows[..., ::-1], axis=-1)[..., -2::-1], none], axis=-1)
    return np.moveaxis(np.logaddexp(before, after), -1, axis)


def _error(total: Float64, x: Float64, n: int) -> Float64:
    """How far total - x can be off, for a log-sum-exp of n numbers in float64.

    A step on the way, at m, errs by about u |m|, and moves the total t by exp(m - t) times that: by at most u (|t| + 1).
    """
    size = np.where(np.isfinite(total), np.abs(total), 0.0) + np.where(np.isfinite(x), np.abs(x), 0.0)
    return np.asarray(8 * (n + 4) * UNIT64 * (1 + size))


def _scaled(fmt: Format, b: Bounds, axis: int, n: int) -> tuple[Float64, Float64, Any, Any]:
    """The log of the softmax, exactly: its ends, where NaN comes out, where no number does."""
    lo, hi = np.where(b.empty, 0.0, b.lo), np.minimum(np.where(b.empty, 0.0, b.hi), fmt.max)
    lo = np.minimum(lo, fmt.max)
    others_lo, others_hi = _others(lo, axis, n), _others(hi, axis, n)
    below, above = others_lo - hi, others_hi - lo
    below, above = (np.where(np.isnan(a), edge, a) for a, edge in ((below, -np.inf), (above, np.inf)))
    alone = others_hi == -np.inf  # no other element can be more than -inf: a number comes out as log(1)
    low = np.where(alone, 0.0, np.where(lo == -np.inf, -np.inf, -np.logaddexp(0.0, above + _error(others_hi, lo, n))))
    high = np.where(hi == -np.inf, -np.inf, -np.logaddexp(0.0, below - _error(others_lo, hi, n)))
    low = np.minimum(low, high)
    masked = np.logical_and.reduce(b.lo == -np.inf, axis=axis, keepdims=True)
    nan = np.logical_or.reduce(b.may_nan | (b.hi == np.inf), axis=axis, keepdims=True) | masked
    never = np.logical_or.reduce(b.empty | (b.lo == np.inf), axis=axis, keepdims=True)
    never = never | np.logical_and.reduce(b.hi == -np.inf, axis=axis, keepdims=True)
    return low, high, nan, never


def _axis(call: Call) -> int:
    return int(call.attrs["dim"])


def _softmax(call: Call, b: Bounds) -> Bounds:
    fmt, axis, b = call.format, _axis(call), aligned(b, len(call.shapes[0]))
    n = call.shapes[0][axis]
    if n == 0:
        return b
    low, high, nan, never = _scaled(fmt, b, axis, n)
    acc = wide(fmt)
    # x - max errs by half an ulp, which exp turns into a relative error; below the last exponent all is 0 anyway
    reach = np.minimum(np.maximum(-low, -high), -2 * np.log(acc.smallest))
    slack = (reach + n + 16) * (unit(fmt) + UNIT64)
    lo, hi = np.exp(low) * (1 - slack), np.minimum(np.exp(high) * (1 + slack) + fmt.smallest, 1.0)
    lo = np.where(lo < 2 * acc.tiny, 0.0, lo)
    lo, hi = np.where(low >= 0, 1.0, lo), np.where(high == -np.inf, 0.0, hi)
    lo, hi = blank(nearest(fmt, lo), nearest(fmt, hi), never)
    return make(lo, hi, nan=nan, neg_zero=False, fmt=fmt)


def _log_softmax(call: Call, b: Bounds) -> Bounds:
    fmt, axis, b = call.format, _axis(call), aligned(b, len(call.shapes[0]))
    n = call.shapes[0][axis]
    if n == 0:
        return b
    low, high, nan, never = _scaled(fmt, b, axis, n)
    u = unit(fmt) + UNIT64
    lo = low * (1 + 4 * u) - np.where(n > 1, (2 * n + 16) * u, 0.0)
    hi = np.minimum(high * (1 - 4 * u) + (2 * n + 16) * u, 0.0)
    hi = np.where(high == -np.inf, -np.inf, hi)
    lo, hi = blank(nearest(fmt, lo), nearest(fmt, hi), never)
    return make(lo, hi, nan=nan, fmt=fmt)


def _logsumexp(call: Call, b: Bounds) -> Bounds:
    axes, b = dims(call), aligned(b, len(call.shapes[0]))
    n = span(call.shapes[0], axes)
    if n == 0:
        return constant(call, b, axes, -np.inf)
    fold = fold_of(call, b, axes)
    return log_sum(call.format, b, fold, np.log(copies(b, call.shapes[0], axes)))


def log_sum(fmt: Format, b: Bounds, fold: Fold, more: float) -> Bounds:
    """Bounds of log(sum(exp)) over a fold; `more` is the log of the fold's copies. Infinities flow through as they are."""
    lo, hi = np.where(b.empty, 0.0, b.lo), np.where(b.empty, 0.0, b.hi)
    low, high = fold.over(np.logaddexp, lo) + more, fold.over(np.logaddexp, hi) + more
    u = unit(fmt) + UNIT64
    # an infinity exists only as such: the sum of finite exponentials is at most log(n) above the largest
    low = np.where(np.isfinite(low), low - u * (4 * np.abs(low) + 2 * fold.terms + 16), low)
    high = np.where(np.isfinite(high), high + u * (4 * np.abs(high) + 2 * fold.terms + 16), high)
    low = np.maximum(nearest(fmt, low), fold.over(np.maximum, lo))
    high = np.where(fold.terms == 1, fold.over(np.maximum, hi), nearest(fmt, high))
    low, high = blank(low, high, fold.any(b.empty))
    return make(low, high, nan=fold.any(b.may_nan), fmt=fmt)


def _run_softmax(call: Call, x: Array) -> Array:
    e = np.exp(x - np.max(x, axis=_axis(call), keepdims=True, initial=-np.inf))
    return np.asarray(e / np.sum(e, axis=_axis(call), keepdims=True))


def _run_log_softmax(call: Call, x: Array) -> Array:
    d = x - np.max(x, axis=_axis(call), keepdims=True, initial=-np.inf)
    return np.asarray(d - np.log(np.sum(np.exp(d), axis=_axis(call), keepdims=True)))


def _run_logsumexp(call: Call, x: Array) -> Array:
    top = np.max(x, axis=dims(call), keepdims=True, initial=-np.inf)
    shift = np.where(np.isfinite(top), top, x.dtype.type(0))
    return np.asarray(np.log(np.sum(np.exp(x - shift), axis=dims(call), keepdims=True)) + shift)


# ---------------------------------------------------------------- the records


def _row(test: Any) -> Any:
    return lambda call, x: test(x, _axis(call))


ALL_MASKED = Danger(
    "all-masked-softmax",
    _row(lambda x, axis: np.all(x == -np.inf, axis=axis, keepdims=True)),
    "every entry of the row is -inf (all masked): the softmax is 0 / 0.",
)
INFINITE_MAX = Danger(
    "inf-minus-inf",
    _row(lambda x, axis: np.any(x == np.inf, axis=axis, keepdims=True)),
    "the row's largest entry is +inf: subtracting it from itself has no value.",
)

define_op(
    "norm",
    "the p-norm of the elements",
    _run_norm,
    _norm,
    dangers=(
        Danger(
            "square-overflow",
            some(lambda x: np.isfinite(x)),
            "the sum of the powers of the elements exceeds the largest number of the format, although the norm may not.",
        ),
    ),
    steep="norm-grad-at-zero",
)

define_op("softmax", "exponentials divided by their sum", _run_softmax, _softmax, dangers=(ALL_MASKED, INFINITE_MAX))

define_op(
    "log_softmax",
    "the logarithm of the softmax",
    _run_log_softmax,
    _log_softmax,
    dangers=(
        ALL_MASKED,
        INFINITE_MAX,
        Danger(
            "sum-overflow",
            lambda call, x: np.isfinite(x),
            "the difference to the row's largest entry exceeds the largest number of the format.",
        ),
    ),
)

define_op(
    "logsumexp",
    "the logarithm of the sum of exponentials",
    _run_logsumexp,
    _logsumexp,
    dangers=(
        Danger(
            "log-of-zero",
            lambda call, x: np.all(x == -np.inf, axis=dims(call), keepdims=True),
            "every entry is -inf: the sum of exponentials is 0 and its logarithm -inf.",
        ),
    ),
    monotone=(1,),
)
