"""The square of a weighted mean is at most the weighted mean of the squares: why a variance E[x^2] - E[x]^2 is not negative.

By Cauchy and Schwarz (sum w x)^2 <= (sum w) (sum w x^2) for weights w >= 0. So it is for convolutions with a kernel that is not negative,
pools and means, one after another (a separable kernel), with padding and other moves of elements in between. Along such a chain both
values are followed as they are computed: m_i^2 <= c q_i + t at each element, with c near the product of the sums of the weights.
"""

from dataclasses import dataclass
from math import inf, prod
from typing import NamedTuple

import numpy as np

from whynan.analysis.view import Vertex, View
from whynan.domain.interval import Bounds
from whynan.ir.dtype import Format
from whynan.ir.graph import Node
from whynan.ops._opdef import OPS

DEPTH = 24  # operations in one chain
MOST_ERROR = 0.01  # relative, of one sum
OUTWARD = 1 + 2.0**-40  # for the float64 arithmetic here
MOVED_BY_VALUES = frozenset({"sort_values", "topk_values", "kth", "gather", "take_flat", "index", "masked_select"})


class Below(NamedTuple):
    """By how much a square can exceed what it is compared with: m^2 <= factor q + lost."""

    factor: float
    lost: float

    def rounded(self, fmt: Format) -> "Below":
        """The same of a square that is rounded once more."""
        return Below(self.factor * (1 + fmt.eps) * OUTWARD, self.lost * (1 + fmt.eps) * OUTWARD + 2 * fmt.tiny)


@dataclass(frozen=True, slots=True)
class _Weights:
    """A sum over a window: the most that its weights add up to, how many they are."""

    total: float
    count: int


def square_of_mean(view: View, bounds: list[Bounds | None], square: Vertex, mean: Vertex) -> Below | None:
    """How far the computed `square` (m * m) of a weighted mean m may exceed the `mean` of squares, with equal weights; None if unknown.

    Also of two such squares that are added, where the mean is of two squares added.
    """
    fmt = view.node(square).format
    if view.op(square) == "add" and fmt.is_float and "ulps" not in view.node(square).attrs:
        parts = [squared_value(view, bounds, part) for part in view.inputs(square)]
        if not all(m is not None and m[1] == mean[1] and view.node(m).format is fmt for m in parts):
            return None
        found = _followed(view, bounds, mean[0], tuple(m[0] for m in parts if m is not None), DEPTH)
        return None if found is None else found.rounded(fmt).rounded(fmt)
    m = squared_value(view, bounds, square)
    return None if m is None else mean_squared(view, bounds, m, mean, fmt)


def squared_value(view: View, bounds: list[Bounds | None], square: Vertex) -> Vertex | None:
    """What a finite value is the square of, correctly rounded; None if it is none."""
    if view.op(square) not in ("square", "mul") or "ulps" in view.node(square).attrs or not view.node(square).format.is_float:
        return None
    m, *others = view.inputs(square)
    return m if all(u == m for u in others) and _finite(bounds, square[0]) else None


def mean_squared(view: View, bounds: list[Bounds | None], m: Vertex, mean: Vertex, fmt: Format) -> Below | None:
    """How far the square of a weighted mean m, rounded in that format, may exceed the `mean` of squares, with equal weights."""
    found = _followed(view, bounds, mean[0], (m[0],), DEPTH) if m[1] == mean[1] else None
    return None if found is None else found.rounded(fmt)


def _followed(view: View, bounds: list[Bounds | None], q: int, ms: tuple[int, ...], depth: int) -> Below | None:
    """The sum of m^2 <= factor q + lost at each element of the nodes, as computed."""
    q, ms = view.representative[q], tuple(view.representative[m] for m in ms)
    mean, values = view.nodes[q], [view.nodes[m] for m in ms]
    alike = all(v.shape == mean.shape and v.format is mean.format for v in values)
    if depth == 0 or not alike or not all(_finite(bounds, i) for i in (q, *ms)):
        return None
    if (squared := _squares(view, mean)) is not None and sorted(squared) == sorted(ms):
        rounding = (1 - mean.format.eps) ** len(ms)
        return Below(OUTWARD / rounding, 4 * len(ms) * mean.format.tiny)
    inputs = [view.representative[i] for i in mean.inputs]
    if not inputs or not all(_same(mean, v) and inputs[1:] == [view.representative[i] for i in v.inputs[1:]] for v in values):
        return None
    before = _followed(view, bounds, inputs[0], tuple(v.inputs[0] for v in values), depth - 1)
    if before is None or _moves(mean):
        return before
    weights = _weights(view, bounds, mean)
    return None if weights is None else _summed(before, weights, mean.format, [_magnitude(bounds, v.inputs[0]) for v in values])


