"""Bounds of functions that a library computes approximately: outward rounding, and curves with known turning points.

The transfer functions built here have rounded already; their ops say `rounding="exact"`. Three facts make them tighter than
rounding every end by the library's error: a result that is an exact zero stays one, inputs listed as exact give the exact result
(exp(0) is 1 in every library), and half precision is computed in float32 and rounded once.
"""

from collections.abc import Callable, Iterable
from functools import reduce
from operator import or_
from typing import Any

import numpy as np
import numpy.typing as npt

from whynan.domain.interval import Bounds, join, make
from whynan.ir.dtype import FLOAT32, Float64, Format, nearest, next_down
from whynan.ir.graph import Call
from whynan.ops._opdef import Transfer
from whynan.ops._parts import signs

Function = Callable[[Any], Any]

FINITE = float(np.finfo(np.float64).max)
_UNDERFLOW = float(np.finfo(np.float64).smallest_subnormal)
ULPS = 4  # SLEEF's and MKL's vector functions state 1 ulp, SVML (NumPy) 4; Eigen's expansions err by about 2
FLUSHED_ULPS = 7  # XLA's expansions, in formats that flush: 5.4 were found for exp and expm1, 6.5 for tanh, 5.3 for atan2


def stated(fmt: Format, ulps: int) -> int:
    """By how many units a function with the usual error errs in that format."""
    return max(ulps, FLUSHED_ULPS) if fmt.flush and ulps >= ULPS else ulps


def working_format(fmt: Format) -> Format:
    """The format in which a library computes a function whose result has format `fmt`: float32 for half precision."""
    return FLOAT32 if fmt.is_float and fmt.numpy.itemsize == 2 else fmt


def outward(
    fmt: Format,
    lo: npt.ArrayLike,
    hi: npt.ArrayLike,
    *,
    ulps: int = ULPS,
    slack: npt.ArrayLike = 0.0,
    keep_lo: npt.ArrayLike = False,
    keep_hi: npt.ArrayLike = False,
    half_ulps: int = 0,
    **flags: Any,
) -> Bounds:
    """Bounds of what a library returns for exact results between `lo` and `hi` (lo > hi: no result).

    The library errs by `ulps` units in the last place plus `slack` (absolute), both in the working format, and in half
    precision by `half_ulps` more; ends marked `keep` are exact. `flags` go to `make`: `pos_zero` and `neg_zero` say which
    zeros an exact zero result can be (+0 alone by default); zeros by underflow are added here.
    """
    work, ulps = working_format(fmt), stated(fmt, ulps)
    lo, hi = np.asarray(lo, np.float64), np.asarray(hi, np.float64)
    below, above = _below(work, lo, ulps, slack, keep_lo), -_below(work, -hi, ulps, slack, keep_hi)
    empty = lo > hi
    return _finished(fmt, np.where(empty, np.inf, below), np.where(empty, -np.inf, above), half_ulps, flags)


def _below(work: Format, y: Any, ulps: int, slack: Any, keep: Any) -> Any:
    """The least value that a library may return for an exact result y. Without slack it does not cross zero."""
    slack = np.asarray(slack)
    start = np.where(slack > 0, y - slack, y) if slack.any() else y
    stepped = next_down(work, nearest(work, start), ulps)
    stepped = np.where((y >= 0) & (slack == 0), np.maximum(stepped, 0.0), stepped)
    stepped = np.where((stepped > 0) & (stepped < work.tiny), 0.0, stepped)  # some libraries flush subnormal results
    stepped = np.where(start > work.max * (1 + (ulps + 1) * work.eps), np.inf, stepped)
    return np.where(keep, nearest(work, y), stepped)


def _finished(fmt: Format, lo: Float64, hi: Float64, half_ulps: int, flags: dict[str, Any]) -> Bounds:
    """Round ends from the working format to the result's, and add the zeros that underflow makes."""
    lo, hi = _narrowed(fmt, lo, half_ulps), -_narrowed(fmt, -hi, half_ulps)
    flags["pos_zero"] = flags.get("pos_zero", True) | (lo <= 0) & (hi > 0)
    flags["neg_zero"] = flags.get("neg_zero", False) | (lo < 0) & (hi >= 0)
    return make(lo, hi, fmt=fmt, **flags)


