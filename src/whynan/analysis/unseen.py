"""Values inside a compiled program, which nobody saw: where the graph's own arithmetic does not fail as the real run did.

The library's rounding differs from NumPy's in the last bits: XLA's tanh(8) is 1, NumPy's is just below. Bounds at the failing input hold
both. The first operation that may fail within them is the one that did; its operand is taken from the end of its bounds.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from whynan.analysis.evaluate import ancestors, fill
from whynan.analysis.propagate import Proof, propagate
from whynan.domain.interval import of_array
from whynan.ir.dtype import Array, nearest
from whynan.ir.frontend import Trace
from whynan.ir.graph import BACKWARD, Graph, Node, call_of
from whynan.ops._opdef import known, run


def explicable(trace: Trace, output: int) -> Trace:
    """The trace with values that lead to the failing output, if those computed from the inputs do not; else itself."""
    values = fill(trace.graph, trace.values)
    inner = [i for i in ancestors(trace.graph, output) if i != output and trace.graph.nodes[i].op not in ("input", "const")]
    unseen = [i for i in inner if trace.values[i] is None]
    if not unseen or any(_bad(values[i]) for i in inner):
        return trace
    given = {name: v for name, i in trace.graph.inputs.items() if (v := values[i]) is not None}
    if len(given) < len(trace.graph.inputs):
        return trace
    proof = propagate(trace.graph, {name: of_array(v) for name, v in given.items()}, refine=False)
    for i in sorted(set(proof.open).intersection(unseen), key=lambda i: (trace.graph.nodes[i].phase == BACKWARD, i)):
        for forced in _ends(trace.graph, proof, values, i):
            changed = tuple(forced.get(k, v) for k, v in enumerate(trace.values))
            return replace(trace, values=changed)
    return trace


def _bad(value: Array | None) -> bool:
    return value is not None and not np.isfinite(value.astype(np.float64)).all()


def _ends(graph: Graph, proof: Proof, values: list[Array | None], i: int) -> Iterator[dict[int, Array]]:
    """An operand at an end of its bounds, with the result that is then not finite."""
    node = graph.nodes[i]
    operands = [values[j] for j in node.inputs]
    if not known(node.op) or any(v is None for v in operands):
        return
    for place, j in enumerate(node.inputs):
        for end in (proof.bounds[j].lo, proof.bounds[j].hi):
            value = _as_value(graph.nodes[j], end)
            result = run(call_of(graph, node), [value if k == place else v for k, v in enumerate(operands) if v is not None])
            if _bad(result):
                yield {j: value, i: result}


def _as_value(node: Node, end: np.ndarray) -> Array:
    ready = nearest(node.format, end) if node.format.is_float else end
    return np.broadcast_to(ready, node.shape).astype(node.format.numpy)
