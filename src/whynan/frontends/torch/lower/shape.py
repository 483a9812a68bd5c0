"""Views, joins, pads: operations that move elements."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from whynan.frontends.kit import Value, axis, concat, cut, negative, where, zeros
from whynan.frontends.torch.lower._kernel import Kernel, kernel
from whynan.ir.dtype import BOOL, INT64
from whynan.ir.graph import Shape


@kernel(
    "view",
    "_unsafe_view",
    "reshape",
    "_reshape_alias",
    "_reshape_copy",
    "view_as",
    "view_copy",
    "unsqueeze",
    "unsqueeze_copy",
    "squeeze",
    "squeeze.dim",
    "squeeze.dims",
    "flatten.using_ints",
    "unflatten.int",
    "ravel",
    "atleast_1d",
    "expand",
    "expand_as",
    "expand_copy",
    "broadcast_to",
)
def _same_elements(k: Kernel) -> Value:
    """Only the shape changes, and the result's own shape says how."""
    x: Value = k.tensor("self")
    return x


@kernel("view.dtype")
def _view_dtype(k: Kernel) -> Value:
    x: Value = k.tensor("self")
    return x if x.format.name == k.format.name else k.unknown(0, x)


def permuted(x: Value, axes: Sequence[int]) -> Value:
    """The axes in another order; itself if the order is the same."""
    order = negative(tuple(axes), x.ndim) if axes else ()
    return x if order == x.axes else x.add("permute", shape=[x.shape[a] for a in order], axes=order)


@kernel("permute", "permute_copy")
def _permute(k: Kernel) -> Value:
    return permuted(k.tensor("self"), k["dims"])


@kernel("t", "t_copy", "numpy_T", "mT", "adjoint", "matrix_H")
def _t(k: Kernel) -> Value:
    x = k.tensor("self")
    return x if x.ndim < 2 else permuted(x, (*x.axes[:-2], -1, -2))


@kernel("transpose.int", "transpose_copy.int", "swapaxes", "swapdims")
def _transpose(k: Kernel) -> Value:
    x = k.tensor("self")
    if x.ndim == 0:
        return x
    names = ("dim0", "dim1") if k.aten.name.startswith(("transpose", "swapdims")) else ("axis0", "axis1")
    first, second = (axis(k[name], x.ndim) for name in names)
    axes = list(x.axes)
    axes[first], axes[second] = axes[second], axes[first]
    return permuted(x, axes)


@kernel("movedim.int", "movedim.intlist")
def _movedim(k: Kernel) -> Value:
    x = k.tensor("self")
    source, target = negative(k["source"], x.ndim), negative(k["destination"], x.ndim)
    order = [a for a in x.axes if a not in source]
    for place, a in sorted((t + x.ndim, s) for s, t in zip(source, target, strict=True)):
        order.insert(place, a)
    return permuted(x, order)


# ---------------------------------------------------------------- parts


@kernel("slice.Tensor", "slice_copy.Tensor")
def _slice(k: Kernel) -> Value:
    x = k.tensor("self")
    dim = axis(k["dim"], x.ndim)
    start, _, step = slice(k["start"], k["end"], k["step"]).indices(x.shape[dim])
    return cut(x, dim, start, k.shape[dim], step)


@kernel("select.int", "select_copy.int")
def _select(k: Kernel) -> Value:
    x = k.tensor("self")
    dim = axis(k["dim"], x.ndim)
    return cut(x, dim, k["index"] % x.shape[dim], 1)


@kernel("narrow", "narrow_copy")
def _narrow(k: Kernel) -> Value:
    x = k.tensor("self")
    dim = axis(k["dim"], x.ndim)
    return cut(x, dim, k["start"] % max(x.shape[dim], 1), k["length"])


@kernel(
    "split.Tensor",
    "split_with_sizes",
    "split_copy.Tensor",
    "split_with_sizes_copy",
    "unsafe_split.Tensor",
    "unsafe_split_with_sizes",
    "chunk",
    "unsafe_chunk",
    "tensor_split.sections",
    "tensor_split.indices",
    "unbind.int",
    "unbind_copy.int",
)
def _split(k: Kernel) -> list[Value]:
    x = k.tensor("self")
    dim = axis(k["dim"], x.ndim)
    unbind = k.aten.name.startswith("unbind")
    parts, start = [], 0
    for i in range(len(k.aten.outputs)):
        length = 1 if unbind else k.out(i)[0][dim]
        parts.append(cut(x, dim, start, length))
        start += length
    return parts


@kernel("cat", "concat", "concatenate")
def _cat(k: Kernel) -> Value:
    shape = k.shape
    # torch lets empty 1-d tensors pass whatever the others' rank
    parts = [v.cast(k.format) for v in k["tensors"] if v.ndim == len(shape)]
    return concat(parts, axis(k["dim"], len(shape)))


