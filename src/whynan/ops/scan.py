"""Running reductions, sorting and selection along one axis."""

from collections.abc import Callable
from typing import Any

import numpy as np

from whynan.domain.interval import Bounds, apply, join, join_axes, make, top
from whynan.ir.dtype import Array, Float64
from whynan.ir.graph import Call
from whynan.ops._groups import aligned, spread_axes, uniform
from whynan.ops._opdef import Danger, define_op
from whynan.ops._sums import Fold, along, fitted, summed, unrounded
from whynan.ops.normalise import log_sum
from whynan.ops.reduction import largest, product, smallest


def _axis(call: Call) -> int:
    return int(call.attrs["dim"]) if call.shapes[0] else -1


def _length(call: Call) -> int:
    return call.shapes[0][_axis(call)] if call.shapes[0] else 1


def _rows(call: Call, b: Bounds) -> Bounds:
    """The bounds with at least one dimension, so that a number counts as a row of one element."""
    return aligned(b, max(len(call.shapes[0]), 1))


def _back(call: Call, b: Bounds) -> Bounds:
    return b if call.shapes[0] else apply(b, lambda a: a.reshape(a.shape[:-1]))


def _running(axis: int, n: int) -> Fold:
    """The fold of each element with those before it."""
    terms = np.arange(1.0, n + 1).reshape((n,) + (1,) * (-axis - 1))
    return Fold(lambda ufunc, a: np.asarray(ufunc.accumulate(a, axis=axis)), 1, terms)


# ---------------------------------------------------------------- running reductions


def _scan(total: Callable[[Call, Bounds, Fold], Bounds], ends: bool) -> Callable[[Call, Bounds], Bounds]:
    """A transfer from bounds of a fold. `ends` says that for equal terms the first and the last prefix bound all between."""

    def transfer(call: Call, b: Bounds) -> Bounds:
        axis, n, b = _axis(call), _length(call), _rows(call, b)
        if n == 0:
            return _back(call, b)
        wide = spread_axes(b, call.shapes[0] or (1,), (axis,))
        if wide.shape[axis] == n:
            return _back(call, total(call, wide, _running(axis, n)))
        if not ends:
            return _back(call, join(apply(join_axes(b, (axis,)), np.zeros_like), top(call.format, b.lo.ndim)))
        return _back(call, join(*(total(call, wide, along((axis,), k, k)) for k in (1, n))))

    return transfer


def _cumsum(call: Call, b: Bounds, fold: Fold) -> Bounds:
    contracted = bool(call.attrs.get("contracted"))
    return fitted(call.format, summed(call.format, unrounded(call.format, b) if contracted else b, fold, rounded=contracted))


def _cumprod(call: Call, b: Bounds, fold: Fold) -> Bounds:
    return fitted(call.format, product(call.format, b, fold))


def _logcumsumexp(call: Call, b: Bounds, fold: Fold) -> Bounds:
    return log_sum(call.format, b, fold, np.log(fold.copies))


def _extreme(find: Callable[..., Bounds]) -> Callable[[Call, Bounds], Bounds]:
    def transfer(call: Call, b: Bounds) -> Bounds:
        axis, b = _axis(call), _rows(call, b)
        if uniform(b, (axis,)) or _length(call) == 0:
            return _back(call, b)
        return _back(call, find(b, _running(axis, _length(call)), call.format))

    return transfer


def _accumulated(ufunc: Any) -> Callable[[Call, Array], Array]:
    return lambda call, x: np.asarray(ufunc.accumulate(np.atleast_1d(x), axis=_axis(call), dtype=_wide_integer(x))).reshape(x.shape)


def _wide_integer(x: Array) -> Any:
    return np.int64 if x.dtype.kind in "iub" else x.dtype


# ---------------------------------------------------------------- order


def _sorted_ends(call: Call, b: Bounds, descending: bool) -> Bounds:
    """Bounds of the sorted rows: the k-th element is at least the k-th of the lower ends and at most the k-th of the upper ones."""
    axis, b = _axis(call), _rows(call, b)
    if uniform(b, (axis,)):
        return b
    loose = np.any(b.may_nan | b.empty, axis=axis, keepdims=True)  # NaN counts as the largest and shifts the others
    all_of_them = join_axes(b, (axis,))

    def ordered(x: Float64) -> Float64:
        y = np.sort(x, axis=axis)
        return np.flip(y, axis) if descending else y

    lo = np.where(loose, all_of_them.lo, ordered(b.lo))
    hi = np.where(loose, all_of_them.hi, ordered(b.hi))
    return make(
        lo,
        hi,
        nan=all_of_them.may_nan,
        pos_zero=all_of_them.may_pos_zero,
        neg_zero=all_of_them.may_neg_zero,
        fraction=~all_of_them.integral,
    )


def _first(call: Call, b: Bounds, start: int, stop: int) -> Bounds:
    axis = _axis(call)
    if uniform(b, (axis,)):
        return _back(call, b)
    index = (..., slice(start, stop)) + (slice(None),) * (-axis - 1)
    return _back(call, apply(b, lambda a: np.ascontiguousarray(a[index])))


def _sort(call: Call, b: Bounds) -> Bounds:
    return _back(call, _sorted_ends(call, b, bool(call.attrs.get("descending", False))))


def _topk(call: Call, b: Bounds) -> Bounds:
    if not call.attrs.get("sorted", True):  # in any order
        return _back(call, join_axes(_rows(call, b), (_axis(call),)))
    return _first(call, _sorted_ends(call, b, bool(call.attrs.get("largest", True))), 0, int(call.attrs["k"]))


