"""Reading and writing at computed positions."""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from whynan.frontends.hlo.lower._table import NotLowered, Op, known, lowers
from whynan.frontends.hlo.lower.reduction import step_of
from whynan.frontends.hlo.lower.shape import flat, transposed
from whynan.frontends.kit import Value, apply, concat, constant, cut, where
from whynan.ir.dtype import BOOL, INT64, Array

# ---------------------------------------------------------------- slices at computed positions


def _start(value: Value, most: int) -> int | Value:
    """Where a slice begins, kept within [0, most]: a number if it is known."""
    array = known(value)
    if array is not None:
        return int(min(max(int(array), 0), most))
    return apply("clamp", value.cast(INT64), low=0.0, high=float(most))


def _positions(start: Value, length: int) -> Value:
    return start.reshape(1) + start.const(np.arange(length))


@lowers("dynamic-slice")
def _dynamic_slice(op: Op) -> Value:
    x = op[0]
    for d, (n, size) in enumerate(zip(x.shape, op.dims("dynamic_slice_sizes"), strict=True)):
        start = _start(op[1 + d], n - size) if size < n else 0
        x = _taken(x, d - x.ndim, start, size)
    return x


def _taken(x: Value, axis: int, start: int | Value, size: int) -> Value:
    if isinstance(start, int):
        return cut(x, axis, start, size)
    shape = [size if a == axis else n for a, n in zip(x.axes, x.shape, strict=True)]
    return x.add("index", _positions(start, size), shape=shape, axes=(axis,))


@lowers("dynamic-update-slice")
def _dynamic_update_slice(op: Op) -> Value:
    x, part = op[0], op[1]
    starts = [_start(op[2 + d], n - m) if m < n else 0 for d, (n, m) in enumerate(zip(x.shape, part.shape, strict=True))]
    return _placed(x, part, starts, 0)


def _placed(x: Value, part: Value, starts: Sequence[int | Value], d: int) -> Value:
    """x with a part of it replaced, from dimension d on."""
    while d < x.ndim and x.shape[d] == part.shape[d]:
        d += 1
    if d == x.ndim:
        return part
    axis, start, size = d - x.ndim, starts[d], part.shape[d]
    if size == 0:
        return x
    inner = _placed(_taken(x, axis, start, size), part, starts, d + 1)
    if isinstance(start, int):
        return x.add("slice_scatter", inner, dim=axis, start=start, step=1)
    return x.add("index_put", inner, _positions(start, size), axes=(axis,), accumulate=False)


# ---------------------------------------------------------------- gather and scatter: positions in the flattened array


def _strides(shape: Sequence[int]) -> list[int]:
    return [prod(shape[d + 1 :]) for d in range(len(shape))]


def _indices(op: Op, x: Value) -> tuple[Value, int]:
    """The start indices with the index vector as last dimension (added where there is none), in int64."""
    at = op.dims("index_vector_dim")[0]
    x = x.cast(INT64)
    if at == x.ndim:
        return x.reshape(*x.shape, 1), 1
    return transposed(x, [d for d in range(x.ndim) if d != at] + [at]), x.shape[at]


def _vector(indices: Value, k: int) -> Value:
    """Component k of each index vector."""
    return cut(indices, -1, k, 1).reshape(*indices.shape[:-1])


def _laid(value: Value, dims: Sequence[int], rank: int) -> Value:
    """The value with its dimensions at the given ones of an array of that rank, and 1 elsewhere."""
    shape = [1] * rank
    for d, n in zip(dims, value.shape, strict=True):
        shape[d] = n
    return value.reshape(*shape)


def _count(builder_value: Value, n: int, d: int, rank: int, step: int) -> Value:
    """The constant 0, step, 2 step, … along dimension d."""
    return constant(builder_value.builder, np.arange(n).reshape([-1 if a == d else 1 for a in range(rank)]) * step, INT64)


def _sum_of(parts: list[Value], shape: Sequence[int]) -> Value:
    """The sum of positions, known where all parts are."""
    values = [known(p) for p in parts]
    if all(v is not None for v in values):
        total: Array = sum((v for v in values if v is not None), np.zeros((), np.int64))
        return constant(parts[0].builder, np.broadcast_to(total, tuple(shape)), INT64)
    total_node = parts[0]
    for p in parts[1:]:
        total_node = total_node + p
    return total_node.expand(shape)


