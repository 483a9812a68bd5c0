"""How a changed program differs from the original one: its values against a run of the original without rounding, its gradients.

The inputs are those that a search would try, the witnesses of the failures, and points ever closer to the witnesses, where a guard acts.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from whynan.analysis.evaluate import evaluate, finite
from whynan.analysis.search import Inputs, search
from whynan.domain import sample
from whynan.domain.spec import Domain
from whynan.ir.dtype import Array, Float64
from whynan.ir.frontend import Run, Trace

TRIED = 64  # inputs of the kind that a search tries
STEPS = (1e-30, 1e-20, 1e-12, 1e-8, 1e-6, 1e-4, 1e-3, 1e-2, 0.1)  # distances from a witness, relative to the size of the domain
ULPS = 32  # so many units in the last place (of the loss's usual size) count as the same value


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """One input with what the original gives there: `run` by the real framework, `exact` without rounding (None where that is not known)."""

    inputs: Inputs
    run: Run
    exact: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Original:
    """The original on all points; `eps` is the spacing of its format at 1 and `scale` the usual size of its loss."""

    points: tuple[Point, ...]
    eps: float
    scale: float


@dataclass(frozen=True, slots=True, eq=False)
class Difference:
    """What a changed program does on the same points.

    `failing` is an input on which it is not finite (None if there is none; with one, nothing else is looked at). `largest` is the largest
    relative difference of the loss where the original is well defined, over `compared` points; `changed` are the points where it is more
    than rounding (original value, new value), `away` those among the points where the original fails at which the new value is not the true
    one. `dead` are the inputs whose gradient has become 0 where it was not, `steeper` whether a gradient has grown a thousandfold.
    """

    failing: Inputs | None = None
    compared: int = 0
    largest: float = 0.0
    changed: tuple[tuple[Point, float], ...] = ()
    away: tuple[tuple[Point, float], ...] = ()
    mended: int = 0
    dead: tuple[str, ...] = ()


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
    search(note, domains, seed=seed, evaluations=TRIED)
    points = tuple(Point(inputs, run, _exact(trace, inputs)) for inputs, run in seen)
    sizes = [abs(p.exact) for p in points if p.exact is not None and np.isfinite(p.exact)]
    return Original(points, eps, float(np.median(sizes)) if sizes else 1.0)


def _nearby(domains: Mapping[str, Domain], witnesses: Sequence[Inputs], rng: np.random.Generator) -> Iterator[Inputs]:
    for witness in witnesses[:3]:
        for step in STEPS:
            moved = {n: w.astype(np.float64) + step * _reach(domains[n]) * rng.normal(size=w.shape) for n, w in witness.items() if _moves(domains[n])}
            yield {n: sample.project(domains[n], moved[n]) if n in moved else w for n, w in witness.items()}


def _moves(domain: Domain) -> bool:
    return domain.format.is_float and domain.value is None and domain.kind not in ("binary", "onehot")


def _reach(domain: Domain) -> float:
    return float(min(abs(domain.high - domain.low), 1e3))


def _ordinary(domains: Mapping[str, Domain], rng: np.random.Generator) -> Iterator[Inputs]:
    for _ in range(8):
        yield {n: sample.ordinary(d, rng) for n, d in domains.items()}


def _exact(trace: Trace, inputs: Inputs) -> float | None:
    """The loss without rounding; None where an operation has no record or Python code would have taken another path."""
    graph = trace.graph
    with np.errstate(all="ignore"):
        values = evaluate(graph, inputs, wide=True)
    for look in graph.assumptions:
        seen = values[look.node]
        if seen is None or not bool(((seen >= look.low) & (seen <= look.high)).all()):
            return None
    loss = next((values[o.node] for o in graph.outputs if o.kind == "loss"), None)
    return None if loss is None else float(np.sum(np.asarray(loss, np.float64)))


def difference(before: Original, execute: Callable[[Inputs], Run], dead: bool = True) -> Difference:
    """Run a changed program on the points of the original."""
    largest, compared, mended = 0.0, 0, 0
    changed: list[tuple[Point, float]] = []
    away: list[tuple[Point, float]] = []
    still: set[str] = set()
    for p in before.points:
        run = execute(p.inputs)
        if run.error or not finite(run.loss) or not all(finite(g) for g in run.gradients.values()):
            return Difference(failing=p.inputs)
        new, old = _number(run.loss), _number(p.run.loss)
        still |= _dead(p.run, run)
        true = p.exact if p.exact is not None and np.isfinite(p.exact) else old
        if not np.isfinite(true):
            continue
        was_finite = bool(np.isfinite(old))
        allowed = max(ULPS * before.eps * max(abs(true), before.scale), 3 * abs(old - true) if was_finite else 0.0)
        error = min(abs(new - true), abs(new - old)) if was_finite else abs(new - true)
        if not was_finite:
            mended += 1
            away += [(p, new)] if error > allowed else []
            continue
        compared += 1
        largest = max(largest, abs(new - true) / max(abs(true), before.scale, 1e-300))
        changed += [(p, new)] if error > allowed else []
    return Difference(None, compared, largest, tuple(changed), tuple(away), mended, tuple(sorted(still)))


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
