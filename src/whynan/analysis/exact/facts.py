"""What real algebra knows about atoms: inequalities g >= 0 that a proof may add to a polynomial with any factor y >= 0.

A maximum is at least each member, a log-sum-exp too; exp lies above its tangents, log and sqrt below theirs; the exponentials of a
softmax row sum to 1; sin^2 + cos^2 = 1; squares are not negative; and Gibbs' inequality holds term by term:
exp(x) (x - y) >= exp(x) - exp(y). Where numbers such as logarithms had to be rounded, the fact is weakened by more than that.
"""

from collections.abc import Iterator
from fractions import Fraction
from math import exp, isfinite, log, sqrt

import numpy as np

from whynan.analysis.exact.atoms import TINY, VANISHING, Atoms, logarithm
from whynan.analysis.exact.poly import ONE, Poly, atom, constant, key, minus, plus, rest, scaled, times, total

MOST_FACTS = 240
MOST_MONOMIALS = 320
MOST_SQUARED = 40  # atoms in one quadratic form
MOST_PRODUCTS = 24  # products of two atoms that are bounded by those of their ends
MOST_LINEAR = 4  # atoms in which a polynomial is linear
MOST_WAYS = 8
ROUNDS = 3
MODERATE = 1e6  # tangents and chords of larger values are of no use


def facts_for(atoms: Atoms, p: Poly) -> list[Poly]:
    """Inequalities that may help to bound p from below."""
    found: dict[object, Poly] = {}
    done: set[int] = set()

    def take(new: Iterator[Poly]) -> None:
        for g in new:
            if len(found) < MOST_FACTS and all(isfinite(x) for mono in g for x in atoms.monomial_range(mono)):
                found[key(g)] = g

    take(_gibbs(atoms, p))
    bilinear = bool(found)
    take(_squares(atoms, p))
    take(_roots(atoms, p))
    take(_squares_at_ends(atoms, p))
    for _ in range(ROUNDS):
        monomials = {mono for q in (p, *found.values()) for mono in q}
        fresh = sorted({i for mono in monomials for i in mono} - done)
        if not fresh or len(monomials) > MOST_MONOMIALS:
            break
        for i in fresh:
            done.add(i)
            take(_about(atoms, i))
    if not bilinear:
        take(_products(atoms, p))
    return list(found.values())


def _about(atoms: Atoms, i: int) -> Iterator[Poly]:
    rule = {"max": _max, "lse": _lse, "exp": _exp, "log": _log, "sqrt": _sqrt, "sin": _circle, "cos": _circle}.get(atoms.kind(i))
    if rule is not None:
        yield from rule(atoms, i)


def _max(atoms: Atoms, i: int) -> Iterator[Poly]:
    """At least each member; of two, at most the chord of max(z, 0) for their difference z."""
    members = atoms.all[i].args
    for q in members:
        yield minus(atom(i), q)
    if len(members) == 2:
        for a, b in (members, members[::-1]):
            lo, hi = atoms.range(minus(a, b))
            if lo < 0 < hi and isfinite(lo) and isfinite(hi):
                slope = Fraction(hi) / (Fraction(hi) - Fraction(lo))
                yield minus(plus(b, plus(minus(a, b), constant(lo), -1), slope), atom(i))
    for q in _above(atoms, i):
        yield minus(q, atom(i))


def _above(atoms: Atoms, i: int) -> list[Poly]:
    """What max(0, min(a, b) - max(c, d)) is at most: of a - c, a - d, b - c and b - d those that are never negative."""
    if atoms.kind(i) != "max" or len(atoms.all[i].args) != 2 or {} not in atoms.all[i].args:
        return []
    ways = [next(q for q in atoms.all[i].args if q)]
    for mono, c in ways[0].items():
        if c < 0 and len(mono) == 1 and atoms.kind(mono[0]) == "max" and len(ways) <= MOST_WAYS:
            ways = [plus(plus(p, atom(mono[0]), -c), q, c) for p in ways for q in atoms.all[mono[0]].args]
    return [p for p in ways if p and atoms.range(p)[0] >= 0 and isfinite(atoms.range(p)[1])][:MOST_WAYS]


