"""Exponentials, logarithms, trigonometry, special functions and the activations made of them."""

import math

import numpy as np

from whynan.frontends.kit import Value, apply, axis, concat, contracted, cut, narrow_or_wide, where
from whynan.frontends.torch.lower._kernel import Kernel, kernel
from whynan.frontends.torch.lower.arithmetic import limited, rounded

_SAME = (
    "exp exp2 expm1 log log2 log10 log1p sigmoid tanh sin cos tan sinh cosh asin acos atan asinh acosh atanh "
    "erf erfc erfinv lgamma digamma sinc i0 silu mish"
)
_RENAMED = {"special_i0e": "i0e", "special_i1": "i1", "special_i1e": "i1e", "special_entr": "entr"}


def _unary(op: str, name: str) -> None:
    @kernel(name)
    def lowering(k: Kernel) -> Value:
        return apply(op, k.tensor("self").cast(k.format))


def _binary(op: str, *names: str) -> None:
    @kernel(*names)
    def lowering(k: Kernel) -> Value:
        return apply(op, *rounded(k, k["self"], k["other"]))


for _name in _SAME.split():
    _unary(_name, _name)
for _name, _op in _RENAMED.items():
    _unary(_op, _name)
_binary("atan2", "atan2")
_binary("logaddexp", "logaddexp")
_binary("logaddexp2", "logaddexp2")
_binary("xlogy", "xlogy.Tensor", "xlogy.Scalar_Self", "xlogy.Scalar_Other")
_binary("xlog1py", "special_xlog1py", "special_xlog1py.self_scalar", "special_xlog1py.other_scalar")


@kernel("polygamma")
def _polygamma(k: Kernel) -> Value:
    names = {0: "digamma", 1: "trigamma"}
    x = k.tensor("self").cast(k.format)
    return apply(names[k["n"]], x) if k["n"] in names else k.unknown(0, x)


@kernel("logit")
def _logit(k: Kernel) -> Value:
    x, eps = k.tensor("self").cast(k.format), k["eps"]
    if eps is not None and eps >= 0:
        low, high = _logit_limits(x, eps)
        x = limited(x, low, high)
    return narrow_or_wide(lambda p: apply("log", p / (1 - p)), x)


def _logit_limits(x: Value, eps: float) -> tuple[float, float]:
    """eps and 1 - eps, as the format rounds them."""
    low = np.asarray(eps).astype(x.format.numpy)
    return float(low), float(np.asarray(1).astype(x.format.numpy) - low)


@kernel("logit_backward")
def _logit_backward(k: Kernel) -> Value:
    g, x, eps = k.tensor("grad_output"), k.tensor("self"), k["eps"]
    slope = g / (x * (1 - x))
    at_the_ends = apply("eq", x, 0.0) | apply("eq", x, 1.0)  # where one kernel divides by -0, another does not
    slope = slope.add("either", where(at_the_ends, g * math.inf, slope))
    if eps is None or eps < 0:
        return where((x >= 0) & (x <= 1), slope, math.nan)
    low, high = _logit_limits(x, eps)
    return where((x < low) | (x > high), 0, slope)


# ---------------------------------------------------------------- sigmoid and its relatives


@kernel("sigmoid_backward")
def _sigmoid_backward(k: Kernel) -> Value:
    return narrow_or_wide(lambda g, y: g * (1 - y) * y, k.tensor("grad_output"), k.tensor("output"))


@kernel("tanh_backward")
def _tanh_backward(k: Kernel) -> Value:
    g, y = k.tensor("grad_output").up(), k.tensor("output").up()
    return g * _rest(y)


def _rest(t: Value) -> Value:
    """1 - t * t."""
    return contracted(1 - t * t, -t, t, 1)


@kernel("log_sigmoid_forward")
def _log_sigmoid(k: Kernel) -> tuple[Value, Value]:
    x = k.tensor("self")
    buffer = apply("exp", -apply("abs", x.up())).cast(x.format)
    return apply("logsigmoid", x), buffer if k.out(1)[0] == x.shape else k.unknown(1, x)


@kernel("log_sigmoid_backward")
def _log_sigmoid_backward(k: Kernel) -> Value:
    g, x, z = k.tensor("grad_output").up(), k.tensor("self").up(), k.tensor("buffer").up()
    negative = x < 0
    slope = where(negative, x.const(1), x.const(0)) - where(negative, x.const(1), x.const(-1)) * (z / (1 + z))
    return slope * g


