"""Sums, means, norms, extrema, cumulative operations, softmax and sorting."""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from whynan.frontends.kit import Value, apply, axis, cut, is_half, negative, reduce, where
from whynan.frontends.torch.lower._kernel import Kernel, format_of_dtype, kernel
from whynan.ir.dtype import FLOAT64, INT64

Axes = Sequence[int]
LONGEST_PRODUCT = 64


def _dims(k: Kernel, x: Value, name: str = "dim") -> tuple[int, ...]:
    return negative(k[name], x.ndim)


def _reduction(op: str, names: str, dim: str | None, cast: bool = True) -> None:
    @kernel(*names.split())
    def lowering(k: Kernel) -> Value:
        x = k.tensor("self").cast(k.format) if cast else k.tensor("self")
        return reduce(op, x, x.axes if dim is None else _dims(k, x, dim))


_reduction("sum", "sum", None)
_reduction("sum", "sum.dim_IntList", "dim")
_reduction("mean", "mean", None)
_reduction("mean", "mean.dim", "dim")
_reduction("amax", "max", None)
_reduction("amin", "min", None)
_reduction("amax", "amax", "dim")
_reduction("amin", "amin", "dim")
_reduction("any", "any _is_any_true", None, cast=False)
_reduction("any", "any.dim any.dims", "dim", cast=False)
_reduction("all", "all _is_all_true", None, cast=False)
_reduction("all", "all.dim all.dims", "dim", cast=False)


@kernel("prod", "prod.dim_int")
def _prod(k: Kernel) -> Value:
    x = k.tensor("self").cast(k.format)
    if not k.aten.name.startswith("prod.dim"):
        x = x.reshape(x.size)
    dim = axis(k["dim"], x.ndim) if k.aten.name.startswith("prod.dim") else -1
    if not x.ndim:
        return x
    return _half_product(k, x, dim) if is_half(x.format) else reduce("prod", x, (dim,))


def _half_product(k: Kernel, x: Value, dim: int) -> Value:
    """The kernel rounds every partial product to half; of a long axis we do not write them all out."""
    n = x.shape[dim]
    if not 0 < n <= LONGEST_PRODUCT:
        return k.unknown(0, x)
    total = cut(x, dim, 0, 1)
    for i in range(1, n):
        total = total * cut(x, dim, i, 1)
    return total


@kernel("nansum")
def _nansum(k: Kernel) -> Value:
    x = k.tensor("self").cast(k.format)
    return where(apply("isnan", x), 0, x).sum(_dims(k, x))


@kernel("count_nonzero", "count_nonzero.dim_IntList")
def _count_nonzero(k: Kernel) -> Value:
    x = k.tensor("self")
    dims = x.axes if k.aten.name.endswith("default") and k["dim"] is None else _dims(k, x)
    return reduce("count_nonzero", x, dims, INT64)


@kernel("max.dim", "min.dim")
def _extremum(k: Kernel) -> tuple[Value, Value]:
    x = k.tensor("self")
    dims = _dims(k, x)
    kind = k.aten.name[:3]
    return reduce(f"a{kind}", x, dims), _index(f"arg{kind}", x, dims)


def _index(op: str, x: Value, dims: tuple[int, ...]) -> Value:
    return reduce(op, x, dims, INT64) if dims else x.const(0, INT64)


@kernel("argmax", "argmin")
def _argument(k: Kernel) -> Value:
    x, op = k.tensor("self"), k.aten.name[:6]
    if k["dim"] is None:
        x = x.reshape(x.size)
        return _index(op, x, (-1,))
    return _index(op, x, _dims(k, x))


@kernel("aminmax")
def _aminmax(k: Kernel) -> tuple[Value, Value]:
    x = k.tensor("self")
    dims = _dims(k, x)
    return reduce("amin", x, dims), reduce("amax", x, dims)


@kernel("logsumexp")
def _logsumexp(k: Kernel) -> Value:
    x = k.tensor("self").cast(k.format)
    return reduce("logsumexp", x, _dims(k, x))


# ---------------------------------------------------------------- norms and variances


