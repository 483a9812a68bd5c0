"""Special functions that NumPy lacks, in float64 and vectorised, accurate to a few ulps (near a root: absolutely).

Results have the input's dtype. At infinities and poles they give what the limit from the right says, or NaN where there is none.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from whynan.ir.dtype import Float64


def _in_float64(f: Callable[[Float64], Any]) -> Callable[[Any], Any]:
    def wrapped(x: Any) -> Any:
        x = np.asarray(x)
        with np.errstate(all="ignore"):
            return np.asarray(f(x.astype(np.float64))).astype(x.dtype if x.dtype.kind == "f" else np.float64)

    wrapped.__doc__, wrapped.__name__ = f.__doc__, f.__name__
    return wrapped


def _lgamma(x: float) -> float:
    return math.inf if math.isinf(x) or (x <= 0 and x == math.floor(x)) else _finite_lgamma(x)


def _finite_lgamma(x: float) -> float:
    try:
        return math.lgamma(x)
    except OverflowError:
        return math.inf


_ERF, _ERFC, _LGAMMA = (np.frompyfunc(f, 1, 1) for f in (math.erf, math.erfc, _lgamma))


@_in_float64
def erf(x: Float64) -> Any:
    """The error function."""
    return _ERF(x)


@_in_float64
def erfc(x: Float64) -> Any:
    """1 - erf(x), without its cancellation."""
    return _ERFC(x)


@_in_float64
def lgamma(x: Float64) -> Any:
    """log|Γ(x)|; +inf at the poles."""
    return _LGAMMA(x)


@_in_float64
def erfinv(x: Float64) -> Any:
    """The inverse of erf on [-1, 1]."""
    a = np.abs(x)
    w = -np.log1p(-a) - np.log1p(a)
    b = 2 / (np.pi * 0.147) - w / 2
    y = np.sqrt(np.sqrt(b * b + w / 0.147) - b)  # Winitzki's approximation, to 2e-3
    for _ in range(4):
        # Halley's steps; from 1/2 on by the complement, whose 1 - a is exact
        f = np.where(a < 0.5, erf(y) - a, (1 - a) - erfc(y)) * np.exp(y * y) * (np.sqrt(np.pi) / 2)
        y = np.where(f == 0, y, y - f / (1 + y * f))
    y = np.where(a < 1e-9, a * (np.sqrt(np.pi) / 2), y)
    return np.copysign(np.where(a == 1, np.inf, np.where(a > 1, np.nan, y)), x)


def _shifted(x: Float64, order: int) -> tuple[Float64, Float64]:
    """Move x > 0 to at least 12 by the recurrence of the polygamma functions: the sum of 1/(x+k)**order, and the moved x."""
    total = np.zeros_like(x)
    for _ in range(12):
        small = x < 12
        total = total + np.where(small, x ** -float(order), 0.0)
        x = np.where(small, x + 1, x)
    return total, x


@_in_float64
def digamma(x: Float64) -> Any:
    """The derivative of lgamma; at +0 -inf, at -0 +inf, NaN at the other poles."""
    left = x < 0
    z = np.where(left, 1 - x, np.where(x == 0, 1.0, x))
    total, y = _shifted(z, 1)
    s = 1 / (y * y)
    tail = s * (1 / 12 - s * (1 / 120 - s * (1 / 252 - s * (1 / 240 - s * (1 / 132 - s * (691 / 32760 - s / 12))))))
    value = np.log(y) - 0.5 / y - tail - total
    value = np.where(left, value - np.pi / np.tan(np.pi * (x - np.round(x))), value)
    value = np.where(left & ((x == np.floor(x)) | np.isinf(x)), np.nan, value)
    return np.where(x == 0, np.copysign(np.inf, -x), value)


@_in_float64
def trigamma(x: Float64) -> Any:
    """The derivative of digamma; +inf at the poles."""
    left = x < 0.5
    z = np.where(left, 1 - x, x)
    total, y = _shifted(z, 2)
    s = 1 / (y * y)
    tail = s * (1 / 6 - s * (1 / 30 - s * (1 / 42 - s * (1 / 30 - s * (5 / 66 - s * (691 / 2730 - s * 7 / 6))))))
    value = 1 / y + s / 2 + tail / y + total
    sine = np.sin(np.pi * (x - np.round(x)))
    value = np.where(left, (np.pi / sine) ** 2 - value, value)
    return np.where(x == -np.inf, np.nan, value)


def _bessel_e(x: Float64, order: int) -> Float64:
    """exp(-x) I_order(x) for x >= 0: the power series up to 30, the asymptotic one beyond."""
    small = np.minimum(x, 30.0)
    q = small * small / 4
    term = np.ones_like(x) if order == 0 else small / 2
    near = term
    for k in range(1, 90):
        term = term * (q / (k * (k + order)))
        near = near + term
    large = np.maximum(x, 30.0)
    term = np.ones_like(x)
    far = term
    for k in range(1, 25):
        term = term * -(4 * order**2 - (2 * k - 1) ** 2) / (8 * k * large)
        far = far + term
    return np.asarray(np.where(x <= 30, near * np.exp(-small), far / np.sqrt(2 * np.pi) / np.sqrt(large)))


@_in_float64
def i0e(x: Float64) -> Any:
    """exp(-|x|) times the modified Bessel function of order 0."""
    return _bessel_e(np.abs(x), 0)


@_in_float64
def i1e(x: Float64) -> Any:
    """exp(-|x|) times the modified Bessel function of order 1."""
    return np.copysign(_bessel_e(np.abs(x), 1), x)


def _unscaled(scaled: Float64, x: Float64) -> Float64:
    half = np.exp(np.abs(x) / 2)  # two factors: exp(|x|) overflows before the product does
    return np.where(np.isinf(x), np.nan, scaled * half * half)


@_in_float64
def i0(x: Float64) -> Any:
    """The modified Bessel function of order 0; NaN at infinity, as the frameworks have it."""
    return _unscaled(i0e(x), x)


@_in_float64
def i1(x: Float64) -> Any:
    """The modified Bessel function of order 1; NaN at infinity, as the frameworks have it."""
    return _unscaled(i1e(x), x)


@_in_float64
def sinc(x: Float64) -> Any:
    """sin(pi x) / (pi x), 1 at 0; NaN at infinity."""
    turn = np.fmod(x, 2.0)
    return np.where(x == 0, 1.0, np.sin(np.pi * turn) / (np.pi * x))
