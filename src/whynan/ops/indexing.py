"""Reading and writing at computed places: gather, advanced indexing, scatter.

A framework raises an error for an index that is out of range, so an index that is not known reads any element of the axis within
its own bounds, and a write may go to any place. Known indices (one number each) are followed exactly while the value is small.
"""

from math import prod
from typing import Any

import numpy as np

from whynan.domain.interval import ZERO as ZERO_FLAGS
from whynan.domain.interval import Bounds, apply, join, join_axes, make, settle
from whynan.ir.dtype import Array, nearest
from whynan.ir.graph import Call, Shape
from whynan.ops._groups import SPREAD_LIMIT, aligned, merged, point, spread_all, uniform
from whynan.ops._opdef import Danger, define_op
from whynan.ops._sums import UNIT64, Fold, fitted, summed, unit
from whynan.ops.reduction import product
from whynan.ops.shape import front

ZERO = make(0.0, 0.0, neg_zero=False, fraction=False)
ONE = make(1.0, 1.0, fraction=False)


def integers(b: Bounds, shape: Shape) -> Array | None:
    """The values of an index tensor if they are known and few, else None."""
    full = spread_all(b, shape) if point(b) else None
    return None if full is None else full.lo.reshape(full.shape[-len(shape) :] if shape else ()).astype(np.int64)


def _reachable(b: Bounds, axis: int, n: int, index: Bounds) -> Bounds:
    """The join of the elements along an axis of size n that an index within bounds may read."""
    if b.shape[axis] == 1:
        return b
    low, high = float(np.min(index.lo)), float(np.max(index.hi))
    if 0 <= low <= high < n:
        b = apply(b, lambda a: np.take(a, np.arange(int(low), int(high) + 1), axis=axis))
    return join_axes(b, (axis,))


# ---------------------------------------------------------------- reading


def _within(index: Array, n: int) -> Array:
    """Indices into n elements. One that lies beyond them, which the framework refuses, becomes the nearest: other candidates go on."""
    return np.clip(index.astype(np.int64), -n, max(n - 1, 0))


def _window(x: Array, axis: int, shape: Shape, ndim: int) -> Array:
    """The part of x that an index of that shape can reach: the other axes are cut to its size."""
    for a in range(-ndim, 0):
        if a != axis and x.shape[a] > shape[a]:
            x = np.take(x, np.arange(shape[a]), axis=a)
    return x


def _gather(call: Call, x: Array, index: Array) -> Array:
    axis = call.attrs["dim"]
    if not call.shapes[0]:
        return np.asarray(x)
    return np.take_along_axis(_window(x, axis, call.shapes[1], len(call.shapes[0])), _within(index, call.shapes[0][axis]), axis=axis)


def _gather_bounds(call: Call, b: Bounds, index: Bounds) -> Bounds:
    shape, axis = call.shapes[0], call.attrs["dim"]
    b, index = aligned(b, len(shape)), aligned(index, len(shape))
    if not shape:
        return b
    b = apply(b, lambda a: _window(a, axis, call.shapes[1], len(shape)))
    places = integers(index, call.shapes[1])
    if places is not None and b.shape[axis] == shape[axis] and b.lo.ndim == len(shape):
        full = spread_all(b, tuple(shape[a] if a == axis else call.shapes[1][a] for a in range(-len(shape), 0)))
        if full is not None:
            return apply(full, lambda a: np.take_along_axis(a, places, axis=axis))
    return _reachable(b, axis, shape[axis], index)


def _take_flat(call: Call, x: Array, index: Array) -> Array:
    lead = front(call, x)
    flat = x.reshape(lead + (prod(call.shapes[0]),))
    return np.take_along_axis(flat, _within(index, flat.shape[-1]).reshape(lead + (prod(call.shapes[1]),)), axis=-1).reshape(
        lead + tuple(call.shape)
    )