def norm(x: Value, order: float, dims: Axes) -> Value:
    """A vector norm; of a single element it is the absolute value, as in the kernel, which then cannot overflow.

    A value without dimensions that is reduced along "its" axis (`dims` are then not of x) has powers taken none the less.
    """
    if not x.ndim and dims:
        return reduce("norm", x.reshape(1), (-1,), ord=float(order))
    if all(x.shape[d] == 1 for d in dims) and order != 0:
        return apply("abs", x)
    return reduce("norm", x, dims, ord=float(order))


@kernel("linalg_vector_norm")
def _vector_norm(k: Kernel) -> Value:
    x = k.tensor("self") if k["dtype"] is None else k.tensor("self").cast(format_of_dtype(k["dtype"]))
    return norm(x, k["ord"], _named(k, x))


def _named(k: Kernel, x: Value) -> tuple[int, ...]:
    """The axes of a norm; (-1,) where one is named of a value that has none."""
    return _dims(k, x) if x.ndim or not k["dim"] else (-1,)


@kernel("norm.Scalar", "norm.ScalarOpt_dim", "norm.ScalarOpt_dim_dtype", "norm.ScalarOpt_dtype")
def _norm(k: Kernel) -> Value:
    x = k.tensor("self").cast(k.format)
    dims = _named(k, x) if "_dim" in k.aten.name else x.axes
    return norm(x, 2 if k["p"] is None else k["p"], dims)


@kernel("dist")
def _dist(k: Kernel) -> Value:
    difference = k.tensor("self") - k["other"]
    return norm(difference, k["p"], difference.axes)


def _variance(k: Kernel) -> tuple[Value, Value]:
    """The variance and the value it is of."""
    x = k.tensor("self")
    correction = k["correction"]
    return reduce("var", x, _dims(k, x), correction=float(1 if correction is None else correction)), x


@kernel("var.correction")
def _var(k: Kernel) -> Value:
    return _variance(k)[0]


@kernel("std.correction")
def _std(k: Kernel) -> Value:
    return apply("sqrt", _wide_variance(k)).cast(k.format)


@kernel("var_mean.correction")
def _var_mean(k: Kernel) -> tuple[Value, Value]:
    variance, x = _variance(k)
    return variance, reduce("mean", x, _dims(k, x))


@kernel("std_mean.correction")
def _std_mean(k: Kernel) -> tuple[Value, Value]:
    x = k.tensor("self")
    return apply("sqrt", _wide_variance(k)).cast(k.format), reduce("mean", x, _dims(k, x))


def _wide_variance(k: Kernel) -> Value:
    """The variance before its root, in the kernel's accumulator: only the root is rounded to the result's format.

    The accumulator is a double for every format (WelfordOps in ATen), so the square of a tiny deviation does not underflow. Of all elements
    together the mean is taken first, in their own format (std_var_all_cpu): its error, or its overflow, is in every deviation.
    """
    x = k.tensor("self")
    correction, dims = k["correction"], _dims(k, x)
    alone: dict[str, Any] = {"mean": x.format.name} if not is_half(x.format) and prod(k.shape) == 1 else {}
    return reduce("var", x.cast(FLOAT64), dims, correction=float(1 if correction is None else correction), **alone)


# ---------------------------------------------------------------- softmax


@kernel("_softmax", "_safe_softmax")
def _softmax(k: Kernel) -> Value:
    x = k.tensor("self").cast(k.format)
    y = x.add("softmax", dim=axis(k["dim"], x.ndim)) if x.ndim else x * 0 + 1
    if not k.aten.name.startswith("_safe"):
        return y
    masked = reduce("all", apply("eq", x, -np.inf), (axis(k["dim"], x.ndim),))
    return where(masked, 0, y)


@kernel("_log_softmax")
def _log_softmax(k: Kernel) -> Value:
    x = k.tensor("self").cast(k.format)
    return x.add("log_softmax", dim=axis(k["dim"], x.ndim)) if x.ndim else x - x


