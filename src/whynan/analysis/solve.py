"""Solve for inputs at which an operation fails: where a divisor, a radicand, the argument of a logarithm is exactly at the edge.

Chance does not hit an equality between computed quantities. For each operation that the prover left open, the quantity that must reach the
edge is brought there by Gauss-Newton steps on the graph in float64 (finite differences, many at a time), then carried into the real
format: as many inputs as possible are moved to round numbers while the others are solved for again, and the last bits are searched
among the neighbouring values. Quantities that must become large are climbed. The real function alone decides what is a witness.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from whynan.analysis.evaluate import ancestors, evaluate_many
from whynan.analysis.propagate import Proof
from whynan.domain import sample
from whynan.domain.spec import CONTINUOUS, ROWS, Domain
from whynan.errors import OpError
from whynan.ir.dtype import FLOAT64, Array, Float64, Format, from_ordinal, nearest, ordinal
from whynan.ir.graph import Graph
from whynan.ops._opdef import known

Inputs = Mapping[str, Array]

MOST_DANGERS = 6
MOST_GOALS = 8
MOST_VARIABLES = 160
MOST_RESIDUALS = 64
MOST_NUMBERS = 4_000_000  # elements of all values of one batch of runs
STARTS = 3
STEPS = 40
GRIDS = (2.0**-3, 2.0**-5)
NEIGHBOURS = 96  # points of one generation of the search among neighbouring values
GENERATIONS = 10
LIBRARY_ULPS = 16

# the values of an operand at which an operation fails, by its position from the end
_EDGES: Mapping[str, tuple[float, ...]] = {
    **dict.fromkeys(("div", "log", "log2", "log10", "reciprocal", "rsqrt", "sqrt", "pow", "atan2", "xlogy", "norm"), (0.0,)),
    **dict.fromkeys(("acos", "asin", "atanh"), (1.0, -1.0)),
    "acosh": (1.0,),
    "log1p": (-1.0,),
}
_BASE_FIRST = frozenset({"pow"})  # the operand at the edge is the first, not the last
_SAME_ZERO = frozenset("sqrt abs neg cast reshape expand permute square slice expm1 log1p tanh either".split())
_FAIL_BELOW = frozenset({"log", "log2", "log10", "rsqrt", "sqrt", "log1p", "acosh"})  # what lies beyond the edge fails as well
_ALL_ZERO = frozenset({"sum", "mean", "norm"})  # of squares or magnitudes: zero only where all terms are
_EITHER_ZERO = frozenset({"mul", "where", "minimum", "maximum"})


@dataclass(frozen=True, slots=True)
class _Goal:
    """Bring a node's value to `edge` (or as high as it goes: `climb`), in all elements, or in the one at `element`.

    With `below`, a value under the edge is as good.
    """

    node: int
    edge: float = 0.0
    element: int | None = None
    climb: bool = False
    below: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class _System:
    """A goal with its unknowns: the elements of the continuous inputs, in one vector, between their ends."""

    graph: Graph
    order: Sequence[int]
    goal: _Goal
    domains: Mapping[str, Domain]
    names: Sequence[str]
    base: Inputs

    @property
    def low(self) -> Float64:
        """The least value of each unknown."""
        return np.concatenate([np.full(_size(self.domains[n]), self.domains[n].low) for n in self.names])

    @property
    def high(self) -> Float64:
        """The greatest value of each unknown."""
        return np.concatenate([np.full(_size(self.domains[n]), self.domains[n].high) for n in self.names])

    def inputs(self, points: Float64, *, wide: bool) -> dict[str, Array]:
        """Stacked inputs for points (rows of unknowns), in float64 or rounded to their formats."""
        out, start = {}, 0
        for name, value in self.base.items():
            out[name] = np.broadcast_to(value, (len(points), *value.shape))
        for name in self.names:
            d = self.domains[name]
            part = points[:, start : start + _size(d)].reshape(len(points), *d.shape)
            out[name] = part if wide else nearest(d.format, part).astype(d.format.numpy)
            start += _size(d)
        return out

    def residuals(self, points: Float64, *, wide: bool = True) -> Float64:
        """How far the goal's elements are from the edge, a row per point."""
        values = evaluate_many(self.graph, self.order, self.inputs(points, wide=wide), wide=wide)
        flat = values[self.goal.node].astype(np.float64).reshape(len(points), -1)
        chosen = flat if self.goal.element is None else flat[:, self.goal.element : self.goal.element + 1]
        return np.nan_to_num(chosen - self.goal.edge, nan=1e300, posinf=1e300, neginf=-1e300)

    def candidate(self, point: Float64) -> Inputs:
        """One point as inputs of the program."""
        return {name: sample.project(self.domains[name], v[0]) for name, v in self.inputs(point[None], wide=False).items()}


