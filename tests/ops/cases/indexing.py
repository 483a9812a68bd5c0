"""Sample calls of gather, scatter, indexing and masks, with indices in range."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.random import Generator

from whynan.ir.dtype import BOOL, INT64, Array, Format
from whynan.ir.graph import Call, Shape

from . import any_float
from .reduction import a_shape


def numbers(rng: Generator, fmt: Format, shape: Shape) -> Array:
    """Arbitrary floats, special values among them."""
    special = np.array([0.0, -0.0, 1.0, np.inf, -np.inf, np.nan, fmt.max, -fmt.max, fmt.smallest])
    if rng.random() < 0.6:
        special = special[np.isfinite(special)]
    drawn = np.where(rng.random(shape) < 0.3, rng.choice(special, shape), rng.normal(size=shape) * 10)
    return np.asarray(drawn).astype(fmt.numpy)


def _axis(rng: Generator, shape: Shape) -> int:
    return -1 - int(rng.integers(len(shape)))


def _smaller(rng: Generator, shape: Shape, axis: int) -> Shape:
    out = [int(rng.integers(1, n + 1)) for n in shape]
    out[axis] = int(rng.integers(1, 5))
    return tuple(out)


def _gather(rng: Generator) -> Call:
    fmt, shape = any_float(rng), a_shape(rng)
    axis = _axis(rng, shape)
    index = _smaller(rng, shape, axis)
    return Call("gather", {"dim": axis}, (shape, index), (fmt, INT64), index, fmt)


def _gather_inputs(call: Call, rng: Generator) -> list[Array]:
    n = call.shapes[0][call.attrs["dim"]]
    return [numbers(rng, call.formats[0], call.shapes[0]), rng.integers(0, n, call.shapes[1])]


def _take_flat(rng: Generator) -> Call:
    fmt, shape, index = any_float(rng), a_shape(rng), a_shape(rng)
    return Call("take_flat", {}, (shape, index), (fmt, INT64), index, fmt)


def _take_flat_inputs(call: Call, rng: Generator) -> list[Array]:
    n = int(np.prod(call.shapes[0]))
    return [numbers(rng, call.formats[0], call.shapes[0]), rng.integers(0, n, call.shapes[1])]


def _index_parts(rng: Generator) -> tuple[Shape, tuple[int, ...], tuple[Shape, ...], Shape]:
    """Shape, indexed axes, index shapes, result shape."""
    shape = a_shape(rng)
    first = int(rng.integers(len(shape)))
    count = int(rng.integers(1, len(shape) - first + 1))
    axes = [a - len(shape) for a in range(first, first + count)]
    common = a_shape(rng)[:2]
    shapes = tuple(common if k == 0 or rng.random() < 0.5 else common[1:] for k in range(count))
    order = rng.permutation(count)
    return shape, tuple(axes[k] for k in order), shapes, shape[:first] + common + shape[first + count :]


def _index(rng: Generator) -> Call:
    fmt = any_float(rng)
    shape, axes, indices, result = _index_parts(rng)
    return Call("index", {"axes": axes}, (shape, *indices), (fmt, *(INT64,) * len(indices)), result, fmt)


def _index_put(rng: Generator) -> Call:
    fmt = any_float(rng)
    shape, axes, indices, region = _index_parts(rng)
    value = region if rng.random() < 0.5 else tuple(1 if rng.random() < 0.5 else n for n in region)[int(rng.integers(0, 2)) :]
    attrs = {"axes": axes, "accumulate": bool(rng.random() < 0.5)}
    return Call("index_put", attrs, (shape, value, *indices), (fmt, fmt, *(INT64,) * len(indices)), shape, fmt)


def _index_inputs(floats: int) -> Callable[[Call, Generator], list[Array]]:
    def draw(call: Call, rng: Generator) -> list[Array]:
        values = [numbers(rng, f, s) for f, s in zip(call.formats[:floats], call.shapes[:floats], strict=True)]
        sizes = [call.shapes[0][a] for a in call.attrs["axes"]]
        fixed = np.random.default_rng(7) if len(call.shapes[0]) % 2 else rng  # the same in every draw: a known index
        return values + [fixed.integers(-n if call.op == "index" else 0, n, s) for n, s in zip(sizes, call.shapes[floats:], strict=True)]

    return draw


def _scatter(op: str, **choices: tuple[Any, ...]) -> Callable[[Generator], Call]:
    def draw(rng: Generator) -> Call:
        fmt, shape = any_float(rng), a_shape(rng)
        axis = _axis(rng, shape)
        index = _smaller(rng, shape, axis)
        src = tuple(n + int(rng.integers(0, 2)) for n in index)
        attrs = {k: v[int(rng.integers(len(v)))] for k, v in choices.items()}
        return Call(op, {"dim": axis, **attrs}, (shape, index, src), (fmt, INT64, fmt), shape, fmt)

    return draw


def _scatter_inputs(call: Call, rng: Generator) -> list[Array]:
    fixed = np.random.default_rng(7) if len(call.shapes[0]) % 2 else rng
    index = fixed.integers(0, call.shapes[0][call.attrs["dim"]], call.shapes[1])
    return [numbers(rng, call.formats[0], call.shapes[0]), index, numbers(rng, call.formats[2], call.shapes[2])]


def _mask(rng: Generator, shape: Shape, count: int) -> Array:
    flat = np.zeros(int(np.prod(shape)), bool)
    flat[rng.choice(flat.size, count, replace=False)] = True
    return flat.reshape(shape)


def _masked_select(rng: Generator) -> Call:
    fmt, shape = any_float(rng), a_shape(rng)
    count = int(rng.integers(0, int(np.prod(shape)) + 1))
    return Call("masked_select", {}, (shape, shape), (fmt, BOOL), (count,), fmt)


def _masked_indices(rng: Generator) -> Call:
    shape = a_shape(rng)
    count = int(rng.integers(0, int(np.prod(shape)) + 1))
    return Call("masked_indices", {}, (shape,), (BOOL,), (count, len(shape)), INT64)


def _masked_scatter(rng: Generator) -> Call:
    fmt, shape = any_float(rng), a_shape(rng)
    mask = shape if rng.random() < 0.7 else (1,) * (len(shape) - 1) + shape[-1:]
    return Call("masked_scatter", {}, (shape, mask, shape), (fmt, BOOL, fmt), shape, fmt)


def _unique(op: str) -> Callable[[Generator], Call]:
    def draw(rng: Generator) -> Call:
        """As many distinct elements as `_unique_inputs` draws."""
        shape = a_shape(rng)
        count = int(rng.integers(1, int(np.prod(shape)) + 1))
        result = shape if op == "unique_inverse" else (count,)
        fmt = INT64 if op != "unique" or rng.random() < 0.5 else any_float(rng)
        return Call(op, {"dim": None, "count": count}, (shape,), (fmt if op == "unique" else INT64,), result, fmt)

    return draw


def _unique_inputs(call: Call, rng: Generator) -> list[Array]:
    """An array with the number of distinct elements that the call says."""
    size, count = int(np.prod(call.shapes[0])), call.attrs["count"]
    places = np.concatenate([np.arange(count), rng.integers(0, count, size - count)])
    values = np.sort(rng.choice(100, count, replace=False)) - 50
    return [rng.permutation(values[places]).reshape(call.shapes[0]).astype(call.formats[0].numpy)]


CASES = {
    "unique": _unique("unique"),
    "unique_inverse": _unique("unique_inverse"),
    "unique_counts": _unique("unique_counts"),
    "gather": _gather,
    "take_flat": _take_flat,
    "index": _index,
    "index_put": _index_put,
    "scatter": _scatter("scatter"),
    "scatter_add": _scatter("scatter_add"),
    "scatter_reduce": _scatter("scatter_reduce", reduce=("sum", "prod", "mean", "amax", "amin"), include_self=(True, False)),
    "masked_select": _masked_select,
    "masked_indices": _masked_indices,
    "masked_scatter": _masked_scatter,
}

INPUTS = {
    "unique": _unique_inputs,
    "unique_inverse": _unique_inputs,
    "unique_counts": _unique_inputs,
    "gather": _gather_inputs,
    "take_flat": _take_flat_inputs,
    "index": _index_inputs(1),
    "index_put": _index_inputs(2),
    "scatter": _scatter_inputs,
    "scatter_add": _scatter_inputs,
    "scatter_reduce": _scatter_inputs,
    "masked_select": lambda call, rng: [numbers(rng, call.formats[0], call.shapes[0]), _mask(rng, call.shapes[1], call.shape[0])],
    "masked_indices": lambda call, rng: [_mask(rng, call.shapes[0], call.shape[0])],
    "masked_scatter": lambda call, rng: [
        numbers(rng, call.formats[0], call.shapes[0]),
        rng.random(call.shapes[1]) < 0.5,
        numbers(rng, call.formats[2], call.shapes[2]),
    ],
}