@kernel("stack")
def _stack(k: Kernel) -> Value:
    dim = axis(k["dim"], len(k.shape))
    parts = []
    for v in k["tensors"]:
        shape = list(v.shape)
        shape.insert(dim + len(k.shape), 1)
        parts.append(v.cast(k.format).reshape(*shape))
    return concat(parts, dim)


@kernel("diagonal", "diagonal_copy")
def _diagonal(k: Kernel) -> Value:
    x: Value = k.tensor("self")
    return x.add("diagonal", shape=k.shape, **_plane(k, x.ndim))


def _plane(k: Kernel, ndim: int) -> dict[str, Any]:
    return {"offset": k["offset"], "dim1": axis(k["dim1"], ndim), "dim2": axis(k["dim2"], ndim)}


@kernel("diag_embed")
def _diag_embed(k: Kernel) -> Value:
    x = k.tensor("self")
    return zeros(x, k.shape).add("diagonal_scatter", x, **_plane(k, len(k.shape)))


@kernel("diagonal_backward")
def _diagonal_backward(k: Kernel) -> Value:
    g = k.tensor("grad_output")
    return zeros(g, k.shape).add("diagonal_scatter", g, **_plane(k, len(k.shape)))


@kernel("diagonal_scatter")
def _diagonal_scatter(k: Kernel) -> Value:
    x: Value = k.tensor("self")
    return x.add("diagonal_scatter", k.tensor("src").cast(x.format), **_plane(k, x.ndim))


@kernel("trace")
def _trace(k: Kernel) -> Value:
    x = k.tensor("self").cast(k.format)
    diagonal: Value = x.add("diagonal", shape=(min(x.shape),), offset=0, dim1=-2, dim2=-1)
    return diagonal.sum()


@kernel("as_strided", "as_strided_copy")
def _as_strided(k: Kernel) -> Value:
    x: Value = k.tensor("self")
    return x.add("as_strided", shape=k.shape, **_layout(k))


@kernel("as_strided_scatter")
def _as_strided_scatter(k: Kernel) -> Value:
    x: Value = k.tensor("self")
    return x.add("as_strided_scatter", k.tensor("src"), **_layout(k))


def _layout(k: Kernel) -> dict[str, Any]:
    return {"size": tuple(k["size"]), "stride": tuple(k["stride"]), "offset": k["storage_offset"] or 0}


@kernel("unfold", "unfold_copy")
def _unfold(k: Kernel) -> Value:
    x: Value = k.tensor("self")
    return x.add("unfold", shape=k.shape, dim=axis(k["dimension"], x.ndim), size=k["size"], step=k["step"])


@kernel("unfold_backward")
def _unfold_backward(k: Kernel) -> Value:
    g, shape = k.tensor("grad_in"), k.shape
    dim = axis(k["dim"], len(shape))
    windows, size = g.shape[dim - 1], k["size"]
    index = (np.arange(windows)[:, None] * k["step"] + np.arange(size)).reshape(-1)
    # the windows stand along `dim`, their elements along a new last axis: bring both together at the end
    rows = permuted(g, [a for a in g.axes if a not in (dim - 1, -1)] + [dim - 1, -1])
    front = rows.shape[:-2]
    total = accumulated(rows.reshape(*front, windows * size), index, shape[dim])
    order = list(total.axes[:-1])
    order.insert(dim + len(shape), -1)
    return permuted(total, order)


def accumulated(x: Value, index: Any, n: int) -> Value:
    """Sums of the elements along the last axis that share an index; the result has `n` of them."""
    places = x.const(np.broadcast_to(np.asarray(index, np.int64), x.shape), INT64)
    return zeros(x, (*x.shape[:-1], n)).add("scatter_add", places, x, dim=-1)


# ---------------------------------------------------------------- writing into a part


@kernel("slice_scatter")
def _slice_scatter(k: Kernel) -> Value:
    x: Value = k.tensor("self")
    dim = axis(k["dim"], x.ndim)
    start, _, step = slice(k["start"], k["end"], k["step"]).indices(x.shape[dim])
    return x.add("slice_scatter", k.tensor("src").cast(x.format), dim=dim, start=start, step=step)


@kernel("slice_backward")
def _slice_backward(k: Kernel) -> Value:
    g, shape = k.tensor("grad_output"), k.shape
    dim = axis(k["dim"], len(shape))
    start, _, step = slice(k["start"], k["end"], k["step"]).indices(shape[dim])
    return g if g.shape == shape else zeros(g, shape).add("slice_scatter", g, dim=dim, start=start, step=step)


def _into_row(x: Value, row: Value, dim: int, index: int) -> Value:
    shape = list(x.shape)
    shape[dim] = 1
    return x.add("slice_scatter", row.cast(x.format).reshape(*shape), dim=dim, start=index % x.shape[dim], step=1)