@kernel("_softmax_backward_data")
def _softmax_backward(k: Kernel) -> Value:
    g, y = k.tensor("grad_output").up(), k.tensor("output").up()
    dims = (axis(k["dim"], y.ndim),) if y.ndim else ()
    return (g - (g * y).sum(dims)) * y


@kernel("_log_softmax_backward_data")
def _log_softmax_backward(k: Kernel) -> Value:
    g, y = k.tensor("grad_output").up(), k.tensor("output").up()
    dims = (axis(k["dim"], y.ndim),) if y.ndim else ()
    return g - apply("exp", y) * g.sum(dims)


# ---------------------------------------------------------------- cumulative operations


def _cumulative(op: str) -> None:
    @kernel(op)
    def lowering(k: Kernel) -> Value:
        x = k.tensor("self").cast(k.format)
        return x.add(op, dim=axis(k["dim"], x.ndim)) if x.ndim else x


for _name in ("cumsum", "cumprod", "logcumsumexp"):
    _cumulative(_name)


@kernel("cummax", "cummin")
def _cummax(k: Kernel) -> tuple[Value, Value]:
    x = k.tensor("self")
    return x.add(k.aten.name[:6], dim=axis(k["dim"], x.ndim)), k.unknown(1, x, what=f"{k.aten.name}.indices")


# ---------------------------------------------------------------- order


@kernel("sort", "sort.stable")
def _sort(k: Kernel) -> tuple[Value, Value]:
    x = k.tensor("self")
    attrs: dict[str, Any] = {"dim": axis(k["dim"], x.ndim), "descending": bool(k["descending"])}
    if not x.ndim:
        return x, x.const(0, INT64)
    return x.add("sort_values", **attrs), x.add("sort_indices", fmt=INT64, **attrs)


@kernel("argsort", "argsort.stable")
def _argsort(k: Kernel) -> Value:
    x: Value = k.tensor("self")
    return x.add("sort_indices", fmt=INT64, dim=axis(k["dim"], x.ndim), descending=bool(k["descending"]))


@kernel("topk")
def _topk(k: Kernel) -> tuple[Value, Value]:
    x = k.tensor("self")
    shape = k.shape
    attrs: dict[str, Any] = {"dim": axis(k["dim"], x.ndim), "k": k["k"], "largest": bool(k["largest"])}
    if not k["sorted"]:
        attrs["sorted"] = False
    if not x.ndim:
        return x, x.const(0, INT64)
    return x.add("topk_values", shape=shape, **attrs), x.add("topk_indices", shape=shape, fmt=INT64, **attrs)


def _kth(x: Value, dim: int, k: int) -> tuple[Value, Value]:
    """The k-th smallest value along an axis, counted from 1, and its index."""
    shape = [1 if i - x.ndim == dim else n for i, n in enumerate(x.shape)]
    order = x.add("sort_indices", fmt=INT64, dim=dim, descending=False)
    return x.add("kth", shape=shape, dim=dim, k=k), cut(order, dim, k - 1, 1)


@kernel("kthvalue")
def _kthvalue(k: Kernel) -> tuple[Value, Value]:
    x = k.tensor("self")
    return _kth(x, axis(k["dim"], x.ndim), k["k"]) if x.ndim else (x, x.const(0, INT64))


@kernel("median.dim")
def _median_dim(k: Kernel) -> tuple[Value, Value]:
    x = k.tensor("self")
    if not x.ndim:
        return x, x.const(0, INT64)
    dim = axis(k["dim"], x.ndim)
    value, index = _kth(x, dim, (x.shape[dim] + 1) // 2)
    return _nan_if_any(x, value, (dim,)), index


@kernel("median")
def _median(k: Kernel) -> Value:
    x = k.tensor("self").reshape(k.tensor("self").size)
    return _nan_if_any(x, _kth(x, -1, (x.size + 1) // 2)[0], (-1,))


def _nan_if_any(x: Value, value: Value, dims: Axes) -> Value:
    """A median is NaN if one of the values is."""
    return where(reduce("any", apply("isnan", x), dims), np.nan, value) if x.format.is_float else value
