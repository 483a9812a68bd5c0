"""Values from outside (inputs, constants, random numbers) and conversions between formats."""

from typing import Any

import numpy as np

from whynan.domain.interval import Bounds, join, make, of_array, top
from whynan.errors import OpError
from whynan.ir.dtype import FLOAT32, Array, nearest
from whynan.ir.graph import Call
from whynan.ops._inverses import CAST
from whynan.ops._opdef import Danger, define_op
from whynan.ops._parts import in_range, yes_or_no

# ---------------------------------------------------------------- conversions


def _cast(call: Call, a: Bounds) -> Bounds:
    source, target = call.formats[0], call.format
    if target.kind == "bool":
        return yes_or_no(~a.may_zero & (~a.empty | a.may_nan), (a.lo < 0) | (a.hi > 0) | a.may_nan)
    if target.is_float:
        lo, hi = _by_float32(call, a)
        return make(lo, hi, nan=a.may_nan, pos_zero=a.may_pos_zero, neg_zero=a.may_neg_zero & source.is_float, fraction=~a.integral)
    if not source.is_float:
        return in_range(call, a)
    return _truncated(call, a)


def _by_float32(call: Call, a: Bounds) -> tuple[Any, Any]:
    """The ends, each further out if it is: PyTorch and TensorFlow round a wider number to float32 on its way to a half format."""
    if call.format.numpy.itemsize != 2 or call.formats[0].numpy.itemsize <= 2:
        return a.lo, a.hi
    return np.minimum(a.lo, nearest(FLOAT32, a.lo)), np.maximum(a.hi, nearest(FLOAT32, a.hi))


def _truncated(call: Call, a: Bounds) -> Bounds:
    """Whole parts; NaN, infinities and numbers beyond the format become any integer, as the hardware likes."""
    numbers = in_range(call, make(np.trunc(a.lo), np.trunc(a.hi), neg_zero=False, fraction=False))
    anything = top(call.format)
    return join(numbers, make(np.where(a.may_nan, anything.lo, np.inf), np.where(a.may_nan, anything.hi, -np.inf), fraction=False))


def _overflows(call: Call, a: Array) -> Any:
    rounded = nearest(call.format, np.asarray(a, np.float64))
    return np.isfinite(np.asarray(a, np.float64)) & np.isinf(rounded)


define_op(
    "cast",
    "the number in another format",
    lambda call, a: np.asarray(a != 0) if call.format.kind == "bool" else a.astype(call.format.numpy),
    _cast,
    dangers=(Danger("cast-overflow", _overflows, "the number is larger than the largest one of the new format."),),
    elementwise=True,
    strict=False,
    rounding="nearest",
    monotone=(1,),
    inverse=CAST,
)

# ---------------------------------------------------------------- values from outside


def _no_value(call: Call) -> Any:
    raise OpError("an input has no value of its own.", "Give its value to the run.")


def _drawn(call: Call) -> Array:
    """Numbers within the limits, the same at every run: normally distributed where a limit is infinite, else uniform."""
    low, high = float(call.attrs["low"]), float(call.attrs["high"])
    draw = np.random.default_rng(0)
    if np.isfinite(low) and np.isfinite(high):
        return np.clip(nearest(call.format, draw.uniform(low, high, call.shape)), low, high)
    return np.clip(draw.standard_normal(call.shape), low, high)


def _random(call: Call) -> Bounds:
    one = (1,) * len(call.shape)
    return make(np.full(one, float(call.attrs["low"])), float(call.attrs["high"]), fraction=call.format.is_float, fmt=call.format)


define_op("input", "an input of the loss", _no_value, lambda call: top(call.format, len(call.shape)))

define_op(
    "const",
    "a constant",
    lambda call: np.broadcast_to(call.attrs["value"], call.shape),
    lambda call: of_array(call.attrs["value"]),
)

define_op("random", "a random number, chosen under the seed", _drawn, _random)
