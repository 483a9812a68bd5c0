"""Circular and hyperbolic functions and their inverses."""

from typing import Any

import numpy as np

from whynan.domain.interval import Bounds, make
from whynan.ir.dtype import Array
from whynan.ir.graph import Call
from whynan.ops._curves import FINITE, curve, outward
from whynan.ops._inverses import CURVES
from whynan.ops._opdef import Danger, Transfer, define_op
from whynan.ops._parts import at, outside, overflow, signs

_FAR = 2.0**20  # beyond, multiples of pi are no longer exact enough to tell where a wave turns
_STEEP = 1e20  # no float64 or narrower float is nearer to a pole of tan than that

# ---------------------------------------------------------------- waves


def _meets(a: Bounds, start: float, period: float) -> Any:
    """Whether start + k*period may lie in the interval for some whole k."""
    near = 1e-9 * np.maximum(a.magnitude, 1.0)
    far = (a.magnitude > _FAR) & (a.lo < a.hi)
    k = np.ceil((a.lo - near - start) / period)
    return far | (start + k * period <= a.hi + near)


def _wave(f: Any, top: float, bottom: float, *, odd: bool) -> Transfer:
    """The transfer function of sin or cos, which turns at `top` and `bottom` and every 2 pi further."""

    def transfer(call: Call, a: Bounds) -> Bounds:
        there = (a.lo <= FINITE) & (a.hi >= -FINITE) & ~a.empty
        left, right = np.where(there, np.maximum(a.lo, -FINITE), 0.0), np.where(there, np.minimum(a.hi, FINITE), 0.0)
        at_left, at_right = f(left), f(right)
        one_point = left == right
        lo = np.where(_meets(a, bottom, 2 * np.pi) & ~one_point, -1.0, np.minimum(at_left, at_right))
        hi = np.where(_meets(a, top, 2 * np.pi) & ~one_point, 1.0, np.maximum(at_left, at_right))
        tiny = np.maximum(np.abs(left), np.abs(right)) < call.format.tiny
        zeros: dict[str, Any] = {"pos_zero": a.may_pos_zero, "neg_zero": a.may_neg_zero} if odd else {}
        lo, hi = np.where(there, lo, np.inf), np.where(there, hi, -np.inf)
        b = outward(call.format, lo, hi, keep_lo=tiny | (lo == -1), keep_hi=tiny | (hi == 1), nan=a.may_inf, **zeros)
        lo, hi = np.where(b.empty, b.lo, np.maximum(b.lo, -1.0)), np.where(b.empty, b.hi, np.minimum(b.hi, 1.0))
        return make(lo, hi, nan=b.may_nan, pos_zero=b.may_pos_zero, neg_zero=b.may_neg_zero)

    return transfer


def _tan(call: Call, a: Bounds) -> Bounds:
    there = (a.lo <= FINITE) & (a.hi >= -FINITE) & ~a.empty
    left, right = np.where(there, np.maximum(a.lo, -FINITE), 0.0), np.where(there, np.minimum(a.hi, FINITE), 0.0)
    pole = _meets(a, np.pi / 2, np.pi) & (left != right)
    lo, hi = np.where(pole, -_STEEP, np.tan(left)), np.where(pole, _STEEP, np.tan(right))
    tiny = np.maximum(np.abs(left), np.abs(right)) < call.format.tiny
    lo, hi = np.where(there, lo, np.inf), np.where(there, hi, -np.inf)
    return outward(call.format, lo, hi, keep_lo=tiny, keep_hi=tiny, nan=a.may_inf, pos_zero=a.may_pos_zero, neg_zero=a.may_neg_zero)


# ---------------------------------------------------------------- the angle of a point


def _angle(call: Call, y: Array, x: Array) -> Array:
    """Where subnormals count as zero, but not everywhere on the way, two of them have no angle (measured with XLA and TensorFlow)."""
    lost = _lost(call, y, x) & (y != 0) & (x != 0) if y.dtype == call.format.numpy else False
    return np.asarray(np.where(lost, np.nan, np.arctan2(y, x))).astype(y.dtype)


def _lost(call: Call, y: Array, x: Array) -> Any:
    """Where both arguments count as zero in a format that flushes subnormals."""
    tiny = call.format.tiny if call.format.flush else 0.0
    return (np.abs(y) < tiny) & (np.abs(x) < tiny)