def solutions(graph: Graph, proof: Proof, domains: Mapping[str, Domain], seed: int) -> Iterator[Inputs]:
    """Candidates at which an open operation is expected to fail, by goal."""
    rng = np.random.default_rng(seed)
    for node in sorted(proof.open)[:MOST_DANGERS]:
        if not known(graph.nodes[node].op):
            continue
        for goal in _goals(graph, proof, node)[:MOST_GOALS]:
            try:
                yield from _solved(graph, goal, domains, rng)
            except (OpError, np.linalg.LinAlgError):  # something on the way is unknown or cannot be solved
                continue


# ---------------------------------------------------------------- goals


def _goals(graph: Graph, proof: Proof, node: int) -> list[_Goal]:
    """What must become zero, or large, for an operation to fail."""
    n = graph.nodes[node]
    if not n.inputs:
        return []
    operand = n.inputs[0] if n.op in _BASE_FIRST else n.inputs[-1]
    goals: list[_Goal] = []
    for edge in _EDGES.get(n.op, ()):
        places = _zeros(graph, operand) if edge == 0 else [(operand, edge)]
        found = [g for place, at in places for g in _by_element(graph, place, at)]
        goals += [replace(g, below=n.op in _FAIL_BELOW and g.node == operand) for g in found]
    if n.op not in _EDGES or n.op == "div":
        grown = n.inputs[0]
        goals += [_Goal(grown, 0.0, k, climb=True) for k in range(min(_elements(graph, grown), 4))]
    return goals


def _zeros(graph: Graph, i: int, depth: int = 12) -> list[tuple[int, float]]:
    """Values whose being at a number makes node i zero, the ones furthest back first."""
    n = graph.nodes[i]
    if depth == 0 or not n.inputs or not n.format.is_float:
        return [(i, 0.0)]
    if n.op in _SAME_ZERO:
        return _zeros(graph, n.inputs[0], depth - 1)
    if n.op in _ALL_ZERO and (n.op == "norm" or graph.nodes[n.inputs[0]].op in ("square", "abs", "either")):
        return _zeros(graph, n.inputs[0], depth - 1)
    if n.op in _EITHER_ZERO:
        operands = [j for j in dict.fromkeys(n.inputs) if graph.nodes[j].format.is_float and graph.nodes[j].op != "const"]
        return [z for j in operands for z in _zeros(graph, j, depth - 1)] or [(i, 0.0)]
    if n.op == "div":
        return _zeros(graph, n.inputs[0], depth - 1)
    return [(i, 0.0)]


