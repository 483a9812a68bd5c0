"""Reading and writing at computed places: gathers, scatters, segments, one-hot."""

from math import prod

import numpy as np

from whynan.frontends.kit import Value, apply, arange, axis, concat, filled, reduce, where, zeros
from whynan.frontends.tensorflow.lower._kernel import Kernel, NotLowered, kernel
from whynan.frontends.tensorflow.lower.shape import permuted
from whynan.ir.dtype import INT64, Format
from whynan.ir.graph import Shape

# ---------------------------------------------------------------- reading


@kernel("OneHot", structural=(1,))
def _one_hot(k: Kernel) -> Value:
    """An index out of range gives a row of `off` values."""
    index, on, off = k[0].cast(INT64), k[2], k[3]
    dim = axis(int(k.attr("axis", -1)), len(k.shape))
    place = len(k.shape) + dim
    index = index.reshape(*index.shape[:place], 1, *index.shape[place:])
    classes = arange(index, k.shape[dim]).reshape(k.shape[dim], *(1,) * (-dim - 1))
    return where(apply("eq", index, classes), on, off).expand(k.shape)


@kernel("GatherV2", structural=(2,))
def _gather(k: Kernel) -> Value:
    x, index = k[0], k[1].cast(INT64)
    batch = int(k.attr("batch_dims", 0))
    return rows_of(x, index, k.axis(2, x.ndim), batch if batch >= 0 else batch + index.ndim, k.shape)


@kernel("Gather", "ResourceGather")
def _gather_rows(k: Kernel) -> Value:
    return rows_of(k[0], k[1].cast(INT64), -k[0].ndim, int(k.attr("batch_dims", 0)), k.shape)


def rows_of(x: Value, index: Value, dim: int, batch: int, shape: Shape) -> Value:
    """The elements of x along an axis at an index of any shape, whose first `batch` axes go with those of x."""
    if not batch:
        return x.add("index", index, shape=shape, axes=(dim,))
    # the batch axes of x are indexed too, by their own positions
    picked = permuted(x, [*range(-x.ndim, -x.ndim + batch), dim, *[a for a in x.axes[batch:] if a != dim]])
    axes = tuple(range(-x.ndim, -x.ndim + batch + 1))
    places = [arange(index, x.shape[b]).reshape(*[x.shape[b] if i == b else 1 for i in range(index.ndim)]) for b in range(batch)]
    rest = picked.shape[batch + 1 :]
    read = picked.add("index", *places, index, shape=(*index.shape, *rest), axes=axes)
    before = x.ndim + dim - batch  # axes between the batch and the indexed one: they stand before the index's own in the result
    inner = index.ndim - batch
    order = [*range(batch), *range(index.ndim, index.ndim + before), *range(batch, batch + inner), *range(index.ndim + before, read.ndim)]
    return permuted(read, order)


@kernel("GatherNd")
def _gather_nd(k: Kernel) -> Value:
    x, places = k[0], _places(k[1])
    if not places:
        return x.expand(k.shape)
    return x.add("index", *places, shape=k.shape, axes=tuple(range(-x.ndim, -x.ndim + len(places))))


def _places(index: Value) -> list[Value]:
    """One index tensor per indexed axis from a tensor whose last axis lists them."""
    index = index.cast(INT64)
    shape = index.shape[:-1]
    return [index.add("slice", shape=(*shape, 1), dim=-1, start=i, step=1).reshape(*shape) for i in range(index.shape[-1])]


# ---------------------------------------------------------------- writing


def _written(k: Kernel, base: Value, index: Value, value: Value, accumulate: bool) -> Value:
    places = _places(index)
    if not places:
        raise NotLowered(k.op.type)
    axes = tuple(range(-base.ndim, -base.ndim + len(places)))
    return base.add("index_put", value, *places, axes=axes, accumulate=accumulate)


@kernel("ScatterNd", structural=(2,))
def _scatter_nd(k: Kernel) -> Value:
    return _written(k, zeros(k[1], k.shape), k[0], k[1], True)


@kernel("TensorScatterAdd", "ScatterNdNonAliasingAdd")
def _scatter_add(k: Kernel) -> Value:
    return _written(k, k[0], k[1], k[2], True)


@kernel("TensorScatterSub")
def _scatter_sub(k: Kernel) -> Value:
    return _written(k, k[0], k[1], -k[2], True)


@kernel("TensorScatterUpdate")
def _scatter_update(k: Kernel) -> Value:
    return _written(k, k[0], k[1], k[2], False)


@kernel("TensorScatterMax", "TensorScatterMin")
def _scatter_extreme(k: Kernel) -> Value:
    x, index, updates = k[0], k[1].cast(INT64), k[2]
    depth = index.shape[-1]
    rows, width = prod(x.shape[:depth]), prod(x.shape[depth:])
    if not depth or not updates.size:
        raise NotLowered(k.op.type)
    row = _places(index)[0]
    for place, n in zip(_places(index)[1:], x.shape[1:depth], strict=True):
        row = row * n + place
    ids = row.reshape(row.size, 1).expand((row.size, width))
    reduce = "amax" if k.op.type.endswith("Max") else "amin"
    flat = updates.reshape(row.size, width)
    return x.reshape(rows, width).add("scatter_reduce", ids, flat, dim=-2, reduce=reduce, include_self=True)


# ---------------------------------------------------------------- partitions of known rows


@kernel("DynamicPartition", structural=(1,))
def _partition(k: Kernel) -> list[Value]:
    """One result per number: the rows beside which it stands."""
    part = k.value(1)
    x = k[0].reshape(part.size, *k[0].shape[part.ndim :])
    rows = [np.nonzero(part.ravel() == i)[0] for i in range(len(k.op.outputs))]
    return [x.add("index", x.const(r, INT64), shape=(len(r), *x.shape[1:]), axes=(-x.ndim,)) for r in rows]


