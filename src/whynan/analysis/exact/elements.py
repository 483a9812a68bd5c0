"""Elements of values as polynomials: what each would be in exact arithmetic, and how far the computed one can be from that.

An element is a vertex (`analysis.view`) whose axes may also be numbers: an axis of `FIRST + k` stands for index k, any other for
"the same index, whichever it is". So a sum along a row becomes the sum of its elements, while all rows are treated at once.

What cannot be followed (an unknown operation, an index that depends on values, an error that grows too large) becomes a leaf: its
computed value itself, exact by definition.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import product as tuples
from math import inf, isfinite, prod

import numpy as np

from whynan.analysis.exact.atoms import TINY, Atoms
from whynan.analysis.exact.poly import Poly, constant, minus, plus, rational, scaled
from whynan.analysis.view import Vertex, View
from whynan.domain.interval import Bounds
from whynan.ir.dtype import Format
from whynan.ir.graph import Node

FIRST = 1 << 20  # axes from here on are concrete indices
MOST_TERMS = 400  # of one polynomial
MOST_FACTORS = 6000  # products of terms in one multiplication
NEGLIGIBLE = 1e-4  # a term of an error that is so much smaller than the largest one is taken for its largest value
MOST_SUMMED = 64  # elements of one reduction
MOST_ELEMENTS = 6000  # elements looked at in one analysis
MOST_DEPTH = 150

Rules = Mapping[str, Callable[["Elements", Vertex, Node], "Value | None"]]


@dataclass(frozen=True, slots=True)
class Value:
    """An exact value, and how far the computed one is from it: |computed - exact| <= relative |exact| + absolute.

    The absolute error is a polynomial too, since errors are small where values are: that of log p, times p, is small everywhere.
    """

    poly: Poly
    relative: float = 0.0
    absolute: Poly = field(default_factory=dict)


def negated(value: Value) -> Value:
    """The negative of a value."""
    return Value(scaled(value.poly, -1), value.relative, value.absolute)


class Elements:
    """Follows elements to their leaves, remembering what it found. `bounds` are those of all nodes so far.

    `rules` say by operation how an element is followed; None comes from them where it cannot be. Nodes up to `cut` are leaves: errors then
    count from there on.
    """

    def __init__(self, view: View, bounds: list[Bounds | None], rules: Rules, cut: int = -1) -> None:
        self.view, self.bounds, self.rules, self.cut = view, bounds, rules, cut
        self.atoms = Atoms()
        self.looked = 0
        self.leaves: dict[int, Vertex] = {}  # by atom
        self._known: dict[Vertex, Value | None] = {}
        self._depth = 0
        self.moves: dict[int, np.ndarray] = {}  # by node: from which place of its operand each element comes

    def of(self, vertex: Vertex) -> Value | None:
        """The element, or None where it may not be a finite number."""
        vertex = self.view.resolve(*vertex)
        if vertex in self._known:
            return self._known[vertex]
        ends = self.ends(vertex)
        if ends is None:
            return None
        if ends[0] == ends[1]:
            value = Value(constant(ends[0]))
        elif self._depth > MOST_DEPTH or self.looked > MOST_ELEMENTS or vertex[0] <= self.cut:
            return self._leaf(vertex, ends)
        else:
            value = self._followed(vertex, ends)
        self._known[vertex] = value
        return value

    def _followed(self, vertex: Vertex, ends: tuple[float, float]) -> Value:
        self.looked += 1
        self._depth += 1
        try:
            rule = self.rules.get(self.view.op(vertex)) if self.view.node(vertex).format.is_float else None  # whole numbers wrap
            found = None if rule is None else rule(self, vertex, self.view.node(vertex))
        except OverflowError:  # a number beyond float64
            found = None
        finally:
            self._depth -= 1
        # an error as large as the range itself tells nothing of the computed value
        if found is None or len(found.poly) > MOST_TERMS or not self.error(found) < 0.5 * (ends[1] - ends[0]):
            return self._leaf(vertex, ends)
        found = Value(found.poly, found.relative, self._tidy(found.absolute))
        error = self.error(found)
        self.atoms.narrow(found.poly, ends[0] - error, ends[1] + error)
        return found

    def _tidy(self, error: Poly) -> Poly:
        """At least the error, with its small terms as one number."""
        sizes = {mono: self.atoms.magnitude({mono: c}) for mono, c in error.items()}
        small = [mono for mono, size in sizes.items() if mono and size < NEGLIGIBLE * max(sizes.values())]
        kept = {mono: c for mono, c in error.items() if mono not in small}
        return plus(kept, constant(sum(sizes[mono] for mono in small) * (1 + TINY))) if small else error

    def _leaf(self, vertex: Vertex, ends: tuple[float, float]) -> Value:
        poly = self.atoms.leaf(vertex, *ends)
        self.leaves[next(iter(poly))[0]] = vertex
        return Value(poly)

    def ends(self, vertex: Vertex) -> tuple[float, float] | None:
        """Between which finite numbers the computed element lies; None if it may be something else."""
        b = self.bounds[vertex[0]]
        if b is None or len(b.shape) != len(vertex[1]):
            return None
        place = tuple(a - FIRST if a >= FIRST and n > 1 else slice(None) for a, n in zip(vertex[1], b.shape, strict=True))
        lo, hi, nan = b.lo[place], b.hi[place], b.may_nan[place]
        if not lo.size or nan.any():
            return None
        low, high = float(lo.min()), float(hi.max())
        return (low, high) if isfinite(low) and isfinite(high) and low <= high else None

    def error(self, value: Value) -> float:
        """The largest distance between computed and exact value."""
        return self.absolute(value) + (value.relative * self.atoms.magnitude(value.poly) if value.relative else 0.0)

    def absolute(self, value: Value) -> float:
        """The largest absolute part of the error."""
        return max(self.atoms.range(value.absolute)[1], 0.0)

    def whole_error(self, value: Value) -> Poly:
        """All of the error as an absolute one."""
        return plus(value.absolute, self.majorant(value.poly), rational(value.relative)) if value.relative else value.absolute

    def majorant(self, p: Poly) -> Poly:
        """Something at least |p|: p itself, or 2 h - p where p <= h, or a number; for exp(x) b also exp(x) b + 2 exp(x - b).

        The last holds since -b <= exp(-b).
        """
        lo, hi = self.atoms.range(p)
        size = max(abs(lo), abs(hi))
        if max(-lo, 0.0) <= size / 8:
            return plus(p, constant(2 * max(-lo, 0.0)))
        if max(hi, 0.0) <= size / 8:
            return plus(constant(2 * max(hi, 0.0)), p, -1)
        other = self._by_gibbs(p) if size > 4 else None
        return constant(size) if other is None else other

    def _by_gibbs(self, p: Poly) -> Poly | None:
        shared = set.intersection(*(set(mono) for mono in p)) if p else set()
        for i in sorted(shared):
            if self.atoms.kind(i) != "exp" or any(mono.count(i) > 1 for mono in p):
                continue
            beside = {tuple(j for j in mono if j != i): c for mono, c in p.items()}
            found = self.atoms.exp(minus(self.atoms.all[i].args[0], beside))
            if found is not None and self.atoms.magnitude(found.poly) <= 4:
                return plus(p, found.poly, Fraction(2 * (1 + found.relative)))
        return None

    def inputs(self, vertex: Vertex) -> list[Value] | None:
        """The operands of an elementwise operation."""
        found = [self.of(u) for u in self.view.inputs(vertex)]
        return [f for f in found if f is not None] if all(found) else None

    def reduced(self, vertex: Vertex, node: Node) -> list[Value] | None:
        """The elements that a reduction brings together."""
        shape = self.view.nodes[node.inputs[0]].shape
        dims = {d % len(shape) for d in node.attrs["dims"]} if shape else set()
        if prod(shape[d] for d in dims) > MOST_SUMMED:
            return None
        axes = [[FIRST + k if n > 1 else -1 for k in range(n)] if d in dims else [vertex[1][d]] for d, n in enumerate(shape)]
        found = [self.of((node.inputs[0], place)) for place in tuples(*axes)]
        return [f for f in found if f is not None] if found and all(found) else None

    def row(self, vertex: Vertex, node: Node) -> list[Value] | None:
        """The elements of the row (along `dim`) of the first operand in which the element stands."""
        d = node.attrs["dim"] % len(node.shape)
        n = self.view.nodes[node.inputs[0]].shape[d]
        if n > MOST_SUMMED:
            return None
        places = [(*vertex[1][:d], FIRST + k if n > 1 else -1, *vertex[1][d + 1 :]) for k in range(n)]
        found = [self.of((node.inputs[0], place)) for place in places]
        return [f for f in found if f is not None] if all(found) else None

    def size(self, vertex: Vertex) -> float:
        """The largest magnitude of the computed element."""
        ends = self.ends(vertex)
        return inf if ends is None else max(abs(ends[0]), abs(ends[1]))

    def product(self, p: Poly, q: Poly) -> Poly | None:
        """The product of two polynomials, unless it grows too large."""
        return self.atoms.product(p, q) if len(p) * len(q) <= MOST_FACTORS else None


def lost(fmt: Format) -> float:
    """An absolute error that underflow can cause in one operation; a library may take subnormal results for zero."""
    return 4 * fmt.smallest if fmt.name == "float16" else 2 * fmt.tiny
