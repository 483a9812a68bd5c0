"""Matrix products, distances and decompositions."""

from collections.abc import Callable
from typing import Any

import numpy as np

from whynan.domain.interval import Bounds, apply, between, join_axes, make, top
from whynan.ir.dtype import Array, Format, nearest
from whynan.ir.graph import Call, Shape
from whynan.ops._groups import aligned, copies, magnitudes, uniform
from whynan.ops._opdef import OPS, Danger, bound, define_op
from whynan.ops._sums import along, fitted, summed
from whynan.ops.normalise import norm_bounds

PRODUCT_LIMIT = 1 << 20  # products of groups: beyond this, rows and columns are joined first


def _binary(op: str, fmt: Format) -> Call:
    return Call(op, {}, ((), ()), (fmt, fmt), (), fmt)


def products(fmt: Format, a: Bounds, b: Bounds) -> Bounds:
    """Bounds of products that may be rounded or, in a fused multiply-add, not: real ends, and the zeros that rounding gives."""
    call = _binary("mul", fmt)
    rounded = bound(call, (a, b))
    exact = OPS["mul"].transfer(call, a, b)
    # a product beyond the format's range need not be infinite in a fused multiply-add
    lo, hi = np.minimum(exact.lo, fmt.max), np.maximum(exact.hi, -fmt.max)
    lo, hi = np.where(rounded.empty, np.inf, lo), np.where(rounded.empty, -np.inf, hi)
    # where underflow gives a zero the interval reaches to it
    lo, hi = np.where(rounded.may_zero & (lo > 0), 0.0, lo), np.where(rounded.may_zero & (hi < 0), 0.0, hi)
    return make(lo, hi, nan=rounded.may_nan, pos_zero=rounded.may_pos_zero, neg_zero=rounded.may_neg_zero, fraction=~rounded.integral)


def _lifted(x: Array, shape: Shape, rank: int) -> Array:
    """The array with unit dimensions between batch and value, so that values of different rank broadcast."""
    lead = x.ndim - len(shape)
    return x.reshape(x.shape[:lead] + (1,) * (rank - len(shape)) + x.shape[lead:])


def _pair(call: Call, a: Array, b: Array) -> tuple[Array, Array]:
    rank = max(len(call.shapes[0]), len(call.shapes[1]))
    return _lifted(a, call.shapes[0], rank), _lifted(b, call.shapes[1], rank)


def _aligned_pair(call: Call, a: Bounds, b: Bounds) -> tuple[Bounds, Bounds]:
    rank = max(len(call.shapes[0]), len(call.shapes[1]))
    return aligned(a, rank), aligned(b, rank)


# ---------------------------------------------------------------- matrix product


def _matmul(call: Call, a: Array, b: Array) -> Array:
    a, b = _pair(call, a, b)
    return np.asarray(np.matmul(a, b) + a.dtype.type(0))


def _matmul_bounds(call: Call, a: Bounds, b: Bounds) -> Bounds:
    a, b = _aligned_pair(call, a, b)
    k = call.shapes[0][-1]
    if k == 0:
        return make(np.zeros((1,) * len(call.shape)), 0.0, neg_zero=False, fraction=False)
    for axis_a, axis_b in ((-2, None), (None, -1), (-1, -2)):
        if _size(a, b) <= PRODUCT_LIMIT:
            break
        a = a if axis_a is None else join_axes(a, (axis_a,))
        b = b if axis_b is None else join_axes(b, (axis_b,))
    left, right = apply(a, lambda x: x[..., None]), apply(b, lambda x: x[..., None, :, :])
    terms = products(call.format, left, right)
    repeats = k if uniform(terms, (-2,)) else 1
    total = summed(call.format, terms, along((-2,), repeats, k), rounded=True)
    return fitted(call.format, apply(total, lambda x: x[..., 0, :]))


def _size(a: Bounds, b: Bounds) -> int:
    front = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return int(np.prod(front)) * a.shape[-2] * max(a.shape[-1], b.shape[-2]) * b.shape[-1]


# ---------------------------------------------------------------- distances


def _differences(call: Call, x: Array, y: Array) -> Array:
    """(…, rows of x, rows of y, features)."""
    x, y = _pair(call, x, y)
    return np.asarray(x[..., :, None, :] - y[..., None, :, :])


