"""From a result back to what went in: inverse transfer functions, as HC4-revise uses them.

A record's `inverse` says between which limits each input can lie if the result lies within its bounds. Nothing rests on it: a limit is
only a guess at where to cut. What lies beyond the limit is put through the record's own transfer function, and cut off only where no
value of the result could come from it. So a narrowed input is as sound as the forward bounds are, in every format, whatever a
library's error. A wrong guess costs precision, never a proof. Zero and NaN, which stand apart from an interval's ends, are tried alike.

Benhamou, Goualard, Granvilliers, Puget: Revising hull and box consistency (ICLP 1999).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from whynan.domain.interval import COUNTED, NAN, NEG_ZERO, POS_ZERO, ZERO, Bounds, Flags, Mask, normalised
from whynan.ir.dtype import Float64, Format, nearest, next_down, next_up
from whynan.ir.graph import Call
from whynan.ops._opdef import OPS, Inverse, bound


def invertible(name: str) -> bool:
    """Whether something can be said of an op's inputs from its result."""
    return name in OPS and OPS[name].inverse is not None


def apart(a: Bounds, b: Bounds) -> Mask:
    """Where two bounds have no value in common; +0 and -0 are told apart."""
    lo, hi = np.maximum(a.lo, b.lo), np.minimum(a.hi, b.hi)
    no_zero = (lo == 0) & (hi == 0) & (a.flags & b.flags & ZERO == 0)
    return np.asarray(((lo > hi) | no_zero) & (a.flags & b.flags & NAN == 0))


def narrowed(call: Call, result: Bounds, inputs: Sequence[Bounds]) -> list[Bounds]:
    """The inputs' bounds without what cannot give a result within `result`; the same object where nothing is cut.

    For all inputs within `inputs` for which the op gives a value within `result`, each input lies within its narrowed bounds. Bounds
    broadcast against each other element by element, as elementwise transfer functions have them, and are those of what the op sees:
    where subnormals are flushed, of numbers without them (`entering`).
    """
    inverse = OPS[call.op].inverse
    inputs = list(inputs)
    if inverse is None:
        return inputs
    with np.errstate(all="ignore"):
        limits = inverse.limits(call, _loose(call, result, inverse), *inputs)
        for i, limit in enumerate(limits):
            if limit is not None:
                inputs[i] = _Cut(call, result, inputs, i).at(*limit, margin=1 if inverse.steps else 0)
    return inputs


def _loose(call: Call, result: Bounds, inverse: Inverse) -> Bounds:
    """The result with its ends moved outward by what rounding may have done."""
    steps = inverse.steps + int(call.attrs.get("ulps", 0) if inverse.steps else 0)
    if not steps or not call.format.is_float or steps > 64:
        return result
    fmt = call.format
    return Bounds(next_down(fmt, nearest(fmt, result.lo), steps), next_up(fmt, nearest(fmt, result.hi), steps), result.flags)


@dataclass(frozen=True, slots=True, eq=False)
class _Cut:
    """One input of a call that is to be cut, with all that it takes to try a piece of it."""

    call: Call
    result: Bounds
    inputs: list[Bounds]
    i: int

    def at(self, low: Any, high: Any, margin: int) -> Bounds:
        """The input without what lies beyond the limits, and without zeros and NaN, where none of that can give the result."""
        x, fmt = self.inputs[self.i], self.call.formats[self.i]
        shape = np.broadcast_shapes(self.result.lo.shape, *(b.lo.shape for b in self.inputs))
        lo, hi = np.broadcast_to(x.lo, shape), np.broadcast_to(x.hi, shape)
        flags: Flags = np.broadcast_to(x.flags, shape)
        for special in self._special():  # first: a zero of the other sign would widen the pieces at an interval's end
            end = np.inf if special == NAN else 0.0
            cut = self._never(flags & special != 0, end, -end, flags & special)
            flags = flags if cut is None else np.where(cut, flags & ~special, flags)
        below, above = _outside(fmt, np.broadcast_to(low, shape), np.broadcast_to(high, shape), margin)
        there = lo <= hi
        cut = self._never((lo <= below) & there, lo, np.minimum(below, hi), flags & ~NAN)
        lo = lo if cut is None else np.where(cut, _step(fmt, below, 1), lo)
        cut = self._never((hi >= above) & there & (lo <= hi), np.maximum(above, lo), hi, flags & ~NAN)
        hi = hi if cut is None else np.where(cut, _step(fmt, above, -1), hi)
        if (lo == x.lo).all() and (hi == x.hi).all() and (flags == x.flags).all():
            return x
        return normalised(lo, hi, flags.astype(np.uint8), fmt)

    def _special(self) -> list[np.uint8]:
        """The flags worth a try: not what the result may be as well, nor zero where the op sees a subnormal in its place."""
        result, op = self.result, OPS[self.call.op]
        blurred = op.subnormals and self.call.formats[self.i].flush
        keeps_zero = blurred or (bool(result.may_zero.all()) and self.call.format.kind != "bool")
        return [*(() if keeps_zero else (POS_ZERO, NEG_ZERO)), *(() if result.may_nan.all() else (NAN,))]

    def _never(self, where: Mask, lo: Any, hi: Any, flags: Flags) -> Mask | None:
        """Where a piece of the input, put in its place, cannot give the result; None if that is nowhere."""
        if not np.count_nonzero(where):
            return None
        piece = normalised(np.where(where, lo, np.inf), np.where(where, hi, -np.inf), np.where(where, flags, 0).astype(np.uint8))
        cut = where & apart(bound(self.call, [*self.inputs[: self.i], piece, *self.inputs[self.i + 1 :]]), self.result)
        return cut if np.count_nonzero(cut) else None


def _outside(fmt: Format, low: Float64, high: Float64, margin: int) -> tuple[Float64, Float64]:
    """The last value below the lower limit and the first above the upper one, a margin further out; NaN where there is none."""
    if fmt.is_float:
        return next_down(fmt, nearest(fmt, low), margin + 1), next_up(fmt, nearest(fmt, high), margin + 1)
    below, above = np.ceil(low) - 1 - margin, np.floor(high) + 1 + margin
    return np.where(np.abs(below) < COUNTED, below, np.nan), np.where(np.abs(above) < COUNTED, above, np.nan)


def _step(fmt: Format, x: Float64, step: int) -> Float64:
    if not fmt.is_float:
        return x + step
    return next_up(fmt, x) if step > 0 else next_down(fmt, x)
