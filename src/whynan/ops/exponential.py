"""Exponentials and logarithms."""

from collections.abc import Callable
from typing import Any

import numpy as np

from whynan.domain.interval import Bounds, make
from whynan.ir.graph import Call
from whynan.ops._curves import ULPS, curve, knowing_subnormals, outward, working_format
from whynan.ops._inverses import CURVES
from whynan.ops._opdef import Danger, Transfer, define_op
from whynan.ops._parts import at, overflow
from whynan.ops.arithmetic import product

# ---------------------------------------------------------------- sums of exponentials


def _logaddexp(base: Callable[[Any, Any], Any]) -> Transfer:
    """Increasing in both; near a zero result the error is absolute, that of the larger operand."""

    def transfer(call: Call, a: Bounds, b: Bounds) -> Bounds:
        size = np.maximum(a.magnitude, b.magnitude)
        slack = ULPS * working_format(call.format).eps * np.where(np.isinf(size), 0.0, np.maximum(size, 1.0))
        there = ~a.empty & ~b.empty
        lo, hi = np.where(there, base(a.lo, b.lo), np.inf), np.where(there, base(a.hi, b.hi), -np.inf)
        return outward(call.format, lo, hi, slack=slack, keep_lo=np.isinf(lo), keep_hi=(a.hi == np.inf) | (b.hi == np.inf), neg_zero=True)

    return transfer


# ---------------------------------------------------------------- x log y


def _times_log(log: Callable[[Any], Any], least: float, one: float) -> Transfer:
    """x*log(y), 0 for x = 0 whatever y is. `least` is where the logarithm's domain ends and `one` where it is zero."""

    def transfer(call: Call, x: Bounds, y: Bounds) -> Bounds:
        there = y.hi >= least
        factor = make(
            np.where(there, log(np.maximum(y.lo, least)), np.inf),
            np.where(there, log(np.maximum(y.hi, least)), -np.inf),
            pos_zero=True,
        )
        lo, hi = product(x, factor)
        nothing = x.empty | factor.empty
        lo, hi = np.where(nothing, np.inf, lo), np.where(nothing, -np.inf, hi)
        # x = 0 gives +0 also where the logarithm has no value
        lo, hi = np.where(x.may_zero, np.minimum(lo, 0.0), lo), np.where(x.may_zero, np.maximum(hi, 0.0), hi)
        nonzero = (x.lo < 0) | (x.hi > 0)
        nan = nonzero & (y.lo < least) & ~y.empty | x.may_inf & (y.lo <= one) & (y.hi >= one)
        return outward(call.format, lo, hi, ulps=ULPS + 2, half_ulps=2, nan=nan, neg_zero=nonzero)

    return transfer


def _evaluate_times_log(log: Callable[[Any], Any]) -> Callable[..., Any]:
    return lambda call, x, y: np.where((x == 0) & ~np.isnan(y), np.zeros((), x.dtype), x * log(y))


def _entropy(x: Any) -> Any:
    inside = -x * np.log(np.where(x > 0, x, 1.0))
    return np.where(x > 0, inside, np.where(x == 0, 0.0, np.where(np.isnan(x), x, -np.inf))).astype(np.asarray(x).dtype)


_ENTROPY = curve(_entropy, domain=(0.0, np.inf), turns=(np.exp(-1.0),), exact=(0.0, 1.0), ulps=ULPS + 2, half_ulps=2)


def _entr(call: Call, a: Bounds) -> Bounds:
    """-x log x where x >= 0, -inf below; -1*log(1) is -0."""
    inside = _ENTROPY(call, a)
    lo, hi = np.where(a.lo < 0, -np.inf, inside.lo), np.where((a.lo < 0) & inside.empty, -np.inf, inside.hi)
    return make(lo, hi, neg_zero=(a.lo <= 1) & (a.hi >= 1) | inside.may_neg_zero)


# ---------------------------------------------------------------- the records

_BEYOND = "the exponential is larger than the largest number of the format."


