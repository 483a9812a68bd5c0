"""On which part of a domain digits are lost: intervals by input, and a share of evenly drawn inputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from whynan.analysis.digits import Inputs, Measure, lost, lost_exactly
from whynan.domain import sample
from whynan.domain.spec import CONTINUOUS, Domain
from whynan.ir.dtype import Array, Float64

GRID = 240  # values at which an input's region is looked at
EVEN = 256  # evenly drawn inputs
CLOSELY = 16  # of the values where float64 sees no loss are looked at in real arithmetic
COARSER = 12  # so many times fewer where each takes real arithmetic
SHOWN = 3  # intervals in words
GAP = 4  # of the grid: rounding errors happen to be small here and there
HALF = 0.5  # more than this share of the digits counts as lost

Intervals = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Region:
    """Where more than half of the digits are lost.

    `where` are intervals by input, in order: of the value that all elements of the input have, or, for an input in `about`, of their mean
    while their differences stay as in the witness; the other inputs are the witness's. `parts` are the intervals' shares of the input's
    range. `share` is that of evenly drawn inputs.
    """

    where: Mapping[str, Intervals]
    parts: Mapping[str, float]
    about: frozenset[str]
    share: float


def region(m: Measure, domains: Mapping[str, Domain], witness: Inputs, seed: int) -> Region:
    """The region around a witness."""
    step = COARSER * CLOSELY // m.effort(CLOSELY) if m.exactly else 1
    m = replace(m, least=0.0)  # where a loss counts as zero its digits are lost nevertheless
    where: dict[str, Intervals] = {}
    about: set[str] = set()
    for name, d in domains.items():
        if not _varies(d) or sample.huge(d):
            continue
        x = witness[name].astype(np.float64)
        grid = np.unique(np.append(_grid(d)[::step], sample.project(replace(d, shape=()), x.mean()).astype(np.float64)))
        for differences in (np.zeros(()), x - x.mean()):
            tries = [{**witness, name: sample.project(d, differences + v)} for v in grid]
            bad = _bad(m, tries)
            where[name] = _runs(grid[~np.isnan(bad)], bad[~np.isnan(bad)] > HALF, GAP if step == 1 else 1)
            if where[name]:
                about |= {name} if differences.any() else set()
                break
    rng = np.random.default_rng(seed)
    drawn = [{n: _even(d, rng) for n, d in domains.items()} for _ in range(EVEN // step)]
    where = {name: runs for name, runs in where.items() if runs}
    parts = {name: sum(b - a for a, b in runs) / (domains[name].high - domains[name].low) for name, runs in where.items()}
    return Region(where, parts, frozenset(about), float(np.mean(lost(m, drawn) > HALF)))


def _bad(m: Measure, tries: Sequence[Inputs]) -> Float64:
    """The share of digits lost on each input, NaN for what was not looked at closely: where float64 sees nothing, real arithmetic may."""
    shares = lost(m, tries)
    if m.exactly:
        return np.nan_to_num(shares)
    unseen = np.flatnonzero(~(shares > HALF))
    close = unseen[:: len(unseen) // m.effort(CLOSELY) + 1]
    out = np.where(shares > HALF, shares, np.nan)
    out[close] = [np.nan_to_num(lost_exactly(m, tries[k])) for k in close]
    return out


def in_words(r: Region) -> str:
    """The region as sentences; empty if it is too thin to be seen."""
    said = [_said(r, name) for name in r.where]
    place = f"More than half of the digits are lost where {'; or where '.join(said)}." if said else ""
    share = f"So many are lost on {r.share:.0%} of evenly drawn inputs." if r.share >= 0.01 else ""
    return " ".join(part for part in (place, share) if part)


def _said(r: Region, name: str) -> str:
    runs = sorted(sorted(r.where[name], key=lambda run: run[0] - run[1])[:SHOWN])
    intervals = " or ".join(dict.fromkeys(_interval(low, high) for low, high in runs))
    part = f" ({r.parts[name]:.0%} of its range)" if r.parts[name] >= 0.005 else ""
    subject = f"the elements of {name}, as far apart as here, lie" if name in r.about else f"{name} lies"
    return f"{subject} {intervals}{part}"


def _interval(low: float, high: float) -> str:
    ends = f"{low:.3g}", f"{high:.3g}"
    return f"in [{ends[0]}, {ends[1]}]" if ends[0] != ends[1] else f"near {ends[0]}"


def _varies(d: Domain) -> bool:
    return d.value is None and d.kind in CONTINUOUS and d.format.is_float


def _even(d: Domain, rng: np.random.Generator) -> Array:
    return sample.project(d, 2 * rng.uniform(d.low / 2, d.high / 2, d.shape)) if _varies(d) else sample.draw(d, rng)


def _grid(d: Domain) -> Float64:
    """Values of a domain in order: evenly, and at all magnitudes of distance from 0 and 1."""
    reach, n = max(abs(d.low), abs(d.high)), GRID // 6
    sizes = reach * 10.0 ** np.linspace(-10.0, 0.0, n)
    near_one = 10.0 ** np.linspace(-7.0, 0.0, n) if d.low <= 1 <= d.high else np.zeros(0)
    values = np.concatenate([-sizes, sizes, np.linspace(d.low, d.high, 2 * n), 1 - near_one, 1 + near_one, np.zeros(1)])
    return np.unique(sample.project(replace(d, shape=values.shape), values).astype(np.float64))


def _runs(grid: Float64, bad: np.ndarray, gap: int) -> Intervals:
    """The intervals of a grid on which a mask holds, across gaps of fewer than `gap` points; a single point is none."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], bad, [False]]).astype(int))).reshape(-1, 2)
    joined: list[tuple[int, int]] = []
    for first, after in edges.tolist():
        if joined and first - joined[-1][1] < gap:
            joined[-1] = (joined[-1][0], after)
        else:
            joined.append((first, after))
    runs = [(float(grid[a]), float(grid[b - 1])) for a, b in joined]
    return tuple(run for run in runs if run[0] < run[1])
