"""The limits that a known result sets to an op's inputs; `ops._backward` tries them before it cuts.

Each function has the contract of `Inverse.limits`: plain interval arithmetic, where NaN stands for no limit.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from whynan.domain.interval import Bounds
from whynan.ir.dtype import next_down, next_up
from whynan.ir.graph import Call
from whynan.ops._opdef import Inverse

Limits = tuple[Any, Any]
NONE: Limits = (-np.inf, np.inf)
ROUNDED = 1  # steps for a correctly rounded op
LIBRARY = 8  # steps for a library's function


def increasing(back: Callable[[Any], Any]) -> Inverse:
    """That of an increasing function of one variable."""
    return Inverse(lambda call, r, a: [(back(r.lo), back(r.hi))], LIBRARY)


def _least(b: Bounds) -> Any:
    """The least magnitude, 0 where the interval goes through zero."""
    return np.where((b.lo <= 0) & (b.hi >= 0), 0.0, np.minimum(np.abs(b.lo), np.abs(b.hi)))


def _most(b: Bounds) -> Any:
    return np.maximum(np.abs(b.lo), np.abs(b.hi))


def _of_sign(b: Bounds, least: Any, most: Any) -> Limits:
    """Limits of a number of known sign whose magnitude lies between two others; of any number, that of its magnitude alone."""
    plus, minus = b.lo >= 0, b.hi <= 0
    return np.where(plus, least, -most), np.where(minus, -least, most)


def _add(call: Call, r: Bounds, a: Bounds, b: Bounds) -> list[Limits]:
    return [(r.lo - b.hi, r.hi - b.lo), (r.lo - a.hi, r.hi - a.lo)]


def _sub(call: Call, r: Bounds, a: Bounds, b: Bounds) -> list[Limits]:
    return [(r.lo + b.lo, r.hi + b.hi), (a.lo - r.hi, a.hi - r.lo)]


def _factor(r: Bounds, a: Bounds, b: Bounds) -> Limits:
    """Of a in a * b = r: r / b where b is not zero, else that |a| is at least |r| / |b|."""
    away = (b.lo > 0) | (b.hi < 0)
    corners = [x / y for x in (r.lo, r.hi) for y in (np.where(away, b.lo, np.nan), np.where(away, b.hi, np.nan))]
    low, high = _of_sign(a, _least(r) / _most(b), np.inf)
    return np.where(away, np.minimum.reduce(corners), low), np.where(away, np.maximum.reduce(corners), high)


def _mul(call: Call, r: Bounds, a: Bounds, b: Bounds) -> list[Limits]:
    return [_factor(r, a, b), _factor(r, b, a)]


def _div(call: Call, r: Bounds, a: Bounds, b: Bounds) -> list[Limits]:
    corners = [x * y for x in (r.lo, r.hi) for y in (b.lo, b.hi)]
    return [(np.minimum.reduce(corners), np.maximum.reduce(corners)), _of_sign(b, _least(a) / _most(r), _most(a) / _least(r))]


def _square(call: Call, r: Bounds, a: Bounds) -> list[Limits]:
    return [_of_sign(a, np.sqrt(np.maximum(r.lo, 0.0)), np.sqrt(r.hi))]


def _sqrt(call: Call, r: Bounds, a: Bounds) -> list[Limits]:
    least = np.maximum(r.lo, 0.0)
    return [(least * least, r.hi * r.hi)]


def _rsqrt(call: Call, r: Bounds, a: Bounds) -> list[Limits]:
    least = np.maximum(r.lo, 0.0)
    return [(1 / (r.hi * r.hi), 1 / (least * least))]


def _pow(call: Call, r: Bounds, a: Bounds, b: Bounds) -> list[Limits | None]:
    """Of the base, for one exponent and a base that is not negative."""
    usual = (b.lo == b.hi) & (b.lo != 0) & (a.lo >= 0)
    ends = [np.power(np.maximum(e, 0.0), 1 / np.where(usual, b.lo, np.nan)) for e in (r.lo, r.hi)]
    return [(np.minimum(*ends), np.maximum(*ends)), None]


def _maximum(call: Call, r: Bounds, a: Bounds, b: Bounds) -> list[Limits]:
    return [(np.where(other.hi < r.lo, r.lo, -np.inf), r.hi) for other in (b, a)]


def _minimum(call: Call, r: Bounds, a: Bounds, b: Bounds) -> list[Limits]:
    return [(r.lo, np.where(other.lo > r.hi, r.hi, np.inf)) for other in (b, a)]


def _clamp(call: Call, r: Bounds, a: Bounds) -> list[Limits]:
    low, high = call.attrs.get("low"), call.attrs.get("high")
    return [
        (
            r.lo if low is None else np.where(r.lo > low, r.lo, -np.inf),
            r.hi if high is None else np.where(r.hi < high, r.hi, np.inf),
        )
    ]


def _relu(call: Call, r: Bounds, a: Bounds) -> list[Limits]:
    return [(np.where(r.lo > 0, r.lo, -np.inf), r.hi)]


def _where(call: Call, r: Bounds, c: Bounds, a: Bounds, b: Bounds) -> list[Limits]:
    first, second = c.lo > 0, (c.lo >= 0) & (c.hi <= 0)
    no_first, no_second = _off(a, r), _off(b, r)
    condition = np.where(no_second & ~no_first, 1.0, 0.0), np.where(no_first & ~no_second, 0.0, 1.0)
    return [
        condition,
        (np.where(first, r.lo, -np.inf), np.where(first, r.hi, np.inf)),
        (np.where(second, r.lo, -np.inf), np.where(second, r.hi, np.inf)),
    ]


def _off(a: Bounds, r: Bounds) -> Any:
    return (a.hi < r.lo) | (a.lo > r.hi)


def _less(strict: bool, swap: bool) -> Callable[..., list[Limits]]:
    """Of x < y (or x <= y) that is surely true, or surely false: then y <= x (y < x)."""

    def limits(call: Call, r: Bounds, a: Bounds, b: Bounds) -> list[Limits]:
        fmt = call.formats[0]
        x, y = (b, a) if swap else (a, b)
        true, false = r.lo > 0, r.hi < 1
        gap_true, gap_false = strict, not strict

        def down(v: Any, gap: bool) -> Any:
            return v if not gap else next_down(fmt, v) if fmt.is_float else v - 1

        def up(v: Any, gap: bool) -> Any:
            return v if not gap else next_up(fmt, v) if fmt.is_float else v + 1

        of_x = np.where(false, up(y.lo, gap_false), -np.inf), np.where(true, down(y.hi, gap_true), np.inf)
        of_y = np.where(true, up(x.lo, gap_true), -np.inf), np.where(false, down(x.hi, gap_false), np.inf)
        return [of_y, of_x] if swap else [of_x, of_y]

    return limits


def _equal(negate: bool) -> Callable[..., list[Limits]]:
    """Of x = y: the other's range; of x != y: without the other's only value, where that is an end."""

    def limits(call: Call, r: Bounds, a: Bounds, b: Bounds) -> list[Limits]:
        fmt = call.formats[0]
        same, other = (r.hi < 1, r.lo > 0) if negate else (r.lo > 0, r.hi < 1)
        up = next_up if fmt.is_float else lambda _, v: v + 1
        down = next_down if fmt.is_float else lambda _, v: v - 1
        out = []
        for x, y in ((a, b), (b, a)):
            single = other & (y.lo == y.hi)
            low = np.where(same, y.lo, np.where(single & (x.lo == y.lo), up(fmt, x.lo), -np.inf))
            high = np.where(same, y.hi, np.where(single & (x.hi == y.hi), down(fmt, x.hi), np.inf))
            out.append((low, high))
        return out

    return limits


def _truth(b: Bounds) -> tuple[Any, Any]:
    """Whether a truth value is surely true, surely false."""
    return (b.lo > 0) & (b.flags & 1 == 0), (b.lo >= 0) & (b.hi <= 0) & (b.flags & 1 == 0)


def _is(true: Any, false: Any) -> Limits:
    return np.where(true, 1.0, 0.0), np.where(false, 0.0, 1.0)


def _and(call: Call, r: Bounds, a: Bounds, b: Bounds) -> list[Limits | None]:
    if call.format.kind != "bool" or any(f.kind != "bool" for f in call.formats):
        return [None, None]
    true, false = _truth(r)
    return [_is(true, false & _truth(other)[0]) for other in (b, a)]


def _or(call: Call, r: Bounds, a: Bounds, b: Bounds) -> list[Limits | None]:
    if call.format.kind != "bool" or any(f.kind != "bool" for f in call.formats):
        return [None, None]
    true, false = _truth(r)
    return [_is(true & _truth(other)[1], false) for other in (b, a)]


def _xor(call: Call, r: Bounds, a: Bounds, b: Bounds) -> list[Limits | None]:
    if call.format.kind != "bool" or any(f.kind != "bool" for f in call.formats):
        return [None, None]
    true, false = _truth(r)
    out: list[Limits | None] = []
    for other in (b, a):
        yes, no = _truth(other)
        out.append(_is(true & no | false & yes, true & yes | false & no))
    return out


def _not(call: Call, r: Bounds, a: Bounds) -> list[Limits | None]:
    true, false = _truth(r)
    if call.formats[0].kind != "bool":
        return [(np.where(true, 0.0, -np.inf), np.where(true, 0.0, np.inf))]
    return [_is(false, true)]


def _bitwise_not(call: Call, r: Bounds, a: Bounds) -> list[Limits | None]:
    return _not(call, r, a) if call.format.kind == "bool" else [None]


def _finite(call: Call, r: Bounds, a: Bounds) -> list[Limits]:
    true, most = r.lo > 0, call.formats[0].max
    return [(np.where(true, -most, -np.inf), np.where(true, most, np.inf))]


def _infinite(call: Call, r: Bounds, a: Bounds) -> list[Limits]:
    false, most = r.hi < 1, call.formats[0].max
    return [(np.where(false, -most, -np.inf), np.where(false, most, np.inf))]


def _cast(call: Call, r: Bounds, a: Bounds) -> list[Limits | None]:
    source, target = call.formats[0], call.format
    if target.kind == "bool":
        true, false = _truth(r)
        return [_is(true, false)] if source.kind == "bool" else [(np.where(false, 0.0, -np.inf), np.where(false, 0.0, np.inf))]
    if target.is_float or not source.is_float:
        steps = ROUNDED if target.is_float else 0
        return [(next_down(target, r.lo, steps), next_up(target, r.hi, steps)) if steps else (r.lo, r.hi)]
    return [(r.lo - 1, r.hi + 1)]  # a whole part


NEGATIVE = Inverse(lambda call, r, a: [(-r.hi, -r.lo)])
ABSOLUTE = Inverse(lambda call, r, a: [_of_sign(a, _least(r), r.hi)])
SUM, DIFFERENCE, PRODUCT, QUOTIENT = (Inverse(f, ROUNDED) for f in (_add, _sub, _mul, _div))
RECIPROCAL = Inverse(lambda call, r, a: [_of_sign(a, 1 / _most(r), 1 / _least(r))], ROUNDED)
SQUARE, SQUARE_ROOT = Inverse(_square, ROUNDED), Inverse(_sqrt, LIBRARY)
INVERSE_ROOT, POWER = Inverse(_rsqrt, LIBRARY), Inverse(_pow, LIBRARY)
MAXIMUM, MINIMUM, CLAMP, RELU, WHERE = (Inverse(f) for f in (_maximum, _minimum, _clamp, _relu, _where))
AND, OR, XOR, NOT, BITWISE_NOT = (Inverse(f) for f in (_and, _or, _xor, _not, _bitwise_not))
FINITE, INFINITE, NAN = Inverse(_finite), Inverse(_infinite), Inverse(lambda call, r, a: [NONE])
CAST = Inverse(_cast)
COMPARISONS = {
    "lt": Inverse(_less(True, False)),
    "le": Inverse(_less(False, False)),
    "gt": Inverse(_less(True, True)),
    "ge": Inverse(_less(False, True)),
    "eq": Inverse(_equal(False)),
    "ne": Inverse(_equal(True)),
    "logical_and": AND,
    "logical_or": OR,
    "logical_xor": XOR,
}
CURVES = {
    "exp": increasing(lambda y: np.log(np.maximum(y, 0.0))),
    "exp2": increasing(lambda y: np.log2(np.maximum(y, 0.0))),
    "expm1": increasing(lambda y: np.log1p(np.maximum(y, -1.0))),
    "log": increasing(np.exp),
    "log2": increasing(np.exp2),
    "log10": increasing(lambda y: np.power(10.0, y)),
    "log1p": increasing(np.expm1),
    "sigmoid": increasing(lambda y: np.log(np.clip(y, 0.0, 1.0)) - np.log1p(-np.clip(y, 0.0, 1.0))),
    "logsigmoid": increasing(lambda y: np.minimum(y, 0.0) - np.log(-np.expm1(np.minimum(y, 0.0)))),
    "tanh": increasing(lambda y: np.arctanh(np.clip(y, -1.0, 1.0))),
    "softplus": increasing(lambda y: y + np.log(-np.expm1(-np.maximum(y, 0.0)))),
    "atanh": increasing(np.tanh),
    "asinh": increasing(np.sinh),
    "sinh": increasing(np.arcsinh),
}
