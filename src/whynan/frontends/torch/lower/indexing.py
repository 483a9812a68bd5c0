"""Reading and writing at positions given by integer or boolean tensors."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from whynan.frontends.kit import Value, axis, constant, cut, where, zeros
from whynan.frontends.torch.lower._kernel import Kernel, kernel
from whynan.frontends.torch.lower.shape import permuted
from whynan.ir.dtype import BOOL, INT64
from whynan.ir.graph import Shape


@kernel("gather")
def _gather(k: Kernel) -> Value:
    x, index = k.tensor("self"), k["index"]
    return gather(x, axis(k["dim"], x.ndim), index)


def gather(x: Value, dim: int, index: Value) -> Value:
    """x at the index along one axis; along the others the index may be shorter than x."""
    if x.ndim == 0:
        return x
    if index.ndim == 0:
        index = index.reshape(1)
    for d in x.axes:
        if d != dim:
            x = cut(x, d, 0, index.shape[d])
    return x.add("gather", index.cast(INT64), shape=index.shape, dim=dim)


def _scattered(op: str, x: Value, dim: int, index: Value, src: Value, **attrs: Any) -> Value:
    """x with src put in at the index; along the other axes the index may be shorter than x, and src longer than the index."""
    if x.ndim == 0:
        return _scattered(op, x.reshape(1), -1, index.reshape(index.size), src.reshape(src.size), **attrs).reshape()
    if index.size == 0:
        return x
    if index.ndim == 0:
        index, src = index.reshape(1), src.reshape(1)
    for d in index.axes:
        src = cut(src, d, 0, index.shape[d])
    return _within(op, x, dim, index.cast(INT64), src, attrs)


def _within(op: str, x: Value, dim: int, index: Value, src: Value, attrs: dict[str, Any]) -> Value:
    for d in x.axes:
        if d != dim and index.shape[d] < x.shape[d]:
            part = _within(op, cut(x, d, 0, index.shape[d]), dim, index, src, attrs)
            return x.add("slice_scatter", part, dim=d, start=0, step=1)
    return x.add(op, index, src, dim=dim, **attrs)


def _source(k: Kernel, x: Value, index: Value, name: str = "src") -> Value:
    src = k[name]
    if isinstance(src, Value) and src.ndim == index.ndim:
        return src.cast(x.format)
    value = src.cast(x.format) if isinstance(src, Value) else x.const(src)
    return value.expand(index.shape)


@kernel("scatter.src", "scatter.value")
def _scatter(k: Kernel) -> Value:
    x, index = k.tensor("self"), k["index"]
    src = _source(k, x, index, "value" if k.aten.name.endswith("value") else "src")
    return _scattered("scatter", x, axis(k["dim"], x.ndim), index, src)


@kernel("scatter_add")
def _scatter_add(k: Kernel) -> Value:
    x, index = k.tensor("self"), k["index"]
    return _scattered("scatter_add", x, axis(k["dim"], x.ndim), index, _source(k, x, index))


@kernel("scatter_reduce.two")
def _scatter_reduce(k: Kernel) -> Value:
    x, index = k.tensor("self"), k["index"]
    attrs = {"reduce": k["reduce"], "include_self": bool(k["include_self"])}
    return _scattered("scatter_reduce", x, axis(k["dim"], x.ndim), index, _source(k, x, index), **attrs)


@kernel("scatter.reduce", "scatter.value_reduce")
def _scatter_reduced(k: Kernel) -> Value:
    x, index = k.tensor("self"), k["index"]
    src = _source(k, x, index, "value" if "value" in k.aten.name else "src")
    kind = "sum" if k["reduce"] == "add" else "prod"
    return _scattered("scatter_reduce", x, axis(k["dim"], x.ndim), index, src, reduce=kind, include_self=True)


# ---------------------------------------------------------------- along one axis


def _as_vector(index: Value) -> Value:
    return index.reshape(index.size).cast(INT64)


def take_rows(x: Value, dim: int, index: Value) -> Value:
    """x at a vector of positions along one axis."""
    if x.ndim == 0:
        return x
    shape = list(x.shape)
    shape[dim] = index.size
    return x.add("index", _as_vector(index), shape=shape, axes=(dim,))


@kernel("index_select")
def _index_select(k: Kernel) -> Value:
    x = k.tensor("self")
    return take_rows(x, axis(k["dim"], x.ndim), k["index"])


def _put_rows(x: Value, dim: int, index: Value, rows: Value, accumulate: bool) -> Value:
    if x.ndim == 0:
        return x + rows if accumulate else rows
    shape = list(x.shape)
    shape[dim] = index.size
    return x.add("index_put", rows.cast(x.format).expand(shape), _as_vector(index), axes=(dim,), accumulate=accumulate)


@kernel("index_add")
def _index_add(k: Kernel) -> Value:
    x, rows = k.tensor("self"), k["source"]
    rows = rows if k["alpha"] == 1 else rows * k["alpha"]
    return _put_rows(x, axis(k["dim"], x.ndim), k["index"], rows, True)


@kernel("index_copy")
def _index_copy(k: Kernel) -> Value:
    x = k.tensor("self")
    return _put_rows(x, axis(k["dim"], x.ndim), k["index"], k["source"], False)


@kernel("index_fill.int_Scalar", "index_fill.int_Tensor")
def _index_fill(k: Kernel) -> Value:
    x, value = k.tensor("self"), k["value"]
    row = value if isinstance(value, Value) else x.const(value)
    return _put_rows(x, axis(k["dim"], x.ndim), k["index"], row, False)


@kernel("embedding")
def _embedding(k: Kernel) -> Value:
    weight: Value = k["weight"]
    return weight.add("index", k["indices"].cast(INT64), shape=k.shape, axes=(-2,))


@kernel("embedding_dense_backward")
def _embedding_backward(k: Kernel) -> Value:
    g, index = k.tensor("grad_output"), k["indices"]
    if k["scale_grad_by_freq"]:
        return k.unknown(0, g, index)
    total = zeros(g, k.shape).add("index_put", g, index.cast(INT64), axes=(-2,), accumulate=True)
    padding = k["padding_idx"]
    if padding < 0:
        return total
    return where(g.const((np.arange(k.shape[0]) == padding)[:, None], BOOL), 0, total)


@kernel("take")
def _take(k: Kernel) -> Value:
    x: Value = k.tensor("self")
    return x.add("take_flat", k["index"].cast(INT64), shape=k.shape)


@kernel("put")
def _put(k: Kernel) -> Value:
    x = k.tensor("self")
    flat = x.reshape(x.size)
    return flat.add(
        "index_put", k["source"].reshape(k["source"].size), _as_vector(k["index"]), axes=(-1,), accumulate=bool(k["accumulate"])
    )


# ---------------------------------------------------------------- masks


def _spread(mask: Value, shape: Shape) -> Value:
    return mask.cast(BOOL).reshape(*mask.shape, *(1,) * (len(shape) - mask.ndim))


@kernel("masked_select")
def _masked_select(k: Kernel) -> Value:
    x, mask = k.tensor("self"), k.tensor("mask")
    shape = np.broadcast_shapes(x.shape, mask.shape)
    return x.expand(shape).add("masked_select", mask.expand(shape), shape=k.shape)


@kernel("masked_scatter")
def _masked_scatter(k: Kernel) -> Value:
    x: Value = k.tensor("self").expand(k.shape)
    return x.add("masked_scatter", k.tensor("mask").expand(k.shape), k["source"])


@kernel("nonzero")
def _nonzero(k: Kernel) -> Value:
    mask = k.tensor("self").cast(BOOL)
    indices: Value = mask.add("masked_indices", shape=k.shape, fmt=INT64)
    return indices


@kernel("_unique2", "unique_dim")
def _unique(k: Kernel) -> tuple[Value, Value, Value]:
    """Distinct elements, or slices along `dim`; sorted unless told otherwise. Places and counts are empty where not asked for."""
    x = k.tensor("self")
    dim = k.axes(k["dim"], x.ndim)[0] if k.aten.name.startswith("unique_dim") else None
    if not k["sorted"]:
        return k.unknown(0, x), k.unknown(1, x), k.unknown(2, x)
    values = x.add("unique", shape=k.shape, dim=dim)
    count = k.shape[0 if dim is None else dim]
    return values, _when_asked(k, 1, x, "unique_inverse", dim, count), _when_asked(k, 2, x, "unique_counts", dim, count)


def _when_asked(k: Kernel, i: int, x: Value, op: str, dim: int | None, count: int) -> Value:
    shape, fmt = k.out(i)
    if 0 in shape and 0 not in x.shape:
        return constant(k.builder, np.zeros(shape, np.int64), fmt)
    result: Value = x.add(op, shape=shape, fmt=INT64, dim=dim, count=count)
    return result


@kernel("bincount")
def _bincount(k: Kernel) -> Value:
    """How often each whole number from 0 on occurs, or the sum of its weights."""
    x, weights = k.tensor("self").cast(INT64), k["weights"]
    ones = weights.cast(k.format) if isinstance(weights, Value) else constant(k.builder, np.ones(x.shape, np.int64), k.format)
    counts: Value = zeros(x, k.shape, k.format).add("scatter_add", x, ones, dim=-1)
    return counts


# ---------------------------------------------------------------- advanced indexing


@kernel("index.Tensor", "_unsafe_index.Tensor")
def _index(k: Kernel) -> Value:
    x, given = k.tensor("self"), k["indices"]
    mask = _full_mask(x, given)
    if mask is not None:
        picked: Value = x.add("masked_select", mask, shape=(k.shape[0],))
        return picked
    count = _masked_count(x, given, k.shape)
    return advanced_index(x, _integer_indices(x, given, count))


def _full_mask(x: Value, given: Sequence[Value | None]) -> Value | None:
    """The mask, if the index is a single boolean one of the value's own rank."""
    first = given[0] if given else None
    return first if first is not None and first.format is BOOL and first.ndim == x.ndim else None


