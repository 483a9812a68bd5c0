"""Bounds: which floats the elements of a value can be.

A `Bounds` stands for every array whose elements lie between `lo` and `hi`, with flags for what an interval cannot say:
NaN, zeros of either sign (an interval around zero may still exclude it), and whether a value may have a fractional part.

`lo` and `hi` are float64 arrays that broadcast to the value's shape: a dimension of size 1 where the value has n says that
all n elements share one interval. That makes the cost of an analysis independent of the size of a uniform tensor.
`hi == inf` says "may be +inf", `lo == -inf` "may be -inf". An empty interval is lo = inf, hi = -inf: no number is possible
(the value is always NaN, or the branch is unreachable).
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from whynan.ir.dtype import Array, Float64, Format, nearest

Flags = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

NAN = np.uint8(1)
POS_ZERO = np.uint8(2)
NEG_ZERO = np.uint8(4)
FRACTION = np.uint8(8)
ZERO = np.uint8(6)
ALL = np.uint8(15)

COUNTED = 2.0**53  # beyond it a float64 bound does not name each whole number

_AS_FLAGS = tuple(np.uint8(n) for n in range(16))


@dataclass(frozen=True, slots=True, eq=False)
class Bounds:
    """An interval per element group, with flags. See the module's docstring."""

    lo: Float64
    hi: Float64
    flags: Flags

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the groups: the value's own, with 1 where all elements share an interval."""
        return self.lo.shape

    @property
    def may_nan(self) -> Mask:
        """Where NaN is possible."""
        return np.asarray(self.flags & NAN != 0)

    @property
    def may_zero(self) -> Mask:
        """Where a zero of either sign is possible."""
        return np.asarray(self.flags & ZERO != 0)

    @property
    def may_neg_zero(self) -> Mask:
        """Where -0.0 is possible."""
        return np.asarray(self.flags & NEG_ZERO != 0)

    @property
    def may_pos_zero(self) -> Mask:
        """Where +0.0 is possible."""
        return np.asarray(self.flags & POS_ZERO != 0)

    @property
    def integral(self) -> Mask:
        """Where every finite value is a whole number."""
        return np.asarray(self.flags & FRACTION == 0)

    @property
    def empty(self) -> Mask:
        """Where no number (NaN aside) is possible."""
        return np.asarray(self.lo > self.hi)

    @property
    def may_inf(self) -> Mask:
        """Where +inf or -inf is possible."""
        return np.asarray(((self.hi == np.inf) | (self.lo == -np.inf)) & (self.lo <= self.hi))

    @property
    def nonfinite(self) -> Mask:
        """Where NaN or an infinity is possible."""
        return self.may_nan | self.may_inf

    @property
    def finite(self) -> bool:
        """True if every element is a finite number."""
        return not bool(self.nonfinite.any())

    @property
    def magnitude(self) -> Float64:
        """The largest absolute value; 0 where empty."""
        return np.where(self.empty, 0.0, np.maximum(np.abs(self.lo), np.abs(self.hi)))


def make(
    lo: npt.ArrayLike,
    hi: npt.ArrayLike,
    *,
    nan: Any = False,
    pos_zero: Any = True,
    neg_zero: Any = True,
    fraction: Any = True,
    fmt: Format | None = None,
) -> Bounds:
    """Bounds from arrays, normalised.

    A zero flag is kept only where the interval holds zero; where the interval ends at a zero that is excluded, the end moves
    to the format's smallest value (if `fmt` is given); NaN bounds (an undefined corner) become "anything".
    """
    return normalised(lo, hi, packed(nan, pos_zero, neg_zero, fraction), fmt)


def packed(nan: Any, pos_zero: Any, neg_zero: Any, fraction: Any) -> Any:
    """The flags that four masks say (arrays of bool, or plain True and False)."""
    sure, arrays = 0, None
    for mask, bit in ((nan, NAN), (pos_zero, POS_ZERO), (neg_zero, NEG_ZERO), (fraction, FRACTION)):
        if mask is True:
            sure |= int(bit)
        elif mask is not False:
            arrays = np.multiply(mask, bit) if arrays is None else arrays | np.multiply(mask, bit)
    return _AS_FLAGS[sure] if arrays is None else arrays | _AS_FLAGS[sure] if sure else arrays


