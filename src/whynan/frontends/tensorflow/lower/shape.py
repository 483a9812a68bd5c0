"""Shapes, parts, joins, pads: operations that move elements."""

from collections.abc import Sequence

import numpy as np

from whynan.frontends.kit import Value, axis, concat, cut, negative, where, zeros
from whynan.frontends.tensorflow.lower._kernel import Kernel, NotLowered, kernel
from whynan.frontends.tensorflow.lower.reduction import flipped
from whynan.ir.dtype import BOOL, INT64, Array


@kernel("Reshape", "ExpandDims", "BroadcastTo", structural=(1,))
def _same_elements(k: Kernel) -> Value:
    """Only the shape changes, and the result's own shape says how."""
    return k[0]


@kernel("Squeeze")
def _squeeze(k: Kernel) -> Value:
    return k[0]


@kernel("Bitcast")
def _bitcast(k: Kernel) -> Value:
    if k[0].format.name != k.format.name:
        raise NotLowered(k.op.type)
    return k[0]


def permuted(x: Value, axes: Sequence[int]) -> Value:
    """The axes in another order; itself if the order is the same."""
    order = negative(tuple(axes), x.ndim) if axes else ()
    return x if order == x.axes else x.add("permute", shape=[x.shape[a] for a in order], axes=order)


@kernel("Transpose", "ConjugateTranspose", structural=(1,))
def _transpose(k: Kernel) -> Value:
    return permuted(k[0], k.integers(1))


@kernel("InvertPermutation")
def _invert(k: Kernel) -> Value:
    return k[0].add("sort_indices", fmt=INT64, dim=-1, descending=False)


# ---------------------------------------------------------------- joins and splits


@kernel("ConcatV2", structural=(-1,))
def _concat(k: Kernel) -> Value:
    return concat(k.inputs[:-1], k.axis(-1, len(k.shape)))


@kernel("Concat", structural=(0,))
def _concat_old(k: Kernel) -> Value:
    return concat(k.inputs[1:], k.axis(0, len(k.shape)))


@kernel("Pack")
def _pack(k: Kernel) -> Value:
    dim = axis(int(k.attr("axis", 0)), len(k.shape))
    shape = [1 if a == dim else n for a, n in zip(range(-len(k.shape), 0), k.shape, strict=True)]
    return concat([v.reshape(*shape) for v in k.inputs], dim)


@kernel("Unpack")
def _unpack(k: Kernel) -> list[Value]:
    x = k[0]
    dim = axis(int(k.attr("axis", 0)), x.ndim)
    return [cut(x, dim, i, 1) for i in range(x.shape[dim])]


def _parts(k: Kernel, x: Value, dim: int) -> list[Value]:
    parts, start = [], 0
    for i in range(len(k.op.outputs)):
        length = k.out(i)[0][dim]
        parts.append(cut(x, dim, start, length))
        start += length
    return parts


@kernel("Split", structural=(0,))
def _split(k: Kernel) -> list[Value]:
    return _parts(k, k[1], k.axis(0, k[1].ndim))


@kernel("SplitV", structural=(1, 2))
def _split_sizes(k: Kernel) -> list[Value]:
    return _parts(k, k[0], k.axis(2, k[0].ndim))


# ---------------------------------------------------------------- slices


@kernel("Slice", structural=(1, 2))
def _slice(k: Kernel) -> Value:
    x = k[0]
    for a, start, length in zip(x.axes, k.integers(1), k.shape, strict=True):
        x = cut(x, a, start, length)
    return x


