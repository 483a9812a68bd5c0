"""Layer, batch and group normalisation, weight normalisation, and their gradients."""

from collections.abc import Sequence

import numpy as np

from whynan.frontends.kit import Value, apply, contracted, reduce, zeros
from whynan.frontends.torch.lower._kernel import Kernel, kernel
from whynan.ir.dtype import BFLOAT16


def _rstd(x: Value, dims: Sequence[int], eps: float) -> Value:
    """One over the standard deviation, with eps under the root as the format rounds it."""
    variance = reduce("var", x, dims, correction=0.0)
    return 1 / apply("sqrt", variance + eps)


def _affine(x: Value, weight: Value | None, bias: Value | None, shape: Sequence[int]) -> Value:
    """x * weight + bias, the two laid out in a shape that broadcasts against x."""
    if weight is None or bias is None:
        x = x if weight is None else x * weight.up().reshape(*shape)
        return x if bias is None else x + bias.up().reshape(*shape)
    weight, bias = weight.up().reshape(*shape), bias.up().reshape(*shape)
    return contracted(x * weight + bias, x, weight, bias)


def _scaled(x: Value, mean: Value, rstd: Value, weight: Value | None, bias: Value | None, shape: Sequence[int]) -> Value:
    """(x - mean) * rstd * weight + bias as x * scale + (bias - mean * scale): so x, not its distance from the mean, is rounded."""
    scale = rstd if weight is None else rstd * weight.up().reshape(*shape)
    shift = -mean * scale
    if bias is not None:
        bias = bias.up().reshape(*shape)
        shift = contracted(shift + bias, -mean, scale, bias)
    return contracted(x * scale + shift, x, scale, shift)


# ---------------------------------------------------------------- layer norm


@kernel("native_layer_norm")
def _layer_norm(k: Kernel) -> tuple[Value, Value, Value]:
    x, inner = k.tensor("input").up(), tuple(k["normalized_shape"])
    dims = tuple(range(-len(inner), 0))
    mean = reduce("mean", x, dims)
    rstd = _rstd(x, dims, k["eps"])
    return _affine((x - mean) * rstd, k["weight"], k["bias"], inner), mean, rstd


@kernel("native_layer_norm_backward")
def _layer_norm_backward(k: Kernel) -> tuple[Value | None, Value | None, Value | None]:
    g, x, weight = k.tensor("grad_out").up(), k.tensor("input").up(), k["weight"]
    mean, rstd = k["mean"].up(), k["rstd"].up()
    inner = tuple(k["normalized_shape"])
    dims = tuple(range(-len(inner), 0))
    outer = tuple(range(-x.ndim, -len(inner)))
    by_input, by_weight, by_bias = k["output_mask"]
    return (
        _layer_gradient(g if weight is None else g * weight.up(), x, mean, rstd, dims) if by_input else None,
        (g * (x - mean) * rstd).sum(outer) if by_weight else None,
        g.sum(outer) if by_bias else None,
    )


def _layer_gradient(g: Value, x: Value, mean: Value, rstd: Value, dims: Sequence[int]) -> Value:
    """The kernel's a * g + b * x + c, whose rstd ** 3 overflows where the variance and eps are tiny."""
    share = 1 / np.prod([x.shape[d] for d in dims])
    ds, db = (g * x).sum(dims), g.sum(dims)
    b = (db * mean - ds) * rstd * rstd * rstd * float(share)
    c = -b * mean - db * rstd * float(share)
    return rstd * g + b * x + c


@kernel("_fused_rms_norm")
def _rms_norm(k: Kernel) -> tuple[Value, Value]:
    x, inner = k.tensor("input").up(), tuple(k["normalized_shape"])
    dims = tuple(range(-len(inner), 0))
    eps = k["eps"] if k["eps"] is not None else k.tensor("input").format.eps
    rstd = apply("rsqrt", reduce("mean", apply("square", x), dims) + eps)
    return _affine(x * rstd, k["weight"], None, inner), rstd


# ---------------------------------------------------------------- batch norm


def _channels(x: Value) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """All axes but that of the channels, and the shape of one number per channel."""
    channel = 1 - x.ndim
    return tuple(d for d in x.axes if d != channel), tuple(n if d == channel else 1 for d, n in zip(x.axes, x.shape, strict=True))


def _batch_norm(k: Kernel, mean: Value | None, variance: Value | None, training: bool) -> list[Value]:
    x = k.tensor("input").up()
    dims, shape = _channels(x)
    if training:
        center, invstd = _statistics(k, x, dims)
        saved = [center, invstd]
    else:
        assert mean is not None, k.aten.name
        assert variance is not None, k.aten.name
        center = mean.up().reshape(*shape)
        invstd = 1 / apply("sqrt", variance.up().reshape(*shape) + k["eps"])
        saved = [zeros(x, k.out(i)[0]) for i in (1, 2)]
    return [_scaled(x, center, invstd, k["weight"], k["bias"], shape), *saved]


