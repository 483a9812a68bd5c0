"""Which operation loses the digits of an output, on one input."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from whynan.analysis.digits import Inputs, Measure
from whynan.analysis.evaluate import ancestors, evaluate, fill
from whynan.analysis.precise import Precise, rounded
from whynan.ir.dtype import Array, Float64, Format
from whynan.ir.frontend import Run, Trace
from whynan.ir.graph import Graph, Node, Output

BAD_ULPS = 4.0  # from here on a value counts as wrong
DIFFERENCES = frozenset({"sub", "add", "fma", "sum", "mean", "matmul", "cumsum"})


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One input with all that is known of it: the framework's run, the recorded graph with its values, the real values."""

    inputs: Inputs
    run: Run
    trace: Trace
    real: Precise
    measure: Measure

    @property
    def graph(self) -> Graph:
        """The recorded graph."""
        return self.trace.graph

    def computed(self, name: str) -> Array | None:
        """What the framework gave for an output."""
        return self.run.loss if name == "loss" else self.run.gradients.get(name)

    def error(self, o: Output) -> Float64 | None:
        """How far the framework's output lies from the real one; None if one of them is not known or not finite."""
        computed, exact = self.computed(o.name), self.real.float64(o.node)
        if computed is None or exact is None or computed.size != exact.size:
            return None
        error = self.real.distance(o.node, computed.reshape(exact.shape))
        return error if error is not None and np.isfinite(error).all() else None

    def digits(self, o: Output) -> float:
        """The correct digits of an output, all of them where nothing can be said."""
        error, exact = self.error(o), self.real.float64(o.node)
        if error is None or exact is None:
            return self.measure.of(o.name)
        return float(self.measure.digits(o.name, error[None], exact[None])[0])


def in_ulps(error: Float64, exact: Float64, fmt: Format) -> Float64:
    """Errors in units of the last place (of at least the smallest normal number), 0 where they are not finite."""
    with np.errstate(all="ignore"):
        ulps = error / (fmt.eps * np.maximum(np.abs(exact), fmt.tiny))
    return np.asarray(np.where(np.isfinite(ulps), ulps, 0.0))


def culprit(case: Case, o: Output) -> Node | None:
    """The operation that loses the digits of an output."""
    values = evaluate(case.graph, case.inputs)
    values = [v if v is not None else case.trace.values[i] for i, v in enumerate(values)]
    errors = [_node_ulps(case, i, v) for i, v in enumerate(values)]
    target = o.node
    while True:
        node = _first_to_repair(case, values, errors, target)
        if node is None:
            return None
        inward = [j for j in node.inputs if errors[j] >= BAD_ULPS]
        if not inward or errors[node.id] >= BAD_ULPS * max(errors[j] for j in inward):
            return _rounded_away(case.graph, node)
        if max(inward, key=lambda j: errors[j]) == target:
            return None
        target = max(inward, key=lambda j: errors[j])  # several causes meet here: the worst of them


def _node_ulps(case: Case, i: int, value: Array | None) -> float:
    node, real = case.graph.nodes[i], case.real.values[i]
    if value is None or real is None or not node.format.is_float or not value.size:
        return 0.0
    error = case.real.distance(i, value)
    return 0.0 if error is None else float(in_ulps(error, rounded(real), node.format).max(initial=0.0))


def _first_to_repair(case: Case, values: Sequence[Array | None], errors: Sequence[float], target: int) -> Node | None:
    """The first operation whose value, put right, brings the error of a node to less than the square root of what it is."""
    enough = max(BAD_ULPS, errors[target] ** 0.5)
    for i in sorted(ancestors(case.graph, target)):
        node, real = case.graph.nodes[i], case.real.values[i]
        if errors[i] < BAD_ULPS or real is None or node.op in ("input", "const"):
            continue
        if i == target or _node_ulps(case, target, _with(case.graph, values, i, rounded(real).astype(node.format.numpy), target)) <= enough:
            return node
    return None


def _with(graph: Graph, values: Sequence[Array | None], i: int, value: Array, target: int) -> Array | None:
    """The value of a node if another had that value."""
    changed = {i}
    given: list[Array | None] = list(values)
    given[i] = value
    for node in graph.nodes[i + 1 :]:
        if any(j in changed for j in node.inputs):
            changed.add(node.id)
            given[node.id] = None
    return fill(graph, given)[target]


def _rounded_away(graph: Graph, node: Node) -> Node:
    """The sum whose rounding a logarithm, a root or a power then makes large: in log(1 + x) it is 1 + x that loses x."""
    if node.op in DIFFERENCES:
        return node
    sums = [graph.nodes[j] for j in node.inputs if graph.nodes[j].op in ("add", "sub") and graph.nodes[j].site is not None]
    return sums[0] if len(sums) == 1 else node
