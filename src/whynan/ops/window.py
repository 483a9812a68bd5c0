"""Convolutions, pools and interpolation: sums, maxima and means over windows of the trailing, spatial axes."""

from itertools import product as tuples
from math import prod
from typing import Any

import numpy as np

from whynan.domain.interval import Bounds, apply, join, join_axes, make, settle
from whynan.ir.dtype import Array, Format, nearest
from whynan.ir.graph import Call, Shape
from whynan.ops._groups import aligned, batch_rank, copies, merged, regrouped
from whynan.ops._opdef import Danger, define_op
from whynan.ops._sums import UNIT64, along, fitted, summed, unit, wide
from whynan.ops.linalg import PRODUCT_LIMIT, products

ZERO = make(0.0, 0.0, neg_zero=False, fraction=False)

# ---------------------------------------------------------------- convolution of one batch element


def _numbers(call: Call, name: str, rank: int, default: int) -> Shape:
    given = call.attrs.get(name, default)
    return (given,) * rank if isinstance(given, int) else tuple(given)


def _places(tap: Shape, out: Shape, stride: Shape, dilation: Shape) -> Any:
    """Where one tap of the kernel reads for each output position: an index into the trailing axes."""
    return (..., *(slice(t * d, t * d + s * (n - 1) + 1, s) for t, n, s, d in zip(tap, out, stride, dilation, strict=True)))


def _tap(w: Array, tap: Shape) -> Array:
    """One tap of a kernel for all pairs of channels."""
    index: Any = (..., *tap)
    return np.asarray(w[index])


