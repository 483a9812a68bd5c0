"""The distinct elements of a value in order, where they were found, how often: their number depends on values and is the recorded one."""

from math import prod
from typing import Any

import numpy as np

from whynan.domain.interval import Bounds, make
from whynan.errors import OpError
from whynan.ir.dtype import Array
from whynan.ir.graph import Call
from whynan.ops._groups import merged, point, spread_all
from whynan.ops._opdef import define_op
from whynan.ops.shape import front

_WHICH = {"unique": 0, "unique_inverse": 1, "unique_counts": 2}


def _found(call: Call, x: Array) -> Array:
    """The distinct elements (`dim` None) or slices along an axis, the place of each element among them, or their counts; of one value."""
    dim = call.attrs["dim"]
    found = np.unique(x, return_inverse=True, return_counts=True, axis=dim, equal_nan=False)
    result = np.asarray(found[_WHICH[call.op]])
    result = result.reshape(x.shape) if call.op == "unique_inverse" and dim is None else result.reshape(-1) if _WHICH[call.op] else result
    if result.shape != tuple(call.shape) or (call.op == "unique_inverse" and len(found[2]) != call.attrs["count"]):
        raise OpError(f"{call.op}: there are more or fewer distinct elements than in the recorded run.")
    return result


def _evaluate(call: Call, x: Array) -> Array:
    lead = front(call, x)
    rows = [_found(call, row) for row in x.reshape((prod(lead), *call.shapes[0]))]
    return np.stack(rows).reshape(lead + tuple(call.shape)) if rows else np.zeros(lead + tuple(call.shape), x.dtype)


def _known(call: Call, b: Bounds) -> Array | None:
    """The result, if the operand is one known value and gives as many distinct elements as were recorded."""
    full = spread_all(b, call.shapes[0]) if point(b) else None
    if full is None or full.lo.ndim != len(call.shapes[0]):
        return None
    try:
        return _found(call, full.lo)
    except OpError:
        return None


def _whole(found: Array) -> Bounds:
    x = found.astype(np.float64)
    return make(x, x, neg_zero=False, fraction=False)


def _values_bounds(call: Call, b: Bounds) -> Bounds:
    found = _known(call, b) if not call.formats[0].is_float else None
    return _whole(found) if found is not None else merged(b, len(call.shapes[0]), len(call.shape))


def _places_bounds(call: Call, b: Bounds) -> Bounds:
    """Places run from 0 to the number of distinct elements less one; a count is at least 1, and what the others leave at most."""
    found = _known(call, b)
    if found is not None:
        return _whole(found)
    size = (1,) * len(call.shape)
    dim = call.attrs["dim"]
    elements = prod(call.shapes[0]) if dim is None else call.shapes[0][dim]
    low, high = (0.0, call.attrs["count"] - 1.0) if call.op == "unique_inverse" else (1.0, elements - prod(call.shape) + 1.0)
    return make(np.full(size, low), np.full(size, max(low, high)), neg_zero=False, fraction=False)


_RECORDS: tuple[tuple[str, str, Any], ...] = (
    ("unique", "the distinct elements in order", _values_bounds),
    ("unique_inverse", "the place of each element among the distinct ones", _places_bounds),
    ("unique_counts", "how often each distinct element occurs", _places_bounds),
)
for _name, _text, _bounds in _RECORDS:
    define_op(_name, _text, _evaluate, _bounds, strict=_name == "unique")