@kernel("silu_backward")
def _silu_backward(k: Kernel) -> Value:
    g, x = k.tensor("grad_output").up(), k.tensor("self").up()
    s = apply("sigmoid", x)
    rest = 1 - s
    return g * s * contracted(1 + x * rest, x, rest, 1)


@kernel("mish_backward")
def _mish_backward(k: Kernel) -> Value:
    g, x = k.tensor("grad_output").up(), k.tensor("self").up()
    t = apply("tanh", apply("log1p", apply("exp", x)))
    slope, rest = x * apply("sigmoid", x), _rest(t)
    return g * contracted(t + slope * rest, slope, rest, t)


@kernel("softplus")
def _softplus(k: Kernel) -> Value:
    return apply("softplus", k.tensor("self"), beta=float(k["beta"]), threshold=float(k["threshold"]))


@kernel("softplus_backward")
def _softplus_backward(k: Kernel) -> Value:
    g, x = k.tensor("grad_output").up(), k.tensor("self").up()
    scaled = x if k["beta"] == 1 else x * k["beta"]
    z = apply("exp", scaled)
    return where(scaled > k["threshold"], g, g * z / (z + 1))


@kernel("glu")
def _glu(k: Kernel) -> Value:
    a, b, _ = _halves(k)
    return a.up() * apply("sigmoid", b.up())


@kernel("glu_backward")
def _glu_backward(k: Kernel) -> Value:
    a, b, dim = _halves(k)
    g = k.tensor("grad_output").up()
    s = apply("sigmoid", b.up())
    return concat([s * g, (1 - s) * s * g * a.up()], dim)


def _halves(k: Kernel) -> tuple[Value, Value, int]:
    x = k.tensor("self")
    dim = axis(k["dim"], x.ndim)
    n = x.shape[dim] // 2
    return cut(x, dim, 0, n), cut(x, dim, n, n), dim


# ---------------------------------------------------------------- gelu

_BETA = math.sqrt(2 / math.pi)
_KAPPA = 0.044715


@kernel("gelu")
def _gelu(k: Kernel) -> Value:
    return apply("gelu", k.tensor("self"), approximate=k["approximate"])


@kernel("gelu_backward")
def _gelu_backward(k: Kernel) -> Value:
    g, x = k.tensor("grad_output").up(), k.tensor("self").up()
    if k["approximate"] == "none":
        cdf = (apply("erf", x * math.sqrt(0.5)) + 1) * 0.5
        pdf = apply("exp", x * x * -0.5) * (1 / math.sqrt(2 * math.pi))
        return g * contracted(cdf + x * pdf, x, pdf, cdf)
    square = x * x
    cube = square * x
    t = apply("tanh", contracted(x + cube * _KAPPA, cube, _KAPPA, x) * _BETA)
    inner = contracted(1 + square * (3 * _KAPPA), square, 3 * _KAPPA, 1) * _BETA
    right, left = x * 0.5 * _rest(t), (1 + t) * 0.5
    return g * contracted(left + right * inner, right, inner, left)


# ---------------------------------------------------------------- elu and its relatives


def _elu(x: Value, alpha: float, scale: float, input_scale: float) -> Value:
    return apply("elu", x, alpha=float(alpha), scale=float(scale), input_scale=float(input_scale))


@kernel("elu")
def _elu_general(k: Kernel) -> Value:
    return _elu(k.tensor("self"), k["alpha"], k["scale"], k["input_scale"])


@kernel("celu")
def _celu(k: Kernel) -> Value:
    return _elu(k.tensor("self"), k["alpha"], 1.0, 1.0 / k["alpha"])


@kernel("selu")
def _selu(k: Kernel) -> Value:
    return _elu(k.tensor("self"), 1.6732632423543772848170429916717, 1.0507009873554804934193349852946, 1.0)


