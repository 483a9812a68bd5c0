"""A recorded graph in real arithmetic: every value to as many digits as asked for.

The inputs and the constants are taken as the graph has them: 0.1 in a float32 program is the float32 nearest to 0.1, and that is no error
of the computation. Random values are those of the recorded run, if they are given.

No single precision is trusted. The graph is evaluated (by mpmath) with more and more bits until two evaluations, one with twice the bits of
the other, agree on the outputs; how far they are apart is the stated error. The first precision covers twice the range of magnitudes of the
inputs and constants, so that 1 + 1e-45 - 1 is not taken for 0 by both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any

import numpy as np

from whynan.errors import OpError
from whynan.ir.dtype import Array, Float64
from whynan.ir.graph import Graph, call_of
from whynan.ops._exact import exactly, lifted
from whynan.ops._opdef import run

MOST_ELEMENTS = 40_000  # of all values of a graph together: some microseconds each
LEAST_BITS, MOST_BITS = 160, 6_000
DOUBLINGS = 4
DIGITS = 17


@dataclass(frozen=True, slots=True, eq=False)
class Precise:
    """The real values of a graph's nodes on one input.

    `values[i]` is an array of mpmath numbers for a node of a floating format, an ordinary array for integers and booleans, None where the
    real value is not known (an unknown operation, a decomposition). `errors[i]` bounds the error of each of the nodes asked for (float64
    arrays), as far as the agreement of two precisions can say; `agreed` are those whose errors are below the relative error asked for.
    """

    values: tuple[Array | None, ...]
    errors: Mapping[int, Float64]
    agreed: frozenset[int]
    bits: int

    def float64(self, node: int) -> Float64 | None:
        """The node's values rounded to float64; None if they are unknown or two precisions do not agree on them."""
        value = self.values[node]
        return None if value is None or (node in self.errors and node not in self.agreed) else rounded(value)

    def distance(self, node: int, computed: Array) -> Float64 | None:
        """How far computed values of a node lie from the real ones, element by element, not rounded before the difference is taken."""
        value = self.values[node]
        return None if value is None else distance(computed, value)


def precise(
    graph: Graph,
    inputs: Mapping[str, Array],
    *,
    digits: int = DIGITS,
    nodes: Sequence[int] | None = None,
    given: Mapping[int, Array] | None = None,
) -> Precise | None:
    """The real values of a graph on inputs by name, the given `nodes` (the outputs) correct to so many decimal digits.

    `given` are values of nodes that cannot be computed from the inputs (random ones), as they were recorded. None if the graph is too large
    for this arithmetic.
    """
    if elements(graph) > MOST_ELEMENTS:
        return None
    wanted = tuple(dict.fromkeys(o.node for o in graph.outputs)) if nodes is None else tuple(nodes)
    bits = _first_bits(graph, inputs, digits)
    below = _evaluated(graph, inputs, bits, given or {})
    for _ in range(DOUBLINGS):
        bits *= 2
        values = _evaluated(graph, inputs, bits, given or {})
        errors = {i: error for i in wanted if (error := _apart(below[i], values[i])) is not None}
        agreed = frozenset(i for i, error in errors.items() if _small(error, values[i], digits, graph.nodes[i].format.smallest))
        if len(agreed) == len(errors) or bits > MOST_BITS:
            break
        below = values
    return Precise(tuple(values), errors, agreed, bits)


def elements(graph: Graph) -> int:
    """The number of elements of all values together."""
    return sum(prod(node.shape) for node in graph.nodes)


def rounded(value: Array) -> Float64:
    """Numbers of any kind as float64."""
    if value.dtype != object:
        return value.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):  # NumPy warns of what a Python function returns
        return np.asarray(np.frompyfunc(_as_float, 1, 1)(value), dtype=np.float64)


def distance(one: Array, other: Array) -> Float64:
    """|one - other| for each element of arrays of floats or mpmath numbers, one of them at least the latter; NaN where an element is."""
    mp = context(LEAST_BITS * 8)
    return rounded(np.asarray(np.abs(lifted(mp, one) - lifted(mp, other)), object))  # NumPy makes scalars of arrays without axes


@cache
def context(bits: int) -> Any:
    """An mpmath context of that many bits, apart from the global one."""
    import mpmath  # only where digits are counted: it takes a tenth of a second to load

    mp = mpmath.MPContext()
    mp.prec = bits
    return mp


def _as_float(x: Any) -> float:
    try:
        return float(x)
    except OverflowError:
        return float("inf") if x > 0 else float("-inf")


def _first_bits(graph: Graph, inputs: Mapping[str, Array], digits: int) -> int:
    """Bits for the digits, and twice the range of exponents that inputs and constants have."""
    arrays = [np.asarray(inputs[name]) for name in graph.inputs]
    arrays += [np.asarray(node.attrs["value"]) for node in graph.nodes if node.op == "const"]
    sizes = [np.abs(a.astype(np.float64)).reshape(-1) for a in arrays if a.size]
    all_ = np.concatenate([np.ones(1), *sizes])
    there = all_[(all_ > 0) & np.isfinite(all_)]
    exponents = np.log2(there)
    return max(LEAST_BITS, int(2 * (exponents.max() - exponents.min())) + 4 * digits)


def _evaluated(graph: Graph, inputs: Mapping[str, Array], bits: int, given: Mapping[int, Array]) -> list[Array | None]:
    mp = context(bits)
    named = {i: np.asarray(inputs[name]) for name, i in graph.inputs.items()}
    out: list[Array | None] = []
    for node in graph.nodes:
        seen = named.get(node.id) if node.id in named else given.get(node.id)
        if node.op == "const":
            seen = np.broadcast_to(node.attrs["value"], node.shape)
        if seen is not None:
            out.append(lifted(mp, seen) if node.format.is_float else seen)
            continue
        operands = [v for j in node.inputs if (v := out[j]) is not None]
        known = node.op not in ("input", "random") and len(operands) == len(node.inputs)
        out.append(_value(mp, graph, node.id, operands) if known else None)
    return out


def _value(mp: Any, graph: Graph, i: int, operands: Sequence[Array]) -> Array | None:
    node = graph.nodes[i]
    call = call_of(graph, node)
    try:
        if not (call.format.is_float or any(f.is_float for f in call.formats)):
            return run(call, operands)
        value = exactly(mp, call, operands)
    except (OpError, TypeError, ValueError, ArithmeticError, AttributeError, IndexError):  # NumPy's code for numbers meets objects
        return None
    return None if value is None or value.shape != node.shape else value


def _apart(one: Array | None, other: Array | None) -> Float64 | None:
    return None if one is None or other is None else distance(one, other)


def _small(error: Float64, value: Array | None, digits: int, smallest: float) -> bool:
    """Whether the error is small against each number, or smaller than any number of the format could show."""
    if value is None:
        return False
    size = np.abs(rounded(value))
    return bool((error <= np.maximum(10.0**-digits * size, smallest * 1e-3)).all())