def _lse(atoms: Atoms, i: int) -> Iterator[Poly]:
    """At least each member with its weight, and at least their mean plus log(n) (Jensen)."""
    a = atoms.all[i]
    n = len(a.args)
    for q, w in zip(a.args, a.weights, strict=True):
        yield minus(atom(i), plus(q, constant(logarithm(w) - TINY * (1 + abs(logarithm(w))))))
    logs = [logarithm(w) for w in a.weights]
    middle = sum(logs) / n + log(n) - TINY * n * (1 + sum(map(abs, logs)))
    yield minus(atom(i), plus(scaled(total(a.args), Fraction(1, n)), constant(middle)))


def _exp(atoms: Atoms, i: int) -> Iterator[Poly]:
    """Above its tangents, below its chord; the exponentials of one row sum to 1."""
    x = atoms.all[i].args[0]
    lo, hi = atoms.range(x)
    if hi < log(MODERATE):
        for t in {0.0, max(lo, hi - 1.0)} if lo <= 0 <= hi else {hi, max(lo, hi - 1.0)}:
            yield plus(
                minus(atom(i), scaled(plus(x, constant(1 - Fraction(t))), exp(t))),
                constant(TINY * exp(t) * (2 + abs(t) + atoms.magnitude(x))),
            )
        if lo > -40 and hi > lo:
            bottom, top = exp(lo) * (1 + TINY), exp(hi) * (1 + TINY)
            slope = (Fraction(top) - Fraction(bottom)) / (Fraction(hi) - Fraction(lo))
            yield minus(plus(constant(top), minus(constant(hi), x), -slope), atom(i))
    for mono, c in x.items():
        if c == -1 and len(mono) == 1 and atoms.kind(mono[0]) == "lse":
            yield from _row(atoms, mono[0], x)


def _row(atoms: Atoms, lse: int, x: Poly) -> Iterator[Poly]:
    """sum(w exp(s)) / exp(lse) = 1, if x is one of the exponents s - lse (up to a constant)."""
    a = atoms.all[lse]
    bare = rest(plus(x, atom(lse)))[0]
    if not any(rest(q)[0] == bare for q in a.args):
        return
    powers = [atoms.exp(minus(q, atom(lse))) for q in a.args]
    if all(powers):
        row = total(scaled(p.poly, w) for p, w in zip(powers, a.weights, strict=True) if p)
        slack = constant(4 * TINY * len(powers) + 2 * sum(p.relative for p in powers if p))
        yield plus(minus(row, constant(1)), slack)
        yield plus(minus(constant(1), row), slack)


def _log(atoms: Atoms, i: int) -> Iterator[Poly]:
    """Below its tangents, above its chord."""
    u = atoms.all[i].args[0]
    lo, hi = atoms.range(u)
    if not 0 < lo < hi < MODERATE:
        return
    for c in {1.0, sqrt(lo * hi)} if lo <= 1 <= hi else {lo, hi}:
        slack = TINY * (4 + abs(log(c)) + hi / c)
        yield minus(plus(scaled(u, 1 / Fraction(c)), constant(log(c) - 1 + slack)), atom(i))
    slope = Fraction(log(hi) - log(lo)) / (Fraction(hi) - Fraction(lo))
    yield plus(minus(atom(i), scaled(minus(u, constant(lo)), slope)), constant(-log(lo) + 4 * TINY * (1 + abs(log(lo)) + abs(log(hi)))))


def _sqrt(atoms: Atoms, i: int) -> Iterator[Poly]:
    """sqrt(u) <= (u / c + c) / 2, and its chord from below; sqrt(x y) <= (x + y) / 2."""
    u = atoms.all[i].args[0]
    lo, hi = max(atoms.range(u)[0], 0.0), atoms.range(u)[1]
    if not 0 < hi < MODERATE**2:
        return
    if (means := _means(atoms, u)) is not None:
        yield minus(means, atom(i))
    for c in {sqrt(hi), sqrt((lo + hi) / 2), 1.0}:
        yield minus(scaled(plus(scaled(u, 1 / Fraction(c)), constant(c)), Fraction(1, 2)), atom(i))
    bottom, top = Fraction(sqrt(lo) * (1 - TINY)), Fraction(sqrt(hi) * (1 - TINY))
    if hi > lo and top > bottom:
        yield minus(atom(i), plus(constant(bottom), minus(u, constant(lo)), (top - bottom) / (Fraction(hi) - Fraction(lo))))


