"""Inputs on which a look at a value has another outcome than in the recorded run.

The recorded graph says what is looked at as long as the code has taken the recorded path, so that many inputs can be tried at once.
Those that come nearest to the wanted outcome (by how much the comparisons in it miss) are mixed with others and moved on.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from whynan.analysis.evaluate import ancestors, evaluate_many
from whynan.analysis.search import candidates
from whynan.analysis.solve import nearby
from whynan.domain import sample
from whynan.domain.spec import Domain
from whynan.errors import OpError
from whynan.ir.dtype import Array, Float64, from_ordinal, ordinal
from whynan.ir.graph import Assumption, Graph
from whynan.ops._opdef import known

Inputs = Mapping[str, Array]

POOL = 256  # inputs tried first
CHILDREN = 64  # inputs made of the best ones at a time
GENERATIONS = 12
PARENTS = 8
ENOUGH = 3  # inputs that are returned
MOST_NUMBERS = 4_000_000  # elements of all values of one batch
FAR = 1e300


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """A wanted outcome: `look` within its range after the looks `before` went as they did in the graph's recording."""

    graph: Graph
    before: Sequence[Assumption]
    look: Assumption


def readable(graph: Graph, looks: Sequence[Assumption]) -> bool:
    """Whether what is looked at can be computed from the inputs."""
    needed = set().union(*(ancestors(graph, a.node) for a in looks)) if looks else set()
    return all(known(graph.nodes[i].op) and graph.nodes[i].op != "random" for i in needed)


def followers(graph: Graph, looks: Sequence[Assumption], tried: Sequence[Inputs]) -> list[Inputs]:
    """Those of the inputs on which every look is expected to go as it did in the recording."""
    if not looks:
        return list(tried)
    rows, values = _followed(graph, looks[:-1], looks[-1].node, tried)
    if values is None:
        return []
    return [tried[k] for k, hit in zip(rows, _within(values[looks[-1].node], looks[-1]), strict=True) if hit]


def reach(wanted: Outcome, domains: Mapping[str, Domain], starts: Sequence[Inputs], seed: int) -> list[Inputs]:
    """A few inputs on which the outcome is expected, those found first; `starts` take the path up to the look."""
    rng = np.random.default_rng(seed)
    pool = [*starts, *_constants(wanted, domains, starts[0]), *itertools.islice(candidates(domains, rng), POOL)]
    found, ranked = _judged(wanted, pool)
    found = _distinct(found)
    for _ in range(GENERATIONS):
        if len(found) >= ENOUGH or not ranked:
            break
        parents = [x for _, x in ranked[:PARENTS]]
        children = [_child(domains, parents[int(rng.integers(len(parents)))], pool, rng) for _ in range(CHILDREN)]
        hits, better = _judged(wanted, children)
        found = _distinct([*found, *hits])
        ranked = sorted([*better, *ranked], key=lambda r: r[0])[: 4 * PARENTS]
    if not found:
        tried = [x for node, edge in _edges(wanted) for x in nearby(wanted.graph, node, edge, domains, seed)]
        found = _distinct(_judged(wanted, tried)[0])
    return found[:ENOUGH]


def neighbours(domains: Mapping[str, Domain], inputs: Inputs, count: int, seed: int) -> list[Inputs]:
    """Inputs that share most with given ones: a few elements, or one input, are others."""
    rng = np.random.default_rng(seed)
    others = list(itertools.islice(candidates(domains, rng), count))
    mixed = [{**inputs, name: other[name]} for other in others for name, d in domains.items() if d.value is None]
    return [*mixed[:count], *(_child(domains, inputs, others, rng) for _ in range(count))]


def _distinct(inputs: Sequence[Inputs]) -> list[Inputs]:
    return list({tuple(v.tobytes() for v in x.values()): x for x in inputs}.values())


# ---------------------------------------------------------------- how near an input comes


def _judged(wanted: Outcome, tried: Sequence[Inputs]) -> tuple[list[Inputs], list[tuple[float, Inputs]]]:
    """The inputs with the outcome, and the others that come to the look, the nearest first."""
    found: list[Inputs] = []
    ranked: list[tuple[float, Inputs]] = []
    for batch in _batches(wanted, tried):
        rows, values = _followed(wanted.graph, wanted.before, wanted.look.node, batch)
        if values is None:
            continue
        hits = _within(values[wanted.look.node], wanted.look)
        found += [batch[k] for k, hit in zip(rows, hits, strict=True) if hit]
        misses = _misses(wanted, values, len(rows))
        ranked += [(float(m), batch[k]) for k, hit, m in zip(rows, hits, misses, strict=True) if not hit]
    return found, sorted(ranked, key=lambda r: r[0])


