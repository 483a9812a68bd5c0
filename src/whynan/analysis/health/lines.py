"""The loss and a gradient along a line: one element of one input is moved through its domain, everything else stays.

All values come from the recorded graph: in the program's own formats, and in float64 throughout ("wide"). Intervals in which a gradient
is exactly zero are found this way, and whether the loss would fall if the element were moved out of them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from whynan.analysis.evaluate import ancestors, evaluate_many
from whynan.analysis.forecast import MOST_NUMBERS, forecaster
from whynan.analysis.search import Inputs
from whynan.domain import sample
from whynan.domain.spec import Domain
from whynan.errors import OpError
from whynan.ir.dtype import Array, Float64
from whynan.ir.frontend import Run
from whynan.ir.graph import Graph

POINTS = 33  # of a line that is looked at closely
ROUNDS = 4  # a boundary lies between two points; each round puts as many points between them
EVEN, SPREAD = 9, 4  # points of a line that is only glanced at: evenly, and by decades on either side of zero

Index = tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Lab:
    """A recorded graph that can be evaluated on many inputs at once: the nodes in order, the loss, the gradients by input."""

    graph: Graph
    order: tuple[int, ...]
    loss: int
    gradients: Mapping[str, int]
    numbers: int  # elements of all values of one evaluation


@dataclass(frozen=True, slots=True, eq=False)
class Spot:
    """An input and one element of one of its arrays."""

    inputs: Inputs
    name: str
    index: Index

    @property
    def value(self) -> float:
        """The element's value."""
        return float(self.inputs[self.name][self.index])

    @property
    def text(self) -> str:
        """The element as a program would write it."""
        return f"{self.name}[{', '.join(map(str, self.index))}]" if self.index else self.name

    def moved(self, domain: Domain, value: float) -> "Spot":
        """The same with the element at another value of the domain's dtype."""
        changed = self.inputs[self.name].copy()
        changed[self.index] = np.clip(value, domain.low, domain.high)
        return Spot({**self.inputs, self.name: changed}, self.name, self.index)


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """Values of the element; there the loss in float64 and the gradient by the element as the program computes it and in float64."""

    at: Float64
    loss: Float64
    real: Float64
    wide: Float64


def lab_of(graph: Graph) -> Lab | None:
    """The graph made ready; None where it cannot be evaluated, holds for one path only, or is too large."""
    loss = next((o.node for o in graph.outputs if o.kind == "loss"), None)
    gradients = {o.name: o.node for o in graph.outputs if o.kind == "gradient"}
    if loss is None or not gradients or forecaster(graph) is None:
        return None
    order = sorted(set().union(*(ancestors(graph, o.node) for o in graph.outputs)))
    numbers = sum(int(np.prod(graph.nodes[i].shape)) for i in order)
    return Lab(graph, tuple(order), loss, gradients, numbers) if numbers * POINTS <= 4 * MOST_NUMBERS else None


def evaluated(lab: Lab, stacked: Mapping[str, Array], name: str) -> tuple[Float64, Float64, Float64]:
    """On inputs stacked along a leading axis: the loss in float64, and the gradient by an input as computed and in float64."""
    with np.errstate(all="ignore"):
        real = evaluate_many(lab.graph, lab.order, stacked)
        wide = evaluate_many(lab.graph, lab.order, stacked, wide=True)
    count, node = len(next(iter(stacked.values()))), lab.gradients[name]
    loss = wide[lab.loss].astype(np.float64).reshape(count, -1).sum(axis=1)
    return loss, real[node].astype(np.float64), wide[node].astype(np.float64)


def lines(lab: Lab, spots: Sequence[Spot], values: Sequence[Float64], domain: Domain) -> list[Line]:
    """For each spot (all of one input) the line through the values given for it, as many for each."""
    name, count = spots[0].name, len(values[0])
    stacked = {n: np.concatenate([np.repeat(s.inputs[n][None], count, 0) for s in spots]) for n in lab.graph.inputs}
    for k, (spot, at) in enumerate(zip(spots, values, strict=True)):
        rows = np.arange(k * count, (k + 1) * count)
        stacked[name][_places(rows, spot)] = sample.project(domain.but(shape=(count,)), at)
    loss, real, wide = evaluated(lab, stacked, name)
    out = []
    for k, spot in enumerate(spots):
        rows = np.arange(k * count, (k + 1) * count)
        here = _places(rows, spot)
        out.append(Line(stacked[name][here].astype(np.float64), loss[rows], real[here], wide[here]))
    return out


def _places(rows: np.ndarray, spot: Spot) -> Any:
    """The spot's element in those rows of a stack."""
    return (rows, *spot.index)


def glance(domain: Domain, value: float) -> Float64:
    """Values all over the domain and the element's own, in order: evenly spread, and by decades about zero."""
    even = 2 * np.linspace(domain.low / 2, domain.high / 2, EVEN)
    largest = max(abs(domain.low), abs(domain.high))
    decades = largest * 10.0 ** -np.arange(1, SPREAD + 1)
    spread = np.concatenate([-decades, decades])
    return np.sort(np.clip(np.concatenate([even, spread, [value]]), domain.low, domain.high))


@contextmanager
def quiet() -> Iterator[None]:
    """An operation whose result has another shape on another input ends what is done inside: nothing is said then."""
    try:
        yield
    except OpError:
        return


def slope(execute: Callable[[Inputs], Run], spot: Spot) -> float:
    """The gradient by the element in a real run; NaN if there is none."""
    run = execute(spot.inputs)
    gradient = run.gradients.get(spot.name)
    return float("nan") if run.error or gradient is None else float(gradient[spot.index])


# ---------------------------------------------------------------- where a gradient is zero


def boundary(lab: Lab, spot: Spot, domain: Domain, towards: float) -> tuple[Line, int] | None:
    """The last point with a zero gradient on the way from a spot to a value, and the first without: a line and the first one's place.

    None if the gradient is zero on the whole way.
    """
    start, end = spot.value, towards
    found: tuple[Line, int] | None = None
    for _ in range(ROUNDS):
        (line,) = lines(lab, [spot], [_between(start, end) if found is None else np.linspace(start, end, POINTS)], domain)
        alive = np.flatnonzero(line.real != 0)
        if not alive.size or alive[0] == 0:
            return found
        place = int(alive[0]) - 1
        found = line, place
        start, end = float(line.at[place]), float(line.at[place + 1])
        if abs(end - start) <= 1e-4 * max(abs(start), abs(end)):
            return found
    return found


def _between(start: float, end: float) -> Float64:
    """From start to end evenly, and more closely about zero if it lies between."""
    even = np.linspace(start, end, POINTS)
    largest = max(abs(start), abs(end))
    decades = largest * 10.0 ** -np.arange(1, 6)
    inside = [x for x in np.concatenate([-decades, decades]) if min(start, end) < x < max(start, end)]
    return np.asarray(sorted([*even, *inside], reverse=end < start))


def zero_interval(lab: Lab, spot: Spot, domain: Domain) -> tuple[float, float] | None:
    """The interval around a spot's element in which its gradient is exactly zero, as far as points between show; None if it is not zero."""
    (here,) = lines(lab, [spot], [np.array([spot.value])], domain)
    if here.real[0] != 0:
        return None
    ends = []
    for limit in (domain.low, domain.high):
        edge = boundary(lab, spot, domain, limit) if spot.value != limit else None
        ends.append(limit if edge is None else float(edge[0].at[edge[1]]))
    return ends[0], ends[1]
