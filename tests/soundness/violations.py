"""The property: what a run gives on inputs of the domain lies within the bounds that the analysis proves.

`violations` tests it on one case; `minimised` makes a failing case small: parts of the graph become inputs.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from tests.soundness.graphs import Case

from whynan.analysis.evaluate import evaluate_many
from whynan.analysis.propagate import Proof, propagate
from whynan.domain.interval import Bounds, contains, join, of_array
from whynan.ir.dtype import Array
from whynan.ir.graph import Graph, Output
from whynan.ir.text import text

BOXES = 150


@dataclass(frozen=True, eq=False)
class Violation:
    """A node whose value lies outside of its bounds on one sample, or an exception (`error`) that the analysis raised."""

    case: Case
    node: int
    sample: int
    refine: bool
    bounds: Bounds | None
    value: Array | None
    error: str = ""

    def __str__(self) -> str:
        how = "with" if self.refine else "without"
        lines = [text(self.case.graph)]
        for name, b in self.case.domains.items():
            lines.append(f"{name} in {_bounds_text(b)}")
            lines.append(f"  = {np.asarray(self.case.inputs[name][self.sample]).astype(np.float64).tolist()!r}")
        if self.error:
            return "\n".join([*lines, f"{how} branch and prune the analysis gave {self.error}"])
        assert self.bounds is not None and self.value is not None
        lines.append(f"%{self.node} is {self.value.astype(np.float64).tolist()!r}")
        return "\n".join([*lines, f"{how} branch and prune proven within {_bounds_text(self.bounds)}"])


def _bounds_text(b: Bounds) -> str:
    return f"[{b.lo.tolist()!r}, {b.hi.tolist()!r}] flags {b.flags.tolist()!r}"


def violations(case: Case, refines: tuple[bool, ...] = (False, True)) -> Iterator[Violation]:
    """All that is wrong with a case, the first wrong node of each run."""
    values = evaluate_many(case.graph, range(len(case.graph.nodes)), case.inputs)
    for refine in refines:
        try:
            proof = propagate(case.graph, case.domains, BOXES, refine)
        except Exception as error:
            yield Violation(case, -1, 0, refine, None, None, f"{type(error).__name__}: {error}")
            continue
        yield from _outside(case, values, proof, refine)


def _outside(case: Case, values: dict[int, Array], proof: Proof, refine: bool) -> Iterator[Violation]:
    for i, value in values.items():
        if not _fits(proof.bounds[i].shape, case.graph.nodes[i].shape):
            text = f"bounds of shape {proof.bounds[i].shape} for %{i} of shape {case.graph.nodes[i].shape}"
            yield Violation(case, -1, 0, refine, None, None, text)
            return
        allowed = contains(proof.bounds[i], value)
        if not allowed.all():
            sample = int(np.argwhere(~allowed.reshape(len(allowed), -1).all(axis=1))[0, 0])
            yield Violation(case, i, sample, refine, proof.bounds[i], np.asarray(value[sample]))
            return
    for output, finite in zip(case.graph.outputs, proof.outputs, strict=True):
        bad = ~np.isfinite(values[output.node].astype(np.float64)).reshape(len(values[output.node]), -1).all(axis=1)
        if finite and bad.any():
            sample = int(np.argmax(bad))
            yield Violation(case, output.node, sample, refine, proof.bounds[output.node], np.asarray(values[output.node][sample]))
            return


def _fits(groups: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether bounds have the value's rank, and in each dimension its size or 1."""
    return len(groups) == len(shape) and all(g in (1, n) for g, n in zip(groups, shape, strict=True))


def checked(case: Case) -> int:
    """How many of a case's nodes have bounds that say something (not everything the format holds)."""
    proof = propagate(case.graph, case.domains, BOXES, refine=False)
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
        return next((v for v in violations(case, (found.refine,)) if bool(v.error) == bool(found.error)), None)
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
    return Case(graph, {n: case.domains[n] for n in inputs}, {n: case.inputs[n] for n in inputs})


def _cut(case: Case, found: Violation) -> Iterator[Case]:
    """One computed value made an input: with the bounds that were proven for it, or those of its values if the analysis raises."""
    values = evaluate_many(case.graph, range(len(case.graph.nodes)), case.inputs)
    proven = None if found.error else propagate(case.graph, case.domains, BOXES, found.refine).bounds
    for node in reversed(case.graph.nodes):
        if node.op in ("input", "const") or node.id == found.node:
            continue
        value = values[node.id]
        b = join(*map(of_array, value)) if proven is None else proven[node.id]
        if contains(b, value).all():
            yield _as_input(case, node.id, b, value)


def _as_input(case: Case, i: int, b: Bounds, value: Array) -> Case:
    name = f"v{i}"
    nodes = tuple(replace(n, op="input", inputs=(), attrs={}) if n.id == i else n for n in case.graph.nodes)
    graph = Graph(nodes, {**case.graph.inputs, name: i}, case.graph.outputs)
    cut = Case(graph, {**case.domains, name: b}, {**case.inputs, name: value})
    return next(_trimmed(cut, tuple(o.node for o in graph.outputs)), cut)

