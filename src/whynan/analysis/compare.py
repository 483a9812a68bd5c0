"""How a changed program differs from the original one: its values and gradients against the original's without rounding.

The inputs are those that a search would try, the witnesses of the failures, and points ever closer to the witnesses, where a guard acts.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from whynan.analysis.evaluate import finite
from whynan.analysis.reference import Referee, Reference, evaluated
from whynan.analysis.search import Inputs, search
from whynan.domain import sample
from whynan.domain.spec import Domain
from whynan.ir.dtype import Array, Float64, flushed, from_ordinal, ordinal
from whynan.ir.frontend import Run, Trace
from whynan.ir.graph import Graph

TRIED = 48  # inputs of the kind that a search tries
STEPS = tuple(10.0**-k for k in range(1, 46, 3))  # distances from a witness, relative to the size of the domain
PERTURBED = 6  # times that an input is moved a little, to see how much the original's value means
BASES, SWEPT = 2, 9  # inputs from which one element is moved across its domain, and in how many steps
FAR = 0.05  # so far from a true value, relative to it or to the loss's usual size, a value where the original fails is another one
STEEP = 0.01  # a gradient that is closer to the true one, relative to its largest element, is taken for right
HALVED = 16  # times that the way to a witness is halved, to find where the original begins to fail
ULPS = 32  # so many units in the last place (of the loss's usual size) count as the same value


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """One input with what the original gives there.

    `run` is by the real framework, `reference` what it would be without rounding. `edge`: an output is finite thanks to
    subnormal numbers only, the remainder below the format's smallest normal one; on hardware that takes them for zero it is not.
    """

    inputs: Inputs
    run: Run
    reference: Reference
    edge: bool

    @property
    def exact(self) -> float | None:
        """The loss without rounding; None where that is not known."""
        return self.reference.loss

    @property
    def fails(self) -> bool:
        """Whether the original fails here, or would on hardware that takes subnormal numbers for zero."""
        return self.edge or not _all_finite(self.run)


@dataclass(frozen=True, slots=True, eq=False)
class Original:
    """The original on all points; `eps` is the spacing of its format at 1, `scale` the usual size of its loss.

    `witnesses` are inputs on which it is known to fail.
    """

    points: tuple[Point, ...]
    eps: float
    scale: float
    execute: Callable[[Inputs], Run]
    domains: Mapping[str, Domain]
    referee: Referee
    witnesses: tuple[Inputs, ...] = ()
    sharpened: dict[int, Point] = field(default_factory=dict)
    known_noise: dict[int, tuple[float, Mapping[str, float]]] = field(default_factory=dict)

    def unsteady(self, p: Point) -> float:
        """How far the true value moves as its inputs do by eps squared of the domain's size, or as subnormal ones become zero.

        Infinite where it is not finite there.
        """
        rng, true, far = np.random.default_rng(0), p.reference.loss, 0.0
        moves = [{n: _without_subnormals(self.domains[n], v) for n, v in p.inputs.items()}, *self._towards(p)]
        moves += [{n: _moved(self.domains[n], v, self.eps**2, rng) for n, v in p.inputs.items()} for _ in range(PERTURBED)]
        for moved in moves:
            there = self.referee.at(moved, p.run).loss
            far = max(far, np.inf if there is None or true is None or not np.isfinite(there) else abs(there - true))
        return far

    def _towards(self, p: Point) -> Iterator[Inputs]:
        """The input with all elements at a value of a witness that are no farther than such a move from it, for each witness."""
        for witness in self.witnesses:
            moved = {n: _snapped(self.domains[n], v, witness[n], self.eps**2) for n, v in p.inputs.items()}
            if any((moved[n] != v).any() for n, v in p.inputs.items()):
                yield moved

    def sharper(self, position: int) -> Point:
        """A point whose reference is in doubt, with that of real arithmetic if it can be had."""
        if position not in self.sharpened:
            p = self.points[position]
            self.sharpened[position] = replace(p, reference=self.referee.sharper(p.inputs, p.reference))
        return self.sharpened[position]

    def noise(self, position: int) -> tuple[float, Mapping[str, float]]:
        """How far the original's value and its gradients move when its inputs move below what their format tells apart.

        Less than this says nothing. The moves are by one unit in the last place and by eps squared of the domain's size, which numbers of
        that size do not hold, also towards the values at which it is known to fail.
        Infinite where the original fails on such a neighbour.
        """
        if position not in self.known_noise:
            self.known_noise[position] = self._noise(self.points[position])
        return self.known_noise[position]

    def _noise(self, p: Point) -> tuple[float, Mapping[str, float]]:
        rng = np.random.default_rng(0)
        here, far, turned = _number(p.run.loss), 0.0, dict.fromkeys(p.run.gradients, 0.0)
        steps = [_nudged if k % 2 else lambda d, v, r: _moved(d, v, self.eps**2, r) for k in range(PERTURBED)]
        moves = ({n: step(self.domains[n], v, rng) for n, v in p.inputs.items()} for step in steps)
        for moved in itertools.chain(self._towards(p), moves):
            run = self.execute(moved)
            if not _all_finite(run):
                return np.inf, dict.fromkeys(p.run.gradients, np.inf)
            far = max(far, abs(_number(run.loss) - here))
            turned = {n: max(far_, _apart(run.gradients.get(n), p.run.gradients[n])) for n, far_ in turned.items()}
        return far, turned


@dataclass(frozen=True, slots=True, eq=False)
class Difference:
    """What a changed program does on the same points.

    `failing` is a run in which it is not finite (None if there is none; with one, nothing else is looked at), `first_failing` its position
    among the points. `largest` is the largest relative difference of the loss where the original is well defined, on `compared` points,
    of which `mended` made the original fail. `changed` are the points where it is more than rounding (each with the new value), `away`
    those at which the new value is not the true one where the original fails (at an edge too), or rounding alone moves it as much.
    `missed` are those of the latter at which the original fails in any case, though its value in real arithmetic is a
    finite number of ordinary size, and the new value is far from that. `bent` are the points where the original's gradient is right and
    the new one is not, each with the input's name. `dead` are the inputs whose gradient has become 0 where it was not, `lost` those whose
    gradient is 0 where the original fails and the true one is not 0.
    `real` is the number of points whose reference comes from real arithmetic.
    """

    failing: Run | None = None
    first_failing: int = -1
    compared: int = 0
    largest: float = 0.0
    changed: tuple[tuple[Point, float], ...] = ()
    away: tuple[tuple[Point, float], ...] = ()
    mended: int = 0
    missed: tuple[tuple[Point, float], ...] = ()
    bent: tuple[tuple[Point, str], ...] = ()
    dead: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    real: int = 0


def original(
    execute: Callable[[Inputs], Run], trace: Trace, domains: Mapping[str, Domain], witnesses: Sequence[Inputs], eps: float, seed: int
) -> Original:
    """Run the original on all points."""
    seen: list[tuple[Inputs, Run]] = []

    def note(inputs: Inputs) -> Run:
        run = execute(inputs)
        if not run.error:
            seen.append((inputs, run))
        return run

    rng = np.random.default_rng(seed)
    for inputs in [*witnesses, *_nearby(domains, witnesses, rng), *_ordinary(domains, rng)]:
        note(inputs)
    for base in [inputs for inputs, run in seen if _all_finite(run)][-BASES:]:
        for inputs in _sweeps(domains, base, rng):
            note(inputs)
        for witness in witnesses[:2]:
            for inputs in _inside(domains, base, witness, execute):
                note(inputs)
    search(note, domains, seed=seed, evaluations=TRIED)
    subnormal, referee = _flushing(trace.graph), Referee(trace.graph, eps)
    points = tuple(Point(inputs, run, referee.at(inputs, run), _edge(subnormal, inputs, run)) for inputs, run in seen)
    sizes = [abs(p.exact) for p in points if p.exact is not None and np.isfinite(p.exact)]
    return Original(points, eps, float(np.median(sizes)) if sizes else 1.0, execute, domains, referee, tuple(witnesses[:2]))


def _nudged(domain: Domain, value: Array, rng: np.random.Generator) -> Array:
    """The value with each element moved to a neighbouring number of its format, or left."""
    if not _moves(domain):
        return value
    steps = ordinal(domain.format, value.astype(np.float64)) + rng.integers(-1, 2, value.shape)
    return sample.project(domain, from_ordinal(domain.format, steps))


def _nearby(domains: Mapping[str, Domain], witnesses: Sequence[Inputs], rng: np.random.Generator) -> Iterator[Inputs]:
    for witness in witnesses[:2]:
        for step in STEPS:
            moved = {
                n: w.astype(np.float64) + step * _reach(domains[n]) * rng.normal(size=w.shape)
                for n, w in witness.items()
                if _moves(domains[n])
            }
            yield {n: sample.project(domains[n], moved[n]) if n in moved else w for n, w in witness.items()}


def _moved(domain: Domain, value: Array, step: float, rng: np.random.Generator) -> Array:
    if not _moves(domain):
        return value
    return sample.project(domain, value.astype(np.float64) + step * _reach(domain) * rng.normal(size=value.shape))


def _moves(domain: Domain) -> bool:
    return domain.format.is_float and domain.value is None and domain.kind not in ("binary", "onehot")


def _reach(domain: Domain) -> float:
    return float(min(abs(domain.high - domain.low), 1e3))


def _ordinary(domains: Mapping[str, Domain], rng: np.random.Generator) -> Iterator[Inputs]:
    for _ in range(8):
        yield {n: sample.ordinary(d, rng) for n, d in domains.items()}


def _inside(domains: Mapping[str, Domain], base: Inputs, witness: Inputs, execute: Callable[[Inputs], Run]) -> Iterator[Inputs]:
    """Points just inside the region where the original is finite, on the way from a finite input to a witness: there guards act first."""

    def between(share: float) -> Inputs:
        return {n: _mixed(domains[n], base[n], w, share) for n, w in witness.items()}

    low, high = 0.0, 1.0
    if not _all_finite(execute(between(low))):
        return
    for _ in range(HALVED):
        middle = (low + high) / 2
        low, high = (middle, high) if _all_finite(execute(between(middle))) else (low, middle)
    for back in (0.0, 0.01, 0.03, 0.1, 0.2):
        yield between(low * (1 - back))


def _mixed(domain: Domain, one: Array, other: Array, share: float) -> Array:
    if not _moves(domain):
        return other
    return sample.project(domain, (1 - share) * one.astype(np.float64) + share * other.astype(np.float64))


def _sweeps(domains: Mapping[str, Domain], base: Inputs, rng: np.random.Generator) -> Iterator[Inputs]:
    """From an input on which the original is finite: one element at a time across its domain, so that nothing else fails beside it."""
    for name, domain in domains.items():
        if not _moves(domain) or not base[name].size:
            continue
        for value in [*np.linspace(domain.low, domain.high, SWEPT), *sample.special_values(domain)[:SWEPT]]:
            moved = base[name].astype(np.float64)
            moved.flat[int(rng.integers(moved.size))] = value
            yield {**base, name: sample.project(domain, moved)}


def _flushing(graph: Graph) -> Graph:
    """The same program on hardware that takes subnormals for zero."""
    return replace(graph, nodes=tuple(replace(n, format=flushed(n.format)) for n in graph.nodes))


def _edge(graph: Graph, inputs: Inputs, run: Run) -> bool:
    if not _all_finite(run):
        return False
    values = evaluated(graph, inputs, wide=False)
    outputs = [values[o.node] for o in graph.outputs] if values else []
    return any(v is not None and not finite(v) for v in outputs)


def _snapped(domain: Domain, value: Array, known: Array, step: float) -> Array:
    """The value with each element at the nearest number of `known` that is no farther than a step relative to the domain's size."""
    if not _moves(domain) or not known.size:
        return value
    wide, values = value.astype(np.float64), np.unique(known.astype(np.float64))
    nearest = values[np.abs(wide[..., None] - values).argmin(axis=-1)]
    return sample.project(domain, np.where(np.abs(nearest - wide) <= step * _reach(domain), nearest, wide))


