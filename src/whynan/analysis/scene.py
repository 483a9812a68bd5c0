"""A recorded run as blame looks at it: all its values, the same run without rounding, and which values are to be followed."""

import ast
from collections.abc import Set
from functools import lru_cache

import numpy as np

from whynan.analysis.evaluate import evaluate, fill
from whynan.errors import OpError
from whynan.ir.dtype import Array
from whynan.ir.frontend import Trace
from whynan.ir.graph import BACKWARD, FORWARD, Graph, Node

# ops of which a mask of -inf is expected to leave something: where all is masked, they are to blame
SUMMARIES = frozenset({"logsumexp", "softmax", "log_softmax", "logcumsumexp"})
# ops that give -inf only where a mask's -inf stands: beside it they are finite, and a row that is all masked gives NaN
PASSING = frozenset({"log_softmax"})
# functions that some libraries and compilers compute by several operations, and other names of theirs
EXPANDED = SUMMARIES | {"acos", "asin", "atanh", "cosh", "sinh", "norm", "erfinv", "lgamma", "digamma"}
OTHER_NAMES = {"arccos": "acos", "arcsin": "asin", "arctanh": "atanh", "reduce_logsumexp": "logsumexp", "power": "pow"}
# what else may stand for a call: a power with a small exponent is a root or an inverse, and the slope of a root or a logarithm divides
STANDS_FOR = {"pow": frozenset({"sqrt", "rsqrt", "reciprocal"}), "sqrt": frozenset({"div"}), "log": frozenset({"div"})}


class Scene:
    """The recorded run with its values, and the same run in float64. `masks` are inputs whose -inf is there on purpose."""

    def __init__(self, trace: Trace, masks: Set[int] = frozenset()) -> None:
        self.graph: Graph = trace.graph
        self._masks = masks
        self.values = fill(trace.graph, trace.values)
        self._bad: dict[int, bool] = {}
        self._meant: list[bool] = []
        self._wide: list[Array | None] | None = None
        self.loss_finite = not any(self.bad(o.node) for o in self.graph.outputs if o.kind == "loss")

    @property
    def wide(self) -> list[Array | None]:
        """All values without rounding to the program's formats; None for all where that run is another than the recorded one."""
        if self._wide is None:
            inputs = {name: self.values[i] for name, i in self.graph.inputs.items()}
            try:
                self._wide = evaluate(self.graph, {k: v for k, v in inputs.items() if v is not None}, wide=True)
            except OpError:  # a mask selects another number of elements
                self._wide = [None] * len(self.graph.nodes)
        return self._wide

    def value(self, i: int) -> Array | None:
        """The value of node i as float64, or None if it was never seen."""
        v = self.values[i]
        return None if v is None else v.astype(np.float64)

    def bad(self, i: int) -> bool:
        """Whether the value holds NaN or an infinity."""
        if i not in self._bad:
            v = self.value(i)
            self._bad[i] = v is not None and not np.isfinite(v).all()
        return self._bad[i]

    def wrong(self, i: int) -> Array | None:
        """Which elements of the value failed: those that are not finite; where NaN arose beside a mask's infinities, only NaN."""
        v = self.value(i)
        if v is None:
            return None
        nan = np.isnan(v)
        return nan if nan.any() and any(j in self._masks or self.meant(j) for j in (i, *self.graph.nodes[i].inputs)) else ~np.isfinite(v)

    def meant(self, i: int) -> bool:
        """Whether all that is non-finite in the value are infinities that a constant or a mask brought in."""
        for k in range(len(self._meant), i + 1):  # in order, so that the inputs are known: a graph may be deeper than Python's stack
            self._meant.append(self.bad(k) and self._carries(self.graph.nodes[k]))
        return self._meant[i]

    def _carries(self, node: Node) -> bool:
        value = self.value(node.id)
        if value is None or np.isnan(value).any():
            return False
        sources = [j for j in node.inputs if self.bad(j)]
        if node.op == "const" or node.id in self._masks:
            return True
        return bool(sources) and node.op not in SUMMARIES - PASSING and all(self._meant[j] for j in sources)

    def derived(self, node: Node) -> list[Node]:
        """The forward nodes whose derivative a backward node computes (none for a forward node).

        Of the derivative of a derivative, which derives no forward node itself, those of the same expression.
        """
        if node.phase == FORWARD:
            return []
        forward = [n for n in self.graph.nodes if n.phase == FORWARD]
        return [n for n in forward if 0 <= node.derives == n.source] or [n for n in forward if n.site == node.site]

    def followed(self, node: Node, j: int) -> bool:
        """Whether the search for the origin goes on from a node to its input j."""
        if not self.bad(j) or self.meant(j):
            return False
        return self.graph.nodes[j].phase == BACKWARD or not (self.loss_finite and node.phase == BACKWARD)


def written(node: Node) -> str:
    """The op as the source has it: x ** 0.5 is computed as a square root, but it is a power; a library's softmax by several ops."""
    called = _called(node.site.text) if node.site else ""
    expanded = called in EXPANDED or node.op in STANDS_FOR.get(called, ())
    return str(node.attrs.get("written_as", called if expanded else node.op))


@lru_cache(maxsize=1024)
def _called(text: str) -> str:
    """The op whose function an expression calls, `**` included; empty if it is no call."""
    try:
        call = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        return ""
    if isinstance(call, ast.BinOp) and isinstance(call.op, ast.Pow):
        return "pow"
    function = call.func if isinstance(call, ast.Call) else None
    name = function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""
    return OTHER_NAMES.get(name, name)