def _take_flat_bounds(call: Call, b: Bounds, index: Bounds) -> Bounds:
    full, places = spread_all(b, call.shapes[0]), integers(index, call.shapes[1])
    if full is not None and places is not None and full.lo.ndim == len(call.shapes[0]) and b.lo.size > 1:
        return apply(full, lambda a: a.reshape(-1)[places])
    return merged(b, len(call.shapes[0]), len(call.shape))


def _layout(call: Call) -> tuple[int, int, Shape]:
    """First and one past the last of the indexed axes (negative and counted from the end), and the indices' common shape."""
    axes = sorted(call.attrs["axes"])
    return axes[0], axes[-1] + 1, np.broadcast_shapes(*call.shapes[-len(axes) :])


def _indexed(x: Array, indices: list[Array], axes: list[int]) -> Array:
    """x[..., i0, i1, ..., ...] with the result's index dimensions in place of the adjacent axes; no batch in front of the indices."""
    where: Any = (..., *indices, *((slice(None),) * (-max(axes) - 1)))
    return np.asarray(x[where])


def _index(call: Call, x: Array, *indices: Array) -> Array:
    axes = list(call.attrs["axes"])
    lead = front(call, x)
    order = np.argsort(axes)
    first, _last, common = _layout(call)
    shape = tuple(call.shapes[0])
    rank = len(shape)
    flat = x.reshape((prod(lead), *shape))
    ready = [
        np.broadcast_to(
            _within(indices[k], shape[axes[k]]).reshape(
                (prod(lead),) + (1,) * (len(common) - len(call.shapes[1 + k])) + call.shapes[1 + k]
            ),
            (prod(lead), *common),
        )
        for k in order
    ]
    number = np.arange(prod(lead)).reshape((-1,) + (1,) * len(common))
    before = rank + first
    moved = np.moveaxis(flat, range(1, 1 + before), range(-before, 0)) if before else flat
    # batch, indexed axes, after, before -> batch, common, after, before -> batch, before, common, after
    picked = moved[(number, *ready)]
    picked = np.moveaxis(picked, range(picked.ndim - before, picked.ndim), range(1, 1 + before)) if before else picked
    return np.asarray(picked).reshape(lead + tuple(call.shape))


def _index_bounds(call: Call, b: Bounds, *indices: Bounds) -> Bounds:
    shape, axes = call.shapes[0], list(call.attrs["axes"])
    b = aligned(b, len(shape))
    first, last, common = _layout(call)
    places: dict[int, Array] = {}
    for k, axis in enumerate(axes):
        known = None if b.shape[axis] == 1 else integers(indices[k], call.shapes[1 + k])
        if known is None:
            b = _reachable(b, axis, shape[axis], indices[k])
        places[axis] = np.zeros((), np.int64) if known is None else known
    if uniform(b, axes):
        tail = b.shape[last:] if last else ()
        return apply(b, lambda a: a.reshape(a.shape[: a.ndim + first] + (1,) * len(common) + tail))
    if b.lo.size // prod(b.shape[a] for a in axes) * prod(common) > SPREAD_LIMIT:
        return _index_bounds(call, join_axes(b, axes), *indices)
    ready = [np.broadcast_to(places[a], common) for a in sorted(axes)]
    return apply(b, lambda a: _indexed(a, ready, axes))


# ---------------------------------------------------------------- writing


def _index_cells(call: Call, lead: Shape, *indices: Array) -> Array:
    """Flat positions in the value, (batch, elements), that index_put writes, in the order of the values."""
    numbers = np.broadcast_to(np.arange(prod(call.shapes[0])).reshape(call.shapes[0]), lead + tuple(call.shapes[0]))
    reading = Call("index", call.attrs, (call.shapes[0], *call.shapes[2:]), call.formats, _region(call), call.format)
    return _index(reading, numbers, *indices).reshape(prod(lead), -1)


def _region(call: Call) -> Shape:
    """The shape of what an index_put writes."""
    first, last, common = _layout(call)
    shape = tuple(call.shapes[0])
    return shape[: len(shape) + first] + common + (shape[last:] if last else ())