@kernel("select_scatter")
def _select_scatter(k: Kernel) -> Value:
    x = k.tensor("self")
    return _into_row(x, k.tensor("src"), axis(k["dim"], x.ndim), k["index"])


@kernel("select_backward")
def _select_backward(k: Kernel) -> Value:
    g = k.tensor("grad_output")
    return _into_row(zeros(g, k.shape), g, axis(k["dim"], len(k.shape)), k["index"])


# ---------------------------------------------------------------- order and repetition


@kernel("flip")
def _flip(k: Kernel) -> Value:
    x: Value = k.tensor("self")
    return x.add("flip", dims=negative(k["dims"], x.ndim)) if k["dims"] else x


@kernel("roll")
def _roll(k: Kernel) -> Value:
    x: Value = k.tensor("self")
    if not k["dims"]:
        return x.reshape(x.size).add("roll", shifts=tuple(k["shifts"]), dims=(-1,))
    return x.add("roll", shifts=tuple(k["shifts"]), dims=negative(k["dims"], x.ndim))


@kernel("repeat", "tile")
def _repeat(k: Kernel) -> Value:
    x: Value = k.tensor("self")
    reps = k["repeats"] if k.aten.name.startswith("repeat") else k["dims"]
    rank = len(k.shape)
    x = x.reshape(*(1,) * (rank - x.ndim), *x.shape)
    if all(n == 1 or r == 1 for n, r in zip(x.shape, reps, strict=False)):
        return x.expand(k.shape)
    return x.add("tile", shape=k.shape, reps=(*(1,) * (rank - len(reps)), *reps))


@kernel("repeat_interleave.self_int")
def _repeat_interleave(k: Kernel) -> Value:
    x = k.tensor("self")
    if k["dim"] is None:
        return x.reshape(x.size, 1).expand((x.size, k["repeats"]))
    dim = axis(k["dim"], x.ndim) + x.ndim
    apart = x.reshape(*x.shape[: dim + 1], 1, *x.shape[dim + 1 :])
    return apart.expand((*x.shape[: dim + 1], k["repeats"], *x.shape[dim + 1 :]))


@kernel("tril", "triu")
def _triangle(k: Kernel) -> Value:
    x = k.tensor("self")
    rows, columns = x.shape[-2:]
    lower = k.aten.name.startswith("tril")
    below = np.tri(rows, columns, k["diagonal"] - (0 if lower else 1)) == 1
    return where(x.const(below if lower else ~below, BOOL), x, 0)


# ---------------------------------------------------------------- pads


def _pads(pad: Sequence[int], ndim: int) -> tuple[tuple[int, int], ...]:
    """Torch's flat list, last axis first, as (before, after) per axis."""
    given = [(pad[i], pad[i + 1]) for i in range(0, len(pad), 2)]
    return tuple([(0, 0)] * (ndim - len(given)) + given[::-1])


def _padded_shape(x: Value, pads: Sequence[tuple[int, int]]) -> Shape:
    return tuple(n + before + after for n, (before, after) in zip(x.shape, pads, strict=True))


@kernel("constant_pad_nd")
def _constant_pad(k: Kernel) -> Value:
    x = k.tensor("self")
    pads = _pads(k["pad"], x.ndim)
    for dim, (before, after) in zip(x.axes, pads, strict=True):
        if before < 0 or after < 0:
            x = cut(x, dim, max(-before, 0), x.shape[dim] + min(before, 0) + min(after, 0))
    grown = tuple((max(before, 0), max(after, 0)) for before, after in pads)
    if all(p == (0, 0) for p in grown):
        return x
    value = float(np.asarray(k["value"]).astype(x.format.numpy))
    padded: Value = x.add("pad", shape=_padded_shape(x, grown), pads=grown, value=value)
    return padded


@kernel(*(f"{kind}_pad{n}d" for kind in ("reflection", "replication") for n in (1, 2, 3)))
def _edge_pad(k: Kernel) -> Value:
    x = k.tensor("self")
    pads = _pads(k["padding"], x.ndim)
    op = "pad_reflect" if k.aten.name.startswith("reflection") else "pad_replicate"
    padded: Value = x.add(op, shape=_padded_shape(x, pads), pads=pads)
    return padded


@kernel(*(f"{kind}_pad{n}d_backward" for kind in ("reflection", "replication") for n in (1, 2, 3)))
def _edge_pad_backward(k: Kernel) -> Value:
    g, shape = k.tensor("grad_output"), k.shape
    rank = len(k["padding"]) // 2
    space = shape[-rank:]
    source = np.arange(int(np.prod(space))).reshape(space)
    mode: Any = "reflect" if k.aten.name.startswith("reflection") else "edge"
    index = np.pad(source, _pads(k["padding"], rank), mode=mode).reshape(-1)
    return accumulated(g.reshape(*shape[:-rank], index.size), index, source.size)
