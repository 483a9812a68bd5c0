"""Real PyTorch losses: every value that the framework computes, forward and backward, lies within the bounds."""

from collections.abc import Iterator, Mapping

import numpy as np
import pytest
from tests.soundness.torch_losses import EXAMPLES, Example

from whynan.analysis.propagate import Proof, propagate
from whynan.domain import sample
from whynan.domain.abstract import bounds_of
from whynan.domain.interval import contains
from whynan.domain.spec import Domain
from whynan.errors import TargetError
from whynan.frontends.torch import load
from whynan.ir.dtype import Array
from whynan.ir.frontend import Trace
from whynan.ir.graph import Graph
from whynan.ir.text import node_text

DRAWS = 30
BOXES = 4000

CASES = [
    pytest.param(e, dtype, id=f"{e.name}-{dtype}", marks=[pytest.mark.slow] if dtype != "float32" else [])
    for e in EXAMPLES
    for dtype in e.dtypes
]


@pytest.mark.parametrize(("example", "dtype"), CASES)
def test_real_values_lie_within_their_bounds(example: Example, dtype: str) -> None:
    domains = dict(example.domains(dtype))
    program, wrt = load(example.loss, example.name), tuple(n for n, d in domains.items() if d.grad)
    rng = np.random.default_rng(0)
    first = program.capture({n: sample.ordinary(d, rng) for n, d in domains.items()}, wrt, "eager")
    proof = propagate(first.graph, {n: bounds_of(domains[n]) for n in first.graph.inputs}, BOXES)
    _check(first, proof)
    compared = skipped = 0
    for inputs in _draws(domains, rng):
        try:
            trace = program.capture(inputs, wrt, "eager")
        except TargetError:
            continue  # the framework itself refuses this input
        if not same_structure(first.graph, trace.graph):
            skipped += not _assumption_violated(first, trace)
            continue
        compared += 1
        _check(trace, proof)
    assert skipped <= DRAWS / 2, f"{skipped} of {DRAWS} recordings had another graph although no assumption was violated"


def _check(trace: Trace, proof: Proof) -> None:
    for node, value in zip(trace.graph.nodes, trace.values, strict=True):
        if value is None:
            continue
        allowed = contains(proof.bounds[node.id], value)
        if not allowed.all():
            b, place = proof.bounds[node.id], tuple(np.argwhere(~allowed)[0])
            args = "\n".join(f"  {node_text(trace.graph.nodes[i])}\n    {trace.values[i]!r}\n    in {proof.bounds[i]}" for i in node.inputs)
            pytest.fail(f"{node_text(node)} ({node.spelling}) is {value[place]!r} at {place}, proven within {b}\n{args}")
    for output, finite in zip(trace.graph.outputs, proof.outputs, strict=True):
        value = trace.values[output.node]
        if finite and value is not None:
            assert np.isfinite(value.astype(np.float64)).all(), f"{output.name} was proven finite and is {value!r}"


def _draws(domains: Mapping[str, Domain], rng: np.random.Generator) -> Iterator[dict[str, Array]]:
    """Random members, corners, and mosaics of special values with equal rows."""
    for k in range(DRAWS):
        way = (sample.draw, _corner, _mosaic)[k % 3]
        yield {n: d.value if d.value is not None else way(d, rng) for n, d in domains.items()}


def _corner(domain: Domain, rng: np.random.Generator) -> Array:
    found = sample.corners(domain)
    return found[int(rng.integers(len(found)))]


def _mosaic(domain: Domain, rng: np.random.Generator) -> Array:
    special = np.array(sample.special_values(domain))
    x = rng.choice(rng.choice(special, 3), domain.shape)
    if domain.shape and rng.random() < 0.5:
        x = np.broadcast_to(x[:1], domain.shape)
    return sample.project(domain, x)


def same_structure(one: Graph, two: Graph) -> bool:
    """Whether two recordings are the same program: ops, inputs, shapes, attributes and constants."""
    return len(one.nodes) == len(two.nodes) and all(
        a.op == b.op and a.inputs == b.inputs and a.shape == b.shape and a.format is b.format and _same_attributes(a.attrs, b.attrs)
        for a, b in zip(one.nodes, two.nodes, strict=True)
    )


def _same_attributes(a: Mapping[str, object], b: Mapping[str, object]) -> bool:
    return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)


def _same(a: object, b: object) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.shape == b.shape and a.tobytes() == b.tobytes()
    return repr(a) == repr(b)


def _assumption_violated(first: Trace, trace: Trace) -> bool:
    """Whether the first recording's looks at values would have gone another way in the second."""
    for a in first.graph.assumptions:
        value = trace.values[a.node] if a.node < len(trace.values) else None
        if value is None or value.shape != first.graph.nodes[a.node].shape:
            return True
        x = value.astype(np.float64)
        if not ((x >= a.low) & (x <= a.high)).all():
            return True
    return False