def _by_element(graph: Graph, node: int, edge: float) -> list[_Goal]:
    """The whole value at the edge, or one element of it."""
    size = _elements(graph, node)
    whole = [_Goal(node, edge)] if size <= MOST_RESIDUALS else []
    return whole + ([_Goal(node, edge, k) for k in sorted({0, size // 2})] if size > 1 else [])


def _elements(graph: Graph, node: int) -> int:
    return int(np.prod(graph.nodes[node].shape))


# ---------------------------------------------------------------- solving


def _solved(graph: Graph, goal: _Goal, domains: Mapping[str, Domain], rng: np.random.Generator) -> Iterator[Inputs]:
    needed = ancestors(graph, goal.node)
    names = [n for n, i in graph.inputs.items() if i in needed and _is_unknown(domains[n])]
    unknowns = sum(_size(domains[n]) for n in names)
    numbers = sum(int(np.prod(graph.nodes[i].shape)) for i in needed)
    if not names or unknowns > MOST_VARIABLES or numbers * 2 * max(unknowns, NEIGHBOURS) > MOST_NUMBERS:
        return
    for _ in range(STARTS):
        start = {n: sample.ordinary(d, rng) for n, d in domains.items()}
        system = _System(graph, sorted(needed), goal, domains, names, {n: v for n, v in start.items() if n not in names})
        x = np.concatenate([start[n].astype(np.float64).reshape(-1) for n in names])
        if goal.climb:
            yield system.candidate(_climbed(system, x))
            continue
        free = np.ones(unknowns, bool)
        x, off = _newton(system, x, free)
        if not off <= _tolerance(system, x):
            if _miss(system, x[None])[0] <= LIBRARY_ULPS * graph.nodes[goal.node].format.eps:
                yield system.candidate(x)  # the edge itself is out of reach, but the library's rounding may go there
            continue
        for grid in GRIDS:
            found, miss = _polished(system, _rounded(system, x, grid, rng), rng)
            yield system.candidate(found)
            if miss == 0:
                break
        if miss == 0:
            return


def _is_unknown(d: Domain) -> bool:
    return d.value is None and d.kind in CONTINUOUS and d.kind not in ROWS


def _size(d: Domain) -> int:
    return int(np.prod(d.shape))


def _tolerance(system: _System, x: Float64) -> float:
    """How near to the edge counts as there: what the inputs' own format cannot tell apart."""
    node = system.graph.nodes[system.goal.node]
    return 1e-3 * max(node.format.eps if node.format.is_float else 1.0, FLOAT64.eps)


def _newton(system: _System, x: Float64, free: np.ndarray, steps: int = STEPS) -> tuple[Float64, float]:
    """Gauss-Newton steps in the free unknowns, kept between their ends. Returns the best point and how far it is from the edge.

    Doubled steps are tried as well: at an edge that is touched rather than crossed, they converge where plain ones creep.
    """
    low, high = system.low, system.high
    r = system.residuals(x[None])[0]
    off = float(np.abs(r).max())
    for _ in range(steps):
        if off <= 1e-15:
            break
        step = _least_squares(_jacobian(system, x, free), r)
        if not np.isfinite(step).all():
            break
        move = np.zeros_like(x)
        move[free] = step
        tried = np.clip(x + np.array([1.0, 2.0, 0.5, 0.1, 0.01])[:, None] * move, low, high)
        rows = system.residuals(tried)
        sizes = np.abs(rows).max(axis=1)
        best = int(np.argmin(sizes))
        if not sizes[best] < off * (1 - 1e-6):
            break
        x, r, off = tried[best], rows[best], float(sizes[best])
    return x, off


def _jacobian(system: _System, x: Float64, free: np.ndarray) -> Float64:
    """Central differences by the free unknowns: a row per residual."""
    index = np.flatnonzero(free)
    h = 1e-6 * np.maximum(np.abs(x[index]), 1e-2)
    moved = np.repeat(x[None], 2 * len(index), axis=0)
    moved[np.arange(len(index)), index] += h
    moved[len(index) + np.arange(len(index)), index] -= h
    rows = system.residuals(moved)
    return ((rows[: len(index)] - rows[len(index) :]) / (2 * h)[:, None]).T


def _least_squares(jacobian: Float64, r: Float64) -> Float64:
    """The smallest step that brings the linearised residuals nearest to zero."""
    return np.asarray(-np.linalg.lstsq(jacobian, r, rcond=1e-9)[0])


def _climbed(system: _System, x: Float64) -> Float64:
    """The point after steps uphill, of the sizes that help most."""
    low, high = system.low, system.high
    width = np.minimum(high - low, 1e6)
    free = np.ones(len(x), bool)
    height = float(system.residuals(x[None])[0, 0])
    for _ in range(STEPS):
        slope = _jacobian(system, x, free)[0] * width
        top = float(np.abs(slope).max(initial=0.0))
        if not np.isfinite(top) or top == 0:
            break
        direction = np.stack([slope / top, np.sign(slope)])
        sizes = np.array([1.0, 0.3, 0.1, 0.01, 0.001])
        tried = np.clip(x + (sizes[:, None, None] * direction * width).reshape(-1, len(x)), low, high)
        heights = system.residuals(tried)[:, 0]
        best = int(np.argmax(heights))
        if not heights[best] > height:
            break
        x, height = tried[best], float(heights[best])
    return x


# ---------------------------------------------------------------- into the real format


def _rounded(system: _System, x: Float64, grid: float, rng: np.random.Generator) -> Float64:
    """The solution with as many unknowns as possible at multiples of the grid, the others solved for again.

    Unknowns are fixed in blocks; a block that cannot be fixed is halved, and a single unknown that cannot be is kept as it is.
    """
    low, high = system.low, system.high
    free = np.ones(len(x), bool)
    blocks = [rng.permutation(len(x))]
    while blocks and len(blocks) < 2 * len(x):
        block = blocks.pop(0)
        tried = x.copy()
        tried[block] = np.clip(np.round(x[block] / grid) * grid, low[block], high[block])
        still = free.copy()
        still[block] = False
        solved, off = _newton(system, tried, still, 12) if still.any() else (tried, float(np.abs(system.residuals(tried[None])).max()))
        if off <= _tolerance(system, solved):
            x, free = solved, still
        elif len(block) > 1:
            half = len(block) // 2
            blocks = [block[:half], block[half:], *blocks]
    return x


def _polished(system: _System, x: Float64, rng: np.random.Generator) -> tuple[Float64, float]:
    """The neighbouring values of the real format that come nearest to the edge in real arithmetic, and how near."""
    formats = [system.domains[n].format for n in system.names for _ in range(_size(system.domains[n]))]
    low, high = system.low, system.high
    people = _stepped(formats, x[None], np.zeros((1, len(x)), np.int64))
    best, miss = people[0], _miss(system, people)[0]
    for generation in range(GENERATIONS):
        if miss == 0:
            break
        reach = 2 + generation
        steps = rng.integers(-reach, reach + 1, (NEIGHBOURS, len(x))) * (rng.random((NEIGHBOURS, len(x))) < rng.choice((0.15, 0.5, 1.0)))
        people = np.clip(_stepped(formats, np.repeat(best[None], NEIGHBOURS, axis=0), steps), low, high)
        misses = _miss(system, people)
        k = int(np.argmin(misses))
        if misses[k] < miss:
            best, miss = people[k], misses[k]
    return best, float(miss)


def _miss(system: _System, people: Float64) -> Float64:
    r = system.residuals(people, wide=False)
    return np.asarray(np.maximum(r, 0.0).min(axis=1) if system.goal.below else np.abs(r).max(axis=1), np.float64)


def _stepped(formats: Sequence[Format], points: Float64, steps: np.ndarray) -> Float64:
    out = points.copy()
    for fmt in dict.fromkeys(formats):
        columns = [k for k, f in enumerate(formats) if f is fmt]
        out[:, columns] = from_ordinal(fmt, ordinal(fmt, nearest(fmt, points[:, columns])) + steps[:, columns])
    return out


def nearby(graph: Graph, node: int, edge: float, domains: Mapping[str, Domain], seed: int) -> Iterator[Inputs]:
    """Candidates at which a node is expected to be at the edge, in one element or in all, and those next to them on either side."""
    rng = np.random.default_rng(seed)
    for goal in _by_element(graph, node, edge):
        try:
            for found in _solved(graph, goal, domains, rng):
                yield found
                yield from ({n: _moved(domains[n], v, step) for n, v in found.items()} for step in (1, -1))
        except (OpError, np.linalg.LinAlgError):  # something on the way is unknown or cannot be solved
            continue


def _moved(d: Domain, value: Array, step: int) -> Array:
    """Each element at the next value of its format."""
    if d.value is not None or not d.format.is_float:
        return value
    return sample.project(d, from_ordinal(d.format, ordinal(d.format, value.astype(np.float64)) + step))
