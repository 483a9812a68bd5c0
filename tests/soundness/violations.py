"""The property: what a run gives on inputs of the domain lies within the bounds that the analysis proves.

Two runs are compared: whynan's own, and one with other orders of summation, contracted products, other accumulators.

It is tested four ways: "plain" without branch and prune, "refined" with it, "split": branch and prune alone, on single nodes,
told to go on splitting as long as a bound is not a point, so that it cannot stop early; and "exact": what exact arithmetic says of every
node, not only of those in danger.
`violations` tests it on one case; `minimised` makes a failing case small: parts of the graph become inputs.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from tests.soundness.graphs import Case
from tests.soundness.otherwise import evaluate_otherwise
from tests.soundness.real import as_read

from whynan.analysis.branch import prune
from whynan.analysis.cones import cones_of
from whynan.analysis.evaluate import evaluate_many
from whynan.analysis.exact.limits import Exact
from whynan.analysis.propagate import Proof, propagate
from whynan.analysis.relations import Relations
from whynan.analysis.view import View
from whynan.domain.interval import Bounds, contains, join, of_array
from whynan.ir.dtype import Array
from whynan.ir.graph import Graph, Output
from whynan.ir.text import text

BOXES = 150
SPLIT_NODES = 2
HOWS = ("plain", "refined", "split")
EXACT = ("exact",)  # costs ten times as much


@dataclass(frozen=True, eq=False)
class Violation:
    """A node whose value lies outside of its bounds on one sample, or an exception (`error`) that the analysis raised."""

    case: Case
    node: int
    sample: int
    how: str
    bounds: Bounds | None
    value: Array | None
    error: str = ""

    def __str__(self) -> str:
        lines = [text(self.case.graph)]
        for name, b in self.case.domains.items():
            lines.append(f"{name} in {_bounds_text(b)}")
            lines.append(f"  = {np.asarray(self.case.inputs[name][self.sample]).astype(np.float64).tolist()!r}")
        if self.error:
            return "\n".join([*lines, f"{self.how}: the analysis gave {self.error}"])
        assert self.bounds is not None and self.value is not None
        lines.append(f"%{self.node} is {self.value.astype(np.float64).tolist()!r}")
        return "\n".join([*lines, f"{self.how}: proven within {_bounds_text(self.bounds)}"])


def _bounds_text(b: Bounds) -> str:
    return f"[{b.lo.tolist()!r}, {b.hi.tolist()!r}] flags {b.flags.tolist()!r}"


def violations(case: Case, hows: tuple[str, ...] = HOWS, others: int = 1) -> Iterator[Violation]:
    """All that is wrong with a case, the first wrong node of each way; so many runs in other orders are compared."""
    runs = _runs(case, others)
    for how in hows:
        try:
            found = list(_split(case, runs) if how == "split" else _exactly(case, runs) if how in EXACT else _propagated(case, runs, how))
        except Exception as error:
            found = [Violation(case, -1, 0, how, None, None, f"{type(error).__name__}: {error}")]
        yield from found[:1]


Runs = list[dict[int, Array]]


def _runs(case: Case, others: int) -> Runs:
    """Whynan's own run and other ones, each a value per node, stacked by sample."""
    rng = np.random.default_rng(len(case.graph.nodes))
    own = evaluate_many(case.graph, range(len(case.graph.nodes)), case.inputs)
    return [own, *(evaluate_otherwise(case.graph, case.inputs, rng) for _ in range(others))]


def _propagated(case: Case, runs: Runs, how: str) -> Iterator[Violation]:
    proof = _proof(case, how == "refined")
    for values in runs:
        yield from _compared(case, values, proof, how)


def _compared(case: Case, values: dict[int, Array], proof: Proof, how: str) -> Iterator[Violation]:
    for i, value in values.items():
        yield from _outside(case, i, value, proof.bounds[i], how)
    for output, finite in zip(case.graph.outputs, proof.outputs, strict=True):
        bad = ~np.isfinite(values[output.node].astype(np.float64)).reshape(len(values[output.node]), -1).all(axis=1)
        if finite and bad.any():
            sample = int(np.argmax(bad))
            yield Violation(case, output.node, sample, how, proof.bounds[output.node], np.asarray(values[output.node][sample]))


def _proof(case: Case, refine: bool) -> Proof:
    return propagate(case.graph, case.domains, BOXES, refine, case.simplexes)


def _split(case: Case, runs: Runs) -> Iterator[Violation]:
    """Branch and prune on the last few nodes that are computed element by element."""
    proof = propagate(case.graph, case.domains, 0, False, case.simplexes)
    view = View(case.graph)
    facts = Relations(view, list(proof.bounds))
    roots = [view.root(n.id) for n in case.graph.nodes if view.elementwise(view.root(n.id))]
    for root in roots[-SPLIT_NODES:]:
        for cone in cones_of(view, root):
            found = prune(view, facts, cone, lambda b: (b.lo < b.hi) | b.may_nan, BOXES)
            for values in runs:
                yield from _outside(case, root[0], values[root[0]], found.bounds, "split")


