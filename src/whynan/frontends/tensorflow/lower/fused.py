"""Normalisation with one kernel, and what Grappler fuses: products with biases and activations, chains of functions."""

from collections.abc import Callable, Iterator

from whynan.frontends.kit import Value, apply, reduce
from whynan.frontends.tensorflow.lower._kernel import Kernel, NotLowered, kernel
from whynan.frontends.tensorflow.lower._table import SPELLINGS, TfOp
from whynan.frontends.tensorflow.lower.exponential import elu, leaky_relu, sigmoid
from whynan.frontends.tensorflow.lower.linalg import along_channels, channels_first, product
from whynan.frontends.tensorflow.lower.window import convolution

# ---------------------------------------------------------------- batch normalisation


def _channel_axes(k: Kernel, x: Value) -> tuple[int, ...]:
    """All axes but that of the channels."""
    channel = 1 - x.ndim if channels_first(k) else -1
    return tuple(a for a in x.axes if a != channel)


def _scale(variance: Value, epsilon: float) -> Value:
    return apply("rsqrt", variance + epsilon, ulps=3)


def _epsilon(k: Kernel) -> float:
    return float(k.attr("epsilon", 1e-4))


@kernel("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
def _batch_norm(k: Kernel) -> list[Value | None]:
    """Results: y, the batch's mean and variance, the same again for the gradient, and one that is not used."""
    x = k[0].up()
    scale, offset, mean, variance = (along_channels(k, v, x.ndim) for v in k.inputs[1:5])
    if not k.attr("is_training", True):
        y = (x - mean) * (_scale(variance, _epsilon(k)) * scale) + offset
        return [y, k[3], k[4], k[3], k[4], *_unused(k, 5)]
    axes = _channel_axes(k, x)
    n = x.size // k[1].size
    mean = reduce("mean", x, axes)
    centered = x - mean
    variance = reduce("mean", apply("square", centered), axes)
    y = centered * (_scale(variance, _epsilon(k)) * scale) + offset
    unbiased = variance * (n / (n - 1)) if n > 1 else variance
    return [y, mean, unbiased, mean, variance, *_unused(k, 5)]


@kernel("_FusedBatchNormEx")
def _batch_norm_and_more(k: Kernel) -> list[Value | None]:
    """Batch normalisation, the sum with a further input if there is one, and an activation."""
    y, *rest = _batch_norm(k)
    if y is None:
        raise NotLowered(k.op.type)
    for side in k.inputs[5:]:
        y = y + side
    mode = str(k.attr("activation_mode", "Identity"))
    if mode not in ("Identity", "Relu"):
        raise NotLowered(k.op.type)
    return [apply("relu", y) if mode == "Relu" else y, *rest]


def _unused(k: Kernel, first: int) -> list[Value | None]:
    return list(k.unknown()[first:])


@kernel("FusedBatchNormGrad", "FusedBatchNormGradV2", "FusedBatchNormGradV3")
def _batch_norm_grad(k: Kernel) -> list[Value | None]:
    g, x = k[0].up(), k[1].up()
    scale, mean, variance = (along_channels(k, v, x.ndim) for v in k.inputs[2:5])
    axes = _channel_axes(k, x)
    inverse, centered = _scale(variance, _epsilon(k)), x - mean
    by_scale, by_offset = (g * (centered * inverse)).sum(axes), g.sum(axes)
    if not k.attr("is_training", True):
        return [g * (inverse * scale), by_scale, by_offset, *_unused(k, 3)]
    slope = apply("square", inverse) * reduce("mean", g * centered, axes)
    by_x = scale * inverse * (g - reduce("mean", g, axes) - centered * slope)
    return [by_x, by_scale, by_offset, *_unused(k, 3)]


# ---------------------------------------------------------------- what follows a product

_ACTIVATIONS: dict[str, Callable[[Value], Value]] = {
    "Relu": lambda x: apply("relu", x),
    "Relu6": lambda x: apply("clamp", x, low=0.0, high=6.0),
    "Elu": elu,
    "Tanh": lambda x: apply("tanh", x),
    "Sigmoid": sigmoid,
    "GeluApproximate": lambda x: apply("gelu", x, approximate="tanh"),
    "GeluExact": lambda x: apply("gelu", x, approximate="none"),
}


def _finished(k: Kernel, x: Value) -> Value:
    """What a fused op does after its product, in order: each step takes its own further inputs."""
    more: Iterator[Value] = iter(k.inputs[2:])
    for step in k.attr("fused_ops", ()):
        if step == "BiasAdd":
            x = x + along_channels(k, next(more), x.ndim)
        elif step == "Add":
            x = x + next(more)
        elif step == "LeakyRelu":
            x = leaky_relu(x, float(k.attr("leakyrelu_alpha", 0.2)))
        elif step == "FusedBatchNorm":
            scale, offset, mean, variance = (along_channels(k, next(more), x.ndim) for _ in range(4))
            x = (x - mean) * (_scale(variance, _epsilon(k)) * scale) + offset
        elif step in _ACTIVATIONS:
            x = _ACTIVATIONS[step](x)
        else:
            raise NotLowered(step)
    return x


@kernel("_FusedMatMul")
def _fused_matmul(k: Kernel) -> Value:
    return _finished(k, product(k, "transpose_a", "transpose_b"))


@kernel("_FusedConv2D", "_FusedDepthwiseConv2dNative")
def _fused_convolution(k: Kernel) -> Value:
    return _finished(k, convolution(k))


@kernel("_UnaryOpsComposition")
def _chain(k: Kernel) -> Value:
    """Functions of one variable, one after the other."""
    x = k[0].id
    for name in k.attr("op_names", ()):
        if name not in SPELLINGS:
            raise NotLowered(name)
        (result,) = SPELLINGS[name](k.builder, TfOp(name, (x,), (None,), {}, (k.out(0),), (None,)))
        if result is None:
            raise NotLowered(name)
        x = result
    return Value(k.builder, x)
