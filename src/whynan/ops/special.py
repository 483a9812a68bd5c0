"""Error functions, gamma functions, Bessel functions."""

from collections.abc import Callable
from typing import Any

import numpy as np

from whynan.domain.interval import Bounds, make, with_nan
from whynan.ir.dtype import Format
from whynan.ir.graph import Call
from whynan.ops import _special
from whynan.ops._curves import FINITE, curve, knowing_subnormals, outward, working_format
from whynan.ops._opdef import Danger, Transfer, define_op
from whynan.ops._parts import at, outside, overflow


def _rough_in_half(x: Any, fmt: Format) -> Any:
    """PyTorch's erf of half precision is a polynomial with an absolute error, near zero as well."""
    return np.where(x != 0, 1e-6 if fmt.numpy.itemsize == 2 else 0.0, 0.0)


# ---------------------------------------------------------------- gamma functions


def _near_its_roots(x: Any, fmt: Format) -> Any:
    return np.full_like(x, 16 * working_format(fmt).eps)


_LGAMMA = curve(_special.lgamma, domain=(0.0, np.inf), turns=(1.4616321449683623,), slack=_near_its_roots, early=0.25)


def _pole(a: Bounds) -> Any:
    """Whether the interval holds zero or a negative whole number."""
    return (np.ceil(a.lo) <= np.minimum(a.hi, 0.0)) & ~a.empty


def _lgamma(call: Call, a: Bounds) -> Bounds:
    """Left of zero the function is convex between poles at +inf, and by the reflection formula above log(pi) - lgamma(1 - x)."""
    right = _LGAMMA(call, a)
    negative = (a.lo < 0) & ~a.empty
    end = np.minimum(a.hi, 0.0)
    ends = np.maximum(_special.lgamma(np.where(negative, a.lo, -0.5)), _special.lgamma(np.where(negative, end, -0.5)))
    floor = np.where(a.lo == a.hi, ends, np.log(np.pi) - _special.lgamma(1 - np.where(negative, a.lo, 0.0)))
    top = np.where(_pole(a) | np.isinf(a.lo), np.inf, ends)
    size = np.maximum(np.abs(np.where(np.isfinite(top), top, 0.0)), np.abs(np.where(np.isfinite(a.lo), a.lo, 0.0)))
    slack = 16 * working_format(call.format).eps * np.maximum(size, 1.0)  # near a root the error is absolute
    left = outward(call.format, np.where(negative, floor, np.inf), np.where(negative, top, -np.inf), slack=slack, neg_zero=True)
    lo, hi = np.minimum(left.lo, right.lo), np.maximum(left.hi, right.hi)
    return make(lo, hi, neg_zero=True)


def _digamma(call: Call, a: Bounds) -> Bounds:
    """Rising between the poles, where it jumps from +inf to -inf. Near its roots the error is absolute."""
    one_sided = (a.lo == 0) & ~a.may_neg_zero & (a.lo < a.hi)  # only the right side of the pole at zero
    pole = _pole(a) & ~one_sided
    lo = np.where(pole, -np.inf, _special.digamma(np.where(a.empty, 1.0, a.lo + 0.0)))
    hi = np.where(pole, np.inf, _special.digamma(np.where(a.empty, 1.0, a.hi)))
    lo, hi = np.where(np.isnan(lo), -np.inf, lo), np.where(np.isnan(hi), np.inf, hi)
    scale = np.where(np.isfinite(lo), np.abs(lo), 0.0) + np.where(np.isfinite(hi), np.abs(hi), 0.0)
    steep = np.where(a.lo < 0, np.minimum(a.magnitude, FINITE) * np.maximum(scale, 1.0) ** 2, 0.0)
    slack = 16 * working_format(call.format).eps * (np.maximum(scale, 1.0) + 10 * steep)
    lo, hi = np.where(a.empty, np.inf, lo), np.where(a.empty, -np.inf, hi)
    keep_lo, keep_hi = np.isinf(lo), np.isinf(hi)
    nan = (a.lo < 0) & pole | (a.lo == -np.inf)
    return outward(call.format, lo, hi, slack=slack, keep_lo=keep_lo, keep_hi=keep_hi, nan=nan, neg_zero=True)


# PyTorch's series ends early: its error is 1e-9 in float64 too
def _truncated(x: Any, fmt: Format) -> Any:
    y = _special.trigamma(x)
    return 2e-9 * np.where(np.isfinite(y), np.abs(y), 0.0)


_TRIGAMMA = curve(_special.trigamma, domain=(0.0, np.inf), low=0.0, ulps=16, slack=_truncated)


def _trigamma(call: Call, a: Bounds) -> Bounds:
    """Falling right of zero; left of it convex between poles at +inf and above 8, but for rounding near the poles."""
    right = _TRIGAMMA(call, a)
    negative = (a.lo < 0) & ~a.empty
    lo, hi = np.where(negative, np.minimum(right.lo, 1.0), right.lo), np.where(negative, np.inf, right.hi)
    return make(lo, hi, nan=a.lo < -working_format(call.format).max / 4)  # pi x overflows


# ---------------------------------------------------------------- waves and Bessel functions