def _means(atoms: Atoms, u: Poly) -> Poly | None:
    """The arithmetic means of factors that are not negative: sqrt(c x y + d) <= sqrt(c) (x + y) / 2 + sqrt(d); None for other values."""
    variable, d = rest(u)
    if len(variable) != 1 or d < 0:
        return None
    ((mono, c),) = variable.items()
    if len(mono) != 2 or c < VANISHING or 0 < d < VANISHING or min(atoms.all[k].lo for k in mono) < 0:
        return None  # of a vanishing number float64 knows no root
    root, more = (Fraction(sqrt(t) * (1 + TINY)) for t in (c, d))
    return plus(scaled(plus(atom(mono[0]), atom(mono[1])), root / 2), constant(more))


def _roots(atoms: Atoms, p: Poly) -> Iterator[Poly]:
    """sqrt(u) sqrt(v) <= (u + v) / 2."""
    for mono in sorted(mono for mono in p if [atoms.kind(i) for i in mono] == ["sqrt", "sqrt"])[:MOST_SQUARED]:
        yield minus(scaled(total(atoms.all[i].args[0] for i in mono), Fraction(1, 2)), {mono: Fraction(1)})


def _circle(atoms: Atoms, i: int) -> Iterator[Poly]:
    a = atoms.all[i]
    other = atoms.function("cos" if a.kind == "sin" else "sin", a.args[0], -1.0, 1.0)
    both = plus(times(atom(i), atom(i)), times(other, other))
    yield minus(both, constant(1))
    yield minus(constant(1), both)


# ---------------------------------------------------------------- facts about products


def _gibbs(atoms: Atoms, p: Poly) -> Iterator[Poly]:
    """exp(x) (x - y) >= exp(x) - exp(y) for the factors that stand beside exponentials, and beside numbers with a logarithm."""
    for i in sorted({i for mono in p if len(mono) > 1 for i in mono}):
        x = _log_of(atoms, i)
        if x is None:
            continue
        beside: Poly = {}
        for mono, c in p.items():
            if mono.count(i) == 1:
                other = list(mono)
                other.remove(i)
                beside = plus(beside, {tuple(other): c})
        ratios = {beside[mono] / c for mono, c in rest(x)[0].items() if mono in beside}
        if not ratios:
            continue
        shifts = _shifts(atoms, x)
        pairs = [(x, t) for t in shifts]  # y is a number: how small exp(x) x can be
        for ratio in sorted(r for r in ratios if r > 0)[:3]:
            difference, own = scaled(rest(beside)[0], 1 / ratio), beside.get(ONE, Fraction(0)) / ratio
            pairs += [(difference, t) for t in sorted({*shifts, own})]
        for difference, t in pairs:
            shifted = plus(difference, constant(t))  # x - y
            power = atoms.exp(minus(x, shifted))
            if power is not None and isfinite(atoms.magnitude(power.poly)):
                slack = (power.relative + TINY) * atoms.magnitude(power.poly)
                yield total([times(atom(i), shifted), scaled(atom(i), -1), power.poly, constant(slack)])


def _log_of(atoms: Atoms, i: int) -> Poly | None:
    """The logarithm of an atom, if it is an exponential or its logarithm is about."""
    return atoms.all[i].args[0] if atoms.kind(i) == "exp" else atoms.existing("log", atom(i))


def _shifts(atoms: Atoms, x: Poly) -> list[Fraction]:
    """Constants to try: none, and log(n) of a row of n, which a uniform row needs."""
    sizes = {len(atoms.all[mono[0]].args) for mono in x if len(mono) == 1 and atoms.kind(mono[0]) == "lse"}
    return [Fraction(0), *(Fraction(log(n)) for n in sorted(sizes))]


