"""One record per operation: how it is run, what bounds it gives, what can go wrong in it, in words.

The functions of a record see a `Call` (attributes, shapes, formats) and their inputs, never the graph around them.

`evaluate(call, *arrays)` computes the result with NumPy in the arrays' own dtype. Arrays may have batch dimensions in front
(all inputs the same ones), so axes are negative. `run` prepares the inputs: half precision is computed in float32 and
rounded, as the frameworks do on a CPU; with `wide=True` every float is a float64.

`transfer(call, *bounds)` gives bounds for the exact result on all arrays that the inputs' bounds stand for; `bound` then
rounds them outward as `rounding` says:

- `"nearest"`: the operation is correctly rounded (IEEE 754 says so for + - * / sqrt): ends move to the nearest value.
- an integer n: the library's function errs by at most n ulps: ends move to the nearest value and n values outward.
- `"exact"`: the result is representable as it stands, or the transfer function has rounded already.

A node's attribute `ulps` (a front end's, where a framework's kernel is less accurate than the record says) moves the ends that many
values further, but for zeros.

An elementwise op's transfer sees arrays that broadcast against each other and may have one more dimension in front (many boxes
at once); it must be plain NumPy broadcasting. A strict op's result is NaN where an input is NaN: `bound` sees to that and
to empty inputs, the transfer need not.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from whynan.domain.interval import NAN, Bounds, flushed_ends, make, settle, top
from whynan.errors import OpError
from whynan.ir.dtype import Array, Float64, Format, from_ordinal, next_down, next_up, ordinal
from whynan.ir.graph import Call

Evaluate = Callable[..., Any]
Transfer = Callable[..., Bounds]


@dataclass(frozen=True, slots=True)
class Danger:
    """A condition on one op's concrete inputs under which its result is NaN or infinite.

    `when(call, *arrays)` is a mask over the result's elements (or one that broadcasts to it). `because` is a sentence for the user.
    """

    cause: str
    when: Callable[..., Any]
    because: str


@dataclass(frozen=True, slots=True)
class Inverse:
    """Between which limits each input can lie if the result lies within its bounds; `ops._backward` says what rests on it: nothing.

    `limits(call, result, *inputs)` gives per input the ends (lo, hi), arrays that broadcast to the result, or None where nothing can be
    said. `steps` are the representable values by which the result's ends are moved outward first, to make up for rounding.
    """

    limits: Callable[..., Sequence[tuple[Any, Any] | None]]
    steps: int = 0


@dataclass(frozen=True, slots=True)
class OpDef:
    """All facts about one operation. See the module's docstring for the functions' contracts.

    `monotone` gives per input +1 (never decreasing), -1 (never increasing) or 0. `moves` says that each element of the result
    is an element of the first input (shape operations), copied as it is, a subnormal too. `subnormals` says that it sees subnormal
    operands also where they are flushed. `inverse` tells what a known result says of the inputs.
    """

    name: str
    text: str
    evaluate: Evaluate
    transfer: Transfer
    dangers: tuple[Danger, ...] = ()
    elementwise: bool = False
    strict: bool = True
    rounding: str | int = "exact"
    monotone: tuple[int, ...] = ()
    moves: bool = False
    steep: str = ""
    subnormals: bool = False
    low: float = field(default=-np.inf)  # results never lie below or above these, whatever the library's error
    high: float = field(default=np.inf)
    inverse: Inverse | None = None


_OPS: dict[str, OpDef] = {}
OPS = MappingProxyType(_OPS)


def define_op(name: str, text: str, evaluate: Evaluate, transfer: Transfer, **facts: Any) -> OpDef:
    """Register an op and return its record; a second record of the same name is an error."""
    if name in _OPS:
        raise OpError(f"the op {name!r} is defined twice.")
    record = OpDef(name, text, evaluate, transfer, **facts)
    if not isinstance(record.rounding, int) and record.rounding not in ("nearest", "exact"):
        raise OpError(f"the op {name!r} has an unknown rounding {record.rounding!r}.")
    _OPS[name] = record
    return record


def known(name: str) -> bool:
    """Whether whynan has a record for the op."""
    return name in _OPS


def bound(call: Call, inputs: Iterable[Bounds]) -> Bounds:
    """Bounds of a node's result from those of its inputs; anything at all if the op is unknown."""
    op = _OPS.get(call.op)
    inputs = tuple(inputs)
    if op is None:
        return top(call.format, len(call.shape))
    with np.errstate(all="ignore"):
        result = _rounded(op, call, op.transfer(call, *inputs))
        result = flushed_ends(result, call.format) if call.format.flush and not op.moves else result
        result = _loosened(result, op, call) if "ulps" in call.attrs else result
        return _strict(result, inputs) if op.strict and op.elementwise else result


def _rounded(op: OpDef, call: Call, b: Bounds) -> Bounds:
    if op.rounding == "exact" or not call.format.is_float:
        return b
    settled = settle(b, call.format)
    if op.rounding == "nearest":
        return settled
    lo = np.maximum(next_down(call.format, settled.lo, int(op.rounding)), op.low)
    hi = np.minimum(next_up(call.format, settled.hi, int(op.rounding)), op.high)
    # a library may flush a subnormal result to zero
    lo = np.where((lo > 0) & (lo < call.format.tiny), 0.0, lo)
    hi = np.where((hi < 0) & (hi > -call.format.tiny), 0.0, hi)
    lo, hi = np.where(settled.empty, np.inf, lo), np.where(settled.empty, -np.inf, hi)
    return make(
        lo,
        hi,
        nan=settled.may_nan,
        pos_zero=settled.may_pos_zero | (lo == 0) | ((lo < 0) & (settled.lo >= 0)),
        neg_zero=settled.may_neg_zero | (hi == 0) | ((hi > 0) & (settled.hi <= 0)),
        fraction=True,
    )


