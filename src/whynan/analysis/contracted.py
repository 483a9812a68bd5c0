"""Sums that a compiler may contract with a product: how far they can be from the sum that is written."""

from collections.abc import Sequence

from whynan.analysis.view import View
from whynan.domain.interval import Bounds
from whynan.ir.dtype import Float64
from whynan.ir.graph import Node


def contracted(view: View, bounds: Sequence[Bounds | None], node: Node) -> tuple[int, Float64] | None:
    """The plain sum of an `either` of a sum and fused ones, and a limit of the difference (element by element).

    A fused sum lacks the rounding of one product, no more. None for other nodes, and where the plain sum may not be finite.
    """
    ways = [view.nodes[i] for i in node.inputs] if node.op == "either" else []
    plain = [n for n in ways if n.op in ("add", "sub")]
    if len(plain) != 1 or any(n.op != "fma" for n in ways if n is not plain[0]):
        return None
    total, left, right = (bounds[i] for i in (plain[0].id, *plain[0].inputs))
    if total is None or left is None or right is None or total.nonfinite.any():
        return None
    # each product is rounded by at most half an ulp (or to zero), and so are the two sums
    formats = [view.nodes[i].format for i in (node.id, *plain[0].inputs)]
    eps, tiny = max(f.eps for f in formats), max(f.tiny for f in formats)
    return plain[0].id, 4 * (eps * (left.magnitude + right.magnitude) + tiny)
