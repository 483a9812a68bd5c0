"""Move inputs towards a danger: a population that climbs the size of the operation's result until it is no longer finite.

For each operation that the prover left open, candidates are bred by how close they come (a divisor near 0, a result near overflow),
many at a time through the graph's own evaluation. The best are then given to the real function, which alone decides.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from whynan.analysis.evaluate import ancestors, evaluate_many
from whynan.analysis.propagate import Proof
from whynan.domain import sample
from whynan.domain.spec import Domain
from whynan.errors import OpError
from whynan.ir.dtype import Array, Float64
from whynan.ir.graph import Graph
from whynan.ops._opdef import known

Inputs = Mapping[str, Array]

MOST_DANGERS = 4
POPULATION = 48
PARENTS = 8
GENERATIONS = 20
MOST_NUMBERS = 2_000_000  # elements of a whole population
AT_ZERO = frozenset({"div", "log", "log2", "log10", "reciprocal", "rsqrt", "sqrt"})  # these fail where their (last) input is 0
INVERSE = frozenset({"acos", "asin", "atanh", "acosh"})  # past the edge of their domain, not large, is where these fail


def proposals(graph: Graph, proof: Proof, domains: Mapping[str, Domain], seed: int) -> Iterator[Inputs]:
    """Candidates near each open danger in turn, best first."""
    rng = np.random.default_rng(seed)
    for node in sorted(proof.open)[:MOST_DANGERS]:
        if known(graph.nodes[node].op) and graph.nodes[node].inputs:
            try:
                yield from _climb(graph, node, domains, rng)
            except OpError:  # something on the way is unknown: no evaluation, no climbing
                continue


def _climb(graph: Graph, node: int, domains: Mapping[str, Domain], rng: np.random.Generator) -> Iterator[Inputs]:
    needed = ancestors(graph, node)
    names = [name for name, i in graph.inputs.items() if i in needed and domains[name].value is None]
    size = sum(int(np.prod(domains[name].shape)) for name in names)
    if not names or size * POPULATION > MOST_NUMBERS:
        return
    order = sorted(needed)
    people = [{name: sample.draw(domains[name], rng) for name in domains} for _ in range(POPULATION)]
    reach = 0.3
    for generation in range(GENERATIONS):
        stacked = {name: np.stack([p[name] for p in people]) for name in domains}
        score = _closeness(graph, node, evaluate_many(graph, order, stacked))
        best = np.argsort(-score, kind="stable")[:PARENTS]
        parents = [people[int(k)] for k in best]
        if generation % 9 == 8 or np.isinf(score[best[0]]):
            yield from parents[:3]
        if np.isinf(score[best[0]]):
            return
        people = parents + [_child(parents, names, domains, reach, rng) for _ in range(POPULATION - len(parents))]
        reach *= 0.7
    yield from parents


def _closeness(graph: Graph, node: int, values: Mapping[int, Array]) -> Float64:
    """How near each candidate is to the danger; inf where the result is not finite already."""
    n = graph.nodes[node]
    out = values[node].astype(np.float64)
    count = out.shape[0]
    with np.errstate(all="ignore"):
        if n.op in AT_ZERO or n.op in INVERSE:
            size = np.abs(values[n.inputs[-1]].astype(np.float64).reshape(count, -1))
            near = size.max(axis=1, initial=0.0) if n.op in INVERSE else -np.log(size.min(axis=1, initial=np.inf) + 1e-300)
        else:
            near = np.log(np.abs(out.reshape(count, -1)).max(axis=1, initial=0.0) + 1e-300)
        bad = ~np.isfinite(out.reshape(count, -1)).all(axis=1)
    return np.where(bad, np.inf, np.nan_to_num(near, nan=-np.inf))


def _child(
    parents: list[dict[str, Array]], names: list[str], domains: Mapping[str, Domain], reach: float, rng: np.random.Generator
) -> dict[str, Array]:
    """A parent with some elements moved, crossed with another parent, or copied from one another."""
    a = parents[int(rng.integers(len(parents)))]
    b = parents[int(rng.integers(len(parents)))]
    child = dict(a)
    changed = [name for name in names if rng.random() < 0.7] or [names[int(rng.integers(len(names)))]]
    for name in changed:
        child[name] = sample.project(
            domains[name], _moved(domains[name], a[name].astype(np.float64), b[name].astype(np.float64), reach, rng)
        )
    return child


def _moved(domain: Domain, x: Float64, other: Float64, reach: float, rng: np.random.Generator) -> Float64:
    kind = rng.random()
    chosen = rng.random(x.shape) < rng.choice((0.2, 0.5, 1.0))
    if kind < 0.15:
        return np.where(chosen, other, x)
    if kind < 0.25 and x.size > 1:
        return np.where(chosen, rng.permutation(x.reshape(-1)).reshape(x.shape), x)
    width = min(domain.high - domain.low, 1e300)
    step = rng.normal(size=x.shape) * width * reach * 10 ** -rng.uniform(0, 3)
    return np.where(chosen, x + step, x)
