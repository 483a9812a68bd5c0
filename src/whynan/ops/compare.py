"""Comparisons, logic, tests for special values, bit operations on integers. A comparison with NaN is false, `ne` is true."""

from collections.abc import Callable
from typing import Any

import numpy as np

from whynan.domain.interval import COUNTED, Bounds, Mask, make
from whynan.ir.graph import Call
from whynan.ops._inverses import AND, BITWISE_NOT, COMPARISONS, FINITE, INFINITE, NAN, NOT, OR, XOR
from whynan.ops._opdef import Inverse, Transfer, define_op
from whynan.ops._parts import in_range, yes_or_no

# ---------------------------------------------------------------- comparisons: (sure, possible)


def _less(a: Bounds, b: Bounds) -> tuple[Mask, Mask]:
    return ~_may_nan(a, b) & (a.hi < b.lo), a.lo < b.hi


def _less_equal(a: Bounds, b: Bounds) -> tuple[Mask, Mask]:
    return ~_may_nan(a, b) & (a.hi <= b.lo), a.lo <= b.hi


def _equal(a: Bounds, b: Bounds) -> tuple[Mask, Mask]:
    lo, hi = np.maximum(a.lo, b.lo), np.minimum(a.hi, b.hi)
    only_zero = (lo == 0) & (hi == 0)
    sure = ~_may_nan(a, b) & (a.lo == a.hi) & (b.lo == b.hi) & (a.lo == b.lo)
    return sure, (lo <= hi) & ~(only_zero & ~(a.may_zero & b.may_zero))


def _may_nan(a: Bounds, b: Bounds) -> Mask:
    return a.may_nan | b.may_nan


def _comparison(rule: Callable[[Bounds, Bounds], tuple[Mask, Mask]], *, swap: bool = False, negate: bool = False) -> Transfer:
    def transfer(call: Call, a: Bounds, b: Bounds) -> Bounds:
        sure, possible = rule(b, a) if swap else rule(a, b)
        return yes_or_no(~possible, ~sure) if negate else yes_or_no(sure, possible)

    return transfer


# ---------------------------------------------------------------- logic


def _truth(b: Bounds) -> tuple[Mask, Mask]:
    """Whether the value may be true (not zero; NaN is true) and may be false (zero)."""
    return (b.lo < 0) | (b.hi > 0) | b.may_nan, b.may_zero


def _logic(table: Callable[[bool, bool], bool]) -> Transfer:
    """The transfer function of a truth table: the join over the values that the operands may have."""

    def transfer(call: Call, a: Bounds, b: Bounds) -> Bounds:
        may: dict[bool, Any] = {True: np.False_, False: np.False_}
        for p, a_is in zip((True, False), _truth(a), strict=True):
            for q, b_is in zip((True, False), _truth(b), strict=True):
                may[table(p, q)] = may[table(p, q)] | a_is & b_is
        return yes_or_no(~may[False], may[True])

    return transfer


def _not(call: Call, a: Bounds) -> Bounds:
    true, false = _truth(a)
    return yes_or_no(~true, false)


# ---------------------------------------------------------------- tests for special values


def _isnan(call: Call, a: Bounds) -> Bounds:
    return yes_or_no(a.empty & a.may_nan, a.may_nan)


def _isinf(call: Call, a: Bounds) -> Bounds:
    sure = ~a.may_nan & ((a.lo == np.inf) | (a.hi == -np.inf))
    return yes_or_no(sure & ~a.empty, a.may_inf)


def _isfinite(call: Call, a: Bounds) -> Bounds:
    return yes_or_no(~a.nonfinite & ~a.empty, (a.lo < np.inf) & (a.hi > -np.inf))


# ---------------------------------------------------------------- bits