def _without_subnormals(domain: Domain, value: Array) -> Array:
    if not _moves(domain):
        return value
    wide = value.astype(np.float64)
    return sample.project(domain, np.where(np.abs(wide) < domain.format.tiny, 0.0, wide))


def _all_finite(run: Run) -> bool:
    return not run.error and finite(run.loss) and all(finite(g) for g in run.gradients.values())


def difference(before: Original, execute: Callable[[Inputs], Run]) -> Difference:
    """Run a changed program on the points of the original."""
    largest, compared, mended, real = 0.0, 0, 0, 0
    changed: list[tuple[Point, float]] = []
    away: list[tuple[Point, float]] = []
    bent: list[tuple[Point, str]] = []
    dead: set[str] = set()
    lost: set[str] = set()
    for position, p in enumerate(before.points):
        run = execute(p.inputs)
        if not _all_finite(run):
            return Difference(run, position)
        if _differs(before, p, _number(run.loss)) or _turned(before, p, run):
            p = before.sharper(position)
        dead |= _dead(p.run, run)
        lost |= _lost(p, run)
        bent += [(p, name) for name in _bent(before, position, p, run)]
        new, true = _number(run.loss), _true(p)
        if not np.isfinite(true):
            continue
        differs, known = _differs(before, p, new), np.isfinite(_number(p.run.loss))
        noise = before.noise(position)[0] if differs and known and not p.fails else 0.0
        if differs and (p.fails or min(abs(new - true), abs(new - _number(p.run.loss))) <= 2 * noise):
            away.append((p, new))
            continue
        compared += 1
        real += p.reference.real
        mended += p.fails
        largest = max(largest, abs(new - true) / max(abs(true), before.scale, 1e-300))
        changed += [(p, new)] if differs else []
    names = (tuple(sorted(dead)), tuple(sorted(lost - dead)))
    missed = tuple((p, new) for p, new in away if _missed(before, p, new))
    return Difference(None, -1, compared, largest, tuple(changed), tuple(away), mended, missed, tuple(bent), *names, real)


