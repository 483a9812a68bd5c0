"""Operations that only move elements: reshape, transpose, slice, join, pad, and writing one value into a part of another."""

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from whynan.domain.interval import Bounds, apply, join, join_axes, make, of_array
from whynan.ir.dtype import Array
from whynan.ir.graph import Call, Shape
from whynan.ops._groups import SPREAD_LIMIT, aligned, batch_rank, merged, rearranged, regrouped, spread_all, spread_axes, uniform
from whynan.ops._opdef import OpDef, define_op


def front(call: Call, x: Array, i: int = 0) -> Shape:
    """The batch shape in front of input i."""
    return x.shape[: batch_rank(call, x, i)]


def _define_move(name: str, text: str, evaluate: Callable[[Call, Array], Array]) -> OpDef:
    """An op that rearranges its only input: it moves the bounds of single elements as it moves the elements."""

    def transfer(call: Call, b: Bounds) -> Bounds:
        return rearranged(b, call.shapes[0], call.shape, lambda a: evaluate(call, a))

    return define_op(name, text, evaluate, transfer, moves=True)


def _taken(x: Array, positions: Array, axis: int) -> Array:
    return np.take(x, positions, axis=axis)


# ---------------------------------------------------------------- layout


def _permute(call: Call, x: Array) -> Array:
    batch = batch_rank(call, x)
    return np.transpose(x, (*range(batch), *(x.ndim + a for a in call.attrs["axes"])))


def _permute_bounds(call: Call, b: Bounds) -> Bounds:
    return apply(aligned(b, len(call.shapes[0])), lambda a: _permute(call, a))


def _lifted(call: Call, x: Array) -> Array:
    """The array with unit dimensions between the batch and the value, up to the result's rank."""
    lead = front(call, x)
    return x.reshape(lead + (1,) * (len(call.shape) - len(call.shapes[0])) + x.shape[len(lead) :])


def _expand(call: Call, x: Array) -> Array:
    return np.broadcast_to(_lifted(call, x), front(call, x) + tuple(call.shape))


def _expand_bounds(call: Call, b: Bounds) -> Bounds:
    return apply(aligned(b, len(call.shapes[0])), lambda a: _lifted(call, a))


def _slice_positions(call: Call) -> tuple[int, Array]:
    axis, n = call.attrs["dim"], call.shapes[0][call.attrs["dim"]]
    start = call.attrs.get("start", 0)
    return axis, (start + n if start < 0 else start) + call.attrs.get("step", 1) * np.arange(call.shape[axis])


def _slice(call: Call, x: Array) -> Array:
    axis, positions = _slice_positions(call)
    return _taken(x, positions, axis)


def _slice_bounds(call: Call, b: Bounds) -> Bounds:
    b = aligned(b, len(call.shapes[0]))
    axis, positions = _slice_positions(call)
    if b.shape[axis] == 1:
        return b if call.shapes[0][axis] != 1 else apply(b, lambda a: _taken(a, positions, axis))
    return apply(b, lambda a: _taken(a, positions, axis))


def _flip_bounds(call: Call, b: Bounds) -> Bounds:
    return apply(aligned(b, len(call.shapes[0])), lambda a: np.ascontiguousarray(np.flip(a, call.attrs["dims"])))


def _roll_bounds(call: Call, b: Bounds) -> Bounds:
    return apply(aligned(b, len(call.shapes[0])), lambda a: np.roll(a, call.attrs["shifts"], call.attrs["dims"]))


def _unfold(call: Call, x: Array) -> Array:
    axis = call.attrs["dim"]
    windows = call.shape[axis - 1]
    positions = call.attrs["step"] * np.arange(windows)[:, None] + np.arange(call.attrs["size"])
    return np.moveaxis(_taken(x, positions, axis), axis, -1)


def _as_strided(call: Call, x: Array) -> Array:
    lead = front(call, x)
    return _taken(x.reshape(lead + (prod(call.shapes[0]),)), _strided_positions(call), -1)


def _strided_positions(call: Call) -> Array:
    positions: Array = np.asarray(call.attrs.get("offset", 0), np.int64)
    size, stride = tuple(call.attrs["size"]), tuple(call.attrs["stride"])
    for k, (n, step) in enumerate(zip(size, stride, strict=True)):
        positions = positions + (step * np.arange(n)).reshape((n,) + (1,) * (len(size) - k - 1))
    return np.broadcast_to(positions, size)


