"""Sample calls of the ops that move elements."""

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
from numpy.random import Generator

from whynan.ir.dtype import INT64, Array
from whynan.ir.graph import Call, Shape

from . import any_float
from .reduction import a_shape


def _unary(op: str, draw: Callable[[Generator, Shape], tuple[dict[str, Any], Shape]], least: int = 1) -> Callable[[Generator], Call]:
    def case(rng: Generator) -> Call:
        fmt, shape = any_float(rng), a_shape(rng, least)
        attrs, result = draw(rng, shape)
        return Call(op, attrs, (shape,), (fmt,), result, fmt)

    return case


def _an_axis(rng: Generator, shape: Shape) -> int:
    return -1 - int(rng.integers(len(shape)))


def _with(shape: Shape, axis: int, n: int) -> Shape:
    out = list(shape)
    out[axis] = n
    return tuple(out)


def _reshape(rng: Generator, shape: Shape) -> tuple[dict[str, Any], Shape]:
    n = prod(shape)
    factors: list[int] = []
    for p in (2, 2, 2, 3, 3, 5, 5, 5):
        if n % p == 0:
            factors.append(p)
            n //= p
    factors += [n] if n > 1 else []
    result: list[int] = [1]
    for f in rng.permutation(factors).astype(int):
        if rng.random() < 0.5:
            result.append(int(f))
        else:
            result[-1] *= int(f)
    if rng.random() < 0.5:
        result.append(1)
    return {}, tuple(result)


def _permute(rng: Generator, shape: Shape) -> tuple[dict[str, Any], Shape]:
    axes = tuple(int(a) - len(shape) for a in rng.permutation(len(shape)))
    return {"axes": axes}, tuple(shape[a] for a in axes)


def _expand(rng: Generator) -> Call:
    fmt, shape = any_float(rng), a_shape(rng)
    small = tuple(1 if rng.random() < 0.5 else n for n in shape)[int(rng.integers(0, 2)) :]
    return Call("expand", {}, (small,), (fmt,), shape, fmt)


def _slice(rng: Generator, shape: Shape) -> tuple[dict[str, Any], Shape]:
    axis, step = _an_axis(rng, shape), int(rng.integers(1, 3))
    start = int(rng.integers(shape[axis]))
    return {"dim": axis, "start": start, "step": step}, _with(shape, axis, len(range(start, shape[axis], step)))


def _concat(rng: Generator) -> Call:
    fmt, shape = any_float(rng), a_shape(rng)
    axis = _an_axis(rng, shape)
    shapes = tuple(_with(shape, axis, int(n)) for n in rng.integers(1, 4, int(rng.integers(1, 4))))
    return Call("concat", {"dim": axis}, shapes, (fmt,) * len(shapes), _with(shape, axis, sum(s[axis] for s in shapes)), fmt)


def _dims(rng: Generator, shape: Shape) -> tuple[int, ...]:
    return tuple(int(a) - len(shape) for a in rng.choice(len(shape), int(rng.integers(1, len(shape) + 1)), replace=False))


def _roll(rng: Generator, shape: Shape) -> tuple[dict[str, Any], Shape]:
    dims = _dims(rng, shape)
    return {"dims": dims, "shifts": tuple(int(s) for s in rng.integers(-3, 4, len(dims)))}, shape


def _pad(low: int) -> Callable[[Generator, Shape], tuple[dict[str, Any], Shape]]:
    def draw(rng: Generator, shape: Shape) -> tuple[dict[str, Any], Shape]:
        pads = tuple((int(rng.integers(low, 3)), int(rng.integers(low + 1, 3))) if rng.random() < 0.6 else (0, 0) for _ in shape)
        if low == 0:
            pads = tuple((min(p, n - 1), min(q, n - 1)) for (p, q), n in zip(pads, shape, strict=True))
        else:
            pads = tuple((p, q) if n + p + q > 0 and n > 1 else (0, 2) for (p, q), n in zip(pads, shape, strict=True))
        return {"pads": pads, "value": float(rng.integers(-1, 2))}, tuple(n + p + q for n, (p, q) in zip(shape, pads, strict=True))

    return draw


