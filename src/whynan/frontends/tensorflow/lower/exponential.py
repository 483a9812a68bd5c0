"""Exponentials, logarithms, trigonometry, special functions, activations, and the gradients that have kernels."""

import math

import numpy as np

from whynan.frontends.kit import Value, apply, is_half, where
from whynan.frontends.tensorflow.lower._kernel import Kernel, NotLowered, kernel, unary
from whynan.frontends.tensorflow.lower.arithmetic import VECTOR_ULPS
from whynan.ir.dtype import Format, nearest

for _type in "Exp Expm1 Log Log1p Tanh Sin Cos Tan Sinh Cosh Asin Acos Atan Asinh Acosh Atanh Lgamma Atan2".split():
    unary(_type.lower(), _type)
unary("i0e", "BesselI0e")
unary("i1e", "BesselI1e")


@kernel("Sigmoid")
def _sigmoid(k: Kernel) -> Value:
    return sigmoid(k[0])


def sigmoid(x: Value) -> Value:
    """1 / (1 + exp(-x)), of which every step is rounded in the half formats."""
    return apply("sigmoid", x, ulps=2) if is_half(x.format) else apply("sigmoid", x)


@kernel("Erfc")
def _erfc(k: Kernel) -> Value:
    """Far out the vectorised kernels lose as many digits as the square of x has before the point: 64 ulps, 500 in float64."""
    extra = {"float32": 128, "float64": 1024}.get(k.format.name)
    return apply("erfc", k[0], ulps=extra) if extra else apply("erfc", k[0])


ERF_LIMIT = 1e150  # beyond it the square in the float64 kernel may overflow, and the result is NaN


@kernel("Erf")
def _erf(k: Kernel) -> Value:
    x, y = k[0], apply("erf", k[0])
    return where(apply("abs", x) > ERF_LIMIT, math.nan, y) if x.format.name == "float64" else y


@kernel("Erfinv")
def _erfinv(k: Kernel) -> Value:
    """The kernel takes the normal quantile of (x + 1) / 2, which is rounded: results near zero are accurate to eps only."""
    return apply("erfinv", (k[0] + 1) - 1, ulps=8)


@kernel("Digamma")
def _digamma(k: Kernel) -> Value:
    """NaN at the poles, zero among them."""
    x = k[0]
    pole = (x <= 0) & apply("eq", apply("floor", x), x)
    return where(pole, math.nan, apply("digamma", x))


FAR = 1e15  # where the trigamma function is 1 / x to all digits


@kernel("Polygamma", structural=(0,))
def _polygamma(k: Kernel) -> Value:
    """The trigamma function; the kernel has it as x * x**-2 far out, where the power underflows. Others are not known."""
    if not (k.value(0) == 1).all():
        raise NotLowered(k.op.type)
    x = k[1].expand(k.shape)
    far = apply("mul", apply("square", 1 / x), apply("clamp", x, low=None, high=x.format.max), ulps=8)
    return where(x > FAR, far, apply("trigamma", x, ulps=64))


@kernel("BesselI0")
def _bessel_i0(k: Kernel) -> Value:
    x = k[0].up()
    return apply("exp", apply("abs", x)) * apply("i0e", x)


@kernel("BesselI1")
def _bessel_i1(k: Kernel) -> Value:
    x = k[0].up()
    return apply("exp", apply("abs", x)) * apply("i1e", x)


@kernel("SigmoidGrad")
def _sigmoid_grad(k: Kernel) -> Value:
    """The last elements of an array are computed in another order: g * y * (1 - y)."""
    y, g = k[0], k[1]
    return apply("mul", g, (1 - y) * y, ulps=VECTOR_ULPS)


@kernel("TanhGrad")
def _tanh_grad(k: Kernel) -> Value:
    y, g = k[0], k[1]
    return g * (1 - y * y)


# ---------------------------------------------------------------- softplus, softsign


@kernel("Softplus")
def _softplus(k: Kernel) -> Value:
    """Beyond a threshold x itself, below its negative exp(x)."""
    x, threshold = k[0], -_softplus_edge(k[0].format)
    if not is_half(x.format):
        return apply("softplus", x, beta=1.0, threshold=threshold, ulps=VECTOR_ULPS)
    e = apply("exp", x)
    return where(x > threshold, x, where(x < -threshold, e, apply("log1p", e)))


def _softplus_edge(fmt: Format) -> float:
    """log(eps) + 2, rounded as the kernel rounds it; what the kernel's library takes for the eps of float16 is 2**-13."""
    eps = 2.0**-13 if fmt.name == "float16" else fmt.eps
    return float(nearest(fmt, float(nearest(fmt, math.log(eps))) + 2))


@kernel("SoftplusGrad")
def _softplus_grad(k: Kernel) -> Value:
    g, x = k[0], k[1]
    return g / (apply("exp", -x) + 1)


@kernel("Softsign")
def _softsign(k: Kernel) -> Value:
    return k[0] / (apply("abs", k[0]) + 1)


@kernel("SoftsignGrad")
def _softsign_grad(k: Kernel) -> Value:
    g, x = k[0], k[1]
    return g / apply("square", apply("abs", x) + 1)


# ---------------------------------------------------------------- elu, selu, relu

_SCALE = 1.0507009873554804934193349852946
_SCALE_ALPHA = 1.7580993408473768599402175208123


def elu(x: Value) -> Value:
    """exp(x) - 1 in so many words, which is 0 for an x near 0."""
    return where(x < 0, apply("exp", x) - 1, x)


@kernel("Elu")
def _elu(k: Kernel) -> Value:
    return elu(k[0])


@kernel("EluGrad")
def _elu_grad(k: Kernel) -> Value:
    g, y = k[0], k[1]
    return where(y < 0, (y + 1) * g, g)


@kernel("Selu")
def _selu(k: Kernel) -> Value:
    x = k[0]
    return where(x < 0, (apply("exp", x) - 1) * _SCALE_ALPHA, x * _SCALE)


@kernel("SeluGrad")
def _selu_grad(k: Kernel) -> Value:
    g, y = k[0], k[1]
    return where(y < 0, g * (y + _SCALE_ALPHA), g * _SCALE)


@kernel("Relu")
def _relu(k: Kernel) -> Value:
    return apply("relu", k[0])


@kernel("Relu6")
def _relu6(k: Kernel) -> Value:
    return apply("clamp", k[0], low=0.0, high=6.0)


def leaky_relu(x: Value, alpha: float) -> Value:
    """x above zero, alpha * x below; the attribute alpha is a float32 whatever x is."""
    return where(x > 0, x, x * float(np.float32(alpha)))


@kernel("LeakyRelu")
def _leaky_relu(k: Kernel) -> Value:
    return leaky_relu(k[0], float(k.attr("alpha", 0.2)))


@kernel("ReluGrad")
def _relu_grad(k: Kernel) -> Value:
    """The kernel multiplies by 0 or 1, so that an infinite cotangent gives NaN where x <= 0."""
    g, x = k[0], k[1]
    return g * (x > 0).cast(g.format)


@kernel("Relu6Grad")
def _relu6_grad(k: Kernel) -> Value:
    g, x = k[0], k[1]
    return g * ((x > 0) & (x < 6)).cast(g.format)


@kernel("LeakyReluGrad")
def _leaky_relu_grad(k: Kernel) -> Value:
    g, x = k[0], k[1]
    return where(x > 0, g, g * float(np.float32(k.attr("alpha", 0.2))))