def _squares(view: View, node: Node) -> list[int] | None:
    """The nodes whose squares, correctly rounded, a node is (or the sum of two such squares); None for others."""
    if "ulps" in node.attrs or not node.format.is_float or any(view.nodes[i].shape != node.shape for i in node.inputs):
        return None
    inputs = [view.representative[i] for i in node.inputs]
    if node.op in ("square", "mul"):
        return inputs[:1] if len(set(inputs)) == 1 else None
    parts = [_squares(view, view.nodes[i]) for i in inputs] if node.op == "add" else []
    return [m for part in parts if part for m in part] if len(parts) == 2 and all(part and len(part) == 1 for part in parts) else None


def _same(a: Node, b: Node) -> bool:
    """Whether two nodes do the same to their inputs."""
    return a.op == b.op and a.attrs.keys() == b.attrs.keys() and all(np.array_equal(a.attrs[k], b.attrs[k]) for k in a.attrs)


def _moves(node: Node) -> bool:
    """Whether elements only move, or zeros come in between."""
    if node.op == "pad":
        return not np.any(node.attrs.get("value", 0))
    op = OPS.get(node.op)
    return node.op.startswith("pad_") or (op is not None and op.moves and node.op not in MOVED_BY_VALUES and len(node.inputs) == 1)


def _weights(view: View, bounds: list[Bounds | None], node: Node) -> _Weights | None:
    """The weights of a window sum; None if they may be negative or the node is none."""
    shape = view.nodes[node.inputs[0]].shape
    if node.op == "mean" and len(node.inputs) == 1:
        return _Weights(1.0, prod(shape[d] for d in node.attrs["dims"]))
    if node.op == "avg_pool":
        return _Weights(1.0, prod(node.attrs["kernel"]))
    if node.op != "conv" or node.attrs.get("transposed") or len(node.inputs) != 2:
        return None
    kernel = bounds[node.inputs[1]]
    if kernel is None or kernel.may_nan.any() or not bool((kernel.lo >= 0).all()):
        return None
    full = view.nodes[node.inputs[1]].shape
    total = float(np.broadcast_to(kernel.hi, full).sum(axis=tuple(range(1, len(full)))).max(initial=0.0))
    return _Weights(total * OUTWARD, prod(full[1:])) if total < inf else None


def _summed(before: Below, weights: _Weights, fmt: Format, largest: list[float]) -> Below | None:
    """What holds after a weighted sum, given what holds of its terms; `largest` has the magnitude of each value m.

    With A = sum w |m|: A^2 <= S sum w m^2 <= S (c sum w q + S t), also added up over several m. The computed sums are off by at most
    e A + l and e (sum w q) + l, for any order of the additions, and by way of a wider format or not.
    """
    error = (weights.count + 8) * fmt.eps
    if not error < MOST_ERROR or not max(largest) < inf:
        return None
    lost = (weights.count + 1) * 2 * fmt.tiny * (1 + weights.total)
    total, sizes = weights.total, [weights.total * m * (1 + error) + lost for m in largest]
    factor = (1 + error) ** 2 / (1 - error) * total * before.factor
    rest = (1 + error) ** 2 * total**2 * before.lost + factor * lost + sum(2 * size * lost + lost**2 for size in sizes)
    return Below(factor * OUTWARD, rest * OUTWARD)


def _finite(bounds: list[Bounds | None], i: int) -> bool:
    b = bounds[i]
    return b is not None and b.finite


def _magnitude(bounds: list[Bounds | None], i: int) -> float:
    b = bounds[i]
    return inf if b is None else float(b.magnitude.max(initial=0.0))
