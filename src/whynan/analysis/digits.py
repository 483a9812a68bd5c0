"""How many digits of a loss and its gradients are right, and on which inputs few of them are.

Correct digits of a computed number c with the exact value e: -log10(|c - e| / scale), at least 0 and at most as many as the format has
(7.2 in float32). The scale says what the error is measured against:

- of the loss: |e|; but where that is less than the last digits of an ordinary loss (4 eps times its median size on ordinary inputs) it
  counts as zero, and the error is measured against an ordinary loss: whether a loss at its minimum is 0 or 6e-8 is nobody's question.
- of a gradient: its largest element, but no less than an ordinary gradient's largest element. Gradients are added up: one far smaller than
  usual may be wrong in every digit without harm (sigmoid(x) - 1 for a confident, correct answer).

The coarsest float format on the way to an output is the one whose digits count.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from whynan.analysis.evaluate import ancestors, evaluate_many
from whynan.analysis.precise import precise
from whynan.domain import sample
from whynan.domain.spec import CONTINUOUS, ROWS, Domain
from whynan.errors import OpError
from whynan.ir.dtype import FLOAT32, Array, Float64, Format
from whynan.ir.graph import Graph, call_of
from whynan.ops._opdef import known, run

Inputs = Mapping[str, Array]

BLURRED_BITS = 44  # of a program in float64 when float64 itself is the reference
LAST_DIGITS = 4  # units in the last place of an ordinary loss: a smaller loss counts as zero
ORDINARY = 17  # ordinary inputs that say how large the outputs usually are
BATCH = 128
CANDIDATES = 1024
ROUNDS, PARENTS, CHILDREN = 8, 12, 10  # of the climb
LOOKED = CANDIDATES + ROUNDS * PARENTS * CHILDREN
CHOICES = frozenset({"sign", "floor", "ceil", "round", "trunc", "heaviside", "floor_divide", "signbit"})  # steps: their result tells a path


@dataclass(frozen=True, slots=True, eq=False)
class Measure:
    """What errors of a graph's outputs are compared with.

    `sizes` are, by output name, the usual sizes of the loss and of the gradients' largest elements, `formats` those whose digits count. A
    `blurred` measure rounds to `BLURRED_BITS` bits what is computed in float64. A loss of less than `least` units in the last place of an
    ordinary one counts as zero.
    """

    graph: Graph
    sizes: Mapping[str, float]
    formats: Mapping[str, Format]
    blurred: bool = False
    least: float = LAST_DIGITS

    @property
    def exactly(self) -> bool:
        """Whether only real arithmetic can tell the errors: float64 is no reference for itself."""
        return not self.blurred and any(f.eps < FLOAT32.eps for f in self.formats.values())

    def of(self, name: str) -> float:
        """The number of digits that the output can have."""
        return float(-np.log10(self.formats[name].eps / 2))

    def scale(self, name: str, exact: Float64) -> Float64:
        """What an error of that output is measured against; `exact` has one exact value of the output for each row."""
        size = np.abs(exact).reshape(len(exact), -1).max(axis=1, initial=0.0)
        fmt, usual = self.formats[name], self.sizes.get(name, 0.0)
        least = self.least * fmt.eps * usual if name == "loss" else usual
        return np.asarray(np.maximum(np.where(size < least, usual, size), fmt.smallest))

    def digits(self, name: str, error: Float64, exact: Float64) -> Float64:
        """The correct digits of an output for each row of errors (|computed - exact|): those of its worst element."""
        worst = np.abs(error).reshape(len(error), -1).max(axis=1, initial=0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            digits = -np.log10(worst / self.scale(name, exact))
        return np.asarray(np.clip(np.where(np.isnan(digits), self.of(name), digits), 0.0, self.of(name)))


def measure(graph: Graph, domains: Mapping[str, Domain], seed: int) -> Measure | None:
    """The usual sizes of a graph's outputs on ordinary inputs; None if the graph cannot be evaluated."""
    rng = np.random.default_rng(seed)
    inputs = [{n: sample.ordinary(d, rng) for n, d in domains.items()} for _ in range(ORDINARY)]
    values = values_of(graph, inputs, wide=True)
    if values is None:
        return None
    sizes = {}
    for o in graph.outputs:
        flat = np.abs(values[o.node].astype(np.float64)).reshape(ORDINARY, -1).max(axis=1, initial=0.0)
        there = flat[np.isfinite(flat)]
        sizes[o.name] = float(np.median(there)) if there.size else 0.0
    formats = {o.name: _coarsest(graph, o.node) for o in graph.outputs}
    return Measure(graph, sizes, formats)


