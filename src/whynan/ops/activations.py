"""Activation functions."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from whynan.domain.interval import Bounds, join, make, settle, with_nan
from whynan.ir.dtype import Format, nearest
from whynan.ir.graph import Call
from whynan.ops import _special
from whynan.ops._curves import FINITE, curve, working_format
from whynan.ops._inverses import CURVES
from whynan.ops._opdef import Danger, define_op
from whynan.ops._parts import at, overflow, part
from whynan.ops.arithmetic import times

Function = Callable[[Any], Any]


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x))."""
    return 1 / (1 + np.exp(-x))


def logsigmoid(x: Any) -> Any:
    """log(sigmoid(x)), as min(x, 0) - log1p(exp(-|x|))."""
    return np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x)))


# ---------------------------------------------------------------- softplus


def _softplus(x: Any, beta: float, threshold: float) -> Any:
    factor, limit = np.asarray(beta, x.dtype), np.asarray(threshold, x.dtype)
    return np.where(x * factor > limit, x, np.log1p(np.exp(x * factor)) / factor)


def _softplus_bounds(call: Call, a: Bounds) -> Bounds:
    """The curve up to the threshold, the number itself beyond; both may step down where the threshold is low."""
    beta, threshold = float(call.attrs.get("beta", 1.0)), float(call.attrs.get("threshold", 20.0))
    edge = threshold / beta
    near = 4 * call.format.eps * abs(edge) + call.format.smallest  # x*beta is rounded
    sides = (-np.inf, edge + near), (edge - near, np.inf)
    bent, straight = sides if beta > 0 else sides[::-1]
    if not np.isfinite(edge):
        bent = straight = (-np.inf, np.inf)
    low, high = (0.0, np.inf) if beta > 0 else (-np.inf, 0.0)

    def exact(x: Any) -> Any:
        return np.logaddexp(0.0, x * beta) / beta

    def blurred(x: Any, fmt: Format) -> Any:
        """The exponential magnifies the rounding of x*beta."""
        scaled = np.minimum(np.abs(x * beta), 1000.0)
        return np.where(x * beta < 0, working_format(fmt).eps * scaled * np.abs(exact(x)), 0.0)

    curved = curve(exact, low=low, high=high, slack=blurred)(call, part(a, *bent))
    curved = make(curved.lo, curved.hi, neg_zero=beta < 0)  # a function of one sign: zeros come from underflow
    return join(curved, part(a, *straight))


# ---------------------------------------------------------------- x times a gate


def _gelu(x: Any) -> Any:
    return x * 0.5 * (1 + _special.erf(x * np.sqrt(0.5).astype(np.asarray(x).dtype)))


def _gelu_tanh(x: Any) -> Any:
    scale = np.sqrt(2 / np.pi).astype(np.asarray(x).dtype)
    return 0.5 * x * (1 + np.tanh(scale * (x + np.asarray(0.044715, np.asarray(x).dtype) * x * x * x)))


def _silu(x: Any) -> Any:
    return x / (1 + np.exp(-x))


def _mish(x: Any) -> Any:
    return x * np.tanh(np.logaddexp(np.asarray(0, np.asarray(x).dtype), x))


def _cancelled(x: Any, fmt: Format) -> Any:
    """1 + erf and 1 + tanh cancel far below zero: the error is a few ulps of 1, times x."""
    return np.where(x < 0, 4 * working_format(fmt).eps * np.minimum(np.abs(x), 40.0), 0.0)


def _closed(x: Any, fmt: Format) -> Any:
    """The gate of an x far below zero is flushed to zero, or its exponential overflows."""
    return np.where(x < 0, working_format(fmt).tiny * np.minimum(np.abs(x), 1000.0), 0.0)


_GELU = {
    "none": curve(_gelu, domain=(-FINITE, np.inf), turns=(-0.7517915246935645,), odd=True, slack=_cancelled, early=0.25),
    "tanh": curve(_gelu_tanh, domain=(-FINITE, np.inf), turns=(-0.7524614220710163,), odd=True, slack=_cancelled, early=0.25),
}


