"""Facts about slices: along these axes at least one element is at least v, or all elements sum to about 1.

`x - max(x)` attains 0, so `sum(exp(x - max(x)))` is at least 1, whatever x is. A softmax row sums to 1. These facts belong to a
value and a set of its axes; monotone operations carry them on.
"""

import numpy as np

from whynan.analysis.contracted import contracted
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

    def copied(self, view: View, bounds: list[Bounds | None]) -> "Attained":
        """The same facts over other bounds of the same graph."""
        other = Attained(view, bounds)
        other._least = dict(self._least)
        return other

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
        if node.op in ("sub", "eq"):
            found = self._meets_maximum(node)
            return None if found is None else (found, 0.0 if node.op == "sub" else 1.0)
        if node.op == "softmax":
            n = node.shape[node.attrs["dim"]]
            return frozenset({node.attrs["dim"]}), (1.0 / n) * (1 - 64 * node.format.eps) if n else 0.0
        if node.op in ("expand", "reshape") and node.inputs and self.view.nodes[node.inputs[0]].shape == node.shape:
            return self._least.get(node.inputs[0])
        if (sums := contracted(self.view, self.bounds, node)) is not None and sums[0] in self._least:
            dims, value = self._least[sums[0]]
            return dims, value - float(sums[1].max(initial=0.0))
        op = OPS.get(node.op)
        if op is not None and op.elementwise and op.monotone == (1,) and rank and node.inputs[0] in self._least:
            dims, value = self._least[node.inputs[0]]
            point = make(np.full((1,) * rank, value), np.full((1,) * rank, value))
            image = bound(self.view.calls[node.id], [point])
            return None if image.may_nan.any() else (dims, float(image.lo.min()))
        return None

    def _meets_maximum(self, node: Node) -> Dims | None:
        """The axes of an extreme if a node compares x with its own maximum (or minimum): somewhere along them the two are equal."""
        view = self.view
        a, b = view.inputs(view.root(node.id))
        if node.op == "eq" and view.op(a) in ("amax", "amin"):
            a, b = b, a
        if view.op(b) != "amax" and (node.op == "sub" or view.op(b) != "amin"):
            return None
        x = self.bounds[a[0]]
        if x is None or x.nonfinite.any():
            return None  # inf - inf is no zero, and NaN equals nothing
        found = view.reduced(b, base=min([-1, *a[1], *b[1]]) - 1)
        if found is None:
            return None
        (inner, axes), names = found
        dims = [k for k, x in enumerate(axes) if x in names]
        if inner != a[0] or len(axes) != len(a[1]) or any(x != y for k, (x, y) in enumerate(zip(axes, a[1], strict=True)) if k not in dims):
            return None
        rank = len(node.shape)
        along = [a[1][k] for k in dims]
        return None if any(x < 0 for x in along) else frozenset(x - rank for x in along)

    def _reduced(self, node: Node) -> float | None:
        """A maximum, or a sum of non-negative terms, over axes that hold an element of at least v is at least v."""
        known = self._least.get(node.inputs[0])
        inner = self.bounds[node.inputs[0]]
        if known is None or inner is None or not known[0] <= set(node.attrs["dims"]) or 0 in self.view.nodes[node.inputs[0]].shape:
            return None  # a sum over no slices at all is 0
        if node.op == "sum" and (inner.may_nan.any() or bool((inner.lo < 0).any())):
            return None
        return known[1]