def normalised(lo: npt.ArrayLike, hi: npt.ArrayLike, flags: Any, fmt: Format | None = None) -> Bounds:
    """`make` with flags that are packed already. The rare cases are looked for first: most bounds have none of them."""
    # the sum is a fresh array with +0.0 for both zeros: the sign of a zero lives in the flags
    return _checked(np.add(lo, 0.0, dtype=np.float64), np.add(hi, 0.0, dtype=np.float64), flags, fmt)


def _checked(lo: Any, hi: Any, flags: Any, fmt: Format | None) -> Bounds:
    if lo.shape != hi.shape or lo.shape != flags.shape:
        lo, hi, flags = np.broadcast_arrays(lo, hi, flags)
    proper = _all(lo <= hi)
    if not proper:
        undefined = np.isnan(lo) | np.isnan(hi)
        lo, hi = np.where(undefined, -np.inf, lo), np.where(undefined, np.inf, hi)
        flags = np.where(undefined, ALL, flags)
    if fmt is not None:
        before = lo, hi
        lo, hi = _without_excluded_zeros(lo, hi, flags, fmt)
        proper = proper and lo is before[0] and hi is before[1]
    if not proper:
        empty = lo > hi
        lo, hi = np.where(empty, np.inf, lo), np.where(empty, -np.inf, hi)
        flags = np.where(empty, flags & NAN, flags)
    no_zero = (lo > 0) | (hi < 0)
    if _any(no_zero):
        flags = np.where(no_zero, flags & ~ZERO, flags)
    return Bounds(np.asarray(lo), np.asarray(hi), np.asarray(flags, np.uint8))


def _without_excluded_zeros(lo: Any, hi: Any, flags: Any, fmt: Format) -> tuple[Any, Any]:
    """Ends at a zero that the flags exclude, moved to the next value of the format (the next whole number)."""
    at_zero = ((lo == 0) | (hi == 0)) & (flags & ZERO == 0)
    if not _any(at_zero):
        return lo, hi
    unit = np.where(flags & FRACTION, fmt.tiny if fmt.flush else fmt.smallest, 1.0)
    return np.where(at_zero & (lo == 0), unit, lo), np.where(at_zero & (hi == 0), -unit, hi)


def _any(mask: Any) -> bool:
    """Like np.any, at a fraction of its cost on small arrays."""
    return bool(np.count_nonzero(mask))


def _all(mask: Any) -> bool:
    return bool(np.count_nonzero(mask) == mask.size)


def of_array(value: Array) -> Bounds:
    """The exact bounds of a concrete array."""
    x = np.asarray(value).astype(np.float64)
    nan = np.isnan(x)
    sign = np.signbit(x)
    lo = np.where(nan, np.inf, x)
    hi = np.where(nan, -np.inf, x)
    fraction = (x != np.floor(x)) & np.isfinite(x)
    return make(lo, hi, nan=nan, pos_zero=~sign, neg_zero=sign, fraction=fraction)


def between(lo: float, hi: float, fmt: Format, ndim: int = 0, **flags: Any) -> Bounds:
    """One interval for a whole value of `ndim` dimensions, its ends moved inward to what the format can represent."""
    one = (1,) * ndim
    flags.setdefault("fraction", fmt.is_float)
    flags.setdefault("neg_zero", fmt.is_float)
    return make(np.full(one, lo), np.full(one, hi), fmt=fmt, **flags)


def top(fmt: Format, ndim: int = 0) -> Bounds:
    """Anything the format can hold, NaN and infinities included."""
    if fmt.kind == "bool":
        return between(0, 1, fmt, ndim)
    if not fmt.is_float:
        return between(-fmt.max - 1, fmt.max, fmt, ndim)
    return between(-np.inf, np.inf, fmt, ndim, nan=True)


def any_finite(fmt: Format, ndim: int = 0) -> Bounds:
    """Any finite value of the format."""
    return between(-fmt.max, fmt.max, fmt, ndim)


def join(first: Bounds, *others: Bounds) -> Bounds:
    """The smallest bounds that hold all of them, element by element (shapes broadcast)."""
    lo, hi, flags = first.lo, first.hi, first.flags
    for b in others:
        lo, hi, flags = np.minimum(lo, b.lo), np.maximum(hi, b.hi), flags | b.flags
    return Bounds(lo, hi, flags)


def meet(a: Bounds, b: Bounds, fmt: Format | None = None) -> Bounds:
    """What both allow."""
    return normalised(np.maximum(a.lo, b.lo), np.minimum(a.hi, b.hi), a.flags & b.flags, fmt)