def _gelu_bounds(call: Call, a: Bounds) -> Bounds:
    # some kernels of PyTorch give NaN for +inf too
    return with_nan(_GELU[call.attrs.get("approximate", "none")](call, a), a.may_inf)


def _gelu_value(call: Call, x: Any) -> Any:
    return _gelu_tanh(x) if call.attrs.get("approximate", "none") == "tanh" else _gelu(x)


# ---------------------------------------------------------------- elu


def _coefficients(call: Call) -> tuple[float, float, float]:
    """Factors of the negative and the positive side and of the exponent."""
    alpha, scale, inner = (float(call.attrs.get(name, 1.0)) for name in ("alpha", "scale", "input_scale"))
    return alpha * scale, scale, inner


def _elu(call: Call, x: Any) -> Any:
    negative, positive, inner = (np.asarray(c, x.dtype) for c in _coefficients(call))
    return np.where(x > 0, x * positive, np.expm1(np.where(x > 0, 0, x) * inner) * negative)


def _elu_bounds(call: Call, a: Bounds) -> Bounds:
    """The kernel's own steps, in the format it works in."""
    negative, positive, inner = _coefficients(call)
    work = replace(call, format=working_format(call.format))
    inside = _EXPM1(work, _times(work, part(a, high=0.0), inner))
    below = _times(work, inside, negative)
    above = _times(work, part(a, low=0.0), positive)
    return settle(join(below, above), call.format)


_EXPM1 = curve(np.expm1, low=-1.0, odd=True, straight=True)


def _times(call: Call, a: Bounds, factor: float) -> Bounds:
    """The rounded product with a number; 0*inf is NaN and an empty interval stays empty."""
    number = nearest(call.format, factor)
    result = settle(times(a, make(number, number)), call.format)
    return part(result, where=~a.empty)


# ---------------------------------------------------------------- the records

_GATE_AT_MINUS_INF = at("zero-times-inf", "-inf times a gate that is closed (0) has no value.", -np.inf)

define_op(
    "sigmoid",
    "1 / (1 + exp(-x))",
    lambda call, x: sigmoid(x),
    curve(sigmoid, exact=(0.0,), low=0.0, high=1.0),
    elementwise=True,
    monotone=(1,),
    low=0.0,
    high=1.0,
    inverse=CURVES["sigmoid"],
)

define_op(
    "logsigmoid",
    "the logarithm of sigmoid(x)",
    lambda call, x: logsigmoid(x),
    curve(logsigmoid, high=0.0, either_zero=True),
    elementwise=True,
    monotone=(1,),
    high=0.0,
    inverse=CURVES["logsigmoid"],
)

define_op(
    "softplus",
    "log(1 + exp(beta x)) / beta",
    lambda call, x: _softplus(x, call.attrs.get("beta", 1.0), call.attrs.get("threshold", 20.0)),
    _softplus_bounds,
    elementwise=True,
    inverse=CURVES["softplus"],
)

define_op(
    "gelu",
    "x times the normal distribution function",
    _gelu_value,
    _gelu_bounds,
    dangers=(_GATE_AT_MINUS_INF,),
    elementwise=True,
)

define_op(
    "silu",
    "x times sigmoid(x)",
    lambda call, x: _silu(x),
    curve(_silu, domain=(-FINITE, np.inf), turns=(-1.278464542761074,), odd=True, slack=_closed),
    dangers=(_GATE_AT_MINUS_INF,),
    elementwise=True,
)

define_op(
    "mish",
    "x times tanh(softplus(x))",
    lambda call, x: _mish(x),
    curve(_mish, domain=(-FINITE, np.inf), turns=(-1.192431214515495,), odd=True, slack=_closed),
    dangers=(_GATE_AT_MINUS_INF,),
    elementwise=True,
)

define_op(
    "elu",
    "x above zero, alpha (exp(x) - 1) below",
    _elu,
    _elu_bounds,
    dangers=(
        Danger(
            "zero-times-inf",
            lambda call, x: (x == np.inf) & (_coefficients(call)[1] == 0),
            "inf times a factor of 0 has no value.",
        ),
        overflow("product-overflow", "the scaled number is larger than the largest number of the format."),
    ),
    elementwise=True,
)