def _scatter_cells(call: Call, lead: Shape, index: Array) -> Array:
    """Flat positions in the value, (batch, elements), that a scatter along `dim` writes."""
    shape, axis = tuple(call.shapes[0]), call.attrs["dim"]
    index = _within(index, shape[axis]) if shape else index.astype(np.int64)
    cells = np.zeros(index.shape, np.int64)
    step = 1
    for a in range(-1, -len(shape) - 1, -1):
        n = call.shapes[1][a]
        cells = cells + step * (index if a == axis else np.arange(n).reshape((n,) + (1,) * (-a - 1)))
        step *= shape[a]
    return cells.reshape(prod(lead), -1)


def _write(call: Call, x: Array, cells: Array, values: Array, reduce: str, include_self: bool = True) -> Array:
    """A copy of x with the values put or combined into the cells; both (batch, elements)."""
    size = prod(call.shapes[0])
    flat = x.reshape(-1).copy()
    where = (cells + size * np.arange(cells.shape[0])[:, None]).reshape(-1)
    values = values.reshape(-1)
    if reduce == "assign":
        flat[where] = values
        return flat.reshape(x.shape)
    ufunc, start = _REDUCE[reduce]
    if not include_self:
        flat[where] = _identity(start, flat.dtype)
    ufunc.at(flat, where, values)
    if reduce == "mean":
        count = np.full(flat.shape, 1 if include_self else 0, np.int64)
        np.add.at(count, where, 1)
        count = np.maximum(count, 1)
        flat = np.floor_divide(flat, count) if flat.dtype.kind in "iu" else flat / count.astype(flat.dtype)
    return np.asarray(flat).reshape(x.shape)


def _identity(start: float, dtype: Any) -> Any:
    if np.isfinite(start) or dtype.kind == "f":
        return start
    info = np.iinfo(dtype)
    return info.min if start < 0 else info.max


_REDUCE: dict[str, tuple[Any, float]] = {
    "sum": (np.add, 0.0),
    "mean": (np.add, 0.0),
    "prod": (np.multiply, 1.0),
    "amax": (np.maximum, -np.inf),
    "amin": (np.minimum, np.inf),
}


def _index_put(call: Call, x: Array, value: Array, *indices: Array) -> Array:
    lead, region = front(call, x), _region(call)
    value = value.reshape(lead + (1,) * (len(region) - len(call.shapes[1])) + tuple(call.shapes[1]))
    values = np.broadcast_to(value, lead + region).reshape(prod(lead), -1)
    return _write(call, x, _index_cells(call, lead, *indices), values, "sum" if call.attrs.get("accumulate") else "assign")


def _scatter_values(call: Call, src: Array, lead: Shape) -> Array:
    for a in range(-len(call.shapes[1]), 0):
        if src.shape[a] > call.shapes[1][a]:
            src = np.take(src, np.arange(call.shapes[1][a]), axis=a)
    return src.reshape(prod(lead), -1)


def _scatter(call: Call, x: Array, index: Array, src: Array) -> Array:
    lead = front(call, x)
    reduce = {"scatter": "assign", "scatter_add": "sum"}.get(call.op) or str(call.attrs["reduce"])
    include_self = bool(call.attrs.get("include_self", True))
    return _write(call, x, _scatter_cells(call, lead, index), _scatter_values(call, src, lead), reduce, include_self)


def _at_cells(cells: Array, size: int) -> Any:
    """A fold of the elements of a value (first) and of the values written into it, both flat, into its cells."""
    targets = np.concatenate([np.arange(size), cells])

    def over(ufunc: Any, a: Array) -> Array:
        start = {np.logical_and: True, np.logical_or: False, np.minimum: np.inf, np.maximum: -np.inf, np.multiply: 1.0}.get(ufunc, 0)
        out = np.full(size, start, a.dtype if ufunc is not np.add else np.float64)
        ufunc.at(out, targets, a)
        return out

    return over, 1.0 + np.bincount(cells, minlength=size)


