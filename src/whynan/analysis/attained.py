"""Facts about slices: along these axes at least one element is at least v, or all elements sum to about 1.

`x - max(x)` attains 0, so `sum(exp(x - max(x)))` is at least 1, whatever x is. A softmax row sums to 1. These facts belong to a
value and a set of its axes; monotone operations carry them on.
"""

import numpy as np

from whynan.analysis.view import View
from whynan.domain.interval import Bounds, make
from whynan.ir.graph import Node
from whynan.ops._opdef import OPS, bound

Dims = frozenset[int]  # negative axes of the value


class Attained:
    """Learns, node by node in order, what each slice attains."""

    def __init__(self, view: View, bounds: list[Bounds | None]) -> None:
        self.view, self.bounds = view, bounds
        self._least: dict[int, tuple[Dims, float]] = {}  # node -> axes along which some element is at least that

    def learn(self, node: Node, result: Bounds) -> float | None:
        """Record what a node's slices attain; return a lower bound for all its elements if the facts of its inputs give one."""
        found = self._attains(node, result)
        if found is not None and not result.may_nan.any():
            self._least[node.id] = found
        if node.op in ("sum", "amax") and node.inputs:
            return self._reduced(node)
        return None

    def _attains(self, node: Node, result: Bounds) -> tuple[Dims, float] | None:
        rank = len(node.shape)
        if node.op == "sub":
            return self._minus_maximum(node)
        if node.op == "softmax":
            n = node.shape[node.attrs["dim"]]
            return frozenset({node.attrs["dim"]}), (1.0 / n) * (1 - 64 * node.format.eps) if n else 0.0
        if node.op in ("expand", "reshape", "cast") and node.inputs and self.view.nodes[node.inputs[0]].shape == node.shape:
            return self._least.get(node.inputs[0])
        if len(node.inputs) == 1 and rank and node.op in OPS and OPS[node.op].monotone == (1,) and node.inputs[0] in self._least:
            dims, value = self._least[node.inputs[0]]
            point = make(np.full((1,) * rank, value), np.full((1,) * rank, value))
            return dims, float(bound(self.view.calls[node.id], [point]).lo.min())
        return None

    def _minus_maximum(self, node: Node) -> tuple[Dims, float] | None:
        """x - max(x) is exactly 0 where x is largest."""
        view = self.view
        a, b = view.inputs((node.id, view.root(node.id)[1]))
        if view.op(b) != "amax":
            return None
        found = view.reduced(b, base=min([-1, *a[1], *b[1]]) - 1)
        if found is None:
            return None
        (inner, axes), names = found
        dims = [k for k, x in enumerate(axes) if x in names]
        if inner != a[0] or len(axes) != len(a[1]) or any(x != y for k, (x, y) in enumerate(zip(axes, a[1], strict=True)) if k not in dims):
            return None
        rank = len(node.shape)
        along = [a[1][k] for k in dims]
        return None if any(x < 0 for x in along) else (frozenset(x - rank for x in along), 0.0)

    def _reduced(self, node: Node) -> float | None:
        """A maximum, or a sum of non-negative terms, over axes that hold an element of at least v is at least v."""
        known = self._least.get(node.inputs[0])
        inner = self.bounds[node.inputs[0]]
        if known is None or inner is None or not known[0] <= set(node.attrs["dims"]):
            return None
        if node.op == "sum" and (inner.may_nan.any() or bool((inner.lo < 0).any())):
            return None
        return known[1]