def _squares(atoms: Atoms, p: Poly) -> Iterator[Poly]:
    """Squares along the axes of p's quadratic form: where the form is not negative, they make it up."""
    inside = sorted({mono[0] for mono in p if len(mono) == 2 and mono[0] == mono[1]})  # a form that is nowhere negative has a diagonal
    if not inside or len(inside) > MOST_SQUARED:
        return
    place = {i: k for k, i in enumerate(inside)}
    form, slope = np.zeros((len(inside), len(inside))), np.zeros(len(inside))
    for mono, c in p.items():
        if len(mono) == 2 and mono[0] in place and mono[1] in place:
            j, k = place[mono[0]], place[mono[1]]
            form[j, k] += float(c) / 2
            form[k, j] += float(c) / 2
        elif len(mono) == 1 and mono[0] in place:
            slope[place[mono[0]]] = float(c)
    if not np.isfinite(form).all() or not np.isfinite(slope).all():
        return
    values, vectors = np.linalg.eigh(form)
    bottom = -np.linalg.pinv(2 * form, rcond=1e-9) @ slope
    centre = bottom if np.abs(2 * form @ bottom + slope).max() <= 1e-6 * (1 + np.abs(slope).max()) else np.zeros(len(inside))
    bent = any(atoms.kind(i) in ("sin", "cos") for i in inside)
    for value, vector in zip(values, vectors.T, strict=True):
        if value > 1e-9 * np.abs(values).max() or bent:
            weights = [_short(float(x)) for x in vector]
            shift = _short(-float(vector @ centre))
            line = plus({(i,): w for i, w in zip(inside, weights, strict=True) if w}, constant(shift))
            yield times(line, line)


def _squares_at_ends(atoms: Atoms, p: Poly) -> Iterator[Poly]:
    """a^2 + b^2 - 2 a b c for c in [-1, 1] is linear in c: the squares that make it up at c's ends, times the distance to the other end."""
    linear = {i for mono in p if len(mono) == 3 for i in mono if all(m.count(i) <= 1 for m in p)}
    for i in sorted(linear)[:MOST_LINEAR]:
        a = atoms.all[i]
        for end, distance in zip((a.hi, a.lo), _sides(atoms, i), strict=False):
            there = total({tuple(j for j in mono if j != i): c * (Fraction(end) if i in mono else 1)} for mono, c in p.items())
            yield from (times(square, distance) for square in _squares(atoms, there))


def _short(x: float) -> Fraction:
    """A number near x with few digits: squares of anything are squares."""
    return Fraction(round(x * 2**30), 2**30)


def products(atoms: Atoms, p: Poly) -> list[Poly]:
    """What is known of the products of two atoms in a polynomial, of limited factors."""
    return [g for g in _products(atoms, p) if all(isfinite(x) for mono in g for x in atoms.monomial_range(mono))]


def _products(atoms: Atoms, p: Poly) -> Iterator[Poly]:
    """Products of what is known of two factors: x between its ends (McCormick) and below what `_above` says."""
    for mono in sorted(mono for mono in p if len(mono) == 2)[:MOST_PRODUCTS]:
        sides = [_sides(atoms, i) for i in mono]
        for one in sides[0]:
            for two in sides[1]:
                yield times(one, two)
        for this, other in ((mono[0], mono[1]), (mono[1], mono[0])):
            if atoms.all[other].lo >= 0:
                for q in _above(atoms, this):
                    yield times(minus(q, atom(this)), atom(other))  # q other >= this other, and above that q q'
                    for r in _above(atoms, other):
                        yield times(q, minus(r, atom(other)))
                        yield from (times(*pair) for pair in _pairs(atoms, q, r))


def _sides(atoms: Atoms, i: int) -> list[Poly]:
    a = atoms.all[i]
    return [minus(atom(i), constant(a.lo)), minus(constant(a.hi), atom(i))] if isfinite(a.lo) and isfinite(a.hi) else []


def _pairs(atoms: Atoms, q: Poly, r: Poly) -> list[tuple[Poly, Poly]]:
    """Two polynomials, each without its least value: their product is not negative."""
    return [(minus(q, constant(atoms.range(q)[0])), minus(r, constant(atoms.range(r)[0])))]