def _loosened(b: Bounds, op: OpDef, call: Call) -> Bounds:
    """Bounds with both ends `ulps` values further out; a zero stays one, nothing crosses it, nor what the op's results never cross."""
    ulps, fmt = int(call.attrs["ulps"]), call.format
    least, most = np.where(b.lo > 0, 0.0, op.low), np.where(b.hi < 0, 0.0, op.high)
    lo = np.where((b.lo == 0) | b.empty, b.lo, np.maximum(_shifted(fmt, b.lo, -ulps), least))
    hi = np.where((b.hi == 0) | b.empty, b.hi, np.minimum(_shifted(fmt, b.hi, ulps), most))
    if fmt.flush:
        lo, hi = np.where((lo > 0) & (lo < fmt.tiny), 0.0, lo), np.where((hi < 0) & (hi > -fmt.tiny), 0.0, hi)
    pos, neg = b.may_pos_zero | (lo == 0) & (b.hi > 0), b.may_neg_zero | (hi == 0) & (b.lo < 0)
    return make(lo, hi, nan=b.may_nan, pos_zero=pos, neg_zero=neg)


def _shifted(fmt: Format, x: npt.ArrayLike, steps: int) -> Float64:
    """The value that lies so many representable values above x, at most an infinity."""
    last = ordinal(fmt, np.inf)
    return from_ordinal(fmt, np.clip(ordinal(fmt, x) + steps, -last, last))


def _strict(result: Bounds, inputs: tuple[Bounds, ...]) -> Bounds:
    if all(_always_number(b) for b in inputs):
        return result
    nan: Any = np.uint8(0)
    empty: Any = np.False_
    for b in inputs:
        nan = nan | (b.flags & NAN)
        empty = empty | b.empty
    lo, hi, flags, nan, empty = np.broadcast_arrays(result.lo, result.hi, result.flags, nan, empty)
    kept = np.where(empty, 0, flags)  # no number comes out where no number goes in
    return Bounds(np.where(empty, np.inf, lo), np.where(empty, -np.inf, hi), np.asarray(kept | nan, np.uint8))


def _always_number(b: Bounds) -> bool:
    """Whether NaN is nowhere possible and a number everywhere."""
    return not np.count_nonzero(b.flags & NAN) and bool(np.count_nonzero(b.lo <= b.hi) == b.lo.size)


def run(call: Call, arrays: Iterable[Array], *, wide: bool = False) -> Array:
    """The op's result on concrete arrays, in the node's own format, or with every float in float64 (`wide`).

    Raises OpError for an op without a record.
    """
    with np.errstate(all="ignore"):
        return run_quietly(call, arrays, wide)


def run_quietly(call: Call, arrays: Iterable[Array], wide: bool) -> Array:
    """The same for callers that have silenced NumPy's warnings: for many small runs that is what costs most."""
    op = _OPS.get(call.op)
    if op is None:
        raise OpError(f"the op {call.op!r} is unknown and cannot be run.")
    ready = [_prepared(a, wide) for a in arrays]
    if wide and call.op == "cast" and call.format.is_float and call.formats[0].is_float:
        return ready[0]
    if not wide and not (op.subnormals or op.moves) and any(f.flush for f in call.formats):
        ready = [_flushed(a, f) for a, f in zip(ready, call.formats, strict=True)]
    if op.elementwise:
        ready = _aligned(ready, call)
    result = np.asarray(op.evaluate(call, *ready))
    result = result.astype(np.float64 if wide and call.format.is_float else call.format.numpy, copy=False)
    return result if wide or op.moves else _flushed(result, call.format)


def _flushed(a: Array, fmt: Format) -> Array:
    """The array with subnormals as zeros of their sign, where the format says so."""
    if not fmt.flush or not a.size:
        return a
    small = (np.abs(a) < a.dtype.type(fmt.tiny)) & (a != 0)
    return np.where(small, np.copysign(a.dtype.type(0), a), a) if small.any() else a


def _prepared(a: Array, wide: bool) -> Array:
    if a.dtype == np.float32 or a.dtype == np.float64 or a.dtype.kind in "iub":
        return a.astype(np.float64) if wide and a.dtype == np.float32 else a
    return a.astype(np.float64 if wide else np.float32)


def _aligned(arrays: list[Array], call: Call) -> list[Array]:
    """Insert unit dimensions so that batched inputs of different rank broadcast element for element."""
    rank = len(call.shape)
    if all(len(shape) == rank for shape in call.shapes):
        return arrays
    out = []
    for a, shape in zip(arrays, call.shapes, strict=True):
        batch = a.shape[: a.ndim - len(shape)]
        out.append(a.reshape(batch + (1,) * (rank - len(shape)) + a.shape[len(batch) :]))
    return out


def mask(x: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """An array as booleans, for the `when` of a danger."""
    return np.asarray(x, bool)