@kernel("elu_backward")
def _elu_backward(k: Kernel) -> Value:
    g, x = k.tensor("grad_output").up(), k.tensor("self_or_result").up()
    scale, input_scale = k["scale"], k["input_scale"]
    coefficient = float(np.asarray(k["alpha"], x.format.numpy) * np.asarray(scale, x.format.numpy))
    if k["is_result"]:
        negative = _times(g, input_scale) * (x + coefficient)
    else:
        negative = _times(_times(g, input_scale), coefficient) * apply("exp", _times(x, input_scale))
    return where(x <= 0, negative, _times(g, scale))


def _times(x: Value, factor: float) -> Value:
    return x if factor == 1 else x * factor


# ---------------------------------------------------------------- piecewise linear activations


@kernel("leaky_relu")
def _leaky_relu(k: Kernel) -> Value:
    x = k.tensor("self").up()
    return where(x > 0, x, x * k["negative_slope"])


@kernel("leaky_relu_backward")
def _leaky_relu_backward(k: Kernel) -> Value:
    g = k.tensor("grad_output").up()
    return where(k.tensor("self") > 0, g, g * k["negative_slope"])


@kernel("_prelu_kernel")
def _prelu(k: Kernel) -> Value:
    x = k.tensor("self")
    return where(x > 0, x, k["weight"] * x)


@kernel("_prelu_kernel_backward")
def _prelu_backward(k: Kernel) -> tuple[Value, Value]:
    g, x = k.tensor("grad_output"), k.tensor("self")
    return where(x > 0, g, k["weight"] * g), where(x > 0, x.const(0), x * g)


@kernel("threshold")
def _threshold(k: Kernel) -> Value:
    x = k.tensor("self").up()
    return where(x <= k["threshold"], k["value"], x)


@kernel("threshold_backward")
def _threshold_backward(k: Kernel) -> Value:
    return where(k.tensor("self").up() <= k["threshold"], 0, k.tensor("grad_output"))


@kernel("hardtanh_backward")
def _hardtanh_backward(k: Kernel) -> Value:
    x = k.tensor("self").up()
    return where((x <= k["min_val"]) | (x >= k["max_val"]), 0, k.tensor("grad_output"))


@kernel("hardsigmoid")
def _hardsigmoid(k: Kernel) -> Value:
    x = k.tensor("self").up()
    return limited(x + 3, 0, 6) / 6


@kernel("hardsigmoid_backward")
def _hardsigmoid_backward(k: Kernel) -> Value:
    g, x = k.tensor("grad_output").up(), k.tensor("self").up()
    return where((x > -3) & (x < 3), g * float(np.float32(1 / 6)), 0)


@kernel("hardswish")
def _hardswish(k: Kernel) -> Value:
    x = k.tensor("self").up()
    return x * limited(x + 3, 0, 6) / 6


@kernel("hardswish_backward")
def _hardswish_backward(k: Kernel) -> Value:
    g, x = k.tensor("grad_output").up(), k.tensor("self").up()
    return where(x <= -3, 0, where(x < 3, g * (x / 3 + 0.5), g))


@kernel("hardshrink")
def _hardshrink(k: Kernel) -> Value:
    x, limit = k.tensor("self"), k["lambd"]
    return where((x >= -limit) & (x <= limit), 0, x)


@kernel("softshrink")
def _softshrink(k: Kernel) -> Value:
    x, limit = k.tensor("self").up(), k["lambd"]
    zero = x * 0
    zero = zero.add("either", apply("abs", zero))  # of either sign
    return where(x > limit, x - limit, where(x < -limit, x + limit, zero))


@kernel("hardshrink_backward", "softshrink_backward")
def _shrink_backward(k: Kernel) -> Value:
    x, limit = k.tensor("self"), k["lambd"]
    g = k.tensor("grad_out") if k.aten.name.startswith("hard") else k.tensor("grad_output")
    return where((x >= -limit) & (x <= limit), 0, g)


@kernel("rrelu_with_noise_backward")
def _rrelu_backward(k: Kernel) -> Value:
    g, lower, upper = k.tensor("grad_output"), k["lower"], k["upper"]
    if k["training"] and upper - lower > 1e-6:
        return g * k.tensor("noise")
    return where(k.tensor("self") > 0, g, g.up() * ((lower + upper) / 2))


@kernel("rrelu_with_noise")
def _rrelu(k: Kernel) -> Value:
    x = k.tensor("self")
    if k["training"]:
        return k.unknown(0, x)
    return where(x > 0, x, x * ((k["lower"] + k["upper"]) / 2))