def _tile(call: Call, x: Array) -> Array:
    reps = tuple(call.attrs["reps"])
    return np.tile(_lifted(call, x), (1,) * len(front(call, x)) + (1,) * (len(call.shape) - len(reps)) + reps)


# ---------------------------------------------------------------- joining and padding


def _concat_bounds(call: Call, *bs: Bounds) -> Bounds:
    axis = call.attrs["dim"]
    parts = [(aligned(b, len(s)), s) for b, s in zip(bs, call.shapes, strict=True) if s[axis] > 0]
    if not parts:
        return bs[0]
    first = parts[0][0]
    if all(_same(first, b) and uniform(b, (axis,)) for b, _ in parts):
        return first
    laid = [spread_axes(b, s, (axis,)) for b, s in parts]
    others = np.broadcast_shapes(*(join_axes(b, (axis,)).shape for b in laid))
    if prod(others) * call.shape[axis] > SPREAD_LIMIT or any(b.shape[axis] != s[axis] for b, (_, s) in zip(laid, parts, strict=True)):
        return join(*(join_axes(b, (axis,)) for b in laid))

    def together(arrays: list[Array]) -> Array:
        full = [np.broadcast_to(a, _replaced(others, axis, a.shape[axis])) for a in arrays]
        return np.concatenate(full, axis=axis)

    return Bounds(together([b.lo for b in laid]), together([b.hi for b in laid]), together([b.flags for b in laid]))


def _replaced(shape: Shape, axis: int, n: int) -> Shape:
    out = list(shape)
    out[axis] = n
    return tuple(out)


def _same(a: Bounds, b: Bounds) -> bool:
    return np.array_equal(a.lo, b.lo) and np.array_equal(a.hi, b.hi) and np.array_equal(a.flags, b.flags)


def _pads(call: Call) -> list[tuple[int, int]]:
    """What to add before and after each axis of the value; negative numbers cut elements off."""
    pads = [(int(p), int(q)) for p, q in call.attrs["pads"]]
    return [(0, 0)] * (len(call.shapes[0]) - len(pads)) + pads


def _padded(x: Array, pads: list[tuple[int, int]], value: Any) -> Array:
    lead = x.ndim - len(pads)
    cut: Any = (..., *(slice(max(-p, 0), n - max(-q, 0)) for (p, q), n in zip(pads, x.shape[lead:], strict=True)))
    widths = [(0, 0)] * lead + [(max(p, 0), max(q, 0)) for p, q in pads]
    return np.pad(x[cut], widths, constant_values=value)


def _pad(call: Call, x: Array) -> Array:
    return _padded(x, _pads(call), x.dtype.type(call.attrs.get("value", 0)))


def _pad_bounds(call: Call, b: Bounds) -> Bounds:
    pads, shape = _pads(call), call.shapes[0]
    fill = of_array(np.asarray(call.attrs.get("value", 0), np.float64).astype(call.format.numpy))
    axes = tuple(i - len(shape) for i, (p, q) in enumerate(pads) if p or q)
    grown = any(p > 0 or q > 0 for p, q in pads)
    b = aligned(b, len(shape))
    if not grown or 0 in shape:
        whole = join_axes(b, axes)
        return join(whole, fill) if grown else whole
    if uniform(b, axes) and _same(apply(fill, lambda a: np.broadcast_to(a, b.shape)), b):
        return b
    b = spread_axes(b, shape, axes)
    cells = prod(b.shape[: b.lo.ndim - len(shape)]) * prod(
        call.shape[i] if i - len(shape) in axes else b.shape[i - len(shape)] for i in range(len(shape))
    )
    if any(b.shape[a] != shape[a] for a in axes) or cells > SPREAD_LIMIT:
        return join(join_axes(b, axes), fill)
    return Bounds(_padded(b.lo, pads, fill.lo), _padded(b.hi, pads, fill.hi), _padded(b.flags, pads, fill.flags))


def _pad_by(mode: Any) -> Callable[[Call, Array], Array]:
    return lambda call, x: np.pad(x, [(0, 0)] * batch_rank(call, x) + _pads(call), mode=mode)


# ---------------------------------------------------------------- writing into known places


def _put(call: Call, x: Array, src: Array, positions: Array) -> Array:
    """A copy of x with src at the flat positions (of the value, batch aside)."""
    lead = front(call, x)
    flat = x.reshape(lead + (prod(call.shape),)).copy()
    flat[..., positions.reshape(-1)] = src.reshape(lead + (positions.size,))
    return flat.reshape(x.shape)