def _batches(wanted: Outcome, tried: Sequence[Inputs]) -> list[Sequence[Inputs]]:
    needed = ancestors(wanted.graph, wanted.look.node)
    numbers = max(sum(int(np.prod(wanted.graph.nodes[i].shape)) for i in needed), 1)
    size = max(MOST_NUMBERS // numbers, 4)
    most = tried[: 8 * size]  # large inputs: fewer are tried
    return [most[k : k + size] for k in range(0, len(most), size)]


def _followed(graph: Graph, looks: Sequence[Assumption], last: int, tried: Sequence[Inputs]) -> tuple[list[int], dict[int, Array] | None]:
    """Which inputs take the path as far as `looks` go, and the values of what `last` is computed from on them.

    Evaluated look by look: what comes after one may have other shapes on other paths.
    """
    rows = list(range(len(tried)))
    stacked = {name: np.stack([x[name] for x in tried]) for name in graph.inputs} if tried else {}
    values: dict[int, Array] = {}
    done: set[int] = set()
    for node, look in (*((a.node, a) for a in looks), (last, None)):
        fresh = sorted(ancestors(graph, node) - done)
        if not rows:
            return [], None
        try:
            values |= _values(graph, fresh, stacked, values, len(rows))
        except OpError:
            return [], None
        done.update(fresh)
        if look is not None:
            kept = _within(values[node], look)
            rows = [k for k, hit in zip(rows, kept, strict=True) if hit]
            stacked = {name: x[kept] for name, x in stacked.items()}
            values = {i: x[kept] for i, x in values.items()}
    return rows, values if rows else None


def _values(graph: Graph, nodes: Sequence[int], stacked: Mapping[str, Array], before: Mapping[int, Array], count: int) -> dict[int, Array]:
    if not stacked:
        raise OpError("a loss without inputs")
    return evaluate_many(graph, nodes, stacked, before=before)


def _within(value: Array, look: Assumption) -> np.ndarray:
    x = value.astype(np.float64).reshape(len(value), -1)
    return np.asarray(((x >= look.low) & (x <= look.high)).all(axis=1))


def _misses(wanted: Outcome, values: Mapping[int, Array], count: int) -> Float64:
    node = wanted.graph.nodes[wanted.look.node]
    if node.format.kind == "bool" and wanted.look.low == wanted.look.high:
        miss = _off(wanted.graph, node.id, values, bool(wanted.look.low))
    else:
        x = values[node.id].astype(np.float64)
        miss = np.maximum(wanted.look.low - x, 0) + np.maximum(x - wanted.look.high, 0)
    total = np.nan_to_num(miss, nan=FAR, posinf=FAR).reshape(count, -1)
    return np.asarray(total.sum(axis=1))


def _off(graph: Graph, i: int, values: Mapping[int, Array], truth: bool) -> Float64:
    """How far each element of a condition is from being true (or false)."""
    node = graph.nodes[i]
    op, inputs = node.op, node.inputs
    if op in ("logical_not", "bitwise_not"):
        return _off(graph, inputs[0], values, not truth)
    if op in ("logical_and", "bitwise_and", "logical_or", "bitwise_or") and all(graph.nodes[j].format.kind == "bool" for j in inputs):
        a, b = (_aligned(_off(graph, j, values, truth), len(node.shape)) for j in inputs)
        return a + b if truth == op.endswith("and") else np.minimum(a, b)
    if op in ("all", "any"):
        inner = _off(graph, inputs[0], values, truth)
        axes = tuple(node.attrs["dims"])
        every = truth == (op == "all")
        return np.asarray(inner.sum(axis=axes, keepdims=True) if every else inner.min(axis=axes, keepdims=True, initial=FAR))
    if op == "reshape" and graph.nodes[inputs[0]].format.kind == "bool":
        inner = _off(graph, inputs[0], values, truth)
        return inner.reshape(len(inner), *node.shape)
    if op in ("eq", "ne", "lt", "le", "gt", "ge"):
        a, b = (_aligned(values[j].astype(np.float64), len(node.shape)) for j in inputs)
        return _gap(op, a, b, truth)
    value = values[i].astype(bool)
    return np.asarray(np.where(value == truth, 0.0, 1.0))


def _aligned(x: Float64, rank: int) -> Float64:
    """Stacked values with dimensions in front of their own, so that they broadcast to a rank."""
    return x.reshape(len(x), *(1,) * (rank + 1 - x.ndim), *x.shape[1:])


_HOLDS = {"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal}


def _gap(op: str, a: Float64, b: Float64, truth: bool) -> Float64:
    holds = np.asarray(_HOLDS[op](a, b))
    with np.errstate(all="ignore"):
        size = np.abs(a - b)
        return np.asarray(np.where(holds == truth, 0.0, np.minimum(np.nan_to_num(size, nan=FAR, posinf=FAR), FAR) + 1e-300))


# ---------------------------------------------------------------- further inputs


def _constants(wanted: Outcome, domains: Mapping[str, Domain], base: Inputs) -> list[Inputs]:
    """Inputs filled, wholly or at the first element, with the constants that the looks compare with, and their neighbours."""
    out: list[Inputs] = []
    for value in _compared(wanted):
        for name, d in domains.items():
            if d.value is not None:
                continue
            steps = from_ordinal(d.format, ordinal(d.format, np.full(3, value)) + np.array([0, 1, -1])) if d.format.is_float else [value]
            for v in steps:
                first = base[name].astype(np.float64).reshape(-1).copy()
                first[:1] = v
                out += [{**base, name: sample.full(d, float(v))}, {**base, name: sample.project(d, first.reshape(d.shape))}]
    return out


def _compared(wanted: Outcome) -> list[float]:
    """The single constants in the ancestry of the look, those next to it first."""
    nodes = (wanted.graph.nodes[i] for i in sorted(ancestors(wanted.graph, wanted.look.node), reverse=True))
    values = [float(n.attrs["value"].reshape(-1)[0]) for n in nodes if n.op == "const" and n.attrs["value"].size == 1]
    return [v for v in dict.fromkeys(values) if np.isfinite(v)][:6]


def _edges(wanted: Outcome) -> list[tuple[int, float]]:
    """Values and the constant at which a comparison in the look turns over."""
    graph, out = wanted.graph, []
    for i in sorted(ancestors(graph, wanted.look.node), reverse=True):
        node = graph.nodes[i]
        if node.op not in ("eq", "ne", "lt", "le", "gt", "ge"):
            continue
        for at, other in (node.inputs, node.inputs[::-1]):
            c = graph.nodes[other]
            if c.op == "const" and c.attrs["value"].size == 1 and graph.nodes[at].format.is_float:
                out.append((at, float(c.attrs["value"].reshape(-1)[0])))
    return out[:3]


def _child(domains: Mapping[str, Domain], parent: Inputs, pool: Sequence[Inputs], rng: np.random.Generator) -> Inputs:
    """A parent with a part of it changed."""
    other = pool[int(rng.integers(len(pool)))]
    way, share = int(rng.integers(5)), rng.random()
    free = {name: d for name, d in domains.items() if d.value is None}
    return {**parent, **{name: _changed(d, parent[name], other[name], way, share, rng) for name, d in free.items()}}


def _changed(d: Domain, x: Array, y: Array, way: int, share: float, rng: np.random.Generator) -> Array:
    if way == 3:  # these inputs as they are, those of the other: whole inputs change places
        return x if rng.random() < 0.5 else y
    a, b = x.astype(np.float64), y.astype(np.float64)
    if way == 0:
        return sample.project(d, np.where(rng.random(d.shape) < share, b, a))
    if way == 1:
        return sample.project(d, np.where(np.arange(a.size).reshape(d.shape) < share * (a.size + 1), b, a))
    if way == 2:
        return sample.project(d, a + share * (b - a))
    if not d.format.is_float:
        return sample.project(d, a + rng.integers(-1, 2, d.shape))
    noise = rng.normal(size=d.shape) * 10.0 ** rng.uniform(-6, 0)
    return sample.project(d, a * (1 + noise) if rng.random() < 0.5 else a + noise)