def _statistics(k: Kernel, x: Value, dims: tuple[int, ...]) -> tuple[Value, Value]:
    """The mean and one over the standard deviation, as saved: in the weights' format; in bfloat16 the variance is rounded before."""
    fmt = next((v.format for v in (k["weight"], k["bias"], k["running_mean"]) if isinstance(v, Value)), k.format)
    variance = reduce("var", x, dims, correction=0.0)
    if fmt is BFLOAT16:
        variance = variance.add("cast", fmt=fmt, ulps=1).up()
    invstd = 1 / apply("sqrt", variance + k["eps"])
    return reduce("mean", x, dims).cast(fmt).cast(x.format), invstd.cast(fmt).cast(x.format)


@kernel("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_functional")
def _batch_norm_with_stats(k: Kernel) -> list[Value | None]:
    results = _batch_norm(k, k["running_mean"], k["running_var"], k["training"])
    return [*results, *(k.unknown(i, results[0]) for i in range(3, len(k.aten.outputs)))]


@kernel("_native_batch_norm_legit.no_stats")
def _batch_norm_without_stats(k: Kernel) -> list[Value]:
    return _batch_norm(k, None, None, True)


@kernel("_native_batch_norm_legit_no_training")
def _batch_norm_in_evaluation(k: Kernel) -> list[Value]:
    return _batch_norm(k, k["running_mean"], k["running_var"], False)


@kernel("native_batch_norm_backward")
def _batch_norm_backward(k: Kernel) -> tuple[Value | None, Value | None, Value | None]:
    g, x, weight, training = k.tensor("grad_out").up(), k.tensor("input").up(), k["weight"], k["train"]
    dims, shape = _channels(x)
    if training:
        mean, invstd = k["save_mean"].up().reshape(*shape), k["save_invstd"].up().reshape(*shape)
    else:
        mean = k["running_mean"].up().reshape(*shape)
        invstd = 1 / apply("sqrt", k["running_var"].up().reshape(*shape) + k["eps"])
    n = x.size // x.shape[1]
    total, dot = g.sum(dims), ((x - mean) * g).sum(dims)
    centered = g - total / n - (x - mean) * (dot * invstd * invstd / n) if training else g
    by_input, by_weight, by_bias = k["output_mask"]
    return (
        _affine(centered * invstd, weight, None, shape) if by_input else None,
        dot * invstd if by_weight else None,
        total if by_bias else None,
    )


# ---------------------------------------------------------------- group norm


def _grouped(k: Kernel, x: Value) -> Value:
    """Batch, group, channels of the group, positions."""
    n, c, groups = k["N"], k["C"], k["group"]
    return x.up().reshape(n, groups, c // groups, k["HxW"])


def _channel_shape(k: Kernel) -> tuple[int, ...]:
    return (1, k["group"], k["C"] // k["group"], 1)


@kernel("native_group_norm")
def _group_norm(k: Kernel) -> tuple[Value, Value, Value]:
    x = _grouped(k, k.tensor("input"))
    mean, rstd = reduce("mean", x, (-2, -1)), _rstd(x, (-2, -1), k["eps"])
    return _scaled(x, mean, rstd, k["weight"], k["bias"], _channel_shape(k)), mean, rstd


@kernel("native_group_norm_backward")
def _group_norm_backward(k: Kernel) -> tuple[Value | None, Value | None, Value | None]:
    g, x = _grouped(k, k.tensor("grad_out")), _grouped(k, k.tensor("input"))
    mean, rstd = (k[name].up().reshape(k["N"], k["group"], 1, 1) for name in ("mean", "rstd"))
    by_input, by_weight, by_bias = k["output_mask"]
    weighted = _affine(g, k["weight"], None, _channel_shape(k))
    return (
        _layer_gradient(weighted, x, mean, rstd, (-2, -1)) if by_input else None,
        (g * (x - mean) * rstd).sum((-4, -1)) if by_weight else None,
        g.sum((-4, -1)) if by_bias else None,
    )


# ---------------------------------------------------------------- weight norm


def _other_axes(v: Value, dim: int) -> tuple[int, ...]:
    kept = dim if dim < 0 else dim - v.ndim
    return tuple(d for d in v.axes if d != kept)


@kernel("_weight_norm_interface")
def _weight_norm(k: Kernel) -> tuple[Value, Value]:
    v, g = k.tensor("v").up(), k.tensor("g").up()
    norm = apply("sqrt", apply("square", v).sum(_other_axes(v, k["dim"])))
    return v * (g.reshape(*norm.shape) / norm), norm


@kernel("_weight_norm_interface_backward")
def _weight_norm_backward(k: Kernel) -> tuple[Value, Value]:
    w, v, g = k.tensor("grad_w").up(), k.tensor("saved_v").up(), k.tensor("saved_g").up()
    norm = k.tensor("saved_norms").up()
    total = (w * v).sum(_other_axes(v, k["dim"]))
    norm, g = norm.reshape(*total.shape), g.reshape(*total.shape)
    by_length = total / norm
    a = g / norm
    return a * w - (a * by_length / norm) * v, by_length
