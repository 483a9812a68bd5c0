"""The numerical cost of a term: open dangers first, then dead gradient, digits lost, then what it costs to compute.

A danger is an operation whose result, or whose slope, may be NaN or infinite although its operands are finite, by the bounds of the
ops' records. A slope counts at once: a gradient that passes through it is not looked at further. All of it is a guess that orders proposals.
"""

from functools import lru_cache

import numpy as np

from whynan.domain.interval import Bounds
from whynan.fixes._pattern import build, match
from whynan.fixes._ranges import EXPANSIONS, Ranges, interval
from whynan.ir.dtype import Format
from whynan.ir.term import Term, parse, walk

_SLOPES = {
    "log(X)": "1 / X",
    "log2(X)": "1 / X",
    "log10(X)": "1 / X",
    "log1p(X)": "1 / (1 + X)",
    "sqrt(X)": "1 / sqrt(X)",
    "rsqrt(X)": "1 / (X * sqrt(X))",
    "X ** C": "X ** C / X",
    "X ** Y": "X ** Y / X",
    "X / Y": "X / (Y * Y)",
    "reciprocal(X)": "1 / (X * X)",
    "acos(X)": "1 / sqrt(1 - X * X)",
    "asin(X)": "1 / sqrt(1 - X * X)",
    "atanh(X)": "1 / (1 - X * X)",
    "acosh(X)": "1 / sqrt(X * X - 1)",
    "atan2(Y, X)": "1 / (X * X + Y * Y)",
    "norm(X, axis=A, keepdims=K, p=P)": "1 / norm(X, axis=A, keepdims=K, p=P)",
    "std(X, axis=A, keepdims=K, correction=B)": "1 / std(X, axis=A, keepdims=K, correction=B)",
    "xlogy(X, Y)": "X / Y",
}
SLOPES = tuple((parse(left), parse(right)) for left, right in _SLOPES.items())

_PRICES = {"leaf": 0.0, "number": 0.0, "neg": 0.5, "move": 0.5, "cast": 1.0, "detach": 0.0, "zeros_like": 0.5, "dtype_of": 1.0}
_CHEAP = frozenset(
    "add sub mul abs where maximum minimum clamp clamp_min clamp_max eq ne lt le gt ge relu square sum mean amax amin".split()
)
_FLAT = frozenset("sign floor ceil round".split())
_CLAMPS = frozenset("clamp clamp_min clamp_max".split())
_EXACT = frozenset("leaf number neg abs move cast gather detach amax amin maximum minimum relu".split())

Cost = tuple[float, float, float, float]


def key(ranges: Ranges) -> tuple[tuple[str, tuple[float, float]], ...]:
    """Ranges in a form that can be looked up."""
    return tuple(sorted(ranges.items()))


def dangerous(t: Term, ranges: Ranges, fmt: Format) -> bool:
    """Whether the term's own operation may make a non-finite value or slope out of finite operands."""
    return _dangerous(t, key(ranges), fmt)


@lru_cache(maxsize=20000)
def _dangerous(t: Term, ranges: tuple[tuple[str, tuple[float, float]], ...], fmt: Format) -> bool:
    if t.op in ("leaf", "number", "opaque", "move") or t.op in EXPANSIONS or t.op.startswith("finfo_"):
        return False
    known = dict(ranges)
    if not interval(t, known, fmt).finite:
        return all(interval(a, known, fmt).finite for a in t.args) or t.op in ("log", "exp", "div", "sqrt")
    return any(not interval(slope, known, fmt).finite for slope in _slopes(t))


def _slopes(t: Term) -> list[Term]:
    if t.op in ("pow",) and _whole_power(t):
        return []
    return [build(right, b) for left, right in SLOPES for b in match(left, t)][:1]


def _whole_power(t: Term) -> bool:
    exponent = t.args[1].attr("value")
    return isinstance(exponent, float) and exponent >= 1


def cost(t: Term, ranges: Ranges, fmt: Format) -> Cost:
    """Open dangers, clamps and flat steps, cancellations, and price; less is better. A part that stands twice counts once."""
    parts = {s for _, s in walk(t)}
    dangers = sum(dangerous(s, ranges, fmt) for s in parts)
    dead = sum(s.op in _CLAMPS or s.op in _FLAT for s in parts)
    lost = sum(_cancels(s, ranges, fmt) for s in parts)
    return float(dangers), float(dead), float(lost), sum(price(s) for s in parts)


def price(t: Term) -> float:
    """What one operation costs, in additions, with a little for each thing to be read."""
    return (0.1 if t.op in ("leaf", "number") else 0.3) + _PRICES.get(t.op, 1.0 if t.op in _CHEAP else 3.0)


def _cancels(t: Term, ranges: Ranges, fmt: Format) -> bool:
    """Whether a sum of computed values may be far smaller than they are."""
    if t.op not in ("add", "sub") or all(a.op in _EXACT for a in t.args):
        return False
    total, inner = interval(t, ranges, fmt), [interval(a, ranges, fmt) for a in t.args]
    return bool(_smallest(total) * 1e3 < min(float(np.max(b.magnitude)) for b in inner))


def _smallest(b: Bounds) -> float:
    low, high = float(np.min(b.lo)), float(np.max(b.hi))
    return 0.0 if low <= 0 <= high else min(abs(low), abs(high))
