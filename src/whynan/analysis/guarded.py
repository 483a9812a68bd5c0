"""What a condition says of the difference that it guards: where(a > b, a - b, c) reads a - b only where that is positive.

Two different floats of one format differ by at least the spacing of the smaller magnitude, and their difference is rounded to no less:
with gradual underflow it is never zero.
"""

from collections.abc import Sequence

import numpy as np

from whynan.analysis.view import Vertex, View
from whynan.domain.interval import Bounds, join, make, meet
from whynan.ir.dtype import Format, spacing
from whynan.ir.graph import Node

# what holds where the comparison is true, and where it is false: the sign of a - b, and whether it can be zero
_SAYS = {"gt": ((1, False), (-1, True)), "ge": ((1, True), (-1, False)), "lt": ((-1, False), (1, True)), "le": ((-1, True), (1, False))}


def guarded(view: View, bounds: Sequence[Bounds | None], node: Node) -> Bounds | None:
    """Bounds of a `where` whose condition compares the operands of a difference that it selects; None for anything else."""
    if node.op != "where":
        return None
    condition, *ways = view.inputs(view.root(node.id))
    if view.op(condition) not in _SAYS:
        return None
    pair, before = view.inputs(condition), [bounds[i] for i in node.inputs[1:]]
    compared = [bounds[v[0]] for v in pair]
    if any(b is None or b.may_nan.any() for b in (*before, *compared)):
        return None  # a comparison with NaN is false, whatever the difference
    found = []
    for way, b, says in zip(ways, before, _SAYS[view.op(condition)], strict=True):
        limit = _limit(view, [c for c in compared if c is not None], pair, way, *says)
        assert b is not None
        found.append(b if limit is None else meet(b, limit, node.format))
    return join(*found)


def _limit(view: View, compared: list[Bounds], pair: tuple[Vertex, ...], way: Vertex, sign: int, equal: bool) -> Bounds | None:
    if view.op(way) != "sub" or "ulps" in view.node(way).attrs or set(view.inputs(way)) != set(pair) or pair[0] == pair[1]:
        return None
    fmt = view.node(way).format
    if not fmt.is_float or any(view.node(v).format.name != fmt.name for v in pair):
        return None
    sign = sign if view.inputs(way) == pair else -sign
    least = 0.0 if equal else _apart(fmt, compared)
    return make(least, np.inf, nan=True) if sign > 0 else make(-np.inf, -least, nan=True)


def _apart(fmt: Format, compared: list[Bounds]) -> float:
    """By how much two different values must differ; 0 where the difference may be flushed to zero."""
    smallest = min(
        float(np.where((b.lo <= 0) & (b.hi >= 0), 0.0, np.minimum(np.abs(b.lo), np.abs(b.hi))).min(initial=np.inf)) for b in compared
    )
    step = max(spacing(fmt, smallest), fmt.smallest) if np.isfinite(smallest) else 0.0
    return step if not fmt.flush or step >= fmt.tiny else 0.0