def join_axes(b: Bounds, axes: Iterable[int]) -> Bounds:
    """Join along axes (negative or not), keeping them with size 1; an axis of size 0 gives the empty interval."""
    axes = tuple(axes)
    lo = np.min(b.lo, axis=axes, keepdims=True, initial=np.inf)
    hi = np.max(b.hi, axis=axes, keepdims=True, initial=-np.inf)
    return Bounds(lo, hi, np.bitwise_or.reduce(b.flags, axis=axes, keepdims=True) if axes else b.flags)


def collapse(b: Bounds, ndim: int) -> Bounds:
    """One interval for all elements, with `ndim` dimensions of size 1."""
    flat = join_axes(Bounds(b.lo.reshape(-1), b.hi.reshape(-1), b.flags.reshape(-1)), (0,))
    return reshape(flat, (1,) * ndim)


def reshape(b: Bounds, shape: tuple[int, ...]) -> Bounds:
    """The same groups laid out in another shape of the same size."""
    return Bounds(b.lo.reshape(shape), b.hi.reshape(shape), b.flags.reshape(shape))


def apply(b: Bounds, move: Any) -> Bounds:
    """The groups moved by a NumPy function that only rearranges elements (transpose, index, flip, …)."""
    return Bounds(np.asarray(move(b.lo)), np.asarray(move(b.hi)), np.asarray(move(b.flags)))


def spread(b: Bounds, shape: tuple[int, ...]) -> Bounds:
    """The groups broadcast to a full shape (each element its own group)."""
    return apply(b, lambda a: np.broadcast_to(a, shape))


def with_nan(b: Bounds, where: npt.ArrayLike) -> Bounds:
    """The same with NaN possible where the mask says."""
    where = np.asarray(where)
    return Bounds(*np.broadcast_arrays(b.lo, b.hi, b.flags | np.asarray(where * NAN, np.uint8)))


def without_nan(b: Bounds) -> Bounds:
    """The same, NaN excluded."""
    return replace(b, flags=b.flags & ~NAN)


def contains(b: Bounds, value: Array) -> Mask:
    """Whether each element of a concrete array is allowed; -0.0 and +0.0 are told apart."""
    x = np.asarray(value).astype(np.float64)
    nan = np.isnan(x)
    sign = np.signbit(x)
    with np.errstate(invalid="ignore"):
        inside = (x >= b.lo) & (x <= b.hi)
        whole = (x == np.floor(x)) | ~np.isfinite(x)
    zero_ok = np.where(sign, b.may_neg_zero, b.may_pos_zero)
    return np.asarray(np.where(nan, b.may_nan, inside & np.where(x == 0, zero_ok, True) & (whole | ~b.integral)))


def settle(b: Bounds, fmt: Format) -> Bounds:
    """Move the ends to the nearest values of the format.

    Sound for correctly rounded operations whose exact result lies within `b`: rounding to nearest is monotone.
    With flushed subnormals, ends between 0 and `tiny` reach to zero.
    """
    lo, hi = nearest(fmt, b.lo), nearest(fmt, b.hi)
    flags: Any = b.flags
    # a nonzero exact result may round to a zero of its own sign
    reach = fmt.tiny if fmt.flush else fmt.smallest
    near = (lo < reach) & (hi > -reach)
    if fmt.is_float and _any(near):
        below_down, above_down = near & (b.lo < 0), near & (b.hi > 0)
        if fmt.flush:
            lo, hi = np.where(above_down & (lo > 0), 0.0, lo), np.where(below_down & (hi < 0), 0.0, hi)
        flags = flags | above_down * POS_ZERO | below_down * NEG_ZERO
    return normalised(lo, hi, flags)


def entering(b: Bounds, fmt: Format) -> Bounds:
    """A value as the operations that read it see it: where subnormals are flushed, one of those is a zero of its sign."""
    if not fmt.flush:
        return b
    return flushed_ends(settle(b, fmt), fmt)


def flushed_ends(b: Bounds, fmt: Format) -> Bounds:
    """Bounds of a result in a format that flushes subnormals: an end that is one is a zero of its sign."""
    low, high = (np.abs(end) < fmt.tiny for end in (b.lo, b.hi))
    plus, minus = low & (b.lo > 0) | high & (b.hi > 0), low & (b.lo < 0) | high & (b.hi < 0)
    if not _any(plus | minus):
        return b
    lo, hi = np.where(low, 0.0, b.lo), np.where(high, 0.0, b.hi)
    return normalised(lo, hi, b.flags | plus * POS_ZERO | minus * NEG_ZERO)