def _coarsest(graph: Graph, node: int) -> Format:
    """The float format with the fewest digits among the computed values that an output needs."""
    nodes = [graph.nodes[i] for i in ancestors(graph, node)]
    formats = [n.format for n in nodes if n.format.is_float and n.op not in ("const", "input")] or [graph.nodes[node].format]
    return max(formats, key=lambda f: f.eps)


# ---------------------------------------------------------------- digits on many inputs


def values_of(graph: Graph, inputs: Sequence[Inputs], *, wide: bool) -> dict[int, Array] | None:
    """All values that the outputs need on many inputs, stacked; None where the graph cannot be evaluated."""
    order = _order(graph)
    if any(not known(n.op) or n.op == "random" for n in (graph.nodes[i] for i in order) if n.op not in ("input", "const")):
        return None
    stacked = {name: np.stack([c[name] for c in inputs]) for name in graph.inputs}
    try:
        return evaluate_many(graph, order, stacked, wide=wide)
    except OpError:
        return None


def _order(graph: Graph) -> list[int]:
    """What the outputs need, in order of execution."""
    return sorted(set().union(*(ancestors(graph, o.node) for o in graph.outputs)))


def both(m: Measure, inputs: Sequence[Inputs]) -> tuple[dict[int, Array], dict[int, Array]] | None:
    """All values as computed and as they should be, both only as good as float64 tells; None where the graph cannot be evaluated."""
    exact = values_of(m.graph, inputs, wide=True)
    computed = exact if exact is None else _blurred(m.graph, exact) if m.blurred else values_of(m.graph, inputs, wide=False)
    return None if exact is None or computed is None else (computed, exact)


def _blurred(graph: Graph, exact: Mapping[int, Array]) -> dict[int, Array]:
    """The values if every operation rounded its result to `BLURRED_BITS` bits."""
    out: dict[int, Array] = {}
    for i in _order(graph):
        node = graph.nodes[i]
        if not node.inputs:
            out[i] = exact[i]
            continue
        value = run(call_of(graph, node), [out[j] for j in node.inputs], wide=True)
        out[i] = _rounded(value) if node.format.is_float else value
    return out


def _rounded(x: Float64) -> Float64:
    fraction, exponent = np.frexp(x)
    return np.asarray(np.ldexp(np.rint(np.ldexp(fraction, BLURRED_BITS)), exponent - BLURRED_BITS))


def lost(m: Measure, inputs: Sequence[Inputs]) -> Float64:
    """For each input the share of the digits that the worst output loses: 0 to 1; NaN where the graph tells nothing.

    Formats of up to 32 bits are compared with float64, float64 with the real values. That tells where to look: what is reported rests
    on the real values and on the framework's own run.
    """
    if m.exactly:
        return np.array([lost_exactly(m, one) for one in inputs])
    parts = [_lost_wide(m, inputs[k : k + BATCH]) for k in range(0, len(inputs), BATCH)]
    return np.concatenate([np.zeros(0), *parts])