def _strides(k: Kernel, shape: Sequence[int], first: int) -> tuple[slice | int | None, ...]:
    """The index that begin, end, strides (inputs from `first` on) and the op's masks spell, one entry per axis of `shape` or new axis."""
    begin, end, step = (k.integers(first + i) for i in range(3))
    masks = {name: int(k.attr(f"{name}_mask", 0)) for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")}

    def masked(name: str, i: int) -> bool:
        return bool(masks[name] >> i & 1)

    index: list[slice | int | None] = []
    for i in range(len(begin)):
        if masked("ellipsis", i):
            later = sum(not masked("new_axis", j) for j in range(i + 1, len(begin)))
            taken = sum(entry is not None for entry in index)
            index += [slice(None)] * (len(shape) - taken - later)
        elif masked("new_axis", i):
            index.append(None)
        elif masked("shrink_axis", i):
            index.append(begin[i])
        else:
            index.append(slice(None if masked("begin", i) else begin[i], None if masked("end", i) else end[i], step[i]))
    return (*index, *[slice(None)] * (len(shape) - sum(entry is not None for entry in index)))


def _ranges(index: Sequence[slice | int | None], shape: Sequence[int]) -> list[range]:
    """For each axis of a shape the positions that an index takes."""
    taken = [entry for entry in index if entry is not None]
    return [range(n)[e] if isinstance(e, slice) else range(n)[e % n : e % n + 1] for e, n in zip(taken, shape, strict=True)]


@kernel("StridedSlice", structural=(1, 2, 3))
def _strided_slice(k: Kernel) -> Value:
    x = k[0]
    for a, places in zip(x.axes, _ranges(_strides(k, x.shape, 1), x.shape), strict=True):
        x = _taken(x, a, places)
    return x


def _taken(x: Value, dim: int, places: range) -> Value:
    """The elements at evenly spaced positions along an axis, in either direction."""
    if not len(places):
        return cut(x, dim, 0, 0)
    if places.step > 0:
        return cut(x, dim, places.start, len(places), places.step)
    return flipped(cut(x, dim, places[-1], len(places), -places.step), dim)


@kernel("StridedSliceGrad", structural=(0, 1, 2, 3))
def _strided_slice_grad(k: Kernel) -> Value:
    shape = k.shape
    ranges = _ranges(_strides(k, shape, 1), shape)
    return _spread(k[4].reshape(*map(len, ranges)), shape, ranges)


def _spread(x: Value, shape: Sequence[int], ranges: Sequence[range]) -> Value:
    """Zeros of a shape with x at evenly spaced positions along each axis."""
    for a, n, places in zip(x.axes, shape, ranges, strict=True):
        if places == range(n):
            continue
        if places.step < 0:
            x, places = flipped(x, a), places[::-1]
        full = [n if b == a else m for b, m in zip(x.axes, x.shape, strict=True)]
        x = zeros(x, full).add("slice_scatter", x, dim=a, start=places.start, step=places.step) if len(places) else zeros(x, full)
    return x


@kernel("Tile", structural=(1,))
def _tile(k: Kernel) -> Value:
    reps = k.integers(1)
    return k[0] if all(r == 1 for r in reps) else k[0].add("tile", shape=k.shape, reps=reps)


@kernel("ReverseV2", structural=(1,))
def _reverse(k: Kernel) -> Value:
    return flipped(k[0], *k.axes(1, k[0].ndim))


@kernel("Roll", structural=(1, 2))
def _roll(k: Kernel) -> Value:
    return k[0].add("roll", shifts=k.integers(1), dims=negative(k.integers(2), k[0].ndim))


# ---------------------------------------------------------------- pads


def _pads(k: Kernel) -> tuple[tuple[int, int], ...]:
    return tuple((int(a), int(b)) for a, b in k.value(1))


@kernel("Pad", structural=(1,))
def _pad(k: Kernel) -> Value:
    return k[0].add("pad", shape=k.shape, pads=_pads(k), value=0.0) if k[0].ndim else k[0]


@kernel("PadV2", structural=(1, 2))
def _pad_with(k: Kernel) -> Value:
    return k[0].add("pad", shape=k.shape, pads=_pads(k), value=float(k.value(2))) if k[0].ndim else k[0]


@kernel("MirrorPad", structural=(1,))
def _mirror_pad(k: Kernel) -> Value:
    x = k[0]
    if k.attr("mode") == "REFLECT":
        return x.add("pad_reflect", shape=k.shape, pads=_pads(k))
    for a, (before, after) in zip(x.axes, _pads(k), strict=True):
        n = x.shape[a]
        parts = [flipped(cut(x, a, 0, before), a)] * (before > 0) + [x] + [flipped(cut(x, a, n - after, after), a)] * (after > 0)
        x = concat(parts, a)
    return x


@kernel("MirrorPadGrad", structural=(1,))
def _mirror_pad_grad(k: Kernel) -> Value:
    """The mirrored edges are added to the elements that they mirror."""
    x, skipped = k[0], 1 if k.attr("mode") == "REFLECT" else 0
    for a, (before, after) in zip(x.axes, _pads(k), strict=True):
        n = x.shape[a] - before - after
        inner = cut(x, a, before, n)
        if before:
            inner = inner + _placed(flipped(cut(x, a, 0, before), a), a, skipped, n)
        if after:
            inner = inner + _placed(flipped(cut(x, a, before + n, after), a), a, n - after - skipped, n)
        x = inner
    return x


def _placed(x: Value, dim: int, start: int, length: int) -> Value:
    """The value with zeros around it along an axis."""
    before = [start if a == dim else 0 for a in x.axes]
    after = [length - start - x.shape[a] if a == dim else 0 for a in x.axes]
    shape = [n + b + e for n, b, e in zip(x.shape, before, after, strict=True)]
    return x.add("pad", shape=shape, pads=tuple(zip(before, after, strict=True)), value=0.0)


# ---------------------------------------------------------------- blocks


@kernel("SpaceToDepth")
def _space_to_depth(k: Kernel) -> Value:
    if str(k.attr("data_format", "NHWC")) != "NHWC":
        raise NotLowered(k.op.type)
    x, b = k[0], int(k.attr("block_size"))
    n, h, w, c = x.shape
    return permuted(x.reshape(n, h // b, b, w // b, b, c), (-6, -5, -3, -4, -2, -1))


@kernel("DepthToSpace")
def _depth_to_space(k: Kernel) -> Value:
    if str(k.attr("data_format", "NHWC")) != "NHWC":
        raise NotLowered(k.op.type)
    x, b = k[0], int(k.attr("block_size"))
    n, h, w, c = x.shape
    return permuted(x.reshape(n, h, w, b, b, c // (b * b)), (-6, -5, -3, -4, -2, -1))


@kernel("SpaceToBatchND", structural=(1, 2))
def _space_to_batch(k: Kernel) -> Value:
    """Each spatial axis is padded and dealt out to as many batches as its block is long."""
    blocks = k.integers(1)
    pads = ((0, 0), *((int(a), int(b)) for a, b in k.value(2)), *((0, 0),) * (k[0].ndim - 1 - len(blocks)))
    shape = [n + a + b for n, (a, b) in zip(k[0].shape, pads, strict=True)]
    x = k[0].add("pad", shape=shape, pads=pads, value=0.0) if any(map(any, pads)) else k[0]
    m, rest = len(blocks), x.shape[len(blocks) + 1 :]
    split = [size for n, b in zip(x.shape[1:], blocks, strict=False) for size in (n // b, b)]
    x = x.reshape(x.shape[0], *split, *rest)
    return permuted(x, [i - x.ndim for i in (*range(2, 2 * m + 1, 2), 0, *range(1, 2 * m, 2), *range(2 * m + 1, x.ndim))])


@kernel("BatchToSpaceND", structural=(1, 2))
def _batch_to_space(k: Kernel) -> Value:
    blocks, crops = k.integers(1), [(int(a), int(b)) for a, b in k.value(2)]
    x, m = k[0], len(blocks)
    space, rest = x.shape[1 : m + 1], x.shape[m + 1 :]
    x = x.reshape(*blocks, x.shape[0] // int(np.prod(blocks)), *space, *rest)
    x = permuted(x, [i - x.ndim for i in (m, *(j for i in range(m) for j in (m + 1 + i, i)), *range(2 * m + 1, x.ndim))])
    x = x.reshape(x.shape[0], *(n * b for n, b in zip(space, blocks, strict=True)), *rest)
    for i, (before, after) in enumerate(crops):
        a = i + 1 - x.ndim
        x = cut(x, a, before, x.shape[a] - before - after)
    return x


# ---------------------------------------------------------------- matrices' diagonals and bands


@kernel("MatrixDiagPart")
def _diagonal(k: Kernel) -> Value:
    return k[0].add("diagonal", shape=k.shape, offset=0, dim1=-2, dim2=-1)


@kernel("DiagPart")
def _tensor_diagonal(k: Kernel) -> Value:
    side = int(np.prod(k.shape))
    return k[0].reshape(side, side).add("diagonal", shape=(side,), offset=0, dim1=-2, dim2=-1)


@kernel("Diag")
def _tensor_diag(k: Kernel) -> Value:
    x = k[0].reshape(k[0].size)
    return zeros(x, (x.size, x.size)).add("diagonal_scatter", x, offset=0, dim1=-2, dim2=-1)


@kernel("MatrixDiagPartV2", "MatrixDiagPartV3", structural=(1, 2))
def _diagonal_at(k: Kernel) -> Value:
    return k[0].add("diagonal", shape=_diagonal_shape(k, k[0].shape), offset=_one_offset(k, 1), dim1=-2, dim2=-1)


def _diagonal_shape(k: Kernel, shape: Sequence[int]) -> tuple[int, ...]:
    offset = _one_offset(k, 1)
    return (*shape[:-2], min(shape[-2] + min(offset, 0), shape[-1] - max(offset, 0)))


def _one_offset(k: Kernel, i: int) -> int:
    """The diagonal that input i names; several of them have no lowering."""
    offsets = set(k.integers(i))
    if len(offsets) != 1:
        raise NotLowered(k.op.type)
    return offsets.pop()


@kernel("MatrixDiag")
def _matrix_diag(k: Kernel) -> Value:
    return zeros(k[0], k.shape).add("diagonal_scatter", k[0], offset=0, dim1=-2, dim2=-1)


@kernel("MatrixDiagV2", "MatrixDiagV3", structural=(1, 2, 3, 4))
def _matrix_diag_at(k: Kernel) -> Value:
    offset, padding = _one_offset(k, 1), float(k.value(4))
    base = k.filled(padding)
    return base.add("diagonal_scatter", k[0].reshape(*_diagonal_shape(k, k.shape)), offset=offset, dim1=-2, dim2=-1)


@kernel("MatrixSetDiag")
def _set_diagonal(k: Kernel) -> Value:
    return k[0].add("diagonal_scatter", k[1], offset=0, dim1=-2, dim2=-1)


@kernel("MatrixSetDiagV2", "MatrixSetDiagV3", structural=(2,))
def _set_diagonal_at(k: Kernel) -> Value:
    offset = _one_offset(k, 2)
    shape = k[0].shape
    length = min(shape[-2] + min(offset, 0), shape[-1] - max(offset, 0))
    return k[0].add("diagonal_scatter", k[1].reshape(*shape[:-2], length), offset=offset, dim1=-2, dim2=-1)


@kernel("MatrixBandPart", structural=(1, 2))
def _band(k: Kernel) -> Value:
    rows, columns = k[0].shape[-2:]
    return where(k.const(_inside(rows, columns, k.integer(1), k.integer(2)), BOOL), k[0], 0)


def _inside(rows: int, columns: int, lower: int, upper: int) -> Array:
    """Where a matrix lies within a band of so many sub- and superdiagonals (negative: all of them)."""
    distance = np.arange(columns)[None, :] - np.arange(rows)[:, None]
    return ((lower < 0) | (-distance <= lower)) & ((upper < 0) | (distance <= upper))