def _narrowed(fmt: Format, lo: Float64, half_ulps: int) -> Float64:
    lo = nearest(fmt, lo)
    if half_ulps and fmt.numpy.itemsize == 2:
        lo = np.where((lo == 0) | np.isinf(lo), lo, next_down(fmt, lo, half_ulps))
    return np.where((lo > 0) & (lo < fmt.tiny), 0.0, lo) if fmt.flush else lo


def _one_of(*values: float) -> Function:
    return lambda x: reduce(or_, (x == v for v in values), np.False_)


def curve(
    f: Function,
    *,
    ulps: int = ULPS,
    domain: tuple[float, float] = (-np.inf, np.inf),
    turns: Iterable[float] = (),
    exact: Iterable[float] | Function = (),
    odd: bool = False,
    straight: bool = False,
    low: float = -np.inf,
    high: float = np.inf,
    slack: Callable[[Any, Format], Any] | None = None,
    half_ulps: int = 0,
    early: float = 1.0,
    either_zero: bool = False,
) -> Transfer:
    """The transfer function of a continuous real function of one variable.

    Between its `turns` (local extremes) f is monotone; outside of `domain` it is NaN. Results for inputs in `exact` (or where it
    says so) and for infinite inputs have no error, and none lies outside of `low` and `high`.

    `odd`: the result has the sign of the input, zeros included. `straight`: the slope at zero is 1, so that a subnormal input is
    its own result. `slack(x, format)`: an absolute error beside the relative one. `half_ulps`: the further error of kernels that
    round half precision at each step. `early`: beyond this part of the largest number, kernels may overflow on the way.
    `either_zero`: a zero may lose its minus sign (or, if f is not odd, have either).
    """
    turning = tuple(np.float64(t) for t in turns)
    known = exact if callable(exact) else _one_of(*exact)

    def transfer(call: Call, a: Bounds) -> Bounds:
        work = working_format(call.format)
        lo, hi = np.maximum(a.lo, domain[0]), np.minimum(a.hi, domain[1])
        error = 0.0 if slack is None else np.maximum(slack(lo, call.format), slack(hi, call.format))
        x = np.stack(np.broadcast_arrays(lo, hi, *turning))
        there = (lo <= x) & (x <= hi)
        y = np.asarray(f(np.where(there, x, 1.0)), np.float64)
        if odd:
            y = np.where((y == 0) & (x != 0) & np.isfinite(x), np.copysign(_UNDERFLOW, x), y)
        keep = known(x) | np.isinf(x) | (straight & (np.abs(x) < work.tiny))
        # the greatest is the least of the negatives: both ends of all points go through one pass
        ends = np.where(there, _below(work, np.stack((y, -y)), stated(call.format, ulps), error, keep), np.inf).min(axis=1)
        below, above = ends[0], -ends[1]
        below, above = np.where(lo <= hi, np.maximum(below, low), below), np.where(lo <= hi, np.minimum(above, high), above)
        if early < 1:
            below = np.where((below < -work.max * early) & (lo <= hi), -np.inf, below)
            above = np.where((above > work.max * early) & (lo <= hi), np.inf, above)
        zeros: dict[str, Any] = dict(zip(("pos_zero", "neg_zero"), signs(a), strict=True)) if odd else {}
        if either_zero:
            zeros = {"neg_zero": True} | zeros | {"pos_zero": True}
        nan = ((a.lo < domain[0]) | (a.hi > domain[1])) & ~a.empty
        return _finished(call.format, below, above, half_ulps, {"nan": nan, **zeros})

    return transfer


def unflushed(call: Call, b: Bounds) -> Bounds:
    """The same with what a zero may really be, for functions that know subnormals in formats that flush them elsewhere.

    (TensorFlow takes logarithms and powers of arrays of one element by the C library, which does not flush.)
    """
    tiny = call.format.tiny
    above = make(np.where(b.may_pos_zero, 0.0, np.inf), np.where(b.may_pos_zero, tiny, -np.inf), neg_zero=False)
    return join(b, above, make(np.where(b.may_neg_zero, -tiny, np.inf), np.where(b.may_neg_zero, 0.0, -np.inf), pos_zero=False))


def knowing_subnormals(transfer: Transfer) -> Transfer:
    """The transfer function of one operand, for a function that knows subnormals everywhere."""
    return lambda call, a: transfer(call, unflushed(call, a) if call.format.flush else a)
