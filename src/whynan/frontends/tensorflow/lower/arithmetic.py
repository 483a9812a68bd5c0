"""Addition, multiplication, division, powers, roots, rounding, minimum and maximum, and the gradients that have kernels."""

import functools

from whynan.frontends.kit import Value, apply, product, where
from whynan.frontends.tensorflow.lower._kernel import Kernel, kernel, unary
from whynan.ir.dtype import FLOAT64

# Vectorised kernels refine an approximate reciprocal instead of dividing, the last elements of an array divide: 1/1 may be 1 - 2**-24.
# In the same way the two kinds of kernel multiply the factors of a gradient in different orders.
VECTOR_ULPS = 3
HUGE = 1e31

unary("add", "Add", "AddV2")
unary("sub", "Sub")
unary("maximum", "Maximum")
unary("minimum", "Minimum")
unary("neg", "Neg")
unary("abs", "Abs")
unary("sign", "Sign")
unary("square", "Square")
unary("sqrt", "Sqrt")
unary("floor", "Floor")
unary("ceil", "Ceil")
unary("round", "Round", "Rint")


@kernel("Mul")
def _mul(k: Kernel) -> Value:
    return product(k[0], k[1])


@kernel("RealDiv")
def _real_div(k: Kernel) -> Value:
    return apply("div", k[0], k[1])


@kernel("Div", "TruncateDiv")
def _div(k: Kernel) -> Value:
    """Of integers the quotient rounded towards zero."""
    return apply("div", k[0], k[1]) if k.format.is_float else apply("trunc", apply("div", k[0].cast(FLOAT64), k[1].cast(FLOAT64)))


@kernel("FloorDiv")
def _floor_div(k: Kernel) -> Value:
    return apply("floor", k[0] / k[1]) if k.format.is_float else apply("floor_divide", k[0], k[1])


unary("remainder", "FloorMod")
unary("fmod", "Mod", "TruncateMod")


@kernel("DivNoNan")
def _div_no_nan(k: Kernel) -> Value:
    return where(apply("eq", k[1], 0), 0, k[0] / k[1])


@kernel("MulNoNan")
def _mul_no_nan(k: Kernel) -> Value:
    return where(apply("eq", k[1], 0), 0, k[0] * k[1])


@kernel("Xdivy")
def _xdivy(k: Kernel) -> Value:
    return where(apply("eq", k[0], 0), k[0], k[0] / k[1])


unary("xlogy", "Xlogy")
unary("xlog1py", "Xlog1py")


@kernel("AddN", "AccumulateNV2")
def _add_n(k: Kernel) -> Value:
    return functools.reduce(lambda a, b: a + b, k.inputs)


@kernel("SquaredDifference")
def _squared_difference(k: Kernel) -> Value:
    return apply("square", k[0] - k[1])


@kernel("Pow")
def _pow(k: Kernel) -> Value:
    """The error of the vectorised float64 kernel grows with the exponent times the logarithm, to some 700 ulps."""
    return apply("pow", k[0], k[1], ulps=1024) if k.format.name == "float64" else apply("pow", k[0], k[1])


@kernel("ClipByValue")
def _clip(k: Kernel) -> Value:
    """A limit that is NaN limits nothing."""
    x, low, high = k.inputs
    y = where(apply("isnan", high), x, apply("minimum", x, high))
    return where(apply("isnan", low), y, apply("maximum", y, low))


# ---------------------------------------------------------------- reciprocals and roots


@kernel("Reciprocal", "Inv")
def _reciprocal(k: Kernel) -> Value:
    """Of a huge float32 number the approximation stays unrefined: 3e-4 of the result."""
    x = k[0]
    if x.format.name == "float64" or not x.format.is_float:
        return apply("reciprocal", x)
    y = apply("reciprocal", x, ulps=VECTOR_ULPS)
    return where(apply("abs", x) > HUGE, apply("reciprocal", x, ulps=1 << 13), y) if x.format.name == "float32" else y


@kernel("Rsqrt")
def _rsqrt(k: Kernel) -> Value:
    return apply("rsqrt", k[0], ulps=VECTOR_ULPS)


def _unless_zero(g: Value, slope: Value) -> Value:
    """The kernels give 0 for a cotangent of 0, whatever the slope is: no 0 * inf."""
    return where(apply("eq", g, 0), 0, slope)


@kernel("ReciprocalGrad", "InvGrad")
def _reciprocal_grad(k: Kernel) -> Value:
    y, g = k[0], k[1]
    return _unless_zero(g, -apply("square", y) * g)


@kernel("SqrtGrad")
def _sqrt_grad(k: Kernel) -> Value:
    y, g = k[0], k[1]
    return _unless_zero(g, apply("mul", g, 0.5 / y, ulps=VECTOR_ULPS))


@kernel("RsqrtGrad")
def _rsqrt_grad(k: Kernel) -> Value:
    y, g = k[0], k[1]
    return _unless_zero(g, -0.5 * (g * y) * apply("square", y))
