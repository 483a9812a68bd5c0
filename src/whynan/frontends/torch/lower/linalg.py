"""Products of matrices, convolutions, pools, distances, decompositions."""

from typing import Any

import numpy as np

from whynan.frontends.torch.lower._kernel import Kernel, Value, apply, concat, kernel, matmul, transposed
from whynan.frontends.torch.lower.arithmetic import limited
from whynan.frontends.torch.lower.shape import accumulated
from whynan.ir.dtype import INT64


@kernel("mm", "bmm", "matmul")
def _mm(k: Kernel) -> Value:
    b = k["mat2"] if not k.aten.name.startswith("matmul") else k["other"]
    return _product(k["self"], b)


def _product(a: Value, b: Value) -> Value:
    """A product of matrices or vectors as torch.matmul gives it, up to dimensions of size 1."""
    rows = a.reshape(1, *a.shape) if a.ndim == 1 else a
    columns = b.reshape(*b.shape, 1) if b.ndim == 1 else b
    return matmul(rows, columns)


@kernel("mv")
def _mv(k: Kernel) -> Value:
    return _product(k["self"], k["vec"])


@kernel("dot", "vdot")
def _dot(k: Kernel) -> Value:
    return _product(k["self"], k["tensor"] if k.aten.name.startswith("dot") else k["other"])


@kernel("outer", "ger")
def _outer(k: Kernel) -> Value:
    a, b = k["self"], k["vec2"]
    return a.reshape(a.size, 1) * b


def _affine(k: Kernel, product: Value) -> Value:
    """beta * self + alpha * product; with beta = 0 the kernel does not read self."""
    product = (product if k["alpha"] == 1 else product * k["alpha"]).reshape(*k.shape)
    if k["beta"] == 0:
        return product
    return product + (k["self"] if k["beta"] == 1 else k["self"] * k["beta"])


@kernel("addmm")
def _addmm(k: Kernel) -> Value:
    return _affine(k, _product(k["mat1"].up(), k["mat2"].up()))


@kernel("baddbmm")
def _baddbmm(k: Kernel) -> Value:
    return _affine(k, _product(k["batch1"].up(), k["batch2"].up()))


@kernel("addbmm")
def _addbmm(k: Kernel) -> Value:
    return _affine(k, _product(k["batch1"].up(), k["batch2"].up()).sum((-3,)))


@kernel("addmv")
def _addmv(k: Kernel) -> Value:
    return _affine(k, _product(k["mat"].up(), k["vec"].up()))


@kernel("addr")
def _addr(k: Kernel) -> Value:
    a, b = k["vec1"].up(), k["vec2"].up()
    return _affine(k, a.reshape(a.size, 1) * b)


@kernel("linear")
def _linear(k: Kernel) -> Value:
    product = _product(k["input"], transposed(k["weight"]))
    return product if k["bias"] is None else product + k["bias"]


# ---------------------------------------------------------------- convolutions


def _convolution_attrs(k: Kernel, rank: int) -> dict[str, Any]:
    lists = {name: _repeated(k[name], rank) for name in ("stride", "padding", "dilation", "output_padding")}
    return {**lists, "transposed": bool(k["transposed"]), "groups": int(k["groups"])}


def _repeated(numbers: Any, rank: int) -> tuple[int, ...]:
    listed = tuple(numbers) if isinstance(numbers, (tuple, list)) else (numbers,)
    return listed * rank if len(listed) == 1 else listed


@kernel("convolution", "_convolution", "convolution_overrideable")
def _convolution(k: Kernel) -> Value:
    x, w, bias = k["input"], k["weight"], k["bias"]
    y: Value = x.up().add("conv", w.up(), shape=k.shape, **_convolution_attrs(k, w.ndim - 2))
    return y if bias is None else y + bias.reshape(bias.size, *(1,) * (w.ndim - 2))


@kernel("convolution_backward")
def _convolution_backward(k: Kernel) -> tuple[Value | None, Value | None, Value | None]:
    g, x, w = k["grad_output"], k["input"], k["weight"]
    attrs = _convolution_attrs(k, w.ndim - 2)
    by_input, by_weight, by_bias = k["output_mask"]
    channel = -(w.ndim - 2) - 1
    return (
        g.add("conv_input_grad", x, w, shape=x.shape, **attrs) if by_input else None,
        g.add("conv_weight_grad", x, w, shape=w.shape, **attrs) if by_weight else None,
        g.sum(tuple(d for d in g.axes if d != channel)) if by_bias else None,
    )