def _missed(before: Original, p: Point, new: float) -> bool:
    true = p.exact
    if p.edge or _all_finite(p.run) or not p.reference.real or true is None or not np.isfinite(true):
        return False
    off = abs(new - true)
    return abs(true) < 1 / before.eps and off > FAR * max(abs(true), before.scale) and off > 2 * before.unsteady(p)


def _true(p: Point) -> float:
    return p.exact if p.exact is not None and np.isfinite(p.exact) else _number(p.run.loss)


def _differs(before: Original, p: Point, new: float) -> bool:
    """Whether a value is neither the true one nor the original's, within what rounding explains."""
    true, old = _true(p), _number(p.run.loss)
    allowed = ULPS * before.eps * max(abs(true), before.scale)
    if not np.isfinite(old):
        return abs(new - true) > allowed
    return min(abs(new - true), abs(new - old)) > max(allowed, 3 * abs(old - true))


def _bent(before: Original, position: int, p: Point, run: Run) -> list[str]:
    """The inputs by which the gradient is bent; kinks and noise are not held against it."""
    names = _turned(before, p, run)
    return [n for n in names if _apart(run.gradients.get(n), p.run.gradients[n]) > 2 * before.noise(position)[1][n]]


def _turned(before: Original, p: Point, run: Run) -> list[str]:
    """The inputs by which the original's gradient is right and the new one is another."""
    if p.fails:
        return []
    close, names = max(STEEP, 2 * ULPS * before.eps), []
    for name, true in p.reference.gradients.items():
        old, new = p.run.gradients.get(name), run.gradients.get(name)
        size = float(np.abs(true).max(initial=0.0))
        if old is None or not np.isfinite(size) or _apart(old, true) > close * size:
            continue
        if min(_apart(new, true), _apart(new, old)) > max(close * size, float(np.finfo(np.float32).tiny)):
            names.append(name)
    return names


