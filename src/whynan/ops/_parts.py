"""What several op families share: parts of bounds, integers that wrap around, common dangers."""

from typing import Any

import numpy as np
import numpy.typing as npt

from whynan.domain.interval import Bounds, Mask, make, normalised, top
from whynan.ir.graph import Call
from whynan.ops._opdef import Danger

_NOTHING = np.uint8(0)


def part(b: Bounds, low: npt.ArrayLike = -np.inf, high: npt.ArrayLike = np.inf, where: Any = True) -> Bounds:
    """The numbers of `b` between two limits, where the mask holds; elsewhere none (the empty interval)."""
    lo, hi = np.maximum(b.lo, low), np.minimum(b.hi, high)
    if where is True:
        return normalised(lo, hi, b.flags)
    return normalised(np.where(where, lo, np.inf), np.where(where, hi, -np.inf), np.where(where, b.flags, _NOTHING))


def yes_or_no(sure: npt.ArrayLike, possible: npt.ArrayLike) -> Bounds:
    """Bounds of a truth value: 1 where it is sure, 0 where it is not possible."""
    return make(np.where(sure, 1.0, 0.0), np.where(possible, 1.0, 0.0), neg_zero=False, fraction=False)


def in_range(call: Call, b: Bounds) -> Bounds:
    """For an integer result that leaves its format: anything, since it wraps around. Bools are at most 1, floats unchanged."""
    if call.format.is_float:
        return b
    if call.format.kind == "bool":
        return yes_or_no(b.lo >= 1, b.hi >= 1)
    limits = np.iinfo(call.format.numpy)
    outside = (b.lo < limits.min) | (b.hi >= float(limits.max) + 1) | b.may_nan  # NaN: an integer divided by 0
    anything = top(call.format)
    return make(np.where(outside, anything.lo, b.lo), np.where(outside, anything.hi, b.hi), neg_zero=False, fraction=False)


def signs(b: Bounds) -> tuple[Mask, Mask]:
    """Whether a number without and with a minus sign is possible, zeros included."""
    return (b.hi > 0) | b.may_pos_zero, (b.lo < 0) | b.may_neg_zero


def finite(*xs: Any) -> Any:
    """Where all of the arrays are finite."""
    return np.logical_and.reduce(np.broadcast_arrays(*[np.isfinite(x) for x in xs]))


def overflow(cause: str, because: str) -> Danger:
    """The danger that finite inputs give a result beyond the largest number of the format."""
    return Danger(cause, lambda call, *xs: finite(*xs), because)


def outside(cause: str, low: float, high: float, because: str) -> Danger:
    """The danger that an input lies outside of [low, high]."""
    return Danger(cause, lambda call, x: (x < low) | (x > high), because)


def at(cause: str, because: str, *values: float) -> Danger:
    """The danger that an input is exactly one of the values."""
    return Danger(cause, lambda call, x: np.isin(x, values), because)
