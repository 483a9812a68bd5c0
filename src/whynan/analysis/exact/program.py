"""A lower limit of a linear form over a box, given inequalities: a linear program, solved roughly and checked safely.

Any multipliers y >= 0 give a limit: where g >= 0, p >= p - y g, and what is left of p - y g is bounded term by term. The simplex
method only finds good multipliers; how well it does it decides how tight the limit is, never whether it holds.
"""

import numpy as np

from whynan.analysis.exact.atoms import Atoms
from whynan.analysis.exact.poly import ONE, Poly
from whynan.ir.dtype import Float64

PIVOTS = 400
ROUNDING = 2.0**-52  # of one operation


def least(atoms: Atoms, p: Poly, facts: list[Poly]) -> float:
    """A lower limit of p, given that each of the facts is not negative; every monomial must have a finite range."""
    columns = sorted({mono for q in (p, *facts) for mono in q if mono})
    if not columns:
        return float(p.get(ONE, 0))
    place = {mono: k for k, mono in enumerate(columns)}
    lo, hi = np.array([atoms.monomial_range(mono) for mono in columns]).T
    cost, given = _row(p, place), np.array([_row(f, place) for f in facts]).reshape(len(facts), len(columns))
    known = np.array([float(f.get(ONE, 0)) for f in facts])
    y = _multipliers(cost, given, known, lo, hi)
    left = cost - y @ given
    # every coefficient may be off by some roundings, the constants too
    reach = np.maximum(np.abs(lo), np.abs(hi))
    operations = 64 + len(facts) + len(columns)
    constants = abs(float(p.get(ONE, 0))) + float(y @ np.abs(known))
    slack = ROUNDING * operations * (float((np.abs(cost) + y @ np.abs(given)) @ reach) + constants)
    return float(p.get(ONE, 0)) - float(y @ known) + float(np.minimum(left * lo, left * hi).sum()) - slack


def _row(p: Poly, place: dict[tuple[int, ...], int]) -> Float64:
    out = np.zeros(len(place))
    for mono, c in p.items():
        if mono:
            out[place[mono]] = float(c)
    return out


def _multipliers(cost: Float64, given: Float64, known: Float64, lo: Float64, hi: Float64) -> Float64:
    """Multipliers of the facts `given z + known >= 0` for the minimum of `cost z` over lo <= z <= hi, by the dual simplex method."""
    m, n = given.shape
    if not m:
        return np.zeros(0)
    size = np.where(hi > lo, hi - lo, 1.0)
    up = cost < 0  # z = hi - size t or lo + size t, so that each t in [0, 1] costs
    start, step = np.where(up, hi, lo), np.where(up, -size, size)
    rows, right = given * step, known + given @ start
    scale = np.maximum(np.abs(rows).max(axis=1, initial=0.0), 1e-300)
    # basic variables as beta + T (nonbasic): first the slacks of the facts, then 1 - t
    table = np.vstack([rows / scale[:, None], -np.eye(n)])
    beta = np.concatenate([right / scale, np.where(hi > lo, 1.0, 0.0)])
    price = np.abs(cost * step)
    basic, nonbasic = np.arange(n, 2 * n + m), np.arange(n)  # names: t first, then the slacks
    unit = float(price.max(initial=0.0)) or 1.0
    price = price / unit + 1e-12
    for _ in range(PIVOTS):
        i = int(np.argmin(beta))
        if beta[i] >= -1e-13:
            break
        row = table[i]
        able = row > 1e-11
        if not able.any():
            break
        ratio = np.where(able, price / np.where(able, row, 1.0), np.inf)
        j = int(np.argmin(ratio))
        table, beta, price = _pivot(table, beta, price, i, j)
        basic[i], nonbasic[j] = nonbasic[j], basic[i]
    y = np.zeros(m)
    for k, name in enumerate(nonbasic):
        if n <= name < n + m:
            y[name - n] = max(float(price[k]), 0.0)
    return np.asarray(y * unit / scale, np.float64)


def _pivot(table: Float64, beta: Float64, price: Float64, i: int, j: int) -> tuple[Float64, Float64, Float64]:
    """Exchange the basic variable of row i and the nonbasic one of column j."""
    head = table[i, j]
    row, entering, moved = table[i] / head, beta[i] / head, table[:, j].copy()
    # x_j = (x_i - beta_i - sum of the others) / head
    new = table - np.outer(moved, row)
    new[:, j] = moved / head
    new[i] = -row
    new[i, j] = 1 / head
    values = beta - moved * entering
    values[i] = -entering
    prices = price - price[j] * row
    prices[j] = price[j] / head
    return new, values, prices