def _numbered(call: Call) -> Array:
    return np.arange(prod(call.shapes[0])).reshape(call.shapes[0])


def _put_bounds(call: Call, x: Bounds, src: Bounds, positions: Array) -> Bounds:
    a, b = spread_all(x, call.shapes[0]), spread_all(src, call.shapes[1])
    x, src = aligned(x, len(call.shapes[0])), aligned(src, len(call.shapes[1]))
    if 0 in call.shapes[1]:
        return x
    if a is None or b is None:
        hull = merged(src, len(call.shapes[1]), len(call.shapes[0]))
        return join(x, hull)
    if src.lo.size == 1 and x.lo.size == 1 and _same(apply(src, np.ravel), apply(x, np.ravel)):
        return x
    return Bounds(_put(call, a.lo, b.lo, positions), _put(call, a.hi, b.hi, positions), _put(call, a.flags, b.flags, positions))


def _define_put(name: str, text: str, places: Callable[[Call], Array]) -> OpDef:
    return define_op(
        name,
        text,
        lambda call, x, src: _put(call, x, src, places(call)),
        lambda call, x, src: _put_bounds(call, x, src, places(call)),
    )


def _slice_places(call: Call) -> Array:
    axis, n = call.attrs["dim"], call.shapes[0][call.attrs["dim"]]
    start = call.attrs.get("start", 0)
    positions = (start + n if start < 0 else start) + call.attrs.get("step", 1) * np.arange(call.shapes[1][axis])
    return _taken(_numbered(call), positions, axis)


def _diagonal(call: Call, x: Array) -> Array:
    return np.diagonal(x, call.attrs.get("offset", 0), call.attrs.get("dim1", -2), call.attrs.get("dim2", -1))


# ---------------------------------------------------------------- one-hot rows


def _one_hot(call: Call, x: Array) -> Array:
    return np.asarray(x[..., None] == np.arange(call.attrs["classes"])).astype(call.format.numpy)


def _one_hot_bounds(call: Call, b: Bounds) -> Bounds:
    b = apply(aligned(b, len(call.shapes[0])), lambda a: a[..., None])
    classes = np.arange(call.attrs["classes"], dtype=np.float64)
    may, sure = (b.lo <= classes) & (classes <= b.hi), (b.lo == classes) & (classes == b.hi)
    if may.all() and not sure.any():
        may, sure = may[..., :1], sure[..., :1]
    return make(sure * 1.0, may * 1.0, neg_zero=False, fraction=False)


# ---------------------------------------------------------------- the records

define_op(
    "reshape",
    "the same elements in another shape",
    lambda call, x: x.reshape(front(call, x) + tuple(call.shape)),
    lambda call, b: regrouped(b, call.shapes[0], call.shape),
    moves=True,
)
define_op("permute", "the axes in another order", _permute, _permute_bounds, moves=True)
define_op("expand", "the elements repeated along new or unit axes", _expand, _expand_bounds, moves=True)
define_op("slice", "every step-th element of an axis", _slice, _slice_bounds, moves=True)
define_op("flip", "the elements in reverse order", lambda call, x: np.flip(x, call.attrs["dims"]), _flip_bounds, moves=True)
define_op(
    "roll", "the elements shifted around", lambda call, x: np.roll(x, call.attrs["shifts"], call.attrs["dims"]), _roll_bounds, moves=True
)
define_op(
    "concat", "values one after the other along an axis", lambda call, *xs: np.concatenate(xs, axis=call.attrs["dim"]), _concat_bounds
)
define_op("pad", "a value with a constant around it", _pad, _pad_bounds)
define_op("one_hot", "rows with 1 at the given class", _one_hot, _one_hot_bounds)

_define_move("pad_reflect", "a value continued by its mirror image", _pad_by("reflect"))
_define_move("pad_replicate", "a value continued by its outermost elements", _pad_by("edge"))
_define_move("unfold", "all windows of an axis", _unfold)
_define_move("as_strided", "elements picked by strides over the flattened value", _as_strided)
_define_move("tile", "the value repeated", _tile)
_define_move("diagonal", "the elements of a diagonal", _diagonal)

_define_put("slice_scatter", "a value with a slice of it replaced", _slice_places)
_define_put("diagonal_scatter", "a value with a diagonal of it replaced", lambda call: _diagonal(call, _numbered(call)))
_define_put("as_strided_scatter", "a value with strided elements of it replaced", _strided_positions)
