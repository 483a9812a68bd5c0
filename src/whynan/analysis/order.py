"""How two values compare, gathered from all that the graph asks of the pair: comparisons and differences.

Where x > y is known to hold, x - y is positive, and by how much at least: two floats that are not equal differ by a multiple of the
spacing of the smaller one. And where x - y is positive, x > y holds. Differences round to zero only where subnormals are flushed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from whynan.analysis.view import Vertex, View
from whynan.domain.interval import NAN, Bounds, make, meet
from whynan.ir.dtype import Float64, Format, next_up

Ways = npt.NDArray[np.int64]  # per element, the ways in which two values can compare
LESS, EQUAL, GREATER, UNORDERED = 1, 2, 4, 8
TRUE_FOR = {
    "lt": LESS,
    "le": LESS | EQUAL,
    "gt": GREATER,
    "ge": GREATER | EQUAL,
    "eq": EQUAL,
    "ne": LESS | GREATER | UNORDERED,
}
_MIRRORED = np.array([k & (EQUAL | UNORDERED) | (k & LESS) * 4 | (k & GREATER) // 4 for k in range(16)])


@dataclass(frozen=True, slots=True)
class Pair:
    """Two vertices, the comparisons of them and the differences; `swapped` where they stand the other way round."""

    first: Vertex
    second: Vertex
    comparisons: tuple[tuple[Vertex, bool], ...]
    differences: tuple[tuple[Vertex, bool], ...]


def pairs_of(view: View, vertices: Iterable[Vertex]) -> list[Pair]:
    """The pairs of floats of which one thing that is asked tells of another."""
    found: dict[tuple[Vertex, Vertex], tuple[list[tuple[Vertex, bool]], list[tuple[Vertex, bool]]]] = {}
    for v in vertices:
        op, node = view.op(v), view.node(v)
        if (op not in TRUE_FOR and op != "sub") or "ulps" in node.attrs:
            continue
        x, y = view.inputs(v)
        if x == y or not view.node(x).format.is_float or not view.node(y).format.is_float:
            continue
        asked = found.setdefault((min(x, y), max(x, y)), ([], []))
        asked[op == "sub"].append((v, x > y))
    return [Pair(x, y, tuple(c), tuple(d)) for (x, y), (c, d) in found.items() if c and len(c) + len(d) > 1]


def compared(view: View, pair: Pair, values: Mapping[Vertex, Bounds]) -> dict[Vertex, Bounds]:
    """What follows for the comparisons and differences of a pair from each other; only what becomes narrower."""
    x, y = values[pair.first], values[pair.second]
    possible = _possible(x, y)
    for v, swapped in pair.comparisons:
        true = int(_MIRRORED[TRUE_FOR[view.op(v)]]) if swapped else TRUE_FOR[view.op(v)]
        b = values[v]
        possible = possible & np.where(b.hi >= 1, true, 0) | possible & np.where(b.lo <= 0, ~true & 15, 0)
    for v, swapped in pair.differences:
        signs = _of_difference(values[v], view.node(v).format)
        possible = possible & (_MIRRORED[signs] if swapped else signs)
    out: dict[Vertex, Bounds] = {}
    for v, swapped in pair.comparisons:
        here = _MIRRORED[possible] if swapped else possible
        true = TRUE_FOR[view.op(v)]
        out[v] = make(np.where(here & ~true & 15, 0.0, 1.0), np.where(here & true, 1.0, 0.0), neg_zero=False, fraction=False)
    for v, swapped in pair.differences:
        here = _MIRRORED[possible] if swapped else possible
        out[v] = _difference(here, x, y, view.node(v).format)
    met = {v: meet(values[v], b) for v, b in out.items()}
    return {v: b for v, b in met.items() if changed(values[v], b)}


def changed(old: Bounds, new: Bounds) -> bool:
    """Whether new bounds differ from old ones."""
    return bool((new.lo != old.lo).any() or (new.hi != old.hi).any() or (new.flags != old.flags).any())


def _possible(x: Bounds, y: Bounds) -> Ways:
    """How x and y can compare, by their intervals."""
    out = (x.lo < y.hi) * LESS | (x.hi > y.lo) * GREATER | ((x.lo <= y.hi) & (x.hi >= y.lo)) * EQUAL
    return np.asarray(out | np.asarray((x.flags | y.flags) & NAN != 0) * UNORDERED)


def _of_difference(d: Bounds, fmt: Format) -> Ways:
    """How the operands can compare, by their difference. It is NaN for unordered ones and for equal infinities."""
    nan, zero = d.flags & NAN != 0, d.may_zero
    small = zero if fmt.flush else np.zeros(d.shape, bool)  # a difference that is flushed
    return np.asarray(((d.lo < 0) | small) * LESS | ((d.hi > 0) | small) * GREATER | (zero | nan) * EQUAL | nan * UNORDERED)


def _difference(possible: Ways, x: Bounds, y: Bounds, fmt: Format) -> Bounds:
    """Bounds of x - y for operands that can compare in these ways."""
    less, equal, greater, unordered = (possible & k != 0 for k in (LESS, EQUAL, GREATER, UNORDERED))
    gap = _gap(x, y, fmt)
    lo = np.where(less, -np.inf, np.where(equal, 0.0, np.where(greater, gap, np.inf)))
    hi = np.where(greater, np.inf, np.where(equal, 0.0, np.where(less, -gap, -np.inf)))
    zero = equal | (gap == 0)
    return make(lo, hi, nan=unordered | equal, pos_zero=zero, neg_zero=zero)


def _gap(x: Bounds, y: Bounds, fmt: Format) -> Float64:
    """The least magnitude of a difference of two floats that are not equal: both are multiples of the smaller one's spacing."""
    least = np.clip(np.minimum(_away(x), _away(y)), fmt.smallest, fmt.max / 4)
    power = np.ldexp(0.5, np.frexp(least)[1])  # the largest power of two that is not above it: spacing is constant up to the next one
    gap = next_up(fmt, power) - power
    return np.where(gap < fmt.tiny, 0.0, gap) if fmt.flush else np.maximum(gap, fmt.smallest)


def _away(b: Bounds) -> Float64:
    """The least magnitude that is not 0 is at least this; 0 where the interval goes through or starts at zero."""
    return np.where(b.empty | ((b.lo <= 0) & (b.hi >= 0)), 0.0, np.minimum(np.abs(b.lo), np.abs(b.hi)))