# ---------------------------------------------------------------- pools


def _window(k: Kernel, rank: int, name: str) -> tuple[int, ...]:
    return _repeated(k[name], rank)


@kernel("avg_pool1d", "avg_pool2d", "avg_pool3d")
def _avg_pool(k: Kernel) -> Value:
    x: Value = k["self"]
    rank = int(k.aten.name[8])
    kernel_size = _window(k, rank, "kernel_size")
    divisor = k["divisor_override"] if rank > 1 else None
    if divisor is not None:
        return k.unknown(0, x)
    return x.add(
        "avg_pool",
        shape=k.shape,
        kernel=kernel_size,
        stride=_window(k, rank, "stride") if k["stride"] else kernel_size,
        padding=_window(k, rank, "padding"),
        ceil_mode=bool(k["ceil_mode"]),
        count_include_pad=bool(k["count_include_pad"]),
    )


def _bins(n: int, out: int) -> list[tuple[int, int]]:
    """Where the windows of an adaptive pool start and end."""
    return [(i * n // out, -(-(i + 1) * n // out)) for i in range(out)]


def _adaptive_matrix(space: tuple[int, ...], out: tuple[int, ...]) -> Any:
    """One row per output position, with the weight that the mean gives to each input position."""
    matrix = np.ones((1, 1))
    for n, m in zip(space, out, strict=True):
        rows = np.zeros((m, n))
        for i, (start, end) in enumerate(_bins(n, m)):
            rows[i, start:end] = 1 / (end - start)
        matrix = np.kron(matrix, rows)
    return matrix


@kernel("_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_avg_pool1d")
def _adaptive_avg_pool(k: Kernel) -> Value:
    x = k["self"]
    rank = len(k["output_size"])
    if all(n == 1 for n in k.shape[-rank:]):
        mean: Value = x.add("mean", shape=(*x.shape[:-rank], *(1,) * rank), dims=tuple(range(-rank, 0)))
        return mean
    matrix = _adaptive_matrix(x.shape[-rank:], k.shape[-rank:])
    return matmul(_rows(x, rank), x.const(matrix.T))


def _rows(x: Value, rank: int) -> Value:
    """The trailing `rank` axes as one, all before as another."""
    space = int(np.prod(x.shape[-rank:]))
    return x.reshape(x.size // space, space)


@kernel("_adaptive_avg_pool2d_backward", "_adaptive_avg_pool3d_backward")
def _adaptive_avg_pool_backward(k: Kernel) -> Value:
    g = k["grad_output"]
    rank = 2 if "2d" in k.aten.name else 3
    matrix = _adaptive_matrix(k.shape[-rank:], g.shape[-rank:])
    return matmul(_rows(g, rank), g.const(matrix))


@kernel("max_pool2d_with_indices", "max_pool3d_with_indices")
def _max_pool(k: Kernel) -> tuple[Value, Value]:
    x: Value = k["self"]
    rank = int(k.aten.name[8])
    kernel_size = _window(k, rank, "kernel_size")
    attrs = {
        "kernel": kernel_size,
        "stride": _window(k, rank, "stride") if k["stride"] else kernel_size,
        "padding": _window(k, rank, "padding"),
        "dilation": _window(k, rank, "dilation"),
        "ceil_mode": bool(k["ceil_mode"]),
    }
    return x.add("max_pool", shape=k.shape, **attrs), k.unknown(1, x, what=f"{k.aten.name}.indices")


# ---------------------------------------------------------------- interpolation


@kernel("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d")
def _upsample_nearest(k: Kernel) -> Value:
    x: Value = k["self"]
    rank = int(k.aten.name[16])
    index = _nearest_index(k, x.shape[-rank:], k.shape[-rank:])
    if index is None:
        return k.unknown(0, x)
    flat = x.reshape(*x.shape[:-rank], int(np.prod(x.shape[-rank:])))
    return flat.add("index", x.const(index, INT64), shape=(*flat.shape[:-1], index.size), axes=(-1,))


@kernel("upsample_nearest1d_backward", "upsample_nearest2d_backward", "upsample_nearest3d_backward")
def _upsample_nearest_backward(k: Kernel) -> Value:
    g: Value = k["grad_output"]
    rank = int(k.aten.name[16])
    index = _nearest_index(k, k.shape[-rank:], g.shape[-rank:])
    if index is None:
        return k.unknown(0, g)
    return accumulated(g.reshape(*g.shape[:-rank], index.size), index, int(np.prod(k.shape[-rank:])))


def _nearest_index(k: Kernel, space: tuple[int, ...], out: tuple[int, ...]) -> Any:
    """For each output position the flat input position that it copies; None where a size is no multiple (the kernel's rounding decides)."""
    if any(m % n for n, m in zip(space, out, strict=True)):
        return None
    axes = [np.arange(m) // (m // n) for n, m in zip(space, out, strict=True)]
    return np.ravel_multi_index(np.meshgrid(*axes, indexing="ij"), space).reshape(-1)


@kernel("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d")
def _upsample_linear(k: Kernel) -> Value:
    x: Value = k["self"]
    attrs = {"mode": "linear", "align_corners": bool(k["align_corners"])}
    return x.add("interpolate", shape=k.shape, **attrs)


# ---------------------------------------------------------------- distances


@kernel("_cdist_forward")
def _cdist(k: Kernel) -> Value:
    x, y = k["x1"], k["x2"]
    distance: Value = x.add("cdist", y, shape=k.shape, p=float(k["p"]))
    return distance


@kernel("_cdist_backward")
def _cdist_backward(k: Kernel) -> Value:
    g: Value = k["grad"]
    return g.add("cdist_grad", k["x1"], k["x2"], k["cdist"], shape=k.shape, p=float(k["p"]))


@kernel("_euclidean_dist")
def _euclidean_dist(k: Kernel) -> Value:
    x, y = k["x1"], k["x2"]
    x_norm, y_norm = (apply("square", v).sum((-1,)) for v in (x, y))
    ones = (v.const(np.ones((*v.shape[:-1], 1))) for v in (x, y))
    x_one, y_one = ones
    left = concat([x * -2.0, x_norm, x_one], -1)
    right = concat([y, y_one, y_norm], -1)
    return apply("sqrt", limited(matmul(left, transposed(right)), 0, None))


@kernel("_pdist_forward")
def _pdist(k: Kernel) -> Value:
    x = k["self"]
    rows, columns = np.triu_indices(x.shape[0], 1)
    width = x.shape[1]
    parts = [x.add("index", x.const(i, INT64), shape=(len(rows), width), axes=(-2,)) for i in (rows, columns)]
    difference = parts[0] - parts[1]
    norm: Value = difference.add("norm", shape=(len(rows), 1), dims=(-1,), ord=float(k["p"]))
    return norm


# ---------------------------------------------------------------- decompositions


@kernel("_linalg_det")
def _det(k: Kernel) -> tuple[Value, Value, Value]:
    x = k["A"]
    return x.add("det", shape=k.shape), k.unknown(1, x), k.unknown(2, x)


@kernel("_linalg_slogdet")
def _slogdet(k: Kernel) -> tuple[Value, Value, Value, Value]:
    x = k["A"]
    return k.unknown(0, x), x.add("slogabsdet", shape=k.out(1)[0]), k.unknown(2, x), k.unknown(3, x)


@kernel("linalg_inv_ex")
def _inverse(k: Kernel) -> tuple[Value, Value]:
    x = k["A"]
    return x.add("inverse"), k.unknown(1, x)


@kernel("linalg_cholesky_ex")
def _cholesky(k: Kernel) -> tuple[Value, Value]:
    x = k["self"]
    factor = x.add("cholesky")
    return transposed(factor) if k["upper"] else factor, k.unknown(1, x)


@kernel("_linalg_solve_ex")
def _solve(k: Kernel) -> tuple[Value, Value, Value, Value]:
    a, b = k["A"], k["B"]
    columns = b if b.ndim == a.ndim else b.reshape(*b.shape, 1)
    if not k["left"]:
        a, columns = transposed(a), transposed(columns)
    x = a.add("solve", columns, shape=columns.shape)
    return x if k["left"] else transposed(x), k.unknown(1, a), k.unknown(2, a), k.unknown(3, a)


@kernel("_linalg_eigh")
def _eigh(k: Kernel) -> tuple[Value, Value]:
    x = k["A"]
    return x.add("eigvalsh", shape=k.shape), k.unknown(1, x)


@kernel("_linalg_svd")
def _svd(k: Kernel) -> tuple[Value, Value, Value]:
    x = k["A"]
    return k.unknown(0, x), x.add("svdvals", shape=k.out(1)[0]), k.unknown(2, x)
