"""Atoms: the numbers that polynomials are made of, between which limits each lies, and the laws of exp and log.

An atom is a leaf (the computed value of an element) or a function of polynomials: exp, log, max, sqrt, sin, cos, 1/x, and
"lse", the logarithm of a weighted sum of exponentials. Equal functions of equal polynomials are one atom, and sums of exponentials,
logarithms and maxima are brought to one form first: log(sum(exp(x - m))) + m is the same as log(sum(exp(x))).
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import copysign, exp, inf, isfinite, log, prod, sqrt
from typing import NamedTuple

from whynan.analysis.exact.poly import ONE, Key, Monomial, Poly, atom, common, constant, key, minus, only, plus, rest, scaled, times, total

TINY = 2.0**-48  # relative error of a few operations in float64
MOST_MEMBERS = 64
LARGEST_EXPONENT = 600.0  # beyond it exp is not evaluated in float64
VANISHING = 2.0**-1022  # numbers in float64 below it may have lost digits, or all


class Approximate(NamedTuple):
    """A polynomial that equals something positive up to a relative error: exp(c) is no rational number."""

    poly: Poly
    relative: float


@dataclass(frozen=True, slots=True)
class Atom:
    """One atom: its kind, the polynomials it is a function of (with rational weights for "lse"), and its range."""

    kind: str
    args: tuple[Poly, ...]
    lo: float
    hi: float
    weights: tuple[Fraction, ...] = ()


class Atoms:
    """The table of atoms. Ranges are outward: they hold the exact value."""

    def __init__(self) -> None:
        self.all: list[Atom] = []
        self._known: dict[Hashable, int] = {}
        self._ranges: dict[Key, tuple[float, float]] = {}
        self._over_sums: set[int] = set()  # exponentials that are 1 over a sum of exponentials

    def leaf(self, name: Hashable, lo: float, hi: float) -> Poly:
        """The computed value of an element, by a name that tells it from others."""
        return atom(self._intern(("leaf", name), Atom("leaf", (), lo, hi)))

    def _intern(self, name: Hashable, new: Atom) -> int:
        if name not in self._known:
            self._known[name] = len(self.all)
            self.all.append(new)
        return self._known[name]

    def kind(self, i: int) -> str:
        """What kind of atom it is."""
        return self.all[i].kind

    # ------------------------------------------------------------ ranges

    def range(self, p: Poly) -> tuple[float, float]:
        """Between which numbers the polynomial lies, term by term; known upper limits of x - logsumexp(.., x, ..) and x - max count."""
        k = key(p)
        if k not in self._ranges:
            lo, hi = self._plain_range(p)
            for mono, c in p.items():
                if len(mono) == 1 and self.kind(mono[0]) in ("lse", "max") and len(p) > 1:
                    member = self.all[mono[0]]
                    for q, w in zip(member.args, member.weights or (Fraction(1),) * len(member.args), strict=True):
                        # the atom is at least q + log w
                        below = self._plain_range(plus(plus(p, atom(mono[0]), -c), q, c))
                        shift, slack = float(c) * logarithm(w), TINY * abs(float(c)) * (1 + abs(logarithm(w))) if w != 1 else 0.0
                        if c < 0:
                            hi = min(hi, below[1] + shift + slack)
                        else:
                            lo = max(lo, below[0] + shift - slack)
            self._ranges[k] = (lo, hi)
        return self._ranges[k]

    def narrow(self, p: Poly, lo: float, hi: float) -> None:
        """Remember that a polynomial lies between two numbers."""
        before = self.range(p)
        self._ranges[key(p)] = (max(before[0], lo - TINY * abs(lo)), min(before[1], hi + TINY * abs(hi)))

    def _plain_range(self, p: Poly) -> tuple[float, float]:
        lo = hi = below = above = 0.0  # the ends, and the sums of their terms' magnitudes, with which their roundings grow
        for mono, c in p.items():
            a, b = self.monomial_range(mono)
            x = float(c)  # OverflowError where it is beyond float64
            if not (isfinite(a) and isfinite(b)):
                return -inf, inf
            if abs(x) < VANISHING:
                x, a, b = copysign(VANISHING, c.numerator), min(a, 0.0), max(b, 0.0)
            ends: tuple[float, ...] = (x * a, x * b)
            if min(map(abs, ends)) < VANISHING:
                ends = _outward(x, a) + _outward(x, b)
            lo, hi, below, above = lo + min(ends), hi + max(ends), below + abs(min(ends)), above + abs(max(ends))
        slack = TINY + len(p) * 2.0**-52
        return (lo - below * slack, hi + above * slack) if isfinite(below + above) else (-inf, inf)

    def monomial_range(self, mono: Monomial) -> tuple[float, float]:
        """Between which numbers a product of atoms lies; even powers are not negative."""
        lo = hi = 1.0
        i = 0
        while i < len(mono):
            a, power = self.all[mono[i]], 0
            while i < len(mono) and mono[i] == mono[i - power]:
                power, i = power + 1, i + 1
            one, two = prod([a.lo] * power), prod([a.hi] * power)  # infinite where ** would raise an error
            one, two = min(one, two), max(one, two)
            if power % 2 == 0 and a.lo < 0 < a.hi:
                one = 0.0
            ends: tuple[float, ...] = (lo * one, lo * two, hi * one, hi * two)
            if min(map(abs, ends)) < VANISHING:
                ends = _outward(lo, one) + _outward(lo, two) + _outward(hi, one) + _outward(hi, two)
            lo, hi = min(ends), max(ends)
        return (lo, hi) if lo == lo and hi == hi else (-inf, inf)

    def magnitude(self, p: Poly) -> float:
        """The largest absolute value."""
        lo, hi = self.range(p)
        return max(abs(lo), abs(hi))

    def positive(self, p: Poly) -> bool:
        """Whether the polynomial is above zero by its range."""
        return self.range(p)[0] > 0

    # ------------------------------------------------------------ functions

    def function(self, kind: str, p: Poly, lo: float, hi: float) -> Poly:
        """An atom for a function of one polynomial, between these limits."""
        return atom(self._intern((kind, key(p)), Atom(kind, (p,), lo, hi)))

    def existing(self, kind: str, p: Poly) -> Poly | None:
        """The function of the polynomial, if it occurs somewhere."""
        i = self._known.get((kind, key(p)))
        return None if i is None else atom(i)

    def largest(self, members: Sequence[Poly]) -> Poly | None:
        """max of polynomials: terms that all have stand outside; members that are never the largest are dropped."""
        parts = list({key(p): p for p in members}.values())
        if not parts or len(parts) > MOST_MEMBERS:
            return None
        for p in list(parts):
            if any(q is not p and self.range(minus(p, q))[1] <= 0 for q in parts):
                parts.remove(p)
        if len(parts) == 1:
            return parts[0]
        shared = common(parts)
        parts = [minus(p, shared) for p in parts]
        ranges = [self.range(p) for p in parts]
        name = ("max", frozenset(key(p) for p in parts))
        new = Atom("max", tuple(parts), max(r[0] for r in ranges), max(r[1] for r in ranges))
        return plus(atom(self._intern(name, new)), shared)

    def exp(self, x: Poly) -> Approximate | None:
        """exp(x): exp(log u + y) is u exp(y), exp(lse + y) a sum, and the constant term becomes a factor."""
        for mono, c in x.items():
            if c == 1 and len(mono) == 1 and self.kind(mono[0]) in ("log", "lse"):
                a, left = self.all[mono[0]], minus(x, atom(mono[0]))
                if a.kind == "log":
                    inner = self.exp(left)
                    return None if inner is None else Approximate(times(a.args[0], inner.poly), inner.relative)
                parts = [self.exp(plus(left, q)) for q in a.args]
                return self._weighted([p for p in parts if p], a.weights) if all(parts) else None
        y, c = rest(x)
        if abs(float(c)) > LARGEST_EXPONENT:
            return None
        factor, relative = Fraction(exp(float(c))), TINY * (1 + abs(float(c)))  # the constant term is rounded first
        if not y:
            return Approximate({ONE: factor}, relative)
        lo, hi = self.range(y)
        if hi > LARGEST_EXPONENT:
            return None
        low, high = exp(max(lo, -LARGEST_EXPONENT)) * (1 - TINY) if lo > -LARGEST_EXPONENT else 0.0, exp(max(hi, -700.0)) * (1 + TINY)
        return Approximate(scaled(self.function("exp", y, low, high), factor), relative)

    def _weighted(self, parts: list[Approximate], weights: tuple[Fraction, ...]) -> Approximate:
        poly = total(scaled(p.poly, w) for p, w in zip(parts, weights, strict=True))
        return Approximate(poly, max(p.relative for p in parts))

    def log(self, u: Poly) -> tuple[Poly, float] | None:
        """log(u) of something positive with an absolute error: products become sums, sums of exponentials "lse"."""
        one = only(u)
        if one is not None:
            return self._log_of_product(*one)
        if self._of_exponentials(u):
            members = [self._log_of_product(mono, Fraction(1)) for mono in u]
            if all(members) and len(members) <= MOST_MEMBERS:
                return self._log_of_sum([m[0] for m in members if m], list(u.values()))
        return self._log_atom(u)

    def _of_exponentials(self, u: Poly) -> bool:
        """Whether it is a sum, without a minus, with an exponential in it."""
        return any(self.kind(i) == "exp" for mono in u for i in mono) and all(c > 0 for c in u.values())

    def _log_atom(self, u: Poly) -> tuple[Poly, float] | None:
        lo, hi = self.range(u)
        if not 0 < lo <= hi < inf:
            return None
        return self.function("log", u, log(lo) - TINY * (1 + abs(log(lo))), log(hi) + TINY * (1 + abs(log(hi)))), 0.0

    def _log_of_product(self, mono: Monomial, c: Fraction) -> tuple[Poly, float] | None:
        if c <= 0:
            return None
        value = logarithm(c)
        parts = [constant(value)]
        for i in mono:
            a = self.all[i]
            if a.kind == "exp":
                parts.append(a.args[0])
                continue
            one = self._log_atom(a.args[0] if a.kind == "inv" else atom(i))
            if one is None:
                return None
            parts.append(scaled(one[0], -1 if a.kind == "inv" else 1))
        return total(parts), 0.0 if c == 1 else TINY * (1 + abs(value))

    def _log_of_sum(self, members: list[Poly], weights: list[Fraction]) -> tuple[Poly, float] | None:
        """log(sum of w exp(x)) as a shared part plus an atom; the largest weight stands outside too."""
        weight: dict[Key, Fraction] = {}  # terms may have the same logarithm: exp(x) exp(y) and exp(x + y)
        for x, w in zip(members, weights, strict=True):
            weight[key(x)] = weight.get(key(x), Fraction(0)) + w
        shared, most = common(members), max(weight.values())
        exponents = {key(x): x for x in members}
        parts = sorted(((exponents[k], w) for k, w in weight.items()), key=lambda m: sorted(m[0].items()))
        args, scale = tuple(minus(x, shared) for x, _ in parts), tuple(w / most for _, w in parts)
        ranges = [(lo + logarithm(w), hi + logarithm(w)) for (lo, hi), w in zip((self.range(x) for x in args), scale, strict=True)]
        top = max(hi for _, hi in ranges)
        if not isfinite(top):
            return None
        lo, hi = max(lo for lo, _ in ranges), top + log(sum(exp(max(hi - top, -700.0)) for _, hi in ranges))
        slack = 4 * TINY * (1 + abs(lo) + abs(hi))
        name = ("lse", frozenset((key(x), w) for x, w in zip(args, scale, strict=True)))
        new = Atom("lse", args, lo - slack, hi + slack, scale)
        value = logarithm(most)
        return total([atom(self._intern(name, new)), shared, constant(value)]), TINY * (1 + abs(value))

    def reciprocal(self, u: Poly) -> Approximate | None:
        """1/u of something of one sign: of a product the product of the reciprocals, of a sum of exponentials exp(-log(u))."""
        one = only(u)
        if one is None:
            inverse = self._inverse(u)
            power = self._one_over_sum(u) if inverse is not None and self._of_exponentials(u) else None
            return power if power is not None or inverse is None else Approximate(inverse, 0.0)
        out, relative = constant(1 / one[1]), 0.0
        for i in one[0]:
            part = self._reciprocal_of_atom(i)
            if part is None:
                return None
            out, relative = self.product(out, part.poly), relative + part.relative
        return Approximate(out, relative * 2)

    def _one_over_sum(self, u: Poly) -> Approximate | None:
        """1/u as exp(-log u), which products with other exponentials are made one with: each share of a softmax is exp(x - lse)."""
        found = self.log(u)
        if found is None:
            return None
        exponent, ends = scaled(found[0], -1), [-log(x) for x in self.range(u)]
        y, c = rest(exponent)
        slack = found[1] + TINY * (1 + abs(float(c)))
        self.narrow(y, ends[1] - float(c) - slack, ends[0] - float(c) + slack)
        power = self.exp(exponent)
        if power is None:
            return None
        self._over_sums |= {i for mono in power.poly for i in mono}
        return Approximate(power.poly, power.relative + 2 * found[1])

    def _reciprocal_of_atom(self, i: int) -> Approximate | None:
        a = self.all[i]
        if a.kind == "inv":
            return Approximate(a.args[0], 0.0)
        if a.kind == "exp":
            return self.exp(scaled(a.args[0], -1))
        inverse = self._inverse(atom(i))
        return None if inverse is None else Approximate(inverse, 0.0)

    def _inverse(self, u: Poly) -> Poly | None:
        lo, hi = self.range(u)
        if lo <= 0 <= hi or not isfinite(lo) or not isfinite(hi):
            return None
        slack = TINY / min(abs(lo), abs(hi))
        return self.function("inv", u, 1 / hi - slack, 1 / lo + slack)

    def sqrt(self, u: Poly) -> Poly | None:
        """The square root of something not negative."""
        lo, hi = self.range(u)
        if lo < 0 or not isfinite(hi):
            return None
        return self.function("sqrt", u, sqrt(lo) * (1 - TINY), sqrt(hi) * (1 + TINY))

    def product(self, p: Poly, q: Poly) -> Poly:
        """p q, with sqrt(u)^2 as u, u times 1/u as 1 where u is one atom, and an exponential over a sum of them as one."""
        out = times(p, q)
        for mono in list(out):
            simpler = self._simplified(mono)
            if simpler is not None:
                c = out.pop(mono)
                out = plus(out, self.product(simpler, {ONE: c}))
        return out

    def _simplified(self, mono: Monomial) -> Poly | None:
        for k, i in enumerate(mono):
            a = self.all[i]
            if a.kind == "sqrt" and mono[k + 1 : k + 2] == (i,):
                return self.product({mono[:k] + mono[k + 2 :]: Fraction(1)}, a.args[0])
            if a.kind == "inv" and (one := only(a.args[0])) is not None and len(one[0]) == 1 and one[0][0] in mono:
                left = list(mono)
                left.remove(i)
                left.remove(one[0][0])
                return {tuple(left): 1 / one[1]}
            if i in self._over_sums and (merged := self._merged(mono, i)) is not None:
                return merged
        return None

    def _merged(self, mono: Monomial, i: int) -> Poly | None:
        """The product with the exponential i and one other made one."""
        other = next((j for j in mono if j != i and self.kind(j) == "exp"), None)
        if other is None:
            return None
        power = self.exp(plus(self.all[i].args[0], self.all[other].args[0]))
        if power is None or set(power.poly.values()) != {Fraction(1)}:
            return None  # a number in the exponent would be rounded
        left = list(mono)
        left.remove(i)
        left.remove(other)
        return self.product({tuple(left): Fraction(1)}, power.poly)


def logarithm(c: Fraction) -> float:
    """log(c) of any positive fraction, up to TINY (1 + |log(c)|): also of those that are no float64."""
    k = c.numerator.bit_length() - c.denominator.bit_length()
    return log(c / Fraction(2) ** k) + k * log(2)


def _outward(x: float, y: float) -> tuple[float, ...]:
    """Between which numbers a product lies: one that underflows is above zero still."""
    end = x * y
    return (0.0, copysign(VANISHING, x) * copysign(1.0, y)) if abs(end) < VANISHING and x and y else (end,)
