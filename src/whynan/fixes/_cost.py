"""The numerical cost of a term: open dangers first, then dead gradient, digits lost, then what it costs to compute.

A danger is an operation whose result, or whose slope, may be NaN or infinite although its operands are finite, by the bounds of the
ops' records. A slope counts at once: a gradient that passes through it is not looked at further. All of it is a guess that orders
proposals.
"""

from collections.abc import Callable, Sequence

import numpy as np

from whynan.domain.interval import Bounds
from whynan.fixes._ranges import EXPANSIONS, Ranges, interval
from whynan.ir.dtype import Format
from whynan.ir.term import Term, walk

Cost = tuple[float, float, float, float]
Ends = tuple[float, float]

_PRICES = {"leaf": 0.0, "number": 0.0, "neg": 0.5, "move": 0.5, "cast": 1.0, "detach": 0.0, "zeros_like": 0.5, "dtype_of": 1.0}
_CHEAP = frozenset(
    "add sub mul abs where maximum minimum clamp clamp_min clamp_max eq ne lt le gt ge relu square sum mean amax amin".split()
)
_DEAD = frozenset("clamp clamp_min clamp_max sign floor ceil round".split())
_EXACT = frozenset("leaf number neg abs move cast gather detach amax amin maximum minimum relu".split())
_UNSEEN = frozenset(EXPANSIONS) - {"std", "kl_div"} | {"leaf", "number", "opaque", "move"}
_SELF_MADE = frozenset("log exp div sqrt".split())


def _near_zero(x: Ends, limit: float) -> bool:
    return x[0] <= limit and x[1] >= -limit


# whether the slope may be infinite where the operands lie between these ends; `small` is the reciprocal of the largest number
_STEEP: dict[str, Callable[[Sequence[Ends], float], bool]] = {
    **dict.fromkeys(("log", "log2", "log10", "norm"), lambda x, small: x[0][0] <= small and x[0][1] >= -small),
    "log1p": lambda x, small: 1 + x[0][0] <= small,
    **dict.fromkeys(("sqrt", "std"), lambda x, small: x[0][0] <= 0),
    "rsqrt": lambda x, small: x[0][0] <= small ** (2 / 3),
    "pow": lambda x, small: x[0][0] <= small and x[1][0] < 1,
    "div": lambda x, small: _near_zero(x[1], max(small, (max(map(abs, x[0])) * small) ** 0.5)),
    "reciprocal": lambda x, small: _near_zero(x[0], small**0.5),
    **dict.fromkeys(("acos", "asin", "atanh"), lambda x, small: x[0][0] <= -1 or x[0][1] >= 1),
    "acosh": lambda x, small: x[0][0] <= 1,
    "atan2": lambda x, small: _near_zero(x[0], small**0.5) and _near_zero(x[1], small**0.5),
    "hypot": lambda x, small: _near_zero(x[0], small**0.5) and _near_zero(x[1], small**0.5),
    "kl_div": lambda x, small: x[1][0] <= small,
    "xlogy": lambda x, small: x[1][0] <= small,
}


def dangerous(t: Term, ranges: Ranges, fmt: Format) -> bool:
    """Whether the term's own operation may make a non-finite value or slope out of finite operands."""
    return _dangerous(t, [interval(a, ranges, fmt) for a in t.args], interval(t, ranges, fmt), fmt)


def _dangerous(t: Term, inner: Sequence[Bounds], out: Bounds, fmt: Format) -> bool:
    if t.op in _UNSEEN or t.op.startswith("finfo_"):
        return False
    if not out.finite:
        return t.op in _SELF_MADE or all(b.finite for b in inner)
    steep = _STEEP.get(t.op)
    return steep is not None and steep([_ends(b) for b in (*inner, out)], 1 / fmt.max)


def _ends(b: Bounds) -> Ends:
    return float(np.min(b.lo)), float(np.max(b.hi))


def cost(t: Term, ranges: Ranges, fmt: Format) -> Cost:
    """Open dangers, clamps and flat steps, cancellations, and price; less is better. A part that stands twice counts once."""
    parts = {s for _, s in walk(t)}
    own = [own_cost(s, [interval(a, ranges, fmt) for a in s.args], interval(s, ranges, fmt), fmt) for s in parts]
    dangers, dead, lost, paid = (sum(column) for column in zip(*own, strict=True))
    return dangers, dead, lost, paid


def own_cost(t: Term, inner: Sequence[Bounds], out: Bounds, fmt: Format) -> Cost:
    """The cost of a term's outermost operation alone, given the bounds of its operands and its result."""
    return float(_dangerous(t, inner, out, fmt)), float(t.op in _DEAD), float(_cancels(t, inner, out)), price(t.op)


def price(op: str) -> float:
    """What one operation costs, in additions, with a little for each thing to be read."""
    return (0.1 if op in ("leaf", "number") else 0.3) + _PRICES.get(op, 1.0 if op in _CHEAP else 3.0)


def _cancels(t: Term, inner: Sequence[Bounds], out: Bounds) -> bool:
    """Whether a sum of computed values may be far smaller than they are."""
    if t.op not in ("add", "sub") or all(a.op in _EXACT for a in t.args):
        return False
    low, high = _ends(out)
    smallest = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
    return smallest * 1e3 < min(float(np.max(b.magnitude)) for b in inner)
