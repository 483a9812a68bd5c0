"""Many boxes at once: a box gives each of some vertices its bounds, with the boxes along a first axis (size 1: all boxes share them)."""

from collections.abc import Callable, Sequence

import numpy as np

from whynan.analysis.view import Vertex
from whynan.domain.interval import NAN, Bounds, make, normalised, without_nan
from whynan.ir.dtype import Format, from_ordinal, ordinal

Box = dict[Vertex, Bounds]


def narrow(b: Bounds, lo: np.ndarray, hi: np.ndarray, fmt: Format) -> Bounds:
    """The same with other ends; NaN and zero flags stay where they still apply. Ends of whole numbers are whole."""
    integral = b.integral
    if fmt.is_float and integral.any():
        lo, hi = np.where(integral, np.ceil(lo), lo), np.where(integral, np.floor(hi), hi)
    return normalised(lo, hi, b.flags, fmt)


def count(box: Box) -> int:
    """How many boxes there are."""
    return max((b.lo.shape[0] for b in box.values()), default=1)


def take(b: Bounds, where: np.ndarray) -> Bounds:
    """The bounds in the chosen boxes; what all boxes share stays."""
    if b.lo.shape[0] == 1 and where.shape[0] != 1:
        return b
    return Bounds(b.lo[where], b.hi[where], b.flags[where])


def joined(parts: Sequence[Bounds]) -> Bounds:
    """The boxes of several bounds in one."""
    return Bounds(*(np.concatenate([getattr(b, field) for b in parts]) for field in ("lo", "hi", "flags")))


def point(b: Bounds, at: np.ndarray, fmt: Format) -> Bounds:
    """The bounds narrowed to one of their ends."""
    return narrow(Bounds(b.lo, b.hi, b.flags & ~NAN), at, at, fmt)


def cut(box: Box, v: Vertex, points: list[float], fmt: Format) -> Box:
    """Split a vertex at given values: the values themselves and the open ranges between them become boxes."""
    b = box[v]
    pieces = []
    below: float | None = None
    for p in [*points, None]:
        lo = b.lo if below is None else np.maximum(b.lo, _after(fmt, below, 1))
        hi = b.hi if p is None else np.minimum(b.hi, _after(fmt, p, -1))
        pieces.append(narrow(b, lo, hi, fmt))
        if p is not None:
            pieces.append(narrow(b, np.maximum(b.lo, p), np.minimum(b.hi, p), fmt))
            below = p
    pieces = [without_nan(p) for p in pieces if not p.empty.all()]
    if b.may_nan.any():  # NaN is a box of its own
        pieces.append(make(np.full(b.shape, np.inf), np.full(b.shape, -np.inf), nan=b.may_nan))
    pieces = pieces or [b]  # no value at all: what cannot happen is not cut
    return _stack(box, v, Bounds(*(np.stack([getattr(p, field) for p in pieces]) for field in ("lo", "hi", "flags"))))


def _after(fmt: Format, p: float, step: int) -> float:
    if not fmt.is_float:
        return p + step
    return float(from_ordinal(fmt, ordinal(fmt, p) + step))


def split(box: Box, v: Vertex, fmt: Format, parts: int) -> Box:
    """Split a vertex into parts with equally many representable values."""
    b = box[v]
    empty = b.empty
    first = ordinal(fmt, np.where(empty, 0.0, b.lo))
    last = ordinal(fmt, np.where(empty, 0.0, b.hi))
    step = last // parts - first // parts + (last % parts - first % parts) // parts  # the whole width may exceed an int64
    k = np.arange(parts).reshape(parts, *(1,) * b.lo.ndim)
    start = first + k * (step + 1)  # where the product overflows, the sum wraps back
    end = np.minimum(start + step, last)
    end[-1] = last
    void = empty | (start > end)
    lo, hi = np.where(void, np.inf, from_ordinal(fmt, start)), np.where(void, -np.inf, from_ordinal(fmt, end))
    flags = np.broadcast_to(b.flags, lo.shape).copy()
    flags[1:] &= ~NAN  # NaN is a box of its own: only the first part keeps the flag
    pieces = narrow(Bounds(lo, hi, flags), lo, hi, fmt)
    kept = np.asarray((~pieces.empty | pieces.may_nan).reshape(parts, -1).any(axis=1))
    kept[0] |= not kept.any()
    return _stack(box, v, Bounds(pieces.lo[kept], pieces.hi[kept], pieces.flags[kept]))


def _stack(box: Box, v: Vertex, pieces: Bounds) -> Box:
    """One box per piece and old box; `pieces` has the pieces along a new first axis."""
    n, parts = count(box), pieces.lo.shape[0]
    out: Box = {}
    for u, b in box.items():
        if u == v:
            out[u] = mapped(pieces, lambda a: np.broadcast_to(a, (parts, n, *a.shape[2:])).reshape(-1, *a.shape[2:]))
        elif b.lo.shape[0] == 1:
            out[u] = b
        else:
            out[u] = mapped(b, lambda a: np.broadcast_to(a, (parts, *a.shape)).reshape(-1, *a.shape[1:]))
    return out


def mapped(b: Bounds, move: Callable[[np.ndarray], np.ndarray]) -> Bounds:
    """The same function on ends and flags."""
    return Bounds(move(b.lo), move(b.hi), move(b.flags))