def _gathered(x: Array, w: Array, out: Shape, groups: int, stride: Shape, padding: Shape, dilation: Shape) -> Array:
    """The convolution of x (N, C, space) with w (O, C / groups, kernel)."""
    y = np.zeros((x.shape[0], groups, w.shape[0] // groups, prod(out)), x.dtype)
    room = _room(x, out, w.shape[2:], stride, padding, dilation)
    for tap in tuples(*map(range, w.shape[2:])):
        part = room[_places(tap, out, stride, dilation)].reshape(x.shape[0], groups, -1, prod(out))
        y += np.einsum("ngcp,goc->ngop", part, _tap(w, tap).reshape(groups, -1, w.shape[1]))
    return y.reshape((x.shape[0], w.shape[0], *out))


def _room(x: Array, out: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape) -> Array:
    """x with zeros around it, wide enough for every window."""
    widths = []
    for n, m, k, s, p, d in zip(x.shape[2:], out, kernel, stride, padding, dilation, strict=True):
        widths.append((p, max((m - 1) * s + (k - 1) * d + 1 - n - p, 0)))
    return np.pad(x, [(0, 0), (0, 0), *widths])


def _scattered(x: Array, w: Array, out: Shape, groups: int, stride: Shape, padding: Shape, dilation: Shape) -> Array:
    """The transposed convolution of x (N, C, space) with w (C, O / groups, kernel)."""
    space = x.shape[2:]
    need = [
        max(n + 2 * p, (m - 1) * s + (k - 1) * d + 1)
        for n, m, k, s, p, d in zip(out, space, w.shape[2:], stride, padding, dilation, strict=True)
    ]
    y = np.zeros((x.shape[0], groups, w.shape[1], *need), x.dtype)
    part = x.reshape(x.shape[0], groups, -1, prod(space))
    for tap in tuples(*map(range, w.shape[2:])):
        each = np.einsum("ngcp,gco->ngop", part, _tap(w, tap).reshape(groups, -1, w.shape[1]))
        y[_places(tap, space, stride, dilation)] += each.reshape((x.shape[0], groups, w.shape[1], *space))
    inside: Any = (..., *(slice(p, p + n) for p, n in zip(padding, out, strict=True)))
    return np.asarray(y[inside]).reshape((x.shape[0], groups * w.shape[1], *out))


def _correlated(g: Array, x: Array, kernel: Shape, groups: int, stride: Shape, padding: Shape, dilation: Shape) -> Array:
    """The gradient by w (O, C / groups, kernel) of the convolution of x, given the one by its result."""
    out = g.shape[2:]
    room = _room(x, out, kernel, stride, padding, dilation)
    left = g.reshape(g.shape[0], groups, -1, prod(out))
    w = np.zeros((g.shape[1], x.shape[1] // groups, *kernel), g.dtype)
    for tap in tuples(*map(range, kernel)):
        part = room[_places(tap, out, stride, dilation)].reshape(x.shape[0], groups, -1, prod(out))
        _tap(w, tap)[...] = np.einsum("ngop,ngcp->goc", left, part).reshape(g.shape[1], -1)
    return w


def _geometry(call: Call) -> dict[str, Any]:
    rank = len(call.shapes[0]) - 2
    return {
        "groups": int(call.attrs.get("groups", 1)),
        "stride": _numbers(call, "stride", rank, 1),
        "padding": _numbers(call, "padding", rank, 0),
        "dilation": _numbers(call, "dilation", rank, 1),
    }


def _per_batch(call: Call, one: Any, *arrays: Array) -> Array:
    lead = arrays[0].shape[: batch_rank(call, arrays[0])]
    flat = [a.reshape((prod(lead), *s)) for a, s in zip(arrays, call.shapes, strict=True)]
    return np.stack([one(*row) for row in zip(*flat, strict=True)]).reshape(lead + tuple(call.shape))


def _transposed(call: Call) -> bool:
    return bool(call.attrs.get("transposed", False))


def _conv(call: Call, x: Array, w: Array) -> Array:
    core = _scattered if _transposed(call) else _gathered
    return _per_batch(call, lambda a, b: core(a, b, call.shape[2:], **_geometry(call)), x, w)


def _conv_input_grad(call: Call, g: Array, x: Array, w: Array) -> Array:
    core = _gathered if _transposed(call) else _scattered
    return _per_batch(call, lambda a, _, b: core(a, b, call.shape[2:], **_geometry(call)), g, x, w)


def _conv_weight_grad(call: Call, g: Array, x: Array, w: Array) -> Array:
    def one(a: Array, b: Array, _: Array) -> Array:
        a, b = (b, a) if _transposed(call) else (a, b)
        return _correlated(a, b, call.shape[2:], **_geometry(call))

    return _per_batch(call, one, g, x, w)


# ---------------------------------------------------------------- bounds of convolutions


def _channel_sums(call: Call, x: Bounds, w: Bounds, x_shape: Shape, w_shape: Shape, crossed: bool, partial: bool) -> Bounds:
    """Bounds of sums over channels and taps, all positions of x sharing an interval.

    `crossed` says that w's first axis is x's channel (as in a transposed convolution), `partial` that some taps may be missing.
    """
    groups, rank = int(call.attrs.get("groups", 1)), len(x_shape)
    space = tuple(range(-(rank - 2), 0))
    batch, channels, taps = x_shape[0], x_shape[1], prod(w_shape[2:])
    inputs = channels // groups
    flat = apply(join_axes(aligned(x, rank), space), lambda a: a.reshape(a.shape[:2]))
    left = regrouped(flat, (batch, channels), (batch, groups, 1, inputs, 1))
    w = aligned(w, rank)
    if w.lo.size * left.lo.size > PRODUCT_LIMIT:
        w = join_axes(w, space)
    outputs = w_shape[1] if crossed else w_shape[0] // groups
    if crossed:
        right = regrouped(w, w_shape, (groups, inputs, outputs, taps))
        right = apply(right, lambda a: np.swapaxes(a, 1, 2))
    else:
        right = regrouped(w, w_shape, (groups, outputs, inputs, taps))
    if right.lo.size * left.lo.size > PRODUCT_LIMIT:
        left, right = merged(left, 5, 5), merged(right, 4, 4)
    terms = products(call.format, left, apply(right, lambda a: a[None]))
    if partial:
        terms = join(terms, ZERO)
    full = (batch, groups, outputs, inputs, taps)
    total = fitted(call.format, summed(call.format, terms, along((-2, -1), copies(terms, full, (-2, -1)), inputs * taps), rounded=True))
    rows = apply(total, lambda a: a[..., 0, 0])
    merged_rows = regrouped(rows, (batch, groups, outputs), (batch, groups * outputs))
    return apply(merged_rows, lambda a: a.reshape(a.shape + (1,) * (rank - 2)))


def _conv_bounds(call: Call, x: Bounds, w: Bounds) -> Bounds:
    partial = _transposed(call) or any(_geometry(call)["padding"])
    return _channel_sums(call, x, w, call.shapes[0], call.shapes[1], _transposed(call), partial)


def _conv_input_grad_bounds(call: Call, g: Bounds, x: Bounds, w: Bounds) -> Bounds:
    return _channel_sums(call, g, w, call.shapes[0], call.shapes[2], not _transposed(call), True)


def _conv_weight_grad_bounds(call: Call, g: Bounds, x: Bounds, w: Bounds) -> Bounds:
    first, second = (1, 0) if _transposed(call) else (0, 1)
    rank = len(call.shapes[0])
    inner = (-rank, *range(-(rank - 2), 0))
    left = join_axes(aligned((g, x)[first], rank), inner)
    right = merged((g, x)[second], rank, rank)
    n = call.shapes[first][0] * prod(call.shapes[first][2:])
    if n == 0:
        return make(np.zeros((1,) * rank), 0.0, neg_zero=False, fraction=False)
    terms = join(products(call.format, left, right), ZERO)
    total = fitted(call.format, summed(call.format, terms, along((), n, n), rounded=True))
    return apply(total, lambda a: a.reshape((a.shape[1], 1) + (1,) * (rank - 2)))


# ---------------------------------------------------------------- pools


def _pool_windows(call: Call, x: Array, fill: Any) -> tuple[list[Array], Shape]:
    """For each tap of the kernel what it reads at every output position, outside the value `fill`."""
    kernel = tuple(call.attrs["kernel"])
    rank = len(kernel)
    out = tuple(call.shape[-rank:])
    stride, padding, dilation = (_numbers(call, name, rank, d) for name, d in (("stride", 1), ("padding", 0), ("dilation", 1)))
    widths = [(0, 0)] * (x.ndim - rank)
    for n, m, k, s, p, d in zip(x.shape[-rank:], out, kernel, stride, padding, dilation, strict=True):
        widths.append((p, max((m - 1) * s + (k - 1) * d + 1 - n - p, 0)))
    room = np.pad(x, widths, constant_values=fill)
    return [room[_places(tap, out, stride, dilation)] for tap in tuples(*map(range, kernel))], kernel


def _divisors(call: Call) -> Array:
    """By how much each output position of an average pool divides."""
    kernel = tuple(call.attrs["kernel"])
    rank = len(kernel)
    stride, padding = _numbers(call, "stride", rank, 1), _numbers(call, "padding", rank, 0)
    counts: Array = np.ones(())
    for n, m, k, s, p in zip(call.shapes[0][-rank:], call.shape[-rank:], kernel, stride, padding, strict=True):
        start = np.arange(m) * s - p
        if call.attrs.get("count_include_pad", True):
            each = np.minimum(start + k, n + p) - start
        else:
            each = np.minimum(start + k, n) - np.maximum(start, 0)
        counts = counts[..., None] * each
    return counts


def _avg_pool(call: Call, x: Array) -> Array:
    parts, _ = _pool_windows(call, x, 0)
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return np.asarray(total / _divisors(call).astype(x.dtype))


def _max_pool(call: Call, x: Array) -> Array:
    parts, _ = _pool_windows(call, x, -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min)
    return np.asarray(np.maximum.reduce(parts))


def _hull(call: Call, b: Bounds, rank: int) -> Bounds:
    return join_axes(aligned(b, len(call.shapes[0])), tuple(range(-rank, 0)))


def _avg_pool_bounds(call: Call, b: Bounds) -> Bounds:
    kernel = tuple(call.attrs["kernel"])
    hull = _hull(call, b, len(kernel))
    if any(_numbers(call, "padding", len(kernel), 0)) or call.attrs.get("ceil_mode"):
        hull = join(hull, ZERO)
    return weighted(call.format, hull, prod(kernel))


def weighted(fmt: Format, hull: Bounds, terms: int) -> Bounds:
    """Bounds of a mean, or another convex combination, of at most `terms` elements of the hull, by way of their sum."""
    error = (terms + 8) * (unit(fmt) + UNIT64) * hull.magnitude + (terms * fmt.smallest if terms > 1 else 0.0)
    over = (nearest(wide(fmt), terms * hull.magnitude * (1 + terms * unit(fmt))) == np.inf) & (terms > 1)
    lo, hi = np.where(over, -np.inf, hull.lo - error), np.where(over, np.inf, hull.hi + error)
    lo = np.where((hull.lo >= 0) & ~hull.empty, np.maximum(lo, 0.0), lo)
    hi = np.where((hull.hi <= 0) & ~hull.empty, np.minimum(hi, 0.0), hi)
    lo, hi = np.where(hull.empty, np.inf, lo), np.where(hull.empty, -np.inf, hi)
    return settle(make(lo, hi, nan=hull.may_nan | hull.may_inf | over), fmt)


# ---------------------------------------------------------------- interpolation


def _sources(call: Call, n: int, m: int) -> tuple[Array, Array, Array]:
    """For each output position the two input positions around it and the weight of the second."""
    if call.attrs.get("align_corners"):
        place = np.arange(m) * ((n - 1) / (m - 1) if m > 1 else 0.0)
    else:
        place = np.maximum((np.arange(m) + 0.5) * (n / m) - 0.5, 0.0)
    low = np.minimum(place.astype(np.int64), n - 1)
    return low, np.minimum(low + 1, n - 1), place - low


def _interpolate(call: Call, x: Array) -> Array:
    rank = len(call.shape) - 2
    for axis in range(-rank, 0):
        n, m = call.shapes[0][axis], call.shape[axis]
        if call.attrs.get("mode", "linear") == "nearest":
            x = np.take(x, np.arange(m) * n // m, axis=axis)
            continue
        low, high, part = _sources(call, n, m)
        weight = part.astype(x.dtype).reshape((m,) + (1,) * (-axis - 1))
        x = np.take(x, low, axis=axis) * (1 - weight) + np.take(x, high, axis=axis) * weight
    return x


def _interpolate_bounds(call: Call, b: Bounds) -> Bounds:
    rank = len(call.shape) - 2
    hull = _hull(call, b, rank)
    return hull if call.attrs.get("mode", "linear") == "nearest" else weighted(call.format, hull, 2**rank)


# ---------------------------------------------------------------- the records


def _all_finite(call: Call, *arrays: Array) -> Any:
    return np.full((1,) * len(call.shape), all(bool(np.isfinite(a).all()) for a in arrays))


def _some_infinite(call: Call, *arrays: Array) -> Any:
    return np.full((1,) * len(call.shape), any(bool(np.isinf(a).any()) for a in arrays))


_SUMS = (
    Danger("zero-times-inf", _some_infinite, "an infinite element meets a zero, or one of the other sign, in a sum of products."),
    Danger("sum-overflow", _all_finite, "a sum of products exceeds the largest number of the format."),
)
_MEANS = (
    Danger("inf-minus-inf", _some_infinite, "infinite elements of a window have no mean."),
    Danger("sum-overflow", _all_finite, "the sum over a window exceeds the largest number of the format."),
)

define_op("conv", "a convolution", _conv, _conv_bounds, dangers=_SUMS)
define_op("conv_input_grad", "the gradient of a convolution by its input", _conv_input_grad, _conv_input_grad_bounds, dangers=_SUMS)
define_op("conv_weight_grad", "the gradient of a convolution by its kernel", _conv_weight_grad, _conv_weight_grad_bounds, dangers=_SUMS)
define_op("avg_pool", "the mean over windows", _avg_pool, _avg_pool_bounds, dangers=_MEANS)
define_op("max_pool", "the largest element of each window", _max_pool, lambda call, b: _hull(call, b, len(tuple(call.attrs["kernel"]))))
define_op("interpolate", "a value resampled on another grid", _interpolate, _interpolate_bounds, dangers=_MEANS[:1])