def _atan2(call: Call, y: Bounds, x: Bounds) -> Bounds:
    """The angle is monotone along each side of a rectangle that does not cross the negative half of the x axis."""
    up, down = signs(y)
    right, left = signs(x)
    y_lo = np.where((y.lo == 0) & down, -0.0, y.lo)
    y_hi = np.where((y.hi == 0) & ~up, -0.0, y.hi)
    x_lo = np.where((x.lo == 0) & left, -0.0, x.lo)
    x_hi = np.where((x.hi == 0) & ~right, -0.0, x.hi)
    corners = [np.arctan2(v, u) for v in (y_lo, y_hi) for u in (x_lo, x_hi)]
    lo = np.minimum.reduce(np.broadcast_arrays(*corners))
    hi = np.maximum.reduce(np.broadcast_arrays(*corners))
    cut = left & up & down
    lo, hi = np.where(cut, -np.pi, lo), np.where(cut, np.pi, hi)
    nothing = y.empty | x.empty
    lo, hi = np.where(nothing, np.inf, lo), np.where(nothing, -np.inf, hi)
    tiny = call.format.tiny
    lost = call.format.flush & ~nothing & (y.lo < tiny) & (y.hi > -tiny) & (x.lo < tiny) & (x.hi > -tiny)
    lo, hi = np.where(lost, np.minimum(lo, 0.0), lo), np.where(lost, np.maximum(hi, np.pi), hi)
    return outward(call.format, lo, hi, nan=lost, pos_zero=up & right | lost, neg_zero=down & right | lost)


# ---------------------------------------------------------------- the records

_BEYOND = overflow("exp-overflow", "the exponential is larger than the largest number of the format.")
_INFINITE = at("other-domain-error", "an infinite angle has no sine, cosine or tangent.", np.inf, -np.inf)


def _record(name: str, text: str, f: Any, transfer: Transfer, *dangers: Danger, **facts: Any) -> None:
    define_op(name, text, lambda call, *xs: f(*xs), transfer, dangers=dangers, elementwise=True, **facts)


def _domain(low: float, high: float) -> Danger:
    span = "below 1" if high == np.inf else "outside of [-1, 1]"
    return outside("inverse-trig-domain", low, high, f"the inverse function has no real value {span}.")


_EDGE = "inverse-trig-grad-at-edge"
_UP: dict[str, Any] = {"odd": True, "straight": True, "exact": (0.0,)}

_record("sin", "the sine", np.sin, _wave(np.sin, np.pi / 2, -np.pi / 2, odd=True), _INFINITE, low=-1.0, high=1.0)
_record("cos", "the cosine", np.cos, _wave(np.cos, 0.0, np.pi, odd=False), _INFINITE, low=-1.0, high=1.0)
_record("tan", "the tangent", np.tan, _tan, _INFINITE)

_record("asin", "the angle of a sine", np.arcsin, curve(np.arcsin, domain=(-1, 1), **_UP), _domain(-1, 1), monotone=(1,), steep=_EDGE)
_record(
    "acos",
    "the angle of a cosine",
    np.arccos,
    curve(np.arccos, domain=(-1, 1), low=0.0),
    _domain(-1, 1),
    monotone=(-1,),
    low=0.0,
    steep=_EDGE,
)
_record("atan", "the angle of a tangent", np.arctan, curve(np.arctan, **_UP), monotone=(1,))
define_op(
    "atan2",
    "the angle of a point (y, x)",
    _angle,
    _atan2,
    dangers=(Danger("atan2-at-origin", _lost, "numbers this small count as zero, and the origin has no angle."),),
    elementwise=True,
    subnormals=True,
    steep="atan2-at-origin",
)

_record("sinh", "the hyperbolic sine", np.sinh, curve(np.sinh, early=0.25, **_UP), _BEYOND, inverse=CURVES["sinh"], monotone=(1,))
_record("cosh", "the hyperbolic cosine", np.cosh, curve(np.cosh, early=0.25, turns=(0.0,), exact=(0.0,), low=1.0), _BEYOND, low=1.0)
_TANH = curve(np.tanh, low=-1.0, high=1.0, **_UP)
_record("tanh", "the hyperbolic tangent", np.tanh, _TANH, inverse=CURVES["tanh"], monotone=(1,), low=-1.0, high=1.0)

_record("asinh", "the inverse of the hyperbolic sine", np.arcsinh, curve(np.arcsinh, **_UP), inverse=CURVES["asinh"], monotone=(1,))
_record(
    "acosh",
    "the inverse of the hyperbolic cosine",
    np.arccosh,
    curve(np.arccosh, domain=(1, np.inf), exact=(1.0,), low=0.0),
    _domain(1, np.inf),
    monotone=(1,),
    low=0.0,
    steep=_EDGE,
)
_record(
    "atanh",
    "the inverse of the hyperbolic tangent",
    np.arctanh,
    curve(np.arctanh, domain=(-1, 1), **(_UP | {"exact": (-1.0, 0.0, 1.0)})),
    at("inverse-trig-domain", "the inverse of tanh is infinite at -1 and 1.", -1.0, 1.0),
    _domain(-1, 1),
    monotone=(1,),
    steep=_EDGE,
    inverse=CURVES["atanh"],
)
