"""Pools, patches and resampling: windows over the trailing, spatial axes.

The gradient of a mean over windows gives each input position its share of every window that holds it: `_shared` writes that as one
read and one sum over pairs of positions that are known beforehand.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np

from whynan.frontends.kit import Value, concat, cut, reduce
from whynan.frontends.torch.lower._kernel import Kernel, kernel
from whynan.frontends.torch.lower.linalg import repeated
from whynan.frontends.torch.lower.shape import accumulated
from whynan.ir.dtype import INT64, Array

Space = tuple[int, ...]
Window = tuple[int, int, int]  # first position, the one after the last, number of positions that the mean divides by
MOST_PAIRS = 1 << 18


def _flat(x: Value, rank: int) -> Value:
    """The trailing `rank` axes as one."""
    return x.reshape(*x.shape[:-rank], prod(x.shape[-rank:]))


def _picked(x: Value, index: Array) -> Value:
    """Positions of the last axis, in the layout of the index."""
    return x.add("index", x.const(index, INT64), shape=(*x.shape[:-1], *index.shape), axes=(-1,))


def _shared(g: Value, space: Space, windows: Sequence[Sequence[Window]]) -> Value | None:
    """The gradient of means over windows by what they were taken of; None if it would be too long to write out."""
    rank = len(space)
    source, target, weight = [], [], []
    for number, boxes in enumerate(product(*windows)):
        inside = np.ravel_multi_index(np.meshgrid(*(np.arange(a, b) for a, b, _ in boxes), indexing="ij"), space).reshape(-1)
        source.append(np.full(inside.size, number))
        target.append(inside)
        weight.append(np.full(inside.size, 1.0 / prod(n for *_, n in boxes)))
    index = np.concatenate(target)
    if index.size > MOST_PAIRS:
        return None
    parts = _picked(_flat(g.up(), rank), np.concatenate(source))
    return accumulated(parts * parts.const(np.concatenate(weight)), index, prod(space))


# ---------------------------------------------------------------- means


@kernel("avg_pool1d", "avg_pool2d", "avg_pool3d")
def _avg_pool(k: Kernel) -> Value:
    x = k.tensor("self")
    rank = int(k.aten.name[8])
    if rank > 1 and k["divisor_override"] is not None:
        return k.unknown(0, x)
    return x.add("avg_pool", shape=k.shape, count_include_pad=bool(k["count_include_pad"]), **_pool_attrs(k, rank))


def _pool_attrs(k: Kernel, rank: int) -> dict[str, Any]:
    size = repeated(k["kernel_size"], rank)
    return {
        "kernel": size,
        "stride": repeated(k["stride"], rank) if k["stride"] else size,
        "padding": repeated(k["padding"], rank),
        "ceil_mode": bool(k["ceil_mode"]),
    }


@kernel("avg_pool2d_backward", "avg_pool3d_backward")
def _avg_pool_backward(k: Kernel) -> Value:
    g, rank = k.tensor("grad_output"), int(k.aten.name[8])
    space, attrs = k.shape[-rank:], _pool_attrs(k, rank)
    if k["divisor_override"] is not None:
        return k.unknown(0, g)
    windows = [
        list(_pool_windows(n, m, size, stride, pad, bool(k["count_include_pad"])))
        for n, m, size, stride, pad in zip(space, g.shape[-rank:], attrs["kernel"], attrs["stride"], attrs["padding"], strict=True)
    ]
    return _shared(g, space, windows) or k.unknown(0, g)


def _pool_windows(n: int, out: int, size: int, stride: int, pad: int, include_pad: bool) -> Iterator[Window]:
    for i in range(out):
        start = i * stride - pad
        end = min(start + size, n + pad)
        a, b = max(start, 0), min(end, n)
        yield a, b, end - start if include_pad else b - a


def _adaptive_windows(n: int, out: int) -> list[Window]:
    bounds = [(i * n // out, -(-(i + 1) * n // out)) for i in range(out)]
    return [(a, b, b - a) for a, b in bounds]


@kernel("_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_avg_pool1d")
def _adaptive_avg_pool(k: Kernel) -> Value:
    x = k.tensor("self").up()
    rank = len(k["output_size"])
    if all(n == 1 for n in k.shape[-rank:]):
        return reduce("mean", x, tuple(range(-rank, 0)))
    for dim in range(-rank, 0):
        parts = [reduce("mean", cut(x, dim, a, n), (dim,)) for a, _, n in _adaptive_windows(x.shape[dim], k.shape[dim])]
        x = concat(parts, dim)
    return x


@kernel("_adaptive_avg_pool2d_backward", "_adaptive_avg_pool3d_backward")
def _adaptive_avg_pool_backward(k: Kernel) -> Value:
    g, rank = k.tensor("grad_output"), 2 if "2d" in k.aten.name else 3
    space = k.shape[-rank:]
    windows = [_adaptive_windows(n, m) for n, m in zip(space, g.shape[-rank:], strict=True)]
    return _shared(g, space, windows) or k.unknown(0, g)


# ---------------------------------------------------------------- maxima


@kernel("max_pool2d_with_indices", "max_pool3d_with_indices")
def _max_pool(k: Kernel) -> tuple[Value, Value]:
    x, rank = k.tensor("self"), int(k.aten.name[8])
    attrs = {"dilation": repeated(k["dilation"], rank), **_pool_attrs(k, rank)}
    return x.add("max_pool", shape=k.shape, **attrs), _largest_positions(x, k.shape[-rank:], attrs)


@kernel("adaptive_max_pool2d", "adaptive_max_pool3d")
def _adaptive_max_pool(k: Kernel) -> tuple[Value, Value]:
    x, rank = k.tensor("self"), int(k.aten.name[17])
    out = k.shape[-rank:]
    size = tuple(n // m for n, m in zip(x.shape[-rank:], out, strict=True))
    if any(n % m for n, m in zip(x.shape[-rank:], out, strict=True)):
        return k.unknown(0, x), k.unknown(1, x)
    zero, one = (0,) * rank, (1,) * rank
    attrs: dict[str, Any] = {"kernel": size, "stride": size, "padding": zero, "dilation": one, "ceil_mode": False}
    return x.add("max_pool", shape=k.shape, **attrs), _largest_positions(x, out, attrs)


def _largest_positions(x: Value, out: Space, attrs: dict[str, Any]) -> Value:
    """The flat position of the largest element of each window, the first among equals."""
    rank = len(out)
    space, size, stride, dilation = x.shape[-rank:], attrs["kernel"], attrs["stride"], attrs["dilation"]
    pads = tuple(
        (p, max((m - 1) * s + d * (w - 1) + 1 - n - p, 0))
        for n, m, w, s, p, d in zip(space, out, size, stride, attrs["padding"], dilation, strict=True)
    )
    grown = tuple(n + before + after for n, (before, after) in zip(space, pads, strict=True))
    padded = x
    if grown != space:
        padded = x.add("pad", shape=(*x.shape[:-rank], *grown), pads=((0, 0),) * (x.ndim - rank) + pads, value=float("-inf"))
    index = _patch_index(grown, size, stride, dilation, out)
    patches = _picked(_flat(padded, rank), index)
    winner = reduce("argmax", patches, (-2,), INT64)
    places = np.pad(np.arange(prod(space)).reshape(space), pads, mode="edge").reshape(-1)[index]
    return x.const(places, INT64).expand(patches.shape).add("gather", winner, shape=winner.shape, dim=-2)


@kernel(
    "max_pool2d_with_indices_backward",
    "max_pool3d_with_indices_backward",
    "adaptive_max_pool2d_backward",
    "adaptive_max_pool3d_backward",
)
def _max_pool_backward(k: Kernel) -> Value:
    g, rank = k.tensor("grad_output"), 2 if "pool2d" in k.aten.name else 3
    shape = (*k.shape[:-rank], prod(k.shape[-rank:]))
    return g.const(np.zeros(shape)).add("scatter_add", _flat(k["indices"], rank), _flat(g, rank), dim=-1)


# ---------------------------------------------------------------- patches


def _patch_index(space: Space, size: Space, stride: Space, dilation: Space, out: Space | None = None) -> Array:
    """For each position in a patch and each patch, the flat position in the (padded) space; `out` is the number of patches per axis."""
    starts = [np.arange(0, n - d * (m - 1), s) for n, m, s, d in zip(space, size, stride, dilation, strict=True)]
    if out is not None:
        starts = [positions[:n] for positions, n in zip(starts, out, strict=True)]
    taps = [np.arange(m) * d for m, d in zip(size, dilation, strict=True)]
    axes = np.meshgrid(*taps, *starts, indexing="ij")
    rank = len(space)
    index: Array = np.ravel_multi_index([axes[i] + axes[rank + i] for i in range(rank)], space)
    return index.reshape(prod(size), -1)


def _patches(k: Kernel, space: Sequence[int]) -> tuple[Array, Space, tuple[tuple[int, int], ...]]:
    """The index of the patches, the padded space, and the padding."""
    size, dilation, padding, stride = (repeated(k[name], 2) for name in ("kernel_size", "dilation", "padding", "stride"))
    padded = tuple(n + 2 * p for n, p in zip(space, padding, strict=True))
    return _patch_index(padded, size, stride, dilation), padded, tuple((p, p) for p in padding)


@kernel("im2col")
def _im2col(k: Kernel) -> Value:
    x = k.tensor("self")
    index, padded, pads = _patches(k, x.shape[-2:])
    if any(before for before, _ in pads):
        x = x.add("pad", shape=(*x.shape[:-2], *padded), pads=((0, 0),) * (x.ndim - 2) + pads, value=0.0)
    return _picked(_flat(x, 2), index)


@kernel("col2im")
def _col2im(k: Kernel) -> Value:
    x = k.tensor("self")
    index, padded, pads = _patches(k, k["output_size"])
    front = k.shape[:-2]
    total = accumulated(x.reshape(*front, index.size), index.reshape(-1), prod(padded)).reshape(*front, *padded)
    for dim, (before, _) in zip((-2, -1), pads, strict=True):
        total = cut(total, dim, before, k.shape[dim])
    return total


@kernel("pixel_shuffle")
def _pixel_shuffle(k: Kernel) -> Value:
    x, r = k.tensor("self"), k["upscale_factor"]
    *front, c, h, w = x.shape
    apart = x.reshape(*front, c // r**2, r, r, h, w)
    return _reordered(apart, (-5, -2, -4, -1, -3))


@kernel("pixel_unshuffle")
def _pixel_unshuffle(k: Kernel) -> Value:
    x, r = k.tensor("self"), k["downscale_factor"]
    *front, c, h, w = x.shape
    apart = x.reshape(*front, c, h // r, r, w // r, r)
    return _reordered(apart, (-5, -3, -1, -4, -2))


def _reordered(x: Value, last: tuple[int, ...]) -> Value:
    axes = (*x.axes[: -len(last)], *last)
    return x.add("permute", shape=[x.shape[a] for a in axes], axes=axes)


# ---------------------------------------------------------------- resampling


@kernel("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d")
def _upsample_nearest(k: Kernel) -> Value:
    x, rank = k.tensor("self"), int(k.aten.name[16])
    index = _nearest_index(x.shape[-rank:], k.shape[-rank:])
    return k.unknown(0, x) if index is None else _picked(_flat(x, rank), index)


@kernel("upsample_nearest1d_backward", "upsample_nearest2d_backward", "upsample_nearest3d_backward")
def _upsample_nearest_backward(k: Kernel) -> Value:
    g, rank = k.tensor("grad_output"), int(k.aten.name[16])
    index = _nearest_index(k.shape[-rank:], g.shape[-rank:])
    return k.unknown(0, g) if index is None else accumulated(_flat(g, rank), index, prod(k.shape[-rank:]))


def _nearest_index(space: Sequence[int], out: Sequence[int]) -> Array | None:
    """For each output position the flat input position that it copies; None where a size is no multiple (then rounding decides)."""
    if any(m % n for n, m in zip(space, out, strict=True)):
        return None
    axes = [np.arange(m) // (m // n) for n, m in zip(space, out, strict=True)]
    index: Array = np.ravel_multi_index(np.meshgrid(*axes, indexing="ij"), tuple(space))
    return index.reshape(-1)


@kernel("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d")
def _upsample_linear(k: Kernel) -> Value:
    return k.tensor("self").add("interpolate", shape=k.shape, mode="linear", align_corners=bool(k["align_corners"]))
