"""How small a value can be that is not zero.

1 - x is 0 or at least the distance of the numbers below 1, 6e-8 in float32, however close x is to 1: where c / 2 <= x <= 2 c both numbers
are multiples of the spacing at c / 2 and their difference is exact, and elsewhere |c - x| >= c / 2. What keeps, chooses, adds (without a
sign) or scales such values keeps them away from zero. So a sum of pulses relu(1 - |d| / width) of a histogram can be a divisor wherever
it is positive.
"""

from collections.abc import Sequence

import numpy as np

from whynan.analysis.view import View
from whynan.domain.interval import Bounds
from whynan.ir.dtype import spacing
from whynan.ir.graph import Node

NEAR = 1e-9  # a bound so close to zero is looked at
MOST_CONSTANTS = 64  # different numbers in one
_KEEPING = frozenset(
    """reshape permute expand slice index gather masked_select concat flip diagonal sort neg abs relu maximum minimum amax amin where cast
    index_put masked_scatter""".split()
)
_ADDING = frozenset({"add", "sum", "cumsum"})


def apart(view: View, bounds: Sequence[Bounds | None], i: int, known: dict[int, float]) -> float:
    """A number that no finite value of the node other than zero lies below in magnitude; 0 if none is known. `known` is filled."""
    i = view.representative[i]
    if i not in known:
        known[i] = 0.0
        known[i] = _apart(view, bounds, view.nodes[i], known)
    return known[i]


def _apart(view: View, bounds: Sequence[Bounds | None], node: Node, known: dict[int, float]) -> float:
    def of(k: int) -> float:
        return apart(view, bounds, node.inputs[k], known)

    fmt, op = node.format, node.op
    if not fmt.is_float:
        return 1.0
    if op == "const":
        values = np.abs(np.asarray(node.attrs["value"], np.float64))
        return float(np.min(values[values > 0], initial=fmt.max))
    adds = op in _ADDING or bool(node.attrs.get("accumulate"))
    if adds and (node.attrs.get("contracted") or not all(_unsigned(bounds[node.inputs[k]]) for k in range(len(node.inputs)) if k < 2)):
        return 0.0  # else what is added makes nothing smaller, in any order
    if op in _KEEPING or op in _ADDING:
        found = min(of(k) for k in range(len(node.inputs)))
    elif op == "sub":
        found = max(_from_constant(view, node, 0), _from_constant(view, node, 1))
    elif op == "mul" and len(node.inputs) == 2:
        found = of(0) * of(1)
    elif op == "div":
        divisor = bounds[node.inputs[1]]
        found = of(0) / max(float(divisor.magnitude.max(initial=0.0)), fmt.tiny) if divisor is not None else 0.0
    else:
        found = 0.0
    found *= 1 - (2 + int(node.attrs.get("ulps", 0))) * fmt.eps
    return found if found > 2 * fmt.tiny else 0.0


def _from_constant(view: View, node: Node, k: int) -> float:
    """What a difference from a constant, its operand number k, is away from zero at least."""
    constant, other = view.nodes[node.inputs[k]], view.nodes[node.inputs[1 - k]]
    if constant.op != "const" or constant.format.name != node.format.name or other.format.name != node.format.name:
        return 0.0
    half = np.unique(np.abs(np.asarray(constant.attrs["value"], np.float64))) / 2
    if not 0 < half.size <= MOST_CONSTANTS or not node.format.tiny <= half[0] <= half[-1] < np.inf:
        return 0.0
    return min(spacing(node.format, c) for c in half.tolist())


def _unsigned(b: Bounds | None) -> bool:
    return b is not None and not b.may_nan.any() and bool((b.lo >= 0).all())
