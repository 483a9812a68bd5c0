"""Bounds of elements from what they would be in exact arithmetic, widened by how far rounding can move them."""

from fractions import Fraction
from itertools import product as tuples
from math import inf, prod

import numpy as np

from whynan.analysis.exact.elements import FIRST, Elements, Value, lost, negated
from whynan.analysis.exact.facts import facts_for, products
from whynan.analysis.exact.poly import Key, Poly, atom, key, minus, plus, scaled
from whynan.analysis.exact.program import least
from whynan.analysis.exact.rules import RULES
from whynan.analysis.view import Vertex, View
from whynan.domain.interval import Bounds, make

RATIOS = (1.0, 1 + 2**-12, 1 + 2**-6, 1.25)  # limits of quotients that are tried; rounding may need a little more than 1
MOST_PROGRAMS = 150  # linear programs in one analysis
MOST_CASES = 8  # members of a maximum that are tried one by one
MOST_ALONE = 16  # elements that are looked at one by one


class Exact:
    """Answers questions about values, remembering what it found. `bounds` are those of all nodes so far."""

    def __init__(self, view: View, bounds: list[Bounds | None]) -> None:
        self.view, self._bounds = view, bounds
        self._whole = Limits(view, bounds)

    def bounds(self, node: int) -> Bounds | None:
        """Bounds of all elements of a node, followed back to the inputs; None if nothing is known."""
        return _of(self._whole, node)

    def together(self, node: int) -> Bounds | None:
        """The same without a look at each element by itself, which costs more."""
        return _of(self._whole, node, alone=0)

    def shallow(self, node: int) -> Bounds | None:
        """The same, followed back only to the latest value that it depends on in two ways: rounding before that cancels."""
        cut = self._shared(node)
        return None if cut is None else _of(Limits(self.view, self._bounds, cut), node)

    def _shared(self, node: int) -> int | None:
        """The latest ancestor that two operations on the way to the node read."""
        seen, readers, stack = {node}, dict[int, int](), [node]
        while stack:
            n = stack.pop()
            for i in {self.view.representative[j] for j in self.view.nodes[n].inputs}:
                readers[i] = readers.get(i, 0) + 1
                if i not in seen:
                    seen.add(i)
                    stack.append(i)
        found = [i for i, count in readers.items() if count > 1 and self.view.nodes[i].inputs]
        return max(found, default=None)


def _of(limits: "Limits", node: int, alone: int = MOST_ALONE) -> Bounds | None:
    try:
        return limits.of(node, alone)
    except OverflowError:  # a number beyond float64 on the way
        return None


class Limits:
    """Bounds of elements over one choice of leaves."""

    def __init__(self, view: View, bounds: list[Bounds | None], cut: int = -1) -> None:
        self.elements = Elements(view, bounds, RULES, cut)
        self.view = view
        self.programs = 0
        self._least: dict[Key, float] = {}

    def of(self, node: int, alone: int) -> Bounds | None:
        """Bounds of all elements of a node; None if nothing is known. First any element, then, if they are few, each by itself."""
        shape = self.view.nodes[node].shape
        together = self._ends(self.view.root(node))
        before = self.elements.ends(self.view.root(node))
        if together is None or before is None:
            return None
        if not 1 < prod(shape) <= alone or together[0] > before[0] or together[1] < before[1]:
            return make(np.full((1,) * len(shape), together[0]), np.full((1,) * len(shape), together[1]))
        return self._each(node, shape)

    def _each(self, node: int, shape: tuple[int, ...]) -> Bounds | None:
        lo, hi = np.empty(shape), np.empty(shape)
        for place in tuples(*map(range, shape)):
            ends = self._ends((node, tuple(FIRST + k if n > 1 else -1 for k, n in zip(place, shape, strict=True))))
            if ends is None:
                return None
            lo[place], hi[place] = ends
        return make(lo, hi)

    def _ends(self, vertex: Vertex) -> tuple[float, float] | None:
        value = self.elements.of(vertex)
        if value is None:
            return None
        lo, hi = self.below(value), -self.below(negated(value))
        if self.view.op(vertex) == "div":
            low, high = self._quotient(vertex)
            return max(lo, low), min(hi, high)
        return lo, hi

    def _quotient(self, vertex: Vertex) -> tuple[float, float]:
        """Limits of n / d for d > 0: n <= c d - s gives n / d <= c + max(-s, 0) / d."""
        parts, below = self.elements.inputs(vertex), self.elements.ends(self.view.inputs(vertex)[1])
        if parts is None or below is None or below[0] <= 0:
            return -inf, inf
        node = self.view.node(vertex)
        unit, gone = 1 + node.format.eps * (1 + int(node.attrs.get("ulps", 0))), lost(node.format)
        high = min(self._at_most(parts[0], parts[1], c, below[0]) for c in RATIOS)
        low = -min(self._at_most(negated(parts[0]), parts[1], c, below[0]) for c in (0.0, *RATIOS))
        lower = low * unit - gone if low < 0 else max(low / unit - gone, 0.0)  # a quotient keeps its sign
        return lower, high * unit + gone if high > 0 else min(high / unit + gone, 0.0)

    def _at_most(self, n: Value, d: Value, c: float, least: float) -> float:
        """A number that n / d, as computed and before its rounding, never exceeds."""
        poly = minus(scaled(d.poly, c), n.poly)
        error = plus(self.elements.whole_error(n), self.elements.whole_error(d), Fraction(c))
        short = -self.least(minus(poly, error), poly)
        return c + max(short, 0.0) / least * (1 + 1e-12)

    def below(self, value: Value) -> float:
        """A number that the computed value never falls below."""
        lo = self.least(minus(value.poly, value.absolute), value.poly)
        if not value.relative or lo == -inf:
            return lo
        # |exact| is at most |exact - absolute| + absolute
        size = abs(lo) + self.elements.absolute(value)
        return lo - value.relative * size * (1 + 1e-12) if value.relative < 1 else -inf

    def least(self, p: Poly, like: Poly) -> float:
        """A lower limit of a polynomial, by its range and by facts about a polynomial close to it."""
        k = key(p)
        if k not in self._least:
            lo = self._by_facts(p, like)
            for i in self._maxima(p):  # a maximum is one of its members
                members = self.elements.atoms.all[i].args
                lo = max(lo, min(self._by_facts(self._replaced(p, i, q), self._replaced(like, i, q)) for q in members))
            self._least[k] = lo
        return self._least[k]

    def _by_facts(self, p: Poly, like: Poly) -> float:
        atoms = self.elements.atoms
        lo = atoms.range(p)[0]
        if len(p) > 1 and lo > -inf and self.programs < MOST_PROGRAMS:
            self.programs += 1
            facts = facts_for(atoms, like)
            facts += products(atoms, {mono: c for mono, c in p.items() if mono not in like})  # what cancels leaves its rounding behind
            lo = max(lo, least(atoms, p, facts)) if facts else lo
        return lo

    def _maxima(self, p: Poly) -> list[int]:
        """Maxima of a few members that are subtracted: facts that bound them from below say nothing."""
        atoms = self.elements.atoms
        return [
            m[0] for m, c in p.items() if len(m) == 1 and c < 0 and atoms.kind(m[0]) == "max" and len(atoms.all[m[0]].args) <= MOST_CASES
        ][:2]

    @staticmethod
    def _replaced(p: Poly, i: int, q: Poly) -> Poly:
        """The polynomial with another one in place of an atom, where that stands alone."""
        c = p.get((i,), Fraction(0))
        return plus(plus(p, atom(i), -c), q, c)