def _unfold(rng: Generator, shape: Shape) -> tuple[dict[str, Any], Shape]:
    axis, step = _an_axis(rng, shape), int(rng.integers(1, 3))
    size = int(rng.integers(1, shape[axis] + 1))
    return {"dim": axis, "size": size, "step": step}, (*_with(shape, axis, (shape[axis] - size) // step + 1), size)


def _strided(rng: Generator, shape: Shape) -> tuple[dict[str, Any], Shape]:
    n = prod(shape)
    size = (int(rng.integers(1, min(n, 3) + 1)), 2)
    stride = (1, int(rng.integers(0, max((n - size[0]), 0) + 1)))
    room = n - 1 - (size[0] - 1) - stride[1]
    return {"size": size, "stride": stride, "offset": int(rng.integers(0, max(room, 0) + 1))}, size


def _tile(rng: Generator, shape: Shape) -> tuple[dict[str, Any], Shape]:
    reps = tuple(int(r) for r in rng.integers(1, 3, len(shape) + int(rng.integers(0, 2))))
    grown = (1,) * (len(reps) - len(shape)) + shape
    return {"reps": reps}, tuple(n * r for n, r in zip(grown, reps, strict=True))


def _diagonal(rng: Generator, shape: Shape) -> tuple[dict[str, Any], Shape]:
    axes = [int(a) - len(shape) for a in rng.permutation(len(shape))[:2]]
    offset = int(rng.integers(-shape[axes[0]] + 1, shape[axes[1]]))
    out = np.diagonal(np.zeros(shape), offset, axes[0], axes[1]).shape
    return {"offset": offset, "dim1": axes[0], "dim2": axes[1]}, out


def _put(op: str, draw: Callable[[Generator, Shape], tuple[dict[str, Any], Shape]], least: int = 1) -> Callable[[Generator], Call]:
    def case(rng: Generator) -> Call:
        fmt, shape = any_float(rng), a_shape(rng, least)
        attrs, part = draw(rng, shape)
        return Call(op, attrs, (shape, part), (fmt, fmt), shape, fmt)

    return case


def _distinct(rng: Generator, shape: Shape) -> tuple[dict[str, Any], Shape]:
    n = int(rng.integers(1, prod(shape) + 1))
    return {"size": (n,), "stride": (1,), "offset": prod(shape) - n}, (n,)


def _one_hot(rng: Generator) -> Call:
    shape = a_shape(rng)
    return Call("one_hot", {"classes": 5}, (shape,), (INT64,), (*shape, 5), INT64)


def _classes(call: Call, rng: Generator) -> list[Array]:
    return [rng.integers(0, 5, call.shapes[0])]


CASES = {
    "reshape": _unary("reshape", _reshape),
    "permute": _unary("permute", _permute),
    "expand": _expand,
    "slice": _unary("slice", _slice),
    "concat": _concat,
    "flip": _unary("flip", lambda rng, shape: ({"dims": _dims(rng, shape)}, shape)),
    "roll": _unary("roll", _roll),
    "pad": _unary("pad", _pad(-1)),
    "pad_reflect": _unary("pad_reflect", _pad(0)),
    "pad_replicate": _unary("pad_replicate", _pad(0)),
    "unfold": _unary("unfold", _unfold),
    "as_strided": _unary("as_strided", _strided),
    "tile": _unary("tile", _tile),
    "diagonal": _unary("diagonal", _diagonal, least=2),
    "slice_scatter": _put("slice_scatter", _slice),
    "diagonal_scatter": _put("diagonal_scatter", _diagonal, least=2),
    "as_strided_scatter": _put("as_strided_scatter", _distinct),
    "one_hot": _one_hot,
}

INPUTS = {"one_hot": _classes}
