"""What the recorded graph says of many inputs at once, before the real function is run on those worth it.

A run of the real framework costs a thousand times what an operation on small arrays does. The graph, evaluated on a batch of
candidates, foresees which of them fail and which gradient is steepest; the real function is then run on these and on a sample
of the others, since the graph's arithmetic is not the library's to the last bit.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from whynan.analysis.evaluate import ancestors, evaluate_many
from whynan.errors import OpError
from whynan.ir.dtype import Array
from whynan.ir.graph import Graph
from whynan.ops._opdef import known

Inputs = Mapping[str, Array]

MOST_NUMBERS = 300_000  # elements of all values of one candidate's run: beyond, the framework is the faster one
SLOW = frozenset({"conv", "svdvals", "eigvalsh", "ctc_loss", "cdist", "max_pool", "avg_pool", "interpolate"})


@dataclass(frozen=True, slots=True, eq=False)
class Forecast:
    """Per candidate: whether some output is expected not to be finite, and the largest finite gradient element."""

    fails: np.ndarray
    steepness: np.ndarray


Forecaster = Callable[[Sequence[Inputs]], Forecast]


def forecaster(graph: Graph) -> Forecaster | None:
    """A function that foresees the outputs on many inputs; None if the graph cannot be evaluated, is not worth it, or is one of several."""
    return None if graph.assumptions else on_its_path(graph)


def on_its_path(graph: Graph) -> Forecaster | None:
    """A function that foresees the outputs on inputs that take the graph's path; None if it cannot be evaluated or is not worth it."""
    order = sorted(set().union(*(ancestors(graph, o.node) for o in graph.outputs)))
    nodes = [graph.nodes[i] for i in order]
    computed = [n for n in nodes if n.op not in ("input", "const")]
    if any(not known(n.op) or n.op in SLOW or n.op == "random" for n in computed):
        return None
    if sum(int(np.prod(n.shape)) for n in nodes) > MOST_NUMBERS:
        return None
    return lambda candidates: _foresee(graph, order, candidates)


def _foresee(graph: Graph, order: Sequence[int], candidates: Sequence[Inputs]) -> Forecast:
    stacked = {name: np.stack([c[name] for c in candidates]) for name in graph.inputs}
    try:
        values = evaluate_many(graph, order, stacked)
    except OpError:  # an operation whose result has another shape on another input: nothing is foreseen
        return Forecast(np.ones(len(candidates), bool), np.zeros(len(candidates)))
    fails, steepness = np.zeros(len(candidates), bool), np.zeros(len(candidates))
    for o in graph.outputs:
        flat = values[o.node].astype(np.float64).reshape(len(candidates), -1)
        fails |= ~np.isfinite(flat).all(axis=1)
        if o.kind == "gradient":
            steepness = np.maximum(steepness, np.abs(np.where(np.isfinite(flat), flat, 0.0)).max(axis=1, initial=0.0))
    return Forecast(fails, steepness)