def _sinc(call: Call, a: Bounds) -> Bounds:
    """Falling from 1 on either side of zero up to 1, then within 1/(pi |x|) and above its least value."""
    inner = np.where((a.lo <= 0) & (a.hi >= 0), 0.0, np.minimum(np.abs(a.lo), np.abs(a.hi)))
    outer = a.magnitude
    near = outer <= 1
    top = np.where(inner <= 1, _special.sinc(np.minimum(inner, 1.0)), np.minimum(1 / (np.pi * np.maximum(inner, 1.0)), 0.2))
    bottom = np.where(near, _special.sinc(np.minimum(outer, 1.0)), np.maximum(-0.21723362821122166, -1 / (np.pi * np.maximum(inner, 1.0))))
    top = np.where((inner <= 1) & ~near, np.maximum(top, 0.13), top)
    slack = 2 * working_format(call.format).eps  # pi x is rounded before its sine is taken
    there = (a.lo <= FINITE) & (a.hi >= -FINITE) & ~a.empty
    top, bottom = np.where(there, top, -np.inf), np.where(there, bottom, np.inf)
    nan = a.magnitude > working_format(call.format).max / 4  # pi x overflows
    b = outward(call.format, bottom, top, slack=slack, keep_hi=inner == 0, nan=nan, neg_zero=True)
    return make(b.lo, np.minimum(b.hi, 1.0), nan=b.may_nan, pos_zero=b.may_pos_zero, neg_zero=b.may_neg_zero)


def _evaluate_sinc(x: Any) -> Any:
    angle = x * np.asarray(np.pi, x.dtype)
    return np.where(x == 0, np.ones((), x.dtype), np.sin(angle) / angle)


def _undefined_at_inf(f: Callable[[Any], Any], **facts: Any) -> Transfer:
    inner = curve(f, **facts)

    def transfer(call: Call, a: Bounds) -> Bounds:
        inside = make(np.maximum(a.lo, -FINITE), np.minimum(a.hi, FINITE), pos_zero=a.may_pos_zero, neg_zero=a.may_neg_zero)
        return with_nan(inner(call, inside), a.may_inf)

    return transfer


def _at_pole(call: Call, x: Any) -> Any:
    return (x <= 0) & (x == np.floor(x))


# ---------------------------------------------------------------- the records

_POLES = Danger("other-domain-error", _at_pole, "the function has poles at zero and at every negative whole number.")
# Cephes' Chebyshev series, evaluated in the format itself
_CEPHES: dict[str, Any] = {"ulps": 64, "half_ulps": 8}
_INFINITE = at("inf-over-inf", "the function is computed as exp(|x|) over a root, which has no value at infinity.", np.inf, -np.inf)
_BEYOND = overflow("exp-overflow", "the function grows as the exponential does, beyond the largest number of the format.")


def _record(name: str, text: str, f: Callable[[Any], Any], transfer: Transfer, *dangers: Danger, **facts: Any) -> None:
    define_op(name, text, lambda call, x: f(x), transfer, dangers=dangers, elementwise=True, **facts)


_record(
    "erf",
    "the error function",
    _special.erf,
    curve(_special.erf, odd=True, low=-1.0, high=1.0, slack=_rough_in_half),
    monotone=(1,),
    low=-1.0,
    high=1.0,
)
_record(
    "erfc",
    "1 - erf(x)",
    _special.erfc,
    curve(_special.erfc, exact=(0.0,), low=0.0, high=2.0),
    monotone=(-1,),
    low=0.0,
    high=2.0,
)
_record(
    "erfinv",
    "the inverse of the error function",
    _special.erfinv,
    curve(_special.erfinv, domain=(-1.0, 1.0), exact=(-1.0, 1.0), odd=True),
    at("other-domain-error", "the inverse error function is infinite at -1 and 1.", -1.0, 1.0),
    outside("other-domain-error", -1.0, 1.0, "the inverse error function has no value outside of [-1, 1]."),
    monotone=(1,),
)

_record(
    "lgamma",
    "the logarithm of the gamma function",
    _special.lgamma,
    knowing_subnormals(_lgamma),
    _POLES,
    overflow("product-overflow", "the result is larger than the largest number of the format."),
)
_record(
    "digamma",
    "the derivative of lgamma",
    _special.digamma,
    _digamma,
    _POLES,
    overflow("product-overflow", "so near to its pole at 0 the result is larger than the largest number of the format."),
)
_record(
    "trigamma",
    "the derivative of digamma",
    _special.trigamma,
    _trigamma,
    _POLES,
    overflow("square-overflow", "so near to a pole the result is larger than the largest number of the format."),
)

_record(
    "sinc",
    "sin(pi x) / (pi x), 1 at zero",
    _evaluate_sinc,
    _sinc,
    at("other-domain-error", "an infinite angle has no sine.", np.inf, -np.inf),
    overflow("product-overflow", "pi times the number is larger than the largest number of the format."),
    high=1.0,
)
_record(
    "i0",
    "the modified Bessel function of order 0",
    _special.i0,
    _undefined_at_inf(_special.i0, turns=(0.0,), **_CEPHES, early=0.01),
    _INFINITE,
    _BEYOND,
)
_record(
    "i0e",
    "the modified Bessel function of order 0, times exp(-|x|)",
    _special.i0e,
    curve(_special.i0e, turns=(0.0,), low=0.0, **_CEPHES),
    low=0.0,
)
_record(
    "i1",
    "the modified Bessel function of order 1",
    _special.i1,
    _undefined_at_inf(_special.i1, odd=True, either_zero=True, **_CEPHES, early=0.01),
    _INFINITE,
    _BEYOND,
    monotone=(1,),
)
_record(
    "i1e",
    "the modified Bessel function of order 1, times exp(-|x|)",
    _special.i1e,
    curve(_special.i1e, turns=(-1.5451272579925427, 1.5451272579925427), odd=True, either_zero=True, **_CEPHES),
)