@lowers("gather")
def _gather(op: Op) -> Value:
    x, (indices, _) = op[0], _indices(op, op[1])
    sizes, start_map = op.dims("slice_sizes"), op.dims("start_index_map")
    offsets, collapsed = op.dims("offset_dims"), op.dims("collapsed_slice_dims")
    batching, index_batching = op.dims("operand_batching_dims"), op.dims("start_indices_batching_dims")
    rank, strides = len(op.shape), _strides(x.shape)
    if 0 in op.shape or 0 in x.shape:
        raise NotLowered("a gather of no elements")
    batch = [d for d in range(rank) if d not in offsets]
    parts = [constant(op.builder, np.zeros((1,) * rank), INT64)]
    for k, d in enumerate(start_map):
        start = _within(_vector(indices, k), x.shape[d] - sizes[d])
        parts.append(_scaled(_laid(start, batch, rank), strides[d]))
    kept = [d for d in range(x.ndim) if d not in collapsed and d not in batching]
    parts += [_count(x, sizes[d], at, rank, strides[d]) for d, at in zip(kept, offsets, strict=True) if sizes[d] > 1]
    parts += [_count(x, x.shape[d], batch[at], rank, strides[d]) for d, at in zip(batching, index_batching, strict=True)]
    return flat(x).add("take_flat", _sum_of(parts, op.shape), shape=op.shape)


def _within(start: Value, most: int) -> Value:
    """Start indices as gather uses them: kept within the array."""
    array = known(start)
    if array is not None:
        return constant(start.builder, np.clip(array, 0, most), INT64)
    return apply("clamp", start, low=0.0, high=float(most))


def _scaled(value: Value, step: int) -> Value:
    array = known(value)
    if array is not None:
        return constant(value.builder, array * step, INT64)
    return value if step == 1 else value * step


@lowers("scatter")
def _scatter(op: Op) -> Value:
    """Updates outside of the array are left out: they go to one cell more, which is dropped."""
    if len(op.operands) != 3:
        raise NotLowered("a scatter of several arrays")
    x, (indices, _), updates = op[0], _indices(op, op[1]), op[2]
    if 0 in x.shape or 0 in updates.shape:
        return x
    how = _update(op)
    cells, inside = _cells(op, x, indices, updates)
    sure = known(inside)
    target, size = flat(x), prod(x.shape)
    if sure is None or not sure.all():
        target = concat([target, constant(op.builder, np.zeros(1), x.format)], -1)
        cells = where(inside, cells, size)
    written = target.add(how, flat(cells), flat(updates), **_attributes(how, op))
    return cut(written, -1, 0, size).reshape(*x.shape)


def _update(op: Op) -> str:
    """Whether values are put, added or otherwise combined into the cells."""
    computation = op.called()
    if computation.root.opcode != "parameter" and step_of(computation).narrow is not None:
        raise NotLowered("a scatter whose steps round")
    if computation.root.opcode == "parameter" and computation.root.literal == "1":
        return "scatter"
    return "scatter_add" if step_of(computation).op == "sum" and op.format.kind != "bool" else "scatter_reduce"


def _attributes(how: str, op: Op) -> dict[str, Any]:
    if how != "scatter_reduce":
        return {"dim": -1}
    return {"dim": -1, "reduce": step_of(op.called()).op, "include_self": True}


def _cells(op: Op, x: Value, indices: Value, updates: Value) -> tuple[Value, Value]:
    """For each element of the updates its cell in the flattened array, and whether its whole window lies in the array."""
    window, inserted = op.dims("update_window_dims"), op.dims("inserted_window_dims")
    batching, index_batching = op.dims("input_batching_dims"), op.dims("scatter_indices_batching_dims")
    rank, strides = updates.ndim, _strides(x.shape)
    batch = [d for d in range(rank) if d not in window]
    kept = [d for d in range(x.ndim) if d not in inserted and d not in batching]
    sizes = {d: updates.shape[at] for d, at in zip(kept, window, strict=True)}
    parts = [constant(op.builder, np.zeros((1,) * rank), INT64)]
    tests: list[Value] = []
    for k, d in enumerate(op.dims("scatter_dims_to_operand_dims")):
        start = _laid(_vector(indices, k), batch, rank)
        tests.append(_between(start, x.shape[d] - sizes.get(d, 1)))
        parts.append(_scaled(start, strides[d]))
    parts += [_count(x, sizes[d], at, rank, strides[d]) for d, at in zip(kept, window, strict=True) if sizes[d] > 1]
    parts += [_count(x, x.shape[d], batch[at], rank, strides[d]) for d, at in zip(batching, index_batching, strict=True)]
    return _sum_of(parts, updates.shape), _all_of(tests, updates)


def _between(start: Value, most: int) -> Value:
    array = known(start)
    if array is not None:
        return constant(start.builder, (array >= 0) & (array <= most), BOOL)
    return (start >= 0) & (start <= most)


def _all_of(tests: list[Value], updates: Value) -> Value:
    values = [known(t) for t in tests]
    if all(v is not None for v in values):
        sure = np.ones(updates.shape, bool)
        for v in values:
            sure = sure & v
        return constant(updates.builder, sure, BOOL)
    total = tests[0]
    for t in tests[1:]:
        total = total & t
    return total.expand(updates.shape)