def _masked_count(x: Value, given: Sequence[Value | None], shape: Shape) -> int:
    """How many elements the boolean indices select, from the result's shape."""
    masks = [v for v in given if v is not None and v.format is BOOL]
    if not masks:
        return 0
    used = sum(1 if v is None or v.format is not BOOL else v.ndim for v in given)
    kept = [n for v, n in zip(given, x.shape, strict=False) if v is None] if len(masks) == 1 and len(given) == 1 else []
    rest = prod(x.shape[used:]) * prod(kept)
    return prod(shape) // rest if rest else 0


def _integer_indices(x: Value, given: Sequence[Value | None], count: int) -> dict[int, Value]:
    """Integer index by negative axis; a boolean index becomes one integer index for each of its axes."""
    found: dict[int, Value] = {}
    place = -x.ndim
    for v in given:
        if v is None:
            place += 1
        elif v.format is BOOL:
            positions = v.add("masked_indices", shape=(count, v.ndim), fmt=INT64)
            for column in range(v.ndim):
                found[place] = cut(positions, -1, column, 1).reshape(count)
                place += 1
        else:
            found[place] = v.cast(INT64)
            place += 1
    return found


def _adjacent(axes: Sequence[int]) -> bool:
    return all(b - a == 1 for a, b in pairwise(axes))