def _exactly(case: Case, runs: Runs) -> Iterator[Violation]:
    """Each node followed back to its leaves."""
    bounds: list[Bounds | None] = list(_proof(case, refine=False).bounds)
    exact = Exact(View(case.graph), bounds)
    for node in case.graph.nodes:
        if node.inputs and node.format.is_float:
            for found in (exact.bounds(node.id), exact.shallow(node.id)):
                if found is not None:
                    for values in runs:
                        yield from _outside(case, node.id, values[node.id], found, "exact")


def _outside(case: Case, i: int, value: Array, b: Bounds, how: str) -> Iterator[Violation]:
    shape = case.graph.nodes[i].shape
    if not _fits(b.shape, shape):
        yield Violation(case, -1, 0, how, None, None, f"bounds of shape {b.shape} for %{i} of shape {shape}")
        return
    allowed = contains(b, as_read(value, case.graph.nodes[i].format))
    if not allowed.all():
        sample = int(np.argmin(allowed.reshape(len(allowed), -1).all(axis=1)))
        yield Violation(case, i, sample, how, b, np.asarray(value[sample]))


def _fits(groups: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether bounds have the value's rank, and in each dimension its size or 1."""
    return len(groups) == len(shape) and all(g in (1, n) for g, n in zip(groups, shape, strict=True))


def checked(case: Case) -> int:
    """How many of a case's nodes have bounds that say something (not everything the format holds)."""
    proof = _proof(case, refine=False)
    return sum(not bool((b.may_nan & (b.lo == -np.inf) & (b.hi == np.inf)).all()) for b in proof.bounds)


# ---------------------------------------------------------------- making it small


def minimised(found: Violation) -> Violation:
    """A smaller violation: one sample, only what the node needs, and values that need not be computed made inputs."""
    found = _smaller(found, _one_sample(found)) or found
    progress = True
    while progress:
        progress = False
        for candidate in _candidates(found):
            smaller = _smaller(found, candidate)
            if smaller is not None:
                found, progress = smaller, True
                break
    return found


def _smaller(found: Violation, case: Case) -> Violation | None:
    try:
        return next((v for v in violations(case, (found.how,)) if bool(v.error) == bool(found.error)), None)
    except Exception:
        return None  # the smaller graph cannot be run


def _one_sample(found: Violation) -> Case:
    k = found.sample
    return replace(found.case, inputs={name: x[k : k + 1] for name, x in found.case.inputs.items()})


def _candidates(found: Violation) -> Iterator[Case]:
    case = found.case
    for i in range(len(case.graph.nodes)) if found.error else (found.node,):
        yield from _trimmed(case, (i,))
    for outputs in case.graph.outputs:
        kept = tuple(o.node for o in case.graph.outputs if o is not outputs)
        if kept:
            yield from _trimmed(case, kept)
    yield from _cut(case, found)


def _trimmed(case: Case, outputs: tuple[int, ...]) -> Iterator[Case]:
    """Only what the outputs need."""
    needed = set(outputs)
    for node in reversed(case.graph.nodes):
        if node.id in needed:
            needed.update(node.inputs)
    if len(needed) < len(case.graph.nodes):
        yield _kept(case, sorted(needed), outputs)


def _kept(case: Case, ids: list[int], outputs: tuple[int, ...]) -> Case:
    place = {old: new for new, old in enumerate(ids)}
    nodes = tuple(replace(n, id=place[n.id], inputs=tuple(place[i] for i in n.inputs)) for n in case.graph.nodes if n.id in place)
    inputs = {name: place[i] for name, i in case.graph.inputs.items() if i in place}
    graph = Graph(nodes, inputs, tuple(Output("loss", f"out{place[i]}", place[i]) for i in outputs))
    simplexes = tuple(n for n in case.simplexes if n in inputs)
    return Case(graph, {n: case.domains[n] for n in inputs}, {n: case.inputs[n] for n in inputs}, simplexes)


def _cut(case: Case, found: Violation) -> Iterator[Case]:
    """One computed value made an input: with the bounds that were proven for it, or those of its values if the analysis raises."""
    values = _runs(case, 0)[0]
    proven = None if found.error else _proof(case, found.how == "refined").bounds
    for node in reversed(case.graph.nodes):
        if node.op in ("input", "const") or node.id == found.node:
            continue
        value = values[node.id]
        b = join(*map(of_array, value)) if proven is None else proven[node.id]
        if contains(b, as_read(value, node.format)).all():
            yield _as_input(case, node.id, b, value)


def _as_input(case: Case, i: int, b: Bounds, value: Array) -> Case:
    name = f"v{i}"
    nodes = tuple(replace(n, op="input", inputs=(), attrs={}) if n.id == i else n for n in case.graph.nodes)
    graph = Graph(nodes, {**case.graph.inputs, name: i}, case.graph.outputs)
    cut = Case(graph, {**case.domains, name: b}, {**case.inputs, name: value}, case.simplexes)
    return next(_trimmed(cut, tuple(o.node for o in graph.outputs)), cut)