def _lost(p: Point, run: Run) -> set[str]:
    """The inputs by which the new gradient is 0 throughout where the original fails and the true gradient is neither 0 nor unknown."""
    if not p.fails or not p.reference.real:
        return set()
    at = {n: (g, run.gradients[n]) for n, g in p.reference.gradients.items() if n in run.gradients}
    return {n for n, (g, new) in at.items() if bool((np.isfinite(g) & (np.abs(g) > 1e-3) & (new.astype(np.float64) == 0)).any())}


def _apart(one: Array | None, other: Array) -> float:
    if one is None or one.shape != other.shape:
        return float("inf")
    return float(np.abs(one.astype(np.float64) - other.astype(np.float64)).max(initial=0.0))


def _number(x: Array) -> float:
    return float(np.sum(x.astype(np.float64)))


def _dead(old: Run, new: Run) -> set[str]:
    """The inputs by which the gradient is 0 now where it was finite and not 0."""
    found: set[str] = set()
    for name, g in old.gradients.items():
        if name not in new.gradients:
            found.add(name)
            continue
        a: Float64 = g.astype(np.float64)
        b: Float64 = new.gradients[name].astype(np.float64)
        if bool((np.isfinite(a) & (a != 0) & (b == 0)).any()):
            found.add(name)
    return found
