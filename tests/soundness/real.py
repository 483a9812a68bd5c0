"""Real runs against bounds, for any framework and mode: what a recording saw of a value lies within what is proven of it.

In a compiled program only inputs and results are seen. Where subnormals count as zero, a value is compared as the operations that
read it see it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from whynan.analysis.propagate import Proof, propagate
from whynan.domain import sample
from whynan.domain.abstract import bounds_of
from whynan.domain.interval import contains
from whynan.domain.spec import Domain
from whynan.errors import TargetError
from whynan.frontends import load
from whynan.ir.dtype import Array, Format
from whynan.ir.frontend import Program, Trace
from whynan.ir.graph import Graph
from whynan.ir.text import node_text

Loss = Callable[..., Any]
BOXES = 4000


@dataclass
class Compared:
    """How many recordings were compared with the bounds, how many have another graph than the first (and why), and what was wrong."""

    compared: int = 0
    values: int = 0
    refused: int = 0
    other_path: int = 0
    other_graph: int = 0
    wrong: str = ""


def compare(loss: Loss, domains: Mapping[str, Domain], framework: str, mode: str, draws: int, seed: int = 0) -> Compared:
    """Record the loss on many inputs of its domain until a value lies outside of its bounds.

    A compiled program is recorded once and then only run: its outputs are compared.
    """
    program, wrt = load(loss, getattr(loss, "__name__", "loss"), framework), tuple(n for n, d in domains.items() if d.grad)
    rng = np.random.default_rng(seed)
    first = program.capture({n: sample.ordinary(d, rng) for n, d in domains.items()}, wrt, mode)
    simplexes = [n for n in first.graph.inputs if domains[n].kind in ("simplex", "onehot")]
    proof = propagate(first.graph, {n: bounds_of(domains[n]) for n in first.graph.inputs}, BOXES, simplexes=simplexes)
    found = Compared(wrong=outside(first, proof))
    for inputs in drawn(domains, rng, draws):
        if found.wrong:
            return found
        trace = _seen(program, first, inputs, wrt, mode)
        if trace is None:
            found.refused += 1
        elif not same_structure(first.graph, trace.graph):
            away = assumption_violated(first, trace)
            found.other_path, found.other_graph = found.other_path + away, found.other_graph + (not away)
        else:
            found.compared, found.values = found.compared + 1, found.values + sum(v is not None for v in trace.values)
            found.wrong = outside(trace, proof)
            if found.wrong:
                found.wrong += f"\non { ({n: x.tolist() for n, x in inputs.items()}) }"
    return found


def _seen(program: Program, first: Trace, inputs: Mapping[str, Array], wrt: tuple[str, ...], mode: str) -> Trace | None:
    """A recording of the inputs, or None where the framework itself refuses them."""
    if mode not in ("jit", "xla", "compile"):
        try:
            return program.capture(inputs, wrt, mode)
        except TargetError:
            return None
    run = program.run(inputs, wrt, mode)
    if run.error:
        return None
    values: list[Array | None] = [None] * len(first.graph.nodes)
    for name, node in first.graph.inputs.items():
        values[node] = np.asarray(inputs[name]) if name in inputs else None
    for output in first.graph.outputs:
        values[output.node] = run.loss if output.kind == "loss" else run.gradients.get(output.name)
    return Trace(first.graph, tuple(values))


def outside(trace: Trace, proof: Proof) -> str:
    """The first value that lies outside of its bounds, in words; "" if none does."""
    for node, value in zip(trace.graph.nodes, trace.values, strict=True):
        if value is None:
            continue
        seen = as_read(value, node.format)
        allowed = contains(proof.bounds[node.id], seen)
        if not allowed.all():
            b, place = proof.bounds[node.id], tuple(np.argwhere(~allowed)[0])
            args = "\n".join(f"  {node_text(trace.graph.nodes[i])}\n    {trace.values[i]!r}\n    in {proof.bounds[i]}" for i in node.inputs)
            return f"{node_text(node)} ({node.spelling}) is {value[place]!r} at {place}, proven within {b}\n{args}"
    for output, finite in zip(trace.graph.outputs, proof.outputs, strict=True):
        value = trace.values[output.node]
        if finite and value is not None and not np.isfinite(value.astype(np.float64)).all():
            return f"{output.name} was proven finite and is {value!r}"
    return ""


def as_read(value: Array, fmt: Format) -> Array:
    """A value with subnormals as zeros of their sign, where the format says that they count as such."""
    if not fmt.flush:
        return value
    x = value.astype(np.float64)
    return np.where(np.abs(x) < fmt.tiny, np.copysign(0.0, x), x)


# ---------------------------------------------------------------- inputs


def drawn(domains: Mapping[str, Domain], rng: np.random.Generator, count: int) -> Iterator[dict[str, Array]]:
    """Random members, corners, mosaics of special values with equal rows, and all elements one special value."""
    ways = (sample.draw, corner, mosaic, sample.mosaic, uniform)
    for k in range(count):
        way = ways[k % len(ways)]
        yield {n: d.value if d.value is not None else way(d, rng) for n, d in domains.items()}


def corner(domain: Domain, rng: np.random.Generator) -> Array:
    """One of the domain's corners."""
    found = sample.corners(domain)
    return found[int(rng.integers(len(found)))]


def mosaic(domain: Domain, rng: np.random.Generator) -> Array:
    """At most three special values, sometimes with equal rows; for a simplex a share of the row each, zeros among them."""
    special = np.array(sample.special_values(domain) or [0.0, 1.0])
    x = rng.choice(rng.choice(special, 3), domain.shape)
    if domain.shape and rng.random() < 0.5:
        x = np.broadcast_to(x[:1], domain.shape)
    return sample.project(domain, x)


def uniform(domain: Domain, rng: np.random.Generator) -> Array:
    """One special value, or a neighbour of one, everywhere."""
    special = np.array(sample.special_values(domain) or [0.0, 1.0])
    return sample.full(domain, float(rng.choice(special)))


# ---------------------------------------------------------------- recordings of one program


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


def assumption_violated(first: Trace, trace: Trace) -> bool:
    """Whether the first recording's looks at values would have gone another way in the second."""
    for a in first.graph.assumptions:
        value = trace.values[a.node] if a.node < len(trace.values) else None
        if value is None or value.shape != first.graph.nodes[a.node].shape:
            return True
        x = value.astype(np.float64)
        if not ((x >= a.low) & (x <= a.high)).all():
            return True
    return False