@kernel("DynamicStitch", "ParallelDynamicStitch", structural=tuple(range(8)))
def _stitch(k: Kernel) -> Value:
    """The rows of several tensors, each at its place; of two at one place the later one stays."""
    n = len(k) // 2
    if n > len(range(8)):
        raise NotLowered(k.op.type)
    places = [k.value(i) for i in range(n)]
    inner = k.shape[1:]
    x = concat([v.reshape(p.size, *inner) for v, p in zip(k.inputs[n:], places, strict=True)], -1 - len(inner))
    writers = {int(place): row for row, place in enumerate(np.concatenate([p.ravel() for p in places]))}
    if len(writers) < k.shape[0]:
        raise NotLowered(k.op.type)
    order = np.array([writers[i] for i in range(k.shape[0])], np.int64)
    return x.add("index", x.const(order, INT64), shape=k.shape, axes=(-x.ndim,))


# ---------------------------------------------------------------- segments


def _segment_rows(k: Kernel) -> tuple[Value, Value, Value, int]:
    """The data as (rows, width), the segment of each element of it, whether that is one at all, and the number of segments."""
    data, index = k[0], k[1].cast(INT64)
    rows = index.size
    width = data.size // rows if rows else prod(data.shape[index.ndim :])
    segments = k.shape[0]
    if not rows or not segments:
        raise NotLowered(k.op.type)
    flat, ids = data.reshape(rows, width), index.reshape(rows, 1)
    valid = (ids >= 0) & (ids < segments)
    return flat, where(valid, ids, 0).expand((rows, width)), valid, segments


def _start(reduce: str, fmt: Format) -> float:
    """What an empty segment holds."""
    if reduce in ("sum", "prod"):
        return 0.0 if reduce == "sum" else 1.0
    return fmt.max if reduce == "amin" else -fmt.max if fmt.is_float else -fmt.max - 1


def _segments(k: Kernel, reduce: str) -> Value:
    """The reduction of the rows of each segment; rows with a negative segment do not count."""
    flat, ids, valid, segments = _segment_rows(k)
    start = _start(reduce, flat.format)
    base = filled(k.builder, start, (segments, flat.shape[1]), flat.format)
    return base.add("scatter_reduce", ids, where(valid, flat, start), dim=-2, reduce=reduce, include_self=True)


_UNSORTED = {"UnsortedSegmentSum": "sum", "UnsortedSegmentProd": "prod", "UnsortedSegmentMax": "amax", "UnsortedSegmentMin": "amin"}


@kernel(*_UNSORTED, structural=(2,))
def _unsorted_segments(k: Kernel) -> Value:
    return _segments(k, _UNSORTED[k.op.type])


@kernel("SegmentSum", "SegmentProd")
def _sorted_segments(k: Kernel) -> Value:
    return _segments(k, "sum" if "Sum" in k.op.type else "prod")


@kernel("SegmentMean")
def _segment_mean(k: Kernel) -> Value:
    flat, ids, valid, segments = _segment_rows(k)
    base = zeros(flat, (segments, flat.shape[1]))
    total = base.add("scatter_reduce", ids, where(valid, flat, 0), dim=-2, reduce="sum", include_self=True)
    count = base.add("scatter_reduce", ids, valid.cast(flat.format).expand(flat.shape), dim=-2, reduce="sum", include_self=True)
    return total / apply("maximum", count, 1)


@kernel("SegmentMax", "SegmentMin")
def _segment_extreme(k: Kernel) -> Value:
    """An empty segment holds 0."""
    flat, ids, _, segments = _segment_rows(k)
    base = zeros(flat, (segments, flat.shape[1]))
    return base.add("scatter_reduce", ids, flat, dim=-2, reduce="amax" if "Max" in k.op.type else "amin", include_self=False)


@kernel("Bincount", structural=(1,))
def _bincount(k: Kernel) -> Value:
    return _counted(k, k[0], k[2], False)


@kernel("DenseBincount", structural=(1,))
def _dense_bincount(k: Kernel) -> Value:
    return _counted(k, k[0], k[2], bool(k.attr("binary_output", False)))


def _counted(k: Kernel, index: Value, weights: Value, binary: bool) -> Value:
    """For each number how often it stands in a row, or the sum of the weights beside it."""
    bins = k.shape[-1]
    index = index.cast(INT64).reshape(*index.shape, 1)
    hit = apply("eq", index, arange(index, bins))
    if binary:
        return reduce("any", hit, (-2,)).cast(k.format)
    one = k.const(1)
    return where(hit, weights.reshape(*weights.shape, 1) if weights.size else one, k.const(0)).sum((-2,))


# ---------------------------------------------------------------- places that depend on values


@kernel("Where")
def _nonzero(k: Kernel) -> Value:
    return (k[0] if k[0].format.kind == "bool" else apply("ne", k[0], 0)).add("masked_indices", shape=k.shape, fmt=INT64)


@kernel("ReverseSequence", structural=(1,))
def _reverse_sequence(k: Kernel) -> Value:
    """The first elements of each row, as many as its length says, in reverse order."""
    x, lengths = k[0], k.integers(1)
    seq, batch = axis(int(k.attr("seq_dim", 0)), x.ndim), axis(int(k.attr("batch_dim", 0)), x.ndim)
    size = x.shape[seq]
    table = [[n - 1 - i if i < n else i for i in range(size)] for n in lengths]
    shape = [size if a == seq else len(lengths) if a == batch else 1 for a in x.axes]
    order = np.asarray(table)
    order = order if batch < seq else order.T
    index = x.const(order.reshape(shape), INT64).expand(x.shape)
    return x.add("gather", index, dim=seq)