def _cdist(call: Call, x: Array, y: Array) -> Array:
    p, size = float(call.attrs["p"]), np.abs(_differences(call, x, y))
    if p == 0:
        return np.asarray(np.sum(size != 0, axis=-1)).astype(x.dtype)
    if p == np.inf:
        return np.asarray(np.max(size, axis=-1, initial=0))
    if p == 1:
        return np.asarray(np.sum(size, axis=-1))
    if p == 2:
        return np.asarray(np.sqrt(np.sum(size * size, axis=-1)))
    return np.asarray(np.sum(size ** x.dtype.type(p), axis=-1) ** x.dtype.type(1 / p))


def _difference_bounds(call: Call, x: Bounds, y: Bounds) -> Bounds:
    x, y = _aligned_pair(call, x, y)
    while (
        np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
        and _size_of_differences(x, y) > PRODUCT_LIMIT
        and not (uniform(x, (-2,)) and uniform(y, (-2,)))
    ):
        x, y = (join_axes(x, (-2,)), y) if not uniform(x, (-2,)) else (x, join_axes(y, (-2,)))
    return bound(_binary("sub", call.format), (apply(x, lambda a: a[..., :, None, :]), apply(y, lambda a: a[..., None, :, :])))


def _size_of_differences(x: Bounds, y: Bounds) -> int:
    front = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    return int(np.prod(front)) * x.shape[-2] * y.shape[-2] * max(x.shape[-1], y.shape[-1])


def _cdist_bounds(call: Call, x: Bounds, y: Bounds) -> Bounds:
    n = call.shapes[0][-1]
    if n == 0:
        return make(np.zeros((1,) * len(call.shape)), 0.0, neg_zero=False, fraction=False)
    difference = _difference_bounds(call, x, y)
    fold = along((-1,), copies(difference, (n,), (-1,)), n)
    distance = norm_bounds(call.format, magnitudes(difference, call.format), fold, float(call.attrs["p"]))
    return apply(distance, lambda a: a[..., 0])


def _cdist_grad(call: Call, g: Array, x: Array, y: Array, dist: Array) -> Array:
    p = float(call.attrs["p"])
    pair = Call("cdist", call.attrs, call.shapes[1:3], call.formats[1:3], call.shapes[3], call.format)
    rank = len(call.shape)
    g, dist = (_lifted(a, s, rank)[..., None] for a, s in ((g, call.shapes[0]), (dist, call.shapes[3])))
    d = _differences(pair, x, y)
    one = d.dtype.type(1)
    if p == 0:
        each = np.zeros_like(d)
    elif p == 1:
        each = g * np.sign(d)
    elif p == np.inf:
        away = np.abs(np.abs(d) - dist)
        each = g * np.sign(d) * np.where(np.isnan(away), away, away == 0)
    elif p == 2:
        each = np.where(dist == 0, 0 * one, g * d / dist)
    elif p < 2:
        e = d.dtype.type(p - 1)
        each = np.where((dist == 0) | (d == 0) & (p < 1), 0 * one, np.sign(d) * np.abs(d) ** e * g / dist**e)
    else:
        each = np.where(dist == 0, 0 * one, d * np.abs(d) ** d.dtype.type(p - 2) * g / dist ** d.dtype.type(p - 1))
    return np.asarray(np.sum(each, axis=-2))


