"""Rows that only rise or only fall: sorted ones, the k largest, running extremes, sums and products, and what is made of them."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from whynan.analysis.monotone import SLOPES, of_function, of_sum
from whynan.analysis.slack import EXACT, Slack
from whynan.analysis.view import Vertex, View
from whynan.domain.interval import Bounds
from whynan.ir.graph import Node

MOST_ROUNDING = 0.01  # relative; of a longer running sum nothing is said
_EXTREME = {"cummax": 1, "cummin": -1}  # which way the largest, the smallest so far run
_SUMMED = frozenset({"cumsum", "cumprod"})
DEPTH = 6  # operations between a row and the one that it is made of


class _Row(NamedTuple):
    """A row rises (1) or falls (-1), where one element may be off that by `slack`."""

    direction: int
    slack: Slack


def in_order(view: View, bounds: list[Bounds | None], a: Vertex, b: Vertex, size: Callable[[Vertex], float]) -> Slack | None:
    """The slack of a <= b where both are slices of one row, at places that its order compares; None for others. `size` is a magnitude."""
    if view.op(a) != "slice" or view.op(b) != "slice" or a[1] != b[1]:
        return None
    first, second = view.node(a), view.node(b)
    source = view.representative[first.inputs[0]]
    same = first.shape == second.shape and all(first.attrs[k] == second.attrs[k] for k in ("dim", "step"))
    if not same or source != view.representative[second.inputs[0]]:
        return None
    shape = view.nodes[source].shape
    d = first.attrs["dim"] % len(shape)
    found = _Rows(view, bounds, size, d).of(view.root(source), DEPTH)
    ahead = second.attrs["start"] % shape[d] - first.attrs["start"] % shape[d]
    return found.slack if found is not None and ahead * found.direction >= 0 else None


class _Rows(NamedTuple):
    """Follows rows along one axis, by its name, to what makes them rise or fall."""

    view: View
    bounds: list[Bounds | None]
    size: Callable[[Vertex], float]
    axis: int

    def of(self, v: Vertex, depth: int) -> _Row | None:
        """How a row runs; None where that is not known."""
        node = self.view.node(v)
        if v[1].count(self.axis) != 1 or "ulps" in node.attrs or not depth:
            return None
        if "dim" in node.attrs:
            return self._scanned(node) if v[1][node.attrs["dim"]] == self.axis else None
        if node.op == "neg":
            found = self.of(self.view.inputs(v)[0], depth - 1)
            return None if found is None else _Row(-found.direction, self._both_ways(found.slack, v))
        if node.op in SLOPES:
            x = self.view.inputs(v)[0]
            return self._with(self.of(x, depth - 1), lambda slack: of_function(node.op, node.format, slack, self.size(x), self.size(v)))
        return self._shifted(v, node, depth) if node.op in ("add", "sub") else None

    def _shifted(self, v: Vertex, node: Node, depth: int) -> _Row | None:
        """A row with one number added to, or taken from, all of it, or itself taken from a number."""
        parts = self.view.inputs(v)
        own = [x for x in parts if self.axis in x[1]]
        found = self.of(own[0], depth - 1) if len(own) == 1 else None
        if found is not None and node.op == "sub" and own[0] == parts[1]:
            found = _Row(-found.direction, self._both_ways(found.slack, own[0]))
        if found is None or found.slack == EXACT:
            return found
        return self._with(found, lambda slack: of_sum(node.format, (slack, EXACT), [self.size(own[0]), 0.0], 2 * self.size(v)))

    def _with(self, row: _Row | None, change: Callable[[Slack], Slack | None]) -> _Row | None:
        slack = None if row is None else change(row.slack)
        return None if row is None or slack is None else _Row(row.direction, slack)

    def _both_ways(self, slack: Slack, v: Vertex) -> Slack:
        """A slack of a <= b as one of -b <= -a."""
        return slack if slack == EXACT else Slack(0.0, 2 * slack.relative * self.size(v) + slack.absolute)

    def _scanned(self, row: Node) -> _Row | None:
        """Sorted rows, running extremes, and running sums and products: these are added up in any order, so that each errs by itself."""
        if row.op in ("sort_values", "topk_values"):
            falls = row.attrs.get("descending", row.attrs.get("largest", False))
            return _Row(-1 if falls else 1, EXACT) if row.attrs.get("sorted", True) else None
        x = self.bounds[row.inputs[0]] if row.op in _SUMMED or row.op in _EXTREME else None
        if row.op in _EXTREME:
            return _Row(_EXTREME[row.op], EXACT) if x is not None and not x.may_nan.any() else None
        n = row.shape[row.attrs["dim"]]
        rounding, lost = 1.05 * n * row.format.eps, 4 * n * row.format.tiny  # two results err by up to n half units each
        if x is None or not row.format.is_float or x.nonfinite.any() or row.attrs.get("contracted") or rounding > MOST_ROUNDING:
            return None
        if row.op == "cumprod":
            return _Row(-1, Slack(rounding, lost)) if bool((x.lo >= 0).all() and (x.hi <= 1).all()) else None
        if bool((x.lo >= 0).all()):
            return _Row(1, Slack(rounding, lost))
        later = np.moveaxis(x.lo, row.attrs["dim"], 0)[1:]  # the first number may be any one
        largest = rounding * n * float(x.magnitude.max()) + lost
        return _Row(1, Slack(0.0, largest)) if later.size and bool((later >= 0).all()) and np.isfinite(largest) else None
