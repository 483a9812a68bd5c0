"""What a program's loss and gradients would be without rounding: the reference against which changed programs are compared.

Where float64 and the program's own format agree, float64 is the reference. Where they do not, or the program fails, or a changed program
gives something else, the recorded graph is followed in real arithmetic (`whynan.analysis.precise`), as far as a budget of elements
reaches; beyond it, float64 has to do.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from whynan.analysis.evaluate import evaluate
from whynan.analysis.precise import elements, precise
from whynan.errors import OpError
from whynan.ir.dtype import Array, Float64
from whynan.ir.frontend import Run
from whynan.ir.graph import Graph

BUDGET = 60_000  # elements of all values that are followed in real arithmetic for one loss: about a second
MOST = 4_000  # of one run
DIGITS = 9
CLOSE = 256  # units in the last place by which a format may differ from float64 without being looked at more precisely


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """The loss (summed) and the gradients by name without rounding; None and absent where they are not known.

    `real` says that they come from real arithmetic rather than from float64. An infinite loss is infinite in real arithmetic, or its
    value is beyond float64.
    """

    loss: float | None = None
    gradients: Mapping[str, Float64] = field(default_factory=dict)
    real: bool = False


@dataclass(eq=False)
class Referee:
    """Gives references for one graph, whose format has the spacing `eps` at 1."""

    graph: Graph
    eps: float
    left: int = BUDGET
    reserve: int = BUDGET // 2  # for what turns out to be doubtful later

    def at(self, inputs: Mapping[str, Array], run: Run) -> Reference:
        """The reference on an input, where the real program gave `run`."""
        values = evaluated(self.graph, inputs, wide=True)
        if not values:
            return Reference()
        wide = _reference({o.node: values[o.node] for o in self.graph.outputs}, self.graph)
        size = elements(self.graph)
        if self._agree(wide, run) or size > min(self.left, MOST):
            return wide
        self.left -= size
        return self._real(inputs, wide)

    def sharper(self, inputs: Mapping[str, Array], known: Reference) -> Reference:
        """The reference in real arithmetic for an input whose reference so far is in doubt; the same where the reserve is spent."""
        size = elements(self.graph)
        if known.real or known.loss is None or size > min(self.reserve, MOST):
            return known
        self.reserve -= size
        return self._real(inputs, known)

    def _real(self, inputs: Mapping[str, Array], wide: Reference) -> Reference:
        found = precise(self.graph, inputs, digits=DIGITS)
        if found is None:
            return wide
        real = _reference({o.node: found.float64(o.node) for o in self.graph.outputs}, self.graph, real=True)
        return real if real.loss is not None else wide

    def _agree(self, wide: Reference, run: Run) -> bool:
        pairs = [(wide.loss, _sum(run.loss)), *((wide.gradients.get(n), g) for n, g in run.gradients.items())]
        return not run.error and all(a is None or _close(np.asarray(a), b.astype(np.float64), CLOSE * self.eps) for a, b in pairs)


def evaluated(graph: Graph, inputs: Mapping[str, Array], *, wide: bool) -> list[Array | None]:
    """All values of the graph; none if it does not hold for these inputs."""
    try:
        values = evaluate(graph, inputs, wide=wide)
    except OpError:  # another number of elements than was recorded
        return []
    for look in graph.assumptions:
        seen = values[look.node]
        if seen is None or not bool(((seen >= look.low) & (seen <= look.high)).all()):
            return []
    return values


def _reference(values: Mapping[int, Array | None], graph: Graph, *, real: bool = False) -> Reference:
    loss = next((values[o.node] for o in graph.outputs if o.kind == "loss"), None)
    gradients = {o.name: v.astype(np.float64) for o in graph.outputs if o.kind == "gradient" and (v := values[o.node]) is not None}
    return Reference(None if loss is None else float(_sum(loss)), gradients, real)


def _close(one: Float64, other: Float64, tolerance: float) -> bool:
    if one.shape != other.shape or not (np.isfinite(one).all() and np.isfinite(other).all()):
        return False
    return bool((np.abs(one - other) <= tolerance * np.abs(one).max(initial=0.0)).all())


def _sum(x: Array) -> Float64:
    return np.asarray(np.sum(x.astype(np.float64)))