def _known_write(call: Call, x: Bounds, src: Bounds, cells: Array, reduce: str, include_self: bool) -> Bounds:
    """Bounds of a write to known cells; x has the value's shape, src is flat in the order of the cells."""
    shape, size = x.shape, x.lo.size
    flat = apply(x, np.ravel)
    written = np.bincount(cells, minlength=size) > 0
    if reduce == "assign" or not include_self:
        start = {"sum": 0.0, "prod": 1.0}.get(reduce)
        fresh = make(np.inf, -np.inf) if start is None else make(start, start, neg_zero=False, fraction=False)
        flat = Bounds(*(np.where(written, a, b) for a, b in zip(_parts(fresh), _parts(flat), strict=True)))
    if reduce in ("assign", "amax", "amin"):
        lo, hi, flags = flat.lo.copy(), flat.hi.copy(), flat.flags.copy()
        lower = {"amax": np.maximum}.get(reduce, np.minimum)
        upper = {"amin": np.minimum}.get(reduce, np.maximum)
        if reduce != "assign":
            lo, hi = np.where(lo > hi, _REDUCE[reduce][1], lo), np.where(flat.lo > flat.hi, _REDUCE[reduce][1], hi)
        lower.at(lo, cells, src.lo)
        upper.at(hi, cells, src.hi)
        np.bitwise_or.at(flags, cells, src.flags)
        has_zero = (lo <= 0) & (hi >= 0)
        return apply(Bounds(lo, hi, np.where(has_zero, flags, flags & ~ZERO_FLAGS)), lambda a: a.reshape(shape))
    over, terms = _at_cells(cells, size)
    both = Bounds(*(np.concatenate([a, b]) for a, b in zip(_parts(flat), _parts(src), strict=True)))
    fold = Fold(over, 1, terms)
    result = summed(call.format, both, fold) if reduce == "sum" else product(call.format, both, fold)
    return apply(fitted(call.format, result), lambda a: a.reshape(shape))


def _parts(b: Bounds) -> tuple[Array, Array, Array]:
    return b.lo, b.hi, b.flags


def _unknown_write(call: Call, x: Bounds, src: Bounds, times: int, reduce: str, include_self: bool) -> Bounds:
    """Bounds of a write to unknown places: `src` broadcasts against x, and at most `times` values reach one cell."""
    if reduce in ("assign", "amax", "amin") or times == 0:
        return join(x, src)
    if reduce == "mean":
        return _unknown_mean(call, join(x, src), times + include_self)
    neutral = ZERO if reduce == "sum" else ONE
    extra = join(src, neutral)
    start = x if include_self else join(x, neutral)
    shape = np.broadcast_shapes(start.shape, extra.shape)
    pair = Bounds(
        *(np.stack([np.broadcast_to(a, shape), np.broadcast_to(b, shape)]) for a, b in zip(_parts(start), _parts(extra), strict=True))
    )

    def over(ufunc: Any, a: Array) -> Array:
        more = a[1] * times if ufunc is np.add else a[1] ** times if ufunc is np.multiply else a[1]
        return np.asarray(ufunc(a[0], more))

    fold = Fold(over, 1, times + 1)
    total = fitted(call.format, summed(call.format, pair, fold) if reduce == "sum" else product(call.format, pair, fold))
    return join(x, total)  # a cell that nothing is written to stays as it is, -0 included


def _unknown_mean(call: Call, hull: Bounds, terms: int) -> Bounds:
    size, fmt = hull.magnitude, call.format
    error = (terms + 4) * (unit(fmt) + UNIT64) * size + (0 if fmt.is_float else 1)
    over = (nearest(fmt, terms * size * (1 + terms * unit(fmt))) == np.inf) & fmt.is_float
    lo, hi = np.where(over, -np.inf, hull.lo - error), np.where(over, np.inf, hull.hi + error)
    lo, hi = np.where(hull.empty, np.inf, lo), np.where(hull.empty, -np.inf, hi)
    result = make(lo, hi, nan=hull.may_nan | hull.may_inf | over, fraction=fmt.is_float)
    return settle(result, fmt)


