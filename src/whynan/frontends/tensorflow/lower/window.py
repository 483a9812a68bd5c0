"""Convolutions and pools. Spatial axes are padded first, for TensorFlow pads one side more than the other."""

from collections.abc import Sequence
from itertools import product as tuples
from math import prod
from typing import Any

import numpy as np

from whynan.frontends.kit import Value, apply, concat, cut, reduce, zeros
from whynan.frontends.tensorflow.lower._kernel import Kernel, NotLowered, kernel
from whynan.frontends.tensorflow.lower.arithmetic import VECTOR_ULPS
from whynan.frontends.tensorflow.lower.linalg import channels_first
from whynan.frontends.tensorflow.lower.shape import permuted
from whynan.ir.dtype import INT64
from whynan.ir.graph import Shape

MOST_TAPS = 128  # a pool with a larger window is not written out

Pads = tuple[tuple[int, int], ...]


# ---------------------------------------------------------------- geometry


def _spatial(k: Kernel, name: str, rank: int) -> Shape:
    """An attribute's numbers for the spatial axes only."""
    listed = tuple(int(n) for n in k.attr(name, [1] * (rank + 2)))
    return listed[2:] if channels_first(k) else listed[1:-1]


def _pads(k: Kernel, space: Shape, window: Shape, stride: Shape) -> Pads:
    """How many elements stand before and after each spatial axis; `window` counts the gaps of a dilation."""
    if k.attr("padding") == "VALID":
        return ((0, 0),) * len(space)
    if k.attr("padding") == "EXPLICIT":
        numbers = tuple(int(n) for n in k.attr("explicit_paddings"))
        pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
        return tuple(pairs[2:] if channels_first(k) else pairs[1:-1])
    needed = [max((-(-n // s) - 1) * s + w - n, 0) for n, w, s in zip(space, window, stride, strict=True)]
    return tuple((n // 2, n - n // 2) for n in needed)


def _channels_second(k: Kernel, x: Value) -> Value:
    return x if channels_first(k) else permuted(x, (-x.ndim, -1, *range(1 - x.ndim, -1)))


def _as_given(k: Kernel, x: Value) -> Value:
    """The value with its channels where the op has them, from channels as second axis."""
    return x if channels_first(k) else permuted(x, (-x.ndim, *range(2 - x.ndim, 0), 1 - x.ndim))


def _second_shape(k: Kernel, shape: Shape) -> Shape:
    return shape if channels_first(k) else (shape[0], shape[-1], *shape[1:-1])


def _padded(x: Value, pads: Pads, value: float) -> Value:
    if not any(map(any, pads)):
        return x
    shape = (*x.shape[:2], *(n + a + b for n, (a, b) in zip(x.shape[2:], pads, strict=True)))
    return x.add("pad", shape=shape, pads=((0, 0), (0, 0), *pads), value=value)


def _cropped(x: Value, pads: Pads) -> Value:
    for a, (before, after) in zip(range(-len(pads), 0), pads, strict=True):
        x = cut(x, a, before, x.shape[a] - before - after)
    return x


# ---------------------------------------------------------------- convolutions


class _Convolution:
    """The attributes and layouts that a convolution and its two gradients share."""

    def __init__(self, k: Kernel, x_shape: Shape, w_shape: Shape) -> None:
        rank = len(x_shape) - 2
        self.kernel, self.depthwise = k, "Depthwise" in k.op.type
        self.x_shape = _second_shape(k, x_shape)
        self.w_shape = w_shape
        stride, dilation = _spatial(k, "strides", rank), _spatial(k, "dilations", rank)
        window = tuple((n - 1) * d + 1 for n, d in zip(w_shape[:-2], dilation, strict=True))
        self.pads = _pads(k, self.x_shape[2:], window, stride)
        groups = self.x_shape[1] if self.depthwise else self.x_shape[1] // w_shape[-2]
        self.attrs: dict[str, Any] = {
            "stride": stride,
            "padding": (0,) * rank,
            "dilation": dilation,
            "output_padding": (0,) * rank,
            "transposed": False,
            "groups": groups,
        }

    def input(self, x: Value) -> Value:
        """The padded input, channels second."""
        return _padded(_channels_second(self.kernel, x), self.pads, 0.0)

    @property
    def padded_shape(self) -> Shape:
        """The shape of the padded input."""
        return (*self.x_shape[:2], *(n + a + b for n, (a, b) in zip(self.x_shape[2:], self.pads, strict=True)))

    def weight(self, w: Value) -> Value:
        """The kernel with output channels first. A depthwise one has a multiplier of each channel."""
        rank = w.ndim - 2
        if self.depthwise:
            return permuted(w, (-2, -1, *range(-w.ndim, -2))).reshape(w.shape[-2] * w.shape[-1], 1, *w.shape[:rank])
        return permuted(w, (-1, -2, *range(-w.ndim, -2)))

    @property
    def weight_shape(self) -> Shape:
        """The shape of the kernel with output channels first."""
        *taps, inputs, outputs = self.w_shape
        return (inputs * outputs, 1, *taps) if self.depthwise else (outputs, inputs, *taps)

    def weight_as_given(self, w: Value) -> Value:
        """A kernel with output channels first in the op's own layout."""
        if self.depthwise:
            w = w.reshape(*self.w_shape[-2:], *self.w_shape[:-2])
            return permuted(w, (*range(2 - w.ndim, 0), -w.ndim, 1 - w.ndim))
        return permuted(w, (*range(2 - w.ndim, 0), 1 - w.ndim, -w.ndim))


def convolution(k: Kernel) -> Value:
    """The convolution of the first input with the second."""
    c = _Convolution(k, k[0].shape, k[1].shape)
    x, w = c.input(k[0]).up(), c.weight(k[1]).up()
    return _as_given(k, x.add("conv", w, shape=_second_shape(k, k.shape), **c.attrs))


@kernel("Conv2D", "Conv3D", "DepthwiseConv2dNative")
def _convolution(k: Kernel) -> Value:
    return convolution(k)


@kernel("Conv2DBackpropInput", "Conv3DBackpropInputV2", "DepthwiseConv2dNativeBackpropInput", structural=(0,))
def _convolution_by_input(k: Kernel) -> Value:
    c = _Convolution(k, k.shape, k[1].shape)
    g = _channels_second(k, k[2])
    padded = g.add("conv_input_grad", zeros(g, c.padded_shape), c.weight(k[1]), shape=c.padded_shape, **c.attrs)
    return _as_given(k, _cropped(padded, c.pads))


@kernel("Conv2DBackpropFilter", "Conv3DBackpropFilterV2", "DepthwiseConv2dNativeBackpropFilter", structural=(1,))
def _convolution_by_filter(k: Kernel) -> Value:
    c = _Convolution(k, k[0].shape, k.shape)
    g = _channels_second(k, k[2])
    return c.weight_as_given(g.add("conv_weight_grad", c.input(k[0]), zeros(g, c.weight_shape), shape=c.weight_shape, **c.attrs))


# ---------------------------------------------------------------- pools


class _Windows:
    """The windows of a pool over an input of that shape, channels second."""

    def __init__(self, k: Kernel, shape: Shape) -> None:
        self.shape = _second_shape(k, shape)
        space, rank = self.shape[2:], len(shape) - 2
        self.size, self.stride = _spatial(k, "ksize", rank), _spatial(k, "strides", rank)
        full = tuple(int(n) for n in k.attr("ksize"))
        if prod(full) != prod(self.size) or prod(self.size) > MOST_TAPS:
            raise NotLowered(k.op.type)
        self.pads = _pads(k, space, self.size, self.stride)
        self.out = tuple((n + a + b - w) // s + 1 for n, (a, b), w, s in zip(space, self.pads, self.size, self.stride, strict=True))

    @property
    def taps(self) -> list[Shape]:
        """The positions within a window."""
        return list(tuples(*map(range, self.size)))

    def stacked(self, x: Value, filler: float) -> Value:
        """The elements of all windows, those of one window along a new first axis."""
        room = _padded(x, self.pads, filler)
        parts = [self._read(room, tap) for tap in self.taps]
        return concat([p.reshape(1, *p.shape) for p in parts], -x.ndim - 1)

    def _read(self, x: Value, tap: Shape) -> Value:
        for a, start, n, s in zip(range(-len(tap), 0), tap, self.out, self.stride, strict=True):
            x = cut(x, a, start, n, s)
        return x

    def written(self, parts: Sequence[Value]) -> Value:
        """The sum over taps of what each window gives back to its element there."""
        room = (*self.shape[:2], *(n + a + b for n, (a, b) in zip(self.shape[2:], self.pads, strict=True)))
        placed = [self._placed(part, room, tap) for part, tap in zip(parts, self.taps, strict=True)]
        total = concat([p.reshape(1, *p.shape) for p in placed], -len(room) - 1).sum((-len(room) - 1,))
        return _cropped(total.reshape(*room), self.pads)

    def _placed(self, x: Value, room: Shape, tap: Shape) -> Value:
        for a, start, s in zip(range(-len(tap), 0), tap, self.stride, strict=True):
            shape = list(x.shape)
            shape[a] = room[a]
            x = zeros(x, shape).add("slice_scatter", x, dim=a, start=start, step=s)
        return x

    def counts(self, like: Value) -> Value:
        """How many elements of the input each window holds."""
        per_axis = []
        for n, (before, _), w, s, m in zip(self.shape[2:], self.pads, self.size, self.stride, self.out, strict=True):
            first = np.arange(m) * s - before
            per_axis.append(np.minimum(first + w, n) - np.maximum(first, 0))
        return like.const(prod(np.ix_(*per_axis), start=np.ones((), np.int64)).astype(np.float64))


@kernel("MaxPool", "MaxPool3D")
def _max_pool(k: Kernel) -> Value:
    windows = _Windows(k, k[0].shape)
    largest = reduce("amax", windows.stacked(_channels_second(k, k[0]), -np.inf), (-k[0].ndim - 1,))
    return _as_given(k, largest.reshape(*largest.shape[1:]))


@kernel("MaxPoolGrad", "MaxPool3DGrad")
def _max_pool_grad(k: Kernel) -> Value:
    """The first of the largest elements of a window has its cotangent."""
    windows = _Windows(k, k[0].shape)
    g = _channels_second(k, k[2])
    stack = windows.stacked(_channels_second(k, k[0]), -np.inf)
    first = reduce("argmax", stack, (-stack.ndim,), INT64).reshape(*g.shape)
    parts = [g * apply("eq", first, i).cast(g.format) for i in range(len(windows.taps))]
    return _as_given(k, windows.written(parts))


@kernel("AvgPool", "AvgPool3D")
def _avg_pool(k: Kernel) -> Value:
    windows = _Windows(k, k[0].shape)
    x = k[0] if k.format.name == "float16" else k[0].up()
    total = windows.stacked(_channels_second(k, x), 0.0).sum((-k[0].ndim - 1,))
    total = total.reshape(*total.shape[1:])
    return _as_given(k, total / windows.counts(total))


@kernel("AvgPoolGrad", "AvgPool3DGrad", structural=(0,))
def _avg_pool_grad(k: Kernel) -> Value:
    windows = _Windows(k, k.shape)
    g = _channels_second(k, k[1])
    share = apply("mul", g, 1 / windows.counts(g), ulps=VECTOR_ULPS)
    return _as_given(k, windows.written([share] * len(windows.taps)))