def _cdist_grad_bounds(call: Call, g: Bounds, x: Bounds, y: Bounds, dist: Bounds) -> Bounds:
    """|x - y| <= dist, so each term is at most |g| (for p >= 1) but for rounding and underflow."""
    fmt, p, rank = call.format, float(call.attrs["p"]), len(call.shape)
    if p == 0:
        return make(np.zeros((1,) * rank), 0.0)
    pair = Call("cdist", call.attrs, call.shapes[1:3], call.formats[1:3], call.shapes[3], fmt)
    difference = _difference_bounds(pair, x, y)
    reach, far = float(difference.magnitude.max(initial=0.0)), float(dist.magnitude.max(initial=0.0))
    near = float(np.where(dist.empty, np.inf, dist.lo).min(initial=np.inf))
    if p < 1 or (p > 2 and p != np.inf and not _tame(fmt, p, near, far)):
        return top(fmt, rank)
    g = aligned(g, rank)
    size = np.where(g.empty, 0.0, g.magnitude)
    safe = p in (1, np.inf) or near >= 4 * np.sqrt(fmt.tiny)
    weight = (1 + 64 * fmt.eps) if safe else 2.5
    each = size if p in (1, np.inf) else size * weight + (fmt.smallest / near if safe else 0.0)
    factor = 1.0 if p in (1, np.inf) else max(reach ** min(p - 1, 1.0) if reach > 0 else 0.0, 1.0)
    over = np.any(nearest(fmt, size * factor * 2) == np.inf, axis=(-2, -1), keepdims=True)
    terms = make(-each, each)
    n = call.shapes[2][-2]
    if n == 0:
        return make(np.zeros((1,) * rank), 0.0)
    total = fitted(fmt, summed(fmt, terms, along((-1,), copies(g, (n,), (-1,)), n)))
    lost = bool(np.any(difference.nonfinite) or np.any(dist.may_nan)) and (p != 1 or bool(np.any(difference.may_nan)))
    undefined = total.may_nan | over | lost | np.any(g.may_nan | g.may_inf | g.empty, axis=-1, keepdims=True)
    lo, hi = np.where(over, -np.inf, total.lo), np.where(over, np.inf, total.hi)
    return make(lo, hi, nan=undefined)


def _tame(fmt: Format, p: float, near: float, far: float) -> bool:
    """Whether the powers of a distance keep clear of overflow and underflow."""
    return near > 0 and near ** max(p, 1) > fmt.tiny / fmt.eps and far ** (p + 1) < fmt.max * fmt.eps


# ---------------------------------------------------------------- decompositions: run, not bounded


def _anything(call: Call, *inputs: Bounds) -> Bounds:
    return top(call.format, len(call.shape))


def _not_negative(call: Call, *inputs: Bounds) -> Bounds:
    return between(0.0, np.inf, call.format, len(call.shape), nan=True)


def _solved(solve: Callable[..., Any], *matrices: Array) -> Array | None:
    try:
        return np.asarray(solve(*matrices))
    except np.linalg.LinAlgError:
        return None


def _each(call: Call, solve: Callable[..., Any], *arrays: Array) -> Array:
    """A decomposition of all matrices; where one fails, of each alone, with NaN for those that have none."""
    whole = _solved(solve, *arrays)
    if whole is not None:
        return whole
    matrices = arrays[0].reshape(-1, *arrays[0].shape[-2:])
    others = [a.reshape(-1, *a.shape[-2:]) for a in arrays[1:]]
    found = [_solved(solve, m, *(o[i] for o in others)) for i, m in enumerate(matrices)]
    shape = arrays[0].shape[: arrays[0].ndim - len(call.shapes[0])] + tuple(call.shape)
    each = shape[arrays[0].ndim - 2 :]
    nan: Array = np.full(each, np.nan, arrays[0].dtype)
    rows: list[Array] = [nan if f is None else f for f in found]
    return np.asarray(np.stack(rows)).reshape(shape)


def _decomposition(solve: Callable[..., Any]) -> Callable[..., Array]:
    return lambda call, *arrays: _each(call, solve, *_same_front(call, arrays))


def _same_front(call: Call, arrays: tuple[Array, ...]) -> list[Array]:
    rank = max(len(s) for s in call.shapes)
    lifted = [_lifted(a, s, rank) for a, s in zip(arrays, call.shapes, strict=True)]
    front = np.broadcast_shapes(*(a.shape[:-2] for a in lifted))
    return [np.broadcast_to(a, front + a.shape[-2:]) for a in lifted]


def _singular(call: Call, x: Array, *rest: Array) -> Array:
    bad = np.linalg.matrix_rank(np.where(np.isfinite(x), x, 0.0).astype(np.float64)) < x.shape[-1]
    return _shaped(call, bad)


def _indefinite(call: Call, x: Array) -> Array:
    return _shaped(call, np.linalg.eigvalsh(np.where(np.isfinite(x), x, 0.0).astype(np.float64))[..., 0] <= 0)


