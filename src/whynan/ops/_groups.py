"""Helpers for bounds whose dimensions of size 1 stand for many elements, used by the ops that are not elementwise.

Bounds may have more dimensions in front than the value (many boxes at once); axes are negative, so that these never matter.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from whynan.domain.interval import Bounds, apply, collapse, join_axes, make, reshape
from whynan.ir.dtype import Array, Format
from whynan.ir.graph import Call, Shape

SPREAD_LIMIT = 65536  # groups: beyond this, elements share an interval rather than have one each


def aligned(b: Bounds, ndim: int) -> Bounds:
    """The same bounds with at least `ndim` dimensions."""
    missing = ndim - b.lo.ndim
    return reshape(b, (1,) * missing + b.shape) if missing > 0 else b


def uniform(b: Bounds, axes: Sequence[int]) -> bool:
    """True if the bounds do not vary along the axes."""
    return all(b.lo.shape[a] == 1 for a in axes)


def copies(b: Bounds, shape: Shape, axes: Sequence[int]) -> int:
    """How many elements of a value of that shape each group stands for along the axes (0 if one of them has no element)."""
    return prod(shape[a] if b.lo.shape[a] == 1 else 1 for a in axes)


def span(shape: Shape, axes: Sequence[int]) -> int:
    """The number of elements of a value along the axes."""
    return prod(shape[a] for a in axes)


def spread_axes(b: Bounds, shape: Shape, axes: Sequence[int]) -> Bounds:
    """Give each element along the axes its own group; where that is more than SPREAD_LIMIT, one group for all along the axes."""
    b = aligned(b, len(shape))
    full = list(b.shape)
    for a in axes:
        full[a] = shape[a]
    if prod(full) > SPREAD_LIMIT and any(b.shape[a] != shape[a] for a in axes):
        return join_axes(b, axes)
    return apply(b, lambda x: np.broadcast_to(x, full))


def spread_all(b: Bounds, shape: Shape) -> Bounds | None:
    """A group for every element, or None if those are more than SPREAD_LIMIT."""
    b = aligned(b, len(shape))
    full = b.shape[: b.lo.ndim - len(shape)] + tuple(shape)
    if prod(full) > SPREAD_LIMIT:
        return None
    return apply(b, lambda x: np.broadcast_to(x, full))


def rearranged(b: Bounds, shape: Shape, result: Shape, move: Callable[[Array], Array]) -> Bounds:
    """Bounds of `move(x)`, where `move` only rearranges, repeats or drops the elements of a value of that shape."""
    b = aligned(b, len(shape))
    if uniform(b, range(-len(shape), 0)):
        return reshape(b, b.shape[: b.lo.ndim - len(shape)] + (1,) * len(result))
    full = spread_all(b, shape)
    if full is None:
        return merged(b, len(shape), len(result))
    return apply(full, lambda x: np.ascontiguousarray(move(x)))


def merged(b: Bounds, ndim: int, result_ndim: int) -> Bounds:
    """One group for all elements of a value of `ndim` dimensions, in `result_ndim` dimensions; the dimensions in front stay."""
    b = aligned(b, ndim)
    front = b.shape[: b.lo.ndim - ndim]
    if not front:
        return collapse(b, result_ndim)
    return reshape(join_axes(b, range(-ndim, 0)), front + (1,) * result_ndim)


def regrouped(b: Bounds, old: Shape, new: Shape) -> Bounds:
    """Bounds of a value of shape `old` reshaped to `new`, keeping groups wherever the two shapes split at the same places."""
    b = aligned(b, len(old))
    if 0 in old:
        return merged(b, len(old), len(new))
    front = b.shape[: b.lo.ndim - len(old)]
    laid = [1] * len(new)
    for olds, news in _blocks(old, new):
        axes = [i - len(old) for i in olds]
        if not uniform(b, axes):
            b = spread_axes(b, old, axes)
        if not uniform(b, axes):
            for i in news:
                laid[i] = new[i]
    return reshape(b, front + tuple(laid))


def _blocks(old: Shape, new: Shape) -> list[tuple[list[int], list[int]]]:
    """The shortest runs of dimensions of two shapes that hold equally many elements; dimensions of size 1 belong to none."""
    olds = [i for i, n in enumerate(old) if n != 1]
    news = [i for i, n in enumerate(new) if n != 1]
    blocks: list[tuple[list[int], list[int]]] = []
    while olds:
        left, right = [olds.pop(0)], [news.pop(0)]
        m, n = old[left[0]], new[right[0]]
        while m != n:
            if m < n:
                left.append(olds.pop(0))
                m *= old[left[-1]]
            else:
                right.append(news.pop(0))
                n *= new[right[-1]]
        blocks.append((left, right))
    return blocks


def batch_rank(call: Call, x: Array, i: int = 0) -> int:
    """How many batch dimensions stand in front of input i."""
    return x.ndim - len(call.shapes[i])


def point(b: Bounds) -> bool:
    """True if the bounds allow exactly one number everywhere, and no NaN."""
    return bool((b.lo == b.hi).all()) and not b.may_nan.any()


def magnitudes(b: Bounds, fmt: Format) -> Bounds:
    """Bounds of |x|."""
    away = np.where(b.may_zero, 0.0, fmt.smallest)
    low = np.where((b.lo < 0) & (b.hi > 0), away, np.minimum(np.abs(b.lo), np.abs(b.hi)))
    high = np.maximum(np.abs(b.lo), np.abs(b.hi))
    low, high = np.where(b.empty, np.inf, low), np.where(b.empty, -np.inf, high)
    return make(low, high, nan=b.may_nan, pos_zero=b.may_zero, neg_zero=False, fraction=~b.integral)


def blank(lo: Any, hi: Any, never: Any) -> tuple[Any, Any]:
    """The ends with the empty interval where `never` says that no number is possible."""
    return np.where(never, np.inf, lo), np.where(never, -np.inf, hi)