def _lost_wide(m: Measure, inputs: Sequence[Inputs]) -> Float64:
    values = both(m, inputs)
    if values is None:
        return np.full(len(inputs), np.nan)
    narrow, wide = values
    share = np.zeros(len(inputs))
    for o in m.graph.outputs:
        computed, exact = narrow[o.node].astype(np.float64), wide[o.node].astype(np.float64)
        with np.errstate(invalid="ignore"):
            here = 1 - m.digits(o.name, np.abs(computed - exact), exact) / m.of(o.name)
        finite = (np.isfinite(computed) & np.isfinite(exact)).reshape(len(inputs), -1).all(axis=1)
        share = np.where(finite, np.maximum(share, here), np.nan)
    return np.where(_same_path(m.graph, narrow, wide, len(inputs)), share, np.nan)


def _same_path(graph: Graph, one: Mapping[int, Array], other: Mapping[int, Array], count: int) -> np.ndarray:
    """For each row whether all comparisons and steps came out alike and nothing that Python looked at left its range."""
    same = np.ones(count, bool)
    for i, value in one.items():
        if is_choice(graph, i):
            same &= (value == other[i]).reshape(count, -1).all(axis=1)
    for a in graph.assumptions:
        if a.node in one:
            seen = one[a.node].astype(np.float64).reshape(count, -1)
            same &= ((a.low <= seen) & (seen <= a.high)).all(axis=1)
    return same


def is_choice(graph: Graph, i: int) -> bool:
    """Whether the node's value says which way a computation goes rather than how much."""
    node = graph.nodes[i]
    return node.op not in ("input", "const") and (not node.format.is_float or node.op in CHOICES)


def lost_exactly(m: Measure, inputs: Inputs) -> float:
    """The share of the digits lost on one input, against the real values; NaN where they are not known."""
    narrow = values_of(m.graph, [inputs], wide=False)
    real = precise(m.graph, inputs)
    if narrow is None or real is None:
        return float("nan")
    share = 0.0
    for o in m.graph.outputs:
        exact, error = real.float64(o.node), real.distance(o.node, narrow[o.node][0])
        if exact is None or error is None or not np.isfinite(exact).all() or not np.isfinite(error).all():
            return float("nan")
        share = max(share, 1 - float(m.digits(o.name, error[None], exact[None])[0]) / m.of(o.name))
    return share


def quick(m: Measure) -> Measure:
    """A measure that float64 can take: of a program in float64, the same one with `BLURRED_BITS` bits, which fails in the same places."""
    formats = {name: replace(f, eps=max(f.eps, 2.0 ** (1 - BLURRED_BITS))) for name, f in m.formats.items()}
    return replace(m, formats=formats, blurred=m.exactly)


# ---------------------------------------------------------------- inputs worth a look


def worst(m: Measure, domains: Mapping[str, Domain], seed: int) -> list[tuple[float, Inputs]]:
    """Inputs on which digits are lost, with the share lost, the worst first: drawn about the places where digits go, then climbed."""
    rng = np.random.default_rng(seed)
    looked = quick(m)
    pool = list(islice(candidates(domains, rng), CANDIDATES))
    ranked = _ranked(looked, pool)
    for _ in range(ROUNDS):
        parents = [inputs for _, inputs in ranked[:PARENTS]]
        children = [_mutated(domains, p, rng) for p in parents for _ in range(CHILDREN)]
        ranked = sorted([*ranked[: 8 * PARENTS], *_ranked(looked, children)], key=lambda pair: -pair[0])
    return ranked


def _ranked(m: Measure, inputs: Sequence[Inputs]) -> list[tuple[float, Inputs]]:
    shares = lost(m, inputs)
    there = [(float(s), i) for s, i in zip(shares, inputs, strict=True) if s > 0]
    return sorted(there, key=lambda pair: -pair[0])