def _bits(on_bools: Transfer, f: Callable[[Any, Any], Any], reach: Callable[[Bounds, Bounds], tuple[Any, Any]]) -> Transfer:
    """Bits of bools are logic; of single integers the value itself; of other non-negative ones [reach]; else anything."""

    def transfer(call: Call, a: Bounds, b: Bounds) -> Bounds:
        if call.format.kind == "bool":
            return on_bools(call, a, b)
        lo, hi = reach(a, b)
        limits = np.iinfo(call.format.numpy)
        natural = (a.lo >= 0) & (b.lo >= 0)
        lo, hi = np.where(natural, lo, float(limits.min)), np.where(natural, hi, float(limits.max))
        small = (a.magnitude < COUNTED) & (b.magnitude < COUNTED)
        single = (a.lo == a.hi) & (b.lo == b.hi) & small
        exact = f(np.where(single, a.lo, 0).astype(np.int64), np.where(single, b.lo, 0).astype(np.int64))
        lo, hi = np.where(single, exact, lo), np.where(single, exact, hi)
        return make(lo, hi, neg_zero=False, fraction=False)

    return transfer


def _below_power_of_two(b: Any) -> Any:
    """The largest number with as many bits."""
    return 2.0 ** np.ceil(np.log2(np.maximum(b, 0.0) + 1)) - 1


def _bitwise_not(call: Call, a: Bounds) -> Bounds:
    if call.format.kind == "bool":
        return _not(call, a)
    top = float(np.iinfo(call.format.numpy).max) if call.format.numpy.kind == "u" else -1.0
    return in_range(call, make(top - a.hi, top - a.lo, neg_zero=False, fraction=False))


_AND, _OR, _XOR = _logic(lambda p, q: p and q), _logic(lambda p, q: p or q), _logic(lambda p, q: p != q)

# ---------------------------------------------------------------- the records


def _compare(name: str, text: str, evaluate: Callable[[Any, Any], Any], transfer: Transfer) -> None:
    back = COMPARISONS[name]
    define_op(name, text, lambda call, a, b: evaluate(a, b), transfer, elementwise=True, strict=False, low=0.0, high=1.0, inverse=back)


def _test(name: str, text: str, evaluate: Callable[[Any], Any], transfer: Transfer, inverse: Inverse) -> None:
    define_op(name, text, lambda call, a: evaluate(a), transfer, elementwise=True, strict=False, low=0.0, high=1.0, inverse=inverse)


_compare("eq", "whether two numbers are equal", np.equal, _comparison(_equal))
_compare("ne", "whether two numbers differ", np.not_equal, _comparison(_equal, negate=True))
_compare("lt", "whether the first number is smaller", np.less, _comparison(_less))
_compare("le", "whether the first number is not larger", np.less_equal, _comparison(_less_equal))
_compare("gt", "whether the first number is larger", np.greater, _comparison(_less, swap=True))
_compare("ge", "whether the first number is not smaller", np.greater_equal, _comparison(_less_equal, swap=True))

_compare("logical_and", "whether both are true", np.logical_and, _AND)
_compare("logical_or", "whether one of two is true", np.logical_or, _OR)
_compare("logical_xor", "whether exactly one of two is true", np.logical_xor, _XOR)
_test("logical_not", "whether the value is false", np.logical_not, _not, NOT)

_test("isnan", "whether the number is NaN", np.isnan, _isnan, NAN)
_test("isinf", "whether the number is infinite", np.isinf, _isinf, INFINITE)
_test("isfinite", "whether the number is neither infinite nor NaN", np.isfinite, _isfinite, FINITE)

define_op(
    "bitwise_and",
    "the bits that both integers have",
    lambda call, a, b: np.bitwise_and(a, b),
    _bits(_AND, np.bitwise_and, lambda a, b: (0.0, np.minimum(a.hi, b.hi))),
    elementwise=True,
    inverse=AND,
)
define_op(
    "bitwise_or",
    "the bits that one of two integers has",
    lambda call, a, b: np.bitwise_or(a, b),
    _bits(_OR, np.bitwise_or, lambda a, b: (np.maximum(a.lo, b.lo), _below_power_of_two(np.maximum(a.hi, b.hi)))),
    elementwise=True,
    inverse=OR,
)
define_op(
    "bitwise_xor",
    "the bits that exactly one of two integers has",
    lambda call, a, b: np.bitwise_xor(a, b),
    _bits(_XOR, np.bitwise_xor, lambda a, b: (0.0, _below_power_of_two(np.maximum(a.hi, b.hi)))),
    elementwise=True,
    inverse=XOR,
)
define_op(
    "bitwise_not",
    "all bits of an integer turned over",
    lambda call, a: np.bitwise_not(a),
    _bitwise_not,
    elementwise=True,
    inverse=BITWISE_NOT,
)