def _to_front(x: Value, axes: Sequence[int]) -> tuple[Value, tuple[int, ...]]:
    """x with the indexed axes first, as torch lays out a result whose indexed axes are not adjacent; and where they are now."""
    order = [*axes, *(a for a in x.axes if a not in axes)]
    return permuted(x, order), tuple(range(-x.ndim, -x.ndim + len(axes)))


def advanced_index(x: Value, indices: dict[int, Value]) -> Value:
    """x at integer index tensors along some axes."""
    axes = tuple(indices)
    if not axes:
        return x
    if not _adjacent(axes):
        x, axes = _to_front(x, axes)
    shape = np.broadcast_shapes(*(v.shape for v in indices.values()))
    start = axes[0] + x.ndim
    result = (*x.shape[:start], *shape, *x.shape[start + len(axes) :])
    return x.add("index", *indices.values(), shape=result, axes=axes)


@kernel("index_put", "_unsafe_index_put", "_index_put_impl")
def _index_put(k: Kernel) -> Value:
    x, given, values, accumulate = k.tensor("self"), k["indices"], k["values"].cast(k.format), bool(k["accumulate"])
    masks = [v for v in given if v is not None and v.format is BOOL]
    if masks and len(given) == 1 and (values.size == 1 or values.shape[:1] == (1,)):
        mask = _spread(masks[0], x.shape)
        one = values.reshape() if values.size == 1 else values
        return where(mask, x + one if accumulate else one, x)
    if masks and len(given) == 1 and masks[0].ndim == x.ndim and not accumulate:
        replaced: Value = x.add("masked_scatter", masks[0], values)
        return replaced
    count = values.shape[0] if values.ndim else 1
    return _put_at(x, _integer_indices(x, given, count), values, accumulate)


def _put_at(x: Value, indices: dict[int, Value], values: Value, accumulate: bool) -> Value:
    axes = tuple(indices)
    if not axes:
        return x + values if accumulate else values.expand(x.shape)
    original = axes
    moved = x
    if not _adjacent(axes):
        moved, axes = _to_front(x, axes)
    shape = np.broadcast_shapes(*(v.shape for v in indices.values()))
    start = axes[0] + x.ndim
    target = (*moved.shape[:start], *shape, *moved.shape[start + len(axes) :])
    written = moved.add("index_put", values.expand(target), *indices.values(), axes=axes, accumulate=accumulate)
    if moved is x:
        return written
    order = [*original, *(a for a in x.axes if a not in original)]
    return permuted(written, [order.index(a) - x.ndim for a in x.axes])