def candidates(domains: Mapping[str, Domain], rng: np.random.Generator) -> Iterator[Inputs]:
    """Inputs at every magnitude about 0, 1 and the ends of the domains; nearly equal elements; inputs nearly equal to each other."""
    styles: tuple[Callable[[Domain, np.random.Generator], Array], ...] = (
        _filled,
        _near_critical,
        _nearly_alike,
        sample.ordinary,
        sample.draw,
    )
    while True:
        common = int(rng.integers(len(styles)))
        made: dict[str, Array] = {}
        for name, d in domains.items():
            style = styles[common if rng.random() < 0.6 else int(rng.integers(len(styles)))]
            made[name] = style(d, rng) if _floating(d) else sample.draw(d, rng)
        yield _paired(domains, made, rng) if rng.random() < 0.25 else made


def _floating(d: Domain) -> bool:
    return d.value is None and d.kind in CONTINUOUS and d.format.is_float


def _near(d: Domain, rng: np.random.Generator, shape: tuple[int, ...]) -> Float64:
    """Numbers at a distance of any magnitude from 0, 1, -1 or an end of the domain."""
    ends = [c for c in (0.0, 0.0, 0.0, 1.0, -1.0, d.low, d.high) if d.low <= c <= d.high]
    reach = max(abs(d.low), abs(d.high), 1e-30)
    size = reach * 10.0 ** rng.uniform(-14.0, 0.0, shape)
    return np.asarray(rng.choice(np.array(ends)) + rng.choice(np.array([-1.0, 1.0]), shape) * size)


def _filled(d: Domain, rng: np.random.Generator) -> Array:
    """One such number everywhere, or rows close to a corner."""
    if d.kind in ROWS:
        corner = np.eye(d.shape[-1])[rng.integers(d.shape[-1], size=d.shape[:-1])]
        return sample.project(d, corner + 10.0 ** rng.uniform(-9.0, 0.0) * rng.random(d.shape))
    return sample.project(d, _near(d, rng, ()))


def _near_critical(d: Domain, rng: np.random.Generator) -> Array:
    return sample.project(d, _near(d, rng, d.shape))


def _nearly_alike(d: Domain, rng: np.random.Generator) -> Array:
    """Elements spread about a number by any fraction of it, down to its last digit."""
    centre = _near(d, rng, ()) if rng.random() < 0.5 else 2 * rng.uniform(d.low / 2, d.high / 2)
    return sample.project(d, centre * (1 + 10.0 ** rng.uniform(np.log10(d.format.eps), 0.0) * rng.uniform(-1, 1, d.shape)))


def _paired(domains: Mapping[str, Domain], made: Inputs, rng: np.random.Generator) -> Inputs:
    """Two inputs of one shape, one made nearly equal to the other."""
    floats = [n for n, d in domains.items() if _floating(d)]
    pairs = [(a, b) for a in floats for b in floats if a != b and domains[a].shape == domains[b].shape]
    if not pairs:
        return made
    a, b = pairs[int(rng.integers(len(pairs)))]
    near = made[a].astype(np.float64) * (
        1 + 10.0 ** rng.uniform(np.log10(domains[b].format.eps), 0.0) * rng.uniform(-1, 1, domains[a].shape)
    )
    return {**made, b: sample.project(domains[b], near)}


def _mutated(domains: Mapping[str, Domain], inputs: Inputs, rng: np.random.Generator) -> Inputs:
    """One input scaled, moved towards or away from its mean, shifted, or made of one value."""
    floats = [n for n, d in domains.items() if _floating(d)]
    if not floats:
        return inputs
    name = floats[int(rng.integers(len(floats)))]
    x = inputs[name].astype(np.float64)
    mean, factor = x.mean() if x.size else 0.0, 10.0 ** rng.normal(0.0, 0.5)
    moved = (
        x * factor,
        mean + (x - mean) * factor,
        x + mean * (factor - 1),
        x * (1 + 0.1 * rng.normal(size=x.shape)),
        np.broadcast_to(mean, x.shape),
    )
    return {**inputs, name: sample.project(domains[name], moved[int(rng.integers(len(moved)))])}
