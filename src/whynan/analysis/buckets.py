"""Numbers added up by label and read again by the same labels: what an element reads is at least what it added itself.

`counts = zeros(k).index_add(0, y, ones)` may be 0 for a label that no element has; `counts[y]` is at least 1.
"""

from math import inf, prod

from whynan.analysis.view import View
from whynan.domain.interval import Bounds, make
from whynan.ir.graph import Node, Shape

DEPTH = 12  # operations between labels and the places that they name, between a sum and where it is read
_READS = frozenset({"index", "gather", "take_flat"})


def read_again(view: View, bounds: list[Bounds | None], node: Node) -> Bounds | None:
    """Bounds of what is read from sums of non-negative numbers in a row, at the places at which they were added; None for other nodes.

    Adding what is not negative makes no sum smaller, in any order and with any rounding.
    """
    if node.op not in _READS or len(node.inputs) != 2 or not node.format.is_float:
        return None
    added = _added(view, node.inputs[0], DEPTH)
    n = _length(view.nodes[node.inputs[0]].shape, node)
    if added is None or n is None or _labels(view, bounds, added[2]) != _labels(view, bounds, node.inputs[1]):
        return None
    base, values, places = (bounds[i] for i in added)
    if base is None or values is None or places is None or base.nonfinite.any() or values.nonfinite.any():
        return None
    inside = bool((places.lo >= 0).all() and (places.hi < n).all())
    least = float(values.lo.min(initial=inf)) * (1 - 2 * node.format.eps * node.format.flush)  # compiled code may add unrounded products
    if not inside or not node.format.tiny <= least < inf or bool((base.lo < 0).any()):
        return None
    return make(least, inf, nan=True)


def _length(shape: Shape, node: Node) -> int | None:
    """How many places there are along the only axis, to which an operation's places refer; None if there are several axes."""
    axes = node.attrs.get("axes", (node.attrs.get("dim", -1),))
    whole = node.op == "take_flat" or (len(axes) == 1 and shape and shape[axes[0]] == prod(shape))
    return prod(shape) if whole else None


def _added(view: View, i: int, depth: int) -> tuple[int, int, int] | None:
    """The start, the numbers added, and their places, of a row of sums, or of its first part."""
    node = view.nodes[view.representative[i]]
    summed = node.attrs.get("accumulate") or node.op == "scatter_add" or (node.attrs.get("reduce") == "sum" and node.attrs["include_self"])
    if summed and len(node.inputs) == 3:
        base, *others = node.inputs
        values, places = others if node.op == "index_put" else others[::-1]
        return (base, values, places) if _length(node.shape, node) is not None else None
    first = node.op == "slice" and node.attrs["start"] == 0 and node.attrs["step"] == 1
    return _added(view, node.inputs[0], depth - 1) if depth and (first or node.op == "reshape") else None


def _labels(view: View, bounds: list[Bounds | None], i: int) -> int:
    """The node that holds the same whole numbers before they were moved, widened or made sure to be in range."""
    for _ in range(DEPTH):
        i = view.resolve(i, view.root(i)[1])[0]
        node = view.nodes[i]
        step = next((j for j in node.inputs if _unchanged(view, bounds, node, j)), None)
        if step is None:
            return i
        i = step
    return i


def _unchanged(view: View, bounds: list[Bounds | None], node: Node, i: int) -> bool:
    """Whether a node holds what its input does."""
    b = bounds[i]
    if b is None or view.nodes[i].format.is_float or 0 in view.nodes[i].shape:
        return False
    low, high = float(b.lo.min(initial=inf)), float(b.hi.max(initial=-inf))
    if node.op == "reshape":
        return True
    if node.op == "cast":
        return not node.format.is_float and 0 <= low <= high < 2**31 and node.format.numpy.itemsize >= 4
    if node.op == "clamp":
        ends = (node.attrs.get("low"), node.attrs.get("high"))
        return (ends[0] is None or ends[0] <= low) and (ends[1] is None or high <= ends[1])
    others = [bounds[j] for j in node.inputs if j != i]
    return node.op == "add" and len(others) == 1 and others[0] is not None and bool((others[0].lo == 0).all() and (others[0].hi == 0).all())
