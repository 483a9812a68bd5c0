"""Sample calls of matrix products, distances, decompositions, convolutions and pools."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.random import Generator

from whynan.ir.dtype import FLOAT32, FLOAT64, Array
from whynan.ir.graph import Call, Shape

from . import any_float
from .indexing import numbers


def _n(rng: Generator, most: int = 4) -> int:
    return int(rng.integers(1, most + 1))


def _matmul(rng: Generator) -> Call:
    fmt, m, k, n, b = any_float(rng), _n(rng), _n(rng), _n(rng), _n(rng, 3)
    front = ((), (b,), (1, b))[int(rng.integers(3))]
    other = ((), front, (1,) * len(front))[int(rng.integers(3))]
    return Call("matmul", {}, ((*front, m, k), (*other, k, n)), (fmt, fmt), (*front, m, n), fmt)


POWERS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, np.inf)


def _cdist(rng: Generator) -> Call:
    fmt, b, p, r, m = any_float(rng), _n(rng, 2), _n(rng), _n(rng), _n(rng)
    attrs = {"p": POWERS[int(rng.integers(len(POWERS)))]}
    return Call("cdist", attrs, ((b, p, m), (b, r, m)), (fmt, fmt), (b, p, r), fmt)


def _cdist_grad(rng: Generator) -> Call:
    call = _cdist(rng)
    x, y = call.shapes
    return Call("cdist_grad", call.attrs, (call.shape, x, y, call.shape), (call.format,) * 4, x, call.format)


def _cdist_grad_inputs(call: Call, rng: Generator) -> list[Array]:
    """A gradient, two sets of points and their true distances."""
    from whynan.ops._opdef import run

    g, x, y = (numbers(rng, call.format, s) for s in call.shapes[:3])
    if rng.random() < 0.3:
        y[:, 0] = x[:, 0]
    if rng.random() < 0.2:
        tiny = np.asarray(np.sqrt(call.format.smallest), np.float64)
        x, y = ((a.astype(np.float64) * tiny).astype(call.format.numpy) for a in (x, y))
    distance = Call("cdist", call.attrs, call.shapes[1:3], call.formats[1:3], call.shapes[3], call.format)
    return [g, x, y, run(distance, [x, y])]


def _square(op: str, result: Callable[[Shape], Shape]) -> Callable[[Generator], Call]:
    def draw(rng: Generator) -> Call:
        fmt = (FLOAT32, FLOAT64)[int(rng.integers(2))]
        n = _n(rng, 3)
        shape = (n, n) if rng.random() < 0.5 else (_n(rng, 2), n, n)
        return Call(op, {}, (shape,), (fmt,), result(shape), fmt)

    return draw


def _solve(rng: Generator) -> Call:
    call = _square("solve", lambda s: s)(rng)
    columns = (*call.shapes[0][:-1], _n(rng, 3))
    return Call("solve", {}, (call.shapes[0], columns), (call.format, call.format), columns, call.format)


def _matrices(call: Call, rng: Generator) -> list[Array]:
    """Symmetric positive definite matrices now and then, singular ones too."""
    x = rng.normal(size=call.shapes[0])
    x = x @ np.swapaxes(x, -1, -2)
    if rng.random() < 0.3:
        x[..., 0, :] = 0
    rest = [rng.normal(size=s) for s in call.shapes[1:]]
    return [a.astype(call.format.numpy) for a in (x, *rest)]


def _conv_parts(rng: Generator) -> tuple[dict[str, Any], Shape, Shape, Shape]:
    """Attributes, input shape, kernel shape, result shape."""
    rank, groups, transposed = _n(rng, 2), _n(rng, 2), bool(rng.random() < 0.4)
    inputs, outputs = _n(rng, 2) * groups, _n(rng, 2) * groups
    kernel = tuple(_n(rng, 3) for _ in range(rank))
    stride, dilation = (tuple(_n(rng, 2) for _ in range(rank)) for _ in range(2))
    padding = tuple(int(rng.integers(0, k)) for k in kernel)
    space = tuple(int(d * (k - 1) + 1 + rng.integers(0, 3)) for k, d in zip(kernel, dilation, strict=True))
    extra = tuple(int(rng.integers(0, s)) if transposed else 0 for s in stride)
    parts = list(zip(space, kernel, stride, padding, dilation, extra, strict=True))
    if transposed:
        w: Shape = (inputs, outputs // groups, *kernel)
        padding = tuple(0 for _ in kernel)
        out = tuple((n - 1) * s + d * (k - 1) + 1 + e for n, k, s, _, d, e in parts)
    else:
        w = (outputs, inputs // groups, *kernel)
        out = tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d, _ in parts)
    attrs: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "output_padding": extra}
    attrs |= {"transposed": transposed, "groups": groups}
    n = _n(rng, 2)
    return attrs, (n, inputs, *space), w, (n, outputs, *out)


def _conv(op: str) -> Callable[[Generator], Call]:
    def draw(rng: Generator) -> Call:
        fmt = any_float(rng)
        attrs, x, w, y = _conv_parts(rng)
        if op == "conv":
            return Call(op, attrs, (x, w), (fmt, fmt), y, fmt)
        return Call(op, attrs, (y, x, w), (fmt,) * 3, x if op == "conv_input_grad" else w, fmt)

    return draw


def _pool(op: str) -> Callable[[Generator], Call]:
    def draw(rng: Generator) -> Call:
        fmt, rank = any_float(rng), _n(rng, 2)
        kernel = tuple(_n(rng, 3) for _ in range(rank))
        stride = tuple(_n(rng, 2) for _ in range(rank))
        padding = tuple(int(rng.integers(0, k // 2 + 1)) for k in kernel)
        space = tuple(k + int(rng.integers(0, 3)) for k in kernel)
        out = tuple((n + 2 * p - k) // s + 1 for n, k, s, p in zip(space, kernel, stride, padding, strict=True))
        attrs = {"kernel": kernel, "stride": stride, "padding": padding, "ceil_mode": False, "count_include_pad": bool(rng.random() < 0.5)}
        return Call(op, attrs, ((2, 2, *space),), (fmt,), (2, 2, *out), fmt)

    return draw


def _interpolate(rng: Generator) -> Call:
    fmt, rank = any_float(rng), _n(rng, 2)
    space, out = (tuple(_n(rng) for _ in range(rank)) for _ in range(2))
    attrs = {"mode": ("linear", "nearest")[int(rng.integers(2))], "align_corners": bool(rng.random() < 0.5)}
    return Call("interpolate", attrs, ((1, 2, *space),), (fmt,), (1, 2, *out), fmt)


CASES = {
    "matmul": _matmul,
    "cdist": _cdist,
    "cdist_grad": _cdist_grad,
    "det": _square("det", lambda s: s[:-2]),
    "slogabsdet": _square("slogabsdet", lambda s: s[:-2]),
    "inverse": _square("inverse", lambda s: s),
    "cholesky": _square("cholesky", lambda s: s),
    "eigvalsh": _square("eigvalsh", lambda s: s[:-1]),
    "svdvals": _square("svdvals", lambda s: s[:-1]),
    "solve": _solve,
    "conv": _conv("conv"),
    "conv_input_grad": _conv("conv_input_grad"),
    "conv_weight_grad": _conv("conv_weight_grad"),
    "avg_pool": _pool("avg_pool"),
    "max_pool": _pool("max_pool"),
    "interpolate": _interpolate,
}

INPUTS = {
    "cdist_grad": _cdist_grad_inputs,
    **dict.fromkeys(("det", "slogabsdet", "inverse", "cholesky", "eigvalsh", "svdvals", "solve"), _matrices),
}


def _largest(op: str) -> Callable[[Generator], tuple[Call, list[Array]]]:
    """A call on a value whose elements are all the largest of the format, over windows of more than one element."""

    def draw(rng: Generator) -> tuple[Call, list[Array]]:
        if op == "det":
            call = Call(op, {}, ((3, 3),), (FLOAT32,), (), FLOAT32)
            return call, [(1e30 * np.eye(3)).astype(np.float32)]
        attrs: dict[str, Any] = {"kernel": (2,), "stride": (1,), "padding": (0,), "ceil_mode": False, "count_include_pad": True}
        call = Call(op, attrs, ((1, 1, 4),), (FLOAT32,), (1, 1, 3), FLOAT32)
        return call, [np.full((1, 1, 4), FLOAT32.max, np.float32)]

    return draw


HARD = {op: [_largest(op)] for op in ("det", "avg_pool")}