def _kth(call: Call, b: Bounds) -> Bounds:
    k = int(call.attrs["k"])
    return _first(call, _sorted_ends(call, b, False), k - 1, k)


def _indices(call: Call, b: Bounds) -> Bounds:
    one = (1,) * len(call.shape)
    return make(np.zeros(one), np.full(one, float(max(_length(call) - 1, 0))), neg_zero=False, fraction=False)


def _order(call: Call, x: Array, descending: bool) -> Array:
    """Stable positions in sorted order, NaN as the largest."""
    rows = np.atleast_1d(x)
    if not descending:
        return np.argsort(rows, axis=_axis(call), kind="stable")
    reversed_rows = np.flip(rows, _axis(call))
    return np.flip(_length(call) - 1 - np.argsort(reversed_rows, axis=_axis(call), kind="stable"), _axis(call))


def _take(call: Call, x: Array, order: Array) -> Array:
    return np.take_along_axis(np.atleast_1d(x), order, axis=_axis(call))


def _cut(call: Call, x: Array, start: int, stop: int) -> Array:
    return x[(..., slice(start, stop)) + (slice(None),) * (-_axis(call) - 1)]


def _run_sort(call: Call, x: Array) -> Array:
    return _take(call, x, _order(call, x, bool(call.attrs.get("descending", False)))).reshape(x.shape)


def _run_sort_indices(call: Call, x: Array) -> Array:
    return _order(call, x, bool(call.attrs.get("descending", False))).reshape(x.shape)


def _run_topk(call: Call, x: Array) -> Array:
    return _take(call, x, _run_topk_indices(call, x).reshape(_shape_of_top(call, x))).reshape(_result_shape(call, x))


def _run_topk_indices(call: Call, x: Array) -> Array:
    order = _cut(call, _order(call, x, bool(call.attrs.get("largest", True))), 0, int(call.attrs["k"]))
    return order.reshape(_result_shape(call, x))


def _shape_of_top(call: Call, x: Array) -> tuple[int, ...]:
    return _result_shape(call, x) or (1,)


def _result_shape(call: Call, x: Array) -> tuple[int, ...]:
    return x.shape[: x.ndim - len(call.shapes[0])] + tuple(call.shape)


def _run_kth(call: Call, x: Array) -> Array:
    k = int(call.attrs["k"])
    found = _cut(call, np.sort(np.atleast_1d(x), axis=_axis(call)), k - 1, k)
    if call.attrs.get("nan_wins", False):
        found = np.where(np.any(np.isnan(np.atleast_1d(x)), axis=_axis(call), keepdims=True), np.nan, found)
    return np.asarray(found).reshape(_result_shape(call, x))


# ---------------------------------------------------------------- the records


def _before(ufunc: Any, test: Callable[[Array], Array]) -> Callable[[Call, Array], Array]:
    return lambda call, x: ufunc.accumulate(np.atleast_1d(test(x)), axis=_axis(call)).reshape(x.shape)


_all_finite = _before(np.logical_and, np.isfinite)
_seen_plus = _before(np.logical_or, lambda x: x == np.inf)
_seen_minus = _before(np.logical_or, lambda x: x == -np.inf)
_seen_zero = _before(np.logical_or, lambda x: x == 0)
_seen_inf = _before(np.logical_or, np.isinf)

define_op(
    "cumsum",
    "the sum of each element and those before it",
    lambda call, x: _accumulated(np.add)(call, x) + (0.0 if x.dtype.kind == "f" else 0),
    _scan(_cumsum, True),
    dangers=(
        Danger("inf-minus-inf", lambda call, x: _seen_plus(call, x) & _seen_minus(call, x), "+inf and -inf among the terms have no sum."),
        Danger("sum-overflow", _all_finite, "the running sum exceeds the largest number of the format."),
    ),
    monotone=(1,),
)

define_op(
    "cumprod",
    "the product of each element and those before it",
    _accumulated(np.multiply),
    _scan(_cumprod, False),
    dangers=(
        Danger("zero-times-inf", lambda call, x: _seen_zero(call, x) & _seen_inf(call, x), "0 * inf among the factors has no value."),
        Danger("product-overflow", _all_finite, "the running product exceeds the largest number of the format."),
    ),
)

define_op(
    "logcumsumexp",
    "the logarithm of the sum of the exponentials of each element and those before it",
    _accumulated(np.logaddexp),
    _scan(_logcumsumexp, True),
    dangers=(
        Danger(
            "log-of-zero", _before(np.logical_and, lambda x: x == -np.inf), "all entries so far are -inf: the sum of exponentials is 0."
        ),
    ),
    monotone=(1,),
)

define_op("cummax", "the largest element so far", _accumulated(np.maximum), _extreme(largest), monotone=(1,))
define_op("cummin", "the smallest element so far", _accumulated(np.minimum), _extreme(smallest), monotone=(1,))
define_op("sort_values", "the elements in order", _run_sort, _sort, moves=True)
define_op("sort_indices", "the positions of the elements in order", _run_sort_indices, _indices)
define_op("topk_values", "the k largest or smallest elements", _run_topk, _topk, moves=True)
define_op("topk_indices", "the positions of the k largest or smallest elements", _run_topk_indices, _indices)
define_op("kth", "the k-th smallest element (k counts from 1)", _run_kth, _kth, moves=True)
