"""JAX functions as XLA compiles them for a CPU: their HLO recorded as a graph beside the program that really runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jaxlib._hlo
import numpy as np

from whynan.analysis.evaluate import evaluate
from whynan.analysis.propagate import propagate
from whynan.domain.interval import Bounds, contains, make
from whynan.frontends.hlo.parse import Metadata, parse
from whynan.frontends.hlo.record import Spot, record
from whynan.frontends.trace import Recording, finished
from whynan.ir.dtype import FORMATS, Array, flushed
from whynan.ir.graph import Graph, Output


@dataclass(frozen=True, eq=False)
class Compiled:
    """A compiled function: its graph, with inputs x0, x1, … and one output per result, and the program."""

    graph: Graph
    text: str
    run: Callable[..., Any]

    def real(self, arguments: Sequence[Array]) -> list[Array]:
        """What the program gives."""
        return [np.asarray(r) for r in jax.tree.leaves(self.run(*arguments))]

    def evaluated(self, arguments: Sequence[Array]) -> list[Array]:
        """What the graph gives."""
        values = evaluate(self.graph, _named(arguments))
        return [np.asarray(values[o.node]) for o in self.graph.outputs]

    def bounds(self, domains: Sequence[Bounds]) -> list[Bounds]:
        """The results' bounds for arguments within the domains."""
        proof = propagate(self.graph, _named(domains), budget=2000)
        return [proof.bounds[o.node] for o in self.graph.outputs]

    @property
    def unknown(self) -> list[str]:
        """Operations without a lowering."""
        return [n.op for n in self.graph.nodes if n.op.startswith("unknown")]


def _named(values: Sequence[Any]) -> dict[str, Any]:
    return {f"x{i}": v for i, v in enumerate(values)}


def compiled(function: Callable[..., Any], *arguments: Array) -> Compiled:
    """The function as jax.jit compiles it for arguments of these shapes and types."""
    program = jax.jit(function, keep_unused=True).lower(*arguments).compile()
    options = jaxlib._hlo.HloPrintOptions()
    options.print_large_constants = True
    text = program.runtime_executable().hlo_modules()[0].to_string(options)
    return Compiled(recorded(text, arguments), text, program)


def recorded(text: str, arguments: Sequence[Array]) -> Graph:
    """The graph of a program's text; phases follow the words "transpose(jvp" in the instructions' names."""
    recording = Recording()
    inputs = {}
    for i, a in enumerate(arguments):
        fmt = flushed(FORMATS[np.asarray(a).dtype.name])
        inputs[f"x{i}"] = recording.builder.add("input", (), np.shape(a), fmt)
    results = record(recording, parse(text), list(inputs.values()), spot)
    outputs = [Output("loss" if i == 0 else "gradient", f"r{i}", node) for i, node in enumerate(results)]
    return finished(recording, inputs, outputs).graph


def spot(metadata: Metadata) -> Spot:
    """An instruction's place by its innermost frame alone."""
    where = str(metadata.frames[:1])
    return Spot(None, where, "transpose(jvp" in metadata.op_name)


def subnormals_as_zero(x: Array) -> Array:
    """Subnormals as zeros of their sign, in the formats where XLA takes them for that."""
    if (x.dtype.kind != "f" and x.dtype.name != "bfloat16") or x.dtype == np.float16:
        return x
    tiny = np.asarray(FORMATS[x.dtype.name].tiny, x.dtype)
    return np.where(np.abs(x) < tiny, np.copysign(np.zeros_like(x), x), x)


def outside(bounds: Bounds, value: Array) -> Array:
    """Where a result lies outside of its bounds."""
    return ~np.broadcast_to(contains(bounds, subnormals_as_zero(value)), value.shape)


def around(values: Sequence[Array]) -> Bounds:
    """Bounds that hold all of some arrays, with one interval for all elements."""
    x = np.concatenate([np.asarray(v, np.float64).ravel() for v in values])
    numbers = x[~np.isnan(x)]
    lo, hi = (numbers.min(), numbers.max()) if numbers.size else (np.inf, -np.inf)
    one = (1,) * values[0].ndim
    whole = bool((numbers[np.isfinite(numbers)] % 1 == 0).all())
    return make(np.full(one, lo), np.full(one, hi), nan=bool(np.isnan(x).any()), fraction=not whole)