def _index_put_bounds(call: Call, x: Bounds, value: Bounds, *indices: Bounds) -> Bounds:
    shape, region = call.shapes[0], _region(call)
    reduce = "sum" if call.attrs.get("accumulate") else "assign"
    x, value = aligned(x, len(shape)), aligned(value, len(region))
    if 0 in region:
        return x
    places = [integers(i, s) for i, s in zip(indices, call.shapes[2:], strict=True)]
    known = [p for p in places if p is not None]
    full, values = spread_all(x, shape), spread_all(value, region)
    if full is not None and values is not None and len(known) == len(places) and full.lo.ndim == len(shape):
        cells = _index_cells(call, (), *known)[0]
        return _known_write(call, full, apply(values, np.ravel), cells, reduce, True)
    first, last, common = _layout(call)
    hull = join_axes(value, range(first - len(common) + (last - first), last)) if common else value
    tail = hull.shape[hull.lo.ndim + last :] if last else ()
    head = hull.shape[: hull.lo.ndim - len(common) - len(tail)]
    hull = apply(hull, lambda a: a.reshape(head + (1,) * (last - first) + tail))
    return _unknown_write(call, x, hull, _most_hits(common, places), reduce, True)


def _most_hits(common: Shape, places: list[Array | None]) -> int:
    """How many values can at most be written to one place: a known index that never repeats allows one."""
    most = prod(common)
    for p in places:
        if p is not None:
            most = min(most, int(np.unique(np.broadcast_to(p, common), return_counts=True)[1].max(initial=0)))
    return most


def _scatter_bounds(call: Call, x: Bounds, index: Bounds, src: Bounds) -> Bounds:
    shape, axis = call.shapes[0], call.attrs["dim"]
    reduce = {"scatter": "assign", "scatter_add": "sum"}.get(call.op) or str(call.attrs["reduce"])
    include_self = bool(call.attrs.get("include_self", True))
    x, src = aligned(x, len(shape)), aligned(src, len(call.shapes[2]))
    if 0 in call.shapes[1]:
        return x
    places = integers(index, call.shapes[1])
    full, values = spread_all(x, shape), spread_all(src, call.shapes[2])
    if places is not None and full is not None and values is not None and reduce != "mean" and full.lo.ndim == len(shape):
        cells = _scatter_cells(call, (), places)[0]
        flat = apply(values, lambda a: _scatter_values(call, a, ()).reshape(-1))
        return _known_write(call, full, flat, cells, reduce, include_self)
    others = [a for a in range(-len(shape), 0) if a != axis and src.shape[a] > 1 and src.shape[a] != shape[a]]
    hull = join_axes(src, (axis, *others)) if shape else src
    return _unknown_write(call, x, hull, call.shapes[1][axis] if shape else 1, reduce, include_self)


# ---------------------------------------------------------------- the records

_SUMS = (
    Danger(
        "sum-overflow",
        lambda call, x, *rest: np.isfinite(x) if _adds(call) else np.zeros((1,) * len(call.shape), bool),
        "the values added to one place exceed the largest number of the format.",
    ),
)


def _adds(call: Call) -> bool:
    return call.op == "scatter_add" or bool(call.attrs.get("accumulate")) or call.attrs.get("reduce") in ("sum", "mean")


define_op("gather", "elements picked along an axis", _gather, _gather_bounds, moves=True)
define_op("take_flat", "elements picked from the flattened value", _take_flat, _take_flat_bounds, moves=True)
define_op("index", "elements picked by index tensors", _index, _index_bounds, moves=True)
define_op("index_put", "a value with elements replaced or added to by index", _index_put, _index_put_bounds, dangers=_SUMS)
define_op("scatter", "a value with elements replaced along an axis", _scatter, _scatter_bounds)
define_op("scatter_add", "a value with elements added to along an axis", _scatter, _scatter_bounds, dangers=_SUMS)
define_op("scatter_reduce", "a value with elements combined along an axis", _scatter, _scatter_bounds, dangers=_SUMS)