def _exponential(name: str, text: str, f: Callable[[Any], Any], **facts: Any) -> None:
    low = facts.pop("low", 0.0)
    define_op(
        name,
        text,
        lambda call, x: f(x),
        curve(f, low=low, exact=(0.0,), **facts),
        dangers=(overflow("exp-overflow", _BEYOND),),
        elementwise=True,
        monotone=(1,),
        low=low,
        inverse=CURVES[name],
    )


_exponential("exp", "the exponential function", np.exp)
_exponential("exp2", "2 to the power of a number", np.exp2)
_exponential("expm1", "exp(x) - 1", np.expm1, low=-1.0, odd=True, straight=True)


def _logarithm(name: str, text: str, f: Callable[[Any], Any], edge: float, **facts: Any) -> None:
    where = "zero" if edge == 0 else "-1"
    define_op(
        name,
        text,
        lambda call, x: f(x),
        knowing_subnormals(curve(f, domain=(edge, np.inf), **facts)) if edge == 0 else curve(f, domain=(edge, np.inf), **facts),
        dangers=(
            at("log-of-zero", f"the logarithm falls to -inf as its input reaches {where}.", edge),
            Danger("log-of-negative", lambda call, x: x < edge, f"the logarithm has no real value below {where}."),
        ),
        elementwise=True,
        monotone=(1,),
        steep="log-of-zero",
        inverse=CURVES[name],
    )


_logarithm("log", "the natural logarithm", np.log, 0.0, exact=(0.0, 1.0))
_logarithm("log2", "the logarithm to base 2", np.log2, 0.0, exact=(0.0, 1.0))
_logarithm("log10", "the logarithm to base 10", np.log10, 0.0, exact=(0.0, 1.0))
_logarithm("log1p", "log(1 + x)", np.log1p, -1.0, exact=(-1.0, 0.0), odd=True, either_zero=True)

define_op(
    "logaddexp",
    "log(exp(x) + exp(y))",
    lambda call, a, b: np.logaddexp(a, b),
    _logaddexp(np.logaddexp),
    elementwise=True,
    monotone=(1, 1),
)

define_op(
    "logaddexp2",
    "log2(2**x + 2**y)",
    lambda call, a, b: np.logaddexp2(a, b),
    _logaddexp(np.logaddexp2),
    elementwise=True,
    monotone=(1, 1),
)

define_op(
    "xlogy",
    "x log(y), which is 0 for x = 0",
    _evaluate_times_log(np.log),
    _times_log(np.log, 0.0, 1.0),
    dangers=(
        Danger("log-of-zero", lambda call, x, y: (x != 0) & (y == 0), "the logarithm falls to -inf as its input reaches zero."),
        Danger("log-of-negative", lambda call, x, y: (x != 0) & (y < 0), "the logarithm has no real value below zero."),
        Danger("zero-times-inf", lambda call, x, y: np.isinf(x) & (y == 1), "inf * log(1) has no value."),
        overflow("product-overflow", "the product is larger than the largest number of the format."),
    ),
    elementwise=True,
    steep="log-of-zero",
)

define_op(
    "xlog1py",
    "x log(1 + y), which is 0 for x = 0",
    _evaluate_times_log(np.log1p),
    _times_log(np.log1p, -1.0, 0.0),
    dangers=(
        Danger("log-of-zero", lambda call, x, y: (x != 0) & (y == -1), "the logarithm falls to -inf as its input reaches -1."),
        Danger("log-of-negative", lambda call, x, y: (x != 0) & (y < -1), "the logarithm has no real value below -1."),
        Danger("zero-times-inf", lambda call, x, y: np.isinf(x) & (y == 0), "inf * log(1) has no value."),
        overflow("product-overflow", "the product is larger than the largest number of the format."),
    ),
    elementwise=True,
    steep="log-of-zero",
)

define_op(
    "entr",
    "the entropy term -x log(x), 0 at zero, -inf below",
    lambda call, x: _entropy(x),
    _entr,
    dangers=(
        Danger("log-of-negative", lambda call, x: x < 0, "the entropy of a negative number is -inf by definition."),
        overflow("product-overflow", "the product is larger than the largest number of the format."),
    ),
    elementwise=True,
    high=0.3678794411714424,
    steep="log-of-zero",
)
