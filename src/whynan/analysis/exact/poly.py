"""Polynomials with rational coefficients, so that what cancels in exact arithmetic cancels here.

A polynomial maps monomials to coefficients; a monomial is the sorted tuple of its atoms, one entry per power. What an atom is, and
between which numbers it lies, the table in `atoms` knows.
"""

from collections.abc import Iterable
from fractions import Fraction
from math import isfinite

Monomial = tuple[int, ...]
Poly = dict[Monomial, Fraction]
Key = frozenset[tuple[Monomial, int, int]]

ONE: Monomial = ()


def rational(value: float | Fraction) -> Fraction:
    """A number as a fraction; OverflowError if it is not finite."""
    if isinstance(value, float) and not isfinite(value):
        raise OverflowError("a number beyond float64")
    return Fraction(value)


def constant(value: float | Fraction) -> Poly:
    """A number; OverflowError if it is not finite."""
    c = rational(value)
    return {ONE: c} if c else {}


def atom(i: int) -> Poly:
    """One atom."""
    return {(i,): Fraction(1)}


def plus(p: Poly, q: Poly, factor: Fraction | int = 1) -> Poly:
    """p + factor q."""
    out = dict(p)
    for mono, c in q.items():
        more = c if factor == 1 else -c if factor == -1 else factor * c  # most factors are one of these, and fractions are slow
        before = out.get(mono)
        if before is not None:
            more = before + more
        if more:
            out[mono] = more
        else:
            out.pop(mono, None)
    return out


def minus(p: Poly, q: Poly) -> Poly:
    """p - q."""
    return plus(p, q, -1)


def total(parts: Iterable[Poly]) -> Poly:
    """The sum of several polynomials."""
    out: Poly = {}
    for p in parts:
        out = plus(out, p)
    return out


def scaled(p: Poly, factor: float | Fraction) -> Poly:
    """p times a number."""
    c = rational(factor)
    return {mono: c * x for mono, x in p.items()} if c else {}


def times(p: Poly, q: Poly) -> Poly:
    """The product, multiplied out."""
    out: Poly = {}
    for a, x in p.items():
        for b, y in q.items():
            mono = tuple(sorted(a + b)) if a and b else a or b
            before = out.get(mono)
            out[mono] = x * y if before is None else before + x * y
    return {mono: c for mono, c in out.items() if c}


def key(p: Poly) -> Key:
    """Something hashable that equals another polynomial's exactly where the two are equal. Pairs of integers hash faster than fractions."""
    return frozenset((mono, *c.as_integer_ratio()) for mono, c in p.items())


def only(p: Poly) -> tuple[Monomial, Fraction] | None:
    """The single term of a polynomial; None if it has none or several."""
    return next(iter(p.items())) if len(p) == 1 else None


def rest(p: Poly) -> tuple[Poly, Fraction]:
    """The polynomial without its constant term, and that term."""
    return {mono: c for mono, c in p.items() if mono}, p.get(ONE, Fraction(0))


def common(parts: list[Poly]) -> Poly:
    """The terms (the constant aside) that all parts have with the same coefficient."""
    first = rest(parts[0])[0]
    return {mono: c for mono, c in first.items() if all(p.get(mono) == c for p in parts[1:])}