def _shaped(call: Call, bad: Any) -> Array:
    """One answer per matrix, laid out against the result's elements."""
    extra = len(call.shape) - (len(call.shapes[0]) - 2)
    return np.asarray(bad).reshape(np.shape(bad) + (1,) * extra)


# ---------------------------------------------------------------- the records

_OVERFLOW = Danger(
    "sum-overflow",
    lambda call, *arrays: np.full((1,) * len(call.shape), all(bool(np.isfinite(a).all()) for a in arrays)),
    "a sum of products exceeds the largest number of the format.",
)


def _meets(call: Call, a: Array, b: Array) -> Array:
    """Where a zero meets an infinity in a matrix product."""
    a, b = _pair(call, a, b)
    zeros, infinities = ((a == 0) * 1.0, (b == 0) * 1.0), (np.isinf(a) * 1.0, np.isinf(b) * 1.0)
    return np.asarray(np.matmul(zeros[0], infinities[1]) + np.matmul(infinities[0], zeros[1]) > 0)


define_op(
    "matmul",
    "the matrix product",
    _matmul,
    _matmul_bounds,
    dangers=(
        Danger("zero-times-inf", _meets, "0 * inf among the products has no value."),
        Danger(
            "inf-minus-inf",
            lambda call, a, b: np.full((1,) * len(call.shape), bool(np.isinf(a).any() or np.isinf(b).any())),
            "infinite products of both signs have no sum.",
        ),
        _OVERFLOW,
    ),
)

define_op(
    "cdist",
    "the distance of each row of one value to each row of another",
    _cdist,
    _cdist_bounds,
    dangers=(
        Danger(
            "square-overflow",
            lambda call, x, y: np.all(np.isfinite(_differences(call, x, y)), axis=-1),
            "the powers of the differences exceed the largest number of the format.",
        ),
    ),
)

define_op(
    "cdist_grad",
    "the gradient of a distance",
    _cdist_grad,
    _cdist_grad_bounds,
    dangers=(
        Danger(
            "norm-grad-at-zero",
            lambda call, g, x, y, dist: np.full((1,) * len(call.shape), bool((dist == 0).any()) and float(call.attrs["p"]) < 1),
            "the distance has no finite slope where two rows agree in a feature.",
        ),
        Danger(
            "inf-over-inf",
            lambda call, g, x, y, dist: np.full((1,) * len(call.shape), bool(np.isinf(dist).any())),
            "the distance has overflowed, so that a difference is divided by inf.",
        ),
    ),
)

_SINGULAR = "the matrix is singular: a pivot is zero."

define_op(
    "det",
    "the determinant",
    _decomposition(np.linalg.det),
    _anything,
    dangers=(
        Danger(
            "product-overflow",
            lambda call, x: _shaped(call, np.all(np.isfinite(x), axis=(-2, -1))),
            "the product of the pivots exceeds the largest number of the format.",
        ),
    ),
)
define_op(
    "slogabsdet",
    "the logarithm of the determinant's magnitude",
    _decomposition(lambda x: np.linalg.slogdet(x)[1]),
    _anything,
    dangers=(Danger("log-of-zero", _singular, "the matrix is singular: its determinant is 0 and the logarithm -inf."),),
)
define_op("inverse", "the inverse matrix", _decomposition(np.linalg.inv), _anything, dangers=(Danger("div-by-zero", _singular, _SINGULAR),))
define_op(
    "solve",
    "the solution of a linear system",
    _decomposition(np.linalg.solve),
    _anything,
    dangers=(Danger("div-by-zero", _singular, _SINGULAR),),
)
define_op(
    "cholesky",
    "the lower triangular factor of a positive definite matrix",
    _decomposition(np.linalg.cholesky),
    _anything,
    dangers=(Danger("sqrt-of-negative", _indefinite, "the matrix is not positive definite: a pivot is not positive."),),
)
define_op("eigvalsh", "the eigenvalues of a symmetric matrix", _decomposition(np.linalg.eigvalsh), _anything)
define_op("svdvals", "the singular values", _decomposition(lambda x: np.linalg.svd(x, compute_uv=False)), _not_negative)
