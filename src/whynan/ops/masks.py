"""Selecting and replacing elements under a mask: the shape of the result depends on values, so it is the recorded one."""

from math import prod

import numpy as np

from whynan.domain.interval import Bounds, apply, make
from whynan.errors import OpError
from whynan.ir.dtype import Array
from whynan.ir.graph import Call
from whynan.ops._groups import aligned, merged, spread_all
from whynan.ops._opdef import define_op
from whynan.ops.indexing import integers
from whynan.ops.shape import front


def _masked_select(call: Call, x: Array, mask: Array) -> Array:
    lead = np.broadcast_shapes(front(call, x), front(call, mask, 1))
    full = np.broadcast_shapes(*call.shapes)
    x, mask = (np.broadcast_to(_spaced(call, a, i, len(full)), lead + full) for i, a in enumerate((x, mask)))
    picked = np.asarray(x[mask.astype(bool)])
    if picked.size != prod(lead) * prod(call.shape) or np.any(mask.reshape(prod(lead), -1).sum(1) != prod(call.shape)):
        raise OpError("masked_select: the mask selects another number of elements than in the recorded run.")
    return picked.reshape(lead + tuple(call.shape))


def _spaced(call: Call, x: Array, i: int, ndim: int) -> Array:
    lead = front(call, x, i)
    return x.reshape(lead + (1,) * (ndim - len(call.shapes[i])) + x.shape[len(lead) :])


def _masked_select_bounds(call: Call, x: Bounds, mask: Bounds) -> Bounds:
    full = np.broadcast_shapes(*call.shapes)
    places, values = integers(mask, call.shapes[1]), spread_all(x, full)
    if places is not None and values is not None and values.lo.ndim == len(full):
        chosen = np.broadcast_to(places.astype(bool), full)
        if x.lo.size > 1 and chosen.sum() == prod(call.shape):
            return apply(values, lambda a: a[chosen])
    return merged(x, len(call.shapes[0]), len(call.shape))


def _masked_indices(call: Call, mask: Array) -> Array:
    lead = front(call, mask)
    rows = [np.argwhere(m) for m in mask.reshape((prod(lead), *call.shapes[0]))]
    if any(r.shape != tuple(call.shape) for r in rows):
        raise OpError("masked_indices: the mask selects another number of elements than in the recorded run.")
    return np.stack(rows).reshape(lead + tuple(call.shape)) if rows else np.zeros(lead + tuple(call.shape), np.int64)


def _masked_indices_bounds(call: Call, mask: Bounds) -> Bounds:
    places = integers(mask, call.shapes[0])
    if places is not None and int((places != 0).sum()) == call.shape[0]:
        found = np.argwhere(places).astype(np.float64)
        return make(found, found, neg_zero=False, fraction=False)
    last = np.maximum(np.asarray(call.shapes[0], np.float64) - 1, 0).reshape(1, -1)
    return make(np.zeros(last.shape), last, neg_zero=False, fraction=False)


def _masked_scatter(call: Call, x: Array, mask: Array, source: Array) -> Array:
    lead, shape = front(call, x), tuple(call.shapes[0])
    out = x.reshape((prod(lead), *shape)).copy()
    chosen = np.broadcast_to(_spaced(call, mask, 1, len(shape)), lead + shape).reshape(out.shape).astype(bool)
    values = source.reshape(prod(lead), -1)
    for row, where, new in zip(out, chosen, values, strict=True):
        row[where] = new[: int(where.sum())]
    return out.reshape(x.shape)


def _masked_scatter_bounds(call: Call, x: Bounds, mask: Bounds, source: Bounds) -> Bounds:
    ndim = len(call.shapes[0])
    x, mask = aligned(x, ndim), aligned(mask, ndim)
    new = merged(source, len(call.shapes[2]), ndim)
    may, sure = mask.hi > 0, mask.lo > 0
    lo = np.where(sure, new.lo, np.where(may, np.minimum(x.lo, new.lo), x.lo))
    hi = np.where(sure, new.hi, np.where(may, np.maximum(x.hi, new.hi), x.hi))
    return Bounds(lo, hi, np.where(sure, new.flags, np.where(may, x.flags | new.flags, x.flags)))


# ---------------------------------------------------------------- the records

define_op("masked_select", "the elements where a mask is true", _masked_select, _masked_select_bounds, moves=True)
define_op("masked_indices", "the positions where a mask is true", _masked_indices, _masked_indices_bounds)
define_op("masked_scatter", "a value with the elements under a mask replaced in order", _masked_scatter, _masked_scatter_bounds)
